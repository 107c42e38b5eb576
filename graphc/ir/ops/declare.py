"""How the rows of the op table are entered: one call per op, in the modules beside this one.

A reference is wrapped once: it runs without NumPy's warnings, and its result has exactly the node's dtype (bfloat16
as float32 arrays holding bfloat16 values) and shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DTypeError
from ..node import OPS, Attrs, Infer, Op
from ..types import Type, numpy_dtype, round_bfloat16

Array = np.ndarray[Any, Any]
Reference = Callable[..., Any]


def settled(reference: Reference) -> Reference:
    """The reference with its result in the node's own dtype."""
    def run(attrs: Attrs, type: Type, *arrays: Array) -> Array:
        with np.errstate(all="ignore"):
            result = np.asarray(reference(attrs, type, *arrays))
            result = result.astype(numpy_dtype(type.dtype), copy=False)
        return round_bfloat16(result) if type.dtype == "bfloat16" else result
    return run


def declare(name: str, kind: str, infer: Infer, reference: Reference, **columns: Any) -> None:
    """Enters one row."""
    OPS[name] = Op(name, kind, infer, settled(reference), **columns)


def wide(array: Array) -> Array:
    """float16 as float32, in which its sums and products are accumulated; everything else as it is."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def require_dtype(type: Type, allowed: tuple[str, ...], what: str) -> str:
    """The dtype, if it is one of these; DTypeError otherwise."""
    if type.dtype not in allowed:
        raise DTypeError(f"{what}: needs one of {', '.join(allowed)}, got {type}")
    return type.dtype


def require_equal_dtypes(types: tuple[Type, ...]) -> str:
    """The one dtype of all operands."""
    if any(t.dtype != types[0].dtype for t in types[1:]):
        raise DTypeError(f"operands need one dtype, got {', '.join(map(str, types))}; cast them first")
    return types[0].dtype
