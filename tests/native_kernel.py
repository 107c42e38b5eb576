"""Kernels as functions of this process, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
import itertools

import numpy as np

from codegen.jit import compile_text, load
from codegen.kernel import emit_kernel, kernel_symbols, split_extent
from codegen.target import target
from codegen.text import Module
from graphc.ir.dims import evaluate
from graphc.ir.plan import Kernel


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
        self.loaded = load(compile_text(module.text(), target(name)), ["entry"], target(name))
        kinds = [ctypes.c_void_p] * len(kernel.arguments) + [ctypes.c_int64] * (len(self.symbols) + 2)
        self.function = self.loaded.function("entry", None, *kinds)
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
