"""Copies of graphs in which ids, too, depend on the graph alone.

The scalar engine numbers its vertices by ids of nodes.  An order that it found for a graph is to fit the same graph
built again, so it works on a copy, built in the order of `digests`, and what it makes is copied back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.ir.node import Graph, Node, ancestors, located, make

from .numbering import digests, lasting_graph


def canonical(ys: Sequence[Node], xs: Sequence[Node]) -> tuple[list[Node], list[Node], dict[Node, Node]]:
    """The ys and xs in a graph of their own, in which the xs are placeholders, and the way back."""
    graph, digest = lasting_graph(), digests(ys)
    order = depth_first(ys, xs, digest)
    copies: dict[Node, Node] = {}
    inputs = frozenset(xs)
    for node in order:
        copies[node] = placeholder(node, graph) if node in inputs else copied(node, copies, graph)
    return [copies[y] for y in ys], [copies[x] for x in xs], {copy: node for node, copy in copies.items()}


def depth_first(ys: Sequence[Node], xs: Sequence[Node], digest: Mapping[Node, int]) -> list[Node]:
    """All that the ys are computed from, the xs first."""
    placed: dict[Node, None] = dict.fromkeys(xs)
    pending = list(reversed(ys))
    while pending:
        node = pending[-1]
        missing = [] if node in placed else [o for o in reversed(operands(node, digest)) if o not in placed]
        if missing:
            pending += missing
        else:
            placed.setdefault(pending.pop())
    return list(placed)


def operands(node: Node, digest: Mapping[Node, int]) -> list[Node]:
    return sorted(node.operands, key=digest.__getitem__) if node.op.commutative else list(node.operands)


def placeholder(node: Node, graph: Graph) -> Node:
    with located(node):
        return make("placeholder", graph=graph, name=node.name, dtype=node.type.dtype, shape=node.type.shape)


def copied(node: Node, copies: Mapping[Node, Node], graph: Graph) -> Node:
    below = [copies[o] for o in node.operands]
    if node.op.commutative:
        below.sort(key=lambda copy: copy.id)
    with located(node):
        return make(node.op.name, below, graph=graph, **node.attrs)


def copied_back(nodes: Iterable[Node], back: Mapping[Node, Node], graph: Graph) -> list[Node]:
    """Nodes of a copy as nodes of the graph that it was made from."""
    wanted, made = list(nodes), dict(back)
    for node in ancestors(wanted):
        if node not in made:
            with located(node):
                made[node] = make(node.op.name, [made[o] for o in node.operands], graph=graph, **node.attrs)
    return [made[node] for node in wanted]
