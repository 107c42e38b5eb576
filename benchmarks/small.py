"""Small programs beside CasADi's compiled C and Numba: `python -m benchmarks.small --only arm,pendulum`.

Calls from Python, ours also with `out=`, interleaved in this process on one thread: the median of
process-CPU time over the rounds.  `native` is one call of our function from native code, `loops` the same where kernels
with loops are forced.  Numba gets a function that writes each value once, traced from the same formula; it has no
derivatives.  Compile times are of a cold cache; results are compared with CasADi's before any time is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import ctypes
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from codegen.jit import compile_text, load
from codegen.target import target
import graphc as gc
from passes import lower

from . import small_formulas as formulas
from .peers.graphc_ import rosenbrock

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
REPEATED = """
declare i32 @entry(ptr, ptr, ptr, ptr)
define i32 @repeat(ptr %inputs, ptr %outputs, ptr %state, ptr %arena, i64 %n) {
entry:
  br label %head
head:
  %k = phi i64 [0, %entry], [%next, %head]
  %status = call i32 @entry(ptr %inputs, ptr %outputs, ptr %state, ptr %arena)
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %head, label %done
done:
  ret i32 %status
}
"""


@dataclass(frozen=True)
class Row:
    """A program of `size` inputs; `jacobian` asks for the values and the Jacobian.  `ours` writes it with arrays."""

    name: str
    size: int
    formula: Callable[[Sequence[Any], formulas.Functions], list[Any]]
    jacobian: bool = False
    ours: Callable[[gc.Node], list[gc.Node]] | None = None


def network(x: gc.Node) -> gc.Node:
    (a, b), (c, d) = ((gc.constant(matrix), gc.constant(bias)) for matrix, bias in formulas.LAYERS)
    return c @ gc.tanh(a @ x + b) + d


ROWS = [
    Row("arm", 6, formulas.arm, jacobian=True),
    Row("pendulum", 4, formulas.pendulum),
    Row("pendulum_J", 4, formulas.pendulum, jacobian=True),
    Row("quadrotor", 17, formulas.quadrotor),
    Row("quadrotor_J", 17, formulas.quadrotor, jacobian=True),
    Row("inverse4", 16, formulas.inverse),
    Row("cross", 6, formulas.cross),
    Row("rotation", 7, formulas.rotation),
    Row("network", 8, formulas.network, ours=lambda x: [network(x)]),
    Row("network_J", 8, formulas.network, jacobian=True, ours=lambda x: [network(x), gc.jacobian(network(x), x)]),
    *(Row(f"rosenbrock{n}", n, formulas.rosenbrock, ours=lambda x: gc.gradients(rosenbrock(x), x))
      for n in (2, 5, 100)),
]


# -- ours --
def nodes_of(row: Row, x: gc.Node) -> list[gc.Node]:
    if row.ours is not None:
        return row.ours(x)
    table: formulas.Functions = {name: getattr(gc, name) for name in ("sin", "cos", "tanh", "sqrt")}
    y = gc.stack(row.formula([x[k] for k in range(row.size)], table))
    return [y, gc.jacobian(y, x)] if row.jacobian else [y]


def made(row: Row) -> Any:
    with gc.Graph():
        x = gc.placeholder("float64", (row.size,), name="x")
        return gc.Session(cache="off").function([x], nodes_of(row, x))


def made_with_loops(row: Row) -> Any:
    usual = lower.straight_drafts
    lower.straight_drafts = lambda targets, late: None
    try:
        return made(row)
    finally:
        lower.straight_drafts = usual


def native_seconds(function: Any, x: Array, rounds: int, calls: int = 2000) -> float:
    """Of one call from native code."""
    program, compiled = function.program, function.compiled
    linked = load(compile_text(REPEATED, target()), ["repeat"], target(), {"entry": compiled.address})
    repeat = linked.function("repeat", ctypes.c_int32, *[ctypes.c_void_p] * 4, ctypes.c_int64)
    outputs = [np.empty(a.shape) for a in program.outputs]
    arena = np.empty(int(compiled.border.arena) + 64, np.uint8)
    tables = [(ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))
              for arrays in ([x], outputs, [])]
    samples = []
    for _ in range(rounds):
        start = process_time()
        repeat(*tables, arena.ctypes.data + -arena.ctypes.data % 64, calls)  # type: ignore[operator]
        samples.append((process_time() - start) / calls)
    return median(samples)


# -- rivals --
def casadi_c(row: Row) -> Any:
    peer, ca = import_module("benchmarks.peers.casadi_"), import_module("casadi")
    x = ca.SX.sym("x", row.size)
    table: formulas.Functions = {name: getattr(ca, name) for name in ("sin", "cos", "tanh", "sqrt")}
    y = ca.vertcat(*row.formula([x[k] for k in range(row.size)], table))
    outputs = [y, ca.densify(ca.jacobian(y, x))] if row.jacobian else [y]
    return peer.in_c(ca.Function("f", [x], [ca.densify(o) for o in outputs], {"cse": True}))


@dataclass(frozen=True)
class Traced:
    """A name of the Python function that is written in `lines`."""

    lines: list[str] = field(repr=False)
    text: str

    def named(self, text: str) -> Traced:
        self.lines.append(f"    v{len(self.lines)} = {text}")
        return Traced(self.lines, f"v{len(self.lines) - 1}")

    def __neg__(self) -> Traced:
        return self.named(f"-{self.text}")


def operator(symbol: str, *, reflected: bool) -> Callable[[Traced, Any], Traced]:
    def written(self: Traced, other: Any) -> Traced:
        texts = [self.text, other.text if isinstance(other, Traced) else repr(float(other))]
        return self.named(f" {symbol} ".join(reversed(texts) if reflected else texts))
    return written


for _name, _symbol in {"add": "+", "sub": "-", "mul": "*", "truediv": "/"}.items():
    setattr(Traced, f"__{_name}__", operator(_symbol, reflected=False))
    setattr(Traced, f"__r{_name}__", operator(_symbol, reflected=True))


def numba_function(row: Row) -> Any:
    """A function of x and of the array for the results."""
    numba = import_module("numba")
    lines: list[str] = []
    table: formulas.Functions = {name: lambda x, name=name: x.named(f"{name}({x.text})")  # type: ignore[misc]
                                 for name in ("sin", "cos", "tanh", "sqrt")}
    results = row.formula([Traced(lines, f"x[{k}]") for k in range(row.size)], table)
    lines += [f"    y[{k}] = {result.text}" for k, result in enumerate(results)]
    space: dict[str, Any] = {}
    exec("from math import sin, cos, tanh, sqrt\ndef traced(x, y):\n" + "\n".join(lines), space)
    return numba.njit(space["traced"])


# -- measuring --
def bound_casadi(function: Any, x: Array) -> tuple[Call, list[Array]]:
    buffer, call = function.buffer()
    outputs = [np.zeros(function.nnz_out(k)) for k in range(function.n_out())]
    buffer.set_arg(0, memoryview(x))
    for k, array in enumerate(outputs):
        buffer.set_res(k, memoryview(array))
    return lambda held=buffer: call(), [np.asarray(o) for o in outputs]


def built(build: Callable[[], tuple[Call, Any]]) -> tuple[Call, Any, float]:
    """The call, what it writes to, and how long it took to be ready, the first call included."""
    start = process_time()
    call, kept = build()
    call()
    return call, kept, process_time() - start


def measured(row: Row, rounds: int, seconds: float) -> dict[str, float]:
    """Seconds by name: calls, native calls and compile times."""
    x = np.random.default_rng(1).uniform(0.2, 0.9, row.size)
    calls: dict[str, Call] = {}
    found: dict[str, float] = {}

    def ours() -> tuple[Call, Any]:
        function = made(row)
        return (lambda: function(x)), function
    calls["graphc"], function, found["graphc compile"] = built(ours)
    given = function(x)
    results = [np.asarray(r) for r in (given if isinstance(given, (list, tuple)) else [given])]
    calls["out"] = lambda: function(x, out=given)
    found["native"] = native_seconds(function, x, rounds)
    found["loops"] = native_seconds(made_with_loops(row), x, rounds)
    try:
        calls["casadi"], outputs, _ = built(lambda: bound_casadi(casadi_c(row), x))
        for ours_, theirs in zip(results, outputs, strict=True):
            np.testing.assert_allclose(ours_, theirs.reshape(ours_.shape, order="F"), rtol=1e-9, atol=1e-10)
    except ImportError:
        pass
    if not row.jacobian:
        try:
            compiled, y = numba_function(row), np.empty(results[0].size)
            calls["numba"], _, found["numba compile"] = built(lambda: ((lambda: compiled(x, y)), y))
            np.testing.assert_allclose(y, results[0], rtol=1e-9, atol=1e-12)
        except ImportError:
            pass
    return found | timed(calls, rounds, seconds)


def timed(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, float]:
    """Seconds of a call, interleaved."""
    counts = {name: max(1, int(seconds / once(call, 200))) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(once(call, counts[name]))
    return {name: median(values) for name, values in samples.items()}


def once(call: Call, count: int) -> float:
    start = process_time()
    for _ in range(count):
        call()
    return max((process_time() - start) / count, 1e-9)


COLUMNS = ("graphc", "out", "casadi", "numba", "native", "loops")
COMPILES = ("graphc compile", "numba compile")


def line(name: str, found: dict[str, float]) -> str:
    times = [f"{1e9 * found[c]:10.1f}" if c in found else f"{'':>10}" for c in COLUMNS]
    compiles = [f"{1e3 * found[c]:14.0f}" if c in found else f"{'':>14}" for c in COMPILES]
    return f"{name:<14}{''.join(times)}{''.join(compiles)}"


def main(given: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """The figures by row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small")
    parser.add_argument("--only", default="", help="of " + ",".join(row.name for row in ROWS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.01, help="per call and round (%(default)s)")
    wanted = parser.parse_args(given)
    names = [name for name in wanted.only.split(",") if name] or [row.name for row in ROWS]
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no program {', '.join(sorted(unknown))}")
    print(f"{'ns per call':<14}{''.join(f'{c:>10}' for c in COLUMNS)}{''.join(f'{c:>14}' for c in COMPILES)} (ms)")
    figures: dict[str, dict[str, float]] = {}
    for row in ROWS:
        if row.name in names:
            figures[row.name] = measured(row, wanted.rounds, wanted.seconds)
            print(line(row.name, figures[row.name]), flush=True)
    return figures


if __name__ == "__main__":
    main()
