"""Speed of every elementwise function: nanoseconds per element, 16384 elements in cache, one thread.

    python -m benchmarks.vector_math [--only exp,tanh] [--rounds 15] [--json FILE] [--write docs]

Ours is compiled for this machine and for x86-64-v3; the others are NumPy (SciPy where NumPy has no such function),
torch and jax.  All write to an array that exists, but for jax, which cannot; arrays begin on lines of the cache.
Rounds are interleaved within one process and timed in process CPU time; a figure is the median of its rounds.  `lines`
are lines of LLVM IR of one vector.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
import json
import os
from pathlib import Path
from statistics import median
import time
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from codegen import scalars
from codegen.target import target
from codegen.text import Function, Module
from codegen.vectors import Lanes
import graphc as gc
from graphc.ir import build

SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GRAPHC_CACHE": "off", "CUDA_VISIBLE_DEVICES": ""}
COUNT = 16384
TRIP_SECONDS = 1e-3
PEERS = ("numpy", "torch", "jax")
DOCUMENT = Path(__file__).parents[1] / "docs" / "vector_math.md"
START, END = "<!-- speed -->\n", "<!-- end of speed -->\n"
Call = Callable[[], Any]
Array = np.ndarray[Any, Any]


class Row(NamedTuple):
    """One op: its operands' ranges and what the others call it; a name of torch or jax may have a module before it."""

    numpy: str | Callable[..., Any]
    torch: str
    jax: str
    ranges: tuple[tuple[float, float], ...]
    dtypes: tuple[str, ...] = ("float32", "float64")
    result: str = ""  # where it is not that of the operands
    attrs: Mapping[str, Any] = MappingProxyType({})


def scipy(name: str) -> Callable[..., Any]:
    import scipy.special
    function: Callable[..., Any] = getattr(scipy.special, name)
    return function


def numpy_rsqrt(x: Array, out: Array) -> Array:
    return np.divide(1, np.sqrt(x, out=out), out=out)


def numpy_softplus(x: Array, out: Array) -> Array:
    return np.logaddexp(x, 0, out=out)


def numpy_relu(x: Array, out: Array) -> Array:
    return np.maximum(x, 0, out=out)


def numpy_polygamma(x: Array, out: Array) -> Array:
    out[:] = scipy("polygamma")(1, x)
    return out


def numpy_cast(x: Array, out: Array) -> Array:
    out[:] = x
    return out


WHOLE, ANGLE, UNIT, POSITIVE = ((-10.0, 10.0),), ((-20.0, 20.0),), ((-0.999, 0.999),), ((0.01, 100.0),)
PAIR = ((-10.0, 10.0), (-10.0, 10.0))
INTEGERS = ("int32", "int64")
WHOLES = ((-1000.0, 1000.0), (1.0, 100.0))


def plain(*names: str, ranges: tuple[tuple[float, float], ...] = WHOLE) -> dict[str, Row]:
    return {name: Row(name, name, f"numpy.{name}", ranges) for name in names}


ROWS: dict[str, Row] = {
    **plain("exp", "exp2", "expm1"),
    **plain("log", "log2", "log10", "log1p", ranges=POSITIVE),
    "pow": Row("power", "pow", "numpy.power", ((0.01, 10.0), (-5.0, 5.0))),
    "sigmoid": Row("scipy.expit", "sigmoid", "nn.sigmoid", WHOLE),
    "softplus": Row(numpy_softplus, "nn.functional.softplus", "nn.softplus", WHOLE),
    "sqrt": Row("sqrt", "sqrt", "numpy.sqrt", POSITIVE),
    "rsqrt": Row(numpy_rsqrt, "rsqrt", "lax.rsqrt", POSITIVE),
    "cbrt": Row("cbrt", "", "numpy.cbrt", WHOLE),
    **plain("sin", "cos", "tan", ranges=ANGLE),
    "sin wide": Row("sin", "sin", "numpy.sin", ((-1e5, 1e5),)),
    "sin huge": Row("sin", "sin", "numpy.sin", ((-1e30, 1e30),)),
    "asin": Row("arcsin", "asin", "numpy.arcsin", UNIT),
    "acos": Row("arccos", "acos", "numpy.arccos", UNIT),
    "atan": Row("arctan", "atan", "numpy.arctan", WHOLE),
    "atan2": Row("arctan2", "atan2", "numpy.arctan2", PAIR),
    **plain("sinh", "cosh", "tanh"),
    "asinh": Row("arcsinh", "asinh", "numpy.arcsinh", WHOLE),
    "acosh": Row("arccosh", "acosh", "numpy.arccosh", ((1.0, 10.0),)),
    "atanh": Row("arctanh", "atanh", "numpy.arctanh", UNIT),
    "hypot": Row("hypot", "hypot", "numpy.hypot", PAIR),
    "erf": Row("scipy.erf", "special.erf", "scipy.special.erf", ((-3.0, 3.0),)),
    "erfc": Row("scipy.erfc", "special.erfc", "scipy.special.erfc", ((-3.0, 3.0),)),
    "lgamma": Row("scipy.gammaln", "lgamma", "scipy.special.gammaln", ((0.1, 20.0),)),
    "digamma": Row("scipy.digamma", "digamma", "scipy.special.digamma", ((0.1, 20.0),)),
    "polygamma": Row(numpy_polygamma, "", "", ((0.1, 20.0),), attrs={"order": 1}),
    "div": Row("divide", "div", "numpy.divide", PAIR),
    "mod": Row("remainder", "remainder", "numpy.remainder", ((-100.0, 100.0), (1.0, 10.0))),
    "floor_divide": Row("floor_divide", "floor_divide", "numpy.floor_divide", ((-100.0, 100.0), (1.0, 10.0))),
    **plain("maximum", "minimum", ranges=PAIR),
    **plain("floor", "ceil", "trunc"),
    "round": Row("rint", "round", "numpy.rint", WHOLE),
    "relu": Row(numpy_relu, "relu", "nn.relu", WHOLE),
    "sign": Row("sign", "sign", "numpy.sign", WHOLE),
    "copysign": Row("copysign", "copysign", "numpy.copysign", PAIR),
    "floor_divide int": Row("floor_divide", "floor_divide", "numpy.floor_divide", WHOLES, INTEGERS),
    "mod int": Row("remainder", "remainder", "numpy.remainder", WHOLES, INTEGERS),
    "pow int": Row("power", "pow", "numpy.power", ((-10.0, 10.0), (0.0, 9.0)), INTEGERS),
    "cast to int32": Row(numpy_cast, "", "", WHOLE, result="int32", attrs={"dtype": "int32"}),
    "cast to int64": Row(numpy_cast, "", "", WHOLE, result="int64", attrs={"dtype": "int64"}),
    "cast to float32": Row(numpy_cast, "", "", WHOLE, ("float64", "int32", "int64"), "float32", {"dtype": "float32"}),
    "cast to float64": Row(numpy_cast, "", "", WHOLE, ("float32", "int32", "int64"), "float64", {"dtype": "float64"}),
}


@dataclass
class Line:
    """The figures of an op on a dtype: peer -> nanoseconds per element."""

    name: str
    dtype: str
    lines: int
    nanoseconds: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.nanoseconds["graphc"] / self.nanoseconds["numpy"]


def operands(row: Row, dtype: str) -> list[Array]:
    random = np.random.default_rng(3)
    arrays = []
    for number, (low, high) in enumerate(row.ranges, 1):
        arrays.append(empty(dtype, 1024 * number))
        arrays[-1][:] = random.uniform(low, high, COUNT).astype(dtype)
    return arrays


def empty(dtype: str, place: int = 0) -> Array:
    """An array that begins `place` bytes behind a page: a load never waits for a store to a like place of a page."""
    nbytes = COUNT * np.dtype(dtype).itemsize
    memory = np.empty(nbytes + 8192, np.uint8)
    start = -memory.ctypes.data % 4096 + place
    return memory[start:start + nbytes].view(dtype)


# -- the peers: a call without arguments each, or None where there is no such function --
def ours(name: str, row: Row, dtype: str, machine: str, arrays: list[Array]) -> Call:
    places = [gc.placeholder(dtype, (COUNT,)) for _ in arrays]
    result = build.cast(places[0], row.attrs["dtype"]) if name.startswith("cast") else build.elementwise(
        name.split()[0], *places, **row.attrs)
    function = gc.Session(target=machine, threads=1).function(places, result)
    return partial(function, *arrays, out=empty(row.result or dtype))


def by_numpy(row: Row, dtype: str, arrays: list[Array]) -> Call:
    function = row.numpy
    if isinstance(function, str):
        function = scipy(function[6:]) if function.startswith("scipy.") else getattr(np, function)
    return partial(function, *arrays, out=empty(row.result or dtype))


def found(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


def by_torch(row: Row, dtype: str, arrays: list[Array]) -> Call | None:
    if not row.torch:
        return None
    import torch
    torch.set_num_threads(1)
    function, tensors = found(torch, row.torch), [torch.from_numpy(a) for a in arrays]
    result = torch.from_numpy(empty(row.result or dtype))
    try:
        function(*tensors, out=result)
    except TypeError:
        return partial(function, *tensors)
    return partial(function, *tensors, out=result)


def by_jax(row: Row, dtype: str, arrays: list[Array]) -> Call | None:
    if not row.jax:
        return None
    import jax
    import jax.scipy.special
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    function, inputs = jax.jit(found(jax, row.jax)), [jax.device_put(a) for a in arrays]
    return lambda: function(*inputs).block_until_ready()


def ir_lines(name: str, row: Row, dtype: str) -> int:
    """Lines that the op adds to a kernel, at the width of this machine."""
    function = Function(Module(), "define void @k()")
    chosen = target()
    lanes = Lanes(function, chosen, chosen.lanes(64 if dtype.endswith("64") else 32))
    op, before = name.split()[0], len(function.lines)
    values = [f"%x{i}" for i in range(len(row.ranges))]
    scalars.emit(lanes, op, dtype, values, row.result or dtype, row.attrs.get("order"))
    return len(function.lines) - before


# -- timing --
def trips(call: Call) -> int:
    """How many calls last long enough to be timed; the first ones make what is made once."""
    for _ in range(3):
        call()
    start = time.process_time()
    for _ in range(4):
        call()
    return max(4, int(4 * TRIP_SECONDS / max(time.process_time() - start, 1e-6)))


def nanoseconds(call: Call, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - start) / (count * COUNT) * 1e9


def calls(name: str, row: Row, dtype: str, peers: Sequence[str]) -> dict[str, Call]:
    arrays = operands(row, dtype)
    made: dict[str, Call | None] = {"graphc": ours(name, row, dtype, "native", arrays),
                                    "graphc v3": ours(name, row, dtype, "x86-64-v3", arrays)}
    others = {"numpy": by_numpy, "torch": by_torch, "jax": by_jax}
    made |= {peer: others[peer](row, dtype, arrays) for peer in peers}
    return {peer: call for peer, call in made.items() if call is not None}


def measured(name: str, dtype: str, rounds: int, peers: Sequence[str]) -> Line:
    row = ROWS[name]
    with np.errstate(all="ignore"):
        racers = calls(name, row, dtype, peers)
        counts = {peer: trips(call) for peer, call in racers.items()}
        samples: dict[str, list[float]] = {peer: [] for peer in racers}
        for _ in range(rounds):
            for peer, call in racers.items():
                samples[peer].append(nanoseconds(call, counts[peer]))
    return Line(name, dtype, ir_lines(name, row, dtype), {peer: median(times) for peer, times in samples.items()})


# -- output --
HEADINGS = ("graphc", "graphc v3", *PEERS)


def cells(line: Line) -> list[str]:
    times = [f"{line.nanoseconds[peer]:.2f}" if peer in line.nanoseconds else "-" for peer in HEADINGS]
    return [line.name, line.dtype, *times, f"{line.ratio:.2f}", str(line.lines)]


def shown(line: Line) -> str:
    return "{:18}{:9}{:>9}{:>11}{:>9}{:>9}{:>9}{:>9}{:>7}".format(*cells(line)) + ("  <--" if line.ratio > 1.1 else "")


def table(lines: Iterable[Line]) -> str:
    head = ["function", "dtype", *HEADINGS, "graphc / numpy", "lines"]
    rows = [head, ["---"] * len(head), *(cells(line) for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_document(lines: Iterable[Line]) -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(START)
    DOCUMENT.write_text(before + START + "\n" + table(lines) + "\n" + END + rest.partition(END)[2])


def main(given: Sequence[str] | None = None) -> list[Line]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vector_math", description="Speed of vector functions.")
    parser.add_argument("--only", default="", help="names of functions, with commas between them")
    parser.add_argument("--dtype", default="", help="float32 or float64 only")
    parser.add_argument("--peers", default=",".join(PEERS), help="of " + ",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", default="", help="a file for all figures")
    parser.add_argument("--write", choices=["docs"], help="puts the table into docs/vector_math.md")
    wanted = parser.parse_args(given)
    names = wanted.only.split(",") if wanted.only else list(ROWS)
    for name in names:
        if name not in ROWS:
            parser.error(f"no function {name!r}; there are {', '.join(ROWS)}")
    os.environ |= SETTINGS
    peers = ["numpy", *(p for p in wanted.peers.split(",") if p in PEERS[1:])]
    print("{:18}{:9}{:>9}{:>11}{:>9}{:>9}{:>9}{:>9}{:>7}".format("ns/element", "", *HEADINGS, "/numpy", "lines"))
    lines = []
    for name in names:
        for dtype in ROWS[name].dtypes:
            if wanted.dtype in ("", dtype):
                lines.append(measured(name, dtype, wanted.rounds, peers))
                print(shown(lines[-1]), flush=True)
    if wanted.json:
        Path(wanted.json).write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    if wanted.write:
        write_document(lines)
    return lines


if __name__ == "__main__":
    main()
