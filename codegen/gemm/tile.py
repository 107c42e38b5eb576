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
        rounds, rest = divmod(tile.depth, tile.unroll)
        sums, a, b = body.steps(rounds, tile.unroll, (sums, a, b))
        sums, _, _ = body.step(rest, sums, a, b)
    else:
        state = body.steps(function.value(f"udiv i64 {tile.depth}, {tile.unroll}"), tile.unroll, (sums, a, b))
        sums, _, _ = body.steps(function.value(f"urem i64 {tile.depth}, {tile.unroll}"), 1, state)
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
        """Zeros; the tile's memory is fetched meanwhile."""
        if self.tile.resumes:
            for place in self.places():
                self.function.prefetch(self.function.element(self.tile.kind, "%tile", place), write=True)
        return [self.lanes.literal(self.tile.kind, 0)] * (self.tile.rows * self.tile.vectors)

    def finish(self, sums: list[str]) -> None:
        """Stores the sums, added to what is there where the tile resumes."""
        if self.tile.resumes:
            def added() -> list[str]:
                return [self.lanes.binary(self.addition, self.tile.kind, self.load("%tile", place), value)
                        for place, value in zip(self.places(), sums, strict=True)]
            sums = self.function.choose("%resume", [self.vector] * len(sums), added, lambda: sums)
        for value, place in zip(sums, self.places(), strict=True):
            pointer = self.function.element(self.tile.kind, "%tile", place)
            self.function.emit(f"store {self.vector} {value}, ptr {pointer}, align {self.align}")

    @property
    def addition(self) -> str:
        return "fadd" if self.tile.kind in ("float", "double") else "add"

    def load(self, pointer: str, index: Int) -> str:
        address = self.function.element(self.tile.kind, pointer, index)
        return self.function.value(f"load {self.vector}, ptr {address}, align {self.align}")

    def steps(self, rounds: Int, stride: int, state: State) -> State:
        """`rounds` times `stride` steps of k."""
        if isinstance(rounds, int):
            return self.repeat(rounds, stride, state) if rounds else state
        types = [self.vector] * len(state[0]) + ["ptr", "ptr"]

        def several() -> list[Int]:
            sums, a, b = self.repeat(rounds, stride, state)
            return [*sums, a, b]
        some = self.function.value(f"icmp sgt i64 {rounds}, 0")
        values = self.function.choose(some, types, several, lambda: [*state[0], state[1], state[2]])
        return values[:-2], values[-2], values[-1]

    def repeat(self, rounds: Int, stride: int, state: State) -> State:
        """The loop over k, tested at its end: no value lives on beside its successor, all accumulators in registers."""
        function = self.function
        before, head, after = function.block, function.new_label("head"), function.new_label("exit")
        types = [self.vector] * len(state[0]) + ["ptr", "ptr", "i64"]
        first = [*state[0], state[1], state[2], str(rounds)]
        values = [function.register() for _ in types]
        function.branch(head)
        function.place(head)
        at = len(function.lines)
        function.lines += [None] * len(types)
        sums, a, b = self.step(stride, values[:-3], values[-3], values[-2])
        left = function.value(f"add nsw i64 {values[-1]}, -1")
        done = function.value(f"icmp eq i64 {left}, 0")
        for offset, (kind, value, start, following) in enumerate(
                zip(types, values, first, [*sums, a, b, left], strict=True)):
            function.lines[at + offset] = f"  {value} = phi {kind} [{start}, %{before}], [{following}, %{head}]"
        function.emit(f"br i1 {done}, label %{after}, label %{head}, !llvm.loop !1")
        function.place(after)
        return sums, a, b

    def step(self, count: int, sums: list[str], a: str, b: str) -> State:
        """`count` steps of k in a row; returns the pointers moved on as well."""
        tile, function = self.tile, self.function
        for k in range(count):
            if k:  # keeps the next step's loads behind this step: hoisted, they would push accumulators to memory
                function.emit('call void asm sideeffect "", "~{memory}"()')
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
            self.function.prefetch(self.function.element("i8", far, offset))
