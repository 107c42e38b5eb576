"""Shared objects read as data: what they export and need, and the bytes behind their symbols; nothing is run.

Only what the dynamic loader itself reads is used, so a stripped file tells as much.  Every offset is checked: a file
that is damaged, cut off or no shared object is a LinkError that says what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
import struct

from . import dynamic
from .read import DYNAMIC_ENTRY, HEADER, MACHINES, RELOCATION, SEGMENT, SYMBOL, UNDEFINED, LinkError
from .relocations import ARCHITECTURES
from .write import BUILD_ID_HEAD, BUILD_ID_SIZE, DYNAMIC, LOAD, NOTE

EXECUTABLE, WRITABLE = 1, 2
MOST_SEGMENTS, MOST_TAGS, MOST_SYMBOLS, MOST_NAME = 100, 1000, 1 << 16, 1 << 12  # more than any library has
HASH, JUMPS, VERSIONS, NEEDED_VERSIONS = 4, 23, 0x6FFFFFF0, 0x6FFFFFFE  # tags of tables that only other linkers write
TABLES = (dynamic.STRTAB, dynamic.RELA, dynamic.GNU_HASH, HASH, JUMPS, VERSIONS, NEEDED_VERSIONS)


@dataclass(frozen=True)
class Shared:
    """A shared object; addresses are relative to where it is loaded."""

    machine: str
    soname: str | None
    needed: tuple[str, ...]
    build_id: str | None
    exports: Mapping[str, tuple[int, int]]  # name: address, size
    imports: tuple[str, ...]
    pointers: Mapping[int, int]  # words that the loader makes addresses: where they are, what they point to
    segments: tuple[tuple[int, int, int, int], ...]  # address, offset in the file, bytes of it, flags
    data: memoryview

    def offset(self, address: int, nbytes: int) -> int:
        """Where in the file the bytes at an address are."""
        for start, at, size, _ in self.segments:
            if start <= address and address + nbytes <= start + size:
                return at + address - start
        raise LinkError(f"shared object: {nbytes} bytes at {address:#x} are not in the file")

    def segment(self, address: int) -> int | None:
        """The number of the segment with the address in it, None where there is none."""
        return next((k for k, (start, _, size, _) in enumerate(self.segments) if start <= address < start + size), None)

    def view(self, address: int, nbytes: int) -> memoryview:
        at = self.offset(address, nbytes)
        return self.data[at:at + nbytes]

    def bytes_at(self, address: int, nbytes: int) -> bytes:
        return bytes(self.view(address, nbytes))

    def export(self, name: str) -> bytes:
        """The bytes of an exported piece of data."""
        if name not in self.exports:
            raise LinkError(f"shared object: no symbol {name!r}")
        return self.bytes_at(*self.exports[name])

    def table(self, name: str) -> list[int | None]:
        """The addresses in an exported table of pointers, None for null ones."""
        address, nbytes = self.exports.get(name, (0, 0))
        self.offset(address, nbytes)
        return [self.pointers.get(address + at) for at in range(0, nbytes, 8)]

    def size_of(self, flags: int) -> int:
        """Bytes in segments that have just these of the flags executable and writable."""
        return sum(size for _, _, size, own in self.segments if own & (EXECUTABLE | WRITABLE) == flags)


def read_shared(data: bytes | bytearray | memoryview) -> Shared:
    """The shared object in these bytes."""
    view = memoryview(data)
    try:
        return _read(view)
    except (struct.error, IndexError, KeyError, OverflowError, ValueError) as fault:
        if isinstance(fault, LinkError):
            raise
        raise LinkError(f"shared object: damaged, or cut off at byte {len(view)}") from None


def _read(view: memoryview) -> Shared:
    ident, kind, machine, _, _, table, _, _, _, entry, count, _, _, _ = HEADER.unpack_from(view)
    if ident[:6] != b"\x7fELF\2\1" or kind != 3 or machine not in MACHINES or entry != SEGMENT.size:
        raise LinkError(f"shared object: begins with {ident[:6].hex(' ')}, type {kind}, machine {machine}: expected a "
                        "little-endian ELF64 shared object for x86-64 or aarch64")
    if count > MOST_SEGMENTS:
        raise LinkError(f"shared object: {count} segments, expected at most {MOST_SEGMENTS}")
    rows = [SEGMENT.unpack_from(view, table + k * SEGMENT.size) for k in range(count)]
    loads = tuple((address, offset, size, flags) for type_, flags, offset, address, _, size, _, _ in rows
                  if type_ == LOAD)
    for _, offset, size, _ in loads:
        if offset + size > len(view):
            raise LinkError(f"shared object: cut off: a segment ends at byte {offset + size} of {len(view)}")
    shared = Shared(MACHINES[machine], None, (), _build_id(view, rows), {}, (), {}, loads, view)
    tables = [view[offset:offset + size // DYNAMIC_ENTRY.size * DYNAMIC_ENTRY.size]
              for type_, _, offset, _, _, size, _, _ in rows if type_ == DYNAMIC]
    tags = [entry for table in tables
            for entry in islice(takewhile(lambda entry: entry[0], DYNAMIC_ENTRY.iter_unpack(table)), MOST_TAGS)]
    known = dict(tags)
    if dynamic.STRTAB not in known or dynamic.SYMTAB not in known:
        raise LinkError("shared object: no dynamic symbols")
    names = shared.bytes_at(known[dynamic.STRTAB], known[dynamic.STRSZ])
    exports, imports = _symbols(shared, known, names)
    return Shared(
        shared.machine, _name(names, known[dynamic.SONAME]) if dynamic.SONAME in known else None,
        tuple(_name(names, value) for tag, value in tags if tag == dynamic.NEEDED), shared.build_id, exports, imports,
        _pointers(shared, known, ARCHITECTURES[machine].relative), loads, view)


def _name(names: bytes, at: int) -> str:
    return names[at:names.index(b"\0", at, at + MOST_NAME)].decode()


def _symbols(shared: Shared, tags: Mapping[int, int],
             names: bytes) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    """What the object defines and what it wants; nothing tells the table's length, so it ends where the next begins."""
    start = tags[dynamic.SYMTAB]
    end = min((tags[tag] for tag in TABLES if tags.get(tag, 0) > start), default=start)
    exports: dict[str, tuple[int, int]] = {}
    imports: list[str] = []
    count = max(end - start, 0) // SYMBOL.size
    if count > MOST_SYMBOLS:
        raise LinkError(f"shared object: room for {count} symbols, expected at most {MOST_SYMBOLS}")
    rows = shared.view(start, count * SYMBOL.size)
    for at, _, _, section, value, size in islice(SYMBOL.iter_unpack(rows), 1, None):
        if section == UNDEFINED:
            imports.append(_name(names, at))
        else:
            exports[_name(names, at)] = value, size
    return exports, tuple(imports)


def _pointers(shared: Shared, tags: Mapping[int, int], relative: int) -> dict[int, int]:
    if dynamic.RELA not in tags:
        return {}
    rows = shared.view(tags[dynamic.RELA], tags[dynamic.RELASZ])
    return {where: addend for where, info, addend in RELOCATION.iter_unpack(rows) if info & 0xFFFFFFFF == relative}


def _build_id(view: memoryview, rows: Sequence[tuple[int, ...]]) -> str | None:
    for type_, _, offset, _, _, size, _, _ in rows:
        note = bytes(view[offset:offset + min(size, len(BUILD_ID_HEAD) + BUILD_ID_SIZE)]) if type_ == NOTE else b""
        if note.startswith(BUILD_ID_HEAD):
            return note[len(BUILD_ID_HEAD):].hex()
    return None
