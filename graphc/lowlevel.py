"""Compiled functions as `scipy.LowLevelCallable`: SciPy's C code calls them without Python.

    quad(f.as_low_level_callable(), 0, 1)                  f of one number
    quad(f.as_low_level_callable(c), 0, 1)                 f of a number and an array c, which is bound
    generic_filter(image, f.as_low_level_callable(kind="filter"), size=3)
"""

from __future__ import annotations

from collections.abc import Sequence
import ctypes
from dataclasses import replace
from typing import Any

import numpy as np

from codegen.jit import content_key, loaded_image, made_image
from codegen.lowlevel import Callback, callback_text
from codegen.pyobjects import call_symbols
from codegen.target import target

from .binding import as_array, bind_sizes
from .compiler import Compiled
from .ir.errors import GraphError
from .ir.plan import Array

NUMBERS = ctypes.POINTER(ctypes.c_double)
# kind -> (what SciPy calls the type, result, arguments), without the pointer to data
TYPES: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
    "scalar": ("double (double", ctypes.c_double, (ctypes.c_double,)),
    "vector": ("double (int, double *", ctypes.c_double, (ctypes.c_int, NUMBERS)),
    "filter": ("int (double *, intptr_t, double *", ctypes.c_int, (NUMBERS, ctypes.c_ssize_t, NUMBERS)),
}


def low_level_callable(compiled: Compiled, state: Any, kind: str | None, values: Sequence[Any]) -> Any:
    """The function with its last inputs bound; `state` is its table of variables, kept by what is returned."""
    try:
        from scipy import LowLevelCallable
    except ImportError:
        raise GraphError("as_low_level_callable: SciPy is not installed") from None
    callback = callback_of(compiled, kind, len(values))
    arrays = [as_array(spec, value) for spec, value in zip(compiled.border.inputs[callback.free:], values)]
    chosen, cache, text = target(compiled.options.target), compiled.cache, callback_text(callback)
    image = cache.made("code", content_key(text, chosen) + "-image", lambda: made_image(text, [callback.name], chosen))
    symbols = call_symbols() | {compiled.border.name: compiled.address, "graphc_state": ctypes.addressof(state)}
    loaded = loaded_image(image, symbols, kept=(compiled, state))
    text, result, arguments = TYPES[callback.kind]
    has_data = bool(values) or callback.kind == "filter"
    made: Any = ctypes.CFUNCTYPE(result, *arguments, *[ctypes.c_void_p] * has_data)(loaded.addresses[callback.name])
    made.kept = loaded
    data = table(callback, arrays) if values else None
    return LowLevelCallable(made, data, f"{text}, void *)" if has_data else f"{text})")


def table(callback: Callback, arrays: Sequence[np.ndarray[Any, Any]]) -> ctypes.c_void_p:
    """What the function reads behind its last argument: addresses of arrays and values of symbols."""
    border = callback.border
    sizes = bind_sizes(border.inputs[callback.free:], [a.shape for a in arrays], ())
    words = [*(a.ctypes.data for a in arrays), *(sizes.get(s, 0) for s in border.symbols)]
    block = (ctypes.c_int64 * len(words))(*words)
    pointer = ctypes.c_void_p(ctypes.addressof(block))
    pointer.kept = (block, arrays)  # type: ignore[attr-defined]
    return pointer


def callback_of(compiled: Compiled, kind: str | None, bound: int) -> Callback:
    """The kind that fits the inputs which are not bound; refuses what none fits."""
    border = compiled.border
    free = len(border.inputs) - bound
    numbers = [a for a in border.inputs[:free] if not a.shape]
    row = free == 1 and len(border.inputs[0].shape) == 1
    fits = "vector" if row or len(numbers) == free > 1 else "scalar" if len(numbers) == free == 1 else None
    wrong = (f"takes {len(border.inputs)} inputs, {bound} were bound" if free < 1 else
             "changes variables" if compiled.request.updates else
             "must have one output, a float64 of rank 0" if [(a.dtype, a.shape) for a in border.outputs] != [
                 ("float64", ())] else
             f"the inputs that are not bound must be float64, of rank 0 or one of rank 1: {texts(border.inputs[:free])}"
             if fits is None or any(a.dtype != "float64" for a in border.inputs[:free]) else
             f"kind {kind!r} is none of {', '.join(TYPES)}" if kind not in (None, *TYPES) else
             f"kind {kind!r} needs one input of rank 1" if kind == "filter" and not row else
             f"kind {kind!r} does not fit {texts(border.inputs[:free])}" if kind not in (None, "filter", fits) else "")
    if wrong or fits is None:
        raise GraphError(f"as_low_level_callable of {border.name!r}: {wrong}")
    arena = border.arena + border.slot * (compiled.options.threads - 1)  # every thread that helps has a slot
    return Callback(replace(border, arena=arena), kind or fits, free)


def texts(arrays: Sequence[Array]) -> str:
    return ", ".join(f"{a.name}: {a.dtype}[{', '.join(map(str, a.shape))}]" for a in arrays)
