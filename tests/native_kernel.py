"""Kernels as functions of this process, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
import itertools
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from codegen.kernel import emit_kernel, kernel_symbols, split_extent
from codegen.target import machine, target
from codegen.text import Module
from graphc.ir.dims import evaluate
from graphc.ir.plan import Kernel
from native import object_code

_numbers = itertools.count()
_jit: list[Any] = []


def executable_targets() -> list[str]:
    """The targets whose code this machine runs."""
    features = llvm.get_host_cpu_features()
    if target("native").architecture != "x86_64":
        return ["native"]
    return ["native", "x86-64-v2"] + (["x86-64-v3"] if features.get("avx2") and features.get("fma") else [])


def link(image: bytes, name: str) -> Any:
    """Links an object into this process; keep what is returned for as long as its code may run."""
    if not _jit:
        _jit.append(llvm.create_lljit_compiler(machine(target("native")), use_jit_link=True))
    return llvm.JITLibraryBuilder().add_object_img(image).export_symbol(name).link(_jit[0], f"kernels{next(_numbers)}")


class Native:
    """A kernel ready to be called: `native({"n": 5}, x, y)`; arrays in the order of the kernel's arguments."""

    def __init__(self, kernel: Kernel, name: str = "native") -> None:
        self.kernel = kernel
        module = Module()
        emit_kernel(module, kernel, target(name), "kernel")
        self.symbols = kernel_symbols(kernel)
        parameters = [f"ptr %a{i}" for i in range(len(kernel.arguments))]
        listed = ", ".join(parameters + [f"i64 %s{i}" for i in range(len(self.symbols) + 2)])
        module.add("entry", f"define void @entry({listed}) #0 {{\n  call void @kernel({listed})\n  ret void\n}}\n")
        self.module = module
        self.library = link(object_code(module, target(name)), "entry")
        kinds = [ctypes.c_void_p] * len(kernel.arguments) + [ctypes.c_int64] * (len(self.symbols) + 2)
        self.function = ctypes.CFUNCTYPE(None, *kinds)(self.library["entry"])
        self.split = split_extent(kernel)

    def extent(self, sizes: Mapping[str, int]) -> int:
        return evaluate(self.split, sizes)

    def call(self, sizes: Mapping[str, int], pointers: Sequence[int], low: int, high: int) -> None:
        self.function(*pointers, *(sizes[s] for s in self.symbols), low, high)

    def __call__(self, sizes: Mapping[str, int], *arrays: np.ndarray, pieces: int = 1) -> None:
        extent = self.extent(sizes)
        cuts = [extent * k // pieces for k in range(pieces + 1)] if pieces > 1 and extent > 1 else [0, extent]
        for low, high in itertools.pairwise(cuts):
            self.call(sizes, [array.ctypes.data for array in arrays], low, high)
