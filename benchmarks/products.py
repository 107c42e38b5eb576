"""Matrix products of many shapes, kinds of storage and known or unknown sizes, beside torch (MKL) and NumPy (OpenBLAS).

    python -m benchmarks.products [--only nn:64x64x64,tn:784x512x64::k] [--peers torch] [--rounds 9]
    GRAPHC_TARGET=x86-64-v3 OPENBLAS_CORETYPE=Haswell MKL_ENABLE_INSTRUCTIONS=AVX2 python -m benchmarks.products

A product is written `kinds:[batch x] m x n x k[:dtype[:unknown]]`: t is an operand that is stored transposed, and the
letters of the last part name sizes that are arguments of the compiled function.  One thread, results into arrays that
exist, rounds interleaved within one process, medians of process CPU time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
import os
from statistics import median
import sys
from time import process_time
from typing import Any

import numpy as np

import graphc as gc

from .workloads import Array, aligned

SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GRAPHC_CACHE": "off"}
SAMPLE = 4e-3  # seconds of a round
SHAPES = """
nn:64x64x64 nn:128x128x128 nn:256x256x256 nn:512x512x512 nn:1024x1024x1024 nn:2048x2048x2048
nn:256x256x256:float64 nn:512x512x512:float64 nn:1024x1024x1024:float64
nn:64x100x1000 nn:64x1000x100 nn:1000x100x64 nn:8x512x512 nn:33x77x129 nn:100x100x100 nn:1000x10x784 nn:256x10x256
nn:1x1000x1000 nt:1x1000x1000 nn:1x4000x4000 nt:1x4000x4000 nn:1000x1000x1
nn:64x512x784 nn:256x512x784 tn:784x512x64 tn:784x512x256 nt:64x512x256 nt:256x512x256 tn:256x10x64 nt:64x256x10
nn:100x8x8x8 nn:32x64x64x64
nn:64x512x784::m nn:256x512x784::m nn:128x128x128::mnk nn:512x512x512::mnk nn:1024x1024x1024::mnk
""".split()
Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A product as it is written on the command line."""

    kinds: str
    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    dtype: str = "float32"
    unknown: str = ""

    @staticmethod
    def of(text: str) -> Case:
        kinds, sizes, *more = text.split(":")
        *batch, m, n, k = (int(size) for size in sizes.split("x"))
        return Case(kinds, tuple(batch), m, n, k, *(more[:1] if more and more[0] else ["float32"]), *more[1:])

    @property
    def flops(self) -> int:
        return 2 * prod((*self.batch, self.m, self.n, self.k))

    def axes(self, operand: int) -> str:
        """Letters of the last two axes as the operand is stored."""
        letters = "mk" if operand == 0 else "kn"
        return letters[::-1] if self.kinds[operand] == "t" else letters

    def array(self, operand: int) -> Array:
        sizes = {"m": self.m, "n": self.n, "k": self.k}
        shape = (*self.batch, *(sizes[letter] for letter in self.axes(operand)))
        return aligned(np.random.default_rng(operand).standard_normal(shape).astype(self.dtype))

    def turned(self, operand: int, value: Any) -> Any:
        """The stored operand as the factor."""
        return np.swapaxes(value, -1, -2) if self.kinds[operand] == "t" else value


def ours(case: Case, a: Array, b: Array) -> tuple[Call, Array]:
    """The compiled product, and where its result is."""
    with gc.Graph():
        nodes = [gc.placeholder(case.dtype, (*case.batch, *(
            letter if letter in case.unknown else size for letter, size in zip(case.axes(i), value.shape[-2:]))),
            name="ab"[i]) for i, value in enumerate((a, b))]
        factors = [gc.swapaxes(node, -1, -2) if case.kinds[i] == "t" else node for i, node in enumerate(nodes)]
        function = gc.Session().function(nodes, factors[0] @ factors[1])
    out = aligned(function(a, b))
    return partial(function, a, b, out=out), out


def with_torch(case: Case, a: Array, b: Array) -> Call:
    import torch
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    factors = [t.transpose(-1, -2) if case.kinds[i] == "t" else t for i, t in enumerate(map(torch.from_numpy, (a, b)))]
    return partial(torch.matmul, *factors, out=torch.empty(*case.batch, case.m, case.n, dtype=factors[0].dtype))


def calls(case: Case, peers: Sequence[str]) -> dict[str, Call]:
    """What is timed; our result is checked first."""
    a, b = case.array(0), case.array(1)
    call, out = ours(case, a, b)
    call()
    factors = [case.turned(i, value) for i, value in enumerate((a, b))]
    exact = factors[0].astype("float64") @ factors[1].astype("float64")
    bound = (1e-5 if case.dtype == "float32" else 1e-12) * np.abs(exact).max()
    assert np.abs(out - exact).max() <= bound, f"{case}: off by {np.abs(out - exact).max()}"
    found = {"graphc": call, "numpy": partial(np.matmul, *factors, out=np.empty_like(out))}
    return found | ({"torch": with_torch(case, a, b)} if "torch" in peers else {})


def measure(found: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Seconds per call."""
    counts = {name: max(1, round(SAMPLE / max(timed(call, 3), 1e-7))) for name, call in found.items()}
    samples: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, call in found.items():
            samples[name].append(timed(call, counts[name]))
    return {name: median(values) for name, values in samples.items()}


def timed(call: Call, count: int) -> float:
    began = process_time()
    for _ in range(count):
        call()
    return (process_time() - began) / count


def line(text: str, peers: Sequence[str], rounds: int) -> str:
    case = Case.of(text)
    seconds = measure(calls(case, peers), rounds)
    best = min(value for name, value in seconds.items() if name != "graphc")
    rates = " | ".join(f"{case.flops / seconds[name] / 1e9:.1f}" if name in seconds else "" for name in
                       ("graphc", "torch", "numpy"))
    return f"| {text} | {seconds['graphc'] * 1e6:.1f} | {rates} | {seconds['graphc'] / best:.2f} |"


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description="Times matrix products.")
    parser.add_argument("--only", type=listed, default=SHAPES, help="products, as SHAPES has them")
    parser.add_argument("--peers", type=listed, default=["torch"], help="beside NumPy")
    parser.add_argument("--rounds", type=int, default=9)
    wanted = parser.parse_args(given)
    print("| product | µs | graphc, GF/s | torch | numpy | time / best peer's |\n|---|---|---|---|---|---|")
    for text in wanted.only:
        print(line(text, wanted.peers, wanted.rounds), flush=True)


if __name__ == "__main__":
    if os.environ.keys() >= SETTINGS.keys():
        main()
    else:  # libraries read them when they are loaded
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.products", *sys.argv[1:]], os.environ | SETTINGS)
