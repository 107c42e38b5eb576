"""The values of a term of a linear map at its points (see `entries`): an array where all is constant, else a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.linmap import Term
from graphc.ir.linmap.tensors import arranged, elementwise_product, scaled
from graphc.ir.node import Node, constant

from .entries import Constants, Entries, static_sizes
from .pattern import known_size

Array = np.ndarray[Any, Any]


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


def taken(flat: Node, places: Array) -> Node:
    """Elements of a flat node at constant places; the node itself where these are all of it in order."""
    if len(places) == flat.type.size and (places == np.arange(len(places))).all():
        return flat
    return build.take(flat, constant(places.astype(np.int64), graph=flat.graph), 0)
