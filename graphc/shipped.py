"""Libraries as files: what they hold, told from the file itself, and their weights changed without compiling anew.

    print(gc.inspect_library("build/libdigits.so"))
    gc.update_weights("build/libdigits.so", session)       a library that was made with weights="data"

Nothing of the library runs, so one for another processor is read as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
import os
from pathlib import Path
from typing import Any

import numpy as np

from codegen.elf.layout import round_up
from codegen.elf.link import BLOB_ALIGN
from codegen.elf.shared import EXECUTABLE, Shared
from codegen.library import weights_head

from .binding import as_array
from .described import (
    METADATA, Description, TargetInfo, contents, described, description_inside, place_of, system_of)
from .entries import EntrySpec, array_text, fixed_shape
from .ir.errors import GraphError
from .ir.files import Chunk, write_whole
from .ir.memory import size_text
from .ir.plan import Array
from .ir.types import itemsize
from .session import Session


@dataclass(frozen=True)
class LibraryInfo:
    """What a library says of itself; `str` of it is a text for people."""

    path: Path
    name: str
    nbytes: int
    abi: int
    threads: int
    machine: str
    targets: tuple[TargetInfo, ...]
    entries: tuple[EntrySpec, ...]
    state: tuple[Array, ...]
    weights: tuple[Array, ...]
    build_id: str | None = None  # this, and what follows, of ELF files
    needed: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    code: int = 0  # bytes of machine code
    data: int = 0  # bytes of read-only data

    def __str__(self) -> str:
        parts = f" ({size_text(self.code)} code, {size_text(self.data)} read-only data)" if self.code else ""
        lines = [f"{self.path}: library {self.name}, {size_text(self.nbytes)}{parts}, {self.machine}, ABI {self.abi}, "
                 f"{self.threads} thread{'s' * (self.threads != 1)}",
                 f"build id   {self.build_id or 'none'}",
                 f"needs      {', '.join(self.needed) or 'no other library'}"]
        lines += [f"target     {t.name}: {', '.join(t.needs) or 'nothing beyond the architecture'}"
                  for t in self.targets]
        lines += [f"entry      {entry}" for entry in self.entries]
        for what, arrays in (("state", self.state), ("weight", self.weights)):
            lines += [f"{what:10} {a.name}: {array_text(a)}, {size_text(nbytes_of(a))}" for a in arrays]
        return "\n".join([*lines, *([f"exports    {', '.join(sorted(self.exports))}"] if self.exports else [])])


def nbytes_of(array: Array) -> int:
    return prod(fixed_shape(array)) * itemsize(array.dtype)


def inspect_library(path: str | os.PathLike[str]) -> LibraryInfo:
    """What the file holds.

    Raises GraphError where it is no library that `compile_library` wrote, or a damaged one.
    """
    place = place_of(path)
    image = contents(place)
    if (system := system_of(image)) is not None:
        about = description_inside(place, image)
        return info(place, image, about, f"{about.targets[0].triple.split('-')[0]} {system}")
    shared, about = described(place, image)
    return replace(info(place, image, about, shared.machine), build_id=shared.build_id, needed=shared.needed,
                   exports=tuple(shared.exports), code=shared.size_of(EXECUTABLE), data=shared.size_of(0))


def info(place: Path, image: memoryview, about: Description, machine: str) -> LibraryInfo:
    """What the description says."""
    return LibraryInfo(place, about.name, len(image), about.abi, about.threads, machine, about.targets, about.entries,
                       about.state, about.weights)


def update_weights(path: str | os.PathLike[str], values: Session | Mapping[str, Any]) -> None:
    """Writes new weights into a library that was made with `weights="data"`.

    `values` is a session that has all of its weights as variables, or arrays by their names, of which some may be
    missing.  The file is replaced by one that is whole; programs that have the old one loaded keep it.
    """
    place = place_of(path)
    image = contents(place)
    shared, about = described(place, image)
    arrays = {array.name: array for array in about.weights}
    if not arrays:
        raise GraphError(f"update_weights: {os.fspath(place)!r} has no weights that can be changed; compile it with "
                         "weights='data'")
    offsets = weight_offsets(place, shared, about.name, list(arrays.values()))
    changed = sorted((offsets[name], value) for name, value in given_values(arrays, values, place).items())
    try:
        write_whole(place, pieces(image, changed), mode=place.stat().st_mode & 0o777)
    except OSError as fault:
        raise GraphError(f"update_weights: cannot write {os.fspath(place)!r}: {fault.strerror or fault}") from fault


def weight_offsets(path: Path, shared: Shared, name: str, arrays: Sequence[Array]) -> dict[str, int]:
    """Where in the file the weights are.

    They lie one after the other behind a head of their own, in the same segment as the description; where the table of
    their addresses says anything else, it is damaged.
    """
    addresses = shared.table(f"{name}_weights")
    nbytes = [nbytes_of(array) for array in arrays]
    room = [round_up(max(1, n), BLOB_ALIGN) for n in nbytes]
    base = shared.segment(shared.exports[f"{name}{METADATA}"][0])
    first = addresses[0] if addresses else None
    expected = [None if first is None else first + sum(room[:k]) for k in range(len(arrays))]
    head = weights_head(name)
    if first is None or addresses != expected or shared.bytes_at(first - len(head), len(head)) != head or any(
            shared.segment(address) != base for address in addresses if address is not None):
        raise GraphError(f"update_weights: {os.fspath(path)!r}: damaged: the table of the weights' addresses is wrong")
    return {array.name: shared.offset(address, n) for array, address, n in zip(arrays, addresses, nbytes)
            if address is not None}


def pieces(image: memoryview, changed: Sequence[tuple[int, np.ndarray[Any, Any]]]) -> Iterator[Chunk]:
    """The file with other bytes at these offsets, which ascend."""
    end = 0
    for at, value in changed:
        yield image[end:at]
        yield np.ascontiguousarray(value).tobytes()
        end = at + value.nbytes
    yield image[end:]


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

