"""The linear recurrence y[i] = a[i]*y[i-1] + b[i] along an axis, with y[-1] = 0; from the end if `reverse`.

cumsum has a = 1.  float16 and bfloat16 keep the running value in float32.
"""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from ..node import Attrs, Need
from ..types import Type
from . import maps
from .declare import Array, declare, require_dtype, require_equal_dtypes, wide
from .reductions import NUMBERS


def scan_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    a, b = types
    if not 0 <= attrs["axis"] < b.rank:
        raise ShapeError(f"axis {attrs['axis']} is not an axis of {b}")
    require_equal_dtypes(types)
    return Type(require_dtype(b, NUMBERS, "operands"), need.same_shape(a.shape, b.shape, "operands"))


def scan_values(attrs: Attrs, type: Type, a: Array, b: Array) -> Array:
    axis = attrs["axis"]
    a, b = wide(np.moveaxis(a, axis, 0)), wide(np.moveaxis(b, axis, 0))
    result = np.empty_like(b, order="C")
    value = np.zeros(b.shape[1:], b.dtype)
    for i in reversed(range(len(b))) if attrs["reverse"] else range(len(b)):
        value = result[i] = a[i] * value + b[i]
    return np.moveaxis(result, 0, axis)


declare("linear_scan", "structural", scan_type, scan_values,
        maps=maps.linear_scan, doc="y[i] = a[i]*y[i-1] + b[i] along an axis")
