"""The loops around the micro-kernel: batch axes, blocks, panels; packing before it and the epilogue after it.

Workspace, in elements of the accumulator's kind: a's packed panel, one scratch tile, b's packed block, and the partial
sums of a block where k needs more than one block.  Tiles of partial sums lie one after another, each as the scratch
tile does, so the micro-kernel and the epilogue see no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from graphc.ir.plan import Contraction

from ..target import Target
from ..text import Int, Module
from ..vectors import MEMORY, REGISTER, kind_bits
from .batch import Frame
from .blocking import IN_PLACE, IN_PLACE_SELDOM, LINE, PADDING, SELDOM, Blocking, blocking, rounded
from .epilogue import Shape, emit_epilogue
from .pack import Packer, Place, Source, between, steps
from .ranges import Range, ranges
from .tile import Tile, tile_function

PAGE = 4096
LINES_OF_TILE = 16  # of the next panel of a, fetched before a tile


@dataclass(frozen=True)
class Layout:
    """Where the parts of the workspace start, in bytes."""

    tile: int
    b: int
    sums: int
    size: int


def layout(contraction: Contraction, target: Target, chosen: Blocking) -> Layout:
    m = contraction.extents[-2]
    size = kind_bits(REGISTER[contraction.dtype]) // 8
    columns = panel_columns(contraction, chosen)
    a = 0 if chosen.direct_a else rounded(size * a_panel(contraction, chosen), PAGE) + 128
    tile = size * chosen.rows[0] * chosen.columns
    b = 0 if chosen.direct_b else size * chosen.kc * (columns + chosen.columns)
    rows = rounded(min(m, chosen.mc) if isinstance(m, int) else chosen.mc, chosen.rows[0]) + chosen.rows[0]
    sums = size * rows * columns if chosen.has_blocks else 0
    after_tile = a + rounded(tile, 64)
    after_b = after_tile + rounded(b, PAGE)
    return Layout(a, after_tile, after_b, after_b + rounded(sums, 64))


def a_panel(contraction: Contraction, chosen: Blocking) -> int:
    """Elements of a's packed panel."""
    return chosen.kc * chosen.rows[0] if is_by_columns(contraction) else chosen.rows[0] * (chosen.kc + PADDING)


def panel_columns(contraction: Contraction, chosen: Blocking) -> int:
    """Columns of a block, in whole tiles, and the narrow tiles after them, each of which gets a whole one's place."""
    n = contraction.extents[-1]
    known = min(n, chosen.nc) if isinstance(n, int) else chosen.nc
    return rounded(known, chosen.columns) - (-chosen.vectors[0] // chosen.vectors[-1]) * chosen.columns


def is_by_columns(contraction: Contraction) -> bool:
    """a is contiguous along m and not along k: its panel keeps the m of one k together."""
    return contraction.a.strides[-3] == 1 and contraction.a.strides[-1] != 1


@dataclass(frozen=True)
class Block:
    """The part of the product between packings of b: columns, rows and k, each as a start and a length."""

    n: Int
    columns: Int
    m: Int
    rows: Int
    k: Int
    depth: Int
    resume: str  # i1: sums are there already
    last: str  # i1: the sums are finished after it


@dataclass(frozen=True)
class ColumnPanel:
    """Columns from `n` on go through the epilogue, `live` of them; the tile's own first column is `first`."""

    n: Int
    first: Int
    live: Int
    which: int  # of the numbers of vectors
    slot: Int  # column of the block where the panel's own b and sums are kept


@dataclass(frozen=True)
class RowPanel:
    """Rows from `m` on go through the epilogue, `live` of them; the tile's own first row is `m - skip`."""

    m: Int
    live: Int
    skip: Int
    tiles: tuple[str, ...]  # the micro-kernel for each number of vectors
    a: str
    following: Source | None  # of the next panel, where panels are packed
    sums: Int  # of the partial sums' block: where this panel's start


def cut(contraction: Contraction, target: Target) -> tuple[Range, ...]:
    """The axes whose ranges are parameters."""
    chosen = blocking(contraction, target)
    return ranges(contraction, target, chosen.rows[0], chosen.columns, chosen.nc)


def emit(module: Module, contraction: Contraction, target: Target, name: str) -> None:
    chosen = blocking(contraction, target)
    _Driver(module, contraction, target, name, chosen).write()


class _Driver:
    def __init__(self, module: Module, contraction: Contraction, target: Target, name: str, chosen: Blocking) -> None:
        self.module, self.contraction, self.target, self.name, self.chosen = module, contraction, target, name, chosen
        self.frame = Frame(module, contraction, name, cut(contraction, target))
        self.function, self.size = self.frame.function, self.frame.size
        self.kind = REGISTER[contraction.dtype]
        self.packer = Packer(self.function, target, min(chosen.lanes, target.vector_bits // kind_bits(self.kind)))
        self.places = layout(contraction, target, chosen)
        self.m, self.n = (self.size(extent) for extent in contraction.extents[-2:])
        self.depth = self.size(contraction.depth)
        self.a_strides = tuple(self.size(s) for s in (contraction.a.strides[-3], contraction.a.strides[-1]))
        self.b_strides = tuple(self.size(s) for s in (contraction.b.strides[-1], contraction.b.strides[-2]))
        self.a = self.b = ""
        self.b_direct: str | None = None  # i1, where that is found at run time

    def part(self, offset: int) -> str:
        return self.function.element("i8", "%workspace", offset)

    # -- variants --
    def write(self) -> None:
        shape = Shape(self.chosen.columns, self.chosen.vectors[0], self.chosen.lanes)
        emit_epilogue(self.module, self.contraction, self.target, f"{self.name}_epilogue", shape)
        if self.chosen.direct_b is None:
            self.b_direct = self.is_b_small()
        self.frame.over_batch(self.product)
        self.frame.close()

    @property
    def by_columns(self) -> bool:
        """Whether the elements of a that one step of k needs lie side by side."""
        return self.a_strides[1] != 1 if self.chosen.direct_a else is_by_columns(self.contraction)

    @property
    def a_stride(self) -> Int:
        """The other stride of a, as the tile reads it."""
        chosen = self.chosen
        if chosen.direct_a:
            return self.a_strides[1 if self.by_columns else 0]
        return chosen.rows[0] if self.by_columns else chosen.kc + PADDING

    def tile(self, rows: int, vectors: int) -> str:
        """The name of the micro-kernel."""
        chosen = self.chosen
        return tile_function(self.module, self.target, Tile(
            rows, vectors, chosen.lanes, self.kind, self.by_columns, chosen.columns, chosen.ahead))

    def is_b_small(self) -> str:
        """Run-time choice: b stays in place when it is small for the times it is read, and a vector wide."""
        function, chosen = self.function, self.chosen
        nbytes = function.mul(function.mul(self.n, self.depth), kind_bits(self.kind) // 8)
        seldom = self.compared("sle", self.m, SELDOM * chosen.rows[0])
        most = function.value(f"select i1 {seldom}, i64 {IN_PLACE_SELDOM}, i64 {IN_PLACE}")
        small = self.compared("sle", nbytes, most)
        few = self.compared("sle", self.m, 2 * chosen.rows[0])
        wide = function.value(f"icmp sge i64 {self.n}, {chosen.lanes}")
        return function.value(f"and i1 {function.value(f'or i1 {small}, {few}')}, {wide}")

    def compared(self, predicate: str, a: Int, b: Int) -> str:
        return self.function.value(f"icmp {predicate} i64 {a}, {b}")

    # -- blocks --
    def product(self) -> None:
        self.a, self.b = self.frame.base(self.contraction.a), self.frame.base(self.contraction.b)
        self.over_blocks()

    def over_blocks(self) -> None:
        function, chosen = self.function, self.chosen
        (top, bottom), (left, right) = self.frame.bounds[-2:]

        def columns(n: Int) -> None:
            width = function.minimum(chosen.nc, function.sub(right, n))
            between(function, top, bottom, chosen.mc, lambda m: self.over_depth(n, width, m))
        between(function, left, right, chosen.nc, columns)

    def over_depth(self, n: Int, columns: Int, m: Int) -> None:
        """Blocks of k; one empty block where the depth is 0, because the epilogue runs all the same."""
        function, kc = self.function, self.chosen.kc
        rows = function.minimum(self.chosen.mc, function.sub(self.frame.bounds[-2][1], m))
        if not self.chosen.has_blocks:
            self.block(Block(n, columns, m, rows, 0, self.depth, "false", "true"))
            return

        def one(k: Int) -> None:
            end = function.add(k, kc)
            depth = function.sub(function.minimum(end, self.depth), k)
            resume = function.value(f"icmp ne i64 {k}, 0")
            last = function.value(f"icmp sge i64 {end}, {self.depth}")
            self.block(Block(n, columns, m, rows, k, depth, resume, last))
        steps(function, function.maximum(self.depth, 1), kc, one)

    def block(self, block: Block) -> None:
        if self.chosen.direct_b is False:
            self.pack_b(block)
        elif self.b_direct is not None:
            needed = self.function.value(f"xor i1 {self.b_direct}, true")
            self.function.when(needed, lambda: self.pack_b(block))
        self.over_rows(block)

    # -- columns --
    def over_columns(self, block: Block, panel: Callable[[ColumnPanel], None]) -> None:
        """Writes `panel(..)` for every panel of columns."""
        function, chosen = self.function, self.chosen
        width = chosen.columns
        if isinstance(block.columns, int):
            full: Int = block.columns // width * width
        else:
            full = function.mul(function.value(f"udiv i64 {block.columns}, {width}"), width)
        steps(function, full, width, lambda j: panel(self.narrow(block, j, width, 0, j)))
        rest = function.sub(block.columns, full)
        if isinstance(rest, int):
            if rest:
                vectors = -(-rest // chosen.lanes)
                panel(self.narrow(block, full, rest, chosen.vectors.index(vectors), full))
            return

        def several() -> list[Int]:
            panel(self.narrow(block, full, rest, 0, full))
            return []

        def single() -> list[Int]:
            def one(j: Int, _: list[str]) -> list[Int]:
                number = function.value(f"udiv i64 {function.sub(j, full)}, {part}")
                slot = function.add(full, function.mul(number, width))
                panel(self.narrow(block, j, function.minimum(part, function.sub(block.columns, j)), last, slot))
                return []
            function.loop(full, block.columns, part, [], one)
            return []
        last = len(chosen.vectors) - 1
        part = chosen.vectors[last] * chosen.lanes
        if last == 0:
            steps(function, rest, width, lambda _: panel(self.narrow(block, full, rest, 0, full)))
            return
        few = max(chosen.vectors[0] - 1, 1) * chosen.lanes  # these are done by narrow tiles, without waste
        more = function.value(f"icmp sgt i64 {rest}, {few}")
        enough = function.value(f"icmp sge i64 {self.n}, {width}")
        function.choose(function.value(f"and i1 {more}, {enough}"), [], several, single)

    def narrow(self, block: Block, j: Int, count: Int, which: int, slot: Int) -> ColumnPanel:
        """A panel whose tile ends with its columns; it starts so far to the left that its vectors are whole."""
        function = self.function
        width = self.chosen.vectors[which] * self.chosen.lanes
        n = function.add(block.n, j)
        first = n if count == width else function.maximum(function.sub(function.add(n, count), width), 0)
        return ColumnPanel(n, first, count, which, slot)

    # -- packing b --
    def pack_b(self, block: Block) -> None:
        """Packs b's block; fewer columns than a vector are one panel, whose other columns are zero."""
        if isinstance(self.n, int) and self.n >= self.chosen.lanes:
            self.pack_wide(block)
            return

        def wide() -> list[Int]:
            self.pack_wide(block)
            return []

        def narrow() -> list[Int]:
            source, place = self.b_copy(block, ColumnPanel(0, 0, self.n, 0, 0))
            self.packer.clear(place, block.depth, self.chosen.columns)
            self.packer.lines(source, place, block.depth, self.n)
            return []
        if isinstance(self.n, int):
            narrow()
            return
        is_wide = self.function.value(f"icmp sge i64 {self.n}, {self.chosen.lanes}")
        self.function.choose(is_wide, [], wide, narrow)

    def pack_wide(self, block: Block) -> None:
        """Rows that are contiguous are copied as they lie in memory, any others panel by panel."""
        function, packer = self.function, self.packer

        def width(columns: ColumnPanel) -> int:
            return self.chosen.vectors[columns.which] * self.chosen.lanes

        def panel(columns: ColumnPanel) -> None:
            source, place = self.b_copy(block, columns)
            copy = packer.turned if source.outer == 1 and packer.width > 1 else packer.lines
            copy(source, place, block.depth, width(columns))

        def row(k: Int, columns: ColumnPanel) -> None:
            source, place = self.b_copy(block, columns)
            start = function.element(MEMORY[source.dtype], source.pointer, function.mul(k, source.outer))
            end = function.element(self.kind, place.pointer, function.mul(k, place.outer))
            packer.line(source, start, self.kind, end, width(columns), packer.width)
        if self.b_strides[1] == 1:
            steps(function, block.depth, 1, lambda k: self.over_columns(block, partial(row, k)))
        else:
            self.over_columns(block, panel)

    def b_copy(self, block: Block, columns: ColumnPanel) -> tuple[Source, Place]:
        """What of b a panel is a copy of, and where the copy is kept."""
        function, (step, column) = self.function, self.b_strides
        dtype = self.contraction.arguments[self.contraction.b.argument]
        offset = function.add(function.mul(block.k, step), function.mul(columns.first, column))
        pointer = function.element(self.kind, self.part(self.places.b), function.mul(columns.slot, block.depth))
        return (Source(function.element(MEMORY[dtype], self.b, offset), dtype, step, column),
                Place(pointer, self.kind, self.chosen.columns))

    # -- rows --
    def over_rows(self, block: Block) -> None:
        function, rows = self.function, self.chosen.rows
        if len(rows) == 1:
            def one(i: Int) -> None:
                self.row_panel(block, i, rows[0], function.minimum(rows[0], function.sub(block.rows, i)), i)
            steps(function, block.rows, rows[0], one)
            return

        def body(i: Int, number: Int) -> Int:
            left = function.sub(block.rows, i)
            size = self.variant(left)
            live = function.minimum(size, left)
            self.row_panel(block, i, size, live, function.mul(number, rows[0]))
            return function.add(i, live)
        self.while_below(block.rows, body)

    def while_below(self, stop: Int, body: Callable[[Int, Int], Int]) -> None:
        """`i = 0; while i < stop: i = body(i, round)`: a loop whose step is known only inside."""
        function = self.function
        before, head, inside, after = (function.block, *map(function.new_label, ("head", "body", "exit")))
        function.branch(head)
        function.place(head)
        index, number = function.register(), function.register()
        at = len(function.lines)
        function.lines += [None, None]
        function.branch_if(function.value(f"icmp slt i64 {index}, {stop}"), inside, after)
        function.place(inside)
        for offset, (value, following) in enumerate(((index, body(index, number)), (number, function.add(number, 1)))):
            function.lines[at + offset] = f"  {value} = phi i64 [0, %{before}], [{following}, %{function.block}]"
        function.branch(head)
        function.place(after)

    def variant(self, left: Int) -> Int:
        """Rows of the tile for `left` rows: the smallest that holds them if so many exist, else the largest of them."""
        function, rows = self.function, self.chosen.rows
        below: Int = rows[-1]
        above: Int = rows[0]
        for size in rows[-2::-1]:
            holds = function.value(f"icmp sge i64 {left}, {size}")
            below = function.value(f"select i1 {holds}, i64 {size}, i64 {below}")
        for size in rows[1:]:
            holds = function.value(f"icmp sle i64 {left}, {size}")
            above = function.value(f"select i1 {holds}, i64 {size}, i64 {above}")
        exists = function.value(f"icmp sle i64 {above}, {self.m}")
        return function.value(f"select i1 {exists}, i64 {above}, i64 {below}")

    def tile_of(self, size: Int, vectors: int) -> str:
        rows = self.chosen.rows
        name = f"@{self.tile(rows[0], vectors)}"
        for variant in rows[1:]:
            is_it = self.function.value(f"icmp eq i64 {size}, {variant}")
            name = self.function.value(f"select i1 {is_it}, ptr @{self.tile(variant, vectors)}, ptr {name}")
        return name

    def row_panel(self, block: Block, i: Int, size: Int, live: Int, slot: Int) -> None:
        """Rows i and following; `slot` is where their sums are kept."""
        function = self.function
        m = function.add(block.m, i)
        first = function.minimum(m, function.sub(self.m, size))
        row, step = self.a_strides
        dtype = self.contraction.arguments[self.contraction.a.argument]
        offset = function.add(function.mul(first, row), function.mul(block.k, step))
        a = function.element(MEMORY[dtype], self.a, offset)
        following = None
        if not self.chosen.direct_a:
            next_a = function.element(MEMORY[dtype], a, function.mul(self.chosen.rows[0], row))
            following = Source(next_a, dtype, row, step)
            a = self.pack_a(Source(a, dtype, row, step), size, block.depth)
        sums = function.mul(slot, panel_columns(self.contraction, self.chosen))
        tiles = tuple(self.tile_of(size, vectors) for vectors in self.chosen.vectors)
        panel = RowPanel(m, live, function.sub(m, first), tiles, a, following, sums)
        self.over_columns(block, lambda columns: self.one_tile(block, panel, columns))

    def pack_a(self, source: Source, size: Int, depth: Int) -> str:
        pointer = self.part(0)
        if is_by_columns(self.contraction):
            source = replace(source, outer=source.inner, inner=source.outer)
            most = self.chosen.rows[0]
            self.packer.lines(source, Place(pointer, self.kind, most), depth, size, longest=most)
        else:
            self.packer.lines(source, Place(pointer, self.kind, self.chosen.kc + PADDING), size, depth)
        return pointer

    def fetch(self, source: Source, block: Block, columns: ColumnPanel) -> None:
        """Fetches the next panel's share of one tile: a line of every row, or so many lines where a is by columns."""
        function, rows = self.function, self.chosen.rows[0]
        number = columns.slot // self.chosen.columns if isinstance(columns.slot, int) else \
            function.value(f"udiv i64 {columns.slot}, {self.chosen.columns}")
        memory = MEMORY[source.dtype]
        along = LINES_OF_TILE if is_by_columns(self.contraction) else 8 * LINE // kind_bits(memory)
        first = function.mul(number, along)

        def lines() -> None:
            start = function.element(memory, source.pointer, function.mul(first, source.inner))
            across = (along, source.inner) if is_by_columns(self.contraction) else (rows, source.outer)
            for i in range(across[0]):
                function.prefetch(function.element(memory, start, function.mul(i, across[1])))
        function.when(self.compared("slt", first, block.depth), lines)

    # -- tiles --
    def one_tile(self, block: Block, panel: RowPanel, columns: ColumnPanel) -> None:
        function, chosen = self.function, self.chosen
        if panel.following is not None:
            self.fetch(panel.following, block, columns)
        b, step = self.b_panel(block, columns)
        tile = self.part(self.places.tile)
        if chosen.has_blocks:
            at = function.add(panel.sums, function.mul(columns.slot, chosen.rows[0]))
            tile = function.element(self.kind, self.part(self.places.sums), at)
        function.emit(f"call fastcc void {panel.tiles[columns.which]}(ptr {panel.a}, i64 {self.a_stride}, ptr {b}, "
                      f"i64 {step}, ptr {tile}, i64 {block.depth}, i1 {block.resume})")
        skipped = function.add(function.mul(panel.skip, chosen.columns), function.sub(columns.n, columns.first))

        def finish() -> None:
            start = function.element(self.kind, tile, skipped)
            self.frame.finish(start, panel.m, columns.n, panel.live, columns.live)
        if block.last == "true":
            finish()
        else:
            function.when(block.last, finish)

    def b_panel(self, block: Block, columns: ColumnPanel) -> tuple[str, Int]:
        """Where the tile's columns of b start, and how far apart two k are."""
        function, chosen = self.function, self.chosen
        packed = direct = ""
        step, column = self.b_strides
        if chosen.direct_b is not True:
            packed = function.element(self.kind, self.part(self.places.b), function.mul(columns.slot, block.depth))
        if chosen.direct_b is not False:
            offset = function.add(function.mul(block.k, step), function.mul(columns.first, column))
            direct = function.element(self.kind, self.b, offset)
        if chosen.direct_b is not None:
            return (direct, step) if chosen.direct_b else (packed, chosen.columns)
        return (function.value(f"select i1 {self.b_direct}, ptr {direct}, ptr {packed}"),
                function.value(f"select i1 {self.b_direct}, i64 {step}, i64 {chosen.columns}"))
