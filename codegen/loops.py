"""Loops over one axis: unrolled in place when short, blocked when they sum, in steps of vectors along the lanes.

    counted       start, start+step, ..  : a loop with phis, or the body written once per trip when that fits the budget
    blocked       counted in blocks of 64 trips whose sums start anew, so that rounding grows with the number of blocks
    lane_loop     blocks of `steps` vectors, then single vectors, the last one under a mask

All three carry values: a `Carry` says their types, how they start and how two sets of them combine.  The order in
which a sum is made depends on the extent and on the vector length alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .text import Function, Int
from .vectors import Lanes

BUDGET = 192  # weighted vector operations that a nest may have when written without loops
CASCADE = 64  # trips of an inner block of a sum


def _nothing() -> list[str]:
    return []


@dataclass(frozen=True)
class Carry:
    """Values that go from trip to trip.  `is_blocked` asks for blocks (sums of floats)."""

    types: tuple[str, ...] = ()
    fresh: Callable[[], list[str]] = _nothing
    merge: Callable[[Sequence[str], Sequence[str]], list[str]] | None = None
    is_blocked: bool = False


Body = Callable[[Int, list[str]], Sequence[str]]
LaneBody = Callable[[Int, int, "str | None", list[str]], Sequence[str]]


def counted(function: Function, start: Int, stop: Int, step: int, carry: Carry, values: Sequence[str], body: Body,
            cost: int | None) -> list[str]:
    """`cost` is the weight of one trip, None where it is not known (then more than one trip is a loop)."""
    if isinstance(start, int) and isinstance(stop, int):
        trips = max(0, -(-(stop - start) // step))
        if trips <= 1 or (cost is not None and trips * cost <= BUDGET):
            result = list(values)
            for trip in range(trips):
                result = list(body(start + trip * step, result))
            return result
    return function.loop(start, stop, step, list(zip(carry.types, values)), body)


def blocked(function: Function, start: Int, stop: Int, step: int, carry: Carry, values: Sequence[str], body: Body,
            cost: int | None) -> list[str]:
    """As `counted`; a long sum is cut into blocks of 64 trips."""
    is_short = isinstance(start, int) and isinstance(stop, int) and (stop - start) // step <= 2 * CASCADE
    merge = carry.merge
    if not carry.is_blocked or is_short or merge is None:
        return counted(function, start, stop, step, carry, values, body, cost)

    def block(first: Int, sums: list[str]) -> Sequence[str]:
        end = function.minimum(function.add(first, step * CASCADE), stop)
        inner = function.loop(first, end, step, list(zip(carry.types, carry.fresh())), body)
        return merge(sums, inner)
    return function.loop(start, stop, step * CASCADE, list(zip(carry.types, values)), block)


def lane_loop(lanes: Lanes, start: Int, stop: Int, steps: int, carry: Carry, values: Sequence[str], body: LaneBody,
              cost: int | None) -> list[str]:
    """`body(i, steps, mask, values)` takes `steps` vectors from index i on; under a mask it is one vector.

    `cost` is the weight of one vector.
    """
    function, width = lanes.function, lanes.count * steps
    trip_cost = None if cost is None else cost * steps

    def whole(index: Int, current: list[str]) -> Sequence[str]:
        return body(index, steps, None, current)
    if isinstance(start, int) and isinstance(stop, int):
        middle = start + (stop - start) // width * width
        result = blocked(function, start, middle, width, carry, values, whole, trip_cost) if middle > start else list(values)
        left, rest = divmod(max(stop - middle, 0), lanes.count)
        if left:
            result = list(body(middle, left, None, result))
        if rest:
            result = list(body(stop - rest, 1, constant_mask(lanes.count, rest), result))
        return result
    length = function.sub(stop, start)
    middle_register = function.add(start, function.value(f"and i64 {length}, {-width}"))
    result = blocked(function, start, middle_register, width, carry, values, whole, None)

    def single(index: Int, current: list[str]) -> Sequence[str]:
        return body(index, 1, tail_mask(lanes, index, stop), current)
    return function.loop(middle_register, stop, lanes.count, list(zip(carry.types, result)), single)


def constant_mask(count: int, live: int) -> str:
    return f"<{', '.join('i1 true' if lane < live else 'i1 false' for lane in range(count))}>"


def tail_mask(lanes: Lanes, index: Int, stop: Int) -> str:
    """The lanes below `stop`.  What is left is short, so 32-bit lane numbers do."""
    left = lanes.function.value(f"trunc i64 {lanes.function.sub(stop, index)} to i32")
    return lanes.value(f"icmp slt {lanes.vector('i32')} {lane_numbers(lanes, 'i32', 1)}, {splat_kind(lanes, 'i32', left)}")


def lane_numbers(lanes: Lanes, kind: str, stride: Int) -> str:
    """0, stride, 2*stride, .. in an integer kind."""
    if lanes.count == 1:
        return "0"
    if isinstance(stride, int):
        return f"<{', '.join(f'{kind} {lane * stride}' for lane in range(lanes.count))}>"
    return lanes.binary("mul", kind, lane_numbers(lanes, kind, 1), splat_kind(lanes, kind, stride))


def splat_kind(lanes: Lanes, kind: str, scalar: Int) -> str:
    """A scalar of an LLVM kind in every lane."""
    if isinstance(scalar, int):
        return lanes.literal(kind, scalar)
    if lanes.count == 1:
        return scalar
    one = lanes.value(f"insertelement {lanes.vector(kind)} poison, {kind} {scalar}, i64 0")
    return lanes.value(f"shufflevector {lanes.vector(kind)} {one}, {lanes.vector(kind)} poison, "
                       f"<{lanes.count} x i32> zeroinitializer")
