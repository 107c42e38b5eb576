"""Shared objects: how long calls from C take beside functions written by hand, and how long it takes to build one.

    python -m benchmarks.libraries                 all; needs a C compiler for the rivals
    python -m benchmarks.libraries --only calls

calls     ten elements, our library and one of the same functions in C (`cc -O3 -march=native`), which checks its
          arguments as ours does; interleaved in a C program, process-CPU time
build     a tanh network 4-8-3 and its Jacobian, from the graph to the file, in processes of their own without a cache;
          beside CasADi, which writes C, and its compiler.  Imports are not counted.  Behind the size of the file: the
          time from opening the library to the end of its first call
weights   a library around a matrix of 100 MB, its values in the file
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
import ctypes
import json
from pathlib import Path
from statistics import median
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from .native import HERE, built
from .workloads import aligned

PARTS = ("calls", "build", "weights")
INPUTS, HIDDEN, OUTPUTS = 4, 8, 3


# -- calls --
def calls(rounds: int) -> None:
    """Prints nanoseconds per call, ours and by hand, and the median of their ratios."""
    import graphc as gc
    with TemporaryDirectory(prefix="benchmarks-") as folder, gc.Graph():
        x, d = gc.placeholder("float32", (10,), name="x"), gc.placeholder("float64", (10,), name="d")
        n = gc.placeholder("float32", ("n",), name="any")
        entries = {"scale_float": gc.signature([x], x * 2 + 1), "scale_double": gc.signature([d], d * 2 + 1),
                   "gradient": gc.signature([d], gc.gradients(gc.sum(gc.sin(d) * d), [d])),
                   "scale_any": gc.signature([n], n * 2 + 1)}
        ours, program = gc.compile_library(folder, "calls", entries), Path(folder) / "main"
        subprocess.run(["cc", "-O2", str(HERE / "call_from_c.c"), "-o", str(program), "-ldl"], check=True)
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(rounds):
            done = subprocess.run([str(program), str(ours), str(built("call_by_hand"))], check=True, text=True,
                                  capture_output=True)
            for name, a, b in map(str.split, done.stdout.splitlines()):
                found[name].append((float(a), float(b)))
    print(f"{'ns per call':16}{'ours':>8}{'by hand':>10}{'ratio':>8}")
    for name, pairs in found.items():
        cells = [median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)]
        print(f"{name:16}{cells[0]:8.2f}{cells[1]:10.2f}{cells[2]:8.2f}")


# -- builds, each in a process of its own --
def parameters() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, OUTPUTS), (OUTPUTS,))]


def build_graphc(folder: str) -> tuple[Path, float, Any]:
    """The library, the seconds it took, and its call."""
    import llvmlite.binding  # noqa: F401 - what the library imports when it is used
    import graphc as gc
    for name in gc.MODULE_OF:
        getattr(gc, name)
    values = parameters()
    start = perf_counter()
    x = gc.placeholder("float64", (INPUTS,), name="x")
    w, b, v, c = (gc.variable(value, name=name) for value, name in zip(values, "wbvc", strict=True))
    y = gc.tanh(x @ w + b) @ v + c
    with gc.Session(cache=0) as session:
        path = gc.compile_library(folder, "network", {"network": gc.signature([x], [y, gc.jacobian(y, x)])},
                                  session=session)
    return path, perf_counter() - start, first_call_graphc


def build_casadi(folder: str) -> tuple[Path, float, Any]:
    import casadi
    values = parameters()
    start = perf_counter()
    x = casadi.SX.sym("x", INPUTS)
    w, b, v, c = (casadi.DM(value) for value in values)
    y = casadi.mtimes(v.T, casadi.tanh(casadi.mtimes(w.T, x) + b)) + c
    network = casadi.Function("network", [x], [y, casadi.jacobian(y, x)])
    generator = casadi.CodeGenerator("network")
    generator.add(network)
    generator.generate(f"{folder}/")
    path = Path(folder) / "network.so"
    subprocess.run(["cc", "-O3", "-march=native", "-fPIC", "-shared", f"{folder}/network.c", "-o", str(path), "-lm"],
                   check=True)
    return path, perf_counter() - start, first_call_casadi


def first_call_graphc(path: Path, x: Any, y: Any, jacobian: Any) -> None:
    library = ctypes.CDLL(str(path))
    library.network_network_workspace_size.restype = ctypes.c_int64
    workspace = aligned(np.empty(library.network_network_workspace_size(), "uint8"))
    if library.network_network(pointer(x), pointer(y), pointer(jacobian), pointer(workspace)):
        raise RuntimeError("the first call failed")


def first_call_casadi(path: Path, x: Any, y: Any, jacobian: Any) -> None:
    library = ctypes.CDLL(str(path))
    arguments = (ctypes.c_void_p * 1)(x.ctypes.data)
    results = (ctypes.c_void_p * 2)(y.ctypes.data, jacobian.ctypes.data)
    library.network(arguments, results, (ctypes.c_longlong * 64)(), (ctypes.c_double * 4096)(), 0)


def pointer(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def build_child(peer: str) -> dict[str, float]:
    """The figures of one build; the results of the first call are checked."""
    w, b, v, c = parameters()
    x, y, jacobian = np.linspace(-1, 1, INPUTS), np.zeros(OUTPUTS), np.zeros((OUTPUTS, INPUTS))
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        path, seconds, first = {"graphc": build_graphc, "casadi": build_casadi}[peer](folder)
        start = perf_counter()
        first(path, x, y, jacobian)
        found = {"build": seconds, "first": perf_counter() - start, "bytes": float(path.stat().st_size)}
    hidden = np.tanh(x @ w + b)
    right = (w * (1 - hidden ** 2)) @ v
    if peer == "casadi":  # column by column
        jacobian = jacobian.reshape(INPUTS, OUTPUTS).T
    if np.abs(y - hidden @ v - c).max() > 1e-12 or np.abs(jacobian - right.T).max() > 1e-12:
        raise RuntimeError(f"{peer}: wrong results")
    return found


def weights_child(_: str) -> dict[str, float]:
    import graphc as gc
    value = np.ones((5000, 5000), "float32")
    x, w = gc.placeholder("float32", (5000,), name="x"), gc.variable(value, name="w")
    with TemporaryDirectory(prefix="benchmarks-") as folder, gc.Session() as session:
        session.value(w)
        start = perf_counter()
        path = gc.compile_library(folder, "big", {"run": gc.signature([x], w @ x)}, session=session, weights="data")
        return {"build": perf_counter() - start, "bytes": float(path.stat().st_size)}


CHILDREN = {"build": (build_child, ("graphc", "casadi")), "weights": (weights_child, ("graphc",))}


def builds(part: str, rounds: int) -> None:
    """Prints the medians of several processes, taken in turns."""
    _, peers = CHILDREN[part]
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for peer in peers:
            done = subprocess.run([sys.executable, "-m", "benchmarks.libraries", "--child", part, peer], text=True,
                                  cwd=HERE.parent, capture_output=True, check=False)
            if done.returncode:
                print(f"{part:8} {peer}: {done.stderr.strip()[-300:]}", file=sys.stderr)
                continue
            found[peer].append(json.loads(done.stdout.splitlines()[-1]))
    for peer, rows in found.items():
        first = f"{1e3 * median(row['first'] for row in rows):10.3f} ms" if "first" in rows[0] else ""
        print(f"{part:8} {peer:8}{median(row['build'] for row in rows):8.3f} s"
              f"{median(row['bytes'] for row in rows) / 1000:12.1f} kB{first}", flush=True)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (%(default)s)")
    wanted = parser.parse_args(given)
    parts = wanted.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    for part in parts:
        if part == "calls":
            calls(wanted.rounds)
        else:
            builds(part, wanted.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]][0](sys.argv[3])))
    else:
        main()
