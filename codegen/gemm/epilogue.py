"""The epilogue: the scalar list of a contraction applied to the finished elements of a scratch tile.

    void name(ptr %a0.., i64 %dim_s.., i64 %batch0.., ptr %tile, i64 %m, i64 %n, i64 %rows, i64 %columns)

The tile's element (0, 0) is element (m, n) of the product; only rows x columns of it are wanted.  Rows run outside,
vectors along n inside.  An op that depends on n is a vector, any other is a scalar that is computed once per row.
What is left of a row after the last vector is one masked vector where the machine has real masks, else single
elements.  Each element is read and written once, in one place, so that a buffer may be updated in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.dims import Dim
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Contraction, KernelOp, Map

from .. import scalars
from ..sizes import environment, size_value
from ..target import Target
from ..text import Function, Int, Module
from ..vectors import MEMORY, Lanes, kind_bits
from .batch import parameters, sizes_of
from .pack import steps

STRAIGHT_OPS = 12  # a longer list is written once per row loop and not once for every vector of a full row


@dataclass(frozen=True)
class Shape:
    """Form of the scratch tile: its row length, and the vectors in a full row."""

    pitch: int
    vectors: int
    lanes: int


@dataclass(frozen=True)
class Span:
    """A vector of the row being written: how many lanes, at which column, which of them live (None: all)."""

    lanes: Lanes
    column: Int
    mask: str | None = None


def emit_epilogue(module: Module, contraction: Contraction, target: Target, name: str, shape: Shape) -> None:
    """Adds `define internal void @name(...)`."""
    batch = [f"i64 %batch{i}" for i in range(len(contraction.extents) - 2)]
    head = ", ".join([*parameters(contraction), *batch, "ptr %tile", "i64 %m", "i64 %n", "i64 %rows", "i64 %columns"])
    function = Function(module, f"define internal void @{name}({head}) noinline #0")
    _Epilogue(function, contraction, target, shape).write()
    function.emit("ret void")
    module.add(name, function.text())


class _Epilogue:
    def __init__(self, function: Function, contraction: Contraction, target: Target, shape: Shape) -> None:
        self.function, self.contraction, self.target, self.shape = function, contraction, target, shape
        self.env = environment(sizes_of(contraction))
        self.varies = varying(contraction.ops)
        self.starts: dict[int, str] = {}  # op -> address of its element (m, n)
        self.rows: dict[int, str] = {}  # op -> the same in the row being written
        self.scalars: dict[int, str] = {}  # op that does not vary along n -> its value in this row
        self.row_tile = ""
        self.masks: list[str] = []  # of the vectors of a row, where the machine has masks

    def write(self) -> None:
        for number, op in enumerate(self.contraction.ops):
            if isinstance(op.value, Dim):
                size_value(self.function, op.value, self.env)  # here, where every use is behind it
            if op.map is not None:
                self.starts[number] = self.start(op, op.map)
                for size in op.map.strides[-2:]:
                    size_value(self.function, size, self.env)
        if self.has_masks() and self.is_straight():
            lanes = Lanes(self.function, self.target, self.shape.lanes)
            self.masks = [self.mask(lanes, j * lanes.count) for j in range(self.shape.vectors)]
        steps(self.function, "%rows", 1, self.row)

    def start(self, op: KernelOp, map_: Map) -> str:
        if map_.guards or map_.indices:
            raise Unsupported(f"contraction epilogue: a {op.kind} with guards or indices ({map_})")
        offset = size_value(self.function, map_.offset, self.env)
        places = [f"%batch{i}" for i in range(len(map_.strides) - 2)] + ["%m", "%n"]
        for place, stride in zip(places, map_.strides, strict=True):
            offset = self.function.add(offset, self.function.mul(place, size_value(self.function, stride, self.env)))
        memory = MEMORY[self.contraction.arguments[map_.argument]]
        return self.function.element(memory, f"%a{map_.argument}", offset)

    # -- one row --
    def row(self, i: Int) -> None:
        function, contraction = self.function, self.contraction
        self.row_tile = function.element(MEMORY[contraction.dtype], "%tile", function.mul(i, self.shape.pitch))
        single = Lanes(function, self.target, 1)
        self.scalars = {}
        for number, op in enumerate(contraction.ops):
            if op.map is not None:
                stride = size_value(function, op.map.strides[-2], self.env)
                self.rows[number] = function.element(MEMORY[contraction.arguments[op.map.argument]],
                                                     self.starts[number], function.mul(i, stride))
            if not self.varies[number]:
                self.scalars[number] = self.op(number, op, Span(single, 0), self.scalars)
        if not self.is_straight():
            self.part()
            return
        if self.masks:
            lanes = Lanes(function, self.target, self.shape.lanes)
            for j, mask in enumerate(self.masks):
                self.vector(Span(lanes, j * lanes.count, mask))
            return
        full = function.value(f"icmp eq i64 %columns, {self.shape.vectors * self.shape.lanes}")
        self.either(full, self.whole, self.part)

    def whole(self) -> None:
        lanes = Lanes(self.function, self.target, self.shape.lanes)
        for j in range(self.shape.vectors):
            self.vector(Span(lanes, j * self.shape.lanes))

    def part(self) -> None:
        """Any number of columns."""
        function, width = self.function, self.shape.lanes
        lanes = Lanes(function, self.target, width)
        if width == 1:
            steps(function, "%columns", 1, lambda j: self.vector(Span(lanes, j)))
            return
        whole = function.value(f"and i64 %columns, {-width}")
        steps(function, whole, width, lambda j: self.vector(Span(lanes, j)))
        rest = function.value(f"icmp ne i64 {whole}, %columns")
        function.when(rest, lambda: self.rest(lanes, whole))

    def rest(self, lanes: Lanes, start: str) -> None:
        function = self.function
        if self.has_masks():
            self.vector(Span(lanes, start, self.mask(lanes, start)))
            return
        single = Lanes(function, self.target, 1)

        def one(j: Int, _: list[str]) -> list[Int]:
            self.vector(Span(single, j))
            return []
        function.loop(start, "%columns", 1, [], one)

    def is_straight(self) -> bool:
        """The list is written for every vector of a row."""
        return len(self.contraction.ops) <= STRAIGHT_OPS and self.shape.vectors > 1

    def has_masks(self) -> bool:
        return self.target.has_avx512 and self.shape.lanes > 1 and self.is_contiguous()

    def mask(self, lanes: Lanes, start: Int) -> str:
        """Which of the columns from `start` on are wanted."""
        return self.function.call(lanes.vector("i1"), f"llvm.get.active.lane.mask.{lanes.mangled('i1')}.i64",
                                  ("i64", start), ("i64", "%columns"))

    def is_contiguous(self) -> bool:
        """Every access that varies along n is to neighbouring elements."""
        return all(op.map.strides[-1] == 1 for number, op in enumerate(self.contraction.ops)
                   if op.map is not None and self.varies[number])

    def either(self, condition: str, yes: Callable[[], None], no: Callable[[], None]) -> None:
        def arm(body: Callable[[], None]) -> list[Int]:
            body()
            return []
        self.function.choose(condition, [], lambda: arm(yes), lambda: arm(no))

    # -- one vector --
    def vector(self, span: Span) -> None:
        values: dict[int, str] = {}
        for number, op in enumerate(self.contraction.ops):
            if self.varies[number]:
                values[number] = self.op(number, op, span, values)

    def op(self, number: int, op: KernelOp, span: Span, values: dict[int, str]) -> str:
        self.function.at(op.loc)
        if op.kind == "accumulator":
            at = self.function.element(MEMORY[op.dtype], self.row_tile, span.column)
            return self.read(span, op.dtype, at)
        if op.kind == "const":
            return self.constant(op, span)
        if op.kind == "load":
            return self.load(number, op, span)
        operands = [self.operand(operand, span, values) for operand in op.operands]
        if op.kind == "store":
            return self.store(number, op, span, operands[0])
        if op.kind in ("keep", "iota", "reduce", "second", "scan", "accumulate"):
            raise Unsupported(f"contraction epilogue: op {op.kind!r}")
        dtype = self.contraction.ops[op.operands[-1]].dtype
        return scalars.emit(span.lanes, op.kind, dtype, operands, op.dtype, op.value)

    def constant(self, op: KernelOp, span: Span) -> str:
        if isinstance(op.value, Dim):
            return span.lanes.splat(op.dtype, str(size_value(self.function, op.value, self.env)))
        return span.lanes.constant(op.dtype, op.value)

    def operand(self, number: int, span: Span, values: dict[int, str]) -> str:
        if self.varies[number] or span.lanes.count == 1:
            return values[number] if self.varies[number] else self.scalars[number]
        op = self.contraction.ops[number]
        if op.kind == "const":
            return self.constant(op, span)
        return span.lanes.splat(op.dtype, self.scalars[number])

    # -- memory --
    def load(self, number: int, op: KernelOp, span: Span) -> str:
        assert op.map is not None
        dtype = self.contraction.arguments[op.map.argument]
        if not self.varies[number]:
            return self.read(span, dtype, self.rows[number])
        if op.map.strides[-1] == 1 or span.lanes.count == 1:
            return self.read(span, dtype, self.column(number, op.map, span.column))
        vector, memory = span.lanes.memory_type(dtype), MEMORY[dtype]
        gathered = "poison"
        for lane in range(span.lanes.count):
            pointer = self.column(number, op.map, self.function.add(span.column, lane))
            element = self.function.value(f"load {memory}, ptr {pointer}, align {kind_bits(memory) // 8}")
            gathered = self.function.value(f"insertelement {vector} {gathered}, {memory} {element}, i64 {lane}")
        return span.lanes.load_convert(dtype, gathered)

    def store(self, number: int, op: KernelOp, span: Span, value: str) -> str:
        assert op.map is not None
        dtype = self.contraction.arguments[op.map.argument]
        stored = span.lanes.store_convert(dtype, value)
        if op.map.strides[-1] == 1 or span.lanes.count == 1:
            self.write_vector(span, dtype, stored, self.column(number, op.map, span.column))
            return ""
        vector, memory = span.lanes.memory_type(dtype), MEMORY[dtype]
        for lane in range(span.lanes.count):
            element = self.function.value(f"extractelement {vector} {stored}, i64 {lane}")
            pointer = self.column(number, op.map, self.function.add(span.column, lane))
            self.function.emit(f"store {memory} {element}, ptr {pointer}, align {kind_bits(memory) // 8}")
        return ""

    def column(self, number: int, map_: Map, column: Int) -> str:
        """Address of an element of this row."""
        stride = size_value(self.function, map_.strides[-1], self.env)
        memory = MEMORY[self.contraction.arguments[map_.argument]]
        return self.function.element(memory, self.rows[number], self.function.mul(column, stride))

    def read(self, span: Span, dtype: str, pointer: str) -> str:
        lanes, vector, memory = span.lanes, span.lanes.memory_type(dtype), MEMORY[dtype]
        align, masks = kind_bits(memory) // 8, lanes.vector("i1")
        text = f"load {vector}, ptr {pointer}, align {align}"
        if span.mask is not None:
            name = f"llvm.masked.load.{lanes.mangled(memory)}.p0"
            self.function.module.declare(f"{vector} @{name}(ptr, {masks}, {vector})")
            text = f"call {vector} @{name}(ptr align {align} {pointer}, {masks} {span.mask}, {vector} zeroinitializer)"
        return lanes.load_convert(dtype, self.function.value(text))

    def write_vector(self, span: Span, dtype: str, value: str, pointer: str) -> None:
        lanes, vector, memory = span.lanes, span.lanes.memory_type(dtype), MEMORY[dtype]
        align, masks = kind_bits(memory) // 8, lanes.vector("i1")
        if span.mask is None:
            self.function.emit(f"store {vector} {value}, ptr {pointer}, align {align}")
            return
        name = f"llvm.masked.store.{lanes.mangled(memory)}.p0"
        self.function.module.declare(f"void @{name}({vector}, ptr, {masks})")
        self.function.emit(f"call void @{name}({vector} {value}, ptr align {align} {pointer}, {masks} {span.mask})")


def varying(ops: tuple[KernelOp, ...]) -> list[bool]:
    """Whether each op depends on n; the accumulator and stores always do."""
    result: list[bool] = []
    for op in ops:
        along = op.map is not None and op.map.strides[-1] != 0
        result.append(op.kind in ("accumulator", "store") or along or any(result[i] for i in op.operands))
    return result
