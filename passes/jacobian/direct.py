"""Sparse Jacobians in one pass: dy/dx as a sum of structured terms, each evaluated at its entries only.

For a stencil every term is a shift with a diagonal: its values are a handful of elementwise kernels over the grid, and
no seed is swept.  Entries whose factors are all constant are computed here and now.  The values of all terms stand one
after the other in a **source** vector, with the distinct constants before them; an entry reads its contributions from
there in **layers**, the k-th layer holding the k-th contribution of every entry.

    source   [constants.., term 0.., term 1.., ..]
    data     source[layer 0] + source[layer 1] + .. + constants of entries that have other contributions too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.linmap import LinMap, Term, identity
from graphc.ir.linmap.tensors import arranged, elementwise_product, scaled
from graphc.ir.linmap.term import Opaque
from graphc.ir.node import Node, constant, default_graph
from graphc.ir.types import numpy_dtype

from ..differentiate import Between
from .compressed import merged_terms, sweep, taken
from .entries import Constants, Entries, entries, static_sizes
from .pattern import Locals, Pattern, Piece, known_size

Array = np.ndarray[Any, Any]

MOST_TERMS = 128  # terms that one node's map may have
WASTE = 3  # a layer of all entries is worth it while layers read at most so many places per contribution


def terms_between(part: Between, locals_: Locals, y: Node, x: Node, *, is_forward: bool) -> list[Term] | None:
    """dy/dx as terms; None where it has an opaque piece or too many terms."""
    if any(isinstance(piece, Opaque) for found in locals_.values() for _, piece in found):
        return None

    def collapse(pieces: Sequence[Piece], node: Node) -> LinMap | None:
        found = merged_terms(pieces, node)
        return tuple(found) if len(found) <= MOST_TERMS else None

    start, end = (x, y) if is_forward else (y, x)
    seed = identity(start.type.shape)
    found = sweep(part, locals_, seed, start, end, collapse, is_forward=is_forward)
    return None if found is None else [term for term in found if isinstance(term, Term)]


@dataclass(frozen=True, eq=False)
class Contributions:
    """Values that are added to entries: of a node (`values`) at `places`, to the entries `targets`."""

    values: Node
    places: Array
    targets: Array


def data_of(terms: Sequence[Term], pattern: Pattern, constants: Constants, dtype: str,
            source_of_entry: Array | None = None) -> Node | None:
    """The values of the pattern's entries, in order; None where a term depends on run-time indices.

    With `source_of_entry`, entry e gets the value of entry source_of_entry[e]; the others are not computed.
    """
    needed = np.zeros(pattern.nnz, bool)
    needed[source_of_entry if source_of_entry is not None else slice(None)] = True
    base = np.zeros(pattern.nnz)
    found: list[Contributions] = []
    for term in terms:
        where = entries(term, constants)
        if not where.is_exact:
            return None
        targets = pattern.places(where.rows, where.cols)
        kept = (targets >= 0) & needed[targets]
        targets, places = targets[kept], where.places[kept]
        known = known_values(term, where, constants)
        if known is not None:
            base += np.bincount(targets, weights=known[places], minlength=pattern.nnz)
        elif len(places):
            found.append(Contributions(values_node(term, where, dtype), places, targets))
    wanted = source_of_entry if source_of_entry is not None else np.arange(pattern.nnz)
    return assembled(found, base, wanted, dtype)


# -- values of a term at its points --
def known_values(term: Term, where: Entries, constants: Constants) -> Array | None:
    """The values at all points, where every factor is constant."""
    values = [constants.value(node) for node, _ in term.factors]
    if any(value is None for value in values):
        return None
    shape = np.broadcast_shapes(*(column.shape for column in where.columns.values()))
    total: Any = np.full(shape, term.coef)
    for value, (_, atoms) in zip(values, term.factors):
        assert value is not None
        total = total * value[tuple(where.columns[a] for a in atoms)]
    return np.asarray(total, np.float64).reshape(-1)


def values_node(term: Term, where: Entries, dtype: str) -> Node:
    """The values at all points, as a flat node."""
    sizes = static_sizes(term)
    ordered = sorted(term.factors, key=lambda f: known_size(f[0]))
    if where.free is not None:
        total = scaled(ordered[0][0], term.coef), ordered[0][1]
        for factor in ordered[1:]:
            both = tuple(a for a in where.free if a in total[1] or a in factor[1])
            total = elementwise_product(total, factor, both, dict(enumerate(sizes)))
        node = arranged(total, where.free, dict(enumerate(sizes)))
    else:
        node = scaled(at_points(ordered[0], where, sizes), term.coef)
        for factor in ordered[1:]:
            node = build.elementwise("mul", node, at_points(factor, where, sizes))
    return build.cast(build.reshape(node, (node.type.size,)), dtype)


def at_points(factor: tuple[Node, tuple[int, ...]], where: Entries, sizes: Sequence[int]) -> Node:
    node, atoms = factor
    length = len(next(iter(where.columns.values())))
    places: Any = np.zeros(length, np.int64)
    for atom in atoms:
        places = places * sizes[atom] + where.columns[atom]
    return taken(build.reshape(node, (node.type.size,)), places)


# -- assembly --
def assembled(found: Sequence[Contributions], base: Array, wanted: Array, dtype: str) -> Node:
    """Constants and contributions summed per entry, for the wanted entries."""
    graph = default_graph()
    if not found:
        return constant(base[wanted].astype(numpy_dtype(dtype)), dtype, graph=graph)
    dynamic = np.zeros(len(base), bool)
    for part in found:
        dynamic[part.targets] = True
    fixed = np.flatnonzero(~dynamic)
    distinct, of_entry = np.unique(base[fixed], return_inverse=True)
    if not (distinct == 0).any():
        distinct = np.append(distinct, 0.0)
    zero = int(np.flatnonzero(distinct == 0)[0])
    offsets = np.cumsum([len(distinct), *(known_size(part.values) for part in found)])
    places = np.concatenate([of_entry, *(p.places + start for p, start in zip(found, offsets))])
    targets = np.concatenate([fixed, *(p.targets for p in found)])
    numbers = constant(distinct.astype(numpy_dtype(dtype)), dtype, graph=graph)
    source = build.concat([numbers, *(p.values for p in found)], 0)
    total = summed(source, places, targets, wanted, zero, len(base))
    beside = np.where(dynamic, base, 0.0)[wanted]
    if not beside.any():
        return total
    return build.elementwise("add", total, constant(beside.astype(numpy_dtype(dtype)), dtype, graph=graph))


def summed(source: Node, places: Array, targets: Array, wanted: Array, zero: int, nnz: int) -> Node:
    order = np.argsort(targets, kind="stable")
    places, targets = places[order], targets[order]
    first = np.searchsorted(targets, targets, "left")
    rank = np.arange(len(targets)) - first
    layer_count = int(rank.max(initial=0)) + 1
    if layer_count * nnz > WASTE * len(targets):
        index = constant(targets, graph=source.graph)
        total = build.scatter_add(taken(source, places), (index,), (("index", 0),), ((0,),), (0,), (nnz,))
        return taken(total, wanted)
    result: Node | None = None
    for k in range(layer_count):
        of_entry = np.full(nnz, zero)
        of_entry[targets[rank == k]] = places[rank == k]
        layer = taken(source, of_entry[wanted])
        result = layer if result is None else build.elementwise("add", result, layer)
    assert result is not None
    return result
