"""Segments: a linearised graph cut at the vertices that all paths cross, and the bracketing of the chain of them.

    x --A--> h --(sin, cos, *)--> u --B--> y        separators h, u; elements A, (h..u), B

Element k runs from separator k to separator k + 1 (the ends stand for all sources and all sinks).  The chain is
searched by `best_bracketing` with this model: a product is the set of edges between two separators, each with its form.
Where an element is a single edge its matrix is given, and applying it is multiplying by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from .bracketing import Adjoint, Bracketing, Leaf, Multiply, Tangent, postorder
from .chain import Accumulated, Priced
from .elimination import Walk
from .forms import Bill, Form, Forms
from .tensor import Edge, Linear, Map

Block = tuple[tuple[Edge, Form], ...]


@dataclass(frozen=True)
class Segments:
    """`cuts` are the inner separators, ascending; element k has its vertices in `interiors` and edges in `edges`."""

    cuts: tuple[int, ...]
    interiors: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[Edge, ...], ...]


def segments(linear: Linear[Map]) -> Segments:
    """The cut at all separators: vertices over which no edge jumps in the topological order."""
    inner = linear.inner
    starts = [v for v in linear.sources if v is not None]
    ends = [v for v in linear.sinks if v is not None]
    is_inner = frozenset(inner)
    farthest: dict[int, int] = dict.fromkeys(starts, 0)
    for j, i in linear.edges:
        farthest[i] = max(farthest.get(i, 0), j)
    cuts: list[int] = []
    reach, last_start, first_end = 0, max(starts, default=0), min(ends, default=0)
    for v in range(len(linear.nodes)):
        if v in is_inner and reach <= v and v > last_start and v < first_end:
            cuts.append(v)
        reach = max(reach, farthest.get(v, 0))
    return split_at(linear, inner, cuts)


def split_at(linear: Linear[Map], inner: Iterable[int], cuts: Sequence[int]) -> Segments:
    """Vertices and edges by the element that they lie in."""
    number, element_of = 0, {}
    for v in range(len(linear.nodes)):
        if number < len(cuts) and v == cuts[number]:
            number += 1
        element_of[v] = number
    interiors: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    edges: list[list[Edge]] = [[] for _ in range(len(cuts) + 1)]
    is_cut = frozenset(cuts)
    for v in inner:
        if v not in is_cut:
            interiors[element_of[v]].append(v)
    for edge in linear.edges:
        edges[element_of[edge[1]]].append(edge)
    return Segments(tuple(cuts), tuple(map(tuple, interiors)), tuple(map(tuple, edges)))


class SegmentChain:
    """The cost model of the chain of segments."""

    def __init__(self, forms: Forms, linear: Linear[Form], parts: Segments, tapes: dict[int, int]) -> None:
        self.forms, self.linear, self.parts, self.tapes = forms, linear, parts, tapes
        self.length = len(parts.interiors)

    def run(self, edges: dict[Edge, Form], order: Iterable[int]) -> Priced[Block]:
        bill = Bill(self.forms, self.linear)
        walk = Walk(self.linear, bill, edges)
        walk.run(order)
        return bill.cost, tuple(walk.edges().items())

    def local(self, element: int) -> dict[Edge, Form]:
        return {edge: self.linear.edges[edge] for edge in self.parts.edges[element]}

    def preaccumulate(self, element: int) -> Sequence[Accumulated[Block]]:
        inner = self.parts.interiors[element]
        if not inner:
            return [Accumulated("given", *self.run(self.local(element), ()))]
        ways = (("tangent", inner, 0), ("adjoint", inner[::-1], self.tape(element)))
        return [Accumulated(mode, *self.run(self.local(element), order), tape) for mode, order, tape in ways]

    def multiply(self, left: Block, right: Block) -> Priced[Block] | None:
        at = left[0][0][1] if left else None
        if at is None or not right or right[0][0][0] != at:
            return 0, ()
        return self.run({**dict(left), **dict(right)}, (at,))

    def tangent(self, element: int, product: Block) -> Priced[Block] | None:
        if not self.parts.interiors[element]:
            return None
        order = (self.parts.cuts[element - 1], *self.parts.interiors[element])
        return self.run({**self.local(element), **dict(product)}, order)

    def adjoint(self, element: int, product: Block) -> Priced[Block] | None:
        if not self.parts.interiors[element]:
            return None
        order = (self.parts.cuts[element], *self.parts.interiors[element][::-1])
        return self.run({**self.local(element), **dict(product)}, order)

    def tape(self, element: int) -> int:
        return self.tapes.get(element, 0)

    def finish(self, product: Block) -> int:
        bill = Bill(self.forms, self.linear)
        for edge, form in product:
            bill.finish(form, edge)
        return bill.cost


def order_of(tree: Bracketing, parts: Segments) -> tuple[int, ...]:
    """The elimination order that a bracketing of the chain of segments stands for."""
    order: list[int] = []
    reach: list[tuple[int, int]] = []  # first and last element of the finished parts
    for node in postorder(tree):
        match node:
            case Leaf(element, mode):
                inner = parts.interiors[element]
                order += inner[::-1] if mode == "adjoint" else inner
                reach.append((element, element))
            case Multiply():
                (left, last), (first, _) = reach.pop(), reach.pop()
                order.append(parts.cuts[left - 1])
                reach.append((first, last))
            case Tangent(first, last):
                for k in range(first, last + 1):
                    order += (parts.cuts[k - 1], *parts.interiors[k])
                reach.append((reach.pop()[0], last))
            case Adjoint(first, last):
                for k in range(last, first - 1, -1):
                    order += (parts.cuts[k], *parts.interiors[k][::-1])
                reach.append((first, reach.pop()[1]))
    return tuple(order)
