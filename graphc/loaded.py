"""Compiled libraries, called from Python: arrays in and out, sizes from shapes, the variables kept here.

    lib = gc.load_library("build/libdigits.so")
    lib.predict(xs)             one method per entry
    lib.state["w"]              the variables, as arrays that the library changes in place

A library says of itself what its entries take (`<name>_metadata`, JSON), so the file is all that is needed.  Every
`Library` has a state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
import ctypes
from dataclasses import dataclass
import json
from math import prod
import os
from pathlib import Path
import platform
import re
import tempfile
import threading
from typing import Any

import numpy as np

from codegen.header import STATUS
from codegen.target import target

from .arrays import aligned_array
from .binding import as_array, bind_sizes, check_out
from .function import output_arrays, shown
from .ir.dims import decode
from .ir.errors import FeedError, GraphError, SessionError, Unsupported
from .ir.plan import Array, DimCheck
from .ir.types import itemsize, storage_dtype

FORMAT = 2
TEXTS = {value: text for _, value, text in STATUS}
OUT_OF_RANGE = next(value for name, value, _ in STATUS if name == "OUT_OF_RANGE")


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


class Entry:
    """A function of a library.  Called with one array per input."""

    def __init__(self, library: Library, spec: EntrySpec) -> None:
        self.library, self.spec = library, spec
        self.__name__ = spec.name
        symbol = f"{library.name}_{spec.name}"
        sizes = [ctypes.c_int64] * len(spec.symbols)
        count = len(spec.inputs) + len(spec.outputs) + bool(spec.state) + 1
        self.native = ctypes.CFUNCTYPE(ctypes.c_int32, *sizes, *[ctypes.c_void_p] * count)((symbol, library.dll))
        self.workspace_size = ctypes.CFUNCTYPE(ctypes.c_int64, *sizes)((f"{symbol}_workspace_size", library.dll))

    def __repr__(self) -> str:
        return f"<{self.library.name}.{self.spec}>"

    def __reduce__(self) -> Any:
        return getattr, (self.library, self.spec.name)

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """Runs once.  `out` is an array, or a list of arrays where there are several outputs.

        Raises FeedError, ShapeError, DTypeError for arguments that do not fit, GraphError for an index out of range.
        """
        spec = self.spec
        if len(args) != len(spec.inputs):
            raise FeedError(f"{self!r}: expected {len(spec.inputs)} arguments, got {len(args)}")
        inputs = [as_array(array, value) for array, value in zip(spec.inputs, args)]
        sizes = bind_sizes(spec.inputs, [a.shape for a in inputs], spec.checks)
        with self.library.lock if spec.state else nullcontext():
            state = self.library.state_arrays(spec.state)
            outputs = output_arrays(spec.outputs, spec.single, out, sizes, inputs, list(state.values()))
            self.run(inputs, outputs, state, [sizes[s] for s in spec.symbols])
        if out is not None:
            return out
        results = [shown(a, array) for a, array in zip(outputs, spec.outputs)]
        return results[0] if spec.single else results

    def run(self, inputs: Sequence[np.ndarray[Any, Any]], outputs: Sequence[np.ndarray[Any, Any]],
            state: Mapping[int, np.ndarray[Any, Any]], sizes: Sequence[int]) -> None:
        needed = self.workspace_size(*sizes)
        if needed < 0:
            raise GraphError(f"{self!r}: sizes {dict(zip(self.spec.symbols, sizes))} are too large")
        workspace = aligned_array(needed)
        struct = [state[k].ctypes.data if k in state else None for k in range(len(self.library.variables))]
        members = (ctypes.c_void_p * len(struct))(*struct)
        arrays = [a.ctypes.data for a in (*inputs, *outputs)]
        extra = [ctypes.addressof(members)] if self.spec.state else []
        status = self.native(*sizes, *arrays, *extra, workspace.ctypes.data)
        if status:
            detail = "; ".join(self.spec.messages) if status == OUT_OF_RANGE else ""
            raise GraphError(f"{self!r}: {TEXTS.get(status, f'status {status}')}{f' ({detail})' if detail else ''}")


class Library:
    """A loaded library: its entries are methods.  Made by `load_library`; pickles by its path, with the state."""

    def __init__(self, path: Path, dll: ctypes.CDLL, data: Mapping[str, Any]) -> None:
        self.path, self.dll = path, dll
        self.name: str = data["name"]
        self.lock = threading.RLock()
        self.variables = tuple(array_of(item) for item in data["state"])
        self.has_initial = tuple(bool(item["initial"]) for item in data["state"])
        self.state = self.new_state()
        self.entries = {name: Entry(self, entry_of(name, item)) for name, item in data["entries"].items()}

    def __getattr__(self, name: str) -> Entry:
        entries: dict[str, Entry] = self.__dict__.get("entries", {})
        if name not in entries:
            raise AttributeError(f"library {self.__dict__.get('name', '')!r} has no entry {name!r}; "
                                 f"there are {', '.join(entries)}")
        return entries[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.entries})

    def __repr__(self) -> str:
        lines = [f"<library {self.name} from {os.fspath(self.path)!r}", *(f"  {e.spec}" for e in self.entries.values())]
        return "\n".join([*lines, *(f"  state {a.name}: {array_text(a)}" for a in self.variables)]) + ">"

    def __reduce__(self) -> Any:
        return load_library, (os.fspath(self.path),), self.state

    def __setstate__(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        self.state = state

    def new_state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the first values; a variable without one is left out until it is given."""
        table = (ctypes.c_void_p * max(1, len(self.variables))).in_dll(self.dll, f"{self.name}_initial")
        return {a.name: copied(a, table[k] or 0) for k, a in enumerate(self.variables) if self.has_initial[k]}

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes all variables to a file that the library's functions in C read too, whole or not at all."""
        self.of_files("save", path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save_state`, or a C program, wrote; refused as a whole where it is not of these variables."""
        self.of_files("load", path)

    def of_files(self, what: str, path: str | os.PathLike[str]) -> None:
        if not hasattr(self.dll, f"{self.name}_{what}"):
            raise Unsupported(f"library {self.name!r}: {what}_state: it has no variables, or was made freestanding "
                              "(stage: library)")
        with self.lock:
            arrays = self.state_arrays(range(len(self.variables)))
            members = (ctypes.c_void_p * len(arrays))(*(arrays[k].ctypes.data for k in range(len(arrays))))
            status = self.dll[f"{self.name}_{what}"](members, os.fsencode(path))
        if status:
            raise GraphError(f"library {self.name!r}: {what}_state {os.fspath(path)!r}: {TEXTS[status]}")

    def state_arrays(self, used: Sequence[int]) -> dict[int, np.ndarray[Any, Any]]:
        """The arrays of these variables, after a check that native code can use them."""
        found = {}
        for k in used:
            spec = self.variables[k]
            if spec.name not in self.state:
                raise SessionError(f"library {self.name!r}: variable {spec.name!r} has no value; set "
                                   f"state[{spec.name!r}] to an array {array_text(spec)}")
            check_out(spec, self.state[spec.name], fixed_shape(spec))
            found[k] = self.state[spec.name]
        return found


def fixed_shape(array: Array) -> tuple[int, ...]:
    """The shape of a variable, which has no symbols."""
    return tuple(int(size) for size in array.shape)


def copied(array: Array, address: int) -> np.ndarray[Any, Any]:
    made = aligned_array(prod(fixed_shape(array)) * itemsize(array.dtype))
    ctypes.memmove(made.ctypes.data, address, made.nbytes)
    found: np.ndarray[Any, Any] = made.view(storage_dtype(array.dtype)).reshape(fixed_shape(array))
    return found


# -- reading --
def load_library(path: str | os.PathLike[str]) -> Library:
    """The library in this file, which `compile_library` wrote.

    Raises GraphError where it is none, or was made for another processor.
    """
    place = Path(path).absolute()
    match = re.fullmatch(r"lib(.+)\.so", place.name)
    if not match:
        raise GraphError(f"load_library: {os.fspath(path)!r}: expected a file lib<name>.so")
    if not place.is_file():
        raise GraphError(f"load_library: no file {os.fspath(path)!r}")
    dll = opened(place)
    try:
        text = ctypes.c_char.in_dll(dll, f"{match[1]}_metadata")
        data = json.loads(ctypes.string_at(ctypes.addressof(text)))
    except ValueError as fault:
        raise GraphError(f"load_library: {os.fspath(path)!r} was not made by compile_library, or was renamed: "
                         f"{fault}") from None
    if data.get("format") != FORMAT:
        raise GraphError(f"load_library: {os.fspath(path)!r} has format {data.get('format')}, not {FORMAT}")
    check_processor(place, data["targets"])
    return Library(place, dll, data)


def opened(path: Path) -> ctypes.CDLL:
    """The library, by a name that is new: the loader gives the old code again for a name that it knows."""
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        link = os.path.join(folder, path.name)
        os.symlink(path, link)
        try:
            return ctypes.CDLL(link)
        except OSError as fault:
            raise GraphError(f"load_library: {os.fspath(path)!r} cannot be loaded here ({platform.machine()}): "
                             f"{str(fault).replace(link, os.fspath(path))}") from None


def check_processor(path: Path, made_for: Sequence[Mapping[str, str]]) -> None:
    """Refuses code of which no variant has only instructions that this processor has."""
    if made_for[0]["triple"].split("-")[0] != target("native").architecture:
        raise GraphError(f"load_library: {os.fspath(path)!r} is for {made_for[0]['triple']}, this is "
                         f"{platform.machine()}")
    missing = [sorted(set(about["needs"]) - processor_features()) for about in made_for]
    if all(missing):
        names = ", ".join(about["name"] for about in made_for)
        raise GraphError(f"load_library: {os.fspath(path)!r} was made for {names} and needs {', '.join(missing[-1])}, "
                         "which this processor lacks; compile it with target='x86-64-v2' or another that fits")


def processor_features() -> set[str]:
    import llvmlite.binding as llvm
    return {flag for flag, there in llvm.get_host_cpu_features().items() if there}


def array_of(data: Mapping[str, Any]) -> Array:
    return Array(data["name"], data["dtype"], tuple(decode(size) for size in data["shape"]))


def entry_of(name: str, data: Mapping[str, Any]) -> EntrySpec:
    checks = tuple(DimCheck(relation, decode(a), decode(b), text) for relation, a, b, text in data["checks"])
    return EntrySpec(
        name, tuple(data["symbols"]), tuple(map(array_of, data["inputs"])), tuple(map(array_of, data["outputs"])),
        tuple(data["state"]), data["single"], checks, tuple(data["messages"]))
