"""What a library says of itself, read from the file before any of it is run or trusted.

A library exports `<name>_metadata`, a JSON text that begins with a sum of all that follows:

    {"sum":"0a1b2c3d","format":3,"abi":2,"name":"digits","targets":[..],"state":[..],"weights":[..],"entries":{..}}

The file is mapped, not read: what is looked at are headers, symbols and this text, however large the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import mmap
import os
from pathlib import Path
import stat
from typing import Any, NamedTuple, NoReturn
import zlib

from codegen.elf.read import LinkError
from codegen.elf.shared import Shared, read_shared
from codegen.header import ABI_VERSION

from .entries import EntrySpec
from .io.strict_json import parsed
from .ir.dims import decode, symbols_of
from .ir.errors import GraphError
from .ir.plan import Array, DimCheck
from .ir.types import SAFETENSORS

FORMAT = 3
METADATA = "_metadata"
HEAD = '{"sum":"%08x",'
HEAD_SIZE = len(HEAD % 0)
SYSTEMS = {b"\0asm": "WebAssembly", b"MZ": "Windows", b"\xcf\xfa\xed\xfe": "macOS"}  # by a file's first bytes


class TargetInfo(NamedTuple):
    """A machine that the library has code for, and the instructions that this needs."""

    name: str
    triple: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """The text, read and checked."""

    name: str
    abi: int
    threads: int
    targets: tuple[TargetInfo, ...]
    state: tuple[Array, ...]
    has_initial: tuple[bool, ...]  # which variables have a first value in the library
    weights: tuple[Array, ...]
    entries: tuple[EntrySpec, ...]


def sealed(text: str) -> str:
    """The JSON text of an object with the sum of the rest in front."""
    rest = text[1:]
    return HEAD % zlib.crc32(rest.encode()) + rest


def place_of(path: str | bytes | os.PathLike[Any]) -> Path:
    """The path of a library; TypeError for what is none."""
    name = os.fsdecode(path)
    if "\0" in name:
        raise GraphError(f"library {name!r}: a path cannot have a zero byte")
    return Path(name)


def contents(path: Path) -> memoryview:
    """The file's bytes, mapped; a pipe or a device is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise GraphError(f"library {os.fspath(path)!r}: {fault.strerror}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a device or a pipe"
            raise GraphError(f"library {os.fspath(path)!r}: is {kind}, expected a file that compile_library wrote")
        if not about.st_size:
            raise GraphError(f"library {os.fspath(path)!r}: an empty file")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def system_of(image: memoryview) -> str | None:
    """What a library is for that is no ELF file."""
    return next((name for head, name in SYSTEMS.items() if image[:len(head)] == head), None)


def description_inside(path: Path, image: memoryview) -> Description:
    """What a library says of itself whose format is not read here: the text begins like no other and has a sum."""
    data = image.obj
    assert isinstance(data, mmap.mmap), "contents maps files"
    at = data.find(HEAD[:8].encode())
    if at < 0:
        raise GraphError(f"library {os.fspath(path)!r} was not made by compile_library: it has no description")
    return description(path, data[at:max(at, data.find(b"\0", at))])


def described(path: Path, image: memoryview) -> tuple[Shared, Description]:
    """The shared object, and what it says of itself.

    Raises GraphError where it is no library that this version of `compile_library` wrote, or a damaged one.
    """
    if (system := system_of(image)) is not None:
        raise GraphError(f"library {os.fspath(path)!r} is for {system}: inspect_library tells what it holds, but it is "
                         "neither loaded nor changed here; compile it anew")
    try:
        shared = read_shared(image)
        names = [name for name in shared.exports if name.endswith(METADATA)]
        text = shared.export(names[0]).rstrip(b"\0") if len(names) == 1 else b""
    except LinkError as fault:
        raise GraphError(f"library {os.fspath(path)!r}: {fault}") from None
    if not text:
        raise GraphError(f"library {os.fspath(path)!r} was not made by compile_library: it exports no description")
    about = description(path, text)
    if names[0] != about.name + METADATA:
        raise GraphError(f"library {os.fspath(path)!r}: damaged: {names[0]!r:.80} describes a library "
                         f"{about.name!r:.80}")
    return shared, about


def description(path: Path, text: bytes) -> Description:
    """The description in this text, of this version and undamaged."""
    def refuse(fault: str) -> NoReturn:
        raise GraphError(f"library {os.fspath(path)!r}: its description is damaged: {fault}")
    about = parsed(text, refuse)
    if not isinstance(about, dict):
        refuse("no JSON object")
    for what, key, wanted in (("format", "format", FORMAT), ("ABI version", "abi", ABI_VERSION)):
        if about.get(key) != wanted:
            raise GraphError(f"library {os.fspath(path)!r} has {what} {about.get(key)!r:.20}, this graphc needs "
                             f"{wanted}; compile it anew")
    if text[:HEAD_SIZE] != (HEAD % zlib.crc32(text[HEAD_SIZE:])).encode():
        refuse("its sum differs")
    try:
        return read_description(about)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as fault:
        refuse(f"not what this version writes ({type(fault).__name__}: {fault!s:.100})")


def read_description(about: Mapping[str, Any]) -> Description:
    state, weights = ([array_of(item, fixed=True) for item in about[key]] for key in ("state", "weights"))
    targets = tuple(TargetInfo(str(t["name"]), str(t["triple"]), tuple(map(str, t["needs"]))) for t in about["targets"])
    if not targets or not about["entries"] or type(about["threads"]) is not int:
        raise ValueError("no targets, entries or threads")
    return Description(
        str(about["name"]), about["abi"], about["threads"], targets, tuple(state),
        tuple(bool(item["initial"]) for item in about["state"]), tuple(weights),
        tuple(entry_of(name, data, len(state)) for name, data in about["entries"].items()))


def array_of(data: Mapping[str, Any], *, fixed: bool = False) -> Array:
    shape = tuple(decode(size) for size in data["shape"])
    if data["dtype"] not in SAFETENSORS or any(size < 0 if isinstance(size, int) else fixed for size in shape):
        raise ValueError(f"no array: {data['dtype']!r:.40} {data['shape']!r:.60}")
    return Array(str(data["name"]), data["dtype"], shape)


def entry_of(name: str, data: Mapping[str, Any], variables: int) -> EntrySpec:
    checks = tuple(DimCheck(str(relation), decode(a), decode(b), str(text)) for relation, a, b, text in data["checks"])
    inputs, outputs = (tuple(map(array_of, data[key])) for key in ("inputs", "outputs"))
    symbols, state = tuple(map(str, data["symbols"])), tuple(data["state"])
    sizes = [*(size for a in (*inputs, *outputs) for size in a.shape), *(size for c in checks for size in (c.a, c.b))]
    known = set(symbols_of(*sizes)) <= set(symbols)
    if any(type(k) is not int or not 0 <= k < variables for k in state) or not known or (
            data["single"] and len(outputs) != 1):
        raise ValueError(f"entry {name!r:.40}: variables {state!r:.60}, sizes {symbols!r:.60}")
    return EntrySpec(name, symbols, inputs, outputs, state, bool(data["single"]), checks,
                     tuple(map(str, data["messages"])))
