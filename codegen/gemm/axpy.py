"""One row of a product whose b is contiguous along n: the rows of b, each times a number, are added up.

    c[n] = sum over k of a[k] * b[k*row + n]

b is read once, in the order in which it lies in memory, so the speed is that of memory; of a matrix that is larger than
the caches the next rows are fetched ahead.  Columns go in chunks whose sums stay in the first-level cache.  An element
is summed in the order of k, whatever its place.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.plan import Contraction

from ..shuffles import splat_kind
from ..target import Target
from ..text import Int, Module
from ..vectors import MEMORY, REGISTER, Lanes, kind_bits
from .batch import Frame
from .blocking import stays_near
from .epilogue import Shape, emit_epilogue
from .pack import between, converted, steps
from .ranges import Range, ranges

CHUNK = 4096  # columns between calls of the epilogue
SHARE = 512  # columns of a piece start at a multiple of so many: whole pages of float64
TOGETHER = 8  # rows of b between a load and a store of the sums


def fits(contraction: Contraction) -> bool:
    """One row, of a b that does not stay in the caches: there, a tile of many vectors is faster."""
    if contraction.extents[-2] != 1 or contraction.b.strides[-2] != 1:
        return False
    return not stays_near(contraction, kind_bits(REGISTER[contraction.dtype]) // 8)


def workspace_bytes(contraction: Contraction) -> int:
    return CHUNK * kind_bits(REGISTER[contraction.dtype]) // 8


def cut(contraction: Contraction, target: Target) -> tuple[Range, ...]:
    """The axes whose ranges are parameters."""
    return ranges(contraction, target, 1, SHARE, SHARE)


def emit(module: Module, contraction: Contraction, target: Target, name: str) -> None:
    lanes = target.vector_bits // kind_bits(REGISTER[contraction.dtype])
    emit_epilogue(module, contraction, target, f"{name}_epilogue", Shape(CHUNK, 1, lanes))
    _Axpy(module, contraction, target, name, lanes).write()


class _Axpy:
    def __init__(self, module: Module, contraction: Contraction, target: Target, name: str, lanes: int) -> None:
        self.frame = Frame(module, contraction, name, cut(contraction, target))
        self.function = self.frame.function
        self.contraction = contraction
        self.kind = REGISTER[contraction.dtype]
        self.wide, self.single = Lanes(self.function, target, lanes), Lanes(self.function, target, 1)
        self.depth = self.frame.size(contraction.depth)
        self.step, self.row = self.frame.size(contraction.a.strides[-1]), self.frame.size(contraction.b.strides[-1])

    def write(self) -> None:
        self.frame.over_batch(lambda: between(self.function, *self.frame.bounds[-1], CHUNK, self.chunk))
        self.frame.close()

    def chunk(self, n: Int) -> None:
        """Sums of the columns from n on."""
        function, contraction = self.function, self.contraction
        count = function.minimum(CHUNK, function.sub(self.frame.bounds[-1][1], n))
        b = function.element(MEMORY[contraction.arguments[contraction.b.argument]], self.frame.base(contraction.b), n)
        a = self.frame.base(contraction.a)
        self.over_columns(count, self.clear)
        whole = self.depth // TOGETHER * TOGETHER if isinstance(self.depth, int) else \
            function.value(f"and i64 {self.depth}, {-TOGETHER}")
        steps(function, whole, TOGETHER, lambda k: self.rows(a, b, k, TOGETHER, count))
        steps(function, function.sub(self.depth, whole), 1,
              lambda k: self.rows(a, b, function.add(whole, k), 1, count))
        self.frame.finish("%workspace", 0, n, 1, count)

    def over_columns(self, count: Int, body: Callable[[Lanes, Int], None]) -> None:
        """Vectors, and single columns after them."""
        width = self.wide.count
        whole = count // width * width if isinstance(count, int) else self.function.value(f"and i64 {count}, {-width}")
        steps(self.function, whole, width, lambda j: body(self.wide, j))
        steps(self.function, self.function.sub(count, whole), 1,
              lambda j: body(self.single, self.function.add(whole, j)))

    def clear(self, lanes: Lanes, j: Int) -> None:
        self.store(lanes, lanes.literal(self.kind, 0), j)

    def rows(self, a: str, b: str, k: Int, together: int, count: Int) -> None:
        """Adds so many rows of b, from row k on: their sum is rounded by itself, so that errors grow more slowly."""
        function, argument = self.function, self.contraction.b.argument
        factors = [self.factor(a, function.add(k, i)) for i in range(together)]
        memory = MEMORY[self.contraction.arguments[argument]]
        starts = [function.element(memory, b, function.mul(function.add(k, i), self.row)) for i in range(together)]
        far = function.mul(self.row, TOGETHER)

        def column(lanes: Lanes, j: Int) -> None:
            total = lanes.literal(self.kind, 0)
            for factor, start in zip(factors, starts, strict=True):
                place = function.element(memory, start, j)
                if lanes is self.wide:
                    function.prefetch(function.element(memory, place, far), near=2)
                loaded = lanes.value(f"load {lanes.vector(memory)}, ptr {place}, align {kind_bits(memory) // 8}")
                value = converted(lanes, self.contraction.arguments[argument], loaded, self.kind)
                total = lanes.multiply_add(self.kind, splat_kind(lanes, self.kind, factor), value, total)
            before = self.load(lanes, self.kind, "%workspace", j)
            self.store(lanes, lanes.binary(self.addition, self.kind, before, total), j)
        self.over_columns(count, column)

    def factor(self, a: str, k: Int) -> str:
        """An element of a."""
        dtype = self.contraction.arguments[self.contraction.a.argument]
        place = self.function.element(MEMORY[dtype], a, self.function.mul(k, self.step))
        loaded = self.function.value(f"load {MEMORY[dtype]}, ptr {place}, align {kind_bits(MEMORY[dtype]) // 8}")
        return converted(self.single, dtype, loaded, self.kind)

    @property
    def addition(self) -> str:
        return "fadd" if self.kind in ("float", "double") else "add"

    def load(self, lanes: Lanes, kind: str, pointer: str, j: Int) -> str:
        place = self.function.element(kind, pointer, j)
        return lanes.value(f"load {lanes.vector(kind)}, ptr {place}, align {kind_bits(kind) // 8}")

    def store(self, lanes: Lanes, value: str, j: Int) -> None:
        place = self.function.element(self.kind, "%workspace", j)
        self.function.emit(f"store {lanes.vector(self.kind)} {value}, ptr {place}, align {kind_bits(self.kind) // 8}")
