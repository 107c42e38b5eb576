"""Memory that native code works on: arrays on cache lines, and tables of their addresses."""

from __future__ import annotations

from collections.abc import Sequence
import ctypes
from typing import Any

import numpy as np

ALIGNMENT = 64


def aligned_array(nbytes: int) -> np.ndarray[Any, Any]:
    """Bytes that start on a cache line, of any value.  NumPy asks for huge pages where they are many."""
    room = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start:start + nbytes]


def constant_array(data: bytes) -> np.ndarray[Any, Any]:
    """A copy of the bytes on a cache line."""
    array = aligned_array(len(data))
    array[:] = np.frombuffer(data, np.uint8)
    return array


def pointers(arrays: Sequence[np.ndarray[Any, Any]]) -> Any:
    """A C array of the arrays' addresses."""
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
