"""Compiled libraries, called from Python: arrays in and out, sizes from shapes, the variables kept here.

    lib = gc.load_library("build/libdigits.so")
    lib.predict(xs)             one method per entry
    lib.state["w"]              the variables, as arrays that the library changes in place

A library says of itself what its entries take (`<name>_metadata`, JSON), so the file is all that is needed.  Every
`Library` has a state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import ctypes
from itertools import count
import os
from pathlib import Path
import platform
from typing import Any

import numpy as np

from codegen.elf.load import HOST

from .described import Description, contents, described, place_of
from .entries import BAD_FILE, FILE, TEXTS, Entry, EntrySpec, Image, array_text
from .ir.errors import GraphError, Unsupported
from .states import fault_of, reason_of


NUMBERS = count()  # of libraries that were loaded


class Library:
    """A loaded library: its entries are methods.  Made by `load_library`; pickles by its path, with the state."""

    def __init__(self, image: Image, specs: Sequence[EntrySpec]) -> None:
        self.image = image
        self.name, self.variables, self.lock = image.name, image.variables, image.lock
        self.entries = {spec.name: Entry(image, spec) for spec in specs}

    def __getattr__(self, name: str) -> Entry:
        entries: dict[str, Entry] = self.__dict__.get("entries", {})
        if name not in entries:
            raise AttributeError(f"library {self.__dict__.get('name', '')!r} has no entry {name!r}; "
                                 f"there are {', '.join(entries)}")
        return entries[name]

    def __getitem__(self, name: str) -> Entry:
        """An entry by its name, also one that is called like an attribute of every library, such as `state`."""
        return self.entries[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.entries})

    def __repr__(self) -> str:
        lines = [f"<library {self.name} from {os.fspath(self.image.path)!r}",
                 *(f"  {e.spec}" for e in self.entries.values())]
        return "\n".join([*lines, *(f"  state {a.name}: {array_text(a)}" for a in self.variables)]) + ">"

    def __reduce__(self) -> Any:
        return load_library, (os.fspath(self.image.path),), dict(self.state)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state

    @property
    def state(self) -> Mapping[str, Any]:
        """The variables by name, as arrays that the library changes in place; others may be put in their places."""
        return self.image.state

    @state.setter
    def state(self, arrays: Mapping[str, Any]) -> None:
        with self.lock:
            given = dict(arrays)
            for name in given:
                self.image.state.check(name)
            self.image.state.clear()
            self.image.state.update(given)

    def new_state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the first values; a variable without one is left out until it is given."""
        return self.image.new_state()

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Writes all variables to a file that the library's functions in C read too, whole or not at all."""
        self.of_files("save", path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save_state`, or a C program, wrote; refused as a whole where it is not of these variables."""
        self.of_files("load", path)

    def of_files(self, what: str, path: str | os.PathLike[str]) -> None:
        if not hasattr(self.image.dll, f"{self.name}_{what}"):
            raise Unsupported(f"library {self.name!r}: {what}_state: it has no variables, or was made freestanding "
                              "(stage: library)")
        if b"\0" in os.fsencode(path) or not os.fspath(path):
            raise GraphError(f"library {self.name!r}: {what}_state {os.fspath(path)!r}: a path has characters, and no "
                             "zero byte among them")
        name = os.path.realpath(os.fsencode(path))  # a link keeps pointing to the file
        with self.lock:
            new = self.image.rooms(what == "load")
            arrays = self.image.state_arrays([k for k in range(len(self.variables)) if k not in new]) | new
            members = (ctypes.c_void_p * len(arrays))(*(arrays[k].ctypes.data for k in range(len(arrays))))
            status = self.image.dll[f"{self.name}_{what}"](members, name)
            number = ctypes.get_errno()
            if not status:
                self.image.state.update({self.variables[k].name: array for k, array in new.items()})
        if status:
            why = (reason_of(name, number) if status == FILE else fault_of(name, self.name, self.variables)
                   if status == BAD_FILE else "")
            raise GraphError(f"library {self.name!r}: {what}_state {os.fspath(path)!r}: {TEXTS[status]}"
                             + (f": {why}" if why else ""))


# -- reading --
def load_library(path: str | os.PathLike[str]) -> Library:
    """The library in this file, which `compile_library` wrote.

    Raises GraphError where it is none, or was made for another processor.
    """
    place = place_of(path).absolute()
    shared, about = described(place, contents(place))
    if shared.machine != HOST:
        raise GraphError(f"load_library: {os.fspath(place)!r} is for {shared.machine}, this is {HOST}; compile it with "
                         "another target=")
    dll = opened(place)
    check_processor(place, dll, about)
    return Library(Image(place, dll, about.name, about.state, about.has_initial, entry_again), about.entries)


def entry_again(path: str, state: Mapping[str, Any], name: str) -> Entry:
    """What a pickled entry becomes."""
    library = load_library(path)
    library.state = state
    return library[name]


def opened(path: Path) -> ctypes.CDLL:
    """The library, by a name that is new: the loader gives the old code again for a name that it knows."""
    name = another_name(path, next(NUMBERS))
    try:
        return ctypes.CDLL(name, use_errno=True)
    except OSError as fault:
        raise GraphError(f"load_library: {os.fspath(path)!r} cannot be loaded here ({platform.machine()}): "
                         f"{str(fault).replace(name, os.fspath(path))}") from None


def another_name(path: Path, number: int) -> str:
    """A name of the same file, another one for every number: `/` and `/./` lead to the same place, and are its bits."""
    return os.fspath(path.parent) + format(number, "b").replace("0", "/").replace("1", "/.") + "/" + path.name


def check_processor(path: Path, dll: ctypes.CDLL, about: Description) -> None:
    """Refuses code of which no variant has only instructions that this processor has."""
    if not runs_here(dll, about.name):
        wanted = "; or ".join(f"{t.name}: {', '.join(t.needs)}" for t in about.targets)
        raise GraphError(f"load_library: {os.fspath(path)!r}: this processor lacks instructions that it was made with "
                         f"({wanted}); compile it with target='x86-64-v2' or another that fits")


def runs_here(dll: ctypes.CDLL, name: str) -> bool:
    """The library's own answer."""
    return int(dll[f"{name}_check_cpu"]()) == 0

