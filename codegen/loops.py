"""Loops over one axis: unrolled in place when short, blocked when they sum, in steps of vectors along the lanes.

    counted       start, start+step, ..  : a loop with phis, or the body written once per trip when that fits the budget
    blocked       in blocks of 64 trips, and 64 of those, whose sums start anew: rounding grows with their number only
    lane_loop     blocks of `steps` vectors, then single vectors, the last one under a mask

All three carry values: a `Carry` says their types, how they start and how two sets of them combine.  The order in
which a sum is made depends on the extent and on the vector length alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .shuffles import constant_mask, tail_mask
from .text import Function, Int
from .vectors import Lanes

BUDGET = 192  # weighted vector operations that a nest may have when written without loops
FEW = 4  # steps of the loop between the one with many and the one with single vectors
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
    return function.loop(start, stop, step, list(zip(carry.types, values, strict=True)), body)


def blocked(function: Function, start: Int, stop: Int, step: int, carry: Carry, values: Sequence[str], body: Body,
            cost: int | None) -> list[str]:
    """As `counted`; a long sum is cut into blocks of 64 trips, and a very long one into blocks of those."""
    merge = carry.merge
    if merge is None or not carry.is_blocked:
        return counted(function, start, stop, step, carry, values, body, cost)
    trips = (stop - start) // step if isinstance(start, int) and isinstance(stop, int) else None
    if trips is not None and trips <= 2 * CASCADE:
        return counted(function, start, stop, step, carry, values, body, cost)

    def pieces(length: int, inner: Body) -> Body:
        def block(first: Int, sums: list[str]) -> Sequence[str]:
            end = function.minimum(function.add(first, length * CASCADE), stop)
            fresh = list(zip(carry.types, carry.fresh(), strict=True))
            return merge(sums, function.loop(first, end, length, fresh, inner))
        return block
    one = pieces(step, body)
    length = step * CASCADE
    if trips is None or trips > 2 * CASCADE**2:
        one, length = pieces(length, one), length * CASCADE
    return function.loop(start, stop, length, list(zip(carry.types, values, strict=True)), one)


def lane_loop(lanes: Lanes, start: Int, stop: Int, steps: int, carry: Carry, values: Sequence[str], body: LaneBody,
              cost: int | None, *, has_rest: bool = True) -> list[str]:
    """`body(i, steps, mask, values)` takes `steps` vectors from index i on; under a mask it is one vector.

    `cost` is the weight of one vector; `has_rest` is False where the length is known to be a multiple of the blocks.
    """
    function, width = lanes.function, lanes.count * steps
    trip_cost = None if cost is None else cost * steps

    def whole(index: Int, current: list[str]) -> Sequence[str]:
        return body(index, steps, None, current)
    if isinstance(start, int) and isinstance(stop, int):
        middle = start + (stop - start) // width * width
        result = list(values)
        if middle > start:
            result = blocked(function, start, middle, width, carry, values, whole, trip_cost)
        left, rest = divmod(max(stop - middle, 0), lanes.count)
        if left:
            result = list(body(middle, left, None, result))
        if rest:
            result = list(body(stop - rest, 1, constant_mask(lanes.count, rest), result))
        return result
    if not has_rest:
        return blocked(function, start, stop, width, carry, values, whole, None)
    length = function.sub(stop, start)
    middle_register = function.add(start, function.value(f"and i64 {length}, {-width}"))
    result = blocked(function, start, middle_register, width, carry, values, whole, None)
    if steps > FEW and not carry.types:  # many steps serve wide rows; what is left of narrow ones should not go singly
        few = lanes.count * FEW
        last = function.add(middle_register, function.value(f"and i64 {function.sub(stop, middle_register)}, {-few}"))
        function.loop(middle_register, last, few, [], lambda index, current: body(index, FEW, None, current))
        middle_register = last

    def single(index: Int, current: list[str]) -> Sequence[str]:
        return body(index, 1, tail_mask(lanes, index, stop), current)
    return function.loop(middle_register, stop, lanes.count, list(zip(carry.types, result, strict=True)), single)
