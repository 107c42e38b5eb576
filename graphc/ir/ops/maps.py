"""The derivatives of the structural ops: `<op>(node)` gives a linear map per operand, None where it is constant in it.

Names are those of the ops, some of which are builtins, which this file therefore does not use.  These are the only
declarations: jvp, vjp, Jacobians and higher derivatives are products of these maps, and the factors in them are
ordinary nodes, so every one can be differentiated again.  Elementwise ops declare `partials` instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from .. import build
from ..build import elementwise
from ..dims import Dim, product
from ..linmap import LinMap, NamedView, Opaque, diagonal as scaling, linear_map, relabel, transposed
from ..node import Node, make

Maps = list[LinMap | None]
Size = int | Dim
Labels = tuple[Hashable, ...]


def named_sizes(*groups: tuple[Sequence[Hashable], Sequence[Size]]) -> dict[Hashable, Size]:
    """Sizes of labels; a known size is preferred to a symbolic one."""
    sizes: dict[Hashable, Size] = {}
    for labels, shape in groups:
        for label, size in zip(labels, shape):
            if label not in sizes or isinstance(size, int):
                sizes[label] = size
    return sizes


# -- movement --
def broadcast(node: Node) -> Maps:
    labels = tuple(range(node.type.rank))
    return [linear_map(labels, node.attrs["axes"], named_sizes((labels, node.type.shape)))]


def reshape(node: Node) -> Maps:
    return [relabel(node.type.shape, node.operands[0].type.shape)]


def transpose(node: Node) -> Maps:
    axes = node.attrs["axes"]
    return [linear_map(axes, tuple(range(len(axes))), named_sizes((axes, node.type.shape)))]


def window(node: Node, small: Node, large: Node) -> LinMap:
    """small[o..] = large[starts + steps*o]; axes that are taken whole stay one label."""
    out: list[Hashable] = []
    inn: list[Hashable] = []
    views: list[NamedView] = []
    sizes: dict[Hashable, Size] = {}
    for axis, (start, step, m, n) in enumerate(zip(node.attrs["starts"], node.attrs["steps"], small.type.shape,
                                                   large.type.shape)):
        inn.append(("large", axis))
        sizes["large", axis] = n
        if isinstance(start, int) and start == 0 and step == 1 and m == n:
            out.append(("large", axis))
            continue
        out.append(("small", axis))
        sizes["small", axis] = m
        views.append((("large", axis), start, {("small", axis): step}))
    return linear_map(out, inn, sizes, views=views)


def slice(node: Node) -> Maps:
    return [window(node, node, node.operands[0])]


def pad(node: Node) -> Maps:
    return [transposed(window(node, node.operands[0], node))]


def concat(node: Node) -> Maps:
    axis = node.attrs["axis"]
    labels: Labels = tuple(range(node.type.rank))
    start: Size = 0
    maps: Maps = []
    if len(node.operands) == 1:
        return [scaling(1.0, node.type.shape)]
    for operand in node.operands:
        inn = (*labels[:axis], "part", *labels[axis + 1:])
        sizes = named_sizes((labels, node.type.shape), (inn, operand.type.shape))
        maps.append(linear_map(labels, inn, sizes, views=[(axis, start, {"part": 1})]))
        start = start + operand.type.shape[axis]
    return maps


def diagonal(node: Node) -> Maps:
    axes = node.attrs["axes"]
    owner = {axis: k for k, group in enumerate(axes) for axis in group}
    inn = tuple(range(len(axes)))
    return [linear_map(tuple(owner[axis] for axis in range(node.type.rank)), inn,
                       named_sizes((inn, node.operands[0].type.shape)))]


# -- reductions --
def sum(node: Node) -> Maps:
    labels = tuple(range(node.operands[0].type.rank))
    out = tuple(axis for axis in labels if axis not in node.attrs["axes"])
    return [linear_map(out, labels, named_sizes((labels, node.operands[0].type.shape)))]


def kept_along(node: Node, value: Node) -> Node:
    """A reduction's result (or another node of its shape) broadcast back to the operand's shape."""
    operand = node.operands[0]
    return build.broadcast(value, operand.type.shape,
                     tuple(axis for axis in range(operand.type.rank) if axis not in node.attrs["axes"]))


def weighted_sum(node: Node, weights: Sequence[Node]) -> Maps:
    """The map that sums over the reduced axes with these weights (a product of factors of the operand's shape)."""
    labels = tuple(range(node.operands[0].type.rank))
    out = tuple(axis for axis in labels if axis not in node.attrs["axes"])
    return [linear_map(out, labels, named_sizes((labels, node.operands[0].type.shape)),
                       factors=[(weight, labels) for weight in weights])]


def max(node: Node) -> Maps:
    """The elements that are the extremum share equally; where it is NaN, the NaN elements do."""
    x, = node.operands
    wins = elementwise("bitwise_or", elementwise("eq", x, kept_along(node, node)), elementwise("isnan", x))
    mask = build.cast(wins, x.type.dtype)
    share = elementwise("div", 1.0, build.reduce_sum(mask, node.attrs["axes"]))
    return weighted_sum(node, [kept_along(node, share), mask])


min = max


def prod(node: Node) -> Maps:
    """By each element, the product of the others: of those before and those after it, so that zeros do no harm."""
    x, = node.operands
    axes = node.attrs["axes"]
    if not axes:
        return [scaling(1.0, x.type.shape)]
    kept = [axis for axis in range(x.type.rank) if axis not in axes]
    order = (*kept, *axes)
    moved = build.transpose(x, order)
    length = product([x.type.shape[axis] for axis in axes])
    flat = build.reshape(moved, (*(x.type.shape[axis] for axis in kept), length))
    others = elementwise("mul", exclusive_product(flat, reverse=False), exclusive_product(flat, reverse=True))
    back = tuple(order.index(axis) for axis in range(x.type.rank))
    return weighted_sum(node, [build.transpose(build.reshape(others, moved.type.shape), back)])


def exclusive_product(x: Node, *, reverse: bool) -> Node:
    """Products along the last axis of the elements before each (after it, if `reverse`)."""
    axis = x.type.rank - 1
    outer, length = x.type.shape[:axis], x.type.shape[axis]
    if length == 1:
        return build.full_like(x, 1)
    one = build.ones(x.type.dtype, (*outer, 1), x.graph)
    rest = build.zeros(x.type.dtype, (*outer, length - 1), x.graph)
    start = build.concat([rest, one] if reverse else [one, rest], axis)
    return build.linear_scan(shifted(x, axis, reverse=reverse), start, axis, reverse)


def shifted(x: Node, axis: int, *, reverse: bool) -> Node:
    """x[i-1] at i with 0 at the start; x[i+1] with 0 at the end, if `reverse`."""
    rank, length = x.type.rank, x.type.shape[axis]
    shape = (*x.type.shape[:axis], length - 1, *x.type.shape[axis + 1:])
    gap = build.zeros(x.type.dtype, (*x.type.shape[:axis], 1, *x.type.shape[axis + 1:]), x.graph)
    starts = tuple(1 if k == axis and reverse else 0 for k in range(rank))
    body = build.slice_(x, starts, (1,) * rank, shape)
    return build.concat([body, gap] if reverse else [gap, body], axis)


# -- contraction --
def einsum(node: Node) -> Maps:
    """By operand k, the contraction with the others."""
    labels, operands = node.attrs["labels"], node.operands
    sizes = named_sizes(*((group, x.type.shape) for group, x in zip(labels, operands)))
    return [linear_map(node.attrs["out"], group, sizes,
                       factors=[(x, other) for j, (x, other) in enumerate(zip(operands, labels)) if j != k])
            for k, group in enumerate(labels)]


# -- indexing --
def selection(node: Node, out: Sequence[Hashable], out_shape: Sequence[Size], x_shape: Sequence[Size]) -> LinMap:
    """y[out] = x[x_labels at index values], of the indices in `node`."""
    x_labels, index_labels = node.attrs["x_labels"], node.attrs["index_labels"]
    inn = tuple(label if isinstance(label, int) else ("axis", axis) for axis, label in enumerate(x_labels))
    sizes = named_sizes((out, out_shape), (inn, x_shape))
    indices = [(("axis", axis), node.operands[1 + label[1]], index_labels[label[1]])
               for axis, label in enumerate(x_labels) if not isinstance(label, int)]
    return linear_map(out, inn, sizes, indices=indices)


def gather(node: Node) -> Maps:
    constant: Maps = [None] * (len(node.operands) - 1)
    return [selection(node, node.attrs["out"], node.type.shape, node.operands[0].type.shape), *constant]


def scatter_add(node: Node) -> Maps:
    constant: Maps = [None] * (len(node.operands) - 1)
    taken = selection(node, node.attrs["out"], node.operands[0].type.shape, node.type.shape)
    return [transposed(taken), *constant]


# -- choices --
def choose(node: Node) -> Maps:
    """By operand k, the identity where it is the chosen one, else zero."""
    labels = tuple(range(node.type.rank))
    sizes, count = named_sizes((labels, node.type.shape)), len(node.operands)
    zero, one = (build.scalar(number, node.type.dtype, node.graph) for number in (0, 1))
    masks = [make("choose", [one if j == k else zero for j in range(count)], conditions=node.attrs["conditions"])
             for k in range(count)]
    return [linear_map(labels, labels, sizes, factors=[(mask, ())]) for mask in masks]


# -- scans --
def linear_scan(node: Node) -> Maps:
    """By b the scan itself; by a the scan of what y[i-1] scales.  The transpose is a scan from the other end."""
    a, _ = node.operands
    axis, reverse = node.attrs["axis"], node.attrs["reverse"]
    before = shifted(node, axis, reverse=reverse)
    return [(scan_function(a, axis, reverse=reverse, weight=before),), (scan_function(a, axis, reverse=reverse),)]


def scan_function(a: Node, axis: int, *, reverse: bool, weight: Node | None = None) -> Opaque:
    """b -> linear_scan(a, weight * b)."""
    shape = a.type.shape
    following = shifted(a, axis, reverse=not reverse)

    def over_batch(x: Node, like: Node, batch: int) -> Node:
        return build.broadcast(x, like.type.shape, tuple(range(batch, like.type.rank)))

    def weighted(x: Node, batch: int) -> Node:
        return x if weight is None else elementwise("mul", over_batch(weight, x, batch), x)

    def jvp(tangent: Node, batch: int) -> Node:
        return build.linear_scan(over_batch(a, tangent, batch), weighted(tangent, batch), axis + batch, reverse)

    def vjp(cotangent: Node, batch: int) -> Node:
        pulled = build.linear_scan(over_batch(following, cotangent, batch), cotangent, axis + batch, not reverse)
        return weighted(pulled, batch)

    price = product(shape) * (1 if weight is None else 2)
    return Opaque("linear_scan", shape, shape, jvp, vjp, price)

