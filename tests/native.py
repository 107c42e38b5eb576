"""Emitted code in this process, for tests: the targets it runs on, and one elementwise expression over NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import ctypes

import llvmlite.binding as llvm
import numpy as np

from codegen.jit import compile_text, load
from codegen.target import Target, target
from codegen.text import Function, Module
from codegen.vectors import Lanes

NUMPY = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "bool": np.bool_}
NUMPY |= {f"{sign}int{bits}": getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}

Emit = Callable[..., str]  # (Lanes, operands...) -> value

_keep: list[object] = []


def executable_targets() -> list[str]:
    """The targets whose code this machine runs."""
    features = llvm.get_host_cpu_features()
    if target("native").architecture != "x86_64":
        return ["native"]
    return ["native", "x86-64-v2"] + (["x86-64-v3"] if features.get("avx2") and features.get("fma") else [])


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
    loaded = load(compile_text(map_module(emit, dtypes, result, chosen, count).text(), chosen), ["k"], chosen)
    _keep.append(loaded)
    native = loaded.function("k", None, *[ctypes.c_void_p] * (len(dtypes) + 1), ctypes.c_int64)

    def call(*arrays: np.ndarray) -> np.ndarray:
        size = arrays[0].size
        padded = -(-size // count) * count
        inputs = [np.pad(np.ascontiguousarray(a, NUMPY[d]), (0, padded - size), mode="edge")
                  for a, d in zip(arrays, dtypes, strict=True)]
        out = np.empty(padded, NUMPY[result])
        native(out.ctypes.data, *(a.ctypes.data for a in inputs), padded)
        return out[:size]

    return call
