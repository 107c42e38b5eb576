"""Parallel regions: a step that takes long enough is cut into pieces, which the threads of a pool claim.

    @graphc_pool = {i64 threads, ptr run}       how many threads a call may use, and `graphc_pool_run`
    void @<step>_piece(ptr arguments, i64 piece, i64 slot)

The step's function takes a range lo..hi of each axis that may be cut.  A piece is a box of such ranges; pieces are
numbered with the last axis fastest.  What a piece needs lies in an array of 64-bit words on the caller's stack:

    the step's arguments | workspace | for each axis: extent, length of a piece, pieces

How many pieces there are depends on the number of threads; the results do not, because the order in which an element
is computed depends on no range.  With one thread, or where run-time sizes are small, the whole is one direct call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dims import Dim

from .text import Function, Int, Module
from .work import BOXES, PIECE, PIECES, REGION

DESCRIPTOR = "graphc_pool"

# An axis in so many parts: how long one is, a multiple of something.
LENGTH = """\
define internal i64 @graphc_length(i64 %extent, i64 %parts, i64 %multiple) #0 {
  %some = call i64 @llvm.umax.i64(i64 %parts, i64 1)
  %last = sub i64 %some, 1
  %above = add i64 %extent, %last
  %length = udiv i64 %above, %some
  %rest = sub i64 %multiple, 1
  %up = add i64 %length, %rest
  %count = udiv i64 %up, %multiple
  %least = call i64 @llvm.umax.i64(i64 %count, i64 1)
  %rounded = mul i64 %least, %multiple
  ret i64 %rounded
}
"""

# Rows and columns in at least so many parts, if they are long enough: first blocks of columns, then whichever is longer
# is halved.  What is cut must be at least `*_least` long.
GRID = """\
define internal {i64, i64} @graphc_grid(i64 %m, i64 %n, i64 %m.least, i64 %n.least, i64 %n.block, i64 %wanted) #0 {
entry:
  %blocks = udiv i64 %n, %n.block
  %some = call i64 @llvm.umax.i64(i64 %blocks, i64 1)
  %first = call i64 @llvm.umin.i64(i64 %some, i64 %wanted)
  br label %head
head:
  %rows = phi i64 [1, %entry], [%rows.next, %cut]
  %columns = phi i64 [%first, %entry], [%columns.next, %cut]
  %pieces = mul i64 %rows, %columns
  %few = icmp ult i64 %pieces, %wanted
  %m.piece = udiv i64 %m, %rows
  %n.piece = udiv i64 %n, %columns
  %m.long = icmp uge i64 %m.piece, %m.least
  %n.long = icmp uge i64 %n.piece, %n.least
  %can = or i1 %m.long, %n.long
  %go = and i1 %few, %can
  br i1 %go, label %cut, label %done
cut:
  %is.high = icmp uge i64 %m.piece, %n.piece
  %only.m = xor i1 %n.long, true
  %prefer = or i1 %is.high, %only.m
  %by.rows = and i1 %m.long, %prefer
  %rows.twice = shl i64 %rows, 1
  %columns.twice = shl i64 %columns, 1
  %rows.next = select i1 %by.rows, i64 %rows.twice, i64 %rows
  %columns.next = select i1 %by.rows, i64 %columns, i64 %columns.twice
  br label %head
done:
  %one = insertvalue {i64, i64} poison, i64 %rows, 0
  %both = insertvalue {i64, i64} %one, i64 %columns, 1
  ret {i64, i64} %both
}
"""


@dataclass(frozen=True)
class Axis:
    """A range parameter: its full length; pieces start at multiples of `multiple`, for free at those of `block`."""

    extent: Int
    multiple: int
    block: int


@dataclass(frozen=True)
class Call:
    """A step's function and what it is given: typed arguments, the axes of its ranges, the workspace if it takes one.

    Every slot has a workspace of `stride` bytes, one after the other.
    """

    name: str
    arguments: tuple[tuple[str, Int], ...]
    axes: tuple[Axis, ...]
    has_grid: bool = False  # the last two axes are rows and columns
    workspace: str = ""
    stride: Int = 0
    attributes: str = ""  # of the call

    @property
    def words(self) -> int:
        return len(self.arguments) + 2 + 3 * len(self.axes)

    def text(self, ranges: Sequence[tuple[Int, Int]], arguments: Sequence[Int], workspace: str) -> str:
        listed = [f"{kind} {value}" for (kind, _), value in zip(self.arguments, arguments, strict=True)]
        listed += [f"i64 {bound}" for pair in ranges for bound in pair]
        listed += [f"ptr {workspace}"] if workspace else []
        return f"call void @{self.name}({', '.join(listed)}){self.attributes}"

    def may_share(self, work: int | Dim) -> bool:
        """Whether it can be cut and may take long enough."""
        return bool(self.axes) and (not isinstance(work, int) or work >= REGION)

    def whole(self) -> str:
        return self.text([(0, axis.extent) for axis in self.axes], [value for _, value in self.arguments],
                         self.workspace)


def pieces_function(module: Module, call: Call) -> str:
    """Adds `@<step>_piece`, once; returns its name."""
    name = f"{call.name}_piece"
    if name in module.functions:
        return name
    f = Function(module, f"define internal void @{name}(ptr %words, i64 %piece, i64 %slot) #0")

    def word(place: int, kind: str = "i64") -> str:
        return f.value(f"load {kind}, ptr {f.element('i64', '%words', place)}, align 8")
    arguments = [word(place, kind) for place, (kind, _) in enumerate(call.arguments)]
    at = len(arguments)
    workspace = f.element("i8", word(at, "ptr"), f.mul("%slot", word(at + 1))) if call.workspace else ""
    left: Int = "%piece"
    found: list[tuple[Int, Int]] = []
    for k in range(len(call.axes) - 1, -1, -1):
        extent, length, count = (word(at + 2 + 3 * k + i) for i in range(3))
        number = f.value(f"urem i64 {left}, {count}") if k else left
        left = f.value(f"udiv i64 {left}, {count}") if k else left
        low = f.mul(number, length)
        found.insert(0, (low, f.minimum(f.add(low, length), extent)))
    f.emit(call.text(found, arguments, workspace))
    f.emit("ret void")
    module.add(name, f.text())
    return name


def threads_of(function: Function) -> str:
    """How many threads a call may use."""
    function.module.add_global(DESCRIPTOR, descriptor_text())
    return function.value(f"load i64, ptr @{DESCRIPTOR}, align 8")


def descriptor_text(threads: int = 1, run: str = "null", linkage: str = "") -> str:
    """The global; a process changes it when it has loaded the program."""
    return f"@{DESCRIPTOR} = {linkage}global {{i64, ptr}} {{i64 {threads}, ptr {run}}}, align 8"


def foreign_descriptor() -> str:
    """The global of another module of the same library."""
    return f"@{DESCRIPTOR} = external hidden global {{i64, ptr}}, align 8"


class Regions:
    """Writes regions into the function of a program."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.words = 0
        self.at = len(function.lines)  # where the words are set aside, in the entry block
        function.lines.append(None)

    def close(self) -> None:
        if self.words:
            self.function.lines[self.at] = f"  %region = alloca [{self.words} x i64], align 64"

    def write(self, call: Call, work: Int) -> None:
        """The call; in pieces where there are several threads and there is so much work."""
        f = self.function
        threads = threads_of(f)
        shared = f.value(f"icmp ugt i64 {threads}, 1")
        if not isinstance(work, int):
            shared = f.value(f"and i1 {shared}, {f.value(f'icmp sge i64 {work}, {REGION}')}")

        def together() -> list[Int]:
            self.region(call, work, threads)
            return []

        def alone() -> list[Int]:
            f.emit(call.whole())
            return []
        f.choose(shared, [], together, alone)

    def region(self, call: Call, work: Int, threads: str) -> None:
        f = self.function
        self.words = max(self.words, call.words)
        wanted = f.minimum(f.mul(threads, BOXES if call.has_grid else PIECES), f.floordiv(work, PIECE))
        pieces: Int = 1
        grids: list[Int] = []
        for axis, length in zip(call.axes, self.lengths(call, wanted), strict=True):
            grids += [axis.extent, length, self.count(axis, length)]
            pieces = f.mul(pieces, grids[-1])
        values = [*call.arguments, ("ptr", call.workspace or "null"), ("i64", call.stride),
                  *(("i64", value) for value in grids)]
        for place, (kind, value) in enumerate(values):
            f.emit(f"store {kind} {value}, ptr {f.element('i64', '%region', place)}, align 8")
        for signature in ("i64 @llvm.umin.i64(i64, i64)", "i64 @llvm.umax.i64(i64, i64)"):
            f.module.declare(signature)
        body = pieces_function(f.module, call)
        run = f.value(f"load ptr, ptr {f.element('i64', f'@{DESCRIPTOR}', 1)}, align 8")
        f.emit(f"call void {run}(ptr @{body}, ptr %region, i64 {pieces}, i64 {threads})")

    def lengths(self, call: Call, wanted: Int) -> list[Int]:
        """How long a piece is along each axis: the first axis is cut as far as it goes; rows and columns together."""
        f = self.function
        result: list[Int] = []
        for axis in call.axes[:-2] if call.has_grid else call.axes:
            result.append(self.length(axis, wanted))
            count = f.maximum(self.count(axis, result[-1]), 1)
            wanted = f.value(f"udiv i64 {f.add(f.add(wanted, count), -1)}, {count}")
        if call.has_grid:
            f.module.add("graphc_grid", GRID)
            rows, columns = call.axes[-2:]
            pair = f.value(f"call {{i64, i64}} @graphc_grid(i64 {rows.extent}, i64 {columns.extent}, "
                           f"i64 {2 * rows.multiple}, i64 {2 * columns.multiple}, i64 {columns.block}, i64 {wanted})")
            result += [self.length(axis, f.value(f"extractvalue {{i64, i64}} {pair}, {k}"))
                       for k, axis in enumerate((rows, columns))]
        return result

    def count(self, axis: Axis, length: Int) -> str:
        f = self.function
        return f.value(f"udiv i64 {f.add(f.add(axis.extent, -1), length)}, {length}")

    def length(self, axis: Axis, parts: Int) -> str:
        """The axis in so many parts, rounded up to its multiple."""
        self.function.module.add("graphc_length", LENGTH)
        return self.function.value(f"call i64 @graphc_length(i64 {axis.extent}, i64 {parts}, i64 {axis.multiple})")
