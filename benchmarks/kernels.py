"""Single kernels beside other libraries and beside C by hand: `python -m benchmarks.kernels --only softmax,sum`.

All variants of a row run interleaved in this process, on one thread, with the median of process-CPU time per call;
ours writes into a given buffer.  A row's C function is of `limits.c`, and left out where there is no C compiler or no
AVX-512; libraries that are not installed are left out as well.  Results are compared with NumPy's in float64
before any time is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from ctypes import CDLL, c_float, c_long, c_void_p
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

import graphc as gc

from .native import NoCompiler, built
from .peers.graphc_ import chain
from .report import quantity
from .workloads import aligned

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
EPSILON, RATE, BETA1, BETA2, ADAM_EPSILON = 1e-5, 1e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Row:
    """A kernel: `ours` of placeholders, `reference` of float64 arrays, rivals of arrays or tensors by their names.

    `dynamic` names the inputs whose first axis has a run-time length in a second variant.
    """

    title: str
    inputs: Callable[[], dict[str, Array]]
    ours: Callable[..., Any]
    numpy: Callable[..., Any]
    torch: Callable[..., Any] | None = None
    limit: Callable[[CDLL, Mapping[str, Array], Array], Call] | None = None
    dynamic: tuple[str, ...] = ()
    tolerance: float = 2e-5


def floats(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def matrix(scale: float = 1.0, shape: tuple[int, ...] = (4096, 1024)) -> Callable[[], dict[str, Array]]:
    return lambda: {"x": floats(*shape, scale=scale)}


def torch_functions() -> Any:
    return import_module("torch.nn.functional")


# -- rows whose arithmetic needs more than an expression --
def numpy_chain(x: Array, a: Any, b: Any, c: Any) -> Array:
    return np.tanh(a * x + b) / (1 + np.exp(-c * x)) - np.exp(-x * x) / (1 + np.abs(x))


def torch_chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    t = import_module("torch")
    return t.tanh(a * x + b) * t.sigmoid(c * x) - t.exp(-x * x) / (1 + t.abs(x))


def numpy_softmax(x: Array, axis: int = 1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    e /= e.sum(axis, keepdims=True)
    return e


def numpy_norm(x: Array, g: Array, b: Array) -> Array:
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + EPSILON) * g + b


def numpy_gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


def numpy_logsumexp(x: Array) -> Array:
    top = x.max(1)
    return np.log(np.exp(x - top[:, None]).sum(1)) + top


def block_inputs() -> dict[str, Array]:
    return {"x": floats(4096, 1024), "r": floats(4096, 1024, seed=1), "g": floats(1024, seed=2),
            "b": floats(1024, seed=3)}


def entropy_inputs() -> dict[str, Array]:
    return {"x": floats(4096, 1024), "t": np.random.default_rng(5).integers(0, 1024, 4096).astype(np.int32)}


def our_entropy(x: gc.Node, t: gc.Node) -> list[gc.Node]:
    loss = gc.nn.softmax_cross_entropy(x, t)
    return [loss, gc.gradients(loss.sum(), [x])[0]]


def numpy_entropy(x: Array, t: Array) -> list[Array]:
    rows, top = np.arange(len(x)), x.max(1, keepdims=True)
    e = np.exp(x - top)
    total = e.sum(1, keepdims=True)
    loss = np.log(total[:, 0]) + top[:, 0] - x[rows, t]
    e /= total
    e[rows, t] -= 1
    return [loss, e]


def torch_entropy(x: Any, t: Any) -> Any:
    x = x.detach().requires_grad_(True)
    loss = torch_functions().cross_entropy(x, t.long(), reduction="none")
    loss.sum().backward()
    return [loss.detach(), x.grad]


def our_batch_norm(x: gc.Node) -> list[gc.Node]:
    mean = gc.mean(x, axis=(0, 2), keepdims=True)
    centred = x - mean
    variance = gc.mean(centred * centred, axis=(0, 2), keepdims=True)
    return [centred * gc.rsqrt(variance + EPSILON), mean, variance]


def numpy_batch_norm(x: Array) -> list[Array]:
    mean = x.mean((0, 2), keepdims=True)
    centred = x - mean
    variance = (centred * centred).mean((0, 2), keepdims=True)
    return [centred / np.sqrt(variance + EPSILON), mean, variance]


def torch_batch_norm(x: Any) -> Any:
    variance, mean = import_module("torch").var_mean(x, (0, 2), correction=0)
    return [torch_functions().batch_norm(x, None, None, training=True), mean[None, :, None], variance[None, :, None]]


def our_pool(x: gc.Node, rows: int, columns: int) -> gc.Node:
    """The largest of two by two neighbours along these axes."""
    shape: list[Any] = []
    for a, n in enumerate(x.shape):
        shape += [n // 2, 2] if a in (rows, columns) else [n]
    return gc.max(gc.reshape(x, shape), axis=(rows + 1, columns + 2))


def numpy_pool(x: Array, rows: int, columns: int) -> Array:
    shape: list[int] = []
    for a, n in enumerate(x.shape):
        shape += [n // 2, 2] if a in (rows, columns) else [n]
    return x.reshape(shape).max((rows + 1, columns + 2))


# -- C by hand --
def address(array: Array) -> c_void_p:
    return c_void_p(array.ctypes.data)


def by_rows(name: str, *rest: str, epsilon: bool = False) -> Callable[[CDLL, Mapping[str, Array], Array], Call]:
    def bind(library: CDLL, inputs: Mapping[str, Array], out: Array) -> Call:
        function = getattr(library, name)
        rows, columns = inputs["x"].shape
        arrays = [*(inputs[k] for k in ("x", *rest)), out]  # the call keeps them alive
        sizes = [c_long(rows), c_long(columns), *([c_float(EPSILON)] if epsilon else [])]
        return lambda: function(*map(address, arrays), *sizes)
    return bind


def chain_limit(library: CDLL, inputs: Mapping[str, Array], out: Array) -> Call:
    factors = [c_float(float(inputs[k])) for k in "abc"]
    return lambda: library.chain(address(inputs["x"]), address(out), c_long(out.size), *factors)


def on_torch(name: str, *arguments: Any, **named: Any) -> Callable[..., Any]:
    """The function of `torch` of this name, of x."""
    return lambda x: getattr(import_module("torch"), name)(x, *arguments, **named)


def sums(axis: int | None) -> Row:
    return Row(f"sum of (4096,1024) over {'all' if axis is None else f'axis {axis}'}", matrix(),
               lambda x: gc.sum(x, axis=axis), lambda x: x.sum(axis),
               lambda x: x.sum() if axis is None else x.sum(axis), dynamic=("x",), tolerance=1e-4)


def transposed(n: int) -> Row:
    return Row(f"transpose of ({n},{n})", matrix(shape=(n, n)), gc.transpose, lambda x: np.ascontiguousarray(x.T),
               lambda x: x.t().contiguous(), dynamic=("x",), tolerance=0)


def pooled(shape: tuple[int, ...], rows: int, columns: int, torch: Callable[..., Any]) -> Row:
    return Row(f"maximum of 2 by 2 neighbours, {shape}", matrix(shape=shape), lambda x: our_pool(x, rows, columns),
               lambda x: numpy_pool(x, rows, columns), torch, tolerance=0)


def last_pooled(x: Any) -> Any:
    channels_last = x.permute(2, 0, 1)[None]  # torch's own format of the same memory
    return torch_functions().max_pool2d(channels_last, 2)[0].permute(1, 2, 0)


ROWS = {
    "chain": Row("tanh(a x + b) sigmoid(c x) - exp(-x^2) / (1 + |x|), 1e7 elements",
                 lambda: {"x": floats(10_000_000)} | {k: np.array(v, np.float32) for k, v in
                                                      (("a", 1.3), ("b", 0.2), ("c", 0.7))},
                 chain, numpy_chain, torch_chain, chain_limit, ("x",)),
    "softmax": Row("softmax of (4096,1024)", matrix(3), gc.nn.softmax, numpy_softmax, on_torch("softmax", 1),
                   by_rows("softmax"), ("x",)),
    "softmax_columns": Row("softmax of (4096,1024) over axis 0", matrix(3), lambda x: gc.nn.softmax(x, 0),
                           lambda x: numpy_softmax(x, 0), on_torch("softmax", 0), dynamic=("x",)),
    "softmax_short": Row("softmax of (65536,10)", matrix(3, (65536, 10)), gc.nn.softmax, numpy_softmax,
                         on_torch("softmax", 1), by_rows("softmax"), ("x",)),
    "layernorm": Row("layer norm of (4096,1024)",
                     lambda: {"x": floats(4096, 1024), "g": floats(1024, seed=1), "b": floats(1024, seed=2)},
                     gc.nn.layer_norm, numpy_norm, lambda x, g, b: torch_functions().layer_norm(x, (1024,), g, b),
                     by_rows("layernorm", "g", "b", epsilon=True), ("x",)),
    "logsumexp": Row("logsumexp of (4096,1024)", matrix(3), lambda x: gc.logsumexp(x, axis=1), numpy_logsumexp,
                     on_torch("logsumexp", 1), by_rows("logsumexp"), ("x",)),
    "gelu_norm": Row("layer norm of gelu(x) + r, (4096,1024)", block_inputs,
                     lambda x, r, g, b: gc.nn.layer_norm(gc.nn.gelu(x) + r, g, b),
                     lambda x, r, g, b: numpy_norm(numpy_gelu(x) + r, g, b),
                     lambda x, r, g, b: torch_functions().layer_norm(
                         torch_functions().gelu(x, approximate="tanh") + r, (1024,), g, b), dynamic=("x", "r")),
    "entropy": Row("cross-entropy of (4096,1024) logits and its gradient", entropy_inputs, our_entropy, numpy_entropy,
                   torch_entropy, dynamic=("x", "t")),
    "batchnorm": Row("batch norm of (32,128,1024) with its statistics", matrix(shape=(32, 128, 1024)), our_batch_norm,
                     numpy_batch_norm, torch_batch_norm, dynamic=("x",)),
    "sum0": sums(0), "sum1": sums(1), "sum": sums(None),
    "sum_short": Row("sum of (400000,10) over axis 1", matrix(shape=(400_000, 10)), lambda x: gc.sum(x, axis=1),
                     lambda x: x.sum(1), lambda x: x.sum(1), dynamic=("x",)),
    "max1": Row("max of (4096,1024) over axis 1", matrix(), lambda x: gc.max(x, axis=1), lambda x: x.max(1),
                on_torch("amax", 1), dynamic=("x",), tolerance=0),
    "argmax0": Row("argmax of (4096,1024) over axis 0", matrix(), lambda x: gc.argmax(x, axis=0),
                   lambda x: x.argmax(0), on_torch("argmax", 0), dynamic=("x",), tolerance=0),
    "argmax1": Row("argmax of (4096,1024) over axis 1", matrix(), lambda x: gc.argmax(x, axis=1),
                   lambda x: x.argmax(1), on_torch("argmax", 1), dynamic=("x",), tolerance=0),
    "cumsum0": Row("cumsum of (4096,1024) along axis 0", matrix(), lambda x: gc.cumsum(x, axis=0),
                   lambda x: x.cumsum(0), on_torch("cumsum", 0), dynamic=("x",), tolerance=1e-4),
    "cumsum1": Row("cumsum of (4096,1024) along axis 1", matrix(), lambda x: gc.cumsum(x, axis=1),
                   lambda x: x.cumsum(1), on_torch("cumsum", 1), dynamic=("x",), tolerance=1e-4),
    "transpose2048": transposed(2048), "transpose2000": transposed(2000), "transpose1024": transposed(1024),
    "reverse": Row("(4096,1024) with its rows reversed", matrix(), lambda x: gc.flip(x, 1),
                   lambda x: np.ascontiguousarray(x[:, ::-1]), on_torch("flip", (1,)), dynamic=("x",), tolerance=0),
    "bias": Row("x + b, (4096,1024)", lambda: {"x": floats(4096, 1024), "b": floats(1024, seed=1)},
                lambda x, b: x + b, lambda x, b: x + b, lambda x, b: x + b, dynamic=("x",), tolerance=1e-6),
    "bias_large": Row("x + b, (16384,1024)", lambda: {"x": floats(16384, 1024), "b": floats(1024, seed=1)},
                      lambda x, b: x + b, lambda x, b: x + b, lambda x, b: x + b, dynamic=("x",), tolerance=1e-6),
    "take": Row("4096 rows of (4096,1024) by their numbers", lambda: {
        "x": floats(4096, 1024), "i": np.random.default_rng(7).integers(0, 4096, 4096)},
        lambda x, i: gc.take(x, i, axis=0), lambda x, i: x[i] if x.dtype == np.float64 else np.take(x, i, 0),
        lambda x, i: x.index_select(0, i), tolerance=0),
    "pool_last": pooled((112, 112, 64), 0, 1, last_pooled),
    "pool_first": pooled((64, 112, 112), 1, 2, lambda x: torch_functions().max_pool2d(x[None], 2)[0]),
}


# -- measuring --
@dataclass
class Variant:
    name: str
    call: Call
    samples: list[float] = field(default_factory=list)


def buffers_like(results: Any) -> Any:
    if isinstance(results, (list, tuple)):
        return [aligned(np.asarray(r)) for r in results]
    return aligned(np.asarray(results)) if np.ndim(results) else np.array(results)


def our_variant(row: Row, inputs: Mapping[str, Array], *, dynamic: bool) -> tuple[Call, Any]:
    """The call and the buffer that it fills."""
    with gc.Graph():
        nodes = {name: gc.placeholder(str(a.dtype), ("n", *a.shape[1:]) if dynamic and name in row.dynamic else a.shape,
                                      name=name) for name, a in inputs.items()}
        function = gc.Session().function(list(nodes.values()), row.ours(*nodes.values()))
    arguments = list(inputs.values())
    out = buffers_like(function(*arguments))
    return (lambda: function(*arguments, out=out)), out


def torch_variant(row: Row, inputs: Mapping[str, Array]) -> Call | None:
    if row.torch is None:
        return None
    try:
        torch = import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(1)
    tensors = {k: torch.from_numpy(a) if a.ndim else torch.tensor(a[()]) for k, a in inputs.items()}
    function = row.torch
    return lambda: function(**tensors)


def limits() -> CDLL | None:
    """The C functions, where there is a compiler and a processor for them."""
    if "avx512dq" not in Path("/proc/cpuinfo").read_text():
        return None
    try:
        return CDLL(str(built("limits", "-ffp-contract=off")))
    except NoCompiler:
        return None


def is_close(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, (list, tuple)):
        return all(is_close(f, e, tolerance) for f, e in zip(found, expected, strict=True))
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return a.shape == b.shape and bool(np.max(np.abs(a - b)) <= tolerance * max(1.0, float(np.max(np.abs(b)))))


def variants(row: Row, inputs: Mapping[str, Array], library: CDLL | None) -> list[Variant]:
    """All ways to compute the row, each checked once."""
    wide = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in inputs.items()}
    expected = row.numpy(**wide)
    found: list[Variant] = []

    def add(name: str, call: Call, result: Any) -> None:
        if not is_close(result, expected, row.tolerance):
            raise SystemExit(f"{row.title}: {name} computes something else than NumPy")
        found.append(Variant(name, call))
    for dynamic in (False, True) if row.dynamic else (False,):
        call, out = our_variant(row, inputs, dynamic=dynamic)
        call()
        add("ours, run-time rows" if dynamic else "ours", call, out)
    if library is not None and row.limit is not None:
        out = aligned(np.zeros_like(np.asarray(expected, np.float32)))
        call = row.limit(library, inputs, out)
        call()
        add("C", call, out)
    call = torch_variant(row, inputs)  # type: ignore[assignment]
    if call is not None:
        add("torch", call, call())
    add("numpy", lambda: row.numpy(**inputs), row.numpy(**inputs))
    return found


def measure(found: Sequence[Variant], rounds: int, seconds: float) -> None:
    """Interleaved rounds of a few calls each; a slow variant sits out once it has used its time."""
    for number in range(rounds):
        turn = number % len(found)  # each comes after each, as one that leaves the caches full costs the next
        for variant in [*found[turn:], *found[:turn]]:
            if sum(variant.samples) > seconds and number > 2:
                continue
            for _ in range(3):
                began = process_time()
                variant.call()
                variant.samples.append(process_time() - began)


def line(name: str, found: Sequence[Variant]) -> str:
    times = {v.name: median(v.samples) for v in found}
    return f"{name:16} " + "  ".join(f"{k} {quantity(t)} ({times['ours'] / t:.2f})" for k, t in times.items())


def keep_freed_memory() -> None:
    """Where libraries allocate their results, they get memory that was used before, without the price of new pages."""
    libc = CDLL(None)
    for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        libc.mallopt(parameter, 1 << 30)


def main(given: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description="Times single kernels.")
    parser.add_argument("--only", default="", help=f"beginnings of rows, of {','.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4, help="per variant (%(default)s)")
    options = parser.parse_args(given)
    wanted = [name for name in ROWS if name.startswith(tuple(options.only.split(",")))]
    found: dict[str, dict[str, float]] = {}
    keep_freed_memory()
    library = limits()
    print("median of CPU time per call (ours / it)")
    for name in wanted:
        inputs = {k: aligned(a) if a.ndim else a for k, a in ROWS[name].inputs().items()}
        row = variants(ROWS[name], inputs, library)
        measure(row, options.rounds, options.seconds)
        print(line(name, row), flush=True)
        found[name] = {v.name: median(v.samples) for v in row}
    return found


if __name__ == "__main__":
    main()
