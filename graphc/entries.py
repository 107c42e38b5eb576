"""Entries of loaded libraries: native functions with what their callers must know, and the variables behind them.

An entry refers to the image, which holds code and variables, and not to the `Library` that has the entries: nothing
here needs a garbage collector to go away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
import ctypes
from dataclasses import dataclass
from math import prod
import os
from pathlib import Path
from typing import Any

import numpy as np

from codegen.cache import Cache
from codegen.header import STATUS
from codegen.jit import Loaded, content_key, made_image
from codegen.pycall import call_symbol, call_text
from codegen.pyform import CallForm
from codegen.pytype import callable_type
from codegen.target import target

from .arrays import aligned_array
from .binding import as_array, bind_sizes, check_out
from .config import Options
from .function import output_arrays, shown_results
from .gate import Gate
from .ir.dims import product
from .ir.errors import FeedError, GraphError, SessionError
from .ir.plan import Array, DimCheck
from .ir.types import itemsize, storage_dtype

TEXTS = {value: text for _, value, text in STATUS}
OUT_OF_RANGE, FILE, BAD_FILE = (next(value for name, value, _ in STATUS if name == wanted)
                                for wanted in ("OUT_OF_RANGE", "FILE", "BAD_FILE"))
OPERATIONS = 10  # per element that is read or written, as a guess of how long an entry takes


@dataclass(frozen=True)
class EntrySpec:
    """What an entry takes and returns, as the library says it."""

    name: str
    symbols: tuple[str, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    state: tuple[int, ...]  # which variables it touches
    single: bool
    checks: tuple[DimCheck, ...]
    messages: tuple[str, ...]

    def __str__(self) -> str:
        inputs = ", ".join(f"{a.name}: {array_text(a)}" for a in self.inputs)
        return f"{self.name}({inputs}) -> {', '.join(f'{a.name}: {array_text(a)}' for a in self.outputs) or 'nothing'}"


def array_text(array: Array) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


class State(MutableMapping[str, Any]):
    """The variables of a loaded library by name; native calls find the objects in `table`."""

    def __init__(self, variables: Sequence[Array], arrays: Mapping[str, Any]) -> None:
        self.numbers = {a.name: k for k, a in enumerate(variables)}
        self.arrays: dict[str, Any] = {}
        self.table = (ctypes.c_void_p * max(1, len(variables)))()
        self.update(arrays)

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    def __setitem__(self, name: str, array: Any) -> None:
        self.check(name)
        old = self.arrays.get(name)  # alive until the table is right
        self.arrays[name] = array
        self.table[self.numbers[name]] = id(array)
        del old

    def __delitem__(self, name: str) -> None:
        array = self.arrays[name]
        self.table[self.numbers[name]] = None
        del self.arrays[name], array

    def check(self, name: str) -> None:
        """Refuses a name that no variable has."""
        if name not in self.numbers:
            raise GraphError(f"state: no variable {name!r:.80}; there are {', '.join(self.numbers) or 'none'}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        return repr(self.arrays)


class Image:
    """A library's code and variables, to which its entries refer.  `again` makes an entry that was pickled."""

    def __init__(self, path: Path, dll: ctypes.CDLL, name: str, variables: Sequence[Array],
                 has_initial: Sequence[bool], again: Callable[[str, Mapping[str, Any], str], Entry]) -> None:
        self.path, self.dll, self.name, self.again = path, dll, name, again
        self.variables, self.has_initial = tuple(variables), tuple(has_initial)
        self.state = State(self.variables, self.new_state())
        options = Options.of()
        self.lock = Gate(Cache(Path(options.cache_dir), options.cache))

    def new_state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the first values; a variable without one is left out until it is given."""
        table = (ctypes.c_void_p * max(1, len(self.variables))).in_dll(self.dll, f"{self.name}_initial")
        return {a.name: copied(a, table[k] or 0) for k, a in enumerate(self.variables) if self.has_initial[k]}

    def rooms(self, wanted: bool) -> dict[int, np.ndarray[Any, Any]]:
        """Arrays for the variables that have none yet, if they are wanted."""
        return {k: empty(a) for k, a in enumerate(self.variables) if wanted and a.name not in self.state}

    def state_arrays(self, used: Sequence[int]) -> dict[int, np.ndarray[Any, Any]]:
        """The arrays of these variables, after a check that native code can use them."""
        found = {}
        for k in used:
            spec = self.variables[k]
            if spec.name not in self.state:
                raise SessionError(f"library {self.name!r}: variable {spec.name!r} has no value; set "
                                   f"state[{spec.name!r}] to an array {array_text(spec)}")
            check_out(spec, self.state[spec.name], fixed_shape(spec), "state")
            found[k] = self.state[spec.name]
        return found


class Entry:
    """A function of a library.  Called with one array per input."""

    def __new__(cls, *_: Any) -> Entry:
        made: Entry = object.__new__(callable_type(cls))
        return made

    def __init__(self, image: Image, spec: EntrySpec) -> None:
        self.image, self.spec = image, spec
        self.__name__, self.__doc__ = spec.name, str(spec)
        symbol = f"{image.name}_{spec.name}"
        sizes = [ctypes.c_int64] * len(spec.symbols)
        count = len(spec.inputs) + len(spec.outputs) + bool(spec.state) + 1
        self.entry = ctypes.CFUNCTYPE(ctypes.c_int32, *sizes, *[ctypes.c_void_p] * count)((symbol, image.dll))
        self.workspace_size = ctypes.CFUNCTYPE(ctypes.c_int64, *sizes)((f"{symbol}_workspace_size", image.dll))
        self.warm = False  # whether it was called before: the native call is made for the second one
        self.native: Loaded | None = None  # the code of the native call
        image.lock.disconnect(self)

    def __repr__(self) -> str:
        return f"<{self.image.name}.{self.spec}>"

    def __reduce__(self) -> Any:
        return self.image.again, (os.fspath(self.image.path), dict(self.image.state), self.spec.name)

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """Runs once.  `out` is an array, or a list or tuple of arrays where there are several outputs.

        Raises FeedError, ShapeError, DTypeError for arguments that do not fit, GraphError for an index out of range.
        """
        return self.slow(*args, out=out)  # native types of this class do not come here

    def __del__(self) -> None:
        self.image.lock.disconnect(self)  # objects that go away with this one may still call it

    # -- the native call --
    @property
    def form(self) -> CallForm:
        """What a native call must know; how long it takes is told by the elements that it touches."""
        spec, state = self.spec, tuple(self.image.variables[k] for k in self.spec.state)
        work = tuple((OPERATIONS, product(a.shape)) for a in (*spec.inputs, *spec.outputs, *state))
        arena = None if spec.symbols else self.workspace_size()
        return CallForm(spec.name, spec.symbols, spec.inputs, spec.outputs, state, spec.state, spec.checks, arena, work,
                        spec.single, is_entry=True)

    def connect(self) -> None:
        """Makes the native call, if there can be one."""
        gate, name, chosen = self.image.lock, call_symbol(self.spec.name), target("native")
        with gate.lock:
            if self.native is not None or gate.opened() is None:
                return
            text = call_text(self.form)
            image = gate.cache.made("code", content_key(text, chosen) + "-image",
                                    lambda: made_image(text, [name], chosen))
            self.native = gate.loaded(image)
            entry, arena = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (self.entry, self.workspace_size))
            gate.connect(self, self.native, name, entry=entry, arena=arena,
                         state=ctypes.addressof(self.image.state.table))

    # -- what native calls leave to Python --
    def slow(self, *args: Any, out: Any = None) -> Any:
        """The same as a call, by conversion, or an error that says what is wrong."""
        if self.warm and self.native is None:
            self.connect()
            if self.native is not None:
                return self(*args, out=out)
        self.warm = True
        spec = self.spec
        if len(args) != len(spec.inputs):
            raise FeedError(f"{self!r}: expected {len(spec.inputs)} arguments, got {len(args)}")
        inputs = [as_array(array, value) for array, value in zip(spec.inputs, args)]
        sizes = bind_sizes(spec.inputs, [a.shape for a in inputs], spec.checks)
        with self.image.lock if spec.state else nullcontext():
            state = self.image.state_arrays(spec.state)
            outputs = output_arrays(spec.outputs, spec.single, out, sizes, inputs, list(state.values()))
            self.run(inputs, outputs, state, [sizes[s] for s in spec.symbols])
        return out if out is not None else shown_results(outputs, spec.outputs, spec.single)

    def refused(self, status: int) -> None:
        """Raises what a status of the native code means."""
        detail = "; ".join(self.spec.messages) if status == OUT_OF_RANGE else ""
        raise GraphError(f"{self!r}: {TEXTS.get(status, f'status {status}')}{f' ({detail})' if detail else ''}")

    def converted(self, results: Any) -> Any:
        """New results of the native call, in the dtypes that Python sees."""
        return shown_results([results] if self.spec.single else results, self.spec.outputs, self.spec.single)

    def run(self, inputs: Sequence[np.ndarray[Any, Any]], outputs: Sequence[np.ndarray[Any, Any]],
            state: Mapping[int, np.ndarray[Any, Any]], sizes: Sequence[int]) -> None:
        needed = self.workspace_size(*sizes)
        if needed < 0:
            raise GraphError(f"{self!r}: sizes {dict(zip(self.spec.symbols, sizes))} are too large")
        struct = [state[k].ctypes.data if k in state else None for k in range(len(self.image.variables))]
        members = (ctypes.c_void_p * len(struct))(*struct)
        arrays = [a.ctypes.data for a in (*inputs, *outputs)]
        extra = [ctypes.addressof(members)] if self.spec.state else []
        with self.image.lock.arena(needed) as workspace:
            status = self.entry(*sizes, *arrays, *extra, workspace)
        if status:
            self.refused(status)


def fixed_shape(array: Array) -> tuple[int, ...]:
    """The shape of a variable, which has no symbols."""
    return tuple(int(size) for size in array.shape)


def empty(array: Array) -> np.ndarray[Any, Any]:
    """An array for the variable, of any values."""
    made = aligned_array(prod(fixed_shape(array)) * itemsize(array.dtype))
    found: np.ndarray[Any, Any] = made.view(storage_dtype(array.dtype)).reshape(fixed_shape(array))
    return found


def copied(array: Array, address: int) -> np.ndarray[Any, Any]:
    found = empty(array)
    ctypes.memmove(found.ctypes.data, address, found.nbytes)
    return found
