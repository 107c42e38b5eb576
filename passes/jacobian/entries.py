"""Where a term of a linear map has its entries, as index arrays, without writing the term out.

A term's atoms range over a grid; views fix some of them.  Its **points** are the values of all atoms that satisfy every
view: the whole grid over the free atoms where each target has one view, else the join of the views' tables on the atoms
that they share.  A point is the entry (row, column) that its `out` and `inn` atoms number in row-major order.

    shift    out (o) inn (i)  views o = 1+p, i = p     points p = 0 .. n-2, entries (p+1, p)
    gather   out (o) inn (i)  view i = index[o]        exact where the index is constant, every i where it is not

Constant factors (those that no placeholder or variable reaches) are evaluated: where one is zero there is no entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math
from typing import Any

import numpy as np

from graphc.ir.errors import Unsupported
from graphc.ir.linmap import Term, View
from graphc.ir.node import Node
from graphc.ir.reference import evaluate

Array = np.ndarray[Any, Any]
Columns = dict[int, Array]  # the values of atoms at points, by atom; they broadcast to one shape

MOST_POINTS = 20_000_000
MOST_CONSTANT = 4_000_000  # elements of a constant that is evaluated to find its zeros


@dataclass
class Constants:
    """Which nodes have values that nothing can change, and those values; computed when asked for."""

    fixed: dict[Node, bool] = field(default_factory=dict)
    values: dict[Node, Array] = field(default_factory=dict)

    def value(self, node: Node) -> Array | None:
        if not self.is_fixed(node) or not isinstance(node.type.size, int) or node.type.size > MOST_CONSTANT:
            return None
        if node not in self.values:
            self.values[node] = evaluate([node], {}, {})[0]
        return self.values[node]

    def is_fixed(self, node: Node) -> bool:
        stack = [node]
        while stack:
            top = stack[-1]
            unknown = [o for o in top.operands if o not in self.fixed]
            if unknown:
                stack.extend(unknown)
                continue
            stack.pop()
            self.fixed[top] = (all(self.fixed[o] for o in top.operands) and
                               top.op.name not in ("placeholder", "variable"))
        return self.fixed[node]


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a term; one that comes twice is a sum.

    rows, cols   of every entry
    places       which points of the term these are: those left out are zero
    free         atoms whose grid, in this order, has the points; None where `columns` lists them one by one
    is_exact     False where an index that is known only at run time was taken to be any
    """

    rows: Array
    cols: Array
    places: Array
    free: tuple[int, ...] | None
    columns: Columns
    is_exact: bool


def entries(term: Term, constants: Constants) -> Entries:
    """The entries of a term of static sizes."""
    sizes = static_sizes(term)
    tables = {id(v): constants.value(v.index) for v in term.views if v.index is not None}
    views = [v for v in term.views if v.index is None or tables[id(v)] is not None]
    indices = {id(v): wrapped(table, sizes[v.target]) for v in views if (table := tables.get(id(v))) is not None}
    targets = [v.target for v in views]
    is_grid = len(set(targets)) == len(targets) and not any(a in targets for v in views for a in v.sources)
    columns, shape, free = (grid if is_grid else joined)(views, indices, sizes)
    keep = np.full(shape, term.coef != 0)
    for node, atoms in term.factors:
        if (value := constants.value(node)) is not None:
            keep &= value[tuple(columns[a] for a in atoms)] != 0
    places = np.flatnonzero(keep)
    rows, cols = (flat(columns, side, sizes, shape) for side in (term.out, term.inn))
    if len(places) < keep.size:
        rows, cols = rows[places], cols[places]
    return Entries(rows, cols, places, free, columns, len(views) == len(term.views))


def static_sizes(term: Term) -> tuple[int, ...]:
    sizes = tuple(size for size in term.sizes if isinstance(size, int))
    numbers = [n for v in term.views for n in (v.base, *(step for _, step in v.strides))]
    if len(sizes) < len(term.sizes) or not all(isinstance(n, int) for n in numbers):
        raise Unsupported(f"sparse pattern: the linear map {term!r} has a symbolic size (stage: derivatives)")
    return sizes


def wrapped(index: Array, size: int) -> Array:
    return np.where(index < 0, index + size, index)


def require_few(count: int, what: str) -> None:
    if count > MOST_POINTS:
        raise Unsupported(f"sparse pattern: {what} has {count} entries ({16 * count} bytes of indices), more than "
                          f"{MOST_POINTS} (stage: derivatives)")


def flat(columns: Columns, side: Sequence[int], sizes: Sequence[int], shape: tuple[int, ...]) -> Array:
    """Row-major numbers of the elements of a side, for all points."""
    total: Any = np.zeros((), np.int64)
    for atom in side:
        total = total * sizes[atom] + columns[atom]
    return np.broadcast_to(total, shape).reshape(-1)


def target_values(view: View, index: Array | None, columns: Columns) -> Array:
    """The target at the points where the columns have the sources."""
    if index is not None:
        return np.asarray(index[tuple(columns[a] for a in view.labels)])
    total: Any = view.base
    for atom, step in view.strides:
        total = total + step * columns[atom]
    return np.asarray(total, np.int64)


# -- points --
Points = tuple[Columns, tuple[int, ...], tuple[int, ...] | None]  # columns, their common shape, atoms of a grid


def grid(views: Sequence[View], indices: Mapping[int, Array], sizes: Sequence[int]) -> Points:
    """All points, where every target has one view from free atoms."""
    targets = {v.target for v in views}
    free = tuple(a for a in range(len(sizes)) if a not in targets)
    shape = tuple(sizes[a] for a in free)
    require_few(math.prod(shape), "a linear map")
    columns: Columns = {a: axis for a, axis in zip(free, open_grid(shape))}
    for view in views:
        columns[view.target] = target_values(view, indices.get(id(view)), columns)
    return columns, shape, free


def open_grid(shape: tuple[int, ...]) -> list[Array]:
    """One arange per axis, along that axis."""
    rank = len(shape)
    return [np.arange(n, dtype=np.int64).reshape([n if k == axis else 1 for k in range(rank)])
            for axis, n in enumerate(shape)]


def joined(views: Sequence[View], indices: Mapping[int, Array], sizes: Sequence[int]) -> Points:
    """The points that satisfy all views, some of which share a target."""
    table: Columns = {}
    pending = list(views)
    while pending:
        view = next((v for v in pending if set(v.atoms) & set(table)), pending[0])
        pending = [v for v in pending if v is not view]
        table = join(table, view_table(view, indices.get(id(view)), sizes), sizes)
    rest = [a for a in range(len(sizes)) if a not in table]
    if rest:
        table = join(table, full_table(rest, sizes), sizes)
    return table, (len(next(iter(table.values()))),), None


def full_table(atoms: Sequence[int], sizes: Sequence[int]) -> Columns:
    shape = tuple(sizes[a] for a in atoms)
    require_few(math.prod(shape), "a part of a linear map")
    return {a: np.broadcast_to(axis, shape).reshape(-1) for a, axis in zip(atoms, open_grid(shape))}


def view_table(view: View, index: Array | None, sizes: Sequence[int]) -> Columns:
    sources = list(dict.fromkeys(view.sources))
    table = full_table(sources, sizes)
    value = target_values(view, index, table)
    length = len(table[sources[0]]) if sources else 1
    return {**table, view.target: np.broadcast_to(value, (length,))}


def join(left: Columns, right: Columns, sizes: Sequence[int]) -> Columns:
    """Pairs of rows that agree in the atoms that both have; all pairs where there is none."""
    if not left:
        return right
    common = [a for a in left if a in right]
    keys = [np.zeros(len(next(iter(side.values()))), np.int64) for side in (left, right)]
    for atom in common:
        keys = [key * sizes[atom] + side[atom] for key, side in zip(keys, (left, right))]
    order = np.argsort(keys[1], kind="stable")
    ordered = keys[1][order]
    first = np.searchsorted(ordered, keys[0], "left")
    counts = np.searchsorted(ordered, keys[0], "right") - first
    require_few(int(counts.sum()), "a product of index relations")
    from_left = np.repeat(np.arange(len(counts)), counts)
    from_right = order[ranges(first, counts)]
    return {**{a: column[from_left] for a, column in left.items()},
            **{a: column[from_right] for a, column in right.items() if a not in left}}


def ranges(starts: Array, counts: Array) -> Array:
    """start, start + 1, .. (count of them), one after the other for all pairs."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.asarray(np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts))
