"""The scalar engine as one call: what a Jacobian costs as straight-line scalar code, and its nodes.

    found = scalar_candidate(ys, xs, budget=1.0)
    found.cost         operations of the ys and their Jacobian together, after common subexpressions
    found.published    products of this order in the model in which every product counts
    found.fewest       the fewest such products of any order that was found of the graph as it is
    found.order        the elimination order: numbers of vertices of `found.linear.dag`
    found.build()      rows[y][x], nodes of shape y.shape + x.shape

The ys and xs are scalars, or a batch of them (all nodes elementwise, of one shape), or small static tensors that can be
taken apart (`expand`); anything else gives None.  Orders are searched in both models of cost, on the graph as it is and
with its quotients split; the best of them, forward and reverse among them, are improved and compared by the operations
that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.ir import build
from graphc.ir.dims import Dim
from graphc.ir.node import Node, located

from ...elements import Elements
from .accumulate import Wanted, accumulate, entries, everything, improved, operations
from .build import cost_of_nodes, nodes_of
from .expand import Expanded, assembled, elements, expand
from .factors import factored
from .graph import Order, cost_of
from .heuristics import forward, reverse
from .linearise import Linear, linearise
from .quotients import with_quotients
from .search import plans

PRODUCTS_SHARE, OPERATIONS_SHARE, LAST_SHARE = 0.35, 0.25, 0.2  # of the budget; the last one twice, for two seeds
KEPT = 4  # orders that are improved
WALKS = 2


@dataclass(frozen=True)
class ScalarCandidate:
    """A Jacobian as scalar code.  `proven` says that no order takes fewer products than `fewest`; the order that leaves
    fewest operations may take more.  `expanded` is None where the ys and xs are scalars already."""

    linear: Linear
    order: Order
    entries: tuple[tuple[int, int], ...]  # (row, column) of what is computed
    values: tuple[int, ...]  # their values, in expressions
    cost: int | Dim
    published: int
    fewest: int
    proven: bool
    symmetric: bool
    shapes: tuple[list[Node], list[Node]]
    expanded: Expanded | None

    def matrix(self) -> list[list[Node]]:
        """The derivatives of the scalars, by row and column."""
        linear = self.linear
        like = linear.ys[0]
        with located(like):
            made = nodes_of(linear.expressions, self.values, linear.values, like.type, like.graph)
        known = dict(zip(self.entries, made))
        return [[known[(r, c) if (r, c) in known else (c, r)] for c in range(len(linear.columns))]
                for r in range(len(linear.rows))]

    def build(self) -> list[list[Node]]:
        """The Jacobian of every y by every x."""
        ys, xs = self.shapes
        matrix = self.matrix()
        if self.expanded is None:
            column = {x: k for k, x in enumerate(self.linear.xs)}
            return [[spread(row[column[x]]) for x in xs] for row in matrix]
        grid = np.empty((len(matrix), len(self.linear.columns)), object)
        for r, row in enumerate(matrix):
            for c, entry in enumerate(row):
                grid[r, c] = entry
        rows = np.split(grid, np.cumsum([elements(y) for y in ys])[:-1])
        starts = self.starts()
        return [[assembled(part[:, starts[x]:starts[x] + elements(x)].reshape(y.shape + x.shape), y.dtype) for x in xs]
                for y, part in zip(ys, rows)]

    def starts(self) -> dict[Node, int]:
        found: dict[Node, int] = {}
        at = 0
        for x in dict.fromkeys(self.shapes[1]):
            found[x] = at
            at += elements(x)
        return found


def spread(entry: Node) -> Node:
    """An entry of a batch on the diagonal of its axes: element i of a y depends on element i of an x only."""
    rank = entry.ndim
    return build.diagonal(entry, [(k, k + rank) for k in range(rank)]) if rank else entry


def scalar_candidate(ys: Sequence[Node], xs: Sequence[Node], budget: float = 1.0, *, symmetric: bool = False,
                     order: Sequence[int] | None = None, seed: int = 0) -> ScalarCandidate | None:
    """The best scalar code found for the Jacobian of the ys by the xs.

    `symmetric` says that the matrix of all rows and columns is (a Hessian), so that one triangle is computed.  With an
    `order` nothing is searched; the order of another candidate for an equal graph gives that candidate again.
    """
    ys, xs = list(ys), list(xs)
    linear, expanded = linearise(ys, xs), None
    if linear is None:
        expanded = expand(ys, xs)
        linear = None if expanded is None else linearise(flat(expanded.ys), flat(unique(xs, expanded.xs)))
    if linear is None or not linear.ys:
        return None
    wanted: Wanted = upper if symmetric else everything
    forms = [form for form in (linear, with_quotients(linear)) if form is not None]
    if order is None:
        searches = [searched(form, budget / len(forms), wanted, seed) for form in forms]
        tried = [(form, one) for form, (orders, _) in zip(forms, searches) for one in orders]
        fewest, proven = min(cost_of(linear.dag, one) for one in searches[0][0]), searches[0][1]
    else:
        form = next((form for form in forms if sorted(order) == list(form.dag.free)), linear)
        tried, fewest, proven = [(form, tuple(order))], cost_of(form.dag, order), False
    cost, values, chosen, linear = cheapest(tried, wanted)
    places = tuple((r, c) for r in range(len(linear.rows)) for c in range(len(linear.columns)) if wanted(r, c))
    published = cost_of(linear.dag, chosen)
    return ScalarCandidate(linear, chosen, places, values, (cost + linear.negations) * linear.ys[0].size, published,
                           fewest, proven, symmetric, (ys, xs), expanded)


def scalar_jacobian(ys: Sequence[Node], xs: Sequence[Node], order: Sequence[int]) -> list[list[Node]] | None:
    """The Jacobian as scalar code in a given elimination order, or None where it is none."""
    found = scalar_candidate(ys, xs, order=order)
    return None if found is None else found.build()


def upper(row: int, column: int) -> bool:
    return column >= row


def searched(linear: Linear, budget: float, wanted: Wanted, seed: int) -> tuple[list[Order], bool]:
    """Orders worth pricing, forward and reverse among them, and whether the first takes provably fewest products."""
    linear = replace(linear, expressions=linear.expressions.copy())
    dag = linear.dag
    by_products = plans(dag, PRODUCTS_SHARE * budget, "products", seed)
    by_operations = plans(dag, OPERATIONS_SHARE * budget, "operations", seed)
    pool = list(dict.fromkeys([*(plan.order for plan in (*by_products, *by_operations)), forward(dag), reverse(dag)]))
    costs = {order: operations(linear, order, wanted) for order in pool}
    ranked = sorted(pool, key=costs.__getitem__)[:KEPT]
    found = [improved(linear, {order: costs[order] for order in ranked}, LAST_SHARE * budget, wanted, seed + walk)[0]
             for walk in range(WALKS)]
    best = by_products[0]
    return list(dict.fromkeys([best.order, *found, *ranked, forward(dag), reverse(dag)])), best.proven


Priced = tuple[int, tuple[int, ...], Order, Linear]  # operations, the values to emit, their order and their graph


def cheapest(tried: Sequence[tuple[Linear, Order]], wanted: Wanted) -> Priced:
    """The first of those that leave fewest operations: as they came, or with common factors taken out.

    The values are of expressions of their own, so that they depend on the order alone, not on what was tried before.
    """
    best: Priced | None = None
    for linear, order in tried:
        linear = replace(linear, expressions=linear.expressions.copy())
        plain = entries(accumulate(linear, order), wanted)
        without_common = factored(linear.expressions, plain, linear.values)
        for form in [plain] if without_common == plain else [plain, without_common]:
            if best is not None and linear.expressions.count([*linear.values, *form]) >= best[0]:
                continue  # signs only add to this
            cost = cost_of_nodes(linear.expressions, form, linear.values)
            if best is None or cost < best[0]:
                best = cost, tuple(form), order, linear
    assert best is not None
    return best


def flat(parts: Sequence[Elements]) -> list[Node]:
    return [entry for part in parts for entry in part.flat]


def unique(xs: Sequence[Node], parts: Sequence[Elements]) -> list[Elements]:
    """The elements of each x once."""
    return list(dict(zip(xs, parts)).values())
