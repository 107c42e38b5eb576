"""Small static tensor graphs as scalar code, and Jacobians of the scalars put together as one node.

    y = einsum(a[2,2], x[2]; ij, j -> i)    ->    y[0] = a[0,0]*x[0] + a[0,1]*x[1],    y[1] = ..

Only what depends on the xs is taken apart; everything else stays as it is and is read element by element.  A graph is
refused (None) if a size is symbolic, if it takes more than `MOST_OPERATIONS` scalar operations, or if it has an op that
`elements` does not expand.  An element of an x is a slice of it, so what is differentiated by is still the x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.node import Node, constant, located, make, uniform_value
from graphc.ir.types import is_float

from ...differentiate import between
from ...elements import INDEXED, SMOOTH, Elements, expanded

MOST_OPERATIONS = 5000


@dataclass
class Expanded:
    """The elements of ys and xs; those of the xs are the scalars to differentiate by."""

    ys: list[Elements]
    xs: list[Elements]


def expand(ys: Sequence[Node], xs: Sequence[Node], limit: int = MOST_OPERATIONS) -> Expanded | None:
    """The ys as scalar code of the elements of the xs; None where that cannot be or is too much."""
    part = between(ys, xs)
    live = [node for node in part.nodes if part.active[node]]
    targets = set(xs)
    if any(node in targets for node in live) or not all(is_static(node) for node in (*ys, *xs, *live)):
        return None
    if not all(is_float(node.dtype) and (node.op.name in SMOOTH or node.op.kind == "elementwise") for node in live):
        return None
    if sum(operations(node) for node in live) > limit or sum(elements(x) for x in xs) > limit:
        return None
    parts = Parts()
    for x in dict.fromkeys(xs):
        parts.of(x)
    for node in live:
        with located(node):
            found = expanded(node, SCALARS, parts.operands(node))
        if found is None:
            return None
        parts.known[node] = found
    return Expanded([parts.of(y) for y in ys], [parts.of(x) for x in xs])


def is_static(node: Node) -> bool:
    return all(isinstance(size, int) for o in (node, *node.operands) for size in o.shape)


def elements(node: Node) -> int:
    assert isinstance(node.size, int)
    return node.size


def operations(node: Node) -> int:
    """About how many scalar operations a node becomes."""
    if node.op.name == "einsum":
        sizes = {x: int(n) for labels, o in zip(node.attrs["labels"], node.operands) for x, n in zip(labels, o.shape)}
        return int(np.prod(list(sizes.values()), dtype=np.int64)) * len(node.operands)
    return max([elements(node), *(elements(o) for o in node.operands)])


@dataclass
class Parts:
    """The elements of nodes that were taken apart; of any other node, elements are read from it."""

    known: dict[Node, Elements] = field(default_factory=dict)

    def of(self, node: Node) -> Elements:
        if node not in self.known:
            found = np.empty(node.shape, object)
            for index in np.ndindex(found.shape):
                found[index] = element(node, index)
            self.known[node] = found
        return self.known[node]

    def operands(self, node: Node) -> list[Elements]:
        """The elements of the operands; indices stay what they are."""
        return [self.of(o) if node.op.name not in INDEXED or k == 0 else np.empty(0, object)
                for k, o in enumerate(node.operands)]


class Scalars:
    """Elements are nodes of shape ()."""

    def number(self, value: Any, like: Node) -> Node:
        return build.full(value, like.dtype, (), like.graph)

    def apply(self, op: str, operands: Sequence[Node], like: Node) -> Node:
        return make(op, operands, graph=like.graph, **like.attrs)

    def fold(self, op: str, terms: Sequence[Node], like: Node) -> Node:
        """From the first to the last."""
        total = terms[0]
        for term in terms[1:]:
            total = build.elementwise(op, total, term)
        return total

    def scan(self, a: Node, last: Node | None, b: Node, like: Node) -> Node:
        return b if last is None else build.elementwise("add", build.elementwise("mul", a, last), b)


SCALARS = Scalars()


def element(node: Node, index: tuple[int, ...]) -> Node:
    """One element, of shape ()."""
    if not node.ndim:
        return node
    number = uniform_value(node)
    if number is not None:
        return build.full(number, node.dtype, (), node.graph)
    if node.op.name == "constant":
        return constant(node.attrs["value"].array[index], node.dtype, node.graph)
    ones = (1,) * node.ndim
    return build.reshape(build.slice_(node, index, ones, ones), ())


# -- the way back --
def assembled(entries: Elements, dtype: str) -> Node:
    """One node of all these scalars; runs of known numbers become one constant."""
    if not entries.ndim:
        only: Any = entries[()]
        return only  # type: ignore[no-any-return]
    graph = entries.flat[0].graph
    pieces: list[Node] = []
    numbers: list[Any] = []

    def close() -> None:
        if numbers:
            pieces.append(constant(np.array(numbers), dtype, graph))
            numbers.clear()

    for entry in entries.flat:
        number = uniform_value(entry)
        if number is not None:
            numbers.append(number)
            continue
        close()
        pieces.append(build.reshape(entry, (1,)))
    close()
    return build.reshape(build.concat(pieces, 0), entries.shape)
