"""The tables that the dynamic loader reads: names, symbols, their hash table, relocations and `.dynamic`.

The symbol table is: the empty symbol, the imports, then the exports in order of their hash bucket, as the GNU hash
table asks for.  Names are looked up in one Bloom filter word, then in one chain.  Binding is eager (`BIND_NOW`):
after loading, all that was relocated is read-only.  Imports ask for no version, so that a library made on one
machine loads on any; glibc then gives the oldest version of a symbol that it still has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
import struct

from . import read
from .layout import OUTPUTS, Output
from .read import DYNAMIC_ENTRY, RELOCATION, SYMBOL
from .resolve import Symbols

# Tags of .dynamic
NEEDED, STRTAB, SYMTAB, RELA, RELASZ, RELAENT, STRSZ, SYMENT, SONAME = 1, 5, 6, 7, 8, 9, 10, 11, 14
INIT_ARRAY, FINI_ARRAY, INIT_ARRAYSZ, FINI_ARRAYSZ, FLAGS = 25, 26, 27, 28, 30
GNU_HASH, RELACOUNT, FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFF9, 0x6FFFFFFB
BIND_NOW, NOW, NODELETE = 8, 1, 8

BLOOM_SHIFT = 26


class Strings:
    """A string table under construction; each name is stored once."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {"": 0}
        self.data = bytearray(b"\0")

    def at(self, name: str) -> int:
        if name not in self.offsets:
            self.offsets[name] = len(self.data)
            self.data += name.encode() + b"\0"
        return self.offsets[name]


@dataclass(frozen=True)
class DynamicNames:
    """The names of the library as the loader sees them; `indices` are rows of the dynamic symbol table."""

    strings: Strings
    indices: dict[str, int]
    exports: tuple[str, ...]
    hash_table: bytes
    soname: str | None
    needed: tuple[str, ...]
    stays: bool  # in memory, once it is loaded


def dynamic_names(symbols: Symbols, soname: str | None, needed: Sequence[str], *, stays: bool = False) -> DynamicNames:
    """Everything that can be known before the layout."""
    buckets = max(1, len(symbols.exports) // 4)
    exports = tuple(sorted(symbols.exports, key=lambda name: gnu_hash(name) % buckets))
    strings = Strings()
    for name in (*needed, *([] if soname is None else [soname]), *symbols.imports, *exports):
        strings.at(name)
    indices = {name: i for i, name in enumerate((*symbols.imports, *exports), 1)}
    table = hash_table([gnu_hash(name) for name in exports], buckets=buckets, first=1 + len(symbols.imports))
    return DynamicNames(strings, indices, exports, table, soname, tuple(needed), stays)


def gnu_hash(name: str) -> int:
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value


def hash_table(hashes: Sequence[int], *, buckets: int, first: int) -> bytes:
    """The GNU hash table of symbols with these hashes, sorted by bucket, from row `first` of the symbol table on."""
    words = 1 << max(0, (len(hashes) * 12 // 64 - 1).bit_length())
    bloom, heads, chain = [0] * words, [0] * buckets, []
    for i, value in enumerate(hashes):
        bloom[value // 64 % words] |= 1 << value % 64 | 1 << (value >> BLOOM_SHIFT) % 64
        bucket = value % buckets
        heads[bucket] = heads[bucket] or first + i
        is_last = i + 1 == len(hashes) or hashes[i + 1] % buckets != bucket
        chain.append(value & ~1 | is_last)
    return struct.pack(f"<4I{words}Q{buckets}I{len(chain)}I", buckets, first, words, BLOOM_SHIFT,
                       *bloom, *heads, *chain)


def symbol_rows(names: DynamicNames, symbols: Symbols, exported: Mapping[str, tuple[int, int, int, int]]) -> bytes:
    """`.dynsym`; `exported` has (type, section index, address, size) of each export."""
    rows = [bytes(SYMBOL.size)]
    for name in symbols.imports:
        binding = read.WEAK if name in symbols.weak_imports else read.GLOBAL
        rows.append(SYMBOL.pack(names.strings.at(name), binding << 4 | read.NOTYPE, read.DEFAULT, read.UNDEFINED, 0, 0))
    for name in names.exports:
        kind, section, address, size = exported[name]
        rows.append(SYMBOL.pack(names.strings.at(name), read.GLOBAL << 4 | kind, read.DEFAULT, section, address, size))
    return b"".join(rows)


def relocation_rows(relocations: Sequence[tuple[int, int, int, int]], relative: int) -> tuple[bytes, int]:
    """`.rela.dyn` of (place, type, symbol row, addend), those without a symbol first; and how many those are."""
    ordered = sorted(relocations, key=lambda row: (row[1] != relative, row[0]))
    rows = b"".join(RELOCATION.pack(place, symbol << 32 | kind, addend) for place, kind, symbol, addend in ordered)
    return rows, sum(kind == relative for _, kind, _, _ in relocations)


def dynamic_rows(names: DynamicNames, sections: Mapping[str, Output], relative_count: int) -> bytes:
    """`.dynamic`; sections that the library does not have are given no entries."""
    rows = [(NEEDED, names.strings.at(name)) for name in names.needed]
    if names.soname is not None:
        rows.append((SONAME, names.strings.at(names.soname)))
    for name, at, size in ((".init_array", INIT_ARRAY, INIT_ARRAYSZ), (".fini_array", FINI_ARRAY, FINI_ARRAYSZ)):
        if name in sections:
            rows += [(at, sections[name].address), (size, sections[name].size)]
    rows += [(GNU_HASH, sections[".gnu.hash"].address), (STRTAB, sections[".dynstr"].address),
             (SYMTAB, sections[".dynsym"].address), (STRSZ, sections[".dynstr"].size), (SYMENT, SYMBOL.size)]
    if ".rela.dyn" in sections:
        rows += [(RELA, sections[".rela.dyn"].address), (RELASZ, sections[".rela.dyn"].size),
                 (RELAENT, RELOCATION.size), (RELACOUNT, relative_count)]
    rows += [(FLAGS, BIND_NOW), (FLAGS_1, NOW | NODELETE * names.stays), (0, 0)]
    return b"".join(DYNAMIC_ENTRY.pack(tag, value) for tag, value in rows)


def dynamic_size(names: DynamicNames, present: Collection[str]) -> int:
    """Size of `.dynamic` in a library that has the sections `present`."""
    return len(dynamic_rows(names, {output.name: output for output in OUTPUTS if output.name in present}, 0))
