"""The Jacobian that an elimination order makes, in expressions, and the search for an order by what it really takes.

    accumulate(linear, order)    ->    matrix[row][column], values of `linear.expressions`

Orders of equal cost in products differ in what common subexpressions, signs and constants leave of them.  So the last
choice counts operations of the function and its Jacobian together, on the expressions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math
import random

from .expressions import ONE
from .graph import Order, cost_of, members
from .linearise import Linear
from .search import moved

Matrix = list[list[int]]
Wanted = Callable[[int, int], bool]  # whether entry (row, column) is asked for
WORK = 800_000  # products and operations of tried orders that count as a second
COOLING = (1.5, 0.2)


def everything(row: int, column: int) -> bool:
    return True


def accumulate(linear: Linear, order: Sequence[int]) -> Matrix:
    """All labels after the elimination, laid out as the Jacobian."""
    mul, add = linear.expressions.mul, linear.expressions.add
    dag = linear.dag
    labels = [row.copy() for row in linear.kept]
    succs = list(dag.succs)
    outputs = dag.outputs
    for v in order:
        own = labels[v]
        after = succs[v]
        for j in members(after):
            target = labels[j]
            outer = target.pop(v, 0)
            if not outer:
                continue
            for i, inner in own.items():
                old = target.get(i)
                new = inner if outer == ONE else outer if inner == ONE else mul(outer, inner)
                target[i] = new if old is None else add(old, new)
        bit = 1 << v
        stays = outputs >> v & 1
        for i in own:
            succs[i] = succs[i] | after if stays else (succs[i] | after) & ~bit
        if not stays:
            labels[v] = {}
    one = linear.expressions.constant(1.0)
    return [[0 if row is None else one if row == column else labels[row].get(column, 0) for column in linear.columns]
            for row in linear.rows]


def operations(linear: Linear, order: Sequence[int], wanted: Wanted = everything) -> int:
    """The operations of the function and its Jacobian together."""
    found = entries(accumulate(linear, order), wanted)
    return linear.expressions.count([*linear.values, *found]) + linear.expressions.signs(found)


def entries(matrix: Matrix, wanted: Wanted) -> list[int]:
    return [value for k, row in enumerate(matrix) for c, value in enumerate(row) if wanted(k, c)]


def improved(linear: Linear, costs: dict[Order, int], budget: float, wanted: Wanted = everything, seed: int = 0
             ) -> tuple[Order, int]:
    """The best of the orders, whose operations are known, improved by moves as long as the budget allows."""
    noise = random.Random(seed)
    order = best = min(costs, key=costs.__getitem__)
    cost = best_cost = costs[order]
    trials = int(budget * WORK / (cost + cost_of(linear.dag, order) + 1)) if len(order) > 1 else 0
    hot, cold = COOLING
    for trial in range(trials):
        low, stretch = moved(order, noise)
        new = (*order[:low], *stretch, *order[low + len(stretch):])
        found = operations(linear, new, wanted)
        heat = hot * (cold / hot) ** (trial / trials)
        if found <= cost - heat * math.log(1.0 - noise.random()):
            order, cost = new, found
            if cost < best_cost:
                best, best_cost = order, cost
    return best, best_cost
