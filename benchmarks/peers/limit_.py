"""Code written by hand: C with vector intrinsics (`limits.c`), and a Python extension for the call (`call_limit.c`).

No peer but a yardstick: what a person could get by writing and tuning one loop for this processor.
"""

from __future__ import annotations

from collections.abc import Callable
import ctypes
from functools import cache, partial
from typing import Any

import numpy as np

from . import Case, Inputs, Table, calling
from .. import formulas
from ..native import built, extension

version = lambda: "C, -O3 -march=native"


@cache
def library() -> Any:
    return ctypes.CDLL(str(built("limits", "-ffp-contract=off")))


@cache
def calls() -> Any:
    return extension("call_limit")


def pointer(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def scale(into: bool) -> Callable[[Inputs], Case]:
    def build(inputs: Inputs) -> Case:
        x = inputs["x"]
        function = calls().scale_double if x.dtype == np.float64 else calls().scale_float
        return calling(function, x, *([np.empty_like(x)] if into else []))
    return build


def writing(function: str, shape: tuple[int, ...], arguments: Callable[[Any], list[Any]]) -> Case:
    """A case that writes into one array; `arguments` gives those of the call from the pointer to it."""
    y = np.zeros(shape, "float32")
    call = partial(getattr(library(), function), *arguments(pointer(y)))

    def results() -> list[np.ndarray[Any, Any]]:
        call()
        return [y]
    return Case(call, results, kept=arguments)


def chain(inputs: Inputs) -> Case:
    x, numbers = inputs["x"], [ctypes.c_float(float(inputs[name])) for name in "abc"]
    return writing("chain", x.shape, lambda y: [pointer(x), y, ctypes.c_int64(x.size), *numbers])


def rows(function: str, drops: bool = False) -> Callable[[Inputs], Case]:
    def build(inputs: Inputs) -> Case:
        x = inputs["x"]
        sizes = [ctypes.c_int64(n) for n in x.shape]
        return writing(function, x.shape[:1] if drops else x.shape, lambda y: [pointer(x), y, *sizes])
    return build


def layernorm(inputs: Inputs) -> Case:
    x, g, b = (inputs[name] for name in "xgb")
    rest = [*(ctypes.c_int64(n) for n in x.shape), ctypes.c_float(formulas.EPSILON)]
    return writing("layernorm", x.shape, lambda y: [pointer(x), pointer(g), pointer(b), y, *rest])


CASES: Table = {
    "scale": {"": scale(False), "out": scale(True)},
    "chain": {"": chain},
    "softmax": {"": rows("softmax")},
    "layernorm": {"": layernorm},
    "logsumexp": {"": rows("logsumexp", drops=True)},
}
