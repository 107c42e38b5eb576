"""Reductions drop the axes they run over; the dtype stays (the functions above cast first where NumPy widens).

float16 and bfloat16 are accumulated in float32.  max, min, argmax and argmin: NaN wins, and an empty axis is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..node import Attrs, Infer, Need
from ..types import DTYPES, Type
from . import maps
from .declare import Array, declare, require_dtype, wide

NUMBERS = tuple(d for d in DTYPES if d != "bool")


def reduced(dtypes: tuple[str, ...], *, needs_elements: bool) -> Infer:
    """Type rule: the axes are dropped."""
    def infer(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
        (x,), axes = types, attrs["axes"]
        if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.rank for a in axes):
            raise ShapeError(f"axes {axes} are not sorted axes of {x}")
        if needs_elements:
            for axis in axes:
                need.at_least(x.shape[axis], 1, f"axis {axis} of {x}, which must not be empty")
        return Type(require_dtype(x, dtypes, "operand"), tuple(n for k, n in enumerate(x.shape) if k not in axes))
    return infer


def over_axes(function: Callable[..., Any], *, widened: bool) -> Callable[..., Any]:
    def run(attrs: Attrs, type: Type, x: Array) -> Any:
        x = wide(x) if widened else x
        return function(x, axis=attrs["axes"], dtype=x.dtype) if widened else function(x, axis=attrs["axes"])
    return run


def index_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    (x,), axis = types, attrs["axis"]
    if not 0 <= axis < x.rank:
        raise ShapeError(f"axis {axis} is not an axis of {x}")
    need.at_least(x.shape[axis], 1, f"axis {axis} of {x}, which must not be empty")
    return Type("int64", x.shape[:axis] + x.shape[axis + 1:])


declare("sum", "structural", reduced(NUMBERS, needs_elements=False), over_axes(np.sum, widened=True),
        maps=maps.sum, doc="sum over axes")
declare("prod", "structural", reduced(NUMBERS, needs_elements=False), over_axes(np.prod, widened=True),
        maps=maps.prod, doc="product over axes")
declare("max", "structural", reduced(DTYPES, needs_elements=True), over_axes(np.max, widened=False),
        maps=maps.max, doc="greatest over axes; NaN if there is one")
declare("min", "structural", reduced(DTYPES, needs_elements=True), over_axes(np.min, widened=False),
        maps=maps.min, doc="least over axes; NaN if there is one")
declare("any", "structural", reduced(("bool",), needs_elements=False), over_axes(np.any, widened=False),
        doc="or over axes")
declare("all", "structural", reduced(("bool",), needs_elements=False), over_axes(np.all, widened=False),
        doc="and over axes")
declare("argmax", "structural", index_type, lambda attrs, type, x: np.argmax(x, attrs["axis"]),
        doc="index of the first greatest along an axis; of the first NaN if there is one")
declare("argmin", "structural", index_type, lambda attrs, type, x: np.argmin(x, attrs["axis"]),
        doc="index of the first least along an axis; of the first NaN if there is one")
