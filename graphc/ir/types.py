"""Types of nodes: dtype and shape.  Promotion is NumPy 2's, asked of NumPy itself; Python scalars are weak.

NumPy has no bfloat16: its arrays enter and leave as float32 that hold bfloat16 values, and are promoted like float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .dims import Dim, product

FLOATS = ("float64", "float32", "float16", "bfloat16")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *SIGNED, *UNSIGNED, "bool")
SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
               "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
               "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL"}  # names in files

assert tuple(SAFETENSORS) == DTYPES

Shape = tuple["int | Dim", ...]


class Type(NamedTuple):
    """dtype and shape of a node's value."""

    dtype: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int | Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> int | Dim:
        return self.size * itemsize(self.dtype)


def shape_text(shape: Sequence[Any]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def is_integer(dtype: str) -> bool:
    return dtype in SIGNED or dtype in UNSIGNED


def itemsize(dtype: str) -> int:
    """Bytes of one element in a buffer."""
    return 1 if dtype == "bool" else int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


@cache
def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The dtype of arrays that hold such values in Python (float32 for bfloat16)."""
    return np.dtype("float32" if dtype == "bfloat16" else dtype)


@cache
def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The dtype of the bytes in native buffers (uint16 for bfloat16)."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


def dtype_name(dtype: Any) -> str:
    """Our name of a dtype given as a string, a NumPy dtype or a scalar type; TypeError for what there is not."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    if getattr(dtype, "name", None) == "bfloat16" or getattr(dtype, "__name__", None) == "bfloat16":
        return "bfloat16"
    name: str = np.dtype(dtype).name
    if name not in DTYPES:
        raise TypeError(f"no dtype {name}; there are {', '.join(DTYPES)}")
    return name


def round_bfloat16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The nearest bfloat16 values, ties to even, as float32; NaN stays NaN."""
    values = np.ascontiguousarray(array, np.float32)
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    result = np.where(np.isnan(values), np.float32("nan"), rounded.view(np.float32))
    return np.asarray(result, np.float32).reshape(np.shape(array))


def to_storage(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """The array as native buffers hold it."""
    if dtype != "bfloat16":
        return np.asarray(array, storage_dtype(dtype))
    bits = round_bfloat16(array).view(np.uint32) >> np.uint32(16)
    return np.asarray(bits, np.uint16)  # of rank 0 too, where arithmetic gives a scalar


def from_storage(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """The array as Python sees it."""
    if dtype != "bfloat16":
        return array
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def as_dtype(array: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Values of that dtype, converted as a C cast does (no warnings)."""
    with np.errstate(all="ignore"):
        converted = np.asarray(array).astype(numpy_dtype(dtype))
    return round_bfloat16(converted) if dtype == "bfloat16" else converted


def promote(*dtypes: str) -> str:
    """NumPy's result type of array operands."""
    if "bfloat16" not in dtypes:
        return str(np.result_type(*map(np.dtype, dtypes)).name)
    if "float16" in dtypes:
        return promote("float32", *(d for d in dtypes if d not in ("float16", "bfloat16")))
    name = str(np.result_type(*(np.dtype("float16" if d == "bfloat16" else d) for d in dtypes)).name)
    return "bfloat16" if name == "float16" else name


@cache
def ufunc_types(ufunc: Any, operands: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
    """Operand dtypes and result dtype of a NumPy ufunc; an operand is a dtype name or int, float for a weak scalar.

    TypeError where NumPy has no loop for these operands.
    """
    brain = "bfloat16" in operands
    if brain and "float16" in operands:
        return ufunc_types(ufunc, tuple("float32" if o in ("float16", "bfloat16") else o for o in operands))
    asked = tuple(o if isinstance(o, type) else np.dtype("float16" if o == "bfloat16" else o) for o in operands)
    found = ufunc.resolve_dtypes((*asked, *(None,) * ufunc.nout))
    names = ["bfloat16" if brain and d.name == "float16" else d.name for d in found]
    if "object" in names:
        raise TypeError(f"ufunc {ufunc.__name__!r} not supported for the operand dtypes {operands}")
    return tuple(names[:ufunc.nin]), names[ufunc.nin]
