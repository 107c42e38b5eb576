"""Leaves of the graph: placeholder, variable, constant, iota.

Placeholders and variables have no reference: `graphc.ir.reference` gives them what was fed or is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, FeedError, ShapeError
from ..node import Attrs, Need
from ..types import DTYPES, Shape, Type, numpy_dtype
from .declare import Array, declare


def declared(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    return Type(checked_dtype(attrs["dtype"]), checked_shape(need, attrs["shape"]))


def checked_dtype(dtype: Any) -> str:
    if dtype not in DTYPES:
        raise DTypeError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    return str(dtype)


def checked_shape(need: Need, shape: Shape) -> Shape:
    for size in shape:
        need.at_least(size, 0, f"size of an axis of {shape}")
    return shape


def absent(attrs: Attrs, type: Type, *arrays: Array) -> Array:
    raise FeedError(f"{attrs['name']}: a leaf of type {type} has no value here; feed it")


def constant_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    bits = attrs["value"]
    return Type(bits.dtype, bits.array.shape)


def iota_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    shape, axis = attrs["shape"], attrs["axis"]
    if not 0 <= axis < len(shape):
        raise ShapeError(f"axis {axis} is not an axis of shape {shape}")
    if checked_dtype(attrs["dtype"]) == "bool":
        raise DTypeError("counts in integers or floats, not in bool")
    return Type(attrs["dtype"], checked_shape(need, shape))


def iota_values(attrs: Attrs, type: Type) -> Array:
    axis = attrs["axis"]
    column = [1] * type.rank
    column[axis] = -1
    length: Any = type.shape[axis]
    line = np.arange(length).astype(numpy_dtype(type.dtype))
    return np.broadcast_to(line.reshape(column), type.shape)  # type: ignore[arg-type]


declare("placeholder", "leaf", declared, absent, doc="a value fed at run time")
declare("variable", "leaf", declared, absent, doc="a value kept in a session")
declare("constant", "leaf", constant_type, lambda attrs, type: attrs["value"].array, doc="a fixed array")
declare("iota", "leaf", iota_type, iota_values, doc="the index along one axis")
