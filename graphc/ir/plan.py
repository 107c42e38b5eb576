"""What passes hand to code generation: plain data, no graph and no LLVM.

    Program    the steps of one native function, its buffers, and where every one of them lives
    Kernel     one loop nest: a scalar SSA list over a set of axes
    Contraction  a matrix product over batch axes, with a scalar SSA list applied to every result element

A **kernel** is a list of scalar operations in SSA order (an operand is the index of an earlier operation) over one
set of axes.  Nothing says which loops exist or which values live in registers: the emitter derives that from the axes
each value depends on.  Loads and stores have affine maps; a reduction drops axes.  Kinds of operation:

    load        map                           store      map, operand: the value
    keep        map, operand: writes its value where it is computed; later passes over the axes read it back
    const       value: a number or a size (int64)   iota       value: the axis; dtype int64: the index along it
    reduce      value: (monoid, axes)         monoids: add mul max min (NaN wins) fastmax (NaN may drop) argmax argmin
                                              any all; argmax and argmin give the int64 index as `second`
    second      operand: an argmax or argmin reduce: its index
    scan        value: (axis, reverse); operands a, b: y[i] = a[i]*y[i-1] + b[i], y[-1] = 0, along the axis
    accumulate  map, operand: adds to what is stored there (indices may repeat, so it runs in order)
    accumulator the finished element of a contraction (in epilogues only)
    cast        operand; to the op's dtype
    and every elementwise op of the op table by its name, `value` holding its static parameter if it has one

All reductions of a kernel reduce over the same axes.  A value that is loaded and stored in place is one argument
with equal maps.  A kernel without axes whose places are all known is **straight**: every operation runs once, and
whatever it reads of an argument it reads before it writes there.  Invariants are checked by `graphc.ir.verify`.

Operations and steps know the user's line that they come from.  It is no part of what they are: plans that differ in
lines only are equal, and have the same text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .dims import Dim, call, sign, substitute
from .errors import Loc

Number = int | float | bool


@dataclass(frozen=True)
class Guard:
    """Holds where 0 <= offset + sum(strides[a] * i_a) < extent."""

    offset: int | Dim
    strides: tuple[int | Dim, ...]
    extent: int | Dim


@dataclass(frozen=True)
class Map:
    """Element address = offset + sum(strides[a] * i_a) + sum(stride * value of op); outside a guard it reads `fill`.

    `indices` are (op, stride, extent): the op's value is an int64 index in [-extent, extent), negative ones count from
    the end; ranges are checked before the kernel runs.
    """

    argument: int
    offset: int | Dim
    strides: tuple[int | Dim, ...]
    indices: tuple[tuple[int, int | Dim, int | Dim], ...] = ()
    guards: tuple[Guard, ...] = ()
    fill: Number = 0


@dataclass(frozen=True)
class KernelOp:
    """One scalar operation; `dtype` is the type of its result (of the element stored, for a store)."""

    kind: str
    operands: tuple[int, ...] = ()
    dtype: str = "float32"
    map: Map | None = None
    value: Any = None
    loc: Loc | None = field(default=None, compare=False, repr=False)


STREAMED_BYTES = 1 << 25  # a result so large is not in the caches when somebody reads it


@dataclass(frozen=True)
class Schedule:
    """How a kernel's loops run.  None lets the emitter choose by its cost model."""

    lanes: int | None = None  # the axis along which vectors lie
    unroll: int | None = None  # the axis of which several steps are in flight (the lanes' own, or another)
    factor: int | None = None  # how many
    streamed: tuple[int, ...] = ()  # arguments that are written past the caches where they are large


@dataclass(frozen=True)
class Kernel:
    """One loop nest.  `extents` are its axes, outermost first; `arguments` the dtypes of its buffers."""

    extents: tuple[int | Dim, ...]
    arguments: tuple[str, ...]
    ops: tuple[KernelOp, ...]
    schedule: Schedule = Schedule()


@dataclass(frozen=True)
class Contraction:
    """c[batch.., m, n] = epilogue(sum over k of a[batch.., m, k] * b[batch.., k, n]).

    `extents` = (*batch, m, n); `a` and `b` are maps over (*batch, m, n, k): a's stride along n is 0, b's along m is 0.
    `ops` is the epilogue over the axes (*batch, m, n): op 0 is the `accumulator`, of dtype `dtype`; loads, elementwise
    ops and stores follow.  A store's stride along n is 1 or the emitter stores element by element.
    """

    extents: tuple[int | Dim, ...]
    depth: int | Dim
    arguments: tuple[str, ...]
    dtype: str
    a: Map
    b: Map
    ops: tuple[KernelOp, ...]


@dataclass(frozen=True)
class Array:
    """An array that crosses the function's border."""

    name: str
    dtype: str
    shape: tuple[int | Dim, ...]


@dataclass(frozen=True)
class Buffer:
    """`place` is input, output, state, constant (`number` in the program's list of them) or arena (at `offset`)."""

    dtype: str
    size: int | Dim  # elements
    place: str
    number: int = -1
    offset: int | Dim = 0
    name: str = ""


Condition = tuple[tuple["int | Dim", "int | Dim"], ...]  # pairs (a, b): a >= b for all of them


@dataclass(frozen=True)
class Case:
    """Holds where condition `number` is the first that does; the one behind the last, where none does."""

    conditions: tuple[Condition, ...]
    number: int

    def __str__(self) -> str:
        texts = [" and ".join(f"{a} >= {b}" for a, b in c) or "always" for c in self.conditions]
        texts = [f"not ({t})" for t in texts[:self.number]] + texts[self.number:self.number + 1]
        return " and ".join(texts)


@dataclass(frozen=True)
class KernelStep:
    """Runs a kernel on these buffers (indices into the program's list, one per argument).

    A step runs where all cases in its `when` hold.  `sizes` are the values of symbols that are the kernel's own: steps
    of other sizes may share it.
    """

    kernel: Kernel | Contraction
    buffers: tuple[int, ...]
    label: str = ""
    when: tuple[Case, ...] = ()
    sizes: tuple[tuple[str, int | Dim], ...] = ()

    def size(self, size: int | Dim) -> int | Dim:
        """A size of the kernel as the program knows it."""
        return substitute(size, dict(self.sizes)) if self.sizes else size

    @property
    def loc(self) -> Loc | None:
        """The line of the product, or of what the kernel writes first."""
        writing = ("accumulator", "store", "accumulate")
        return next((op.loc for op in self.kernel.ops if op.kind in writing), None)


@dataclass(frozen=True)
class RangeStep:
    """Refuses the call where an element of the buffer, of any integers, lies outside [-extent, extent)."""

    buffer: int
    extent: int | Dim
    number: int  # into the program's `messages`
    when: tuple[Case, ...] = ()
    loc: Loc | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class CopyStep:
    """Copies one buffer to another of the same dtype and size."""

    source: int
    target: int
    when: tuple[Case, ...] = ()
    loc: Loc | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class DimCheck:
    """Sizes that must be equal (relation "=="), or where the first must be at least the second (">=") at bind time."""

    relation: str
    a: int | Dim
    b: int | Dim
    message: str


@dataclass(frozen=True)
class Constant:
    """Read-only data of the program; `data` is the array's bytes in C order, `key` names them by content."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Program:
    """One native function.  `symbols` are its run-time sizes, in the order in which they are passed."""

    name: str
    symbols: tuple[str, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    state: tuple[Array, ...]
    constants: tuple[Constant, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[KernelStep | RangeStep | CopyStep, ...]
    arena: int | Dim  # bytes
    checks: tuple[DimCheck, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Border:
    """What the caller of a native function must know.

    It must be given `arena` bytes, workspace included, and `slot` more for each thread but the first.
    """

    name: str
    symbols: tuple[str, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    state: tuple[Array, ...]
    arena: int | Dim
    slot: int | Dim
    checks: tuple[DimCheck, ...]
    messages: tuple[str, ...]

    @classmethod
    def of(cls, program: Program, arena: int | Dim, slot: int | Dim) -> Border:
        return cls(program.name, program.symbols, program.inputs, program.outputs, program.state, arena, slot,
                   program.checks, program.messages)


def is_straight(kernel: Kernel) -> bool:
    """Whether it has no axes and only elementwise operations at places known now."""
    return not kernel.extents and all(
        op.kind not in ("keep", "reduce", "second", "scan", "accumulate", "iota") and not isinstance(op.value, Dim)
        and (op.map is None or (isinstance(op.map.offset, int) and not op.map.indices and not op.map.guards))
        for op in kernel.ops)


def taken(when: Iterable[Case]) -> int | Dim:
    """1 where all the cases hold, 0 elsewhere, as a size."""
    total: int | Dim = 1
    for case in when:
        for condition in case.conditions[:case.number]:
            total = total * (1 - all_hold(condition))
        if case.number < len(case.conditions):
            total = total * all_hold(case.conditions[case.number])
    return total


def all_hold(condition: Condition) -> int | Dim:
    total: int | Dim = 1
    for a, b in dict.fromkeys(condition):
        if sign(a - b) != 1:
            total = total * call("min", 1, call("max", 0, a - b + 1))
    return total
