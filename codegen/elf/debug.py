"""What objects tell debuggers (`.debug_*`), carried into the library: never loaded, so at address 0.

Sections of one name follow one another.  What points into them, or from them to the code, are plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import read
from .layout import DATA, Output, Piece, round_up
from .patch import Addresses
from .read import LinkError, Object
from .relocations import Architecture, put
from .resolve import Symbols


def gather_debug(objects: Sequence[Object]) -> dict[str, list[Piece]]:
    """Pieces of each section for debuggers, with their offsets in it."""
    found: dict[str, list[Piece]] = {}
    for owner, item in enumerate(objects):
        for part, section in enumerate(item.sections):
            if section.is_for_debuggers and section.size:
                rows = found.setdefault(section.name, [])
                rows.append(Piece(owner, part, section, round_up(rows[-1].end, section.align) if rows else 0))
    return found


def place_debug(pieces: Mapping[str, Sequence[Piece]], at: int) -> list[Output]:
    """The sections, one after the other from that place in the file on."""
    placed: list[Output] = []
    for name, rows in pieces.items():
        align = max(piece.section.align for piece in rows)
        at = round_up(at, align)
        flags = rows[0].section.flags & (read.MERGE | read.STRINGS)
        placed.append(Output(name, read.PROGBITS, flags, DATA, align, 1 if flags else 0, rows[-1].end, 0, at))
        at += rows[-1].end
    return placed


def debug_contents(pieces: Mapping[str, Sequence[Piece]], objects: Sequence[Object], symbols: Symbols,
                   addresses: Addresses, arch: Architecture) -> dict[str, bytearray]:
    """The bytes of each section, relocated."""
    offsets = {(piece.owner, piece.part): piece.offset for rows in pieces.values() for piece in rows}
    contents = {}
    for name, rows in pieces.items():
        data = contents[name] = bytearray(rows[-1].end)
        for piece in rows:
            data[piece.offset:piece.offset + piece.section.size] = piece.section.data
            for row in piece.section.relocations:
                _relocate(data, piece, row, objects[piece.owner], symbols, offsets, addresses, arch)
    return contents


def _relocate(data: bytearray, piece: Piece, row: read.Relocation, item: Object, symbols: Symbols,
              offsets: Mapping[tuple[int, int], int], addresses: Addresses, arch: Architecture) -> None:
    where = f"{item.label}: {piece.section.name}+{row.offset:#x}"
    if row.kind in arch.ignored:
        return
    field = arch.debug_fields.get(row.kind)
    if field is None:
        raise LinkError(f"link: {where}: {arch.name} relocation type {row.kind} is not known in such a section")
    if not 0 <= row.offset <= piece.section.size - field.nbytes:
        raise LinkError(f"link: {where}: beyond the section's {piece.section.size} bytes")
    target = symbols.targets[piece.owner][row.symbol]
    if target is None:
        raise LinkError(f"link: {where}: symbol {row.symbol} has no address")
    offset = offsets.get((target.owner, target.part))
    start = addresses.of(target, where) if offset is None else offset + target.value
    put(field, data, piece.offset + row.offset, start + row.addend, where)
