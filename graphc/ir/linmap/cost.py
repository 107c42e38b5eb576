"""Multiplications of the products that maps are made of, for planning.

A planner composes maps whose factors are placeholders of the same types (`ghosts`), in a graph of its own: the same
code runs, so the price of a product is the price of the nodes that it would build.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..dims import product
from ..node import Graph, Node, ancestors, make
from .dense import dense_node
from .term import LinMap, Size, Term

PRODUCTS = ("mul", "div")


def multiplications(node: Node) -> Size:
    """Scalar multiplications and divisions of one node; an einsum of n operands counts as n - 1 full products."""
    if node.op.name in PRODUCTS:
        return node.type.size
    if node.op.name == "linear_scan":
        return node.type.size
    if node.op.name == "einsum" and len(node.operands) > 1:
        sizes = {label: size for labels, x in zip(node.attrs["labels"], node.operands)
                 for label, size in zip(labels, x.type.shape)}
        return product(list(sizes.values())) * (len(node.operands) - 1)
    return 0


def price(nodes: Iterable[Node], given: Iterable[Node] = ()) -> Size:
    """Multiplications of all that the nodes depend on and `given` does not."""
    known = set(ancestors(given))
    total: Size = 0
    for node in ancestors(nodes):
        if node not in known:
            total = total + multiplications(node)
    return total


def factor_nodes(m: LinMap) -> list[Node]:
    return [node for term in m if isinstance(term, Term) for node, _ in term.factors]


def map_price(m: LinMap, given: LinMap = ()) -> Size:
    """Multiplications that building the map's factors took, beyond those of `given`."""
    return price(factor_nodes(m), factor_nodes(given))


def finish_price(m: LinMap, out_shape: tuple[Size, ...], in_shape: tuple[Size, ...], dtype: str) -> Size:
    """Multiplications of writing the map out, beyond its factors: a lazy product hides its cost until then."""
    return price([dense_node(m, out_shape, in_shape, dtype)], factor_nodes(m))


def ghosts(m: LinMap, graph: Graph, names: dict[Node, Node]) -> LinMap:
    """The map with placeholders of the same types for nodes; `names` keeps equal nodes equal across maps."""
    return tuple(ghost_term(piece, graph, names) if isinstance(piece, Term) else piece for piece in m)


def ghost_term(term: Term, graph: Graph, names: dict[Node, Node]) -> Term:
    factors = tuple((ghost(node, graph, names), atoms) for node, atoms in term.factors)
    views = tuple(view if view.index is None else replace(view, index=ghost(view.index, graph, names))
                  for view in term.views)
    return replace(term, factors=factors, views=views)


def ghost(node: Node, graph: Graph, names: dict[Node, Node]) -> Node:
    if node not in names:
        names[node] = make("placeholder", graph=graph, name=f"ghost_{len(names)}", dtype=node.type.dtype,
                           shape=node.type.shape)
    return names[node]
