"""All contributions to one node, merged once: the map that a sweep carries through that node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .. import build
from ..types import Shape
from .compose import add, axes_of, linear_map
from .dense import dense_node
from .term import ZERO, LinMap, Opaque, Term


def merged(pieces: Sequence[Term | Opaque], out_shape: Shape, in_shape: Shape, dtype: str) -> LinMap:
    """The sum of the pieces with factors of this dtype; a vector is one term."""
    if not pieces:
        return ZERO
    found = tuple(pieces) if len(pieces) == 1 else add(pieces)
    found = tuple(typed(piece, dtype) for piece in found)
    terms = [piece for piece in found if isinstance(piece, Term)]
    is_vector = len(terms) == len(found) and (all(not t.out for t in terms) or all(not t.inn for t in terms))
    if is_vector and (len(terms) > 1 or any(view.index is not None for view in terms[0].views)):
        return as_tensor(found, out_shape, in_shape, dtype)
    return found


def as_tensor(m: LinMap, out_shape: Shape, in_shape: Shape, dtype: str) -> LinMap:
    """The map as one term with one factor."""
    node = dense_node(m, out_shape, in_shape, dtype)
    labels, sizes = axes_of((*out_shape, *in_shape))
    rank = len(out_shape)
    return linear_map(labels[:rank], labels[rank:], sizes, factors=[(node, labels)])


def typed(piece: Term | Opaque, dtype: str) -> Term | Opaque:
    """The piece with all factors cast to the dtype."""
    if isinstance(piece, Opaque) or all(node.type.dtype == dtype for node, _ in piece.factors):
        return piece
    return replace(piece, factors=tuple((build.cast(node, dtype), atoms) for node, atoms in piece.factors))
