"""Elimination orders found by search on forms: greedy rules, exact dynamic programming, restarts at bottlenecks.

    folded       vertices between two diagonals, or next to a pure relabelling: eliminated first, it is never dearer
    greedy       the vertex that a rule prefers, again and again (Markowitz, fill-aware, lowest relative Markowitz)
    subset_dp    the cheapest order of few vertices: what is left after eliminating a set does not depend on the order
    restarted    all others descending, bottlenecks last: many inputs behind one share what leads out of it
    improved     seeded local search around an order, for so many steps: the same for the same graph on every machine
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import random

from graphc.ir.linmap import LinMap, Term
from graphc.ir.linmap.contract import estimate

from .elimination import Walk
from .forms import Bill, Form, Forms, size_of
from .tensor import Linear

Rule = Callable[["Prices", int], "tuple[float, ...]"]


class Prices:
    """What the elimination of every vertex of a walk would cost now, remembered until a neighbour is eliminated."""

    def __init__(self, forms: Forms, linear: Linear[Form]) -> None:
        self.forms, self.linear = forms, linear
        self.bill = Bill(forms, linear)
        self.walk: Walk[Form] = Walk(linear, self.bill)
        self.known: dict[int, tuple[int, int]] = {}

    def of(self, v: int) -> tuple[int, int]:
        """(multiplications, growth of what the edges hold)."""
        if v not in self.known:
            scratch = Bill(self.forms, self.linear)
            made = self.walk.products(v, scratch)
            grown = sum(weight(self.forms, form) for _, form in made)
            gone = sum(weight(self.forms, form) for held in (*self.walk.preds.get(v, {}).values(),
                                                             *self.walk.succs.get(v, {}).values())
                       for form in held.pieces)
            self.known[v] = scratch.cost, grown - gone
        return self.known[v]

    def eliminate(self, v: int) -> None:
        touched = self.walk.neighbours(v)
        self.walk.eliminate(v)
        for u in (v, *touched):
            self.known.pop(u, None)


def weight(forms: Forms, form: Form) -> int:
    """Elements of a map's factors."""
    return sum(estimate(node.type.size) for node in forms.kinds[form.kind].nodes)


# -- folding --
def folded(forms: Forms, linear: Linear[Form]) -> tuple[int, ...]:
    """Vertices that are safe to eliminate first, in that order."""
    prices = Prices(forms, linear)
    order: list[int] = []
    for v in linear.inner:
        if is_safe(prices, v):
            prices.eliminate(v)
            order.append(v)
    return tuple(order)


def is_safe(prices: Prices, v: int) -> bool:
    """One way in and one way out, both diagonal or one of them a relabelling."""
    ins, outs = prices.walk.preds.get(v, {}), prices.walk.succs.get(v, {})
    if len(ins) != 1 or len(outs) != 1:
        return False
    (inn,), (out,) = ins.values(), outs.values()
    if len(inn.pieces) > 1 or len(out.pieces) > 1:
        return False
    first, second = (prices.forms.map(held.pieces[0]) for held in (inn, out))
    if any(is_relabelling(m) for m in (first, second)):
        return prices.of(v)[0] == 0
    return is_diagonal(first) and is_diagonal(second)


def is_diagonal(m: LinMap) -> bool:
    return len(m) == 1 and isinstance(m[0], Term) and m[0].is_diagonal


def is_relabelling(m: LinMap) -> bool:
    """Whether a map only renames elements and multiplies them by a number."""
    return (len(m) == 1 and isinstance(m[0], Term) and not m[0].factors and not m[0].views
            and sorted(m[0].out) == sorted(m[0].inn) and len(set(m[0].out)) == len(m[0].out))


# -- greedy --
def markowitz(prices: Prices, v: int) -> tuple[float, ...]:
    cost, growth = prices.of(v)
    return cost, growth, -v


def fill_aware(prices: Prices, v: int) -> tuple[float, ...]:
    cost, growth = prices.of(v)
    return cost + 0.5 * growth, -v


def shrinking(prices: Prices, v: int) -> tuple[float, ...]:
    """The least growth first."""
    cost, growth = prices.of(v)
    return growth, cost, -v


def relative(prices: Prices, v: int) -> tuple[float, ...]:
    """Lowest relative Markowitz: less what the vertex is worth to the ends that it connects."""
    cost, _ = prices.of(v)
    return cost / max(1, size_of(prices.linear, v)), -v


RULES: dict[str, Rule] = {"markowitz": markowitz, "fill-aware": fill_aware, "shrinking": shrinking,
                          "relative markowitz": relative}


def greedy(forms: Forms, linear: Linear[Form], first: Sequence[int], rule: Rule) -> tuple[int, ...]:
    """`first`, then always the vertex for which the rule gives the least."""
    prices = Prices(forms, linear)
    for v in first:
        prices.eliminate(v)
    free = [v for v in linear.inner if v not in set(first)]
    keys = {v: rule(prices, v) for v in free}
    order = list(first)
    while keys:
        v = min(keys, key=keys.__getitem__)
        del keys[v]
        touched = prices.walk.neighbours(v)
        prices.eliminate(v)
        order.append(v)
        keys.update({u: rule(prices, u) for u in touched if u in keys})
    return tuple(order)


# -- exact --
def subset_dp(forms: Forms, linear: Linear[Form], first: Sequence[int]) -> tuple[int, ...]:
    """f(S + v) = min f(S) + price of v after S, over all sets S of the free vertices."""
    start: Walk[Form] = Walk(linear, Bill(forms, linear))
    start.run(first)
    free = [v for v in linear.inner if v not in set(first)]
    layer: dict[int, tuple[int, tuple[int, ...], Walk[Form]]] = {0: (0, tuple(first), start)}
    for _ in free:
        best: dict[int, tuple[int, int, int]] = {}  # set: cost, the set before, the vertex
        for done in sorted(layer):
            cost, _, walk = layer[done]
            for k, v in enumerate(free):
                if not done >> k & 1:
                    scratch = Bill(forms, linear)
                    walk.products(v, scratch)
                    entry = cost + scratch.cost, done, k
                    best[done | 1 << k] = min(best.get(done | 1 << k, entry), entry)
        layer = {after: taken(layer[done], free[k], cost, forms, linear) for after, (cost, done, k) in best.items()}
    (_, order, _), = layer.values()
    return order


def taken(state: tuple[int, tuple[int, ...], Walk[Form]], v: int, cost: int, forms: Forms,
          linear: Linear[Form]) -> tuple[int, tuple[int, ...], Walk[Form]]:
    _, order, walk = state
    walk = walk.copy(Bill(forms, linear))
    walk.eliminate(v)
    return cost, (*order, v), walk


# -- restarts --
def bottlenecks(linear: Linear[Form], most: int) -> list[int]:
    """Inner vertices with fewer elements than all sinks or all sources together, the smallest first."""
    out = sum(size_of(linear, v) for v in sorted({v for v in linear.sinks if v is not None}))
    inn = sum(size_of(linear, v) for v in sorted({v for v in linear.sources if v is not None}))
    small = [v for v in linear.inner if size_of(linear, v) < min(out, inn)]
    return sorted(small, key=lambda v: (size_of(linear, v), -v))[:most]


def restarted(inner: Sequence[int], cuts: Iterable[int]) -> tuple[int, ...]:
    """Reverse mode to and from the cuts, which are joined last, from the sinks back."""
    last = sorted(set(cuts), reverse=True)
    return (*(v for v in reversed(inner) if v not in last), *last)


def split_at(inner: Sequence[int], cut: int) -> tuple[int, ...]:
    """Forward up to a vertex, backward down to it, and it last."""
    return (*(v for v in inner if v < cut), *(v for v in reversed(inner) if v > cut), cut)


# -- local search --
def form_price(forms: Forms, linear: Linear[Form], order: Iterable[int], limit: float = float("inf")) -> float:
    """Multiplications of an order with its finish; infinite as soon as it passes the limit."""
    bill = Bill(forms, linear)
    walk: Walk[Form] = Walk(linear, bill)
    for v in order:
        walk.eliminate(v)
        if bill.cost > limit:
            return float("inf")
    for _, edge in linear.pairs():
        form = None if edge is None else walk.edge(edge)
        if form is not None and edge is not None:
            bill.finish(form, edge)
    return bill.cost


def improved(forms: Forms, linear: Linear[Form], start: Sequence[int], first: int, work: int) -> tuple[int, ...]:
    """Descent by relocations of single vertices behind the first ones, until `work` steps are done."""
    order, chance = list(start), random.Random(len(start))
    best = form_price(forms, linear, order)
    until = forms.taken + work
    while len(order) - first > 1 and forms.taken < until:
        trial = list(order)
        v = trial.pop(chance.randrange(first, len(trial)))
        trial.insert(chance.randrange(first, len(trial) + 1), v)
        cost = form_price(forms, linear, trial, best)
        if cost <= best:
            order, best = trial, cost
    return tuple(order)
