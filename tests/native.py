"""A small JIT for tests of emitted code: one elementwise expression as a native function over NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import ctypes
import itertools

import llvmlite.binding as llvm
import numpy as np

from codegen.target import Target, machine
from codegen.text import Function, Module
from codegen.vectors import Lanes

NUMPY = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "bool": np.bool_}
NUMPY |= {f"{sign}int{bits}": getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}

Emit = Callable[..., str]  # (Lanes, operands...) -> value

_names = itertools.count()
_keep: list[object] = []


def object_code(module: Module, chosen: Target) -> bytes:
    parsed = llvm.parse_assembly(module.text())
    parsed.triple = chosen.triple
    chosen_machine = machine(chosen)
    parsed.data_layout = str(chosen_machine.target_data)
    parsed.verify()
    return bytes(chosen_machine.emit_object(parsed))


def map_module(emit: Emit, dtypes: Sequence[str], result: str, chosen: Target, count: int) -> Module:
    """`void k(ptr out, ptr x0, .., i64 n)` for n a multiple of `count`; arrays hold the memory form of their dtypes."""
    module = Module()
    arguments = ", ".join(["ptr %out", *(f"ptr %x{i}" for i in range(len(dtypes))), "i64 %n"])
    function = Function(module, f"define void @k({arguments}) #0")
    lanes = Lanes(function, chosen, count)

    def body(i: str | int, carried: list[str]) -> list[str]:
        operands = []
        for position, dtype in enumerate(dtypes):
            address = function.element(_element(dtype), f"%x{position}", i)
            loaded = function.value(f"load {lanes.memory_type(dtype)}, ptr {address}, align 1")
            operands.append(lanes.load_convert(dtype, loaded))
        stored = lanes.store_convert(result, emit(lanes, *operands))
        address = function.element(_element(result), "%out", i)
        function.emit(f"store {lanes.memory_type(result)} {stored}, ptr {address}, align 1")
        return []

    function.loop(0, "%n", count, [], body)
    function.emit("ret void")
    module.add("k", function.text())
    return module


def _element(dtype: str) -> str:
    return {"float64": "double", "float32": "float", "float16": "half", "bfloat16": "i16", "bool": "i8"}.get(
        dtype, "i" + dtype.lstrip("uint"))


def compile_map(emit: Emit, dtypes: Sequence[str], result: str, chosen: Target,
                count: int) -> Callable[..., np.ndarray]:
    """The function over NumPy arrays; lengths that are no multiple of `count` are padded with the last element."""
    code = object_code(map_module(emit, dtypes, result, chosen, count), chosen)
    jit = llvm.create_lljit_compiler(machine(chosen), use_jit_link=True)
    library = llvm.JITLibraryBuilder().add_object_img(code).export_symbol("k").link(jit, f"test{next(_names)}")
    address = library["k"]
    _keep.append((jit, library))
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(dtypes) + 1), ctypes.c_int64)(address)

    def call(*arrays: np.ndarray) -> np.ndarray:
        size = arrays[0].size
        padded = -(-size // count) * count
        inputs = [np.pad(np.ascontiguousarray(a, NUMPY[d]), (0, padded - size), mode="edge")
                  for a, d in zip(arrays, dtypes, strict=True)]
        out = np.empty(padded, NUMPY[result])
        native(out.ctypes.data, *(a.ctypes.data for a in inputs), padded)
        return out[:size]

    return call
