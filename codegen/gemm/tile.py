"""The micro-kernel: a tile of the product, rows x vectors accumulators in registers, over a range of k.

    tile[i, j] (+)= sum over k of a[i*a_row + k*a_step] * b[k*b_step + j]

It knows no edges: it always computes whole vectors and all its rows, from operands that are really there, and writes
to a tile of scratch memory.  Which of those elements are wanted is the epilogue's affair; so one variant serves tiles
at the border too.  Strides and depth are parameters, so that the products of a module share its micro-kernels.

Rows of a that lie apart are addressed from a pointer for every three of them and registers for their distances.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..shuffles import splat_kind
from ..target import Target
from ..text import Function, Int, Module
from ..vectors import Lanes, kind_bits

PARAMETERS = ("ptr noalias %a", "i64 %a_stride", "ptr noalias %b", "i64 %b_step", "ptr noalias %tile", "i64 %depth",
              "i1 %resume")
UNROLL = 2  # steps of k in a row; more take longer to compile and no less to run
FAMILY = 3  # rows of a to a pointer
State = tuple[list[str], list[str], str]  # accumulators in row-major order, pointers into a, pointer into b


@dataclass(frozen=True)
class Tile:
    """One variant of the micro-kernel."""

    rows: int
    vectors: int
    lanes: int
    kind: str
    by_columns: bool  # a_row is 1 and a_step the parameter, or the other way round
    pitch: int  # row length of the scratch tile
    ahead: int  # steps of k by which b is prefetched; 0 for never

    @property
    def name(self) -> str:
        a = "columns" if self.by_columns else "rows"
        return f"tile_{self.rows}x{self.vectors}x{self.lanes}_{self.kind}_{a}_{self.pitch}_{self.ahead}"


def tile_function(module: Module, target: Target, tile: Tile) -> str:
    """The name of `define internal fastcc void @..(PARAMETERS)`, which is emitted when it is first asked for."""
    if tile.name in module.functions:
        return tile.name
    function = Function(module, f"define internal fastcc void @{tile.name}({', '.join(PARAMETERS)}) noinline #0")
    body = _Body(function, Lanes(function, target, tile.lanes), tile)
    state = body.repeated(function.value(f"lshr i64 %depth, {UNROLL.bit_length() - 1}"), body.start())
    odd = function.value(f"icmp ne i64 {function.value(f'and i64 %depth, {UNROLL - 1}')}, 0")
    body.finish(function.choose(odd, [body.vector] * len(state[0]), lambda: body.step(1, state)[0], lambda: state[0]))
    function.emit("ret void")
    module.add(tile.name, function.text())
    return tile.name


class _Body:
    """The pieces of one micro-kernel."""

    def __init__(self, function: Function, lanes: Lanes, tile: Tile) -> None:
        self.function = function
        self.lanes = lanes
        self.tile = tile
        self.vector = lanes.vector(tile.kind)
        self.align = kind_bits(tile.kind) // 8
        self.offsets = [] if tile.by_columns else [self.opaque(function.mul("%a_stride", i)) for i in range(1, FAMILY)]

    def opaque(self, value: Int) -> str:
        """The value in a register, of which LLVM does not know how it was computed: it would compute it again."""
        return self.function.value(f'call i64 asm "", "=r,0"(i64 {value})')

    def places(self) -> list[int]:
        """Where in the scratch tile each accumulator lives."""
        t = self.tile
        return [i * t.pitch + j * t.lanes for i in range(t.rows) for j in range(t.vectors)]

    def start(self) -> State:
        """Zeros, and where the operands begin; the tile's memory is fetched meanwhile."""
        def fetch() -> None:
            for place in self.places():
                self.function.prefetch(self.function.element(self.tile.kind, "%tile", place), write=True)
        self.function.when("%resume", fetch)
        firsts = range(0, 1 if self.tile.by_columns else self.tile.rows, FAMILY)
        pointers = [self.function.element(self.tile.kind, "%a", self.function.mul("%a_stride", i)) for i in firsts]
        return [self.lanes.literal(self.tile.kind, 0)] * (self.tile.rows * self.tile.vectors), pointers, "%b"

    def finish(self, sums: list[str]) -> None:
        """Stores the sums, added to what is there where the tile resumes."""
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

    def repeated(self, rounds: Int, state: State) -> State:
        """`rounds` times UNROLL steps of k."""
        sums, pointers, b = state
        flat = [*sums, *pointers, b]
        types = [self.vector] * len(sums) + ["ptr"] * (len(pointers) + 1)
        some = self.function.value(f"icmp ne i64 {rounds}, 0")
        values = self.function.choose(some, types, lambda: self.loop(rounds, types, flat), lambda: flat)
        return values[:len(sums)], values[len(sums):-1], values[-1]

    def loop(self, rounds: Int, types: list[str], first: list[str]) -> list[str]:
        """The loop over k, tested at its end: no value lives on beside its successor, all accumulators in registers."""
        function, count = self.function, self.tile.rows * self.tile.vectors
        before, head, after = function.block, function.new_label("head"), function.new_label("exit")
        values = [function.register() for _ in (*types, "i64")]
        function.branch(head)
        function.place(head)
        at = len(function.lines)
        function.lines += [None] * len(values)
        sums, pointers, b = self.step(UNROLL, (values[:count], values[count:-2], values[-2]))
        pointers = [function.value(f'call ptr asm "", "=r,0"(ptr {p})') for p in pointers]
        left = function.value(f"add nsw i64 {values[-1]}, -1")
        done = function.value(f"icmp eq i64 {left}, 0")
        for offset, (kind, value, start, following) in enumerate(
                zip((*types, "i64"), values, (*first, rounds), (*sums, *pointers, b, left), strict=True)):
            function.lines[at + offset] = f"  {value} = phi {kind} [{start}, %{before}], [{following}, %{head}]"
        function.emit(f"br i1 {done}, label %{after}, label %{head}, !llvm.loop !1")
        function.place(after)
        return [*sums, *pointers, b]

    def step(self, count: int, state: State) -> State:
        """`count` steps of k in a row; the pointers move on as well."""
        tile, function, (sums, pointers, b) = self.tile, self.function, state
        for k in range(count):
            if k:  # keeps the next step's loads behind this step: hoisted, they would push accumulators to memory
                function.emit('call void asm sideeffect "", "~{memory}"()')
            row = function.element(tile.kind, b, function.mul("%b_step", k))
            columns = [self.load(row, j * tile.lanes) for j in range(tile.vectors)]
            self.prefetch(row)
            sums = [new for i in range(tile.rows)
                    for new in self.row(self.a(pointers, i, k), columns, sums[i * tile.vectors:])]
        on = function.mul("%a_stride", count) if tile.by_columns else count
        return (sums, [function.element(tile.kind, pointer, on) for pointer in pointers],
                function.element(tile.kind, b, function.mul("%b_step", count)))

    def a(self, pointers: list[str], i: int, k: int) -> str:
        """The address of row i's element, k steps on."""
        function, kind = self.function, self.tile.kind
        if self.tile.by_columns:
            return function.element(kind, function.element(kind, pointers[0], function.mul("%a_stride", k)), i)
        pointer, number = pointers[i // FAMILY], i % FAMILY
        if number:
            pointer = function.element(kind, pointer, self.offsets[number - 1])
        return function.element(kind, pointer, k)

    def row(self, a: str, columns: list[str], sums: list[str]) -> list[str]:
        kind = self.tile.kind
        scalar = self.function.value(f"load {kind}, ptr {a}, align {self.align}")
        every = splat_kind(self.lanes, kind, scalar)
        return [self.lanes.multiply_add(kind, every, column, old) for column, old in zip(columns, sums, strict=False)]

    def prefetch(self, row: str) -> None:
        tile = self.tile
        if not tile.ahead:
            return
        far = self.function.element(tile.kind, row, self.function.mul("%b_step", tile.ahead))
        for offset in range(0, tile.vectors * tile.lanes * self.align, 64):
            self.function.prefetch(self.function.element("i8", far, offset))
