"""What static linking needs: blobs as a relocatable object, and objects as an archive with an index of symbols.

An object with blobs has one read-only section, each blob at a multiple of 64 bytes under a hidden symbol of its name.
An archive is the System V form that every linker reads: members with headers of text, and first the index, a member
named `/` with the number of symbols, the offset of the member that defines each (big-endian), and their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import struct

from . import read
from .dynamic import Strings
from .layout import round_up
from .link import BLOB_ALIGN
from .read import HEADER, PROGBITS, SECTION_HEADER, STRTAB, SYMBOL, SYMTAB, UNDEFINED, read_object
from .relocations import Architecture

MAGIC = b"!<arch>\n"
MEMBER = "{name:<16}{time:<12}{owner:<6}{group:<6}{mode:<8}{size:<10}`\n"
LONGEST = 15  # characters of a member's name


def data_object(blobs: Mapping[str, memoryview], arch: Architecture) -> bytes:
    """A relocatable object that defines the blobs."""
    data, places = bytearray(), {}
    for name, blob in blobs.items():
        data += bytes(-len(data) % BLOB_ALIGN)
        places[name] = len(data), len(blob)
        data += blob if len(blob) else b"\0"  # none shares its place with another, as in our linker's files
    strings, names = Strings(), Strings()
    symbols = bytes(SYMBOL.size) + b"".join(
        SYMBOL.pack(strings.at(name), read.GLOBAL << 4 | read.OBJECT, read.HIDDEN, 1, at, size)
        for name, (at, size) in places.items())
    sections = [(".rodata", PROGBITS, read.ALLOC, bytes(data), 0, 0, BLOB_ALIGN, 0),
                (".symtab", SYMTAB, 0, symbols, 3, 1, 8, SYMBOL.size),
                (".strtab", STRTAB, 0, bytes(strings.data), 0, 0, 1, 0),
                (".note.GNU-stack", PROGBITS, 0, b"", 0, 0, 1, 0)]
    for name in (*(row[0] for row in sections), ".shstrtab"):
        names.at(name)
    sections.append((".shstrtab", STRTAB, 0, bytes(names.data), 0, 0, 1, 0))
    body, headers = bytearray(HEADER.size), bytearray(SECTION_HEADER.size)
    for name, kind, flags, content, link, info, align, entry in sections:
        body += bytes(-len(body) % align)
        headers += SECTION_HEADER.pack(names.at(name), kind, flags, 0, len(body), len(content), link, info, align,
                                       entry)
        body += content
    body += bytes(-len(body) % 8)
    body[:HEADER.size] = HEADER.pack(b"\x7fELF\2\1\1".ljust(16, b"\0"), 1, arch.machine, 1, 0, 0, len(body), 0,
                                     HEADER.size, 0, 0, SECTION_HEADER.size, 1 + len(sections), len(sections))
    return bytes(body + headers)


def archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Objects by their names, with an index of what they define."""
    defined = [(symbol.name, number) for number, (name, data) in enumerate(members)
               for symbol in read_object(data, name).symbols
               if symbol.binding != read.LOCAL and symbol.section != UNDEFINED]
    names = b"".join(name.encode() + b"\0" for name, _ in defined)
    index_size = round_up(4 + 4 * len(defined) + len(names), 2)
    at, offsets = len(MAGIC) + len(header("/", 0)) + index_size, []
    for name, data in members:
        offsets.append(at)
        at += len(header(name, len(data))) + round_up(len(data), 2)
    index = struct.pack(f">I{len(defined)}I", len(defined), *(offsets[number] for _, number in defined)) + names
    parts = [MAGIC, header("/", index_size), index.ljust(index_size, b"\0")]
    for name, data in members:
        parts += [header(name, len(data)), data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def header(name: str, size: int) -> bytes:
    """A member's header; times and owners are zero, so that the same objects give the same bytes."""
    if len(name) > LONGEST:
        raise ValueError(f"archive: the name {name!r} has more than {LONGEST} characters")
    shown = name if name == "/" else f"{name}/"
    return MEMBER.format(name=shown, time=0, owner=0, group=0, mode="644", size=size).encode()
