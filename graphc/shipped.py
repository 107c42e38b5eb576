"""Libraries as files: what they hold, told from the file itself, and their weights changed without compiling anew.

    print(gc.inspect_library("build/libdigits.so"))
    gc.update_weights("build/libdigits.so", session)       a library that was made with weights="data"

Nothing of the library runs, so one for another processor is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from math import prod
import os
from pathlib import Path
from typing import Any

import numpy as np

from codegen.elf.read import LinkError
from codegen.elf.shared import EXECUTABLE, Shared, read_shared

from .binding import as_array
from .entries import EntrySpec, array_text, fixed_shape
from .ir.errors import GraphError
from .ir.files import write_whole
from .ir.plan import Array
from .ir.types import itemsize
from .loaded import FORMAT, array_of, entry_of
from .session import Session

METADATA = "_metadata"


@dataclass(frozen=True)
class LibraryInfo:
    """What a library says of itself; `str` of it is a text for people."""

    path: Path
    name: str
    nbytes: int
    machine: str
    build_id: str | None
    needed: tuple[str, ...]
    targets: tuple[Mapping[str, Any], ...]
    entries: tuple[EntrySpec, ...]
    state: tuple[Array, ...]
    weights: tuple[Array, ...]
    exports: tuple[str, ...]
    code: int  # bytes of machine code
    data: int  # bytes of read-only data

    def __str__(self) -> str:
        lines = [f"{self.path}: library {self.name}, {size_text(self.nbytes)} ({size_text(self.code)} code, "
                 f"{size_text(self.data)} read-only data), {self.machine}",
                 f"build id   {self.build_id or 'none'}",
                 f"needs      {', '.join(self.needed) or 'no other library'}"]
        lines += [f"target     {t['name']}: {', '.join(t['needs']) or 'nothing beyond the architecture'}"
                  for t in self.targets]
        lines += [f"entry      {entry}" for entry in self.entries]
        for what, arrays in (("state", self.state), ("weight", self.weights)):
            lines += [f"{what:10} {a.name}: {array_text(a)}, {size_text(nbytes_of(a))}" for a in arrays]
        return "\n".join([*lines, f"exports    {', '.join(sorted(self.exports))}"])


def size_text(nbytes: int) -> str:
    return f"{nbytes / 1000:.1f} kB" if nbytes < 1_000_000 else f"{nbytes / 1e6:.1f} MB"


def nbytes_of(array: Array) -> int:
    return prod(fixed_shape(array)) * itemsize(array.dtype)


def inspect_library(path: str | os.PathLike[str]) -> LibraryInfo:
    """What the file holds.

    Raises GraphError where it is no library that `compile_library` wrote, or a damaged one.
    """
    place = Path(path)
    image = contents(place)
    shared, about = described(place, image)
    return LibraryInfo(
        place, about["name"], len(image), shared.machine, shared.build_id, shared.needed, tuple(about["targets"]),
        tuple(entry_of(name, data) for name, data in about["entries"].items()),
        tuple(map(array_of, about["state"])), tuple(map(array_of, about["weights"])), tuple(shared.exports),
        shared.size_of(EXECUTABLE), shared.size_of(0))


def update_weights(path: str | os.PathLike[str], values: Session | Mapping[str, Any]) -> None:
    """Writes new weights into a library that was made with `weights="data"`.

    `values` is a session that has all of its weights as variables, or arrays by their names, of which some may be
    missing.  The file is replaced by one that is whole; programs that have the old one loaded keep it.
    """
    place = Path(path)
    image = contents(place)
    shared, about = described(place, image)
    arrays = {array.name: array for array in map(array_of, about["weights"])}
    if not arrays:
        raise GraphError(f"update_weights: {os.fspath(path)!r} has no weights that can be changed; compile it with "
                         "weights='data'")
    addresses = dict(zip(arrays, shared.table(f"{about['name']}_weights")))
    changed = bytearray(image)
    for name, value in given_values(arrays, values, place).items():
        address = addresses[name]
        if address is None:
            raise GraphError(f"update_weights: {os.fspath(path)!r}: weight {name!r} is not in the file")
        at = shared.offset(address, value.nbytes)
        changed[at:at + value.nbytes] = value.tobytes()
    write_whole(place, [changed], mode=place.stat().st_mode & 0o777)


def given_values(arrays: Mapping[str, Array], values: Session | Mapping[str, Any],
                 path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The new values as native code holds them, each checked against what it replaces."""
    if isinstance(values, Session):
        missing = [name for name in arrays if name not in values.graph.variables]
        given = {name: values.value(values.graph.variables[name]) for name in arrays if name not in missing}
        missing_of = "the session's graph has no variable"
    else:
        given, missing = dict(values), [name for name in values if name not in arrays]
        missing_of = "it has no weight"
    if missing:
        raise GraphError(f"update_weights: {os.fspath(path)!r}: {missing_of} {missing[0]!r}; its weights are "
                         f"{', '.join(arrays)}")
    found = {}
    for name, value in given.items():
        found[name] = as_array(arrays[name], value)
        if found[name].shape != fixed_shape(arrays[name]):
            raise GraphError(f"update_weights: {name!r} is {array_text(arrays[name])}, got an array of shape "
                             f"{found[name].shape}")
    return found


# -- files --
def contents(path: Path) -> bytes:
    """The file's bytes."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise GraphError(f"library {os.fspath(path)!r}: {fault.strerror}") from None
    if not data:
        raise GraphError(f"library {os.fspath(path)!r}: an empty file")
    return data


def described(path: Path, image: bytes) -> tuple[Shared, dict[str, Any]]:
    """The shared object, and what it says of itself."""
    try:
        shared = read_shared(image)
        names = [name for name in shared.exports if name.endswith(METADATA)]
        if len(names) != 1:
            raise GraphError(f"library {os.fspath(path)!r} was not made by compile_library: it exports no description")
        about: dict[str, Any] = json.loads(shared.export(names[0]).rstrip(b"\0"))
    except LinkError as fault:
        raise GraphError(f"library {os.fspath(path)!r}: {fault}") from None
    except ValueError as fault:
        if isinstance(fault, GraphError):
            raise
        raise GraphError(f"library {os.fspath(path)!r}: its description is damaged: {fault}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise GraphError(f"library {os.fspath(path)!r} has another format than {FORMAT}; compile it anew")
    return shared, about


