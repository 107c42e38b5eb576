"""Runs nodes through lowering and code generation alone (no graph passes), for comparison with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
from pathlib import Path
from typing import Any

from codegen.cache import Cache
from codegen.jit import compile_text, load
from codegen.program import constant_symbol, emit_program
from codegen.regions import DESCRIPTOR
from codegen.target import target
from graphc.binding import bind_sizes
from graphc.arrays import aligned_array, constant_array, pointers
from graphc.compiler import share
from graphc.ir.dims import evaluate
from graphc.ir.node import Node
from graphc.ir.types import from_storage, storage_dtype, to_storage
from passes.lower import Request, lower
import numpy as np

Arrays = dict[Node, Any]


class Native:
    """Compiled once, called with feeds of any sizes."""

    def __init__(self, fetches: Sequence[Node], inputs: Sequence[Node], updates: Any = (),
                 target_name: str = "native", threads: int = 1) -> None:
        chosen = target(target_name)
        self.program = lower(Request("main", tuple(inputs), tuple(fetches), tuple(updates)))
        self.emitted = emit_program(self.program, chosen)
        constants = [constant_array(c.data) for c in self.program.constants]
        symbols = {constant_symbol(c.key): a.ctypes.data for c, a in zip(self.program.constants, constants)}
        names = ["main", *([DESCRIPTOR] if self.emitted.has_regions else [])]
        self.loaded = load(compile_text(self.emitted.text, chosen), names, chosen, symbols, constants)
        self.threads = threads
        if self.emitted.has_regions:
            share(self.loaded, threads, Cache(Path(), 0))
        self.entry = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4,
                                      *[ctypes.c_int64] * len(self.program.symbols))(self.loaded.addresses["main"])
        self.inputs = inputs

    def __call__(self, feeds: Mapping[Node, Any], state: Sequence[Any] = ()) -> list[Any]:
        arrays = [np.ascontiguousarray(to_storage(feeds[n], n.dtype)).reshape(np.shape(feeds[n])) for n in self.inputs]
        sizes = bind_sizes(self.program.inputs, [a.shape for a in arrays], self.program.checks)
        outputs = [np.empty([evaluate(s, sizes) for s in o.shape], storage_dtype(o.dtype))
                   for o in self.program.outputs]
        arena = aligned_array(self.emitted.arena_bytes(sizes, self.threads))
        arena[:] = 0xA5  # nothing may depend on what lies there
        status = self.entry(pointers(arrays), pointers(outputs), pointers(state), arena.ctypes.data,
                            *(sizes[s] for s in self.program.symbols))
        if status:
            raise ValueError(self.program.messages[status - 1])
        return [from_storage(o, spec.dtype) for o, spec in zip(outputs, self.program.outputs)]


def native(fetches: Sequence[Node], feeds: Mapping[Node, Any], target_name: str = "native") -> list[Any]:
    return Native(fetches, list(feeds), target_name=target_name)(feeds)
