"""Compressed Jacobians: all seeds of a colouring swept at once, and the entries read off the result.

The seeds are one tensor S[k, ..] = (colour == k), a comparison that kernels compute where it is used; because it is a
mask, the first product with it is a choice.  A sweep carries one tensor [k, ..] per node: what reaches a node by
several ways is added up there.

    forward    C[k, i] = sum over columns j of colour k of J[i, j]
    reverse    C[k, j] = sum over rows i of colour k of J[i, j]

The same sweep with the identity as seed and no adding up gives J as a sum of structured terms (`Collapse`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.dims import Dim
from graphc.ir.linmap import LinMap, dense_node, linear_map, settled, transposed
from graphc.ir.linmap.compose import merge_into, product
from graphc.ir.linmap.merge import typed
from graphc.ir.linmap.term import Opaque, Term
from graphc.ir.node import Node, constant, located, make

from ..differentiate import Between
from .pattern import Locals, Piece

Array = np.ndarray[Any, Any]
Collapse = Callable[[Sequence[Piece], Node], "LinMap | None"]  # what reached a node, as one map; None gives up


# -- sweeps --
def sweep(part: Between, locals_: Locals, seed: LinMap, start: Node, end: Node, collapse: Collapse, *,
          is_forward: bool) -> LinMap | None:
    """The seed at `start` carried to `end`; None where `collapse` gave up."""
    order = part.nodes if is_forward else part.nodes[::-1]
    uses = count_uses(part, locals_, is_forward)
    pending: dict[Node, list[Piece]] = {start: list(seed)}
    carried: dict[Node, LinMap] = {}
    for node in order:
        with located(node):
            if is_forward:
                arriving = [piece for operand, local in locals_[node] for below in carried.get(operand, ())
                            for piece in product(local, below)]
                pending.setdefault(node, []).extend(arriving)
            pieces = pending.pop(node, [])
            if not pieces:
                continue
            found = collapse(pieces, node)
            if found is None or node is end:
                return found
            carried[node] = settled(found) if uses[node] > 1 else found
            if not is_forward:
                for operand, local in locals_[node]:
                    pending.setdefault(operand, []).extend(
                        piece for above in carried[node] for piece in product(above, local))
    return ()


def count_uses(part: Between, locals_: Locals, is_forward: bool) -> dict[Node, int]:
    """How many local maps a node's map is multiplied with."""
    if not is_forward:
        return {node: len(locals_[node]) for node in part.nodes}
    uses = dict.fromkeys(part.nodes, 0)
    for node in part.nodes:
        for operand, _ in locals_[node]:
            uses[operand] = uses.get(operand, 0) + 1
    return uses


def merged_terms(pieces: Sequence[Piece], node: Node) -> list[Piece]:
    """The pieces in the node's dtype, those of equal structure added."""
    groups: dict[object, list[Term]] = {}
    opaque: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Opaque):
            opaque.append(piece)
        else:
            term = typed(piece, node.type.dtype)
            assert isinstance(term, Term)
            merge_into(groups.setdefault(term.structure, []), term)
    return [*(term for group in groups.values() for term in group), *opaque]


# -- batches of seeds --
def seed_node(colours: Array, colour_count: int, like: Node) -> Node:
    """The mask (colour_count, *like.shape) of the members of each colour."""
    shape = (colour_count, *like.type.shape)
    graph = like.graph
    of_element = constant(colours.astype(np.int32).reshape(tuple(like.type.shape)), graph=graph)
    number = make("iota", graph=graph, dtype="int32", shape=(colour_count,), axis=0)
    spread = build.broadcast(of_element, shape, tuple(range(1, len(shape))))
    chosen = build.elementwise("eq", spread, build.broadcast(number, shape, (0,)))
    return build.cast(chosen, like.type.dtype)


def batch_map(tensor: Node, *, is_forward: bool) -> LinMap:
    """A tensor [seed, ..] as a map from the seeds, or to them."""
    labels = tuple(range(tensor.type.rank))
    sizes: dict[Hashable, int | Dim] = dict(zip(labels, tensor.type.shape))
    out, inn = (labels[1:], labels[:1]) if is_forward else (labels[:1], labels[1:])
    return linear_map(out, inn, sizes, factors=[(tensor, labels)])


def batch_tensor(m: LinMap, colour_count: int, node: Node, *, is_forward: bool) -> Node:
    return dense_node(transposed(m) if is_forward else m, (colour_count,), node.type.shape, node.type.dtype)


def compressed(part: Between, locals_: Locals, y: Node, x: Node, colours: Array, colour_count: int, *,
               is_forward: bool) -> Node:
    """The compressed Jacobian, flat: colour * (elements of the other side) + element."""
    start, end = (x, y) if is_forward else (y, x)

    def collapse(pieces: Sequence[Piece], node: Node) -> LinMap:
        found = tuple(merged_terms(pieces, node))
        if len(found) == 1:
            return found
        return batch_map(batch_tensor(found, colour_count, node, is_forward=is_forward), is_forward=is_forward)

    seed = batch_map(seed_node(colours, colour_count, start), is_forward=is_forward)
    found = sweep(part, locals_, seed, start, end, collapse, is_forward=is_forward)
    tensor = batch_tensor(found or (), colour_count, end, is_forward=is_forward)
    return build.cast(build.reshape(tensor, (tensor.type.size,)), y.type.dtype)
