"""Relocatable ELF64 objects, as LLVM makes them, read into plain data.

In: the bytes of one `.o` file, little-endian, for x86-64 or aarch64.  Out: an `Object` of sections (with their
relocations attached) and symbols.  What this reader promises to those who use its result:

1. every section lies inside the file, its alignment is a power of two, and its relocations name existing symbols;
2. every symbol is undefined, absolute, or lies inside an existing section (its end included);
3. what the linker cannot place (COMDAT groups, thread-local storage, compressed or writable code) is refused here.

Anything else is a `LinkError` that says which object and what was found; nothing here can loop or read past the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import struct
from typing import Any, NamedTuple

from graphc.ir.errors import GraphError

MACHINES = {62: "x86_64", 183: "aarch64"}

# Section types
PROGBITS, SYMTAB, STRTAB, RELA, HASH, DYNAMIC, NOTE, NOBITS, REL, DYNSYM = 1, 2, 3, 4, 5, 6, 7, 8, 9, 11
INIT_ARRAY, FINI_ARRAY, GROUP, SYMTAB_SHNDX, GNU_HASH = 14, 15, 17, 18, 0x6FFFFFF6
X86_64_UNWIND = 0x70000001

# Section flags
WRITE, ALLOC, EXEC, MERGE, STRINGS, IN_GROUP, TLS, COMPRESSED = 1, 2, 4, 0x10, 0x20, 0x200, 0x400, 0x800

# Symbols: bindings, types, visibilities, special section indices
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION, FILE = 0, 1, 2, 3, 4
DEFAULT, INTERNAL, HIDDEN, PROTECTED = 0, 1, 2, 3
UNDEFINED, RESERVED, ABSOLUTE, COMMON, EXTENDED = 0, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
SEGMENT = struct.Struct("<IIQQQQQQ")
DYNAMIC_ENTRY = struct.Struct("<QQ")

MAX_BSS = 1 << 40


class LinkError(GraphError):
    """An object that cannot be linked: corrupt, unsupported, or with names that do not resolve."""


class Relocation(NamedTuple):
    """Patch the place at `offset` of the section with something of `symbol` (an index) plus `addend`."""

    offset: int
    kind: int
    symbol: int
    addend: int


class Symbol(NamedTuple):
    """A row of the object's symbol table; `section` is an index or one of the special ones."""

    name: str
    binding: int
    kind: int
    visibility: int
    section: int
    value: int
    size: int


@dataclass(frozen=True)
class Section:
    """A section of the object; `data` is empty where `kind` is NOBITS."""

    name: str
    kind: int
    flags: int
    size: int
    align: int
    data: bytes
    relocations: tuple[Relocation, ...] = ()

    @property
    def is_allocated(self) -> bool:
        return bool(self.flags & ALLOC)

    @property
    def is_for_debuggers(self) -> bool:
        return not self.is_allocated and self.kind == PROGBITS and self.name.startswith(".debug_")


@dataclass(frozen=True)
class Object:
    """One parsed relocatable object; `label` names it in errors."""

    label: str
    machine: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]


class _Header(NamedTuple):
    """A raw section header."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


def read_object(data: bytes, label: str) -> Object:
    """The object in `data`; `label` names it in errors."""
    machine, headers, names_at = _read_headers(data, label)
    bodies = [_body(data, header, f"{label}: section {i}") for i, header in enumerate(headers)]
    if not 0 < names_at < len(headers) or headers[names_at].kind != STRTAB:
        raise LinkError(f"link: {label}: section names in section {names_at}, which is no string table")
    names = [_name(bodies[names_at], header.name, f"{label}: section {i}") for i, header in enumerate(headers)]
    sections = [_section(header, name, body, label) for header, name, body in zip(headers, names, bodies, strict=True)]
    symbols = _read_symbols(headers, bodies, sections, label)
    relocations = _read_relocations(headers, bodies, sections, len(symbols), label)
    placed = tuple(Section(s.name, s.kind, s.flags, s.size, s.align, s.data, relocations.get(i, ()))
                   for i, s in enumerate(sections))
    return Object(label, machine, placed, symbols)


def _read_headers(data: bytes, label: str) -> tuple[int, list[_Header], int]:
    if len(data) < HEADER.size:
        raise LinkError(f"link: {label}: {len(data)} bytes, too short for an ELF header")
    ident, kind, machine, _, _, _, at, _, _, _, _, entry, count, names_at = HEADER.unpack_from(data)
    if ident[:6] != b"\x7fELF\2\1":
        raise LinkError(f"link: {label}: begins with {ident[:6].hex(' ')}, not with a little-endian ELF64 header")
    if kind != 1:
        raise LinkError(f"link: {label}: ELF file type {kind}, expected 1 (relocatable)")
    if machine not in MACHINES:
        raise LinkError(f"link: {label}: machine {machine}, expected {_choices(MACHINES)}")
    if entry != SECTION_HEADER.size or count == 0:
        raise LinkError(f"link: {label}: {count} section headers of {entry} bytes, expected 1..65279 of 64")
    if at + count * entry > len(data):
        raise LinkError(f"link: {label}: section headers end at {at + count * entry}, the file at {len(data)}")
    headers = [_Header(*row) for row in SECTION_HEADER.iter_unpack(data[at:at + count * entry])]
    return machine, headers, names_at


def _choices(table: dict[int, str]) -> str:
    return " or ".join(f"{number} ({name})" for number, name in table.items())


def _body(data: bytes, header: _Header, where: str) -> bytes:
    if header.kind in (0, NOBITS):
        return b""
    if header.offset + header.size > len(data):
        raise LinkError(f"link: {where}: ends at byte {header.offset + header.size} of a file of {len(data)}")
    return data[header.offset:header.offset + header.size]


def _name(strings: bytes, at: int, where: str) -> str:
    end = strings.find(b"\0", at) if at < len(strings) else -1
    if end < 0:
        raise LinkError(f"link: {where}: name at {at} of a string table of {len(strings)} bytes has no end")
    try:
        return strings[at:end].decode()
    except UnicodeDecodeError:
        raise LinkError(f"link: {where}: name {strings[at:end]!r} is not UTF-8") from None


REFUSED_FLAGS = ((IN_GROUP, "a COMDAT group member"), (TLS, "thread-local storage"), (COMPRESSED, "compressed"))
LINKED_KINDS = (PROGBITS, NOBITS, NOTE, INIT_ARRAY, FINI_ARRAY, X86_64_UNWIND)


def _section(header: _Header, name: str, body: bytes, label: str) -> Section:
    where, flags, align = f"link: {label}: section {name}", header.flags, max(1, header.align)
    if header.kind in (GROUP, SYMTAB_SHNDX):
        raise LinkError(f"{where}: section type {header.kind} (COMDAT groups, extended indices) is not linked")
    if name == ".note.GNU-stack" and flags & EXEC:
        raise LinkError(f"{where}: asks for an executable stack")
    section = Section(name, header.kind, flags, header.size, align, body)
    if section.is_allocated or section.is_for_debuggers:
        for flag, what in REFUSED_FLAGS:
            if flags & flag:
                raise LinkError(f"{where}: {what} (flags {flags:#x}) is not linked")
        if flags & WRITE and flags & EXEC:
            raise LinkError(f"{where}: both writable and executable (flags {flags:#x})")
        if header.kind not in LINKED_KINDS:
            raise LinkError(f"{where}: section type {header.kind:#x} is not linked")
        if align & (align - 1) or align > 65536:
            raise LinkError(f"{where}: alignment {align}, expected a power of two up to 65536")
        if header.kind == NOBITS and header.size > MAX_BSS:
            raise LinkError(f"{where}: {header.size} zero bytes, more than {MAX_BSS}")
    return section


def _read_symbols(headers: Sequence[_Header], bodies: Sequence[bytes], sections: Sequence[Section],
                  label: str) -> tuple[Symbol, ...]:
    tables = [i for i, header in enumerate(headers) if header.kind == SYMTAB]
    if len(tables) != 1:
        raise LinkError(f"link: {label}: {len(tables)} symbol tables, expected 1")
    strings_at = headers[tables[0]].link
    if not 0 < strings_at < len(headers) or headers[strings_at].kind != STRTAB:
        raise LinkError(f"link: {label}: symbol names in section {strings_at}, which is no string table")
    strings = bodies[strings_at]
    return tuple(_symbol(row, strings, sections, f"{label}: symbol {k}")
                 for k, row in enumerate(_rows(SYMBOL, bodies[tables[0]], f"{label}: symbol table")))


def _symbol(row: tuple[Any, ...], strings: bytes, sections: Sequence[Section], where: str) -> Symbol:
    name_at, info, other, section, value, size = row
    symbol = Symbol(_name(strings, name_at, where), info >> 4, info & 15, other & 3, section, value, size)
    where = f"link: {where} ({symbol.name!r})"
    if symbol.binding not in (LOCAL, GLOBAL, WEAK):
        raise LinkError(f"{where}: binding {symbol.binding}, expected local, global or weak")
    if symbol.kind > FILE:
        raise LinkError(f"{where}: symbol type {symbol.kind} (common, thread-local, indirect) is not linked")
    if section in (UNDEFINED, ABSOLUTE):
        return symbol
    if section >= RESERVED:
        raise LinkError(f"{where}: section index {section:#x} (common or extended) is not linked")
    if section >= len(sections):
        raise LinkError(f"{where}: in section {section} of {len(sections)}")
    if sections[section].is_allocated and value > sections[section].size:
        raise LinkError(f"{where}: at {value} of section {sections[section].name}, "
                        f"which has {sections[section].size} bytes")
    return symbol


def _read_relocations(headers: Sequence[_Header], bodies: Sequence[bytes], sections: Sequence[Section], symbols: int,
                      label: str) -> dict[int, tuple[Relocation, ...]]:
    """Relocations by the index of the section that they patch, of those that the library will have."""
    found: dict[int, tuple[Relocation, ...]] = {}
    for header, body, section in zip(headers, bodies, sections, strict=True):
        if header.kind not in (RELA, REL):
            continue
        where = f"{label}: {section.name}"
        if header.info >= len(headers):
            raise LinkError(f"link: {where}: relocates section {header.info} of {len(headers)}")
        patched = sections[header.info]
        if not (patched.is_allocated or patched.is_for_debuggers):
            continue
        if header.kind == REL or header.info in found:
            raise LinkError(f"link: {where}: expected one table with addends for section {patched.name}")
        rows = tuple(Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)
                     for offset, info, addend in _rows(RELOCATION, body, where))
        for row in rows:
            if row.symbol >= symbols:
                raise LinkError(f"link: {where}: relocation at {row.offset} names symbol {row.symbol} of {symbols}")
        found[header.info] = rows
    return found


def _rows(form: struct.Struct, body: bytes, where: str) -> list[tuple[Any, ...]]:
    if len(body) % form.size:
        raise LinkError(f"link: {where}: {len(body)} bytes, no multiple of the entry size {form.size}")
    return list(form.iter_unpack(body))
