"""Runs every kernel with each buffer between two pages that fault; a child process, because a fault ends it.

Each buffer lies once against the page behind it and once against the page before it.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np

from codegen import streams
from graphc.ir.dims import Dim
from kernel_cases import CASES, arguments_of, elementwise, folded, streamed
from native import executable_targets
from native_kernel import Native

PAGE = mmap.PAGESIZE
PAGES = 24
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Fenced:
    """A region whose first and last page must not be touched."""

    def __init__(self, pages: int = PAGES) -> None:
        self.nbytes = pages * PAGE
        self.map = mmap.mmap(-1, self.nbytes + 2 * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.first, self.end = self.address + PAGE, self.address + PAGE + self.nbytes
        for fence in (self.address, self.end):
            if _libc.mprotect(fence, PAGE, 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, array: np.ndarray, *, at_end: bool) -> int:
        if array.nbytes > self.nbytes:
            raise ValueError(f"{array.nbytes} bytes do not fit")
        where = self.end - array.nbytes if at_end else self.first
        ctypes.memmove(where, array.ctypes.data, array.nbytes)
        return where


def main() -> None:
    n, d = Dim.symbol("n"), Dim.symbol("d")
    kernels = {name: (build(n, d), ranges) for name, (build, ranges, _) in CASES.items()}
    for dtype in ("float16", "bfloat16", "int8", "int64", "bool"):
        kernels[f"{dtype} max"] = folded((n + 1, d + 1), (1,), "max", dtype), {}
        if dtype != "bool":
            kernels[f"{dtype} add"] = elementwise((n, d), dtype, "add"), {}
    streams.STREAMED_BYTES = 0  # what may go past the caches does
    kernels |= {f"streamed {name}": (streamed(kernel), {}) for name, (kernel, ranges) in kernels.items()
                if name.endswith(("add", "bias", "mixed")) and not ranges}
    fences = [Fenced() for _ in range(6)]
    rng = np.random.default_rng(0)
    for target in executable_targets():
        for name, (kernel, ranges) in kernels.items():
            print(target, name, flush=True)
            native = Native(kernel, target)
            shapes = [(rows, size) for size in range(68) for rows in (1, 3)] + [(35, 21), (67, 5), (0, 4)]
            for sizes in [{"n": rows, "d": size} for rows, size in shapes]:
                arrays = arguments_of(kernel, sizes, ranges, rng)
                for at_end in (True, False):
                    pointers = [fence.place(array, at_end=at_end) for fence, array in zip(fences, arrays, strict=False)]
                    native.call(sizes, pointers, 0, native.extent(sizes))
    print("done")


if __name__ == "__main__":
    sys.exit(main())
