"""Moves between lanes: splats, lane numbers, masks, and the shuffles that turn, thin out and transpose vectors.

`kind` is an LLVM element kind such as `float` or `i1`; every result has the lanes of the `Lanes` it is written with.
"""

from __future__ import annotations

from collections.abc import Sequence

from .text import Int
from .vectors import Lanes, kind_bits

PART = 128  # bits within which one instruction interleaves


def shuffle(lanes: Lanes, kind: str, a: str, b: str, order: Sequence[int]) -> str:
    """Lane i of the result is element order[i] of a and b put together."""
    vector = lanes.vector(kind)
    indices = ", ".join(f"i32 {i}" for i in order)
    return lanes.value(f"shufflevector {vector} {a}, {vector} {b}, <{lanes.count} x i32> <{indices}>")


def splat_kind(lanes: Lanes, kind: str, scalar: Int) -> str:
    """A scalar in every lane."""
    if isinstance(scalar, int):
        return lanes.literal(kind, scalar)
    if lanes.count == 1:
        return scalar
    one = lanes.value(f"insertelement {lanes.vector(kind)} poison, {kind} {scalar}, i64 0")
    return shuffle(lanes, kind, one, "poison", [0] * lanes.count)


def lane_numbers(lanes: Lanes, kind: str, stride: Int) -> str:
    """0, stride, 2*stride, .. in an integer kind."""
    if lanes.count == 1:
        return "0"
    if isinstance(stride, int):
        return f"<{', '.join(f'{kind} {lane * stride}' for lane in range(lanes.count))}>"
    return lanes.binary("mul", kind, lane_numbers(lanes, kind, 1), splat_kind(lanes, kind, stride))


def constant_mask(count: int, live: int) -> str:
    return f"<{', '.join('i1 true' if lane < live else 'i1 false' for lane in range(count))}>"


def tail_mask(lanes: Lanes, index: Int, stop: Int) -> str:
    """The lanes below `stop`.  What is left is short, so 32-bit lane numbers do."""
    left = lanes.function.value(f"trunc i64 {lanes.function.sub(stop, index)} to i32")
    numbers, limit = lane_numbers(lanes, "i32", 1), splat_kind(lanes, "i32", left)
    return lanes.value(f"icmp slt {lanes.vector('i32')} {numbers}, {limit}")


def reversed_lanes(lanes: Lanes, kind: str, value: str) -> str:
    return shuffle(lanes, kind, value, "poison", range(lanes.count - 1, -1, -1))


def rotated(lanes: Lanes, kind: str, value: str, distance: int) -> str:
    """Lane i of the result is lane i + distance, going round."""
    return shuffle(lanes, kind, value, "poison", [(lane + distance) % lanes.count for lane in range(lanes.count)])


def every_nth(lanes: Lanes, kind: str, pieces: Sequence[str], starts: Sequence[int], stride: int) -> str:
    """Elements 0, stride, 2*stride, .. of memory of which piece k holds a vector from element starts[k] on."""
    count, result, done = lanes.count, pieces[0], starts[0] + lanes.count
    for k, (start, piece) in enumerate(zip(starts[1:], pieces[1:], strict=True)):
        order = []
        for lane in range(count):
            wanted = lane * stride
            if wanted < done:
                order.append(wanted if k == 0 else lane)
            else:
                order.append(count + wanted - start if wanted < start + count else 0)
        result = shuffle(lanes, kind, result, piece, order)
        done = start + count
    return result


def transposed(lanes: Lanes, kind: str, rows: Sequence[str]) -> list[str]:
    """As many rows as lanes become columns, by log2(count) rounds of two-input shuffles.

    Rows are interleaved within parts of 128 bits, then the parts are sorted into even and odd ones: each is one
    instruction.  What an interleaving takes from the upper half of its part goes to the row with the greater number, so
    the columns of a part come in the order of their reversed bits.
    """
    count, distance, current = lanes.count, 1, list(rows)
    part = min(count, PART // kind_bits(kind))
    while distance < count:
        halves = _interleavings(count, part, distance) if distance < part else _partings(count, part)
        following = list(current)
        for i in range(count):
            if not i & distance:
                for k, order in enumerate(halves):
                    following[i + k * distance] = shuffle(lanes, kind, current[i], current[i + distance], order)
        current, distance = following, distance * 2
    bits = part.bit_length() - 1
    columns = [r // part * part + sum((r >> k & 1) << bits - 1 - k for k in range(bits)) for r in range(count)]
    return [register for _, register in sorted(zip(columns, current, strict=True))]


def _interleavings(count: int, part: int, group: int) -> list[list[int]]:
    """Groups of elements of two rows in turn, from the lower halves of their parts and from the upper ones."""
    return [[source + first + k for base in range(half, count, part) for first in range(base, base + part // 2, group)
             for source in (0, count) for k in range(group)] for half in (0, part // 2)]


def _partings(count: int, part: int) -> list[list[int]]:
    """The even parts of two rows, and the odd ones."""
    return [[source + base + k for source in (0, count) for base in range(odd, count, 2 * part) for k in range(part)]
            for odd in (0, part)]
