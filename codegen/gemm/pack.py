"""Packing: copies a block of an operand into scratch memory in the order in which the micro-kernel reads it.

A block has two axes, outer and inner, the inner one contiguous in the copy.  Elements become the accumulator's kind
on the way.  The last vector of a line overlaps the one before it, so no read or write leaves the block, and no masks
are needed; a line shorter than a vector is copied element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..target import Target
from ..text import Function, Int, Module
from ..vectors import FLOATS, MEMORY, REGISTER, UNSIGNED, Lanes, kind_bits


LINES_AHEAD = 4  # by how many lines what is copied is fetched


@dataclass(frozen=True)
class Source:
    """Elements of `dtype` at pointer + i*outer + j*inner."""

    pointer: str
    dtype: str
    outer: Int
    inner: Int


@dataclass(frozen=True)
class Place:
    """Elements of `kind` at pointer + i*outer + j."""

    pointer: str
    kind: str
    outer: Int


def converted(lanes: Lanes, dtype: str, loaded: str, kind: str) -> str:
    """A loaded element as the accumulator's kind."""
    value, source = lanes.load_convert(dtype, loaded), REGISTER[dtype]
    if source == kind:
        return value
    if dtype in FLOATS:
        return lanes.convert("fpext" if kind_bits(kind) > kind_bits(source) else "fptrunc", source, value, kind)
    unsigned = dtype in UNSIGNED or dtype == "bool"
    if kind in ("float", "double"):
        return lanes.convert("uitofp" if unsigned else "sitofp", source, value, kind)
    if kind_bits(kind) < kind_bits(source):
        return lanes.convert("trunc", source, value, kind)
    return lanes.convert("zext" if unsigned else "sext", source, value, kind)


def steps(function: Function, stop: Int, step: int, body: Callable[[Int], None]) -> None:
    """`for i in range(0, stop, step)`, without a loop where there is at most one round."""
    if isinstance(stop, int) and stop <= step:
        if stop > 0:
            body(0)
        return

    def inside(index: Int, _: list[str]) -> list[Int]:
        body(index)
        return []
    function.loop(0, stop, step, [], inside)


def between(function: Function, low: Int, high: Int, step: int, body: Callable[[Int], None]) -> None:
    """`for i in range(low, high, step)`."""
    if low == 0:
        steps(function, high, step, body)
        return

    def inside(index: Int, _: list[str]) -> list[Int]:
        body(index)
        return []
    function.loop(low, high, step, [], inside)


class Packer:
    """Writes packing code into `function` with vectors of at most `width` elements.

    Lines lie in different pages, where the machine's own prefetching ends, so each fetches one some lines ahead.
    """

    def __init__(self, function: Function, target: Target, width: int) -> None:
        self.function = function
        self.target = target
        self.width = width

    def lines(self, source: Source, place: Place, outer: Int, inner: Int, *, longest: int | None = None) -> None:
        """Copies outer x inner elements; `longest` bounds an inner length that is known only at run time."""
        function = self.function
        longest = inner if isinstance(inner, int) else longest or self.width

        def line(i: Int) -> None:
            start = function.element(MEMORY[source.dtype], source.pointer, function.mul(i, source.outer))
            end = function.element(place.kind, place.pointer, function.mul(i, place.outer))
            self.line(source, start, place.kind, end, inner, power_below(min(self.width, max(longest, 1))))
        steps(function, outer, 1, line)

    def clear(self, place: Place, outer: Int, inner: int) -> None:
        """Zeros: what happens to lie in memory may be subnormal numbers, with which arithmetic is slow."""
        function, lanes = self.function, Lanes(self.function, self.target, self.width)

        def line(i: Int) -> None:
            for j in range(0, inner, lanes.count):
                pointer = function.element(place.kind, place.pointer, function.add(function.mul(i, place.outer), j))
                function.emit(f"store {lanes.vector(place.kind)} {lanes.literal(place.kind, 0)}, ptr {pointer}, "
                              f"align {kind_bits(place.kind) // 8}")
        steps(function, outer, 1, line)

    def line(self, source: Source, start: str, kind: str, end: str, count: Int, width: int) -> None:
        """One line of `count` elements; vectors of `width` where the source is contiguous and long enough."""
        function = self.function

        def move(lanes: int, at: Int) -> None:
            self.move(source, start, kind, end, lanes, at)
        if source.inner != 1 or width == 1 or (isinstance(count, int) and count < width):
            steps(function, count, 1, lambda k: move(1, k))
            return
        whole = function.sub(count, width - 1)  # starts of whole vectors lie below it

        def vectors() -> None:
            steps(function, whole, width, lambda k: move(width, k))
            if not isinstance(count, int) or count % width:
                move(width, function.sub(count, width))
        if isinstance(count, int):
            vectors()
            return
        long = function.value(f"icmp sge i64 {count}, {width}")

        def short() -> list[Int]:
            steps(function, count, 1, lambda k: move(1, k))
            return []

        def full() -> list[Int]:
            vectors()
            return []
        function.choose(long, [], full, short)

    def move(self, source: Source, start: str, kind: str, end: str, count: int, at: Int) -> None:
        """Copies `count` neighbouring elements."""
        function, lanes = self.function, Lanes(self.function, self.target, count)
        memory = MEMORY[source.dtype]
        address = function.element(memory, start, function.mul(at, source.inner))
        if count > 1:
            function.prefetch(function.element(memory, address, function.mul(source.outer, LINES_AHEAD)))
        align = kind_bits(memory) // 8
        loaded = function.value(f"load {lanes.memory_type(source.dtype)}, ptr {address}, align {align}")
        value = converted(lanes, source.dtype, loaded, kind)
        pointer = function.element(kind, end, at)
        function.emit(f"store {lanes.vector(kind)} {value}, ptr {pointer}, align {kind_bits(kind) // 8}")

    def turned(self, source: Source, place: Place, outer: Int, inner: int) -> None:
        """Copies a block whose source is contiguous along the copy's outer axis, by squares turned in registers.

        `inner` is a multiple of the width.
        """
        function, width = self.function, self.width

        def squares() -> list[Int]:
            steps(function, inner, width, lambda j: self.turned_column(source, place, outer, j))
            return []

        def elements() -> list[Int]:
            self.lines(source, place, outer, inner)
            return []
        if isinstance(outer, int):
            (squares if outer >= width else elements)()
        else:
            function.choose(function.value(f"icmp sge i64 {outer}, {width}"), [], squares, elements)

    def turned_column(self, source: Source, place: Place, outer: Int, j: Int) -> None:
        """The squares from column j on; the last one overlaps the one before it."""
        function, width = self.function, self.width

        def square(k: Int) -> None:
            at = function.add(k, function.mul(source.inner, j))
            self.square(source, function.element(MEMORY[source.dtype], source.pointer, at), place,
                        function.element(place.kind, place.pointer, function.add(function.mul(k, place.outer), j)))
        steps(function, function.sub(outer, width - 1), width, square)
        if not isinstance(outer, int) or outer % width:
            square(function.sub(outer, width))

    def square(self, source: Source, from_: str, place: Place, to: str) -> None:
        """width x width elements, by a function of their own: they are many instructions."""
        name = f"turn_{source.dtype}_{place.kind}_{self.width}"
        if name not in self.function.module.functions:
            emit_turn(self.function.module, self.target, name, source.dtype, place.kind, self.width)
        self.function.emit(f"call fastcc void @{name}(ptr {from_}, i64 {source.inner}, ptr {to}, i64 {place.outer})")


def emit_turn(module: Module, target: Target, name: str, dtype: str, kind: str, width: int) -> None:
    """Copies the transpose of width x width elements, by log2(width) rounds of interleaving."""
    function = Function(module, f"define internal fastcc void @{name}"
                                "(ptr %from, i64 %row, ptr %to, i64 %column) noinline #0")
    lanes, memory = Lanes(function, target, width), MEMORY[dtype]
    rows = []
    for j in range(width):
        pointer = function.element(memory, "%from", function.mul("%row", j))
        loaded = function.value(f"load {lanes.memory_type(dtype)}, ptr {pointer}, align {kind_bits(memory) // 8}")
        rows.append(converted(lanes, dtype, loaded, kind))
    for k, row in enumerate(transposed(lanes, kind, rows)):
        pointer = function.element(kind, "%to", function.mul("%column", k))
        function.emit(f"store {lanes.vector(kind)} {row}, ptr {pointer}, align {kind_bits(kind) // 8}")
    function.emit("ret void")
    module.add(name, function.text())


def transposed(lanes: Lanes, kind: str, rows: list[str]) -> list[str]:
    """Rows i and i + n/2 interleaved, log2(n) times over, is the transpose."""
    half, vector = len(rows) // 2, lanes.vector(kind)
    low = ", ".join(f"i32 {i // 2 + i % 2 * len(rows)}" for i in range(len(rows)))
    high = ", ".join(f"i32 {half + i // 2 + i % 2 * len(rows)}" for i in range(len(rows)))
    rounds = len(rows).bit_length() - 1
    for _ in range(rounds):
        rows = [lanes.value(f"shufflevector {vector} {a}, {vector} {b}, <{len(rows)} x i32> <{order}>")
                for a, b in zip(rows[:half], rows[half:], strict=True) for order in (low, high)]
    return rows


def power_below(value: int) -> int:
    """The largest power of two that is at most `value`."""
    return 1 << (value.bit_length() - 1)
