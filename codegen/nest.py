"""The loops of a kernel and what is written in each of them.

What is written where follows from the axes that each operation depends on:

    parallel axes   loops; inside each, every operation whose axes are all open: what does not vary is written outside
    lanes, steps    the innermost parallel axes: vectors, and several steps of the unrolled axis in flight
    passes          over the reduced axes: pass g computes what needs the results of g reductions before it, from loads
                    and kept rows, and ends in the reductions and stores of that stage
    row values      between the passes; they lie in all lanes, so there is one kind of value

Invariants: within a block the loads come before the stores.  The order of a sum does not depend on lo..hi.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
import math

import numpy as np

from graphc.ir.costs import weight
from graphc.ir.dims import Dim
from graphc.ir.plan import Kernel, KernelOp

from . import reduce as reductions
from .access import (
    Frame,
    Point,
    accumulate,
    aligned_bytes,
    fetch_ahead,
    first_point,
    index_offsets,
    load,
    opened,
    store,
)
from .collapse import EFFECTS, Facts, operands_of, trips
from .loops import BUDGET, Carry, blocked, counted, lane_loop
from .reduce import Reduction
from .roles import BLOCK, is_blocked, row_steps
from .scalars import emit as emit_scalar
from .shuffles import lane_numbers, splat_kind, tail_mask
from .streams import before_line, distance, is_large, streamed_size, streamed_store, streams
from .text import Int
from .vmath.real import Real
from .vmath.trig import sin_cos
from .vectors import kind_bits

GATHER = 16  # weight of a gather or a scatter
TURNS = ("sin", "cos")
ROUNDED = ("float16", "bfloat16")  # computed as float32, rounded after each operation


def rounded_number(value: float, dtype: str) -> float:
    """A constant as its dtype holds it."""
    if dtype not in ROUNDED or not math.isfinite(value):
        return value
    if dtype == "float16":
        return float(np.float16(value))
    bits = int(np.float32(value).view(np.uint32))
    return float(np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32))


def overwritten_keeps(kernel: Kernel, known: Facts) -> tuple[int, ...]:
    """Kept values whose place a later store takes: a row that stays in registers need not be kept there."""
    last = {op.map: known.stages[i] for i, op in enumerate(kernel.ops) if op.kind == "store"}
    return tuple(i for i, op in enumerate(kernel.ops) if op.kind == "keep" and last.get(op.map, -1) > known.stages[i])


class Writer:
    """Walks the axes from the outermost in, and writes what each level can."""

    def __init__(self, frame: Frame, split: int | None) -> None:
        self.frame = frame
        self.kernel, self.facts, self.choice, self.lanes = frame.kernel, frame.facts, frame.choice, frame.lanes
        self.split = split
        axes = range(len(self.kernel.extents))
        self.reduced = tuple(a for a in axes if self.facts.reduced >> a & 1)
        inner = (*self.reduced, self.choice.lanes, self.choice.unroll)
        self.outer = tuple(a for a in axes if a not in inner)
        self.offsets: dict[int, list[tuple[int | Dim, int | Dim]]] = {}  # index -> (stride, extent) of its uses
        for i in self.facts.live:
            address = self.kernel.ops[i].map
            for number, stride, extent in address.indices if address is not None else ():
                uses = self.offsets.setdefault(number, [])
                if (stride, extent) not in uses:
                    uses.append((stride, extent))
        self.folds = any(self.kernel.ops[i].kind == "reduce" for i in self.facts.live)
        self.overwritten = overwritten_keeps(self.kernel, self.facts)
        turns = {kind: {self.kernel.ops[i].operands for i in self.facts.live if self.kernel.ops[i].kind == kind}
                 for kind in TURNS}
        self.angles = {operand for operand, in turns["sin"] & turns["cos"]}
        self.turned: dict[str, dict[str, str]] = {}  # angle -> what was made of it where these values are written
        self.memo: dict[object, list[str]] | None = None  # values of a row that stays in registers
        self.limits: dict[int, tuple[Int, Int]] = {}  # axis -> the part of it that is being written
        self.states: dict[int, list[str]] = {}  # scan -> its running values
        self.steps = self.choice.factor  # vectors of a row in flight, in the pass that is being written
        self.ahead: dict[int, Int] = {}  # load -> how far ahead of it to fetch
        self.fetching: set[int] = set()  # the loads that do so in the pass that is being written

    # -- sizes of nests --
    def extent(self, axis: int) -> Int:
        return self.frame.size(self.kernel.extents[axis])

    def bounds(self, axis: int) -> tuple[Int, Int]:
        return self.limits.get(axis, ("%lo", "%hi") if axis == self.split else (0, self.extent(axis)))

    def divides(self, steps: int, axis: int) -> bool:
        """Whether nothing is left of the axis, or of a part of it, after blocks of so many steps."""
        extent = self.kernel.extents[axis]
        return isinstance(extent, int) and axis != self.split and extent % steps == 0

    def cost(self, axes: Sequence[int]) -> int | None:
        """Weight of a nest over these axes in vector operations; None where it is not known."""
        total = max(self.facts.weight, 1)
        for axis in axes:
            extent = self.kernel.extents[axis]
            if not isinstance(extent, int) or axis == self.split:
                return None
            total *= -(-extent // self.lanes.count) if axis == self.choice.lanes else extent
        return total

    # -- parallel axes --
    def write(self) -> None:
        point = first_point(self.frame)
        for i, stride in streams(self.kernel, self.facts, self.choice, self.line_axis()).items():
            self.ahead[i] = distance(self.frame.function, self.kernel.ops[i].dtype, self.frame.size(stride))
        streamed = streamed_store(self.kernel, self.facts, self.choice, self.lanes.target)
        if streamed is None:
            self.nest(self.outer, point)
            return
        size, function = self.frame.size(streamed_size(self.kernel, streamed)), self.frame.function
        if isinstance(size, int):
            self.past_caches(point, streamed)
        else:
            apart = replace(point, values=dict(point.values))  # what one arm computes, the other must not use
            function.either(is_large(function, size), lambda: self.past_caches(apart, streamed),
                            lambda: self.nest(self.outer, point))

    def past_caches(self, point: Point, store: int) -> None:
        """The same loops, the store made past the caches; a fence orders it before what others do afterwards."""
        self.frame.streamed = store
        self.nest(self.outer, point)
        self.frame.streamed = None
        self.frame.function.call("void", "llvm.x86.sse.sfence")

    def to_line(self, point: Point, lanes: int, low: Int, high: Int) -> Int:
        """Writes what lies before the first aligned vector of the streamed store; returns where that begins."""
        frame, function = self.frame, self.frame.function
        assert frame.streamed is not None
        address = self.kernel.ops[frame.streamed].map
        assert address is not None
        kind = frame.kind(address)
        pointer = opened(frame, point, lanes, low).pointers[frame.site(address)]
        before = before_line(function, pointer, kind_bits(kind) // 8, aligned_bytes(frame, kind))
        first = function.minimum(function.add(low, before), high)
        mask = tail_mask(self.lanes, low, first)
        function.when(function.value(f"icmp sgt i64 {first}, {low}"),
                      lambda: self.passes(opened(frame, point, lanes, low, steps=1, mask=mask)))
        return first

    def line_axis(self) -> int | None:
        """The axis of the loop right around that over the lanes, where rows come one by one."""
        if self.choice.unroll != self.choice.lanes:
            return None
        around = [*self.outer, *(a for a in self.reduced_order() if a != self.choice.lanes)]
        return around[-1] if around else None

    def nest(self, axes: tuple[int, ...], point: Point) -> None:
        self.memo = None
        self.settle(point, [i for i in self.facts.live if self.facts.stages[i] == 0], 0)
        if not axes:
            self.innermost(point)
            return
        axis, inside = axes[0], axes[1:]
        low, high = self.bounds(axis)

        def body(index: Int, _: list[str]) -> list[str]:
            self.nest(inside, opened(self.frame, point, axis, index))
            return []
        inner = [a for a in range(len(self.kernel.extents)) if a not in self.outer or a in inside]
        counted(self.frame.function, low, high, 1, Carry(), [], body, self.cost(inner))

    def innermost(self, point: Point) -> None:
        """The lanes and the unrolled axis where they are parallel, then the passes."""
        lanes, unroll = self.choice.lanes, self.choice.unroll
        if unroll is not None and unroll != lanes and unroll not in self.reduced:
            if lanes is not None and is_blocked(self.kernel, self.facts, self.choice):
                self.in_blocks(point, (lanes, unroll))
            else:
                self.over_rows(point, unroll)
        elif lanes is not None and lanes not in self.reduced:
            self.over_lanes(point, lanes, self.choice.factor if unroll == lanes else 1)
        else:
            self.passes(point)

    def in_blocks(self, point: Point, axes: tuple[int, ...]) -> None:
        """Square blocks of the tiles: every line of the cache that a block touches is used up while it is there."""
        if not axes:
            assert self.choice.unroll is not None
            self.over_rows(point, self.choice.unroll)
            return
        axis, function = axes[0], self.frame.function
        low, high = self.bounds(axis)

        def block(first: Int, _: list[str]) -> list[str]:
            end = function.add(first, BLOCK)
            with self.part(axis, first, end if self.divides(BLOCK, axis) else function.minimum(end, high)):
                self.in_blocks(point, axes[1:])
            return []
        function.loop(low, high, BLOCK, [], block)

    def over_lanes(self, point: Point, lanes: int, steps: int, *, has_rest: bool = True) -> None:
        low, high = self.bounds(lanes)

        def block(index: Int, width: int, mask: str | None, _: list[str]) -> list[str]:
            now = width if self.choice.unroll == lanes else point.steps
            self.passes(opened(self.frame, point, lanes, index, steps=now, mask=mask))
            return []
        cost = self.cost(self.reduced)
        if cost is not None:
            cost = cost * point.steps + (GATHER * self.gathers(lanes) if point.steps == 1 else 0)
        has_rest = has_rest and not self.divides(self.lanes.count * steps, lanes)
        if self.frame.streamed is not None:
            low, has_rest = self.to_line(point, lanes, low, high), True
        lane_loop(self.lanes, low, high, steps, Carry(), [], block, cost, has_rest=has_rest)

    def gathers(self, lanes: int) -> int:
        """How many operations reach for their lanes one by one."""
        maps = [op.map for op in (self.kernel.ops[i] for i in self.facts.live) if op.map is not None]
        return sum(m.strides[lanes] not in (0, 1) for m in maps)

    def over_rows(self, point: Point, unroll: int) -> None:
        """Blocks of `factor` rows, then single ones; lanes that fill no vector are left to single rows."""
        function, factor, lanes = self.frame.function, self.choice.factor, self.choice.lanes
        low, high = self.bounds(unroll)
        middle = self.whole(unroll, factor)
        cost = self.cost(self.reduced if lanes is None or lanes in self.reduced else (*self.reduced, lanes))
        cost = None if cost is None else cost * factor
        if lanes is None or lanes in self.reduced:
            counted(function, low, middle, factor, Carry(), [], self.rows(point, unroll, factor), cost)
            counted(function, middle, high, 1, Carry(), [], self.rows(point, unroll, 1), cost)  # no more than a block
            return
        first, last = self.bounds(lanes)
        whole = self.whole(lanes, self.lanes.count)

        def single(row: Int, values: list[str]) -> list[str]:
            with self.part(lanes, function.pick("slt", row, middle, whole, first), last):
                return self.rows(point, unroll, 1)(row, values)
        with self.part(lanes, first, whole):
            counted(function, low, middle, factor, Carry(), [], self.rows(point, unroll, factor), cost)
        if middle != high or whole != last:
            counted(function, function.pick("eq", whole, last, middle, low), high, 1, Carry(), [], single, cost)

    def whole(self, axis: int, steps: int) -> Int:
        """Where the last whole block of so many steps of the axis ends."""
        function, (low, high) = self.frame.function, self.bounds(axis)
        if self.divides(steps, axis):
            return high
        blocks = function.floordiv(function.sub(high, low), steps)
        return function.add(low, function.mul(blocks, steps))

    @contextmanager
    def part(self, axis: int, low: Int, high: Int) -> Iterator[None]:
        """Within, the axis goes from `low` to `high`."""
        outside = self.limits.get(axis)
        self.limits[axis] = low, high
        yield
        del self.limits[axis]
        if outside is not None:
            self.limits[axis] = outside

    def rows(self, point: Point, unroll: int, count: int) -> Callable[[Int, list[str]], list[str]]:
        """What `count` rows at a time are."""
        def body(index: Int, _: list[str]) -> list[str]:
            inner = opened(self.frame, point, unroll, index, steps=count)
            self.settle(inner, [i for i in self.facts.live if self.facts.stages[i] == 0], 0)
            if self.choice.lanes is None or self.choice.lanes in self.reduced:
                self.passes(inner)
            else:
                self.over_lanes(inner, self.choice.lanes, 1, has_rest=count == 1)
            return []
        return body

    # -- values --
    def settle(self, point: Point, numbers: Sequence[int], stage: int) -> None:
        """Writes those of the operations whose axes are open and that are not there yet: values, then effects."""
        effects = []
        self.turned = {}
        for i in numbers:
            op = self.kernel.ops[i]
            if i in point.values or op.kind == "reduce" or self.facts.axes[i] & ~point.opened:
                continue
            if op.kind in ("store", "accumulate"):
                effects.append(i)
                continue
            self.frame.function.at(op.loc)
            point.values[i] = self.value(point, i, op, stage)
            stays = self.memo is not None and i in self.overwritten
            if op.kind == "keep" and self.facts.stages[i] >= stage and not stays:
                effects.append(i)
            for stride, extent in self.offsets.get(i, ()):
                point.values[i, stride, extent] = self.index_value(point, i, stride, extent)
        for i in effects:
            self.effect(point, i)

    def index_value(self, point: Point, i: int, stride: int | Dim, extent: int | Dim) -> list[str]:
        return index_offsets(self.frame, point.values[i], self.frame.size(stride), self.frame.size(extent),
                             in_lanes=self.facts.has(i, self.choice.lanes))

    def effect(self, point: Point, i: int) -> None:
        op = self.kernel.ops[i]
        self.frame.function.at(op.loc)
        if op.kind != "keep":
            point.values[i] = []  # it is done: levels further in do not repeat it
        write = accumulate if op.kind == "accumulate" else store
        write(self.frame, point, i, point.values[op.operands[0]])

    def value(self, point: Point, i: int, op: KernelOp, stage: int) -> list[str]:
        """The operation's registers; those of a short row are remembered for the passes that follow."""
        if self.memo is None or not self.facts.axes[i] & self.facts.reduced:
            return self.compute(point, i, op, stage)
        where = tuple(point.index[a] for a in self.reduced if self.facts.axes[i] >> a & 1)
        if not all(isinstance(index, int) for index in where):
            return self.compute(point, i, op, stage)
        key = (i, point.steps, where)
        if key not in self.memo:
            self.memo[key] = self.compute(point, i, op, stage)
        return self.memo[key]

    def compute(self, point: Point, i: int, op: KernelOp, stage: int) -> list[str]:
        if op.kind == "load":
            if i in self.fetching and point.mask is None:
                fetch_ahead(self.frame, point, i, self.ahead[i])
            return load(self.frame, point, i)
        if op.kind == "keep":
            return load(self.frame, point, i) if self.facts.stages[i] < stage else point.values[op.operands[0]]
        if op.kind == "const" and isinstance(op.value, Dim):
            return [self.lanes.splat(op.dtype, str(self.frame.size(op.value)))]
        if op.kind == "const":
            return [self.lanes.constant(op.dtype, rounded_number(op.value, op.dtype))]
        if op.kind == "iota":
            return self.iota(point, op)
        if op.kind == "second":
            return point.values[op.operands[0], "index"]
        if op.kind == "scan":
            return self.scan(point, i, op)
        return self.elementwise(point, op)

    def elementwise(self, point: Point, op: KernelOp) -> list[str]:
        operands = [point.values[j] for j in op.operands]
        dtype = self.kernel.ops[op.operands[1 if op.kind == "where" else 0]].dtype
        result = []
        for u in range(max(map(len, operands), default=1)):
            step = [registers[u if len(registers) > 1 else 0] for registers in operands]
            if op.kind in TURNS and op.operands[0] in self.angles:
                value = self.turn(op.kind, dtype, step[0])
            else:
                value = emit_scalar(self.lanes, op.kind, dtype, step, op.dtype, op.value)
            result.append(self.rounded(op.dtype, value))
        return result

    def turn(self, kind: str, dtype: str, angle: str) -> str:
        """The sine or cosine of an angle of which the kernel wants both: made together, from one reduction."""
        if angle not in self.turned:
            both = sin_cos(Real(self.lanes, 64 if dtype == "float64" else 32), angle)
            self.turned[angle] = dict(zip(TURNS, both))
        return self.turned[angle][kind]

    def rounded(self, dtype: str, value: str) -> str:
        if dtype not in ROUNDED:
            return value
        return self.lanes.load_convert(dtype, self.lanes.store_convert(dtype, value))

    def iota(self, point: Point, op: KernelOp) -> list[str]:
        axis, lanes = op.value, self.lanes
        base = splat_kind(lanes, "i64", point.index[axis])
        if axis == self.choice.lanes:
            base = lanes.binary("add", "i64", base, self.frame.lane_numbers(1))
        if axis != self.choice.unroll:
            return [base]
        scale = lanes.count if axis == self.choice.lanes else 1
        ahead = [lanes.literal("i64", u * scale) for u in range(1, point.steps)]
        return [base] + [lanes.binary("add", "i64", base, step) for step in ahead]

    def scan(self, point: Point, i: int, op: KernelOp) -> list[str]:
        """One state per step, or a single one that goes through the steps where they lie along the scan's own axis."""
        a, b = (point.values[j] for j in op.operands)
        axis, is_reverse = op.value
        state = self.states[i]
        steps = point.steps if self.facts.has(i, self.choice.unroll) else 1
        result = [""] * steps
        for u in range(steps)[::-1 if is_reverse else 1]:
            own = 0 if axis == self.choice.unroll else u
            factor, term = a[u if len(a) > 1 else 0], b[u if len(b) > 1 else 0]
            product = self.rounded(op.dtype, emit_scalar(self.lanes, "mul", op.dtype, [factor, state[own]], op.dtype))
            total = emit_scalar(self.lanes, "add", op.dtype, [product, term], op.dtype)
            result[u] = state[own] = self.rounded(op.dtype, total)
        return result

    # -- passes over the reduced axes --
    def passes(self, point: Point) -> None:
        """Everything at one point of the parallel axes, or at one block of lanes and steps."""
        live, stages, axes = self.facts.live, self.facts.stages, self.facts.axes
        point = replace(point, values=dict(point.values))
        cost = self.cost(self.reduced)
        self.memo = {} if self.reduced and cost is not None and cost * point.steps <= BUDGET else None
        unread = set(self.ahead)
        if not self.reduced:
            self.fetching = unread
        for stage in range(max((stages[i] for i in live), default=0) + 1):
            self.settle(point, [i for i in live if stages[i] <= stage and not axes[i] & self.facts.reduced], stage)
            folds = [i for i in live if self.kernel.ops[i].kind == "reduce" and stages[i] == stage + 1]
            effects = [i for i in live if self.kernel.ops[i].kind in EFFECTS and stages[i] == stage
                       and axes[i] & self.facts.reduced]
            if folds or effects:
                needed = self.closure(folds + effects, stage)
                self.steps = self.pass_steps(needed)
                self.fetching = unread.intersection(needed)
                unread -= self.fetching
                self.one_pass(point, stage, folds, needed)

    def pass_steps(self, needed: Sequence[int]) -> int:
        """Vectors of a row in flight: more in a light pass, unless the row stays in registers from pass to pass."""
        choice = self.choice
        is_free = self.memo is None and choice.unroll == choice.lanes and self.kernel.schedule.factor is None
        if not is_free or choice.lanes not in self.reduced:
            return choice.factor
        return row_steps(self.kernel, choice, sum(weight(self.kernel.ops[i].kind) for i in needed))

    def one_pass(self, point: Point, stage: int, folds: list[int], needed: list[int]) -> None:
        lanes = self.lanes
        scans = [i for i in needed if self.kernel.ops[i].kind == "scan"]
        in_order = self.reduced_order() == self.reduced and not (self.facts.scan or (0, False))[1]
        folded = [Reduction(i, self.kernel.ops[i].value[0], self.kernel.ops[i].dtype, self.index_kind(),
                            in_order) for i in folds]
        width = self.width(point)
        types = reductions.types(lanes, folded, width)
        types += [lanes.type(self.kernel.ops[i].dtype) for i in scans for _ in range(point.steps)]
        carry = Carry(tuple(types), lambda: reductions.start(lanes, folded, width),
                      lambda a, b: reductions.merge(lanes, folded, width, a, b),
                      not scans and any(r.is_float_sum for r in folded))
        first = reductions.start(lanes, folded, width)
        first += [lanes.constant(self.kernel.ops[i].dtype, 0) for i in scans for _ in range(point.steps)]
        at = len(first) - len(scans) * point.steps

        def body(inner: Point, carried: list[str]) -> list[str]:
            self.states = {i: carried[at + k * point.steps:at + (k + 1) * point.steps] for k, i in enumerate(scans)}
            self.settle(inner, needed, stage)
            state = self.update(inner, folded, carried[:at], width)
            return state + [register for i in scans for register in self.states[i]]
        last = self.reduced_nest(self.reduced_order(), point, needed, stage, carry, first, body)
        self.results(point, folded, last[:at], width)

    def reduced_order(self) -> tuple[int, ...]:
        """The lanes, or the axis of which several steps are in flight, innermost."""
        return tuple(sorted(self.reduced, key=lambda a: (a in (self.choice.lanes, self.choice.unroll), a)))

    def width(self, point: Point) -> int:
        """Accumulators of a reduction: one per step, of the row's own steps where the unrolled axis is reduced."""
        unroll = self.choice.unroll
        return self.steps if unroll is not None and unroll in self.reduced else point.steps

    def closure(self, roots: Sequence[int], stage: int) -> list[int]:
        """What a pass must have: everything its ends are made of, up to earlier reductions and kept rows."""
        found: set[int] = set()
        pending = list(roots)
        while pending:
            i = pending.pop()
            op = self.kernel.ops[i]
            if i in found or (op.kind == "reduce" and i not in roots):
                continue
            found.add(i)
            is_read_back = op.kind == "keep" and self.facts.stages[i] < stage
            pending += [j for j, _, _ in op.map.indices] if is_read_back and op.map else operands_of(op)
        return sorted(found)

    def reduced_nest(self, axes: tuple[int, ...], point: Point, needed: list[int], stage: int, carry: Carry,
                     values: Sequence[str], body: Callable[[Point, list[str]], list[str]]) -> list[str]:
        if not axes:
            return body(point, list(values))
        axis, inside = axes[0], axes[1:]
        if axis == self.choice.lanes:
            steps = self.steps if self.choice.unroll == axis else 1

            def block(index: Int, width: int, mask: str | None, carried: list[str]) -> list[str]:
                now = width if self.choice.unroll == axis else point.steps
                return body(opened(self.frame, point, axis, index, steps=now, mask=mask), carried)
            cost = self.facts.weight * point.steps
            return lane_loop(self.lanes, 0, self.extent(axis), steps, carry, values, block, cost)

        def rows(steps: int) -> Callable[[Int, list[str]], list[str]]:
            def step(index: Int, carried: list[str]) -> list[str]:
                at = self.along(axis, index, steps)
                inner = opened(self.frame, point, axis, at, steps=steps if axis == self.choice.unroll else point.steps)
                if inside:
                    self.settle(inner, needed, stage)
                return self.reduced_nest(inside, inner, needed, stage, carry, carried, body)
            return step
        function, extent = self.frame.function, self.extent(axis)
        inner_cost = self.cost(inside)
        # Under a mask there are no tiles and single steps are less code, but sums must keep their order.
        if axis == self.choice.unroll and (point.mask is None or self.folds):
            return self.in_steps(axis, inner_cost, carry, values, rows)
        trip_cost = None if inner_cost is None else inner_cost * point.steps
        return blocked(function, 0, extent, 1, carry, values, rows(1), trip_cost)

    def in_steps(self, axis: int, cost: int | None, carry: Carry, values: Sequence[str],
                 rows: Callable[[int], Callable[[Int, list[str]], list[str]]]) -> list[str]:
        """Blocks of `factor` steps of a reduced axis, then what is left of it."""
        function, extent = self.frame.function, self.extent(axis)
        factor = self.choice.factor
        middle = function.mul(function.floordiv(extent, factor), factor)
        block_cost = None if cost is None else cost * factor
        result = blocked(function, 0, middle, factor, carry, values, rows(factor), block_cost)
        if isinstance(extent, int) and isinstance(middle, int):
            return rows(extent - middle)(middle, result) if extent > middle else result
        return blocked(function, middle, extent, 1, carry, result, rows(1), None)

    def along(self, axis: int, index: Int, steps: int) -> Int:
        """A reverse scan runs from the last index down; a block of steps begins at its least index."""
        if self.facts.scan is None or not self.facts.scan[1]:
            return index
        function = self.frame.function
        return function.sub(function.add(self.extent(axis), -steps), index)

    # -- reductions --
    def update(self, point: Point, folded: Sequence[Reduction], state: Sequence[str], width: int) -> list[str]:
        result: list[str] = []
        mask = point.mask if self.choice.lanes in self.reduced else None
        for r, (values, indices) in zip(folded, reductions.split(state, folded, width), strict=True):
            self.frame.function.at(self.kernel.ops[r.op].loc)
            registers = point.values[self.kernel.ops[r.op].operands[0]]
            elements = [registers[u if len(registers) > 1 else 0] for u in range(point.steps)]
            positions = self.positions(point) if r.is_indexed else []
            result += reductions.update(self.lanes, r, values, indices, elements, positions, mask)
        return result

    def index_kind(self) -> str:
        points = trips(self.kernel, self.reduced)
        return "i32" if points is not None and points < 1 << 31 else "i64"

    def positions(self, point: Point) -> list[str]:
        """The index along the reduced axes, counted in their order."""
        function, lanes, choice, kind = self.frame.function, self.lanes, self.choice, self.index_kind()
        base: Int = 0
        weight: Int = 1
        along: dict[int | None, Int] = {}
        for axis in reversed(self.reduced):
            along[axis] = weight
            base = function.add(base, function.mul(point.index[axis], weight))
            weight = function.mul(weight, self.extent(axis))
        if kind == "i32" and isinstance(base, str):
            base = function.value(f"trunc i64 {base} to i32")
        first = splat_kind(lanes, kind, base)
        if choice.lanes in self.reduced:
            first = lanes.binary("add", kind, first, lane_numbers(lanes, kind, along[choice.lanes]))
        if choice.unroll not in self.reduced:
            return [first] * point.steps
        step = function.mul(along[choice.unroll], lanes.count if choice.unroll == choice.lanes else 1)
        return [first if u == 0 else lanes.binary("add", kind, first, splat_kind(lanes, kind, function.mul(step, u)))
                for u in range(point.steps)]

    def results(self, point: Point, folded: Sequence[Reduction], state: Sequence[str], width: int) -> None:
        is_empty = self.emptiness() if any(r.is_float_sum for r in folded) else 0
        for r, (values, indices) in zip(folded, reductions.split(state, folded, width), strict=True):
            self.frame.function.at(self.kernel.ops[r.op].loc)
            point.values[r.op], point.values[r.op, "index"] = reductions.finish(
                self.lanes, r, values, indices, fold_steps=self.choice.unroll in self.reduced,
                fold_lanes=self.choice.lanes in self.reduced, is_empty=is_empty)

    def emptiness(self) -> Int:
        """Whether the reduced axes have no point: 1, 0 or an i1 register."""
        points: Int = 1
        for axis in self.reduced:
            points = self.frame.function.mul(points, self.extent(axis))
        return int(points == 0) if isinstance(points, int) else self.frame.function.value(f"icmp eq i64 {points}, 0")
