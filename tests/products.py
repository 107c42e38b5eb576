"""Matrix products as plan data, compiled: what the tests and measurements of contractions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
import itertools
import time

import numpy as np

from codegen.contraction import emit_contraction, product_ranges, workspace_bytes
from codegen.jit import compile_text, load
from codegen.sizes import symbol_register
from codegen.target import target
from codegen.text import Module
from graphc.ir.dims import Dim, evaluate, symbols_of
from graphc.ir.plan import Contraction, KernelOp, Map


def symbols(contraction: Contraction) -> tuple[str, ...]:
    maps = [contraction.a, contraction.b, *(op.map for op in contraction.ops if op.map)]
    return symbols_of(*contraction.extents, contraction.depth, *(s for m in maps for s in (m.offset, *m.strides)))


class Product:
    """A contraction ready to be called: `product({"m": 5}, a, b, c)`; arrays in the order of its arguments."""

    def __init__(self, contraction: Contraction, name: str = "native") -> None:
        self.symbols = symbols(contraction)
        module = Module()
        emit_contraction(module, contraction, target(name), "product")
        pointers = [f"ptr %a{i}" for i in range(len(contraction.arguments))]
        self.ranges = product_ranges(contraction, target(name))
        bounds = [f"i64 {bound}" for part in self.ranges for bound in part.bounds]
        listed = ", ".join([*pointers, *(f"i64 {symbol_register(s)}" for s in self.symbols), *bounds, "ptr %workspace"])
        module.add("entry", f"define void @entry({listed}) #0 {{\n  call void @product({listed})\n  ret void\n}}\n")
        self.text = module.text()
        start = time.thread_time()
        self.image = compile_text(self.text, target(name))
        self.compile_seconds = time.thread_time() - start
        self.loaded = load(self.image, ["entry"], target(name))
        kinds = [ctypes.c_void_p] * len(pointers) + [ctypes.c_int64] * (len(self.symbols) + len(bounds))
        kinds.append(ctypes.c_void_p)
        self.function = self.loaded.function("entry", None, *kinds)
        self.workspace_size = workspace_bytes(contraction, target(name))
        self.memory: dict[int, np.ndarray] = {}

    def workspace(self, sizes: Mapping[str, int]) -> int:
        size = evaluate(self.workspace_size, sizes)
        if size not in self.memory:
            self.memory[size] = np.full(size + 64, 0xFF, np.uint8)  # NaN: nothing may be read before it is written
        return -(-self.memory[size].ctypes.data // 64) * 64

    def __call__(self, sizes: Mapping[str, int], *arrays: np.ndarray, pieces: int = 1) -> None:
        """`pieces`: into how many every axis that may be cut is cut, at any place."""
        pointers = [a.ctypes.data for a in arrays]
        cuts = []
        for part in self.ranges:
            extent = evaluate(part.extent, sizes)
            ends = sorted({extent * k // pieces for k in range(pieces + 1)})
            cuts.append(list(itertools.pairwise(ends)) or [(0, 0)])
        for box in itertools.product(*cuts):
            bounds = [bound for pair in box for bound in pair]
            self.function(*pointers, *(sizes[s] for s in self.symbols), *bounds, self.workspace(sizes))


def row_major(shape: Sequence[int | Dim]) -> tuple[int | Dim, ...]:
    strides: list[int | Dim] = []
    step: int | Dim = 1
    for extent in reversed(shape):
        strides.insert(0, step)
        step = step * extent
    return tuple(strides)


def plain(m: int | Dim, n: int | Dim, k: int | Dim, *, dtype: str = "float32", storage: str | None = None,
          batch: Sequence[int | Dim] = (), turn_a: bool = False, turn_b: bool = False,
          ops: Sequence[KernelOp] | None = None, more: Sequence[str] = (),
          spread: tuple[bool, bool] = (False, False)) -> Contraction:
    """a @ b of arrays in C order: argument 0 is a, 1 is b, 2 is c, then `more`; a spread operand has no batch axes."""
    rank = len(batch)
    a = row_major((*batch, k, m) if turn_a else (*batch, m, k))
    b = row_major((*batch, n, k) if turn_b else (*batch, k, n))
    lead_a, lead_b = ((0,) * rank if flag else strides[:rank] for flag, strides in zip(spread, (a, b), strict=True))
    (a_row, a_step) = a[:-3:-1] if turn_a else a[-2:]
    (b_step, b_column) = b[:-3:-1] if turn_b else b[-2:]
    storage = storage or dtype
    store = KernelOp("store", (0,), dtype, Map(2, 0, row_major((*batch, m, n))))
    operands = Map(0, 0, (*lead_a, a_row, 0, a_step)), Map(1, 0, (*lead_b, 0, b_column, b_step))
    epilogue = tuple(ops or (KernelOp("accumulator", (), dtype), store))
    return Contraction((*batch, m, n), k, (storage, storage, dtype, *more), dtype, *operands, epilogue)


# -- what NumPy says --

FUNCTIONS = {"add": np.add, "mul": np.multiply, "sub": np.subtract, "maximum": np.maximum, "tanh": np.tanh,
             "lt": np.less, "where": np.where}


def numbers(array: np.ndarray, dtype: str) -> np.ndarray:
    """The values of an array whose memory holds `dtype`, as numbers to compute with exactly or nearly so."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.longdouble if dtype == "float64" else np.float64 if "float" in dtype else dtype)


def memory(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values as their memory form; bfloat16 rounds to nearest even."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values).astype(dtype)
    bits = np.ascontiguousarray(values).astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def view(flat: np.ndarray, map_: Map, extents: Sequence[int], sizes: Mapping[str, int]) -> np.ndarray:
    """The elements of a flat array that a map reads or writes, by axis."""
    size = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat[evaluate(map_.offset, sizes):], tuple(extents),
                                           tuple(evaluate(s, sizes) * size for s in map_.strides))


def reference(contraction: Contraction, sizes: Mapping[str, int], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Copies of the flat arrays after the contraction."""
    arrays = [array.copy() for array in arrays]
    extents = [evaluate(extent, sizes) for extent in contraction.extents]
    depth = evaluate(contraction.depth, sizes)
    if 0 in extents:
        return arrays
    values = []
    for op in contraction.ops:
        if op.kind == "accumulator":
            a, b = (numbers(view(arrays[m.argument], m, [*extents, depth], sizes), contraction.arguments[m.argument])
                    for m in (contraction.a, contraction.b))
            if "float" not in contraction.dtype:
                a, b = a.astype(contraction.dtype), b.astype(contraction.dtype)  # sums wrap around in this dtype
            values.append(a[..., 0, :] @ np.swapaxes(b[..., 0, :, :], -1, -2))
        elif op.kind == "const":
            values.append(op.value)
        elif op.kind == "load":
            values.append(numbers(view(arrays[op.map.argument], op.map, extents, sizes), op.dtype))
        elif op.kind == "store":
            view(arrays[op.map.argument], op.map, extents, sizes)[...] = memory(
                np.broadcast_to(values[op.operands[0]], extents), op.dtype)
            values.append(None)
        else:
            operands = [values[i] for i in op.operands]
            values.append(operands[0] if op.kind == "cast" else FUNCTIONS[op.kind](*operands))
    return arrays
