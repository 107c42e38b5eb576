"""Symbolic sizes: which plans can be the cheapest somewhere, and where.

    forward   256*batch            reverse   32*batch**2           reverse where batch < 8, forward where batch >= 8

Prices are polynomials in the symbols of the sizes.  A plan that costs at least as much as another for all sizes is
dropped; each that is left has a guard, the closed-form condition under which it costs no more than any of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from graphc.ir.dims import Dim, evaluate, sign, substitute, symbols_of, to_sympy
from graphc.ir.linmap.term import Size
from graphc.ir.plan import Condition

from .candidates import Candidate


@dataclass(frozen=True)
class Alternative:
    """A plan that is the cheapest for some sizes."""

    candidate: Candidate
    multiplications: Size
    rivals: tuple[Size, ...]  # what the others cost

    @property
    def guard(self) -> Any:
        """The condition on the sizes, as a sympy expression over nonnegative integers."""
        import sympy

        own = to_sympy(self.multiplications)
        names = symbols_of(self.multiplications, *self.rivals)
        conditions = [own - to_sympy(rival) <= 0 for rival in self.rivals]
        known = [c for c in conditions if c != sympy.true]
        if len(names) == 1 and known and all(c.lhs.is_polynomial() for c in known):
            return univariate(known, names[0])
        return sympy.And(*(sympy.factor(c.lhs) <= 0 for c in known))

    def cost(self, sizes: Mapping[str, int]) -> int:
        return evaluate(self.multiplications, sizes)


def univariate(conditions: Sequence[Any], name: str) -> Any:
    """The ranges of the one symbol in which all conditions hold."""
    import sympy

    size, real = sympy.Symbol(name, integer=True, nonnegative=True), sympy.Symbol(name, real=True)
    ranges = sympy.Interval(0, sympy.oo)
    for condition in conditions:
        ranges = ranges.intersect(sympy.solveset(condition.subs(size, real), real, sympy.S.Reals))
    return sympy.simplify(ranges.as_relational(real))


def alternatives(prices: Sequence[tuple[Size, Candidate]]) -> tuple[Alternative, ...]:
    """The candidates that no other beats for all sizes; the first of equals stays."""
    left: list[tuple[Size, Candidate]] = []
    for k, (price, candidate) in enumerate(prices):
        beaten = any(is_at_most(other, price) and (j < k or not is_at_most(price, other))
                     for j, (other, _) in enumerate(prices) if j != k)
        if not beaten:
            left.append((price, candidate))
    return tuple(Alternative(c, price, tuple(other for other, rival in left if rival is not c)) for price, c in left)


MOST_TAKEN = 3  # alternatives that are built; each is code of its own
PROBES = (1, 4, 16, 64, 256, 1024, 4096, 16384)  # sizes at which it is counted which of many are the cheapest
MOST_PROBES = 3  # symbols that take all of these; further ones take one and the same


def built_alternatives(found: Sequence[Alternative]) -> tuple[tuple[Alternative, ...], tuple[Condition, ...]]:
    """Those that win most often, and where each but the last costs no more than the others."""
    names = symbols_of(*(a.multiplications for a in found))
    wins = [0] * len(found)
    for values in product(PROBES, repeat=min(len(names), MOST_PROBES)):
        sizes = {name: values[k % len(values)] for k, name in enumerate(names)}
        costs = [a.cost(sizes) for a in found]
        wins[costs.index(min(costs))] += 1
    ranked = sorted(range(len(found)), key=lambda k: -wins[k])[:MOST_TAKEN]
    kept = [found[k] for k in sorted(ranked) if wins[k]]
    return tuple(kept), tuple(condition_of(a, [b for b in kept if b is not a]) for a in kept[:-1])


def condition_of(own: Alternative, rivals: Sequence[Alternative]) -> Condition:
    """Where the alternative costs no more than these, as comparisons of sizes: those that always hold left out."""
    return tuple((rival.multiplications, own.multiplications) for rival in rivals
                 if not is_at_most(own.multiplications, rival.multiplications))


def is_at_most(a: Size, b: Size) -> bool:
    """Whether a <= b for all sizes of one or more."""
    return sign(shifted(b - a)) == 1


def shifted(size: Size) -> Size:
    """The size with every symbol s as 1 + s: axes of no elements cost nothing whatever the plan."""
    return substitute(size, {name: Dim.symbol(name) + 1 for name in symbols_of(size)})
