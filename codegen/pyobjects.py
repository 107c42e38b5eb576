"""What emitted calls know of Python and NumPy: places of fields, addresses of functions, and whether that is true.

Offsets are those of CPython builds with a GIL on machines with 64-bit pointers, for NumPy 2.  `layout_is_known` reads
objects at these offsets and calls the functions; where an answer differs from Python's own, no emitted call is used.
"""

from __future__ import annotations

import ctypes
from functools import cache
import sys
from typing import Any, cast

import numpy as np

FIELDS = {"type": 8, "data": 16, "nd": 24, "dims": 32, "strides": 40, "descr": 56, "flags": 64}  # of arrays
VALUE = 16  # where floats and NumPy's scalars have their value
LENGTH, ITEMS = 16, 24  # of tuples and lists; a list has a pointer to its items there
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
API = {"PyArray_Empty": 184, "PyArray_Scalar": 60}  # places in NumPy's table of functions, part of its ABI
PYTHON = ("PyLong_FromLong", "PyLong_AsLongLongAndOverflow", "Py_IncRef", "Py_DecRef", "PyList_New", "PyErr_NoMemory",
          "PyObject_VectorcallMethod", "PyObject_CallNoArgs", "PyEval_SaveThread", "PyEval_RestoreThread",
          "PyMem_RawMalloc", "PyMem_RawFree")
SCALARS = ("bool", "float16", "float32", "float64",
           *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
NAMES = {name: sys.intern(name) for name in ("out", "slow", "refused", "converted")}  # emitted calls point to these

P, OBJECT = ctypes.c_void_p, ctypes.py_object


def python_api(name: str, result: Any, *arguments: Any) -> Any:
    """A function of Python's C API; a prototype of our own, because those of `ctypes.pythonapi` are shared."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


def python_address(name: str) -> int:
    return cast(int, ctypes.cast(getattr(ctypes.pythonapi, name), P).value)


@cache
def numpy_functions() -> dict[str, int]:
    """Addresses of the functions of NumPy's C API that are used."""
    capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
    get = python_api("PyCapsule_GetPointer", P, OBJECT, ctypes.c_char_p)
    table = (ctypes.c_void_p * (max(API.values()) + 1)).from_address(get(capsule, None))
    return {name: cast(int, table[place]) for name, place in API.items()}


@cache
def call_symbols() -> dict[str, int]:
    """What emitted calls leave open: addresses of functions and objects of this process."""
    objects: dict[str, object] = {"None": None, "True": True, "ndarray": np.ndarray, "float": float,
                                  "int": int, "bool": bool, "list": list, "tuple": tuple}
    objects |= {f"descr_{d}": np.dtype(d) for d in SCALARS} | {f"scalar_{d}": np.dtype(d).type for d in SCALARS}
    objects |= {f"name_{name}": text for name, text in NAMES.items()}
    return ({name: python_address(name) for name in PYTHON} | numpy_functions()
            | {f"graphc_{name}": id(value) for name, value in objects.items()})


@cache
def layout_is_known() -> bool:
    """Whether objects are where emitted calls look for them; free-threaded and debug builds have other ones."""
    if sys.implementation.name != "cpython" or object.__basicsize__ != 16 or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    if hasattr(sys, "gettotalrefcount") or not hasattr(getattr(np, "_core", None), "_multiarray_umath"):
        return False
    base = np.zeros((3, 5, 2), np.float32)
    frozen = np.arange(7)
    frozen.flags.writeable = False
    samples: list[np.ndarray[Any, Any]] = [
        base, base[1:, ::2], base.T, base[0, 0, 1:], frozen, np.zeros(()), np.zeros((2, 0), np.uint16),
        np.zeros(9, np.uint8)[1:].view(np.int64), np.ones(3, np.bool_)]
    return all(fields_agree(array) for array in samples) and scalars_agree() and items_agree() and functions_agree()


def read(kind: Any, value: object, offset: int) -> Any:
    """What an object has at an offset."""
    return kind.from_address(id(value) + offset).value


def fields_agree(array: np.ndarray[Any, Any]) -> bool:
    if read(P, array, FIELDS["type"]) != id(np.ndarray) or read(ctypes.c_int, array, FIELDS["nd"]) != array.ndim:
        return False
    if read(P, array, FIELDS["descr"]) != id(array.dtype) or read(P, array, FIELDS["data"]) != array.ctypes.data:
        return False
    flags = array.flags
    if read(ctypes.c_int, array, FIELDS["flags"]) & (C_CONTIGUOUS | ALIGNED | WRITEABLE) != (
            C_CONTIGUOUS * flags.c_contiguous | ALIGNED * flags.aligned | WRITEABLE * flags.writeable):
        return False
    lists = [(ctypes.c_ssize_t * array.ndim).from_address(read(P, array, FIELDS[name])) if array.ndim else ()
             for name in ("dims", "strides")]
    return tuple(lists[0]) == array.shape and tuple(lists[1]) == array.strides


def scalars_agree() -> bool:
    """Floats and NumPy's scalars, whose bytes are compared with those of an array."""
    values = [np.ones(1, d) for d in SCALARS]
    numbers = all(ctypes.string_at(id(a[0]) + VALUE, a.itemsize) == a.tobytes() for a in values)
    types = all(read(P, a[0], FIELDS["type"]) == id(a.dtype.type) for a in values)
    return numbers and types and bool(read(ctypes.c_double, 1.5, VALUE) == 1.5)


def items_agree() -> bool:
    """Tuples and lists."""
    for items in ((1.5, "a", None), [1.5, "a", None]):
        first = id(items) + ITEMS if type(items) is tuple else read(P, items, ITEMS)
        found = list((P * 3).from_address(first))
        if read(ctypes.c_ssize_t, items, LENGTH) != 3 or found != [id(item) for item in items]:
            return False
    return True


def functions_agree() -> bool:
    """Whether the two functions of NumPy's table do what is thought."""
    dtype = np.dtype(np.float32)
    addresses = numpy_functions()
    empty = ctypes.PYFUNCTYPE(OBJECT, ctypes.c_int, P, OBJECT, ctypes.c_int)(addresses["PyArray_Empty"])
    scalar = ctypes.PYFUNCTYPE(OBJECT, P, OBJECT, P)(addresses["PyArray_Scalar"])
    incref = python_api("Py_IncRef", None, OBJECT)
    for shape in ((), (2, 3)):
        incref(dtype)  # the callee takes a reference
        dims = (ctypes.c_ssize_t * 2)(*shape)
        array = empty(len(shape), ctypes.addressof(dims), dtype, 0)
        if type(array) is not np.ndarray or array.shape != shape or array.dtype is not dtype:
            return False
    number = scalar(ctypes.addressof(ctypes.c_float(1.5)), dtype, None)
    return type(number) is np.float32 and bool(number == 1.5)
