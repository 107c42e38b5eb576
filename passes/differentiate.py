"""Derivatives by sweeps: the local maps of a graph multiplied in forward or in reverse order, without planning.

    between      the nodes on a path from an x to a y, and the operands through which the paths run
    reverse      seed after map, from the last node to the first: vjp, gradients, Jacobians by rows
    forward      map after seed, from the first node to the last: jvp, Jacobians by columns

A seed is a linear map: a vector for jvp and vjp, the identity for a Jacobian.  What reaches a node is collected and
merged once.  Before a map is used twice, its coefficient is folded in.  Walks are iterative and linear in the graph.
New nodes carry the line of the forward node whose derivative they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphc.ir.linmap import LinMap, add, compose, local_maps, merged, settled
from graphc.ir.linmap.local import is_constant_in
from graphc.ir.linmap.term import Opaque, Term
from graphc.ir.node import Node, ancestors, located
from graphc.ir.types import Shape

Pieces = list[Term | Opaque]


@dataclass
class Between:
    """Nodes that lie between some xs and some ys, operands first; `active` has the positions of a node's live operands.

    `maps` are the local maps of the nodes, built when a sweep first needs them.
    """

    nodes: list[Node]
    active: dict[Node, tuple[int, ...]]
    maps: dict[Node, list[tuple[Node, LinMap]]] = field(default_factory=dict)

    def edges(self, node: Node) -> list[tuple[Node, LinMap]]:
        """The live operands of a node, each once, with the map by it: parallel edges add up."""
        found = self.maps.get(node)
        if found is None:
            found = self.maps[node] = self.build_edges(node)
        return found

    def build_edges(self, node: Node) -> list[tuple[Node, LinMap]]:
        positions = self.active[node]
        if not positions:
            return []
        with located(node):
            by_position = local_maps(node, positions)
            by_operand: dict[Node, Pieces] = {}
            for position, local in by_position.items():
                by_operand.setdefault(node.operands[position], []).extend(local)
            return [(operand, tuple(pieces) if len(pieces) == 1 else add(pieces))
                    for operand, pieces in by_operand.items()]


def between(ys: Sequence[Node], xs: Sequence[Node]) -> Between:
    """Prunes the graph to what lies on differentiable paths from xs to ys."""
    order = ancestors(ys)
    depends = set(xs)
    active: dict[Node, tuple[int, ...]] = {}
    for node in order:
        live = tuple([k for k, o in enumerate(node.operands) if o in depends and not is_constant_in(node, k)])
        active[node] = live
        if live:
            depends.add(node)
    needed = {y for y in ys if y in depends}
    kept: list[Node] = []
    for node in reversed(order):
        if node in needed:
            kept.append(node)
            needed.update(node.operands[k] for k in active[node])
    kept.reverse()
    return Between(kept, {node: active[node] for node in kept})


def reverse(part: Between, seeds: Mapping[Node, LinMap], wanted: Sequence[Node], out_shape: Shape) -> list[LinMap]:
    """The seeds, maps to `out_shape` from the ys, pulled back to the wanted nodes."""
    pending: dict[Node, Pieces] = {node: list(seed) for node, seed in seeds.items()}
    results: dict[Node, LinMap] = {}
    targets = set(wanted)
    for node in reversed(part.nodes):
        pieces = pending.pop(node, None)
        if not pieces:
            continue
        with located(node):
            pulled = merged(pieces, out_shape, node.type.shape, node.type.dtype)
            if node in targets:
                results[node] = pulled
            edges = part.edges(node)
            if len(edges) > 1 or (edges and node in targets):
                pulled = settled(pulled)
            for operand, local in edges:
                pending.setdefault(operand, []).extend(compose(pulled, local))
    return [results.get(node, ()) for node in wanted]


def forward(part: Between, seeds: Mapping[Node, LinMap], wanted: Sequence[Node], in_shape: Shape) -> list[LinMap]:
    """The seeds, maps from `in_shape` to the xs, pushed forward to the wanted nodes."""
    pushed: dict[Node, LinMap] = {}
    uses = {node: 0 for node in part.nodes}
    for node in part.nodes:
        for position in set(part.active[node]):
            uses[node.operands[position]] += 1
    targets = set(wanted)
    for node in part.nodes:
        pieces = list(seeds.get(node, ()))
        with located(node):
            for operand, local in part.edges(node):
                if operand in pushed:
                    pieces.extend(compose(local, pushed[operand]))
            if pieces:
                tangent = merged(pieces, node.type.shape, in_shape, node.type.dtype)
                pushed[node] = settled(tangent) if uses[node] + (node in targets) > 1 else tangent
    return [pushed.get(node, ()) for node in wanted]

