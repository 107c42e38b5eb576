"""Scalar code as a linearised graph: vertices are nodes, labels of edges are local partial derivatives.

Scalar code is a graph in which all nodes between the xs and the ys are elementwise ops of one shape and float dtype.
For the shape () these are numbers.  Any other shape is a batch of them: then every y depends on the same element of
an x only, and what is computed is one number per pair and element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.node import Node, ancestors, located
from graphc.ir.types import is_float

from ...differentiate import Between, between
from ...rewrite import Table, rewrite, table
from ...simplify import EXACT
from .expressions import ARITHMETIC, Expressions
from .graph import Dag, dag_of

RULES: Table = table(*EXACT)
Labels = tuple[dict[int, int], ...]  # labels[j][i]: the value of dj/di


@dataclass(frozen=True)
class Linear:
    """Vertices are the xs, then the nodes that depend on them; a y that is an x itself has a vertex of its own."""

    dag: Dag
    labels: Labels
    expressions: Expressions
    xs: tuple[Node, ...]
    ys: tuple[Node, ...]
    rows: tuple[int | None, ...]  # the vertex of each y, None where it depends on no x
    columns: tuple[int, ...]  # the vertex of each x
    values: tuple[int, ...]  # of the ys themselves: operations that are there already
    negations: int  # changes of sign among those that `expressions` does not count

    @cached_property
    def kept(self) -> Labels:
        """The labels of edges that lie on a path from an x to a y."""
        return tuple({i: value for i, value in row.items() if mask >> i & 1}
                     for row, mask in zip(self.labels, self.dag.preds))


def is_scalar_code(part: Between, ys: Sequence[Node], xs: Sequence[Node]) -> bool:
    kind = ys[0].type
    return is_float(kind.dtype) and all(node.type == kind for node in (*ys, *xs)) and all(
        node.type == kind and node.op.kind == "elementwise" and node.op.partials is not None
        for node in part.nodes if part.active[node])


def linearise(ys: Sequence[Node], xs: Sequence[Node]) -> Linear | None:
    """The linearised graph of the ys by the xs, None where this is no scalar code."""
    xs = tuple(dict.fromkeys(xs))
    part = between(ys, xs)
    if not is_scalar_code(part, ys, xs):
        return None
    expressions = Expressions()
    inner = [node for node in part.nodes if part.active[node]]
    columns = {x: k for k, x in enumerate(xs)}
    vertex = {**columns, **{node: len(xs) + k for k, node in enumerate(inner)}}
    expressions.of_nodes([*xs, *ys])
    found = partials_of(part, inner, expressions, xs)
    labels: list[dict[int, int]] = [{} for _ in range(len(xs) + len(inner))]
    for (node, operand), value in found.items():
        labels[vertex[node]][vertex[operand]] = value
    for x in xs:
        if vertex[x] != columns[x]:  # an x that depends on others: what others do through it, and what it does itself
            labels[vertex[x]][columns[x]] = expressions.constant(1.0)
    present = {y for y in part.nodes if y in set(ys)}
    rows = tuple(vertex[y] if y in present else None for y in ys)
    edges = [(i, j, kind_of(expressions, value)) for j, row in enumerate(labels) for i, value in row.items()]
    dag = dag_of(len(labels), edges, range(len(xs)), [row for row in rows if row is not None])
    return Linear(dag, tuple(labels), expressions, xs, tuple(ys), rows, tuple(range(len(xs))),
                  tuple(expressions.of_nodes(ys)), absorbed_negations(ys))


def absorbed_negations(ys: Sequence[Node]) -> int:
    """Changes of sign that only products and sums read, which as expressions pass them on."""
    nodes = ancestors(ys)
    read = {o for node in nodes if node.op.name not in (*ARITHMETIC, "neg") for o in node.operands}
    return sum(node.op.name == "neg" and node not in read for node in nodes)


def partials_of(part: Between, inner: Sequence[Node], expressions: Expressions, xs: Sequence[Node]
                ) -> dict[tuple[Node, Node], int]:
    """The values of all partial derivatives that are not zero, by (node, operand)."""
    places, nodes = [], []
    for node in inner:
        assert node.op.partials is not None
        for k in part.active[node]:
            rule = node.op.partials[k]
            with located(node):
                found = None if rule is None else rule(node, *node.operands)
            if found is not None:
                places.append((node, node.operands[k]))
                nodes.append(found)
    simple = rewrite(nodes, RULES, keep=[*xs, *part.nodes])
    values: dict[tuple[Node, Node], int] = {}
    for place, value in zip(places, expressions.of_nodes(simple)):
        values[place] = expressions.add(values.get(place, 0), value)
    return {place: value for place, value in values.items() if value}


def kind_of(expressions: Expressions, value: int) -> str:
    number = expressions.number(value)
    return "value" if number is None else "unit" if abs(number) == 1 else "constant"
