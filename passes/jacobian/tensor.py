"""The linearised graph of a derivative: vertices with sizes, edges with linear maps, and what is asked of it.

    y = tanh(A @ x)     ->      x --A--> einsum_3 --diag(1 - y*y)--> y

Vertices are numbered in a topological order.  Every x is a source (no edge enters it) and every y a sink (none leaves
it): where a node is both, or lies between, the source or sink is a vertex of its own, tied to it by an identity.  All
other vertices are inner; eliminating all of them, in any order, leaves the Jacobians on the edges from sources to
sinks.

The maps on the edges are of one of three kinds, which the same walks serve: real ones, over nodes of the user's graph;
ghosts, over placeholders of a graph of their own, with which a plan is priced exactly; and forms (`forms`), on which
plans are searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from graphc.ir import build
from graphc.ir.dims import product
from graphc.ir.linmap import LinMap, Term, identity
from graphc.ir.linmap.tensors import condition_of
from graphc.ir.linmap.term import Opaque, Size
from graphc.ir.node import Graph, Node, ancestors, located, make
from graphc.ir.types import Shape

from ..differentiate import between
from .numbering import lasting_graph, numbered

Map = TypeVar("Map")
Other = TypeVar("Other")
Edge = tuple[int, int]  # target, source
Pair = tuple[int, int]  # position among the ys, position among the xs


@dataclass(frozen=True)
class Linear(Generic[Map]):
    """See the module's text; `nodes` has the node of every vertex, for its type, its name and its line."""

    nodes: tuple[Node, ...]
    edges: Mapping[Edge, Map]
    sources: tuple[int | None, ...]  # the vertex of every x; None where no y depends on it
    sinks: tuple[int | None, ...]
    skipped: frozenset[Pair] = frozenset()  # pairs that nobody asks for
    symmetric: bool = False  # the matrix of all rows and columns is symmetric, the ys in the order of the xs

    @property
    def inner(self) -> tuple[int, ...]:
        ends = {*self.sources, *self.sinks}
        touched = {v for edge in self.edges for v in edge}
        return tuple(v for v in range(len(self.nodes)) if v in touched and v not in ends)

    def shape(self, vertex: int) -> Shape:
        return self.nodes[vertex].type.shape

    def size(self, vertex: int) -> Size:
        return product(self.shape(vertex))

    @property
    def unwanted(self) -> frozenset[Edge]:
        """Edges from a source to a sink that nobody asks for."""
        wanted = {(t, s) for p, t in enumerate(self.sinks) for q, s in enumerate(self.sources)
                  if t is not None and s is not None and (p, q) not in self.skipped}
        return frozenset((t, s) for t in self.sinks for s in self.sources
                         if t is not None and s is not None and (t, s) not in wanted)

    def pairs(self) -> list[tuple[Pair, Edge | None]]:
        """Every wanted (y, x) with the edge that will hold its Jacobian."""
        return [((p, q), None if t is None or s is None else (t, s))
                for p, t in enumerate(self.sinks) for q, s in enumerate(self.sources) if (p, q) not in self.skipped]


def linearised(ys: Sequence[Node], xs: Sequence[Node], skipped: Iterable[Pair] = (), *,
               symmetric: bool = False) -> Linear[LinMap]:
    """The linearised graph between the xs and the ys, pruned to what lies on a path."""
    part = between(ys, xs)
    part.nodes[:] = numbered(part, ys)
    used = {operand for node in part.nodes for operand, _ in part.edges(node)}
    nodes: list[Node] = []
    edges: dict[Edge, LinMap] = {}
    vertex: dict[Node, int] = {}
    sources: dict[Node, int] = {}
    wanted, asked = set(xs), set(ys)
    for node in part.nodes:
        own = part.edges(node)
        if node in wanted:
            sources[node] = len(nodes)
            nodes.append(node)
            if not own and node not in asked:
                vertex[node] = sources[node]
                continue
            edges[len(nodes), sources[node]] = identity(node.type.shape)
        vertex[node] = len(nodes)
        nodes.append(node)
        for operand, local in own:
            if local and operand in vertex:
                edges[vertex[node], vertex[operand]] = local
    sinks = sink_vertices(ys, used, vertex, nodes, edges)
    found = Linear(tuple(nodes), edges, tuple(sources.get(x) for x in xs), tuple(sinks.get(y) for y in ys),
                   frozenset(skipped), symmetric)
    return replace(found, edges=live_edges(found))


def sink_vertices(ys: Sequence[Node], used: set[Node], vertex: dict[Node, int], nodes: list[Node],
                  edges: dict[Edge, LinMap]) -> dict[Node, int]:
    sinks: dict[Node, int] = {}
    for y in dict.fromkeys(ys):
        if y not in vertex:
            continue
        if y in used:
            edges[len(nodes), vertex[y]] = identity(y.type.shape)
            sinks[y] = len(nodes)
            nodes.append(y)
        else:
            sinks[y] = vertex[y]
    return sinks


def live_edges(linear: Linear[Map]) -> dict[Edge, Map]:
    """Edges on a path from a source to a sink."""
    from_source = reached(linear.sources, [(i, j) for j, i in linear.edges])
    to_sink = reached(linear.sinks, list(linear.edges))
    return {(j, i): m for (j, i), m in linear.edges.items() if i in from_source and j in to_sink}


def reached(starts: Iterable[int | None], arrows: Sequence[tuple[int, int]]) -> set[int]:
    following: dict[int, list[int]] = {}
    for a, b in arrows:
        following.setdefault(a, []).append(b)
    pending = [v for v in starts if v is not None]
    found = set(pending)
    while pending:
        for v in following.get(pending.pop(), ()):
            if v not in found:
                found.add(v)
                pending.append(v)
    return found


# -- ghosts --
class Ghosts:
    """Placeholders that stand for the factors of local maps; `time` has the vertex that each belongs to.

    Opaque pieces are code over the user's nodes: a graph that has one is its own ghost, with all that it has as given.
    """

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = graph or lasting_graph()
        self.ghosts: dict[Node, Node] = {}
        self.time: dict[Node, int] = {}
        self.leaves: set[Node] = set()  # stand for what is in memory anyway

    @property
    def given(self) -> list[Node]:
        return list(self.ghosts.values())

    def of(self, node: Node, time: int) -> Node:
        """The ghost of a node: of the same type, and a mask where it is one."""
        if node not in self.ghosts:
            condition = condition_of(node)
            stands = condition if condition is not None else node
            ghost = make("placeholder", graph=self.graph, name=f"ghost_{len(self.ghosts)}", dtype=stands.type.dtype,
                         shape=stands.type.shape)
            self.time[ghost] = time
            self.put(node, ghost if condition is None else build.cast(ghost, node.type.dtype), time)
        return self.ghosts[node]

    def put(self, node: Node, ghost: Node, time: int) -> None:
        self.ghosts[node] = ghost
        self.time[ghost] = time
        if node.op.kind == "leaf":
            self.leaves.add(ghost)

    def map(self, m: LinMap, time: int) -> LinMap:
        return tuple(self.piece(piece, time) for piece in m)

    def piece(self, piece: Term | Opaque, time: int) -> Term | Opaque:
        if isinstance(piece, Opaque):
            return piece
        factors = tuple((self.of(node, time), atoms) for node, atoms in piece.factors)
        views = tuple(v if v.index is None else replace(v, index=self.of(v.index, time)) for v in piece.views)
        return replace(piece, factors=factors, views=views)


def has_opaque(linear: Linear[LinMap]) -> bool:
    return any(isinstance(piece, Opaque) for m in linear.edges.values() for piece in m)


def ghosted(linear: Linear[LinMap]) -> tuple[Linear[LinMap], Ghosts]:
    """The same linearised graph over ghosts, in an order of the edges that is always the same.

    Its nodes are placeholders too, so that what is kept of a plan does not keep the user's graph.
    """
    if has_opaque(linear):
        return linear, own_ghosts(linear)
    ghosts = Ghosts()
    with ghosts.graph:
        edges = {edge: ghosts.map(linear.edges[edge], edge[0]) for edge in sorted(linear.edges)}
        nodes = tuple(vertex_ghost(node, ghosts.graph) for node in linear.nodes)
    return replace(linear, nodes=nodes, edges=edges), ghosts


def vertex_ghost(node: Node, graph: Graph) -> Node:
    with located(node):
        return make("placeholder", graph=graph, name=node.name, dtype=node.type.dtype, shape=node.type.shape)


def own_ghosts(linear: Linear[LinMap]) -> Ghosts:
    ghosts = Ghosts(linear.nodes[0].graph)
    for node in ancestors(known_nodes(linear)):
        ghosts.put(node, node, 0)
    for edge in sorted(linear.edges):
        for node in nodes_of(linear.edges[edge]):
            ghosts.put(node, node, edge[0])
    return ghosts


def known_nodes(linear: Linear[LinMap]) -> list[Node]:
    """The vertices and the factors of the local maps: what there is before anything is multiplied."""
    return [*linear.nodes, *(node for m in linear.edges.values() for node in nodes_of(m))]


def nodes_of(m: LinMap) -> list[Node]:
    """The distinct nodes of a map, in the order of their places."""
    found: dict[Node, None] = {}
    for piece in m:
        if isinstance(piece, Term):
            found.update((node, None) for node, _ in piece.factors)
            found.update((v.index, None) for v in piece.views if v.index is not None)
    return list(found)
