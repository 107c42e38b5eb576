"""Reductions: what each monoid starts from, how an element joins, how two accumulators combine, how lanes fold.

The state of one reduction is a list of registers: `width` accumulators, and for argmax and argmin as many indices.

    add 0   mul 1   max -inf   min +inf   any false   all true       (the least and greatest numbers for integers)

Invariants: max and min give NaN where there is one; fastmax may drop it.  argmax and argmin take the first NaN, else
the first of equal elements, as NumPy does.  A sum of no elements is +0, a sum of negative zeros stays -0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.errors import Unsupported

from .shuffles import rotated
from .text import Int
from .vectors import FLOATS, REGISTER, SIGNED, Lanes, kind_bits

INDEXED = {"argmax": "max", "argmin": "min"}


@dataclass(frozen=True)
class Reduction:
    """One reduction of a pass: operation number, monoid and dtype; indices are narrow where the axes are short."""

    op: int
    monoid: str
    dtype: str
    index: str = "i64"
    in_order: bool = True  # later elements have greater indices

    @property
    def no_index(self) -> int:
        """Greater than every index."""
        return (1 << kind_bits(self.index) - 1) - 1

    @property
    def is_indexed(self) -> bool:
        return self.monoid in INDEXED

    @property
    def is_float_sum(self) -> bool:
        return self.monoid == "add" and self.dtype in FLOATS


def neutral(monoid: str, dtype: str) -> float | int:
    """The number that changes nothing; -0 for sums of floats, because -0 + x is x for every x."""
    name = INDEXED.get(monoid, monoid)
    if name == "add":
        return -0.0 if dtype in FLOATS else 0
    if name in ("mul", "all", "any"):
        return 0 if name == "any" else 1
    sign = 1 if name == "min" else -1
    if dtype in FLOATS:
        return sign * float("inf")
    if dtype == "bool":
        return int(sign > 0)
    bits = kind_bits(REGISTER[dtype])
    if dtype in SIGNED:
        return (1 << bits - 1) - 1 if sign > 0 else -(1 << bits - 1)
    return (1 << bits) - 1 if sign > 0 else 0


def start(lanes: Lanes, reductions: Sequence[Reduction], width: int) -> list[str]:
    state: list[str] = []
    for r in reductions:
        state += [lanes.constant(r.dtype, neutral(r.monoid, r.dtype))] * width
        if r.is_indexed:
            state += [lanes.literal(r.index, r.no_index)] * width
    return state


def types(lanes: Lanes, reductions: Sequence[Reduction], width: int) -> list[str]:
    result: list[str] = []
    for r in reductions:
        result += [lanes.type(r.dtype)] * width + ([lanes.vector(r.index)] * width if r.is_indexed else [])
    return result


def split(state: Sequence[str], reductions: Sequence[Reduction], width: int) -> list[tuple[list[str], list[str]]]:
    """The accumulators and the indices of each reduction."""
    result, at = [], 0
    for r in reductions:
        end = at + width
        indices = list(state[end:end + width]) if r.is_indexed else []
        result.append((list(state[at:end]), indices))
        at = end + len(indices)
    return result


# -- two elements --
def combine(lanes: Lanes, monoid: str, dtype: str, a: str, b: str) -> str:
    """Accumulator `a` and element `b` in one."""
    kind = REGISTER[dtype]
    if monoid in ("any", "all"):
        return lanes.binary("or" if monoid == "any" else "and", kind, a, b)
    if monoid in ("add", "mul"):
        if dtype == "bool":
            return lanes.binary("or" if monoid == "add" else "and", kind, a, b)
        return lanes.binary(("f" if dtype in FLOATS else "") + monoid, kind, a, b)
    if monoid not in ("max", "min", "fastmax"):
        raise Unsupported(f"reduce: no monoid {monoid!r} in code generation")
    # One instruction for floats: where a side is NaN it gives `a`, so an accumulator that is NaN stays so.
    better = lanes.select(dtype, lanes.compare(dtype, "lt" if monoid == "min" else "gt", b, a), b, a)
    if dtype in FLOATS and monoid != "fastmax":
        return lanes.select(dtype, _is_nan(lanes, dtype, b), b, better)
    return better


def _is_nan(lanes: Lanes, dtype: str, value: str) -> str:
    return lanes.value(f"fcmp uno {lanes.type(dtype)} {value}, {value}")


def _is_number(lanes: Lanes, dtype: str, value: str) -> str:
    return lanes.value(f"fcmp ord {lanes.type(dtype)} {value}, {value}")


def beats(lanes: Lanes, r: Reduction, b: str, a: str) -> str:
    """Whether a later element `b` takes the place of `a`: it is better, or the first NaN."""
    predicate = "lt" if r.monoid == "argmin" else "gt"
    if r.dtype not in FLOATS:
        return lanes.compare(r.dtype, predicate, b, a)
    better = lanes.value(f"fcmp u{predicate} {lanes.type(r.dtype)} {b}, {a}")
    return lanes.binary("and", "i1", better, _is_number(lanes, r.dtype, a))


def combine_pairs(lanes: Lanes, r: Reduction, a: tuple[str, str], b: tuple[str, str]) -> tuple[str, str]:
    """Two (value, index) pairs in no order in one."""
    wins = _wins(lanes, r, a, b)
    return lanes.select(r.dtype, wins, b[0], a[0]), lanes.pick(r.index, wins, b[1], a[1])


def _takes_over(lanes: Lanes, r: Reduction, a: tuple[str, str], b: tuple[str, str]) -> str:
    return beats(lanes, r, b[0], a[0]) if r.in_order else _wins(lanes, r, a, b)


def _wins(lanes: Lanes, r: Reduction, a: tuple[str, str], b: tuple[str, str]) -> str:
    """Whether `b` is to replace `a`, in whatever order they came: equal values, or two NaN, go to the smaller index."""
    same = lanes.compare(r.dtype, "eq", a[0], b[0])
    if r.dtype in FLOATS:
        both = lanes.binary("and", "i1", _is_nan(lanes, r.dtype, a[0]), _is_nan(lanes, r.dtype, b[0]))
        same = lanes.binary("or", "i1", same, both)
    earlier = lanes.value(f"icmp slt {lanes.vector(r.index)} {b[1]}, {a[1]}")
    return lanes.binary("or", "i1", beats(lanes, r, b[0], a[0]), lanes.binary("and", "i1", same, earlier))


# -- states --
def update(lanes: Lanes, r: Reduction, values: list[str], indices: list[str], elements: Sequence[str],
           positions: Sequence[str], mask: str | None) -> list[str]:
    """The new state of one reduction: element u joins accumulator u; lanes outside the mask join nothing."""
    for u, element in enumerate(elements):
        if r.is_indexed:
            wins = _takes_over(lanes, r, (values[u], indices[u]), (element, positions[u]))
            if mask is not None:
                wins = lanes.binary("and", "i1", wins, mask)
            values[u] = lanes.select(r.dtype, wins, element, values[u])
            indices[u] = lanes.pick(r.index, wins, positions[u], indices[u])
            continue
        if mask is not None:
            element = lanes.select(r.dtype, mask, element, lanes.constant(r.dtype, neutral(r.monoid, r.dtype)))
        values[u] = combine(lanes, r.monoid, r.dtype, values[u], element)
    return values + indices


def merge(lanes: Lanes, reductions: Sequence[Reduction], width: int, a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Two states in one."""
    result: list[str] = []
    for r, (x, i), (y, j) in zip(reductions, split(a, reductions, width), split(b, reductions, width), strict=True):
        if r.is_indexed:
            pairs = [combine_pairs(lanes, r, (x[u], i[u]), (y[u], j[u])) for u in range(width)]
            result += [value for value, _ in pairs] + [index for _, index in pairs]
        else:
            result += [combine(lanes, r.monoid, r.dtype, x[u], y[u]) for u in range(width)]
    return result


# -- the end --
def finish(lanes: Lanes, r: Reduction, values: list[str], indices: list[str], *, fold_steps: bool,
           fold_lanes: bool, is_empty: Int) -> tuple[list[str], list[str]]:
    """The results, one per step (one in all where the steps are folded), equal in all lanes where those are folded.

    `is_empty` is an i1 register, or 1 or 0 where it is known.
    """
    pairs = list(zip(values, indices or [""] * len(values), strict=True))
    while fold_steps and len(pairs) > 1:
        pairs = [_join(lanes, r, *pairs[k:k + 2]) if k + 1 < len(pairs) else pairs[k] for k in range(0, len(pairs), 2)]
    distance = lanes.count // 2
    while fold_lanes and distance:
        pairs = [_join(lanes, r, pair, _rotated(lanes, r, pair, distance)) for pair in pairs]
        distance //= 2
    results = [_with_empty(lanes, r, value, is_empty) for value, _ in pairs]
    if not r.is_indexed:
        return results, []
    return results, [_found(lanes, r, index) for _, index in pairs]


def _found(lanes: Lanes, r: Reduction, index: str) -> str:
    """The index as int64.  Where no element beat the start all are -inf (or +inf), and the first is the answer."""
    is_none = lanes.value(f"icmp eq {lanes.vector(r.index)} {index}, {lanes.literal(r.index, r.no_index)}")
    return lanes.convert("zext", r.index, lanes.pick(r.index, is_none, lanes.literal(r.index, 0), index), "i64")


def _join(lanes: Lanes, r: Reduction, a: tuple[str, str], b: tuple[str, str]) -> tuple[str, str]:
    if r.is_indexed:
        return combine_pairs(lanes, r, a, b)
    return combine(lanes, r.monoid, r.dtype, a[0], b[0]), ""


def _rotated(lanes: Lanes, r: Reduction, pair: tuple[str, str], distance: int) -> tuple[str, str]:
    index = rotated(lanes, r.index, pair[1], distance) if r.is_indexed else ""
    return rotated(lanes, REGISTER[r.dtype], pair[0], distance), index


def _with_empty(lanes: Lanes, r: Reduction, value: str, is_empty: Int) -> str:
    """A sum of nothing is +0, where its accumulator started from -0."""
    if not r.is_float_sum or is_empty == 0:
        return value
    zero = lanes.constant(r.dtype, 0.0)
    if is_empty == 1:
        return zero
    return lanes.value(f"select i1 {is_empty}, {lanes.type(r.dtype)} {zero}, {lanes.type(r.dtype)} {value}")
