"""Vertex elimination: the one way in which plans multiply maps.

Eliminating an inner vertex v replaces every path i -> v -> j by the product of its two maps, added to what the edge
i -> j holds already.  An **order** is the whole plan, because every other way of multiplying is an order too:

    forward mode              ascending: every map starts at a source
    reverse mode              descending: every map ends at a sink
    a bracketing of a chain   the separators, in the order in which their products are taken
    tangents, adjoints        of a run of segments: its vertices ascending, descending
    a restart at a vertex     that vertex after all others

What a map is, the walk does not know: an `Algebra` multiplies and adds them.  Products into an edge are collected and
merged once, when the edge is read; a map that is read more than once is settled (see `differentiate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from graphc.ir.dims import product
from graphc.ir.linmap import LinMap, Term, compose, identity, merged, settled
from graphc.ir.linmap.contract import estimate
from graphc.ir.node import located
from graphc.ir.types import Shape

from .tensor import Edge, Linear, Map

M = TypeVar("M")


class Algebra(Protocol[M]):
    """What a walk asks of maps; `at` is the vertex being eliminated."""

    def multiply(self, left: M, right: M, at: int) -> M | None: ...
    def merge(self, pieces: list[M], edge: Edge, at: int, *, settle: bool) -> M | None: ...
    def close(self, m: M, edge: Edge) -> M: ...


@dataclass
class Held(Generic[M]):
    """What an edge holds: pieces to be merged, and whether it is a local map that nothing was added to."""

    pieces: list[M]
    is_local: bool


class Walk(Generic[M]):
    """A linearised graph while its vertices are eliminated."""

    def __init__(self, linear: Linear[M], algebra: Algebra[M], edges: Mapping[Edge, M] | None = None) -> None:
        self.algebra, self.linear = algebra, linear
        self.preds: dict[int, dict[int, Held[M]]] = {}
        self.succs: dict[int, dict[int, Held[M]]] = {}
        self.unwanted = linear.unwanted
        for edge, m in (linear.edges if edges is None else edges).items():
            self.hold(edge, Held([m], is_local=True))

    def hold(self, edge: Edge, held: Held[M]) -> None:
        target, source = edge
        self.preds.setdefault(target, {})[source] = held
        self.succs.setdefault(source, {})[target] = held

    def add(self, edge: Edge, m: M) -> None:
        held = self.preds.get(edge[0], {}).get(edge[1])
        if held is None:
            self.hold(edge, Held([m], is_local=False))
        else:
            held.pieces.append(m)
            held.is_local = False

    def drop(self, vertex: int) -> None:
        for i in self.preds.pop(vertex, {}):
            del self.succs[i][vertex]
        for j in self.succs.pop(vertex, {}):
            del self.preds[j][vertex]

    def read(self, held: Held[M], edge: Edge, at: int, uses: int, algebra: Algebra[M]) -> M | None:
        if held.is_local and len(held.pieces) == 1:
            return held.pieces[0]
        return algebra.merge(held.pieces, edge, at, settle=uses > 1)

    def neighbours(self, v: int) -> list[int]:
        return [*self.preds.get(v, ()), *self.succs.get(v, ())]

    def copy(self, algebra: Algebra[M]) -> Walk[M]:
        """The same graph, to be taken further apart from this one."""
        twin = Walk(self.linear, algebra, {})
        for j, row in self.preds.items():
            for i, held in row.items():
                twin.hold((j, i), Held(list(held.pieces), held.is_local))
        return twin

    def products(self, v: int, algebra: Algebra[M]) -> list[tuple[Edge, M]]:
        """What the elimination of a vertex adds to the edges around it."""
        ins, outs = self.preds.get(v, {}), self.succs.get(v, {})
        left = {j: self.read(held, (j, v), v, len(ins), algebra) for j, held in outs.items()}
        right = {i: self.read(held, (v, i), v, len(outs), algebra) for i, held in ins.items()}
        made: list[tuple[Edge, M]] = []
        for j, out in left.items():
            for i, inn in right.items():
                if out is not None and inn is not None and (j, i) not in self.unwanted:
                    new = algebra.multiply(out, inn, v)
                    if new is not None:
                        made.append(((j, i), new))
        return made

    def eliminate(self, v: int) -> None:
        made = self.products(v, self.algebra)
        self.drop(v)
        for edge, new in made:
            self.add(edge, new)

    def run(self, order: Iterable[int]) -> None:
        for v in order:
            self.eliminate(v)

    def edge(self, edge: Edge) -> M | None:
        """The merged map of an edge; None where there is none."""
        held = self.preds.get(edge[0], {}).get(edge[1])
        m = None if held is None else self.read(held, edge, edge[0], 1, self.algebra)
        return None if m is None else self.algebra.close(m, edge)

    def edges(self) -> dict[Edge, M]:
        """All edges that are left, merged."""
        found = {(j, i): self.read(held, (j, i), j, 1, self.algebra)
                 for j, row in self.preds.items() for i, held in row.items()}
        return {edge: m for edge, m in found.items() if m is not None}


class Maps:
    """The algebra of linear maps: nodes are built, on the line of the vertex that is eliminated."""

    def __init__(self, linear: Linear[LinMap]) -> None:
        self.nodes = linear.nodes

    def multiply(self, left: LinMap, right: LinMap, at: int) -> LinMap | None:
        with located(self.nodes[at]):
            return compose(left, right) or None

    def merge(self, pieces: list[LinMap], edge: Edge, at: int, *, settle: bool) -> LinMap | None:
        target, source = edge
        with located(self.nodes[at]):
            found = merged([piece for m in pieces for piece in m], self.nodes[target].type.shape,
                           self.nodes[source].type.shape, self.nodes[at].type.dtype)
            return (settled(found) if settle else found) or None


    def close(self, m: LinMap, edge: Edge) -> LinMap:
        with located(self.nodes[edge[0]]):
            return closed(m, self.nodes[edge[0]].type.shape, self.nodes[edge[1]].type.shape)


def closed(m: LinMap, out_shape: Shape, in_shape: Shape) -> LinMap:
    """The map with its opaque pieces swept, from the side that has fewer elements."""
    if all(isinstance(piece, Term) for piece in m):
        return m
    rows, columns = estimate(product(out_shape)), estimate(product(in_shape))
    return compose(m, identity(in_shape)) if columns < rows else compose(identity(out_shape), m)


def eliminated(linear: Linear[Map], order: Iterable[int], algebra: Algebra[Map]) -> Walk[Map]:
    """All vertices of the order eliminated."""
    walk = Walk(linear, algebra)
    walk.run(order)
    return walk


def jacobian_maps(linear: Linear[LinMap], order: Iterable[int]) -> dict[tuple[int, int], LinMap]:
    """The map of every wanted pair (position of y, position of x)."""
    walk = eliminated(linear, order, Maps(linear))
    return {pair: (() if edge is None else walk.edge(edge) or ()) for pair, edge in linear.pairs()}
