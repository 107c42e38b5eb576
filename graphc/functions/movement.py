"""Movement: the same elements in another shape or order, by NumPy's names, axes and rules.

Symbolic sizes take part: `gc.reshape(x, ("batch", -1))` divides exactly or asks for it at bind time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir import build
from ..ir.build import Operand
from ..ir.dims import Dim, floordiv, product
from ..ir.node import Node
from ..ir.types import promote
from .operands import Axis, ShapeLike, as_node, as_nodes, axes_of, axis_of, refusal, shape_of


def reshape(x: Operand, shape: ShapeLike) -> Node:
    """The same elements in row-major order; one size may be -1 and is computed.

    >>> print(gc.reshape([[1.0, 2.0], [3.0, 4.0]], (-1,)).type)
    float64[4]
    """
    node = as_node(x)
    sizes = shape_of("reshape", shape)
    unknown = [k for k, size in enumerate(sizes) if isinstance(size, int) and size == -1]
    if len(unknown) > 1:
        raise refusal("reshape", f"only one size can be -1, got {sizes}", (node,))
    if unknown:
        known = product([size for size in sizes if not (isinstance(size, int) and size == -1)])
        if isinstance(known, int) and known == 0:
            raise refusal("reshape", f"-1 cannot be found for {sizes}: the other sizes have product 0", (node,))
        sizes = tuple(floordiv(node.size, known) if k in unknown else size for k, size in enumerate(sizes))
    return build.reshape(node, sizes)


def ravel(x: Operand) -> Node:
    """All elements along one axis.

    >>> print(gc.ravel([[1.0, 2.0], [3.0, 4.0]]).type)
    float64[4]
    """
    node = as_node(x)
    return build.reshape(node, (node.size,))


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Node:
    """Axes in another order; reversed by default.

    >>> print(gc.transpose([[1.0, 2.0, 3.0]]).type)
    float64[3, 1]
    """
    node = as_node(x)
    order = tuple(reversed(range(node.ndim))) if axes is None else axes_of("transpose", tuple(axes), node.ndim, (node,))
    if len(order) != node.ndim:
        raise refusal("transpose", f"axes {axes} are not the {node.ndim} axes of {node.type}", (node,))
    return build.transpose(node, order)


def swapaxes(x: Operand, axis1: int, axis2: int) -> Node:
    """Two axes exchanged.

    >>> print(gc.swapaxes([[1.0, 2.0, 3.0]], 0, 1).type)
    float64[3, 1]
    """
    node = as_node(x)
    order = list(range(node.ndim))
    a, b = (axis_of("swapaxes", axis, node.ndim, (node,)) for axis in (axis1, axis2))
    order[a], order[b] = order[b], order[a]
    return build.transpose(node, order)


def moveaxis(x: Operand, source: int | Sequence[int], destination: int | Sequence[int]) -> Node:
    """Axes moved to other places; the others stay in order.

    >>> print(gc.moveaxis([[[1.0, 2.0, 3.0]]], -1, 0).type)
    float64[3, 1, 1]
    """
    node = as_node(x)
    origins = axes_of("moveaxis", source, node.ndim, (node,))
    targets = axes_of("moveaxis", destination, node.ndim, (node,))
    if len(origins) != len(targets):
        raise refusal("moveaxis", f"source {source} and destination {destination} differ in number", (node,))
    order = [axis for axis in range(node.ndim) if axis not in origins]
    for target, origin in sorted(zip(targets, origins)):
        order.insert(target, origin)
    return build.transpose(node, order)


def broadcast_to(x: Operand, shape: ShapeLike) -> Node:
    """Repeated along axes of size 1 and new leading axes.

    >>> print(gc.broadcast_to([1.0, 2.0], (3, 2)).type)
    float64[3, 2]
    """
    return build.broadcast_to(as_node(x), shape_of("broadcast_to", shape))


def expand_dims(x: Operand, axis: int | Sequence[int]) -> Node:
    """New axes of size 1 at these places of the result.

    >>> print(gc.expand_dims([1.0, 2.0], 0).type)
    float64[1, 2]
    """
    node = as_node(x)
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    rank = node.ndim + len(listed)
    fresh = axes_of("expand_dims", listed, rank, (node,))
    rest = iter(node.shape)
    return build.reshape(node, tuple(1 if k in fresh else next(rest) for k in range(rank)))


def squeeze(x: Operand, axis: Axis = None) -> Node:
    """Without axes of size 1: these, or all.

    >>> print(gc.squeeze([[1.0, 2.0]]).type)
    float64[2]
    """
    node = as_node(x)
    single = tuple(k for k, size in enumerate(node.shape) if isinstance(size, int) and size == 1)
    gone = single if axis is None else axes_of("squeeze", axis, node.ndim, (node,))
    if not set(gone) <= set(single):
        raise refusal("squeeze", f"axes {gone} of {node.type} are not all of size 1", (node,))
    return build.reshape(node, tuple(size for k, size in enumerate(node.shape) if k not in gone))


def joined(name: str, arrays: Sequence[Operand]) -> list[Node]:
    """The arrays as nodes of one dtype."""
    nodes = as_nodes(arrays)
    if not nodes:
        raise refusal(name, "needs at least one array")
    dtype = promote(*(n.dtype for n in nodes))
    return [build.cast(n, dtype) for n in nodes]


def concatenate(arrays: Sequence[Operand], axis: int = 0) -> Node:
    """Arrays joined along an axis they have.

    >>> print(gc.concatenate([[1.0], [2.0, 3.0]]).type)
    float64[3]
    """
    nodes = joined("concatenate", arrays)
    return build.concat(nodes, axis_of("concatenate", axis, nodes[0].ndim, nodes))


def stack(arrays: Sequence[Operand], axis: int = 0) -> Node:
    """Arrays of one shape joined along a new axis.

    >>> print(gc.stack([[1.0, 2.0], [3.0, 4.0]], axis=1).type)
    float64[2, 2]
    """
    nodes = joined("stack", arrays)
    k = axis_of("stack", axis, nodes[0].ndim + 1, nodes)
    return build.concat([expand_dims(n, k) for n in nodes], k)


def split(x: Operand, sections: int | Sequence[int | Dim], axis: int = 0) -> list[Node]:
    """Equal parts along an axis, or parts that end at these indices.

    >>> [str(part.type) for part in gc.split([1.0, 2.0, 3.0], [1])]
    ['float64[1]', 'float64[2]']
    """
    node = as_node(x)
    k = axis_of("split", axis, node.ndim, (node,))
    size = node.shape[k]
    if not isinstance(sections, int):
        stops = [stop + size if isinstance(stop, int) and stop < 0 else stop for stop in sections]
        return [part(node, k, a, b) for a, b in zip([0, *stops], [*stops, size])]
    if sections <= 0 or (isinstance(size, int) and size % sections):
        raise refusal("split", f"axis {k} of {node.type} does not split into {sections} equal parts; give the "
                      "indices where parts end instead", (node,))
    step = floordiv(size, sections)
    whole = reshape(node, (*node.shape[:k], sections, step, *node.shape[k + 1:]))  # asks for divisibility
    shape = (*node.shape[:k], step, *node.shape[k + 1:])
    return [build.reshape(part(whole, k, i, i + 1), shape) for i in range(sections)]


def part(x: Node, axis: int, start: int | Dim, stop: int | Dim) -> Node:
    """x from start to stop along one axis."""
    rank = x.ndim
    return build.slice_(x, tuple(start if k == axis else 0 for k in range(rank)), (1,) * rank,
                        tuple(stop - start if k == axis else size for k, size in enumerate(x.shape)))


def flip(x: Operand, axis: Axis = None) -> Node:
    """Backwards along axes, all by default.

    >>> print(gc.flip([[1.0, 2.0, 3.0]]).type)
    float64[1, 3]
    """
    node = as_node(x)
    axes = axes_of("flip", axis, node.ndim, (node,))
    starts = tuple(size - 1 if k in axes else 0 for k, size in enumerate(node.shape))
    return build.slice_(node, starts, tuple(-1 if k in axes else 1 for k in range(node.ndim)), node.shape)


def tile(x: Operand, reps: int | Sequence[int]) -> Node:
    """The whole array repeated along its axes; missing axes are added in front.

    >>> print(gc.tile([1.0, 2.0], (2, 3)).type)
    float64[2, 6]
    """
    node = as_node(x)
    counts = shape_of("tile", reps)
    rank = max(node.ndim, len(counts))
    counts = (1,) * (rank - len(counts)) + counts
    shape = (1,) * (rank - node.ndim) + node.shape
    spread = tuple(size for pair in zip(counts, shape) for size in pair)
    axes = tuple(2 * (rank - node.ndim + k) + 1 for k in range(node.ndim))
    return build.reshape(build.broadcast(node, spread, axes), tuple(c * n for c, n in zip(counts, shape)))


def repeat(x: Operand, repeats: int | Sequence[int], axis: int | None = None) -> Node:
    """Every element so many times in a row, along an axis or of the flat array.

    >>> print(gc.repeat([1.0, 2.0], 3).type)
    float64[6]
    """
    node = as_node(x)
    if axis is None:
        node, axis = ravel(node), 0
    k = axis_of("repeat", axis, node.ndim, (node,))
    if not isinstance(repeats, (int, Dim)):
        size = node.shape[k]
        if not isinstance(size, int) or len(repeats) != size:
            raise refusal("repeat", f"{len(repeats)} repeats for axis {k} of {node.type}", (node,))
        rows = [i for i, count in enumerate(repeats) for _ in range(count)]
        return build.take(node, as_nodes((node, np.asarray(rows, "int64")))[1], k)
    shape = (*node.shape[:k + 1], repeats, *node.shape[k + 1:])
    wide = build.broadcast(node, shape, tuple(a if a <= k else a + 1 for a in range(node.ndim)))
    return build.reshape(wide, (*node.shape[:k], node.shape[k] * repeats, *node.shape[k + 1:]))


def roll(x: Operand, shift: int | Sequence[int], axis: Axis = None) -> Node:
    """Shifted along axes; what leaves at the end comes in at the start.  The shift may not exceed the size.

    >>> print(gc.roll([1.0, 2.0, 3.0], 1).type)
    float64[3]
    """
    node = as_node(x)
    if axis is None:
        return build.reshape(roll(ravel(node), shift, 0), node.shape)
    axes = axes_of("roll", axis, node.ndim, (node,))
    shifts: Sequence[int] = (shift,) * len(axes) if isinstance(shift, int) else shift
    for k, amount in zip(axes, shifts, strict=True):
        size = node.shape[k]
        if isinstance(size, int):
            amount = amount % size if size else 0
        if isinstance(amount, int) and amount == 0:
            continue
        cut = size - amount if amount > 0 else -amount
        node = build.concat([part(node, k, cut, size), part(node, k, 0, cut)], k)
    return node


def pad(x: Operand, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Node:
    """Axes grown at both ends: `pad_width` is n, (before, after), or one such pair per axis.

    Modes: constant, edge, reflect, symmetric, wrap, as in NumPy.

    >>> print(gc.pad([1.0, 2.0], (1, 2)).type)
    float64[5]
    """
    node = as_node(x)
    widths = pairs(node, pad_width)
    if mode == "constant":
        return constant_pad(node, widths, constant_values)
    if mode not in PIECES:
        raise refusal("pad", f"no mode {mode!r}; there are constant, {', '.join(PIECES)}", (node,))
    for k, (before, after) in enumerate(widths):
        if before or after:
            node = build.concat(PIECES[mode](node, k, before, after), k)
    return node


def pairs(x: Node, pad_width: Any) -> list[tuple[int, int]]:
    """(before, after) for every axis."""
    widths = pad_width if isinstance(pad_width, (tuple, list)) else (pad_width,)
    if not any(isinstance(w, (tuple, list)) for w in widths):
        widths = [tuple(widths) * (2 if len(widths) == 1 else 1)] * x.ndim
    elif len(widths) == 1:
        widths = list(widths) * x.ndim
    if len(widths) != x.ndim or any(len(w) != 2 or w[0] < 0 or w[1] < 0 for w in widths):
        raise refusal("pad", f"pad_width {pad_width} does not give (before, after) >= 0 for {x.ndim} axes", (x,))
    return [(int(a), int(b)) for a, b in widths]


def constant_pad(x: Node, widths: Sequence[tuple[int, int]], value: Any) -> Node:
    starts = tuple(before for before, _ in widths)
    shape = tuple(before + size + after for (before, after), size in zip(widths, x.shape))
    steps = (1,) * x.ndim
    padded = build.pad(x, starts, steps, shape)
    if isinstance(value, (int, float)) and value == 0:
        return padded
    inside = build.pad(build.ones("bool", x.shape, x.graph), starts, steps, shape)
    return build.elementwise("where", inside, padded, build.cast(as_nodes((x, value))[1], x.dtype))


def edge(x: Node, axis: int, before: int, after: int) -> list[Node]:
    size = x.shape[axis]
    first, last = part(x, axis, 0, 1), part(x, axis, size - 1, size)
    return [repeat(first, before, axis), x, repeat(last, after, axis)]


def mirrored(x: Node, axis: int, before: int, after: int, skip: int) -> list[Node]:
    size = x.shape[axis]
    longest = size - skip
    if isinstance(longest, int) and max(before, after) > longest:
        raise refusal("pad", f"mode mirrors at most {longest} of axis {axis} of {x.type}, asked for "
                      f"{max(before, after)}", (x,))
    return [flip(part(x, axis, skip, skip + before), axis), x, flip(part(x, axis, longest - after, longest), axis)]


def wrapped(x: Node, axis: int, before: int, after: int) -> list[Node]:
    size = x.shape[axis]
    if isinstance(size, int) and max(before, after) > size:
        raise refusal("pad", f"wraps at most {size} of axis {axis} of {x.type}, asked for {max(before, after)}", (x,))
    return [part(x, axis, size - before, size), x, part(x, axis, 0, after)]


PIECES = {
    "edge": edge,
    "reflect": lambda x, axis, before, after: mirrored(x, axis, before, after, 1),
    "symmetric": lambda x, axis, before, after: mirrored(x, axis, before, after, 0),
    "wrap": wrapped,
}
