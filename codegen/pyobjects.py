"""What emitted calls know of Python and NumPy: places of fields, addresses of functions, and whether that is true.

Offsets are those of CPython builds with a GIL on machines with 64-bit pointers, for NumPy 2.  `layout_is_known` reads
arrays at these offsets and calls the functions; where one answer differs from NumPy's own, no emitted call may be used.
"""

from __future__ import annotations

from collections.abc import Callable
import ctypes
from functools import cache
import sys
from typing import Any, cast

import numpy as np

CONTEXT = {"arena": 0, "nbytes": 1, "busy": 2, "state": 3, "block": 4}  # block: what to free
FIELDS = {"type": 8, "data": 16, "nd": 24, "dims": 32, "strides": 40, "descr": 56, "flags": 64}
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
METH_FASTCALL = 0x80
API = {"PyArray_Empty": 184, "PyArray_Return": 76}  # places in NumPy's table of functions, part of its ABI
PYTHON = ("PyLong_FromLong", "Py_IncRef", "Py_DecRef", "PyList_New", "PyList_SetItem", "PyErr_NoMemory",
          "PyEval_SaveThread", "PyEval_RestoreThread", "PyMem_RawMalloc", "PyMem_RawFree")

P, OBJECT = ctypes.c_void_p, ctypes.py_object


def python_api(name: str, result: Any, *arguments: Any) -> Any:
    """A function of Python's C API; a prototype of our own, because those of `ctypes.pythonapi` are shared."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


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
    python = {name: cast(int, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value) for name in PYTHON}
    dtypes = {f"graphc_descr_{d}": id(np.dtype(d)) for d in ("bool", "float16", "float32", "float64", *(
        f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))}
    return {**python, **numpy_functions(), **dtypes, "_Py_NoneStruct": id(None), "graphc_ndarray": id(np.ndarray)}


@cache
def layout_is_known() -> bool:
    """Whether arrays and functions are where emitted calls look for them; free-threaded builds have other objects."""
    if sys.implementation.name != "cpython" or object.__basicsize__ != 16 or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    if not hasattr(np, "_core") or not hasattr(np._core._multiarray_umath, "_ARRAY_API"):
        return False
    base = np.zeros((3, 5, 2), np.float32)
    frozen = np.arange(7)
    frozen.flags.writeable = False
    samples: list[np.ndarray[Any, Any]] = [
        base, base[1:, ::2], base.T, base[0, 0, 1:], frozen, np.zeros(()), np.zeros((2, 0), np.uint16),
        np.zeros(9, np.uint8)[1:].view(np.int64), np.ones(3, np.bool_)]
    return all(fields_agree(array) for array in samples) and empty_agrees()


def fields_agree(array: np.ndarray[Any, Any]) -> bool:
    def read(kind: Any, name: str) -> Any:
        return kind.from_address(id(array) + FIELDS[name]).value

    if read(ctypes.c_void_p, "type") != id(np.ndarray) or read(ctypes.c_int, "nd") != array.ndim:
        return False
    if read(ctypes.c_void_p, "descr") != id(array.dtype) or read(ctypes.c_void_p, "data") != array.ctypes.data:
        return False
    flags = array.flags
    if read(ctypes.c_int, "flags") & (C_CONTIGUOUS | ALIGNED | WRITEABLE) != (
            C_CONTIGUOUS * flags.c_contiguous | ALIGNED * flags.aligned | WRITEABLE * flags.writeable):
        return False
    lists = [(ctypes.c_ssize_t * array.ndim).from_address(read(ctypes.c_void_p, name)) if array.ndim else ()
             for name in ("dims", "strides")]
    return tuple(lists[0]) == array.shape and tuple(lists[1]) == array.strides


def empty_agrees() -> bool:
    """Whether the two functions of NumPy's table do what is thought."""
    dtype = np.dtype(np.float32)
    addresses = numpy_functions()
    empty = ctypes.PYFUNCTYPE(OBJECT, ctypes.c_int, P, OBJECT, ctypes.c_int)(addresses["PyArray_Empty"])
    shown = ctypes.PYFUNCTYPE(OBJECT, OBJECT)(addresses["PyArray_Return"])
    incref = python_api("Py_IncRef", None, OBJECT)
    for shape in ((), (2, 3)):
        incref(dtype)
        dims = (ctypes.c_ssize_t * 2)(*shape)
        array = empty(len(shape), ctypes.addressof(dims), dtype, 0)
        if type(array) is not np.ndarray or array.shape != shape or array.dtype is not dtype:
            return False
    array = np.ones((), np.float32)
    incref(array)  # the callee takes a reference
    return type(shown(array)) is np.float32


class MethodDef(ctypes.Structure):
    """What Python keeps about a native function: PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", P), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


class Context:
    """The words behind a native function, and all that must live as long as it does; its `self` refers to this."""

    def __init__(self, name: str, address: int, kept: object, state: int) -> None:
        self.words = np.zeros(len(CONTEXT), np.uint64)
        self.words[CONTEXT["state"]] = state
        self.method = MethodDef(name.encode(), address, METH_FASTCALL, b"")
        self.kept = kept
        self.free = python_api("PyMem_RawFree", None, P)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.words.__array_interface__

    def __del__(self) -> None:
        self.free(int(self.words[CONTEXT["block"]]))


def python_function(name: str, address: int, kept: object, state: int = 0) -> Callable[..., Any]:
    """The builtin function at this address; `kept` lives as long as it does, `state` is the table of variables."""
    context = Context(name, address, kept, state)
    make = python_api("PyCFunction_NewEx", OBJECT, P, OBJECT, P)
    made: Callable[..., Any] = make(ctypes.addressof(context.method), np.asarray(context), None)
    return made
