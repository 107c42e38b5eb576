"""Colourings of a pattern: which columns (rows) can share one seed, so that every entry can be read off the result.

    columns     no two columns of one colour have an entry in the same row: one tangent per colour
    rows        the same of the transposed pattern: one cotangent per colour
    two-sided   rows that have many entries are read from cotangents, all others from tangents (star bicolouring)
    star        of a symmetric pattern: entry (i, j) is read from row i or, as (j, i), from row j

Greedy colourings differ by the order of the vertices; several orders are tried, the best is improved by recolouring
class by class (which never needs more colours), and the search stops at the lower bound.  All is deterministic.

A colouring is an array with a colour per column or row; -1 where none is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .entries import ranges
from .pattern import Pattern, from_pairs

Array = np.ndarray[Any, Any]
Order = Sequence[int]

MOST_NEIGHBOURS = 2_000_000  # pairs of columns with a common row, up to which orders by neighbours are tried
ROUNDS = 6  # of recolouring
THRESHOLDS = 8  # numbers of entries by which rows are taken to be dense


def count(colours: Array) -> int:
    return int(colours.max(initial=-1)) + 1


# -- one side --
def column_colouring(p: Pattern) -> Array:
    """Colours of the columns: those of one colour have no row in common."""
    lower = int(p.counts.max(initial=0))
    used = p.transposed.counts > 0
    if lower == used.sum():  # a row has them all
        return np.where(used, np.cumsum(used) - 1, -1)
    groups = p.transposed.lists()
    best: list[int] | None = None
    for order in column_orders(p):
        best = fewer(best, greedy(groups, order, p.shape[0]))
        if max(best, default=-1) + 1 == lower:
            break
    assert best is not None
    return np.array(recoloured(best, groups, p.shape[0], lower), np.int64)


def row_colouring(p: Pattern) -> Array:
    return column_colouring(p.transposed)


def fewer(a: list[int] | None, b: list[int]) -> list[int]:
    return b if a is None or max(b, default=-1) < max(a, default=-1) else a


def greedy(groups: Sequence[Sequence[int]], order: Order, group_count: int) -> list[int]:
    """Each vertex in turn gets the first colour that no member of its groups has; -1 for one without groups."""
    used = [0] * group_count  # the colours of a group, as bits
    colours = [-1] * len(groups)
    for vertex in order:
        taken = 0
        for group in groups[vertex]:
            taken |= used[group]
        if groups[vertex]:
            bit = ~taken & (taken + 1)
            colours[vertex] = bit.bit_length() - 1
            for group in groups[vertex]:
                used[group] |= bit
    return colours


def recoloured(colours: list[int], groups: Sequence[Sequence[int]], group_count: int, lower: int) -> list[int]:
    """Greedy again, class after class, the last class first: it may find room among the others."""
    for turn in range(ROUNDS):
        if max(colours, default=-1) + 1 <= lower:
            break
        classes: list[list[int]] = [[] for _ in range(max(colours) + 1)]
        for vertex, colour in enumerate(colours):
            if colour >= 0:
                classes[colour].append(vertex)
        arranged = classes[::-1] if turn % 2 == 0 else sorted(classes, key=len)
        colours = fewer(colours, greedy(groups, [v for part in arranged for v in part], group_count))
    return colours


# -- orders --
def column_orders(p: Pattern) -> Iterator[Order]:
    """Natural; largest degree first; smallest degree last; most coloured neighbours first."""
    yield range(p.shape[1])
    neighbours = neighbours_of_columns(p)
    if neighbours is None:
        bound = np.bincount(p.indices, weights=(p.counts - 1)[p.rows], minlength=p.shape[1])
        yield np.argsort(-bound, kind="stable").tolist()
        return
    yield np.argsort(-neighbours.counts, kind="stable").tolist()
    lists = neighbours.lists()
    yield smallest_last(lists)
    yield by_incidence(lists)


def neighbours_of_columns(p: Pattern) -> Pattern | None:
    """Pairs of columns with a common row; None where they are too many to list."""
    pairs = p.counts[p.rows]
    if int(pairs.sum()) > MOST_NEIGHBOURS:
        return None
    first = np.repeat(p.indices, pairs)
    second = p.indices[ranges(p.indptr[p.rows], pairs)]
    apart = first != second
    return from_pairs(first[apart], second[apart], (p.shape[1], p.shape[1]))


def smallest_last(neighbours: Sequence[Sequence[int]]) -> Order:
    """The vertex with fewest neighbours among those left is put last, again and again."""
    degree = [len(found) for found in neighbours]
    buckets: list[list[int]] = [[] for _ in range(max(degree, default=0) + 1)]
    for vertex, d in enumerate(degree):
        buckets[d].append(vertex)
    order: list[int] = []
    done = [False] * len(neighbours)
    lowest = 0
    while len(order) < len(neighbours):
        if not buckets[lowest]:
            lowest += 1
            continue
        vertex = buckets[lowest].pop()
        if done[vertex] or degree[vertex] != lowest:
            continue
        done[vertex] = True
        order.append(vertex)
        for other in neighbours[vertex]:
            if not done[other]:
                degree[other] -= 1
                buckets[degree[other]].append(other)
        lowest = max(lowest - 1, 0)
    return order[::-1]


def by_incidence(neighbours: Sequence[Sequence[int]]) -> Order:
    """The vertex with most neighbours in the order already comes next."""
    reached = [0] * len(neighbours)
    buckets: list[list[int]] = [[] for _ in range(max(map(len, neighbours), default=0) + 1)]
    buckets[0] = list(range(len(neighbours)))[::-1]
    done = [False] * len(neighbours)
    order: list[int] = []
    highest = 0
    while len(order) < len(neighbours):
        if not buckets[highest]:
            highest -= 1
            continue
        vertex = buckets[highest].pop()
        if done[vertex] or reached[vertex] != highest:
            continue
        done[vertex] = True
        order.append(vertex)
        for other in neighbours[vertex]:
            if not done[other]:
                reached[other] += 1
                buckets[reached[other]].append(other)
                highest = max(highest, reached[other])
    return order


# -- both sides --
@dataclass(frozen=True, eq=False)
class Bicolouring:
    """Entries of the coloured rows are read from cotangents, all others from tangents."""

    columns: Array
    rows: Array

    @property
    def count(self) -> int:
        return count(self.columns) + count(self.rows)


def bicolouring(p: Pattern) -> Bicolouring | None:
    """The best split by the number of entries of a row; None where no row stands out."""
    sizes = np.unique(p.counts)
    if len(sizes) < 2:
        return None
    picked = sizes[:-1][np.unique(np.linspace(0, len(sizes) - 2, THRESHOLDS).astype(int))]
    found = [split_colouring(p, p.counts > limit) for limit in picked.tolist() if limit > 0]
    return min(found, key=lambda b: b.count, default=None)


def split_colouring(p: Pattern, dense: Array) -> Bicolouring:
    """Columns coloured as if the dense rows were not there, and the dense rows by themselves."""
    from_rows = dense[p.rows]
    thin = from_pairs(p.rows[~from_rows], p.indices[~from_rows], p.shape)
    thick = from_pairs(p.rows[from_rows], p.indices[from_rows], p.shape)
    return Bicolouring(column_colouring(thin), row_colouring(thick))


# -- symmetric --
def star_colouring(p: Pattern) -> Array:
    """Colours of the columns of a symmetric pattern such that no path over four of them has two colours only."""
    away = p.rows != p.indices
    graph = from_pairs(p.rows[away], p.indices[away], p.shape)
    neighbours = graph.lists()
    orders: list[Order] = [range(p.shape[0]), np.argsort(-graph.counts, kind="stable").tolist()]
    if graph.nnz <= MOST_NEIGHBOURS // 10:
        orders.append(smallest_last(neighbours))
    best: list[int] | None = None
    for order in orders:
        best = fewer(best, greedy_star(neighbours, order))
    assert best is not None
    empty = p.counts == 0
    return np.where(empty, -1, np.array(best, np.int64))


def greedy_star(neighbours: Sequence[Sequence[int]], order: Order) -> list[int]:
    """First fit; `near[v]` counts the coloured neighbours of v by colour."""
    colours = [-1] * len(neighbours)
    near: list[dict[int, int]] = [{} for _ in neighbours]
    for vertex in order:
        forbidden = forbidden_colours(vertex, neighbours, colours, near)
        colour = next(c for c in range(len(forbidden) + 1) if c not in forbidden)
        colours[vertex] = colour
        for other in neighbours[vertex]:
            near[other][colour] = near[other].get(colour, 0) + 1
    return colours


def forbidden_colours(vertex: int, neighbours: Sequence[Sequence[int]], colours: Sequence[int],
                      near: Sequence[dict[int, int]]) -> set[int]:
    """Colours that would close a two-coloured path over four vertices, at its end or inside it."""
    forbidden = set(near[vertex])
    for middle in neighbours[vertex]:
        colour = colours[middle]
        if colour < 0:
            continue
        is_inside = near[vertex][colour] > 1
        for far in neighbours[middle]:
            if colours[far] >= 0 and (is_inside or near[far][colour] > 1):
                forbidden.add(colours[far])
    return forbidden
