"""Sparse Jacobians in one pass: dy/dx as a sum of structured terms, each evaluated at its entries only.

For a stencil every term is a shift with a diagonal: its values are a handful of elementwise kernels over the grid, and
no seed is swept.  Entries whose factors are all constant are computed here and now.  Where the rows allow it, the
entries are choices among row vectors (see `rowwise`).  Else the values of all terms stand one after the other in a
**source** vector, with the distinct constants before them; an entry reads its contributions from there in **layers**,
the k-th layer holding the k-th contribution of every entry.

    source   [constants.., term 0.., term 1.., ..]
    data     source[layer 0] + source[layer 1] + .. + constants of entries that have other contributions too
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.linmap import LinMap, Term, identity
from graphc.ir.linmap.term import Opaque
from graphc.ir.node import Node, constant, default_graph
from graphc.ir.types import numpy_dtype

from ..differentiate import Between
from .compressed import merged_terms, sweep
from .entries import Constants, entries
from .pattern import Locals, Pattern, Piece, known_size
from .rowwise import Contribution, by_rows
from .values import known_values, taken, values_node

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


def data_of(terms: Sequence[Term], pattern: Pattern, constants: Constants, y: Node, x: Node,
            source_of_entry: Array | None = None) -> Node | None:
    """The values of the pattern's entries, in order; None where a term depends on run-time indices.

    With `source_of_entry`, entry e gets the value of entry source_of_entry[e]; the others are not computed.
    """
    needed = np.zeros(pattern.nnz, bool)
    needed[source_of_entry if source_of_entry is not None else slice(None)] = True
    base = np.zeros(pattern.nnz)
    found: list[Contribution] = []
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
            found.append(Contribution(term, where, places, targets))
    laid_out = by_rows(found, base, pattern, y, x) if found and source_of_entry is None else None
    if laid_out is not None:
        return laid_out
    wanted = source_of_entry if source_of_entry is not None else np.arange(pattern.nnz)
    return assembled(found, base, wanted, y.type.dtype)


# -- assembly --
def assembled(found: Sequence[Contribution], base: Array, wanted: Array, dtype: str) -> Node:
    """Constants and contributions summed per entry, for the wanted entries."""
    graph = default_graph()
    if not found:
        return constant(base[wanted].astype(numpy_dtype(dtype)), dtype, graph=graph)
    dynamic = np.zeros(len(base), bool)
    for part in found:
        dynamic[part.targets] = True
    fixed = np.flatnonzero(~dynamic)
    distinct, of_entry = np.unique(base[fixed], return_inverse=True)
    if sum(len(part.targets) for part in found) + len(fixed) > len(base) and not (distinct == 0).any():
        distinct = np.append(distinct, 0.0)  # what a layer holds for entries without a k-th contribution
    values = [values_node(part.term, part.where, dtype) for part in found]
    offsets = np.cumsum([len(distinct), *map(known_size, values)])
    places = np.concatenate([of_entry, *(p.places + start for p, start in zip(found, offsets))])
    targets = np.concatenate([fixed, *(p.targets for p in found)])
    numbers = [constant(distinct.astype(numpy_dtype(dtype)), dtype, graph=graph)] if len(distinct) else []
    source = build.concat([*numbers, *values], 0)
    zero = int(np.append(np.flatnonzero(distinct == 0), 0)[0])
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
