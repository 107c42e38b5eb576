"""Small static tensor graphs as scalar code, and Jacobians of the scalars put together as one node.

    y = einsum(a[2,2], x[2]; ij, j -> i)    ->    y[0] = a[0,0]*x[0] + a[0,1]*x[1],    y[1] = ..

Only what depends on the xs is taken apart; everything else stays as it is and is read element by element.  A graph is
refused (None) if a size is symbolic, if it takes more than `MOST_OPERATIONS` scalar operations, or if it has an op that
no row of `ELEMENTS` expands.  An element of an x is a slice of it, so what is differentiated by is still the x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product as index_product
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.node import Node, constant, located, make, uniform_value
from graphc.ir.ops.indexing import grid
from graphc.ir.ops.movement import positions
from graphc.ir.types import is_float

from ...differentiate import between

MOST_OPERATIONS = 5000
Elements = np.ndarray[Any, Any]  # of nodes of shape ()


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
    if not all(is_float(node.dtype) and (node.op.name in ELEMENTS or node.op.kind == "elementwise") for node in live):
        return None
    if sum(operations(node) for node in live) > limit or sum(elements(x) for x in xs) > limit:
        return None
    parts = Parts()
    for x in dict.fromkeys(xs):
        parts.of(x)
    for node in live:
        with located(node):
            found = expanded(node, parts)
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


# -- one function per op: from the elements of the operands --
def expanded(node: Node, parts: Parts) -> Elements | None:
    operands = [parts.of(o) if node.op.name not in INDEXED or k == 0 else np.empty(0, object)
                for k, o in enumerate(node.operands)]
    if node.op.kind == "elementwise":
        found = np.empty(node.shape, object)
        for index in np.ndindex(found.shape):
            at: list[Node] = [o[index] for o in operands]  # type: ignore[misc]
            found[index] = make(node.op.name, at, graph=node.graph, **node.attrs)
        return found
    return ELEMENTS[node.op.name](node, *operands)


def broadcast(node: Node, x: Elements) -> Elements:
    sizes = [1] * node.ndim
    for size, axis in zip(x.shape, node.attrs["axes"]):
        sizes[axis] = size
    return np.broadcast_to(x.reshape(sizes), node.shape)  # type: ignore[arg-type]


def zeros(node: Node) -> Elements:
    found = np.empty(node.shape, object)
    found.fill(build.zeros(node.dtype, (), node.graph))
    return found


def sliced(node: Node, x: Elements) -> Elements:
    return np.asarray(x[positions(dict(node.attrs), node.shape)], object) if node.ndim else x


def padded(node: Node, x: Elements) -> Elements:
    found = zeros(node)
    found[positions(dict(node.attrs), x.shape) if node.ndim else ()] = x
    return found


def diagonal(node: Node, x: Elements) -> Elements:
    found = zeros(node)
    owner = {axis: k for k, group in enumerate(node.attrs["axes"]) for axis in group}
    places = np.ogrid[tuple(slice(n) for n in x.shape)]
    found[tuple(places[owner[axis]] for axis in range(node.ndim))] = x
    return found


def folded(op: str, empty: float) -> Callable[[Node, Elements], Elements]:
    """A reduction over the node's axes, from the first element to the last."""
    def run(node: Node, x: Elements) -> Elements:
        axes = node.attrs["axes"]
        rest = [k for k in range(x.ndim) if k not in axes]
        rows = x.transpose(*rest, *axes).reshape(*(x.shape[k] for k in rest), -1)
        found = np.empty(node.shape, object)
        for index in np.ndindex(found.shape):
            found[index] = fold(op, list(rows[index]), node, empty)
        return found
    return run


def fold(op: str, terms: Sequence[Node], like: Node, empty: float) -> Node:
    total: Node | None = None
    for term in terms:
        total = term if total is None else build.elementwise(op, total, term)
    return build.full(empty, like.dtype, (), like.graph) if total is None else total


def einsum(node: Node, *operands: Elements) -> Elements:
    groups, out = node.attrs["labels"], node.attrs["out"]
    sizes = {x: n for labels, o in zip(groups, operands) for x, n in zip(labels, o.shape)}
    inner = [x for x in sizes if x not in out]
    found = np.empty(node.shape, object)
    for index in np.ndindex(found.shape):
        terms = []
        for rest in index_product(*(range(sizes[x]) for x in inner)):
            at = {**dict(zip(out, index)), **dict(zip(inner, rest))}
            factors: list[Any] = [o[tuple(at[x] for x in labels)] for labels, o in zip(groups, operands)]
            terms.append(fold("mul", factors, node, 1))
        found[index] = fold("add", terms, node, 0)
    return found


def indices_of(node: Node) -> tuple[Elements, ...] | None:
    """The values of constant index operands."""
    found: list[Elements] = []
    for o in node.operands[1:]:
        number = uniform_value(o)
        if o.op.name != "constant" and number is None:
            return None
        found.append(o.attrs["value"].array if o.op.name == "constant" else np.full(shape_of(o), number))
    return tuple(found)


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape, which holds no symbols."""
    return tuple(size for size in node.shape if isinstance(size, int))


def gather(node: Node, x: Elements, *_: Elements) -> Elements | None:
    indices = indices_of(node)
    return None if indices is None else np.asarray(x[grid(dict(node.attrs), x.shape, node.shape, indices)], object)


def scatter_add(node: Node, u: Elements, *_: Elements) -> Elements | None:
    indices = indices_of(node)
    if indices is None:
        return None
    places = grid(dict(node.attrs), node.shape, u.shape, indices)
    terms: dict[tuple[int, ...], list[Any]] = {}
    for index in np.ndindex(u.shape):
        terms.setdefault(tuple(int(p[index]) for p in places), []).append(u[index])
    found = zeros(node)
    for place, values in terms.items():
        found[place] = fold("add", values, node, 0)
    return found


def linear_scan(node: Node, a: Elements, b: Elements) -> Elements:
    axis = node.attrs["axis"]
    found = np.empty(node.shape, object)
    steps = range(found.shape[axis])
    outer = [range(n) for k, n in enumerate(found.shape) if k != axis]
    for index in index_product(*outer):
        last: Node | None = None
        for k in reversed(steps) if node.attrs["reverse"] else steps:
            at = (*index[:axis], k, *index[axis:])
            carried = None if last is None else build.elementwise("mul", a[at], last)
            last = found[at] = b[at] if carried is None else build.elementwise("add", carried, b[at])
    return found


INDEXED = frozenset({"gather", "scatter_add"})
ELEMENTS: dict[str, Callable[..., Elements | None]] = {
    "broadcast": broadcast,
    "reshape": lambda node, x: x.reshape(node.shape),
    "transpose": lambda node, x: x.transpose(node.attrs["axes"]),
    "slice": sliced,
    "pad": padded,
    "concat": lambda node, *xs: np.concatenate(xs, node.attrs["axis"]),
    "diagonal": diagonal,
    "sum": folded("add", 0),
    "prod": folded("mul", 1),
    "einsum": einsum,
    "gather": gather,
    "scatter_add": scatter_add,
    "linear_scan": linear_scan,
}


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
