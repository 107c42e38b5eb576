"""Straight kernels: one function without loops, an SSA value for every operation.

    %0 = sin %a    %1 = sin %b    %2 = cos %a    ->    one vector of sines and cosines of (a, b)

Calls of one dear function that stand side by side and do not need each other become lanes of one vector; sine and
cosine of the same operands share their reduction.  Everything else is scalar.

Invariant: what is stored to an argument that is read too is stored at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphc.ir.costs import HEAVY, weight
from graphc.ir.plan import Kernel, KernelOp

from .scalars import emit as emit_scalar
from .target import Target
from .text import Function, Module
from .vectors import MEMORY, REGISTER, Lanes, kind_bits
from .vmath.real import Real
from .vmath.trig import sin_cos

PACKED = ("float32", "float64")
TURNS = ("sin", "cos")
WIDEST = 256  # bits: around vectors or tables of 512 bits scalar code ran at half its speed (Sapphire Rapids)
Operands = tuple[int, ...]


def emit_straight(module: Module, kernel: Kernel, target: Target, name: str) -> None:
    parameters = [f"ptr noalias %a{i}" for i in range(len(kernel.arguments))] + ["i64 %lo", "i64 %hi"]
    function = Function(module, f"define internal void @{name}({', '.join(parameters)}) #0")
    _Writer(function, kernel, target).write()
    function.emit("ret void")
    module.add(name, function.text())


class _Writer:
    """Writes the operations of one kernel in their order."""

    def __init__(self, function: Function, kernel: Kernel, target: Target) -> None:
        self.function, self.kernel = function, kernel
        self.target = replace(target, vector_bits=min(target.vector_bits, WIDEST))
        self.one = Lanes(function, self.target, 1)
        self.values: dict[int, str] = {}
        self.read = {op.map.argument for op in kernel.ops if op.kind == "load" and op.map}

    def write(self) -> None:
        last: list[KernelOp] = []
        for run in runs(self.kernel.ops):
            if len(run) > 1:
                self.packed(run)
                continue
            op = self.kernel.ops[run[0]]
            self.function.at(op.loc)
            if op.kind != "store":
                self.values[run[0]] = self.value(op)
            elif op.map and op.map.argument in self.read:
                last.append(op)
            else:
                self.store(op)
        for op in last:
            self.function.at(op.loc)
            self.store(op)

    # -- one at a time --
    def value(self, op: KernelOp) -> str:
        if op.kind == "load":
            dtype, where = self.place(op)
            return self.one.load_convert(dtype, self.function.value(f"load {MEMORY[dtype]}, {where}"))
        if op.kind == "const":
            return self.one.constant(op.dtype, op.value)
        return emit_scalar(self.one, op.kind, self.operand_dtype(op), [self.values[k] for k in op.operands], op.dtype,
                           op.value)

    def operand_dtype(self, op: KernelOp) -> str:
        return self.kernel.ops[op.operands[1 if op.kind == "where" else 0]].dtype

    def place(self, op: KernelOp) -> tuple[str, str]:
        """The dtype in memory, and the address with its alignment."""
        assert op.map is not None and isinstance(op.map.offset, int)
        dtype = self.kernel.arguments[op.map.argument]
        kind = MEMORY[dtype]
        pointer = self.function.element(kind, f"%a{op.map.argument}", op.map.offset)
        return dtype, f"ptr {pointer}, align {kind_bits(kind) // 8}"

    def store(self, op: KernelOp) -> None:
        dtype, where = self.place(op)
        value = self.one.store_convert(dtype, self.values[op.operands[0]])
        self.function.emit(f"store {MEMORY[dtype]} {value}, {where}")

    # -- in lanes --
    def packed(self, run: Sequence[int]) -> None:
        """Calls that do not need each other, of several functions: one vector or several for each function."""
        groups: dict[object, dict[Operands, dict[str, int]]] = {}
        for k in run:
            op = self.kernel.ops[k]
            name = "turn" if op.kind in TURNS else op.kind
            groups.setdefault((name, op.dtype, op.value), {}).setdefault(op.operands, {})[op.kind] = k
        for members in groups.values():
            first = next(iter(next(iter(members.values())).values()))
            most = self.target.lanes(kind_bits(REGISTER[self.kernel.ops[first].dtype]))
            listed = list(members.items())
            count = min(most, 1 << (len(listed) - 1).bit_length())
            for k in range(0, len(listed), count):
                self.vector(count, listed[k:k + count])

    def vector(self, count: int, members: Sequence[tuple[Operands, dict[str, int]]]) -> None:
        """The results for several tuples of operands; a lane that is left over does what the last one does."""
        lanes = Lanes(self.function, self.target, count)
        places = {kind: [found.get(kind) for _, found in members] for _, found in members for kind in found}
        kinds = tuple(places)
        op = next(self.kernel.ops[k] for _, found in members for k in found.values())
        self.function.at(op.loc)
        columns = list(zip(*(operands for operands, _ in members)))
        operands = [self.gathered(lanes, column) for column in columns]
        if len(kinds) == 2:
            sine, cosine = sin_cos(Real(lanes, kind_bits(REGISTER[op.dtype])), operands[0])
            results = {"sin": sine, "cos": cosine}
        else:
            results = {op.kind: emit_scalar(lanes, op.kind, op.dtype, operands, op.dtype, op.value)}
        for kind in kinds:
            for lane, k in enumerate(places[kind]):
                if k is not None:
                    self.values[k] = self.element(lanes, op.dtype, results[kind], lane)

    def element(self, lanes: Lanes, dtype: str, vector: str, lane: int) -> str:
        if lanes.count == 1:
            return vector
        return self.function.value(f"extractelement {lanes.type(dtype)} {vector}, i64 {lane}")

    def gathered(self, lanes: Lanes, column: Sequence[int]) -> str:
        """A vector of the values of these operations."""
        dtype = self.kernel.ops[column[0]].dtype
        padded = [*column, *[column[-1]] * (lanes.count - len(column))]
        values = [self.values[k] for k in padded]
        if len(set(values)) == 1:
            return lanes.splat(dtype, values[0])
        vector = "poison"
        for lane, value in enumerate(values):
            vector = self.function.value(f"insertelement {lanes.type(dtype)} {vector}, {REGISTER[dtype]} {value}, "
                                         f"i64 {lane}")
        return vector


def runs(ops: Sequence[KernelOp]) -> Iterator[list[int]]:
    """The operations in order; dear functions that stand side by side and do not need each other come together."""
    run: list[int] = []
    for k, op in enumerate(ops):
        if not is_packable(op):
            yield from filter(None, (run, [k]))
            run = []
        elif run and any(o in run for o in op.operands):
            yield run
            run = [k]
        else:
            run.append(k)
    if run:
        yield run


def is_packable(op: KernelOp) -> bool:
    return op.dtype in PACKED and weight(op.kind) >= HEAVY
