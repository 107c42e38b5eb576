"""Long streams through memory: what is fetched ahead, and what is written past the caches.

    passes over rows    the first that reads a row fetches the same place of the next one, for the later passes compute
    long lines          4 KiB ahead

The machine's own prefetchers stop at the ends of pages, and where much is computed between loads they see too few of
them.  Light kernels wait for the memory anyhow.  A prefetch never faults, so the last ones may lie beyond the buffer.

Stores past the caches need whole lines: the vectors of a line begin where its address is a multiple of their length,
what lies before and behind is written in the ordinary way.  They are not ordered with other stores, so a fence follows.
"""

from __future__ import annotations

from graphc.ir.dims import Dim, product
from graphc.ir.plan import STREAMED_BYTES, Kernel, Map

from .collapse import Facts, is_nonzero
from .roles import Choice
from .target import Target
from .text import Function, Int
from .vectors import MEMORY, kind_bits

LINE = 64  # bytes
AHEAD = 4096  # bytes, along a line
LONGEST_ROW = 1 << 15  # bytes: of a longer one, the next is not fetched while this one is worked on
LEAST_WEIGHT = 12  # of a kernel that computes enough between its loads
STREAMED_WEIGHT = 40  # of a kernel that waits for memory; half of that where the size decides at run time
SMALL = 1 << 18  # bytes that stay in cache from call to call


def streams(kernel: Kernel, known: Facts, choice: Choice, line: int | None) -> dict[int, int | Dim]:
    """Load -> the stride from one line of vectors to the next, 0 where there is one line only.

    `line` is the axis of the loop around that over the lanes.
    """
    if choice.lanes is None or known.weight < LEAST_WEIGHT or (known.reduced and not known.reduced >> choice.lanes & 1):
        return {}
    found: dict[int, int | Dim] = {}
    for i in known.live:
        address = kernel.ops[i].map
        if kernel.ops[i].kind == "load" and address is not None and _is_stream(kernel, address, choice.lanes, line):
            found[i] = 0 if line is None else address.strides[line]
    return found


def _is_stream(kernel: Kernel, address: Map, lanes: int, line: int | None) -> bool:
    if not _is_line(address, lanes):
        return False
    if line is not None and address.strides[line] == 0:  # the same for every line
        return False
    extents = [n for n, stride in zip(kernel.extents, address.strides, strict=True) if stride != 0]
    points = product(extents)
    size = kind_bits(MEMORY[kernel.arguments[address.argument]]) // 8
    return not isinstance(points, int) or points * size > SMALL


def distance(function: Function, dtype: str, stride: Int) -> Int:
    """How many elements ahead to fetch, by the stride between lines."""
    size = kind_bits(MEMORY[dtype]) // 8
    longest, along = LONGEST_ROW // size, AHEAD // size
    if isinstance(stride, int):
        return stride if 0 < stride <= longest else along
    is_row = function.value(f"icmp ult i64 {function.sub(stride, 1)}, {longest}")
    return function.value(f"select i1 {is_row}, i64 {stride}, i64 {along}")


def fetch(function: Function, kind: str, pointer: str, ahead: Int) -> None:
    function.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    function.emit(f"call void @llvm.prefetch.p0(ptr {function.element(kind, pointer, ahead)}, i32 0, i32 3, i32 1)")


# -- writing --
def streamed_store(kernel: Kernel, known: Facts, choice: Choice, target: Target) -> int | None:
    """The store that may go past the caches."""
    if target.architecture != "x86_64" or choice.lanes is None or choice.unroll != choice.lanes or known.reduced:
        return None
    for i in known.live:
        address = kernel.ops[i].map
        if kernel.ops[i].kind == "store" and address is not None and address.argument in kernel.schedule.streamed:
            size = streamed_size(kernel, i)
            limit = STREAMED_WEIGHT if isinstance(size, int) else STREAMED_WEIGHT // 2
            is_small = isinstance(size, int) and size < STREAMED_BYTES
            if _is_line(address, choice.lanes) and known.weight <= limit and not is_small:
                return i
    return None


def streamed_size(kernel: Kernel, store: int) -> int | Dim:
    """Bytes that the store writes in all."""
    address = kernel.ops[store].map
    assert address is not None
    extents = [n for n, stride in zip(kernel.extents, address.strides, strict=True) if is_nonzero(stride)]
    return product(extents) * (kind_bits(MEMORY[kernel.arguments[address.argument]]) // 8)


def is_large(function: Function, size: Int) -> str:
    return function.value(f"icmp uge i64 {size}, {STREAMED_BYTES}")


def _is_line(address: Map, lanes: int) -> bool:
    return address.strides[lanes] == 1 and not address.indices and not address.guards


def before_line(function: Function, pointer: str, size: int, nbytes: int) -> Int:
    """How many elements lie between the pointer and the next address that is a multiple of `nbytes`."""
    address = function.value(f"ptrtoint ptr {pointer} to i64")
    missing = function.value(f"and i64 {function.value(f'sub i64 0, {address}')}, {nbytes - 1}")
    return missing if size == 1 else function.value(f"lshr i64 {missing}, {size.bit_length() - 1}")
