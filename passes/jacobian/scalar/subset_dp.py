"""The best order of all, by dynamic programming over sets of eliminated vertices.

The graph that is left depends on what was eliminated, not on the order, so with before(S, v) the vertices that reach v
through S, and after(S, v) those that v reaches through S,

    best(S + v) = min over v of best(S) + |before(S, v)| * |after(S, v)|

All 2**n sets are held in NumPy arrays, indexed by the set as a binary number.  Sets that hold u come from those that
do not: in before(S + u, v), u is replaced by before(S, u).  An output that is eliminated stays as a successor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .graph import Dag, Order, members

MOST_BYTES = 1 << 28  # of one table of neighbours
WORD = 64
Table = np.ndarray[Any, Any]


def fits(dag: Dag, groups: Sequence[Order]) -> bool:
    """Whether the tables are of a bearable size: up to some 20 groups."""
    n = len(groups)
    return n <= WORD // 2 and n * words_of(dag) * 8 << n <= MOST_BYTES


def words_of(dag: Dag) -> int:
    return -(-dag.count // WORD)


def best_order(dag: Dag, groups: Sequence[Order]) -> tuple[int, Order]:
    """The fewest products, and an order that needs no more.  `groups` are vertices that are eliminated together."""
    if not fits(dag, groups):
        raise ValueError(f"{len(groups)} groups of vertices: the table of 2**{len(groups)} sets is too large")
    if not groups:
        return 0, ()
    first = [group[0] for group in groups]
    bit_of = {v: k for k, v in enumerate([*first, *(v for v in range(dag.count) if v not in set(first))])}
    cost = degrees(dag, dag.preds, groups, bit_of, stays=False).astype(np.int32)
    cost *= degrees(dag, dag.succs, groups, bit_of, stays=True)
    cost *= np.array([[len(group)] for group in groups], np.int32)
    total, last = shortest(cost)
    return total, traced(last, groups)


def degrees(dag: Dag, neighbours: Sequence[int], groups: Sequence[Order], bit_of: dict[int, int],
            stays: bool) -> Table:
    """How many vertices a group meets on one side: [group, set of eliminated groups]."""
    n, words = len(groups), words_of(dag)
    met = np.zeros((n, words, 1 << n), np.uint64)
    for k, group in enumerate(groups):
        for w, word in enumerate(in_words(neighbours[group[0]], bit_of, words)):
            met[k, w, 0] = word
    for u, group in enumerate(groups):
        half = 1 << u
        own = 0 if stays and dag.outputs >> group[0] & 1 else sum(1 << v for v in group)
        gone = [np.uint64(~word & (1 << WORD) - 1) for word in in_words(own, bit_of, words)]
        for k in range(n):
            meets = (met[k, 0, :half] >> np.uint64(u) & np.uint64(1)) != 0
            for w in range(words):
                old = met[k, w, :half]
                met[k, w, half:2 * half] = np.where(meets, old & gone[w] | met[u, w, :half], old)
    return np.asarray(np.bitwise_count(met).sum(1, dtype=np.int32))


def in_words(mask: int, bit_of: dict[int, int], words: int) -> list[int]:
    """The set in the numbering of the tables."""
    found = [0] * words
    for v in members(mask):
        found[bit_of[v] // WORD] |= 1 << bit_of[v] % WORD
    return found


def shortest(cost: Table) -> tuple[int, Table]:
    """The least cost of eliminating everything, and for each set the group that goes last."""
    n = len(cost)
    sets = np.arange(1 << n, dtype=np.int64)
    sizes = np.bitwise_count(sets)
    best = np.full(1 << n, np.iinfo(np.int32).max, np.int64)
    best[0] = 0
    last = np.zeros(1 << n, np.uint8)
    for size in range(n):
        layer = sets[sizes == size]
        for k in range(n):
            source = layer[layer >> k & 1 == 0]
            target = source | 1 << k
            found = best[source] + cost[k, source]
            better = found < best[target]
            best[target[better]] = found[better]
            last[target[better]] = k
    return int(best[-1]), last


def traced(last: Table, groups: Sequence[Order]) -> Order:
    chosen, backwards = len(last) - 1, []
    while chosen:
        k = int(last[chosen])
        backwards.append(k)
        chosen ^= 1 << k
    return tuple(v for k in reversed(backwards) for v in groups[k])
