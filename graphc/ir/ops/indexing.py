"""Indexing by run-time indices: gather, and scatter_add its transpose.

`x_labels` says for every axis of the indexed array where its index comes from: an output label, or ("index", k), the
value of index operand k, whose own axes carry `index_labels[k]`.  `out` orders the labels as output axes.

    take along axis 0      x=(("index", 0), 1)   index=((0,),)     out=(0, 1)
    take_along_axis 1      x=(0, ("index", 0))   index=((0, 1),)   out=(0, 1)

Indices lie in [-n, n); negative ones count from the end; anything else is an error when it runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dims import Dim
from ..errors import DTypeError, GraphError, ShapeError
from ..node import Attrs, Need
from ..types import Shape, Type
from . import maps
from .declare import Array, declare, wide


def check_labels(types: tuple[Type, ...], rank: int, attrs: Attrs) -> None:
    """That labels match operands in number and rank, and that `out` is made of them."""
    x_labels, index_labels, out = attrs["x_labels"], attrs["index_labels"], attrs["out"]
    indices = types[1:]
    if len(x_labels) != rank or len(index_labels) != len(indices):
        raise ShapeError(f"labels {x_labels} and {index_labels} do not match rank {rank} and {len(indices)} indices")
    for group, t in zip(index_labels, indices):
        if t.dtype != "int64" or len(group) != t.rank or len(set(group)) != len(group):
            raise DTypeError(f"indices need dtype int64 and labels for their axes, got {t} with labels {group}")
    used = {label for group in (x_labels, *index_labels) for label in group if isinstance(label, int)}
    read = [label[1] for label in x_labels if not isinstance(label, int)]
    if sorted(out) != sorted(used) or sorted(read) != list(range(len(indices))):
        raise ShapeError(f"output labels {out} or index operands do not fit labels {x_labels} and {index_labels}")


def label_sizes(need: Need, shape: Shape, types: tuple[Type, ...], attrs: Attrs) -> dict[int, int | Dim]:
    """Sizes of all labels: from the axes of the indexed array, and from the indices."""
    sizes: dict[int, int | Dim] = {}
    groups = [(attrs["x_labels"], shape), *((g, t.shape) for g, t in zip(attrs["index_labels"], types[1:]))]
    for group, sizes_of_group in groups:
        for label, size in zip(group, sizes_of_group):
            if isinstance(label, int):
                what = f"indices {', '.join(map(str, types[1:]))} into shape {shape}"
                sizes[label] = need.equal(sizes[label], size, what) if label in sizes else size
    return sizes


def gather_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    x = types[0]
    check_labels(types, x.rank, attrs)
    sizes = label_sizes(need, x.shape, types, attrs)
    return Type(x.dtype, tuple(sizes[label] for label in attrs["out"]))


def scatter_add_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    u, shape = types[0], attrs["shape"]
    if u.dtype == "bool":
        raise DTypeError(f"adds numbers, got {u}")
    check_labels(types, len(shape), attrs)
    sizes = label_sizes(need, shape, types, attrs)
    need.same_shape(tuple(sizes[label] for label in attrs["out"]), u.shape, "indices and what is added")
    return Type(u.dtype, shape)


def grid(attrs: Attrs, shape: Any, out_shape: Any, indices: tuple[Array, ...]) -> tuple[Array, ...]:
    """One index array per axis of the indexed array; they broadcast to the output's shape."""
    out = attrs["out"]

    def laid_out(values: Array, labels: tuple[int, ...]) -> Array:
        order = sorted(range(len(labels)), key=lambda k: out.index(labels[k]))
        sizes = [1] * len(out)
        for k in order:
            sizes[out.index(labels[k])] = values.shape[k]
        return np.asarray(values.transpose(order).reshape(sizes))

    found = []
    for axis, label in enumerate(attrs["x_labels"]):
        if isinstance(label, int):
            found.append(laid_out(np.arange(shape[axis]), (label,)))
        else:
            k = label[1]
            found.append(laid_out(in_range(indices[k], shape[axis], axis), attrs["index_labels"][k]))
    return tuple(np.broadcast_to(a, out_shape) for a in found)


def in_range(index: Array, size: int, axis: int) -> Array:
    wrong = (index < -size) | (index >= size)
    if wrong.any():
        raise GraphError(f"index {index[wrong].flat[0]} is outside [-{size}, {size}) of axis {axis}")
    return np.where(index < 0, index + size, index)


def gather_values(attrs: Attrs, type: Type, x: Array, *indices: Array) -> Array:
    return np.asarray(x[grid(attrs, x.shape, type.shape, indices)])


def scatter_add_values(attrs: Attrs, type: Type, u: Array, *indices: Array) -> Array:
    result = np.zeros(type.shape, wide(u).dtype)
    np.add.at(result, grid(attrs, type.shape, u.shape, indices), wide(u))
    return result


declare("gather", "structural", gather_type, gather_values,
        maps=maps.gather, doc="y[out] = x[x_labels at index values]")
declare("scatter_add", "structural", scatter_add_type, scatter_add_values,
        maps=maps.scatter_add, doc="zeros of `shape`, to which u is added at the indices: the transpose of gather")
