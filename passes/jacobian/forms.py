"""Forms: linear maps without their nodes, on which plans are searched.

A **form** is the structure of a map (interned, `kind`) and a name for each of its factors.  What is done to maps once
is done to all of the same kinds whose names coincide in the same places: the price and the structure of the result are
remembered, and a step of a search costs a dictionary look-up.  A new factor is named by the step and the names that
made it, so equal products have equal names, are known to be equal when maps are added, and are charged once (`Bill`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from graphc.ir import build
from graphc.ir.linmap import LinMap, Term, compose, merged, settled
from graphc.ir.linmap.contract import estimate
from graphc.ir.linmap.cost import price
from graphc.ir.linmap.merge import as_tensor
from graphc.ir.linmap.tensors import condition_of
from graphc.ir.linmap.term import Opaque, Size
from graphc.ir.node import Graph, Node, make
from graphc.ir.types import Type

from .elimination import closed
from .numbering import lasting_graph
from .tensor import Edge, Linear, has_opaque, known_nodes, nodes_of


class Form(NamedTuple):
    kind: int
    names: tuple[int, ...]


class Kind(NamedTuple):
    """A structure: pieces whose k-th distinct node is a placeholder numbered k; equal structures have equal keys."""

    pieces: LinMap
    nodes: tuple[Node, ...]
    key: Hashable


class Result(NamedTuple):
    """What a step gives: its price, its kind, and for every factor its place among the operands' (-1: new)."""

    cost: int
    kind: int
    origins: tuple[int, ...]


class Forms:
    """The interned kinds and the remembered steps of one planning, and the graph of its placeholders.

    Where an opaque piece is code over the user's nodes, that is the user's graph, and `given` is in it already.
    """

    def __init__(self, graph: Graph | None = None, given: Sequence[Node] = ()) -> None:
        self.graph = graph or lasting_graph()
        self.given = tuple(given)
        self.kinds: list[Kind] = []
        self.kind_of: dict[Hashable, int] = {}
        self.steps: dict[Hashable, Result] = {}
        self.names: dict[Hashable, int] = {}
        self.stands: dict[Hashable, Node] = {}
        self.taken = 0  # steps so far, remembered ones included: the clock of searches

    # -- forms of maps --
    def of(self, m: LinMap) -> Form:
        """The form of a map over real nodes, which are their own names."""
        nodes = nodes_of(m)
        return Form(self.kind(m, nodes), tuple(self.name(node) for node in nodes))

    def name(self, what: Hashable) -> int:
        return self.names.setdefault(what, len(self.names))

    def kind(self, m: LinMap, nodes: Sequence[Node]) -> int:
        number = {node: k for k, node in enumerate(nodes)}
        key = tuple(piece_key(piece, number) for piece in m), tuple(node_key(node) for node in nodes)
        found = self.kind_of.get(key)
        if found is None:
            found = self.kind_of[key] = len(self.kinds)
            stands = tuple(self.stand(k, node_key(node)) for k, node in enumerate(nodes))
            self.kinds.append(Kind(renamed(m, dict(zip(nodes, stands))), stands, key))
        return found

    def stand(self, number: int, key: tuple[Type, bool]) -> Node:
        """The placeholder for the factor of this number and type."""
        found = self.stands.get((number, key))
        if found is None:
            kind, is_mask = key
            leaf = make("placeholder", graph=self.graph, name=f"stand_{len(self.stands)}",
                        dtype="bool" if is_mask else kind.dtype, shape=kind.shape)
            found = self.stands[number, key] = build.cast(leaf, kind.dtype) if is_mask else leaf
        return found

    def map(self, form: Form) -> LinMap:
        return self.kinds[form.kind].pieces

    # -- steps --
    def step(self, what: Hashable, function: Callable[..., LinMap],
             forms: Sequence[Form]) -> tuple[int, Form, Hashable]:
        """The price of function(*maps), the form of its result, and the name of the step."""
        self.taken += 1
        names: dict[int, int] = {}
        places = tuple([tuple([names.setdefault(n, len(names)) for n in form.names]) for form in forms])
        key = what, tuple([form.kind for form in forms]), places
        result = self.steps.get(key)
        if result is None:
            result = self.steps[key] = self.carried_out(function, forms, places)
        listed = tuple(names)
        known = self.name((key, listed))
        made = tuple([listed[o] if o >= 0 else self.name((known, o)) for o in result.origins])
        return result.cost, Form(result.kind, made), known

    def carried_out(self, function: Callable[..., LinMap], forms: Sequence[Form],
                    places: Sequence[tuple[int, ...]]) -> Result:
        """Runs the function on maps over placeholders, numbered as their names coincide."""
        shared: dict[int, Node] = {}
        maps: list[LinMap] = []
        with self.graph:
            for form, numbers in zip(forms, places):
                kind = self.kinds[form.kind]
                for node, number in zip(kind.nodes, numbers):
                    shared.setdefault(number, self.stand(number, node_key(node)))
                maps.append(renamed(kind.pieces, {node: shared[n] for node, n in zip(kind.nodes, numbers)}))
            result = function(*maps)
            nodes = nodes_of(result)
            place = {node: number for number, node in shared.items()}
            cost = estimate(price(nodes, (*shared.values(), *self.given)))
            origins = tuple(place.get(node, -1 - k) for k, node in enumerate(nodes))
            return Result(cost, self.kind(result, nodes), origins)


class Bill:
    """The algebra of forms for one candidate: adds up what its steps cost, equal steps once."""

    def __init__(self, forms: Forms, linear: Linear[Any]) -> None:
        self.forms, self.nodes = forms, linear.nodes
        self.cost = 0
        self.charged: set[Hashable] = set()

    def charge(self, step: tuple[int, Form, Hashable]) -> Form | None:
        cost, form, name = step
        if name not in self.charged:
            self.charged.add(name)
            self.cost += cost
        return form if self.forms.map(form) else None

    def multiply(self, left: Form, right: Form, at: int) -> Form | None:
        return self.charge(self.forms.step("compose", compose, (left, right)))

    def merge(self, pieces: list[Form], edge: Edge, at: int, *, settle: bool) -> Form | None:
        out, inn, dtype = self.nodes[edge[0]].type.shape, self.nodes[edge[1]].type.shape, self.nodes[at].type.dtype

        def function(*maps: LinMap) -> LinMap:
            found = merged([piece for m in maps for piece in m], out, inn, dtype)
            return settled(found) if settle else found

        return self.charge(self.forms.step(("merge", out, inn, dtype, settle), function, pieces))

    def close(self, form: Form, edge: Edge) -> Form:
        if all(isinstance(piece, Term) for piece in self.forms.map(form)):
            return form
        out, inn = self.nodes[edge[0]].type.shape, self.nodes[edge[1]].type.shape
        return self.charge(self.forms.step(("close", out, inn), lambda m: closed(m, out, inn), (form,))) or form

    def finish(self, form: Form, edge: Edge) -> None:
        """Charges for writing the map out."""
        out, inn, dtype = self.nodes[edge[0]].type.shape, self.nodes[edge[1]].type.shape, self.nodes[edge[0]].type.dtype
        self.charge(self.forms.step(("finish", out, inn, dtype), lambda m: as_tensor(m, out, inn, dtype), (form,)))


def forms_for(linear: Linear[LinMap]) -> Forms:
    return Forms(linear.nodes[0].graph, known_nodes(linear)) if has_opaque(linear) else Forms()


def form_graph(forms: Forms, linear: Linear[LinMap]) -> Linear[Form]:
    """The linearised graph with forms on its edges."""
    with forms.graph:
        edges = {edge: forms.of(linear.edges[edge]) for edge in sorted(linear.edges)}
    return replace(linear, edges=edges)  # type: ignore[arg-type, return-value]


def structure_key(forms: Forms, linear: Linear[Form]) -> Hashable:
    """Equal for linearised graphs on which the same plans cost the same."""
    edges = tuple((edge, forms.kinds[form.kind].key, form.names) for edge, form in linear.edges.items())
    return (edges, linear.sources, linear.sinks, tuple(sorted(linear.skipped)), linear.symmetric,
            tuple((n.op.name, n.type) for n in linear.nodes))


# -- walks over the nodes of a map --
def node_key(node: Node) -> tuple[Type, bool]:
    return node.type, condition_of(node) is not None


def piece_key(piece: Term | Opaque, number: dict[Node, int]) -> Hashable:
    if isinstance(piece, Opaque):
        return piece
    return (piece.out, piece.inn, piece.sizes, piece.coef,
            tuple((number[node], atoms) for node, atoms in piece.factors),
            tuple((v.target, v.base, v.strides, -1 if v.index is None else number[v.index], v.labels)
                  for v in piece.views))


def renamed(m: LinMap, new: dict[Node, Node]) -> LinMap:
    return tuple(renamed_piece(piece, new) for piece in m)


def renamed_piece(piece: Term | Opaque, new: dict[Node, Node]) -> Term | Opaque:
    if isinstance(piece, Opaque):
        return piece
    factors = tuple((new[node], atoms) for node, atoms in piece.factors)
    views = tuple(v if v.index is None else replace(v, index=new[v.index]) for v in piece.views)
    return replace(piece, factors=factors, views=views)


def size_of(linear: Linear[Any], vertex: int) -> int:
    size: Size = linear.size(vertex)
    return estimate(size)
