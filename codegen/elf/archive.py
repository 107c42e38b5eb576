"""What static linking needs: objects as an archive with an index of symbols.

An archive is the System V form that every linker reads: members with headers of text, and first the index, a member
named `/` with the number of symbols, the offset of the member that defines each (big-endian), and their names.
"""

from __future__ import annotations

from collections.abc import Sequence
import struct

from . import read
from .layout import round_up
from .read import UNDEFINED, read_object

MAGIC = b"!<arch>\n"
MEMBER = "{name:<16}{time:<12}{owner:<6}{group:<6}{mode:<8}{size:<10}`\n"
LONGEST = 15  # characters of a member's name


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
