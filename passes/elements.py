"""Tensors as their elements: one function per structural op, from the elements of its operands to its own.

    y = einsum(a[2,2], x[2]; ij, j -> i)    ->    y[0] = a[0,0]*x[0] + a[0,1]*x[1],    y[1] = ..

What an element is, the caller says by an `Arithmetic`: a node of shape () where a Jacobian is planned on scalar code,
the number of an operation where straight-line code is written.  Sizes are static.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as index_product
from typing import Any, Protocol

import numpy as np

from graphc.ir.node import Node, uniform_value
from graphc.ir.ops.indexing import grid
from graphc.ir.ops.movement import positions

Elements = np.ndarray[Any, Any]  # of elements, whatever they are
INDEXED = frozenset({"gather", "scatter_add"})  # their operands but the first must be constants


class Arithmetic(Protocol):
    """How elements are made."""

    def number(self, value: Any, like: Node) -> Any:
        """A known number, of the node's dtype."""

    def apply(self, op: str, operands: Sequence[Any], like: Node) -> Any:
        """An elementwise op with the attributes of `like` if that is one of its kind; results are of its dtype."""

    def fold(self, op: str, terms: Sequence[Any], like: Node) -> Any:
        """Several elements joined by an op that is associative."""

    def scan(self, a: Any, last: Any | None, b: Any, like: Node) -> Any:
        """a * last + b; nothing comes before the first."""


def expanded(node: Node, make: Arithmetic, operands: Sequence[Elements]) -> Elements | None:
    """The node's elements; None where an index is known at run time only, or the op has no row.

    Index operands are not looked at: their places may hold anything.
    """
    if node.op.kind == "elementwise":
        return elementwise(node, make, operands)
    row = ELEMENTS.get(node.op.name)
    return None if row is None else row(node, make, *operands)


def elementwise(node: Node, make: Arithmetic, operands: Sequence[Elements]) -> Elements:
    name = node.op.name
    found = np.empty(node.shape, object)
    flat = found.reshape(-1)
    for k, at in enumerate(zip(*(o.flat for o in operands))):
        flat[k] = make.apply(name, at, node)
    return found


def is_expandable(node: Node) -> bool:
    """Whether `expanded` may know the op; it still refuses run-time indices."""
    return node.op.kind == "elementwise" or node.op.name in ELEMENTS


# -- one function per op --
def broadcast(node: Node, make: Arithmetic, x: Elements) -> Elements:
    sizes = [1] * node.ndim
    for size, axis in zip(x.shape, node.attrs["axes"]):
        sizes[axis] = size
    return np.broadcast_to(x.reshape(sizes), node.shape)  # type: ignore[arg-type]


def filled(node: Node, number: Any) -> Elements:
    found = np.empty(node.shape, object)
    found.fill(number)
    return found


def sliced(node: Node, make: Arithmetic, x: Elements) -> Elements:
    return np.asarray(x[positions(dict(node.attrs), node.shape)], object) if node.ndim else x


def padded(node: Node, make: Arithmetic, x: Elements) -> Elements:
    found = filled(node, make.number(0, node))
    found[positions(dict(node.attrs), x.shape) if node.ndim else ()] = x
    return found


def diagonal(node: Node, make: Arithmetic, x: Elements) -> Elements:
    found = filled(node, make.number(0, node))
    owner = {axis: k for k, group in enumerate(node.attrs["axes"]) for axis in group}
    places = np.ogrid[tuple(slice(n) for n in x.shape)]
    found[tuple(places[owner[axis]] for axis in range(node.ndim))] = x
    return found


def folded(op: str, empty: float | None) -> Callable[..., Elements]:
    """A reduction over the node's axes; one over nothing gives `empty`."""
    def run(node: Node, make: Arithmetic, x: Elements) -> Elements:
        axes = node.attrs["axes"]
        rest = [k for k in range(x.ndim) if k not in axes]
        rows = x.transpose(*rest, *axes).reshape(*(x.shape[k] for k in rest), -1)
        found = np.empty(node.shape, object)
        for index in np.ndindex(found.shape):
            found[index] = total(op, list(rows[index]), make, node, empty)
        return found
    return run


def total(op: str, terms: Sequence[Any], make: Arithmetic, like: Node, empty: float | None) -> Any:
    return make.fold(op, terms, like) if terms else make.number(empty, like)


def einsum(node: Node, make: Arithmetic, *operands: Elements) -> Elements:
    groups, out = node.attrs["labels"], node.attrs["out"]
    sizes = {x: n for labels, o in zip(groups, operands) for x, n in zip(labels, o.shape)}
    inner = [x for x in sizes if x not in out]
    ranges = list(index_product(*(range(sizes[x]) for x in inner)))
    found = np.empty(node.shape, object)
    for index in np.ndindex(found.shape):
        at = dict(zip(out, index))
        terms = []
        for rest in ranges:
            at.update(zip(inner, rest))
            factors = [o[tuple([at[x] for x in labels])] for labels, o in zip(groups, operands)]
            terms.append(total("mul", factors, make, node, 1))
        found[index] = total("add", terms, make, node, 0)
    return found


def indices_of(node: Node) -> tuple[Elements, ...] | None:
    """The values of constant index operands."""
    found: list[Elements] = []
    for o in node.operands[1:]:
        number = uniform_value(o)
        if o.op.name != "constant" and number is None:
            return None
        shape = tuple(size for size in o.shape if isinstance(size, int))
        found.append(o.attrs["value"].array if o.op.name == "constant" else np.full(shape, number))
    return tuple(found)


def gather(node: Node, make: Arithmetic, x: Elements, *_: Elements) -> Elements | None:
    indices = indices_of(node)
    return None if indices is None else np.asarray(x[grid(dict(node.attrs), x.shape, node.shape, indices)], object)


def scatter_add(node: Node, make: Arithmetic, u: Elements, *_: Elements) -> Elements | None:
    indices = indices_of(node)
    if indices is None:
        return None
    places = grid(dict(node.attrs), node.shape, u.shape, indices)
    terms: dict[tuple[int, ...], list[Any]] = {}
    for index in np.ndindex(u.shape):
        terms.setdefault(tuple(int(p[index]) for p in places), []).append(u[index])
    found = filled(node, make.number(0, node))
    for place, values in terms.items():
        found[place] = total("add", values, make, node, 0)
    return found


def linear_scan(node: Node, make: Arithmetic, a: Elements, b: Elements) -> Elements:
    axis = node.attrs["axis"]
    found = np.empty(node.shape, object)
    steps = range(found.shape[axis])
    outer = [range(n) for k, n in enumerate(found.shape) if k != axis]
    for index in index_product(*outer):
        last: Any | None = None
        for k in reversed(steps) if node.attrs["reverse"] else steps:
            at = (*index[:axis], k, *index[axis:])
            last = found[at] = make.scan(a[at], last, b[at], node)
    return found


def listed(node: Node, make: Arithmetic) -> Elements:
    """An iota: the position along its axis."""
    axis = node.attrs["axis"]
    found = np.empty(node.shape, object)
    for index in np.ndindex(found.shape):
        found[index] = make.number(index[axis], node)
    return found


SMOOTH: dict[str, Callable[..., Elements | None]] = {
    "broadcast": broadcast,
    "reshape": lambda node, make, x: x.reshape(node.shape),
    "transpose": lambda node, make, x: x.transpose(node.attrs["axes"]),
    "slice": sliced,
    "pad": padded,
    "concat": lambda node, make, *xs: np.concatenate(xs, node.attrs["axis"]),
    "diagonal": diagonal,
    "sum": folded("add", 0),
    "prod": folded("mul", 1),
    "einsum": einsum,
    "gather": gather,
    "scatter_add": scatter_add,
    "linear_scan": linear_scan,
}
ELEMENTS = SMOOTH | {
    "max": folded("maximum", None),
    "min": folded("minimum", None),
    "any": folded("bitwise_or", 0),
    "all": folded("bitwise_and", 1),
    "iota": listed,
}
