"""Few rows of a product whose operands are both contiguous along k: a dot product for every element.

    c[m, n] = sum over k of a[m*row + k] * b[n*column + k]

Several columns share the loads of a; each has its own accumulators, vectors along k, which are added up at the end.
A column that is left over is summed in the same order, so its bits do not depend on its neighbours.
"""

from __future__ import annotations

from functools import partial

from graphc.ir.plan import Contraction

from ..target import Target
from ..text import Int, Module
from ..vectors import MEMORY, REGISTER, Lanes, kind_bits
from .batch import Frame
from .epilogue import Shape, emit_epilogue
from .pack import between, converted, steps
from .ranges import Range, ranges

CHUNK = 64  # columns between calls of the epilogue
FEW = 4
UNROLL = 4  # vectors along k in flight for each column


def fits(contraction: Contraction) -> bool:
    """Few rows: for more of them it pays to turn b, which is then read once for many rows."""
    m = contraction.extents[-2]
    return isinstance(m, int) and m <= FEW and contraction.a.strides[-1] == 1 and contraction.b.strides[-1] == 1


def workspace_bytes(contraction: Contraction) -> int:
    return CHUNK * kind_bits(REGISTER[contraction.dtype]) // 8


def cut(contraction: Contraction, target: Target) -> tuple[Range, ...]:
    """The axes whose ranges are parameters: not the few rows, which share what is read of b."""
    return ranges(contraction, target, FEW, CHUNK, CHUNK)


def emit(module: Module, contraction: Contraction, target: Target, name: str) -> None:
    lanes = target.vector_bits // kind_bits(REGISTER[contraction.dtype])
    emit_epilogue(module, contraction, target, f"{name}_epilogue", Shape(CHUNK, 1, lanes))
    _Dot(module, contraction, target, name, lanes).write()


class _Dot:
    def __init__(self, module: Module, contraction: Contraction, target: Target, name: str, lanes: int) -> None:
        self.frame = Frame(module, contraction, name, cut(contraction, target))
        self.contraction = contraction
        self.kind = REGISTER[contraction.dtype]
        self.wide, self.single = Lanes(self.frame.function, target, lanes), Lanes(self.frame.function, target, 1)
        self.together = 4 if target.vector_bits == 512 or target.architecture != "x86_64" else 2
        self.depth = self.frame.size(contraction.depth)
        self.column = self.frame.size(contraction.b.strides[-2])

    def write(self) -> None:
        self.frame.over_batch(self.rows)
        self.frame.close()

    def rows(self) -> None:
        function, frame = self.frame.function, self.frame
        a, b = frame.base(self.contraction.a), frame.base(self.contraction.b)
        memory, row = MEMORY[self.contraction.arguments[self.contraction.a.argument]], self.contraction.a.strides[-3]

        rows, columns = frame.bounds[-2:]

        def one(m: Int) -> None:
            start = function.element(memory, a, function.mul(m, frame.size(row)))
            between(function, *columns, CHUNK, lambda n: self.chunk(start, b, m, n))
        between(function, *rows, 1, one)

    def chunk(self, a: str, b: str, m: Int, n: Int) -> None:
        function = self.frame.function
        count = function.minimum(CHUNK, function.sub(self.frame.bounds[-1][1], n))
        whole = function.sub(count, self.together - 1)
        dtype = self.contraction.arguments[self.contraction.b.argument]
        first = function.element(MEMORY[dtype], b, function.mul(n, self.column))
        steps(function, whole, self.together, lambda j: self.columns(a, first, j, self.together))
        done = count // self.together * self.together if isinstance(count, int) else \
            function.value(f"and i64 {count}, {-self.together}")
        steps(function, function.sub(count, done), 1, lambda j: self.columns(a, first, function.add(done, j), 1))
        self.frame.finish("%workspace", m, n, 1, count)

    def columns(self, a: str, b: str, j: Int, count: int) -> None:
        """The sums of columns j.. of the chunk."""
        function, kind = self.frame.function, self.kind
        dtype = self.contraction.arguments[self.contraction.b.argument]
        starts = [function.element(MEMORY[dtype], b, function.mul(function.add(j, i), self.column))
                  for i in range(count)]
        for i, total in enumerate(self.sums(a, starts)):
            place = function.element(kind, "%workspace", function.add(j, i))
            function.emit(f"store {kind} {total}, ptr {place}, align {kind_bits(kind) // 8}")

    def sums(self, a: str, columns: list[str]) -> list[str]:
        function, kind, wide = self.frame.function, self.kind, self.wide
        count, step = len(columns), wide.count * UNROLL
        zero, vector = wide.literal(kind, 0), wide.vector(kind)
        long = self.below(step)
        several = partial(self.step, wide, UNROLL, a, columns)
        many = function.loop(0, long, step, [(vector, zero)] * (count * UNROLL), several)
        lone = [self.added(wide, many[i * UNROLL:(i + 1) * UNROLL]) for i in range(count)]
        short = self.below(wide.count)
        one = partial(self.step, wide, 1, a, columns)
        lone = function.loop(long, short, wide.count, [(vector, value) for value in lone], one)
        tail = [(kind, self.total(value)) for value in lone]
        return function.loop(short, self.depth, 1, tail, partial(self.step, self.single, 1, a, columns))

    def below(self, step: int) -> Int:
        """The depth rounded down."""
        if isinstance(self.depth, int):
            return self.depth // step * step
        return self.frame.function.value(f"and i64 {self.depth}, {-step}")

    def step(self, lanes: Lanes, unroll: int, a: str, columns: list[str], k: Int, sums: list[str]) -> list[str]:
        result = list(sums)
        for u in range(unroll):
            at = self.frame.function.add(k, u * lanes.count)
            x = self.load(lanes, self.contraction.a.argument, a, at)
            for i, column in enumerate(columns):
                y = self.load(lanes, self.contraction.b.argument, column, at)
                result[i * unroll + u] = lanes.multiply_add(self.kind, x, y, result[i * unroll + u])
        return result

    def load(self, lanes: Lanes, argument: int, pointer: str, index: Int) -> str:
        dtype = self.contraction.arguments[argument]
        address = self.frame.function.element(MEMORY[dtype], pointer, index)
        align = kind_bits(MEMORY[dtype]) // 8
        loaded = lanes.value(f"load {lanes.memory_type(dtype)}, ptr {address}, align {align}")
        return converted(lanes, dtype, loaded, self.kind)

    @property
    def is_float(self) -> bool:
        return self.kind in ("float", "double")

    def added(self, lanes: Lanes, values: list[str]) -> str:
        """Pairwise sum of a power of two of vectors."""
        while len(values) > 1:
            values = [lanes.binary("fadd" if self.is_float else "add", self.kind, x, y)
                      for x, y in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def total(self, value: str) -> str:
        """Sum of a vector's lanes, by halves."""
        lanes = self.wide
        while lanes.count > 2:
            halves = lanes.parts(self.kind, value, 2)
            lanes = Lanes(lanes.function, lanes.target, lanes.count // 2)
            value = self.added(lanes, halves)
        last = [lanes.value(f"extractelement {lanes.vector(self.kind)} {value}, i64 {i}") for i in range(lanes.count)]
        return self.added(self.single, last)
