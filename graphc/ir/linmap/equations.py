"""Two views of one target make an equation between their sources, `sum(stride * source) + base = 0`.

It is solved by levels: where the largest stride S exceeds what all smaller ones can add up to, the part at S and the
rest are zero each.  A level ties at most two atoms, `a = offset +- b`: they are identified, one is a slice of the
other, or both are slices of a new atom (the overlap).  A slice against a pad, a split against a join, a flip against
a flip cancel this way.  An atom that spans a level is split at it.  What is not solved stays, which is right too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..dims import Dim, exact_quotient, known_equal, maximum, minimum, sign
from .network import Network, merged_strides
from .term import Size, Stride, View


class Tie(NamedTuple):
    """sum(sign * atom) + constant = 0, over one or two atoms."""

    items: tuple[tuple[int, int], ...]
    constant: Size


class Step(NamedTuple):
    """What a tie means: views to add over a fresh atom of that size (0: none), or a pair of atoms to identify."""

    views: tuple[View, ...] = ()
    same: tuple[int, int] | None = None
    overlap: Size = 0


FRESH = -1  # stands for the fresh atom in the views of a Step


def solve(net: Network) -> str:
    """"done" if one pair of views was replaced, "zero" if two exclude each other, "none" where nothing is known."""
    by_target: dict[int, list[View]] = {}
    for view in net.views:
        by_target.setdefault(view.target, []).append(view)
    for views in by_target.values():
        for k, first in enumerate(views):
            for second in views[k + 1:]:
                verdict = equate(net, first, second)
                if verdict != "none":
                    return verdict
    return "none"


def equate(net: Network, first: View, second: View) -> str:
    """Solves first = second; on success `second` is gone and the sources are tied directly."""
    if first.index is not None or second.index is not None:
        if first.key != second.key:
            return "none"
        net.views = [v for v in net.views if v is not second]
        return "done"
    strides = merged_strides((*first.strides, *((a, -s) for a, s in second.strides)))
    ties = levels(net, strides, first.base - second.base)
    if isinstance(ties, str):
        return ties
    steps = [meaning(tie, net) for tie in ties]
    if "zero" in steps:
        return "zero"
    if any(isinstance(step, str) for step in steps):
        return "none"
    net.views = [v for v in net.views if v is not second]
    for step in steps:
        assert isinstance(step, Step)
        carry_out(net, step)
    net.rewire()
    return "done"


def carry_out(net: Network, step: Step) -> None:
    if step.same is not None:
        net.parts[step.same[1]] = (step.same[0],)
        return
    has_fresh = any(FRESH in view.sources for view in step.views)
    atom = net.fresh(step.overlap) if has_fresh else FRESH
    net.views += [View(v.target, v.base, tuple((atom if a == FRESH else a, s) for a, s in v.strides))
                  for v in step.views]


def at_most(a: Size, b: Size) -> bool:
    """Whether a <= b is known."""
    return sign(b - a) == 1


def levels(net: Network, strides: Sequence[Stride], base: Size) -> list[Tie] | str:
    """The equation cut into ties, from the largest stride down; "done" if an atom was split instead."""
    left = [(a, s) for a, s in strides if not (isinstance(s, int) and s == 0)]
    ties: list[Tie] = []
    while left:
        top = largest(left)
        if top is None:
            return "none"
        items = tuple((a, 1 if s == top else -1) for a, s in left if s == top or s == -top)
        left = [(a, s) for a, s in left if not (s == top or s == -top)]
        cut = divided(base, top, span(net, left))
        if cut is None:
            return split_at(net, left, top)
        if len(items) > 2:
            return "none"
        ties.append(Tie(items, cut[0]))
        base = cut[1]
    gap = known_equal(base, 0)
    return ties if gap else "zero" if gap is False else "none"


def largest(strides: Sequence[Stride]) -> Size | None:
    """The size of the stride that is known to be the largest."""
    found: list[Size] = []
    for _, stride in strides:
        direction = sign(stride)
        if direction is None:
            return None
        found.append(stride if direction == 1 else -stride)
    return next((a for a in found if all(at_most(b, a) for b in found)), None)


def span(net: Network, strides: Sequence[Stride]) -> tuple[Size, Size]:
    """The least and the greatest value of sum(stride * atom)."""
    low: Size = 0
    high: Size = 0
    for atom, stride in strides:
        reach = stride * (net.sizes[atom] - 1)
        if sign(stride) == 1:
            high = high + reach
        else:
            low = low + reach
    return low, high


def divided(base: Size, top: Size, reach: tuple[Size, Size]) -> tuple[Size, Size] | None:
    """base = q*top + r such that r and everything below the level stay within (-top, top)."""
    candidates: list[Size] = [0]
    if isinstance(base, int) and isinstance(top, int):
        candidates = [base // top, base // top + 1]
    elif (exact := exact_quotient(base, top)) is not None:
        candidates.append(exact)
    for q in candidates:
        rest = base - q * top
        if at_most(1 - top, rest + reach[0]) and at_most(rest + reach[1], top - 1):
            return q, rest
    return None


def split_at(net: Network, strides: Sequence[Stride], top: Size) -> str:
    """Splits an atom that spans the level: "done", or "none" where there is none."""
    for atom, stride in strides:
        step = stride if sign(stride) == 1 else -stride
        inner = exact_quotient(top, step)
        outer = exact_quotient(net.sizes[atom], inner) if inner is not None and inner != 0 else None
        if outer is not None and inner is not None and outer not in (0, 1) and inner != 1:
            net.split(atom, (outer, inner))
            return "done"
    return "none"


def meaning(tie: Tie, net: Network) -> Step | str:
    if len(tie.items) == 1:
        (atom, direction), = tie.items
        return fixed(atom, -tie.constant * direction, net.sizes[atom])
    (a, s), (b, t) = tie.items
    return tied(a, b, -tie.constant * s, -s * t, net)


def fixed(atom: int, value: Size, size: Size) -> Step | str:
    """atom = value."""
    if at_most(0, value) and at_most(value, size - 1):
        return Step((View(atom, value),))
    return "zero" if at_most(value, -1) or at_most(size, value) else "none"


def tied(a: int, b: int, offset: Size, direction: int, net: Network) -> Step | str:
    """a = offset + direction * b, on the range of b where a is in range too."""
    m, n = net.sizes[a], net.sizes[b]
    low = maximum(0, -offset if direction == 1 else offset - m + 1)
    high = minimum(n, m - offset if direction == 1 else offset + 1)
    length = high - low
    if at_most(length, 0):
        return "zero"
    if not at_most(0, length) or any(isinstance(s, Dim) and sign(s) is None for s in (low, high)):
        return "none"
    if known_equal(length, n):
        if known_equal(length, m) and direction == 1:
            return Step(same=(a, b))
        return Step((View(a, offset, ((b, direction),)),))
    if known_equal(length, m):
        return Step((View(b, -offset * direction, ((a, direction),)),))
    if length == 1:
        return Step((View(b, low), View(a, offset + direction * low)))
    return Step((View(b, low, ((FRESH, 1),)), View(a, offset + direction * low, ((FRESH, direction),))), overlap=length)
