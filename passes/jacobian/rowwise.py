"""Entries laid out by rows: where all rows of a pattern have k entries, the values are a matrix (rows, k) of choices.

A term that has one entry per row at most is a vector over the rows, its row sums.  Terms with no row in common share
one vector.  Constant masks choose among the vectors and the constants, so nothing is gathered:

    data[r, s] = where(mask_1[r, s], vector_1[r], where(mask_2[r, s], vector_2[r], constants[r, s]))

Rows with other numbers of entries (a boundary) are blocks of their own, as long as there are few runs of equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.linmap import Term, dense_node, linear_map
from graphc.ir.linmap.compose import product
from graphc.ir.node import Graph, Node, constant
from graphc.ir.types import numpy_dtype

from .entries import Entries, static_sizes
from .pattern import Pattern, known_size
from .values import values_node

Array = np.ndarray[Any, Any]

MOST_VECTORS = 8
MOST_RUNS = 8


@dataclass(frozen=True, eq=False)
class Contribution:
    """A term whose values are known at run time only, and which of its points (`places`) add to which entries."""

    term: Term
    where: Entries
    places: Array
    targets: Array


@dataclass(frozen=True, eq=False)
class Choice:
    """The entries that have the value of their row in the vector."""

    mask: Array
    vector: Node


def by_rows(parts: Sequence[Contribution], base: Array, pattern: Pattern, y: Node, x: Node) -> Node | None:
    """The entries as choices among row vectors, and the constants `base`; None where they are not of that form."""
    runs = equal_runs(pattern.counts)
    groups = disjoint_groups(parts, pattern.shape[0])
    if groups is None or len(runs) > MOST_RUNS:
        return None
    choices = [Choice(mask_of(group, pattern.nnz), row_sums(group, y, x)) for group in groups]
    shared = np.sum([choice.mask for choice in choices], axis=0) + (base != 0)
    is_sum = bool((shared[np.any([choice.mask for choice in choices], axis=0)] > 1).any())
    blocks = [block(choices, base, pattern, run, is_sum=is_sum) for run in runs if pattern.counts[run.start]]
    return build.concat(blocks, 0)


def equal_runs(counts: Array) -> list[slice]:
    """Ranges of rows with equally many entries."""
    ends = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(counts)]
    return [slice(a, b) for a, b in zip(ends, ends[1:])]


def disjoint_groups(parts: Sequence[Contribution], rows: int) -> list[list[Contribution]] | None:
    """Contributions put together as long as no row comes twice, first fit; None where one term has a row twice."""
    groups: list[tuple[Array, list[Contribution]]] = []
    for part in parts:
        times = np.bincount(part.where.rows, minlength=rows)
        if times.max(initial=0) > 1:
            return None
        fitting = next((g for g in groups if not (g[0] & (times > 0)).any()), None)
        if fitting is None:
            fitting = np.zeros(rows, bool), []
            groups.append(fitting)
        fitting[0][:] |= times > 0
        fitting[1].append(part)
    return [members for _, members in groups] if len(groups) <= MOST_VECTORS else None


def mask_of(group: Sequence[Contribution], nnz: int) -> Array:
    mask = np.zeros(nnz, bool)
    for part in group:
        mask[part.targets] = True
    return mask


def row_sums(group: Sequence[Contribution], y: Node, x: Node) -> Node:
    """The sums of the rows of the terms, as a flat node."""
    if all(is_range(part) for part in group):
        return joined_ranges(group, y)
    labels = tuple(range(x.type.rank))
    ones = linear_map(labels, (), dict(zip(labels, x.type.shape)))
    sums = tuple(piece for part in group for one in ones for piece in product(part.term, one))
    return build.reshape(dense_node(sums, y.type.shape, (), y.type.dtype), (known_size(y),))


def is_range(part: Contribution) -> bool:
    """Whether the points of a term are a grid that numbers consecutive rows in order."""
    rows, free, sizes = part.where.rows, part.where.free, static_sizes(part.term)
    if free is None or not len(rows) or len(rows) != math.prod(sizes[a] for a in free):
        return False
    return bool((rows == np.arange(rows[0], rows[0] + len(rows))).all())


def joined_ranges(group: Sequence[Contribution], y: Node) -> Node:
    """The values of terms that each have a range of rows to themselves, zeros between them."""
    pieces: list[Node] = []
    end = 0
    for part in sorted(group, key=lambda part: int(part.where.rows[0])):
        first = int(part.where.rows[0])
        if first > end:
            pieces.append(build.zeros(y.type.dtype, (first - end,), y.graph))
        pieces.append(values_node(part.term, part.where, y.type.dtype))
        end = first + len(part.where.rows)
    if end < known_size(y):
        pieces.append(build.zeros(y.type.dtype, (known_size(y) - end,), y.graph))
    return build.concat(pieces, 0)


def block(choices: Sequence[Choice], base: Array, pattern: Pattern, rows: slice, *, is_sum: bool) -> Node:
    """The entries of a range of rows with equally many of them, flat."""
    graph, dtype = choices[0].vector.graph, choices[0].vector.type.dtype
    shape = (rows.stop - rows.start, int(pattern.counts[rows.start]))
    part = slice(pattern.indptr[rows.start], pattern.indptr[rows.stop])
    chosen = [(choice.mask[part].reshape(shape), choice.vector) for choice in choices if choice.mask[part].any()]
    free = np.ones(shape, bool) if is_sum else ~np.any([np.zeros(shape, bool), *(mask for mask, _ in chosen)], axis=0)
    constants = base[part].reshape(shape).astype(numpy_dtype(dtype))
    result = template(constants, free, dtype, graph)
    for mask, vector in chosen:
        here = build.slice_(vector, (rows.start,), (1,), (shape[0],))
        spread = build.broadcast(here, shape, (0,))
        if is_sum:
            spread = build.elementwise("where", constant(mask, graph=graph), spread, build.zeros(dtype, shape, graph))
            result = build.elementwise("add", result, spread)
        else:
            result = spread if mask.all() else build.elementwise("where", constant(mask, graph=graph), spread, result)
    return build.reshape(result, (shape[0] * shape[1],))


def template(constants: Array, free: Array, dtype: str, graph: Graph) -> Node:
    """The constants of the free entries; one number where they are all equal."""
    values = constants[free]
    if not len(values) or (values == values[0]).all():
        return build.full(values[0].item() if len(values) else 0, dtype, constants.shape, graph)
    return constant(constants, dtype, graph=graph)
