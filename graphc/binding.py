"""Arrays -> what native code takes: right dtype, C order, aligned, of a shape that fits; or an error that says why not.

Converted without a word: other strides, byte orders and alignments, Python numbers and lists, and dtypes of the same
kind (float64 to float32, any integer to a float).  Refused: what would lose more than precision (float to integer,
integers out of range, complex, objects, text, masked arrays).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import sys
from typing import Any

import numpy as np

from .ir.dims import Dim, evaluate, symbols_of
from .ir.errors import DTypeError, FeedError, ShapeError
from .ir.plan import Array, DimCheck
from .ir.types import as_dtype, is_float, is_integer, numpy_dtype, shape_text, storage_dtype, to_storage

Describe = Callable[[], str]


def describe(spec: Array) -> str:
    return f"{spec.name!r} ({spec.dtype}[{', '.join(map(str, spec.shape))}])"


def as_array(spec: Array, value: Any, where: Describe = str) -> np.ndarray[Any, Any]:
    """The value as native code reads it; `where` adds to an error message how the input is reached."""
    if is_masked(value):
        raise FeedError(f"feed of {describe(spec)}: a masked array; fill it first (value.filled(..)){where()}")
    array = value if isinstance(value, np.ndarray) else given_array(spec, value, where)
    if getattr(array.dtype, "name", "") == "bfloat16":
        array = array.view(np.uint16) if spec.dtype == "bfloat16" else array.astype(np.float32)
    if spec.dtype == "bfloat16" and array.dtype != np.uint16:
        check_kind(spec, array, where)
        return to_storage(as_dtype(array, "bfloat16"), "bfloat16")
    wanted = storage_dtype(spec.dtype)
    if array.dtype != wanted:
        check_kind(spec, array, where)
    with np.errstate(all="ignore"):
        converted = np.asarray(array, dtype=wanted, order="C")
    if not converted.flags.aligned or not converted.flags.c_contiguous:
        converted = converted.copy()
    return converted


def is_masked(value: Any) -> bool:
    """Whether it is a masked array; NumPy's module of these is slow to import, and without it there are none."""
    return type(value) is not np.ndarray and "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray)


def given_array(spec: Array, value: Any, where: Describe) -> np.ndarray[Any, Any]:
    """A value that is no array yet."""
    try:
        array = np.asarray(value)
    except ValueError as fault:
        raise FeedError(f"feed of {describe(spec)}: {type(value).__name__} does not make an array: {fault}"
                        + where()) from None
    if array.dtype.kind == "O":
        raise FeedError(f"feed of {describe(spec)}: {type(value).__name__} {value!r:.60} does not make an array of "
                        f"numbers{where()}")
    if array.size == 0 and array.dtype == np.float64:
        array = array.astype(storage_dtype(spec.dtype))  # an empty list has no dtype of its own
    return array


def check_kind(spec: Array, array: np.ndarray[Any, Any], where: Describe) -> None:
    """Refuses a conversion that would lose more than precision."""
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"feed of {describe(spec)}: expected {spec.dtype}, got {array.dtype}{where()}")
    if is_float(spec.dtype) or array.dtype.kind == "b":
        return
    if array.dtype.kind == "f" or spec.dtype == "bool":
        raise DTypeError(f"feed of {describe(spec)}: expected {spec.dtype}, got {array.dtype}, which would be cut; "
                         f"convert it with .astype({spec.dtype!r}) if that is meant{where()}")
    if is_integer(spec.dtype) and array.size:
        limits = np.iinfo(numpy_dtype(spec.dtype))
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise DTypeError(f"feed of {describe(spec)}: values from {low} to {high} do not fit {spec.dtype}{where()}")


def bind_sizes(specs: Sequence[Array], shapes: Sequence[tuple[int, ...]], checks: Sequence[DimCheck],
               where: Callable[[int], str] = lambda k: "") -> dict[str, int]:
    """The values of the symbolic sizes, from the shapes of the inputs; refuses shapes that do not fit."""
    found: dict[str, tuple[int, str]] = {}
    for k, (spec, shape) in enumerate(zip(specs, shapes)):
        if len(shape) != len(spec.shape):
            raise ShapeError(f"feed of {describe(spec)}: expected rank {len(spec.shape)}, got an array of shape "
                             f"{shape_text(shape)}{where(k)}")
        for position, (size, length) in enumerate(zip(spec.shape, shape)):
            if isinstance(size, int):
                if size != length:
                    raise ShapeError(f"feed of {describe(spec)}: expected {size} along axis {position}, got an array "
                                     f"of shape {shape_text(shape)}{where(k)}")
            elif size == Dim.symbol(symbols_of(size)[0]):
                bind_symbol(found, spec, shape, position, symbols_of(size)[0], where(k))
    sizes = {name: length for name, (length, _) in found.items()}
    check_composite(specs, shapes, sizes, where)
    check_sizes(checks, sizes)
    return sizes


def bind_symbol(found: dict[str, tuple[int, str]], spec: Array, shape: tuple[int, ...], position: int, name: str,
                where: str) -> None:
    length = shape[position]
    seen = f"{length} along axis {position} of {spec.name!r}, an array of shape {shape_text(shape)}"
    if name in found and found[name][0] != length:
        raise ShapeError(f"feed of {describe(spec)}: the size {name!r} is {found[name][1]}, but {seen}{where}")
    found.setdefault(name, (length, seen))


def check_composite(specs: Sequence[Array], shapes: Sequence[tuple[int, ...]], sizes: Mapping[str, int],
                    where: Callable[[int], str]) -> None:
    """Axes whose size is an expression of symbols."""
    for k, (spec, shape) in enumerate(zip(specs, shapes)):
        for position, (size, length) in enumerate(zip(spec.shape, shape)):
            if isinstance(size, Dim) and all(s in sizes for s in symbols_of(size)) and evaluate(size, sizes) != length:
                raise ShapeError(f"feed of {describe(spec)}: expected {size} = {evaluate(size, sizes)} along axis "
                                 f"{position}, got an array of shape {shape_text(shape)}{where(k)}")


def check_sizes(checks: Sequence[DimCheck], sizes: Mapping[str, int]) -> None:
    """What the graph requires of the run-time sizes."""
    for check in checks:
        a, b = evaluate(check.a, sizes), evaluate(check.b, sizes)
        if not (a == b if check.relation == "==" else a >= b):
            given = ", ".join(f"{name} = {sizes[name]}" for name in symbols_of(check.a, check.b))
            raise ShapeError(f"{check.message}\n"
                             f"expected {check.a} {check.relation} {check.b}, got {a} and {b} with {given}")


def check_out(spec: Array, array: Any, shape: tuple[int, ...], what: str = "out") -> None:
    """Refuses an output buffer, or an array of the state, that native code could not write to."""
    if not isinstance(array, np.ndarray):
        raise FeedError(f"{what} for {spec.name!r}: expected an array, got {type(array).__name__}")
    wanted = storage_dtype(spec.dtype)
    reason = (f"dtype {array.dtype}, expected {wanted}" if array.dtype != wanted else
              f"shape {shape_text(array.shape)}, expected {shape_text(shape)}" if array.shape != shape else
              "not in C order" if not array.flags.c_contiguous else
              "not aligned" if not array.flags.aligned else "read-only" if not array.flags.writeable else "")
    if reason:
        raise FeedError(f"{what} for {spec.name!r}: {reason}")
