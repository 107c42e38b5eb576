"""What a node is the derivative of: remembered when it is made, and told to those who read the header of a library.

    noted("gradient", dw, [loss], [w])
    origin_text(dw, {loss: "loss"})          "gradient of loss by layer/w"

Equal nodes are one node, which may so be several derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from weakref import ref

from .ir.node import Node

LEAVES = ("placeholder", "variable", "constant")  # a derivative that is one of these says nothing by its origin
MOST = 4  # origins of one node
TEXTS = {
    "gradient": "gradient of {y} by {x}",
    "vjp": "a vector times the Jacobian of {y} by {x}",
    "jvp": "the Jacobian of {y} by {x} times a vector",
    "hvp": "the Hessian of {y} by {x} times a vector",
    "jacobian": "Jacobian of {y} by {x}: the axes of {y}, then those of {x}",
    "hessian": "Hessian of {y} by {x}: the axes of the first, then those of the second",
    "sparse_jacobian": "entries of the Jacobian of {y} by {x}, whose elements are numbered in row-major order",
    "sparse_hessian": "entries of the Hessian of {y} by {x}, whose elements are numbered in row-major order"}


class Subject(NamedTuple):
    """A node that need not live on for being spoken of."""

    node: ref[Node]
    text: str  # what it is called where nobody has a name for it


class Origin(NamedTuple):
    """A row of `TEXTS`, and the nodes that it is about."""

    kind: str
    ys: tuple[Subject, ...]
    xs: tuple[Subject, ...]


def noted(kind: str, node: Node, ys: Sequence[Node], xs: Sequence[Node]) -> Node:
    """The node, which now knows that it is this derivative too."""
    if node.op.name not in LEAVES:
        origin, known = Origin(kind, tuple(map(subject, ys)), tuple(map(subject, xs))), origins(node)
        if all(not same(origin, other) for other in known):
            node.origins = (*known, origin)[-MOST:]
    return node


def subject(node: Node) -> Subject:
    return Subject(ref(node), node.name if node.op.name in LEAVES[:2] else f"a result of {node.op.name}")


def origins(node: Node) -> tuple[Origin, ...]:
    found: tuple[Origin, ...] = getattr(node, "origins", ())
    return found


def same(a: Origin, b: Origin) -> bool:
    """Nodes are compared by identity: `==` of nodes is another node."""
    return a.kind == b.kind and all(
        len(m) == len(n) and all(p.node() is q.node() for p, q in zip(m, n)) for m, n in ((a.ys, b.ys), (a.xs, b.xs)))


def origin_text(node: Node, names: Mapping[Node, str]) -> str:
    """Which derivatives the node is, empty where it is none; `names` are those that nodes have for the reader."""
    return "; ".join(TEXTS[o.kind].format(y=nodes_text(o.ys, names), x=nodes_text(o.xs, names))
                     for o in origins(node))


def nodes_text(subjects: Sequence[Subject], names: Mapping[Node, str]) -> str:
    found = [(s.node(), s.text) for s in subjects]
    return " and ".join(text if node is None else names.get(node, text) for node, text in found)
