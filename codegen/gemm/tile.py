"""The micro-kernel: a tile of the product, rows x vectors accumulators in registers, over a range of k.

    tile[i, j] (+)= sum over k of a[i*a_row + k*a_step] * b[k*b_step + j]

It knows no edges: it always computes whole vectors and all its rows, from operands that are really there, and writes
to a tile of scratch memory.  Which of those elements are wanted is the epilogue's affair; so one variant serves tiles
at the border too.  Strides and depth are known numbers where they can be, and parameters else.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..target import Target
from ..text import Function, Int, Module
from ..vectors import Lanes, kind_bits

PARAMETERS = ("ptr noalias %a", "ptr noalias %b", "i64 %b_step", "ptr noalias %tile", "i64 %depth", "i1 %resume")


@dataclass(frozen=True)
class Tile:
    """One variant of the micro-kernel.  `a_row` and `a_step` are a's strides, `pitch` the scratch tile's row length."""

    rows: int
    vectors: int
    lanes: int
    kind: str
    a_row: int
    a_step: int
    b_step: Int  # a number, or "%b_step"
    depth: Int  # a number, or "%depth"
    pitch: int
    resumes: bool  # may start from the sums that are in the tile
    unroll: int
    ahead: int  # steps of k by which b is prefetched; 0 for never


def emit_tile(module: Module, target: Target, name: str, tile: Tile) -> None:
    """Adds `define internal fastcc void @name(...)` with PARAMETERS."""
    function = Function(module, f"define internal fastcc void @{name}({', '.join(PARAMETERS)}) noinline #0")
    body = _Body(function, Lanes(function, target, tile.lanes), tile)
    sums, a, b = body.start(), "%a", "%b"
    if isinstance(tile.depth, int):
        whole = tile.depth // tile.unroll * tile.unroll
        sums, a, b = body.steps(0, whole, tile.unroll, (sums, a, b))
        sums, _, _ = body.step(tile.depth - whole, sums, a, b)
    else:
        whole_value = function.value(f"and i64 {tile.depth}, {-tile.unroll}")
        state = body.steps(0, whole_value, tile.unroll, (sums, a, b))
        sums, _, _ = body.steps(whole_value, tile.depth, 1, state)
    body.finish(sums)
    function.emit("ret void")
    module.add(name, function.text())


State = tuple[list[str], str, str]


class _Body:
    """The pieces of one micro-kernel; accumulators are a list in row-major order."""

    def __init__(self, function: Function, lanes: Lanes, tile: Tile) -> None:
        self.function = function
        self.lanes = lanes
        self.tile = tile
        self.vector = lanes.vector(tile.kind)
        self.align = kind_bits(tile.kind) // 8

    def places(self) -> list[int]:
        """Where in the scratch tile each accumulator lives."""
        t = self.tile
        return [i * t.pitch + j * t.lanes for i in range(t.rows) for j in range(t.vectors)]

    def start(self) -> list[str]:
        zeros = [self.lanes.literal(self.tile.kind, 0)] * (self.tile.rows * self.tile.vectors)
        if not self.tile.resumes:
            return zeros

        def stored() -> list[str]:
            return [self.load("%tile", place) for place in self.places()]
        return self.function.choose("%resume", [self.vector] * len(zeros), stored, lambda: zeros)

    def finish(self, sums: list[str]) -> None:
        for value, place in zip(sums, self.places(), strict=True):
            pointer = self.function.element(self.tile.kind, "%tile", place)
            self.function.emit(f"store {self.vector} {value}, ptr {pointer}, align {self.align}")

    def load(self, pointer: str, index: Int) -> str:
        address = self.function.element(self.tile.kind, pointer, index)
        return self.function.value(f"load {self.vector}, ptr {address}, align {self.align}")

    def steps(self, start: Int, stop: Int, stride: int, state: State) -> State:
        """The loop over k, `stride` steps at a time."""
        if start == stop:
            return state
        sums, a, b = state
        types = [self.vector] * len(sums) + ["ptr", "ptr"]

        def body(_: Int, values: list[str]) -> list[str]:
            new, next_a, next_b = self.step(stride, values[:-2], values[-2], values[-1])
            return [*new, next_a, next_b]
        values = self.function.loop(start, stop, stride, list(zip(types, [*sums, a, b], strict=True)), body)
        return values[:-2], values[-2], values[-1]

    def step(self, count: int, sums: list[str], a: str, b: str) -> State:
        """`count` steps of k in a row; returns the pointers moved on as well."""
        tile, function = self.tile, self.function
        for k in range(count):
            row = function.element(tile.kind, b, function.mul(tile.b_step, k))
            columns = [self.load(row, j * tile.lanes) for j in range(tile.vectors)]
            self.prefetch(row)
            sums = [new for i in range(tile.rows)
                    for new in self.row(a, i * tile.a_row + k * tile.a_step, columns, sums[i * tile.vectors:])]
        return (sums, function.element(tile.kind, a, count * tile.a_step),
                function.element(tile.kind, b, function.mul(tile.b_step, count)))

    def row(self, a: str, at: int, columns: list[str], sums: list[str]) -> list[str]:
        kind = self.tile.kind
        scalar = self.function.value(f"load {kind}, ptr {self.function.element(kind, a, at)}, align {self.align}")
        every = scalar
        if self.tile.lanes > 1:
            one = self.function.value(f"insertelement {self.vector} poison, {kind} {scalar}, i64 0")
            every = self.function.value(f"shufflevector {self.vector} {one}, {self.vector} poison, "
                                        f"<{self.tile.lanes} x i32> zeroinitializer")
        return [self.accumulate(every, column, old) for column, old in zip(columns, sums, strict=False)]

    def accumulate(self, a: str, b: str, old: str) -> str:
        kind = self.tile.kind
        if kind in ("float", "double"):
            return self.lanes.fma(kind, a, b, old)
        return self.lanes.binary("add", kind, self.lanes.binary("mul", kind, a, b), old)

    def prefetch(self, row: str) -> None:
        tile = self.tile
        if not tile.ahead:
            return
        far = self.function.element(tile.kind, row, self.function.mul(tile.b_step, tile.ahead))
        for offset in range(0, tile.vectors * tile.lanes * self.align, 64):
            self.function.call("void", "llvm.prefetch.p0", ("ptr", self.function.element("i8", far, offset)),
                               ("i32", "0"), ("i32", "3"), ("i32", "1"))
