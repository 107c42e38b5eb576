"""Movement: broadcast, reshape, transpose, slice, pad, concat, diagonal.  No value is computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dims import Dim, product
from ..errors import ShapeError
from ..node import Attrs, Need
from ..types import Shape, Type, shape_text
from . import maps
from .declare import Array, declare, require_equal_dtypes


# -- broadcast --
def broadcast_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,), shape, axes = types, attrs["shape"], attrs["axes"]
    if len(axes) != x.rank or list(axes) != sorted(set(axes)) or any(not 0 <= a < len(shape) for a in axes):
        raise ShapeError(f"{x} cannot lie along axes {axes} of shape {shape_text(shape)}")
    sizes = list(shape)
    for size, axis in zip(x.shape, axes):
        sizes[axis] = need.equal(sizes[axis], size, f"axis {axis} of {shape_text(shape)} against {x}")
    return Type(x.dtype, tuple(sizes))


def broadcast_values(attrs: Attrs, type: Type, x: Array) -> Array:
    sizes = [1] * type.rank
    for size, axis in zip(x.shape, attrs["axes"]):
        sizes[axis] = size
    return np.broadcast_to(x.reshape(sizes), type.shape)  # type: ignore[arg-type]


# -- reshape, transpose --
def reshape_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,), shape = types, attrs["shape"]
    if any(isinstance(size, int) and size < 0 for size in shape):
        raise ShapeError(f"{x} to {shape_text(shape)}: a size is negative")
    need.equal(x.size, product(shape), f"{x} to shape {shape_text(shape)}: numbers of elements")
    return Type(x.dtype, shape)


def transpose_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,), axes = types, attrs["axes"]
    if sorted(axes) != list(range(x.rank)):
        raise ShapeError(f"axes {axes} are no permutation of the axes of {x}")
    return Type(x.dtype, tuple(x.shape[a] for a in axes))


# -- slice, and pad its transpose --
def fits(need: Need, small: Shape, large: Shape, attrs: Attrs, what: str) -> None:
    """Requires that start + step*i lies in the large axis for every i of the small one."""
    starts, steps = attrs["starts"], attrs["steps"]
    if not len(starts) == len(steps) == len(small) == len(large):
        raise ShapeError(f"{what}: needs a start, a step and a size per axis, got {starts}, {steps}")
    for axis, (start, step, count, size) in enumerate(zip(starts, steps, small, large)):
        label = f"{what}: axis {axis}, {count} elements from {start} by {step}"
        if step == 0:
            raise ShapeError(f"{label}: a step is not 0")
        need.at_least(count, 0, label)
        if isinstance(count, int) and count <= 0:
            continue
        last = start + step * (count - 1)
        low, high = (start, last) if step > 0 else (last, start)
        if not isinstance(count, Dim):  # a symbolic length may be 0: the ends are right by construction
            need.at_least(low, 0, label)
        need.at_least(size, high + 1, label)


def slice_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,) = types
    fits(need, attrs["shape"], x.shape, attrs, f"slice of {x}")
    return Type(x.dtype, attrs["shape"])


def pad_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,) = types
    fits(need, x.shape, attrs["shape"], attrs, f"pad of {x} to {shape_text(attrs['shape'])}")
    return Type(x.dtype, attrs["shape"])


def positions(attrs: Attrs, shape: Any) -> tuple[Array, ...]:
    """Index arrays start + step*i, one per axis, that select the grid."""
    return np.ix_(*(start + step * np.arange(n) for start, step, n in zip(attrs["starts"], attrs["steps"], shape)))


def slice_values(attrs: Attrs, type: Type, x: Array) -> Array:
    return np.asarray(x[positions(attrs, type.shape)]) if type.rank else x


def pad_values(attrs: Attrs, type: Type, x: Array) -> Array:
    result = np.zeros(type.shape, x.dtype)
    result[positions(attrs, x.shape) if type.rank else ()] = x
    return result


# -- concat, diagonal --
def concat_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    axis, first = attrs["axis"], types[0]
    dtype = require_equal_dtypes(types)
    if not 0 <= axis < first.rank:
        raise ShapeError(f"axis {axis} is not an axis of {first}")
    total: int | Dim = 0
    shape = list(first.shape)
    for t in types:
        if t.rank != first.rank:
            raise ShapeError(f"{first} and {t} differ in rank")
        total = total + t.shape[axis]
        for k in range(first.rank):
            if k != axis:
                shape[k] = need.equal(shape[k], t.shape[k], f"{first} and {t} along axis {axis}: sizes of axis {k}")
    shape[axis] = total
    return Type(dtype, tuple(shape))


def diagonal_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,), axes = types, attrs["axes"]
    places = sorted(axis for group in axes for axis in group)
    if len(axes) != x.rank or places != list(range(len(places))) or not all(axes):
        raise ShapeError(f"axes {axes} do not give {x} one or more output axes per axis")
    owner = {axis: k for k, group in enumerate(axes) for axis in group}
    return Type(x.dtype, tuple(x.shape[owner[axis]] for axis in range(len(places))))


def diagonal_values(attrs: Attrs, type: Type, x: Array) -> Array:
    result = np.zeros(type.shape, x.dtype)
    owner = {axis: k for k, group in enumerate(attrs["axes"]) for axis in group}
    grid = np.ogrid[tuple(slice(n) for n in x.shape)]
    result[tuple(grid[owner[axis]] for axis in range(type.rank))] = x
    return result


ROWS: list[tuple[Any, ...]] = [
    ("broadcast", broadcast_type, maps.broadcast, broadcast_values,
     "operand axis k becomes output axis axes[k]; the others are new"),
    ("reshape", reshape_type, maps.reshape, lambda attrs, type, x: x.reshape(type.shape),
     "the same elements in row-major order"),
    ("transpose", transpose_type, maps.transpose, lambda attrs, type, x: x.transpose(attrs["axes"]),
     "output axis i is axis axes[i]"),
    ("slice", slice_type, maps.slice, slice_values, "output[i] = x[starts + steps*i]"),
    ("pad", pad_type, maps.pad, pad_values, "output[starts + steps*i] = x[i], zero elsewhere: the transpose of slice"),
    ("concat", concat_type, maps.concat, lambda attrs, type, *xs: np.concatenate(xs, attrs["axis"]),
     "joined along an axis"),
    ("diagonal", diagonal_type, maps.diagonal, diagonal_values,
     "operand axis k along all output axes axes[k], zero off the diagonal"),
]

for _name, _infer, _maps, _reference, _doc in ROWS:
    declare(_name, "structural", _infer, _reference, maps=_maps, doc=_doc)
