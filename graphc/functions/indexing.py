"""Indexing: NumPy's x[..] on nodes, and reading and adding at run-time indices.

`x[..]` takes integers, slices (steps may be negative), None, an ellipsis, integer arrays or nodes (several broadcast
against each other), and a mask of Python bools or a NumPy array.  A mask that is a node would have a result of unknown
length and is refused.  A slice of a symbolic axis asks for the length it needs at bind time.
"""

from __future__ import annotations

from collections.abc import Sequence
import operator
from typing import Any

import numpy as np

from ..ir import build
from ..ir.build import Operand
from ..ir.dims import Dim, ceildiv, sign
from ..ir.errors import DTypeError, Unsupported, user_line
from ..ir.node import Node
from ..ir.types import Shape, is_integer
from .operands import ShapeLike, as_nodes, axis_of, refusal, shape_of

Size = int | Dim


# -- x[..] --
def getitem(x: Node, index: Any) -> Node:
    """x[index], by NumPy's rules.

    >>> x = gc.placeholder("float32", ("n", 4))
    >>> print(x[:-1, None, ::-2].type)
    float32[n - 1, 1, 2]
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    entries = [e for entry in entries for e in normal(x, entry)]
    sliced, pending = basic(x, with_ellipsis(x, entries))
    if not any(isinstance(p, Node) for p in pending):
        return sliced
    # Beside index arrays a number is one too: if a slice, None or ellipsis parts them, their axes come first.
    places = [k for k, entry in enumerate(entries) if isinstance(entry, (int, Dim, Node))]
    return advanced(sliced, pending, together=places[-1] - places[0] == len(places) - 1)


def normal(x: Node, entry: Any) -> list[Any]:
    """An entry as int, Dim, slice, None, Ellipsis, or index node; a mask of known values as its indices."""
    if entry is None or entry is Ellipsis or isinstance(entry, (slice, Dim)):
        return [entry]
    if isinstance(entry, Node) and entry.dtype == "bool":
        raise Unsupported(f"getitem: the mask {entry!r} selects a number of elements that is not known before run "
                          f"time; use gc.where, or a sum weighted by the mask\n  at {user_line()}")
    if isinstance(entry, Node):
        return [entry]
    if not isinstance(entry, (list, tuple, np.ndarray, bool, np.bool_)):
        try:
            return [operator.index(entry)]
        except TypeError:
            raise refusal("getitem", f"{entry!r} is no index", (x,)) from None
    array = np.asarray(entry)
    if array.dtype == bool:
        return [*as_nodes((x, *(found.astype("int64") for found in array.nonzero())))[1:]]
    if array.size and array.dtype.kind not in "iu":
        raise refusal("getitem", f"indices are integers, got {array.dtype}", (x,), DTypeError)
    return [as_nodes((x, array.astype("int64")))[1]]


def with_ellipsis(x: Node, entries: list[Any]) -> list[Any]:
    """The entries with full slices in place of the ellipsis, or at the end."""
    dots = [k for k, entry in enumerate(entries) if entry is Ellipsis]
    used = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if len(dots) > 1 or used > x.ndim:
        raise refusal("getitem", f"{used} indices and {len(dots)} ellipses for {x.type}", (x,))
    place = dots[0] if dots else len(entries)
    rest = [slice(None)] * (x.ndim - used)
    return entries[:place] + rest + entries[place + len(dots):]


def basic(x: Node, entries: Sequence[Any]) -> tuple[Node, list[Any]]:
    """Slices and integers applied, None inserted; and what is left per axis of the result: None, or an index node."""
    starts: list[Size] = []
    steps: list[int] = []
    sizes: list[Size] = []
    shape: list[Size] = []
    pending: list[Any] = []
    axis = 0
    for entry in entries:
        if entry is None:
            shape.append(1)
            pending.append(None)
            continue
        size = x.shape[axis]
        start, step, count = ranged(x, axis, entry, size)
        starts.append(start)
        steps.append(step)
        sizes.append(count)
        axis += 1
        if not isinstance(entry, (int, Dim)):
            shape.append(count)
            pending.append(entry if isinstance(entry, Node) else None)
    return build.reshape(build.slice_(x, tuple(starts), steps, tuple(sizes)), tuple(shape)), pending


def ranged(x: Node, axis: int, entry: Any, size: Size) -> tuple[Size, int, Size]:
    """Start, step and count of an entry along an axis."""
    if isinstance(entry, slice):
        return slice_range(x, axis, entry, size)
    if isinstance(entry, Node):
        return 0, 1, size
    place = from_end(entry, size)
    left = size - place
    if (isinstance(place, int) and place < 0) or (isinstance(left, int) and left <= 0):
        raise refusal("getitem", f"index {entry} is out of range for axis {axis} of {x.type}", (x,))
    return place, 1, 1


def from_end(place: Size, size: Size) -> Size:
    return place + size if isinstance(place, int) and place < 0 else place


def slice_range(x: Node, axis: int, entry: slice, size: Size) -> tuple[Size, int, Size]:
    """NumPy's slice; along a symbolic axis the ends must lie inside, which the node checks at bind time."""
    step = 1 if entry.step is None else operator.index(entry.step)
    if step == 0:
        raise refusal("getitem", f"a slice of axis {axis} of {x.type} has step 0", (x,))
    ends: list[Any] = [bound if bound is None or isinstance(bound, Dim) else operator.index(bound)
            for bound in (entry.start, entry.stop)]
    if isinstance(size, int) and not any(isinstance(bound, Dim) for bound in ends):
        low, high, _ = slice(ends[0], ends[1], step).indices(size)
        count = max(0, -((low - high) // step) if step > 0 else -((high - low) // -step))
        return (low if count else 0), step, count
    first, last = (0, size) if step > 0 else (size - 1, -1)
    start: Size = first if ends[0] is None else from_end(ends[0], size)
    stop: Size = last if ends[1] is None else from_end(ends[1], size)
    span = stop - start if step > 0 else start - stop
    if sign(span) == -1:  # empty whatever the sizes are
        return 0, step, 0
    return start, step, ceildiv(span, abs(step))


# -- run-time indices --
def advanced(x: Node, pending: Sequence[Node | None], *, together: bool) -> Node:
    """x[..., i, ..., j, ...] with index nodes, which broadcast against each other.

    Their axes stand where the first of them stood if they were written `together`, else in front.
    """
    axes = [k for k, index in enumerate(pending) if index is not None]
    indices = [index for index in pending if index is not None]
    for index in indices:
        if not is_integer(index.dtype):
            raise refusal("getitem", f"indices are integers, got {index.type}; cast them first", (x, index), DTypeError)
    shape = build.broadcast_shapes("getitem", indices)
    fresh = tuple(range(x.ndim, x.ndim + len(shape)))
    smalls = [build.shrunk(index, len(shape)) for index in indices]
    labels = [tuple(fresh[a] for a in places) for _, places in smalls]
    if {label for group in labels for label in group} != set(fresh):  # an axis that all of them repeat
        smalls[0], labels[0] = (build.broadcast_to(indices[0], shape), ()), fresh
    x_labels: list[Any] = list(range(x.ndim))
    for number, axis in enumerate(axes):
        x_labels[axis] = ("index", number)
    before = [k for k in range(axes[0]) if k not in axes] if together else []
    after = [k for k in range(x.ndim) if k not in axes and k not in before]
    return build.gather(x, [node for node, _ in smalls], x_labels, labels, (*before, *fresh, *after))


def take(x: Operand, indices: Operand, axis: int | None = None) -> Node:
    """Elements at indices along an axis, or of the flat array.  Negative indices count from the end.

    >>> print(gc.take([[1.0, 2.0], [3.0, 4.0]], [1, 0, 1], axis=0).type)
    float64[3, 2]
    """
    node, index = as_nodes((x, indices))
    if axis is None:
        node, axis = build.reshape(node, (node.size,)), 0
    return build.take(node, index, axis_of("take", axis, node.ndim, (node, index)))


def take_along_axis(x: Operand, indices: Operand, axis: int) -> Node:
    """Elements at indices along an axis; the other axes of `indices` match those of x, or are of size 1.

    >>> print(gc.take_along_axis([[1.0, 2.0], [3.0, 4.0]], [[1], [0]], axis=1).type)
    float64[2, 1]
    """
    node, index = as_nodes((x, indices))
    k = axis_of("take_along_axis", axis, node.ndim, (node, index))
    if index.ndim != node.ndim:
        raise refusal("take_along_axis", f"needs indices of {node.ndim} axes, got {index.type}", (node, index))
    same = [a for a in range(node.ndim) if a != k]
    shape = tuple(index.shape[a] if a == k else node.shape[a] for a in range(node.ndim))
    index = build.broadcast_to(index, shape)
    x_labels = tuple(("index", 0) if a == k else a for a in range(node.ndim))
    return build.gather(node, (index,), x_labels, (tuple(range(node.ndim)),), tuple(range(len(same) + 1)))


def gather_nd(x: Operand, indices: Operand) -> Node:
    """x at index tuples: the last axis of `indices`, of known length, holds an index for each leading axis of x.

    >>> print(gc.gather_nd([[1.0, 2.0], [3.0, 4.0]], [[1, 0], [0, 1], [0, 0]]).type)
    float64[3]
    """
    node, index = as_nodes((x, indices))
    depth = index.shape[-1] if index.ndim else 0
    if not isinstance(depth, int) or not 0 < depth <= node.ndim:
        raise refusal("gather_nd", f"the last axis of {index.type} does not index axes of {node.type}", (node, index))
    return node[tuple(index[..., k] for k in range(depth))]


def gather(x: Operand, indices: Operand, axis: int = 0) -> Node:
    """`take` along one axis.

    >>> print(gc.gather([1.0, 2.0, 3.0], [[2, 0]]).type)
    float64[1, 2]
    """
    return take(x, indices, axis)


def scatter_add(indices: Operand, updates: Operand, shape: ShapeLike) -> Node:
    """Zeros of `shape`, to whose rows at the indices the updates are added; equal indices add up.

    `updates` has the shape of `indices` followed by the remaining axes of `shape`.

    >>> print(gc.scatter_add([0, 2, 0], [1.0, 2.0, 3.0], (4,)).type)
    float64[4]
    """
    index, update = as_nodes((indices, updates))
    sizes: Shape = shape_of("scatter_add", shape)
    if not sizes or update.ndim != index.ndim + len(sizes) - 1:
        raise refusal("scatter_add", f"updates {update.type} do not have the axes of {index.type} and of {sizes[1:]}",
                      (index, update))
    lead = tuple(range(index.ndim))
    rest = tuple(range(index.ndim, update.ndim))
    return build.scatter_add(update, (index,), (("index", 0), *rest), (lead,), (*lead, *rest), sizes)

