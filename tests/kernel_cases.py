"""Kernels as data, what they mean in NumPy, and the kernels that the tests of the emitter run.

`reference` evaluates the list of operations one by one over the whole iteration space with index arithmetic: it knows
nothing of loops, lanes or passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.ir.dims import Dim, evaluate
from graphc.ir.plan import Guard, Kernel, KernelOp, Map, Schedule

Size = "int | Dim"
STORAGE = {"bfloat16": np.uint16, "bool": np.bool_}


def storage(dtype: str) -> Any:
    """The NumPy dtype of a buffer; bfloat16 is kept as its bits."""
    return np.dtype(STORAGE.get(dtype, dtype))


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def typed(values: Any, dtype: str) -> np.ndarray:
    """Values as the dtype holds them; bfloat16 as float32 numbers."""
    if dtype == "bfloat16":
        return from_bfloat16(to_bfloat16(np.asarray(values, np.float32)))
    return np.asarray(values).astype(dtype)


def strides(shape: Sequence[int | Dim]) -> tuple[int | Dim, ...]:
    """Of an array in C order."""
    result: list[int | Dim] = []
    step: int | Dim = 1
    for extent in reversed(shape):
        result.append(step)
        step = step * extent
    return tuple(reversed(result))


class Builder:
    """Appends operations; every method returns the number of its operation."""

    def __init__(self, extents: Sequence[int | Dim], arguments: Sequence[str]) -> None:
        self.extents, self.arguments = tuple(extents), list(arguments)
        self.ops: list[KernelOp] = []

    def put(self, kind: str, *operands: int, dtype: str = "float32", map: Map | None = None, value: Any = None) -> int:
        self.ops.append(KernelOp(kind, operands, dtype, map, value))
        return len(self.ops) - 1

    def map(self, argument: int, along: Sequence[int | Dim] | None = None, offset: int | Dim = 0, indices: Any = (),
            guards: Any = (), fill: float = 0) -> Map:
        made = tuple(Guard(o, tuple(s), e) for o, s, e in guards)
        steps = strides(self.extents) if along is None else tuple(along)
        return Map(argument, offset, steps, tuple(indices), made, fill)

    def load(self, argument: int, along: Sequence[int | Dim] | None = None, **rest: Any) -> int:
        return self.put("load", dtype=self.arguments[argument], map=self.map(argument, along, **rest))

    def store(self, argument: int, value: int, along: Sequence[int | Dim] | None = None, kind: str = "store",
              **rest: Any) -> int:
        return self.put(kind, value, dtype=self.arguments[argument], map=self.map(argument, along, **rest))

    def keep(self, argument: int, value: int, along: Sequence[int | Dim] | None = None) -> int:
        return self.store(argument, value, along, kind="keep")

    def const(self, value: float, dtype: str = "float32") -> int:
        return self.put("const", dtype=dtype, value=value)

    def iota(self, axis: int) -> int:
        return self.put("iota", dtype="int64", value=axis)

    def reduce(self, monoid: str, value: int, *axes: int) -> int:
        return self.put("reduce", value, dtype=self.ops[value].dtype, value=(monoid, axes))

    def f(self, kind: str, *operands: int, dtype: str | None = None, value: Any = None) -> int:
        return self.put(kind, *operands, dtype=dtype or self.ops[operands[-1]].dtype, value=value)

    def kernel(self, **schedule: int) -> Kernel:
        return Kernel(self.extents, tuple(self.arguments), tuple(self.ops), Schedule(**schedule))


# -- meaning --
FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs,
    "maximum": np.maximum, "minimum": np.minimum, "exp": np.exp, "log": np.log, "tanh": np.tanh, "sqrt": np.sqrt,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "where": np.where, "lt": np.less, "eq": np.equal, "gt": np.greater,
    "rsqrt": lambda x: 1 / np.sqrt(x), "fma": lambda a, b, c: a * b + c}
REDUCTIONS = {"add": np.add.reduce, "mul": np.multiply.reduce, "max": np.max, "fastmax": np.max, "min": np.min,
              "any": np.any, "all": np.all}


def reference(kernel: Kernel, sizes: Mapping[str, int], arrays: Sequence[np.ndarray]) -> None:
    """Runs the kernel on the arrays (any shape, C order), in place."""
    buffers = [array.reshape(-1) for array in arrays]
    assert all(np.shares_memory(a, b) or not a.size for a, b in zip(arrays, buffers, strict=True))
    shape = tuple(evaluate(e, sizes) for e in kernel.extents)
    grid = np.indices(shape, sparse=True) if shape else ()
    values: list[Any] = []
    for op in kernel.ops:
        values.append(_value(kernel, op, values, buffers, sizes, shape, grid))


def _value(kernel: Kernel, op: KernelOp, values: list[Any], buffers: Sequence[np.ndarray], sizes: Mapping[str, int],
           shape: tuple[int, ...], grid: Any) -> Any:
    given = [values[i] for i in op.operands]
    if op.map is not None:
        return _access(kernel, op, values, given, buffers, sizes, shape, grid)
    if op.kind == "const":
        return typed(np.full((1,) * len(shape), op.value), op.dtype)
    if op.kind == "iota":
        return grid[op.value].astype(np.int64)
    if op.kind == "reduce":
        return _reduced(op, given[0], shape)
    if op.kind == "second":
        return given[0].second
    if op.kind == "scan":
        return _scanned(op, given, shape)
    given = [np.asarray(g) for g in given]
    if op.kind == "cast":
        return typed(given[0], op.dtype)
    with np.errstate(all="ignore"):
        return typed(FUNCTIONS[op.kind](*given), op.dtype)


class Pair(np.ndarray):
    second: np.ndarray


def _reduced(op: KernelOp, given: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    monoid, axes = op.value
    full = np.broadcast_to(given, shape)
    if monoid not in ("argmax", "argmin"):
        return typed(REDUCTIONS[monoid](full, axis=axes, keepdims=True), op.dtype)
    rest = [a for a in range(len(shape)) if a not in axes]
    rows = full.transpose(rest + list(axes)).reshape([shape[a] for a in rest] + [-1])
    index = getattr(np, monoid)(rows, axis=-1)
    kept = [1 if a in axes else n for a, n in enumerate(shape)]
    result = np.take_along_axis(rows, index[..., None], -1).reshape(kept).view(Pair)
    result.second = index.reshape(kept)
    return result


def _scanned(op: KernelOp, given: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    axis, is_reverse = op.value
    a, b = (np.moveaxis(np.broadcast_to(g, shape), axis, 0) for g in given)
    result = np.zeros(b.shape, b.dtype)
    state = np.zeros(b.shape[1:], b.dtype)
    for i in range(len(b))[::-1 if is_reverse else 1]:
        state = typed(typed(a[i] * state, op.dtype) + b[i], op.dtype)
        result[i] = state
    return np.moveaxis(result, 0, axis)


def _access(kernel: Kernel, op: KernelOp, values: list[Any], given: list[Any], buffers: Sequence[np.ndarray],
            sizes: Mapping[str, int], shape: tuple[int, ...], grid: Any) -> Any:
    m = op.map
    assert m is not None
    address = np.zeros((1,) * len(shape), np.int64) + evaluate(m.offset, sizes)
    for axis, stride in enumerate(m.strides):
        if stride != 0:
            address = address + grid[axis] * evaluate(stride, sizes)
    for number, stride, extent in m.indices:
        index = np.where(values[number] < 0, values[number] + evaluate(extent, sizes), values[number])
        address = address + index * evaluate(stride, sizes)
    inside = np.ones((1,) * len(shape), bool)
    for guard in m.guards:
        where = np.asarray(evaluate(guard.offset, sizes))
        for axis, stride in enumerate(guard.strides):
            where = where + grid[axis] * evaluate(stride, sizes) if stride != 0 else where
        inside = inside & (0 <= where) & (where < evaluate(guard.extent, sizes))
    buffer, dtype = buffers[m.argument], kernel.arguments[m.argument]
    if op.kind == "load":
        address, inside = np.broadcast_arrays(address, inside)
        loaded = np.full(address.shape, m.fill).astype(np.float32 if dtype == "bfloat16" else dtype)
        found = buffer[address[inside]]
        loaded[inside] = from_bfloat16(found) if dtype == "bfloat16" else found
        return loaded
    value = np.asarray(given[0])
    if op.kind == "accumulate":
        address, inside, value = np.broadcast_arrays(address, inside, value, np.zeros(shape, bool))[:3]
        np.add.at(buffer, address[inside], value[inside])
        return None
    address, inside, value = np.broadcast_arrays(address, inside, value)
    buffer[address[inside]] = to_bfloat16(value[inside]) if dtype == "bfloat16" else value[inside]
    return given[0]


def random_array(rng: np.random.Generator, dtype: str, count: int, *, special: bool = False) -> np.ndarray:
    if dtype == "bool":
        return rng.integers(0, 2, count).astype(bool)
    if "float" in dtype:
        values = rng.normal(0, 2, count).astype(np.float64)
        if special and count:
            for bad in (np.nan, np.inf, -np.inf, -0.0):
                values[rng.integers(0, count)] = bad
        return to_bfloat16(values.astype(np.float32)) if dtype == "bfloat16" else values.astype(dtype)
    low = 0 if dtype.startswith("u") else -50
    return rng.integers(low, 100, count).astype(dtype)


# -- the kernels --
N, D, B = Dim.symbol("n"), Dim.symbol("d"), Dim.symbol("b")


def elementwise(shape: Sequence[int | Dim], dtype: str, kind: str) -> Kernel:
    b = Builder(shape, (dtype, dtype, "bool" if kind in ("lt", "eq") else dtype))
    b.store(2, b.f(kind, b.load(0), b.load(1), dtype=b.arguments[2]))
    return b.kernel()


def bias(n: int | Dim, d: int | Dim, dtype: str = "float32") -> Kernel:
    b = Builder((n, d), (dtype,) * 3)
    b.store(2, b.f("add", b.load(0), b.load(1, (0, 1))))
    return b.kernel()


def folded(shape: Sequence[int | Dim], axes: Sequence[int], monoid: str, dtype: str,
           result: str | None = None) -> Kernel:
    """A reduction; `result` is the dtype that it is made in."""
    made = result or dtype
    b = Builder(shape, (dtype, made) + (("int64",) if monoid.startswith("arg") else ()))
    x = b.load(0)
    r = b.reduce(monoid, b.f("cast", x, dtype=made) if made != dtype else x, *axes)
    rest = [a for a in range(len(shape)) if a not in axes]
    along: list[int | Dim] = [0] * len(shape)
    for a, s in zip(rest, strides([shape[a] for a in rest]), strict=True):
        along[a] = s
    b.store(1, r, along)
    if monoid.startswith("arg"):
        b.store(2, b.put("second", r, dtype="int64"), along)
    return b.kernel()


def softmax(n: int | Dim, d: int | Dim, axis: int = 1, *, keeps: bool = True, dtype: str = "float32") -> Kernel:
    b = Builder((n, d), (dtype, dtype))
    x = b.load(0)
    e = b.f("exp", b.f("sub", x, b.reduce("fastmax", x, axis)))
    if keeps:
        e = b.keep(1, e)
    b.store(1, b.f("div", e, b.reduce("add", e, axis)))
    return b.kernel()


def layer_norm(n: int | Dim, d: int | Dim) -> Kernel:
    b = Builder((n, d), ("float32",) * 4)
    x = b.load(0)
    count = b.f("cast", b.reduce("add", b.const(1, "int64"), 1), dtype="float32")
    centred = b.f("sub", x, b.f("div", b.reduce("add", x, 1), count))
    variance = b.f("div", b.reduce("add", b.f("mul", centred, centred), 1), count)
    scale = b.f("rsqrt", b.f("add", variance, b.const(1e-5)))
    scaled = b.f("mul", b.f("mul", centred, scale), b.load(1, (0, 1)))
    b.store(3, b.f("add", scaled, b.load(2, (0, 1))))
    return b.kernel()


def scratch_norm(n: int | Dim, d: int | Dim) -> Kernel:
    """Keeps a row in a scratch row that every row writes anew."""
    b = Builder((n, d), ("float32",) * 3)
    y = b.keep(2, b.f("exp", b.load(0)), (0, 1))
    b.store(1, b.f("div", y, b.reduce("add", y, 1)))
    return b.kernel()


def transpose(n: int | Dim, d: int | Dim, dtype: str = "float32") -> Kernel:
    b = Builder((n, d), (dtype, dtype))
    b.store(1, b.load(0, (1, n)))
    return b.kernel()


def scan(n: int | Dim, d: int | Dim, axis: int, *, reverse: bool, dtype: str = "float32") -> Kernel:
    b = Builder((n, d), (dtype,) * 3)
    b.store(2, b.put("scan", b.load(0), b.load(1), dtype=dtype, value=(axis, reverse)))
    return b.kernel()


def take_rows(n: int | Dim, d: int | Dim, table: int | Dim) -> Kernel:
    b = Builder((n, d), ("float32", "int64", "float32"))
    index = b.load(1, (1, 0))
    b.store(2, b.load(0, (0, 1), indices=[(index, d, table)]))
    return b.kernel()


def take_along(n: int | Dim, d: int | Dim, table: int | Dim) -> Kernel:
    """out[i, j] = x[i, index[i, j]]"""
    b = Builder((n, d), ("float32", "int32", "float32"))
    index = b.f("cast", b.load(1), dtype="int64")
    b.store(2, b.load(0, (table, 0), indices=[(index, 1, table)]))
    return b.kernel()


def scatter_rows(n: int | Dim, d: int | Dim, table: int | Dim, dtype: str = "float32") -> Kernel:
    b = Builder((n, d), (dtype, "int64", dtype))
    index = b.load(1, (1, 0))
    b.store(2, b.load(0), (0, 1), kind="accumulate", indices=[(index, d, table)])
    return b.kernel()


def histogram(n: int | Dim, bins: int | Dim) -> Kernel:
    b = Builder((n,), ("int64", "int64"))
    index = b.load(0)
    b.store(1, b.const(1, "int64"), (0,), kind="accumulate", indices=[(index, 1, bins)])
    return b.kernel()


def windows(n: int | Dim, d: int | Dim) -> Kernel:
    """Adds every window of three back to where it came from."""
    b = Builder((n, d, 3), ("float32", "float32"))
    b.store(1, b.load(0), (d + 2, 1, 1), kind="accumulate")
    return b.kernel()


def pad(n: int | Dim, d: int | Dim, fill: float = 1.5, dtype: str = "float32") -> Kernel:
    """Two rows and three columns on each side."""
    b = Builder((n + 4, d + 6), (dtype, dtype))
    guards = [(-2, (1, 0), n), (-3, (0, 1), d)]
    b.store(1, b.load(0, (d, 1), offset=d * -2 - 3, guards=guards, fill=fill))
    return b.kernel()


def blur(n: int | Dim, d: int | Dim) -> Kernel:
    """The mean of 3 by 3 neighbours, zero outside."""
    b = Builder((n, d, 3, 3), ("float32", "float32"))
    guards = [(-1, (1, 0, 1, 0), n), (-1, (0, 1, 0, 1), d)]
    x = b.load(0, (d, 1, d, 1), offset=d * -1 - 1, guards=guards)
    b.store(1, b.f("div", b.reduce("add", x, 2, 3), b.const(9.0)), (d, 1, 0, 0))
    return b.kernel()


def strided(n: int | Dim, step: int) -> Kernel:
    """Reads and writes every |step|-th element; backwards where it is negative."""
    b = Builder((n,), ("float32", "float32"))
    offset = (n - 1) * -step if step < 0 else 0
    b.store(1, b.f("neg", b.load(0, (step,), offset=offset)), (step,), offset=offset)
    return b.kernel()


def sparse_store(n: int | Dim, d: int | Dim) -> Kernel:
    """Slices out of a larger array, into one: guarded stores."""
    b = Builder((n, d), ("float32", "float32"))
    b.store(1, b.load(0), (d, 1), guards=[(-1, (1, 0), n - 2), (-1, (0, 1), d - 2)])
    return b.kernel()


def positions(n: int | Dim, d: int | Dim) -> Kernel:
    """A causal mask: x where column <= row, else -inf."""
    b = Builder((n, d), ("float32", "float32"))
    after = b.f("lt", b.iota(0), b.iota(1), dtype="bool")
    b.store(1, b.f("where", after, b.const(float("-inf")), b.load(0)))
    return b.kernel()


def adam(n: int | Dim) -> Kernel:
    """Seven streams, three of them in place, scalars from memory."""
    b = Builder((n,), ("float32",) * 5)
    p, m, v, g = (b.load(i) for i in range(4))
    rate, beta = (b.load(4, (0,), offset=i) for i in range(2))
    m2 = b.f("add", b.f("mul", beta, m), b.f("mul", rate, g))
    v2 = b.f("add", b.f("mul", beta, v), b.f("mul", rate, b.f("mul", g, g)))
    step = b.f("div", b.f("mul", rate, m2), b.f("add", b.f("sqrt", v2), b.const(1e-8)))
    for i, value in enumerate((b.f("sub", p, step), m2, v2)):
        b.store(i, value)
    return b.kernel()


def straight_line(count: int) -> Kernel:
    """No axes: scalars in, scalars out."""
    b = Builder((), ("float64", "float64"))
    x, y = b.load(0, ()), b.load(0, (), offset=1)
    for k in range(count):
        x, y = b.f("add", b.f("mul", x, b.const(0.5, "float64")), y), b.f("sub", x, y) if k % 2 else x
    b.store(1, x, ())
    b.store(1, y, (), offset=1)
    return b.kernel()


def mixed(n: int | Dim) -> Kernel:
    """uint8 to float, compared, counted in int64, selected into float16."""
    b = Builder((n,), ("uint8", "float32", "bool", "float16", "float64"))
    x = b.f("cast", b.load(0), dtype="float32")
    y = b.load(1)
    less = b.f("lt", x, y, dtype="bool")
    b.store(2, less)
    b.store(3, b.f("cast", b.f("where", less, x, y), dtype="float16"))
    b.store(4, b.f("cast", b.f("mul", x, y), dtype="float64"))
    return b.kernel()


def bag(n: int | Dim, d: int | Dim, table: int | Dim) -> Kernel:
    """Sums three rows of a table, named by indices, into each result."""
    b = Builder((n, 3, d), ("float32", "int64", "float32"))
    index = b.load(1, (3, 1, 0))
    row = b.load(0, (0, 0, 1), indices=[(index, d, table)])
    b.store(2, b.reduce("add", row, 1), (d, 0, 1))
    return b.kernel()


def picked(n: int | Dim, table: int | Dim) -> Kernel:
    """out[i] = x[rows[i], columns[i]] and y[rows[i]*9 + i] = that: two indices, and a scattered store."""
    b = Builder((n,), ("float64", "int64", "int64", "float64", "float64"))
    rows, columns = b.load(1), b.load(2)
    x = b.load(0, (0,), indices=[(rows, table, table), (columns, 1, table)])
    b.store(3, x)
    b.store(4, x, (table,), indices=[(rows, 1, table)])
    return b.kernel()


def scan_then_sum(n: int | Dim, d: int | Dim, axis: int) -> Kernel:
    """A running sum divided by the sum of the running sums: the scan is made again in the second pass."""
    b = Builder((n, d), ("float64", "float64"))
    running = b.put("scan", b.const(1.0, "float64"), b.load(0), dtype="float64", value=(axis, False))
    b.store(1, b.f("div", running, b.f("add", b.reduce("add", b.f("abs", running), axis), b.const(1.0, "float64"))))
    return b.kernel()


def several(n: int | Dim, d: int | Dim) -> Kernel:
    """Four reductions of one pass, stored in one row of results each."""
    b = Builder((n, d), ("float32",) * 5)
    x = b.load(0)
    shrunk = b.f("add", b.f("mul", x, b.const(0.01)), b.const(1.0))
    for i, (monoid, value) in enumerate((("add", x), ("fastmax", x), ("mul", shrunk), ("min", x)), 1):
        b.store(i, b.reduce(monoid, value, 1), (1, 0))
    return b.kernel()


def streamed(kernel: Kernel) -> Kernel:
    """The kernel with what it only stores to marked as results that may be written past the caches."""
    read = {op.map.argument for op in kernel.ops if op.map is not None and op.kind != "store"}
    arguments = tuple(k for k in range(len(kernel.arguments)) if k not in read)
    return replace(kernel, schedule=replace(kernel.schedule, streamed=arguments))


def buffer_lengths(kernel: Kernel, sizes: Mapping[str, int]) -> list[int]:
    """The least number of elements each argument must have: one more than the highest address that is touched."""
    shape = tuple(evaluate(e, sizes) for e in kernel.extents)
    grid = np.indices(shape, sparse=True) if shape else ()
    lengths = [0] * len(kernel.arguments)
    for m in (op.map for op in kernel.ops if op.map is not None):
        address = np.zeros(shape, np.int64) + evaluate(m.offset, sizes)
        for axis, stride in enumerate(m.strides):
            address = address + grid[axis] * evaluate(stride, sizes)
        for guard in m.guards:
            where = evaluate(guard.offset, sizes) + sum(g * evaluate(s, sizes)
                                                        for g, s in zip(grid, guard.strides, strict=True))
            address = np.where((0 <= where) & (where < evaluate(guard.extent, sizes)), address, -1)
        top = int(address.max(initial=-1)) + sum(evaluate(s, sizes) * (evaluate(e, sizes) - 1) for _, s, e in m.indices)
        lengths[m.argument] = max(lengths[m.argument], top + 1)
        moving = [(n, evaluate(s, sizes)) for n, s in zip(shape, m.strides, strict=True) if s != 0]
        if not address.size and len(moving) < len(shape) and all(n for n, _ in moving):
            # An empty reduction still writes its result.
            high = evaluate(m.offset, sizes) + sum(max(0, s * (n - 1)) for n, s in moving)
            lengths[m.argument] = max(lengths[m.argument], high + 1)
    return lengths


# name: (how to build it over sizes n and d, arguments that are indices with their range, tolerance)
CASES: dict[str, tuple[Any, dict[int, Any], float]] = {
    "add": (lambda n, d: elementwise((n, d), "float32", "add"), {}, 0),
    "bias": (bias, {}, 0),
    "sum rows": (lambda n, d: folded((n, d), (1,), "add", "float32"), {}, 1e-6),
    "sum columns": (lambda n, d: folded((n, d), (0,), "add", "float32"), {}, 1e-6),
    "sum all": (lambda n, d: folded((n, d), (0, 1), "add", "float32"), {}, 1e-6),
    "sum middle": (lambda n, d: folded((3, n, d), (1,), "add", "float64"), {}, 1e-14),
    "sum outer and inner": (lambda n, d: folded((n, 3, d), (0, 2), "add", "float32"), {}, 1e-6),
    "max rows": (lambda n, d: folded((n + 1, d + 1), (1,), "max", "float32"), {}, 0),
    "min columns": (lambda n, d: folded((n + 1, d + 1), (0,), "min", "float32"), {}, 0),
    "argmax rows": (lambda n, d: folded((n + 1, d + 1), (1,), "argmax", "float32"), {}, 0),
    "argmax columns": (lambda n, d: folded((n + 1, d + 1), (0,), "argmax", "float32"), {}, 0),
    "argmin all": (lambda n, d: folded((n + 1, 2, d + 1), (0, 2), "argmin", "float64"), {}, 0),
    "short rows": (lambda n, d: folded((n + d, 5), (1,), "add", "float32"), {}, 1e-6),
    "softmax": (lambda n, d: softmax(n, d + 1), {}, 2e-6),
    "softmax again": (lambda n, d: softmax(n, d + 1, keeps=False), {}, 2e-6),
    "softmax columns": (lambda n, d: softmax(n + 1, d, 0), {}, 2e-6),
    "layer norm": (lambda n, d: layer_norm(n, d + 1), {}, 1e-4),
    "scratch row": (scratch_norm, {}, 2e-6),
    "transpose": (transpose, {}, 0),
    "scan rows": (lambda n, d: scan(n, d, 1, reverse=False, dtype="float64"), {}, 1e-12),
    "scan columns": (lambda n, d: scan(n, d, 0, reverse=True, dtype="float64"), {}, 1e-12),
    "scan line": (lambda n, d: scan(1, n + d, 1, reverse=True), {}, 1e-5),
    "take rows": (lambda n, d: take_rows(n, d, 9), {1: 9}, 0),
    "take along": (lambda n, d: take_along(n, d, 9), {1: 9}, 0),
    "scatter rows": (lambda n, d: scatter_rows(n, d, 9), {1: 9}, 1e-5),
    "histogram": (lambda n, d: histogram(n + d, 9), {0: 9}, 0),
    "windows": (windows, {}, 1e-6),
    "pad": (pad, {}, 0),
    "blur": (blur, {}, 2e-6),
    "every second": (lambda n, d: strided(n + d, 2), {}, 0),
    "every third": (lambda n, d: strided(n + d, 3), {}, 0),
    "backwards": (lambda n, d: strided(n + d, -1), {}, 0),
    "every seventh, backwards": (lambda n, d: strided(n + d, -7), {}, 0),
    "guarded store": (lambda n, d: sparse_store(n + 2, d + 2), {}, 0),
    "positions": (positions, {}, 0),
    "adam": (lambda n, d: adam(n + d), {}, 1e-6),
    "bag": (lambda n, d: bag(n, d, 9), {1: 9}, 1e-6),
    "picked": (lambda n, d: picked(n + d, 9), {1: 9, 2: 9}, 0),
    "scan then sum, rows": (lambda n, d: scan_then_sum(n, d, 1), {}, 1e-12),
    "scan then sum, columns": (lambda n, d: scan_then_sum(n, d, 0), {}, 1e-12),
    "several": (lambda n, d: several(n, d + 1), {}, 1e-5),
    "mixed": (lambda n, d: mixed(n + d), {}, 0),
}


def arguments_of(kernel: Kernel, sizes: Mapping[str, int], ranges: Mapping[int, int], rng: np.random.Generator,
                 *, special: bool = False) -> list[np.ndarray]:
    arrays = []
    for i, (dtype, length) in enumerate(zip(kernel.arguments, buffer_lengths(kernel, sizes), strict=True)):
        if i in ranges:
            arrays.append(rng.integers(-ranges[i], ranges[i], length).astype(dtype))
        else:
            arrays.append(random_array(rng, dtype, length, special=special))
    return arrays


def differences(got: np.ndarray, wanted: np.ndarray, dtype: str, tolerance: float) -> str:
    """What is wrong, or nothing."""
    if dtype == "bfloat16":
        got, wanted = from_bfloat16(got), from_bfloat16(wanted)
    if "float" not in dtype or tolerance == 0:
        same = (got == wanted) | ((got != got) & (wanted != wanted))
    else:
        with np.errstate(all="ignore"):
            a, b = got.astype(np.float64), wanted.astype(np.float64)
            largest = float(np.nanmax(np.abs(b[np.isfinite(b)]), initial=1))
            same = np.isclose(a, b, tolerance, tolerance * largest, equal_nan=True)
    if same.all():
        return ""
    first = int(np.argmin(same))
    return f"{int((~same).sum())} of {same.size} differ, first at {first}: {got[first]!r} instead of {wanted[first]!r}"
