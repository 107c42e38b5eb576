"""The best order of all, by dynamic programming over sets of eliminated vertices.

The graph that is left depends on what was eliminated, not on the order, so with before(S, v) the vertices that reach v
through S, and after(S, v) those that v reaches through S,

    best(S + v) = min over v of best(S) + |before(S, v)| * |after(S, v)|

All 2**n sets are held in NumPy arrays, indexed by the set as a binary number.  Sets that hold u come from those that
do not: before(S + u, v) is before(S, v), in which u is replaced by before(S, u).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .graph import Dag, Order, members

MOST_GROUPS = 20  # 2**20 sets take some 250 MB and two seconds
WORD = 64
Words = np.ndarray[Any, Any]


def best_order(dag: Dag, groups: Sequence[Order]) -> tuple[int, Order]:
    """The fewest products, and an order that needs no more.  `groups` are vertices that are eliminated together."""
    count = len(groups)
    if count > MOST_GROUPS:
        raise ValueError(f"{count} groups of vertices: the table of 2**{count} sets is too large")
    if not count:
        return 0, ()
    place = numbering(dag, groups)
    inside = [v for v in dag.free if v not in {group[0] for group in groups}]
    before = reached(dag.preds, groups, place, weights(dag, inside, groups, place, "before"))
    cost = before.astype(np.int32)
    del before
    cost *= reached(dag.succs, groups, place, weights(dag, inside, groups, place, "after"))
    for k, group in enumerate(groups):
        cost[k] *= len(group)
    best, last = shortest(cost, count)
    order: list[int] = []
    chosen = (1 << count) - 1
    while chosen:
        k = int(last[chosen])
        order.extend(reversed(groups[k]))
        chosen ^= 1 << k
    return int(best[-1]), tuple(reversed(order))


def numbering(dag: Dag, groups: Sequence[Order]) -> dict[int, int]:
    """Where a vertex lies in the words: the groups first, by their first vertex, then all others."""
    first = [group[0] for group in groups]
    rest = [v for v in range(dag.count) if v not in set(first)]
    return {v: k for k, v in enumerate([*first, *rest])}


def weights(dag: Dag, inside: Sequence[int], groups: Sequence[Order], place: dict[int, int], side: str) -> list[int]:
    """How many vertices a bit stands for: a group's first vertex for its twins, which stand for none themselves.

    An eliminated output still counts as a successor of what comes before it.
    """
    size = {group[0]: len(group) for group in groups}
    found = [0] * dag.count
    for v, k in place.items():
        found[k] = 0 if v in inside else size.get(v, 1)
    return found


def reached(neighbours: Sequence[int], groups: Sequence[Order], place: dict[int, int], counts: Sequence[int]) -> Words:
    """How many vertices each group meets on one side, for each set of eliminated groups: [group, set]."""
    n = len(groups)
    found = np.zeros((n, 1 << n), np.int32)
    for start in range(0, len(counts), WORD):
        found += word_counts(neighbours, groups, place, counts, start)
    return found


def word_counts(neighbours: Sequence[int], groups: Sequence[Order], place: dict[int, int], counts: Sequence[int],
                start: int) -> Words:
    """The part of `reached` that lies in one word of vertices."""
    raise NotImplementedError
