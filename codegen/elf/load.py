"""Shared objects of our linker, loaded into this process without the system's loader.

In: the bytes that `link` made, and addresses of symbols that they leave open.  Out: a `Mapped`, whose memory goes back
to the system with it.  What no given symbol names is looked up in this process and in the C mathematics library, as the
system's loader would do.

1. The image is mapped as one piece of anonymous memory, so distances inside it are those that the linker wrote; only
   words with addresses in them are patched.
2. No page is ever writable and executable: code is written before it may run, and never after.
3. Nothing is called: an object with constructors is refused.
4. Only what `link` wrote is to be loaded; whoever keeps such bytes in files must know that they are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import ctypes
from dataclasses import dataclass, field
from functools import cache
import mmap
import platform
import struct
from typing import NamedTuple

from . import dynamic
from .layout import round_up
from .read import DYNAMIC_ENTRY, HEADER, RELOCATION, SEGMENT, SYMBOL, UNDEFINED, WEAK, LinkError, Symbol
from .relocations import ARCHITECTURES, Architecture
from .write import DYNAMIC, GNU_RELRO, LOAD

WORD = struct.Struct("<Q")
HOST = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
PROTECTION = ((1, mmap.PROT_EXEC), (2, mmap.PROT_WRITE), (4, mmap.PROT_READ))  # by the flags of a segment
Memory = mmap.mmap | bytearray


class Segment(NamedTuple):
    """A row of the table of segments."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    size: int
    align: int


@dataclass
class Mapped:
    """An object in memory; `addresses` are those of its exports, and are good as long as this is kept."""

    addresses: dict[str, int]
    memory: mmap.mmap = field(repr=False)


def load_image(data: bytes, symbols: Mapping[str, int]) -> Mapped:
    """The object, ready to be called."""
    arch, segments = _header(data)
    if arch.name != HOST:
        raise LinkError(f"load: the object is for {arch.name}, this machine is {HOST}")
    memory = mmap.mmap(-1, round_up(extent(segments), mmap.PAGESIZE), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = _address(memory)
    addresses = place(data, memory, base, symbols)
    for segment in segments:
        if segment.kind in (LOAD, GNU_RELRO):  # those that are read-only at the end come last
            _protect(base, segment)
    return Mapped(addresses, memory)


def place(data: bytes, memory: Memory, base: int, symbols: Mapping[str, int]) -> dict[str, int]:
    """Fills memory that will lie at address `base`; returns the addresses of the exports."""
    arch, segments = _header(data)
    for s in segments:
        if s.kind == LOAD:
            memory[s.address:s.address + s.file_size] = data[s.offset:s.offset + s.file_size]
    tags = _dynamic(data, segments)
    if dynamic.INIT_ARRAY in tags or dynamic.FINI_ARRAY in tags:
        raise LinkError("load: the object has constructors or destructors, which nobody would call")
    table = list(_symbols(memory, tags))
    values = [base, *(_value(symbol, base, symbols) for symbol in table[1:])]  # the first row stands for no symbol
    for at, kind, symbol, addend in _relocations(memory, tags):
        if kind not in (arch.relative, arch.glob_dat, arch.word):
            raise LinkError(f"load: relocation type {kind} at {at:#x} is none that the linker leaves to the loader")
        WORD.pack_into(memory, at, (values[symbol] + addend) % (1 << 64))
    return {symbol.name: base + symbol.value for symbol in table[1:] if symbol.section != UNDEFINED}


# -- reading --
def _header(data: bytes) -> tuple[Architecture, list[Segment]]:
    _, kind, machine, _, _, at, _, _, _, size, count, _, _, _ = HEADER.unpack_from(data)
    if kind != 3 or machine not in ARCHITECTURES:
        raise LinkError(f"load: ELF file type {kind} of machine {machine}, expected a shared object of our linker")
    return ARCHITECTURES[machine], [Segment(*SEGMENT.unpack_from(data, at + k * size)) for k in range(count)]


def extent(segments: Sequence[Segment]) -> int:
    """Bytes from the base to the end of the last segment."""
    return max(s.address + s.size for s in segments if s.kind == LOAD)


def _dynamic(data: bytes, segments: Sequence[Segment]) -> dict[int, int]:
    """What the object says to loaders; of tags that may come several times, the last."""
    view = next(s for s in segments if s.kind == DYNAMIC)
    return dict(DYNAMIC_ENTRY.iter_unpack(data[view.offset:view.offset + view.file_size]))


def _symbols(memory: Memory, tags: Mapping[int, int]) -> Iterator[Symbol]:
    """The symbols, whose table ends where their names begin."""
    names = tags[dynamic.STRTAB]
    for row in SYMBOL.iter_unpack(memory[tags[dynamic.SYMTAB]:names]):
        at, info, other, section, value, size = row
        name = memory[names + at:memory.find(b"\0", names + at)].decode()
        yield Symbol(name, info >> 4, info & 15, other & 3, section, value, size)


def _relocations(memory: Memory, tags: Mapping[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """(place, type, symbol, addend) of every word to be patched."""
    at = tags.get(dynamic.RELA, 0)
    for where, info, addend in RELOCATION.iter_unpack(memory[at:at + tags.get(dynamic.RELASZ, 0)]):
        yield where, info & 0xFFFFFFFF, info >> 32, addend


# -- memory --
def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _protect(base: int, segment: Segment) -> None:
    """Gives the pages of a segment their rights.

    A processor that keeps instructions apart from data sees the new code: the kernel makes them agree when a page that
    was written becomes executable.
    """
    start = segment.address // mmap.PAGESIZE * mmap.PAGESIZE
    size = round_up(segment.address + segment.size, mmap.PAGESIZE) - start
    rights = sum(right for flag, right in PROTECTION if segment.flags & flag)
    if size and _mprotect()(base + start, size, rights):
        raise OSError(ctypes.get_errno(), f"load: the system refuses rights {rights} for {size} bytes of code")


@cache
def _mprotect() -> Callable[[int, int, int], int]:
    form = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, use_errno=True)
    return form(("mprotect", ctypes.CDLL(None)))


# -- symbols of this process --
def _value(symbol: Symbol, base: int, symbols: Mapping[str, int]) -> int:
    """The address that a row of the symbol table stands for."""
    if symbol.section != UNDEFINED:
        return base + symbol.value
    found = symbols.get(symbol.name)
    if found is None:
        found = process_symbol(symbol.name)
    if found is None and symbol.binding != WEAK:
        raise LinkError(f"load: undefined symbol {symbol.name!r}: not given, and neither in this process nor in libm")
    return found or 0


@cache
def process_symbol(name: str) -> int | None:
    """The address of a function or variable of this process or of libm."""
    for library in _libraries():
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(library, name))
        except ValueError:
            continue
    return None


@cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    found = [ctypes.CDLL(None)]
    try:
        found.append(ctypes.CDLL("libm.so.6"))
    except OSError:
        pass  # a system that has it elsewhere, most likely in libc
    return tuple(found)
