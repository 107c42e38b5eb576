"""The library as a file: ELF header, program headers, section headers, symbol table, build id.

A file is a list of `Part`s in order of their offsets; the gaps between them are zeros.  Blobs are parts of their own,
so they go from the caller's memory to the file without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import hashlib
import struct
from typing import NamedTuple

from . import read
from .dynamic import Strings
from .layout import DATA, HEADER_SIZE, PROGRAM_HEADER_SIZE, READ, RELRO, SEGMENT_FLAGS, Output, round_up
from .read import HEADER, NOBITS, SECTION_HEADER, SEGMENT, SYMBOL, Object
from .relocations import Architecture
from .resolve import BLOB, Symbols

Buffer = bytes | bytearray | memoryview

LOAD, DYNAMIC, NOTE, GNU_EH_FRAME, GNU_STACK, GNU_RELRO = 1, 2, 4, 0x6474E550, 0x6474E551, 0x6474E552

BUILD_ID_SIZE = 20
BUILD_ID_HEAD = struct.pack("<3I4s", 4, BUILD_ID_SIZE, 3, b"GNU\0")

LINKS = {".gnu.hash": ".dynsym", ".dynsym": ".dynstr", ".rela.dyn": ".dynsym", ".dynamic": ".dynstr",
         ".symtab": ".strtab"}


class Part(NamedTuple):
    offset: int
    data: Buffer


# -- headers --

def program_header_table(sections: Sequence[Output], arch: Architecture) -> bytes:
    """The segments, then what the loader must know of single sections."""
    by_name = {s.name: s for s in sections}
    rows = [_load(number, [s for s in sections if s.segment == number], arch) for number in range(READ, DATA + 1)
            if any(s.segment == number for s in sections)]
    rows += [_view(DYNAMIC, 6, by_name[".dynamic"]), _view(NOTE, 4, by_name[".note.gnu.build-id"])]
    if ".eh_frame_hdr" in by_name:
        rows.append(_view(GNU_EH_FRAME, 4, by_name[".eh_frame_hdr"]))
    rows.append(SEGMENT.pack(GNU_STACK, 6, 0, 0, 0, 0, 0, 16))
    relro = [s for s in sections if s.segment == RELRO]
    start, end, size = relro[0], relro[-1].end, _file_size(relro)
    rows.append(SEGMENT.pack(GNU_RELRO, 4, start.offset, start.address, start.address, size,
                            end - start.address, 1))
    return b"".join(rows)


def _file_size(sections: Sequence[Output]) -> int:
    return max((s.end for s in sections if s.kind != NOBITS), default=sections[0].address) - sections[0].address


def _load(number: int, sections: Sequence[Output], arch: Architecture) -> bytes:
    # The first segment begins with the headers.
    before = sections[0].offset if number == READ else 0
    offset, address = sections[0].offset - before, sections[0].address - before
    return SEGMENT.pack(LOAD, SEGMENT_FLAGS[number], offset, address, address,
                       _file_size(sections) + before, sections[-1].end - address, arch.page)


def _view(kind: int, flags: int, section: Output) -> bytes:
    return SEGMENT.pack(kind, flags, section.offset, section.address, section.address, section.size,
                       section.size, section.align)


def elf_header(arch: Architecture, *, program_headers: int, sections_at: int, sections: int) -> bytes:
    return HEADER.pack(b"\x7fELF\2\1\1".ljust(16, b"\0"), 3, arch.machine, 1, 0, HEADER_SIZE, sections_at, 0,
                       HEADER_SIZE, PROGRAM_HEADER_SIZE, program_headers, SECTION_HEADER.size, sections, sections - 1)


def section_header_table(sections: Sequence[Output], names: Strings, infos: Mapping[str, int]) -> bytes:
    """Row 0 is empty; `infos` has, by section name, what the format calls sh_info."""
    index = {section.name: i for i, section in enumerate(sections, 1)}
    rows = [bytes(SECTION_HEADER.size)]
    for s in sections:
        rows.append(SECTION_HEADER.pack(names.at(s.name), s.kind, s.flags, s.address, s.offset, s.size,
                                        index[LINKS[s.name]] if s.name in LINKS else 0, infos.get(s.name, 0),
                                        s.align, s.entry_size))
    return b"".join(rows)


# -- symbols for debuggers --

class Row(NamedTuple):
    """A row of `.symtab`: `section` is the index of the output section."""

    name: str
    binding: int
    kind: int
    section: int
    value: int
    size: int


def symbol_table(objects: Sequence[Object], symbols: Symbols, blobs: Mapping[str, int],
                 addresses: Mapping[tuple[int, int], int], index_of: Mapping[tuple[int, int], int],
                 ) -> tuple[bytes, Strings, int]:
    """`.symtab`, its names, and the number of local symbols in it; `blobs` has the sizes by name."""
    rows = [*_object_rows(objects, symbols, addresses, index_of)]
    rows += [Row(name, read.LOCAL, read.OBJECT, index_of[BLOB, i], addresses[BLOB, i], size)
             for i, (name, size) in enumerate(blobs.items())]
    rows += [Row(name, read.WEAK if name in symbols.weak_imports else read.GLOBAL, read.NOTYPE, 0, 0, 0)
             for name in symbols.imports]
    rows.sort(key=lambda row: row.binding != read.LOCAL)
    strings = Strings()
    table = b"".join(SYMBOL.pack(strings.at(row.name), row.binding << 4 | row.kind, read.DEFAULT, row.section,
                                 row.value, row.size) for row in rows)
    return bytes(SYMBOL.size) + table, strings, 1 + sum(row.binding == read.LOCAL for row in rows)


def _object_rows(objects: Sequence[Object], symbols: Symbols, addresses: Mapping[tuple[int, int], int],
                 index_of: Mapping[tuple[int, int], int]) -> Iterator[Row]:
    exported = set(symbols.exports)
    for owner, item in enumerate(objects):
        for k, symbol in enumerate(item.symbols):
            place = owner, symbol.section
            if not symbol.name or symbol.kind >= read.SECTION or place not in addresses:
                continue
            if symbol.name.startswith(".L") and symbol.binding == read.LOCAL:
                continue
            if symbol.binding != read.LOCAL and symbols.definitions[symbol.name] != (owner, k):
                continue
            is_exported = symbol.binding != read.LOCAL and symbol.name in exported
            yield Row(symbol.name, read.GLOBAL if is_exported else read.LOCAL, symbol.kind, index_of[place],
                      addresses[place] + symbol.value, symbol.size)


# -- the file --

def file_end(sections: Sequence[Output]) -> int:
    """Where in the file they end."""
    return max(s.offset + (0 if s.kind == NOBITS else s.size) for s in sections)


def tail(sections: Sequence[Output], symtab: bytes, strtab: Buffer, infos: Mapping[str, int],
         ) -> tuple[list[Part], int, int]:
    """What follows the loaded part: symbol table, names, section headers; their place and number."""
    at = round_up(file_end(sections), 8)
    names = Strings()
    extra = [Output(".symtab", read.SYMTAB, 0, DATA, 8, SYMBOL.size, len(symtab), 0, at),
             Output(".strtab", read.STRTAB, 0, DATA, 1, 0, len(strtab), 0, at + len(symtab))]
    for section in (*sections, *extra):
        names.at(section.name)
    names.at(".shstrtab")
    end = at + len(symtab) + len(strtab)
    extra.append(Output(".shstrtab", read.STRTAB, 0, DATA, 1, 0, len(names.data), 0, end))
    headers_at = round_up(end + len(names.data), 8)
    table = section_header_table([*sections, *extra], names, infos)
    parts = [Part(extra[0].offset, symtab), Part(extra[1].offset, strtab), Part(end, names.data),
             Part(headers_at, table)]
    return parts, headers_at, 1 + len(sections) + len(extra)


def chunks(parts: Sequence[Part]) -> Iterator[Buffer]:
    """The bytes of the file in order, gaps filled."""
    at = 0
    for part in parts:
        if part.offset < at:
            raise AssertionError(f"part at {part.offset} overlaps what ends at {at}")
        if part.offset > at:
            yield bytes(part.offset - at)
        yield part.data
        at = part.offset + len(part.data)


def build_id_note(parts: Sequence[Part]) -> bytes:
    """The note for a file that has zeros where the note will be."""
    digest = hashlib.sha256()
    for chunk in chunks(parts):
        digest.update(chunk)
    return BUILD_ID_HEAD + digest.digest()[:BUILD_ID_SIZE]
