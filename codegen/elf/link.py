"""Relocatable objects linked into a shared object, by steps: read, resolve, gather, scan, lay out, relocate, write.

The result depends on the arguments only: the same objects give the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import os
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.ir.files import write_whole

from .debug import debug_contents, gather_debug, place_debug
from .dynamic import DynamicNames, dynamic_names, dynamic_rows, dynamic_size, relocation_rows, symbol_rows
from .layout import HEADER_SIZE, Output, Piece, gather, lay_out, program_headers, round_up
from .patch import SLOT_SIZE, Addresses, Demands, Site, relocate, scan, sites, stub_contents
from .read import NOBITS, RELOCATION, SYMBOL, LinkError, Object, read_object
from .relocations import ARCHITECTURES, Architecture
from .resolve import BLOB, Symbols, resolve
from .write import (
    BUILD_ID_HEAD,
    BUILD_ID_SIZE,
    Part,
    build_id_note,
    chunks,
    elf_header,
    file_end,
    program_header_table,
    symbol_table,
    tail,
)

Blob = bytes | bytearray | memoryview | npt.NDArray[Any]

BLOB_ALIGN = 64

# Version 1; the place of .eh_frame as a 32-bit distance; no count, no search table: unwinders then read it in order.
UNWIND_HEADER = bytes((1, 0x1B, 0xFF, 0xFF))


def link(objects: Sequence[bytes], *, exports: Sequence[str], soname: str | None = None, needed: Sequence[str] = (),
         blobs: Mapping[str, Blob] | None = None, imports: Collection[str] = (), stays: bool = False) -> bytes:
    """The shared object, as bytes.

    Only `exports` can be seen from outside.  `blobs` are read-only data, 64-byte aligned, that the code reaches under
    their names as `external hidden` globals.  `imports` are the symbols that may be left to other libraries, which
    `needed` names.  A library that `stays` is not unloaded by dlclose: its threads run in it.
    """
    return b"".join(chunks(_parts(objects, exports, soname, needed, blobs or {}, imports, stays)))


def write_library(path: str | os.PathLike[str], objects: Sequence[bytes], *, exports: Sequence[str],
                  soname: str | None = None, needed: Sequence[str] = (), blobs: Mapping[str, Blob] | None = None,
                  imports: Collection[str] = (), stays: bool = False) -> None:
    """Links as `link` does and writes the file, which appears whole or not at all; blobs are not copied."""
    parts = _parts(objects, exports, soname, needed, blobs or {}, imports, stays)
    if os.path.isdir(path):
        raise LinkError(f"link: {os.fspath(path)!r} is a folder")
    write_whole(path, chunks(parts), mode=0o755)


def _parts(objects: Sequence[bytes], exports: Sequence[str], soname: str | None, needed: Sequence[str],
           blobs: Mapping[str, Blob], imports: Collection[str], stays: bool) -> list[Part]:
    for name in (*needed, *([] if soname is None else [soname])):
        if not name or "\0" in name:
            raise LinkError(f"link: library name {name!r}")
    parsed = [read_object(bytes(data), f"object {i}") for i, data in enumerate(objects)]
    arch = _architecture(parsed)
    data = {name: flat(name, blob) for name, blob in blobs.items()}
    symbols = resolve(parsed, exports=exports, imports=imports, blobs=tuple(data))
    pieces = gather(parsed)
    found = list(sites(parsed, pieces, symbols, arch))
    demands, names = scan(found), dynamic_names(symbols, soname, needed, stays=stays)
    sections = lay_out(_sizes(pieces, data, demands, names, arch), _aligns(pieces), arch.page)
    by_name = {s.name: s for s in sections}
    addresses = _addresses(pieces, data, by_name, demands, arch)
    contents = _contents(found, pieces, by_name, addresses, symbols, names, parsed, arch)
    index_of = _section_indices(pieces, data, sections)
    symtab, strings, local_count = symbol_table(parsed, symbols, {name: len(blob) for name, blob in data.items()},
                                                addresses.pieces, index_of)
    debug = gather_debug(parsed)
    carried = place_debug(debug, file_end(sections))
    ends, headers_at, count = tail([*sections, *carried], symtab, strings.data, {".symtab": local_count, ".dynsym": 1})
    head = elf_header(arch, program_headers=program_headers(sections), sections_at=headers_at, sections=count)
    parts = [Part(0, head), Part(HEADER_SIZE, program_header_table(sections, arch))]
    contents |= debug_contents(debug, parsed, symbols, addresses, arch)
    parts += _section_parts([*sections, *carried], contents, data, addresses) + ends
    return _with_build_id(parts, by_name[".note.gnu.build-id"].offset)


def _architecture(objects: Sequence[Object]) -> Architecture:
    machines = sorted({item.machine for item in objects})
    if len(machines) != 1:
        raise LinkError(f"link: {len(objects)} objects for machines {machines}, expected one machine")
    return ARCHITECTURES[machines[0]]


def flat(name: str, blob: Blob) -> memoryview:
    view = blob.data if isinstance(blob, np.ndarray) else memoryview(blob)
    if not view.c_contiguous:
        raise LinkError(f"link: blob {name!r}: not contiguous, shape {view.shape} strides {view.strides}")
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _sizes(pieces: Mapping[str, Sequence[Piece]], blobs: Mapping[str, memoryview], demands: Demands,
           names: DynamicNames, arch: Architecture) -> dict[str, int]:
    sizes = {name: rows[-1].end for name, rows in pieces.items()}
    if ".eh_frame" in sizes:
        sizes |= {".eh_frame": sizes[".eh_frame"] + 4, ".eh_frame_hdr": 8}  # four zero bytes end the records
    offsets = _blob_offsets(blobs)
    sizes |= {
        ".note.gnu.build-id": len(BUILD_ID_HEAD) + BUILD_ID_SIZE,
        ".gnu.hash": len(names.hash_table),
        ".dynsym": SYMBOL.size * (1 + len(names.indices)),
        ".dynstr": len(names.strings.data),
        ".rela.dyn": RELOCATION.size * demands.dynamic_relocations,
        ".blobs": offsets[-1],
        ".plt": len(arch.stub) * len(demands.stubs),
        ".got": SLOT_SIZE * max(len(demands.slots), int(demands.uses_table)),
    }
    return sizes | {".dynamic": dynamic_size(names, [name for name, size in sizes.items() if size])}


def _aligns(pieces: Mapping[str, Sequence[Piece]]) -> dict[str, int]:
    return {name: max(piece.section.align for piece in rows) for name, rows in pieces.items()}


def _blob_offsets(blobs: Mapping[str, memoryview]) -> list[int]:
    """Offset of each blob in its section, and at the end the section's size; an empty blob has an address too."""
    offsets = [0]
    for blob in blobs.values():
        offsets.append(round_up(offsets[-1] + max(1, len(blob)), BLOB_ALIGN))
    return offsets


def _addresses(pieces: Mapping[str, Sequence[Piece]], blobs: Mapping[str, memoryview],
               sections: Mapping[str, Output], demands: Demands, arch: Architecture) -> Addresses:
    places = {(piece.owner, piece.part): sections[name].address + piece.offset
              for name, rows in pieces.items() for piece in rows}
    if blobs:
        places |= {(BLOB, i): sections[".blobs"].address + at for i, at in enumerate(_blob_offsets(blobs)[:-1])}
    return Addresses(places, demands, table=sections[".got"].address if ".got" in sections else 0,
                     stubs=sections[".plt"].address if ".plt" in sections else 0, stub_size=len(arch.stub))


def _section_indices(pieces: Mapping[str, Sequence[Piece]], blobs: Mapping[str, memoryview],
                     sections: Sequence[Output]) -> dict[tuple[int, int], int]:
    index = {s.name: i for i, s in enumerate(sections, 1)}
    places = {(piece.owner, piece.part): index[name] for name, rows in pieces.items() for piece in rows}
    return places | {(BLOB, i): index[".blobs"] for i in range(len(blobs))}


def _contents(found: Sequence[Site], pieces: Mapping[str, Sequence[Piece]], sections: Mapping[str, Output],
              addresses: Addresses, symbols: Symbols, names: DynamicNames, objects: Sequence[Object],
              arch: Architecture) -> dict[str, bytes | bytearray]:
    """Contents of every section that has some, the blobs and the build id excepted."""
    merged = {name: _merged(rows, sections[name], arch) for name, rows in pieces.items()
              if sections[name].kind != NOBITS}
    left = relocate(found, merged, sections, addresses, arch)
    rows, relative_count = relocation_rows(left, arch.relative)
    contents: dict[str, bytes | bytearray] = {
        ".gnu.hash": names.hash_table, ".dynstr": names.strings.data, ".rela.dyn": rows,
        ".dynsym": symbol_rows(names, symbols, _exported(symbols, pieces, sections, addresses, objects)),
        ".dynamic": dynamic_rows(names, sections, relative_count),
        ".plt": stub_contents(addresses, arch), **merged}
    if ".eh_frame" in sections:
        distance = sections[".eh_frame"].address - (sections[".eh_frame_hdr"].address + len(UNWIND_HEADER))
        contents[".eh_frame_hdr"] = UNWIND_HEADER + struct.pack("<i", distance)
    return contents


def _merged(pieces: Sequence[Piece], section: Output, arch: Architecture) -> bytearray:
    data = bytearray((arch.code_fill if section.name == ".text" else b"\0") * section.size)
    for piece in pieces:
        data[piece.offset:piece.offset + piece.section.size] = piece.section.data
    return data


def _exported(symbols: Symbols, pieces: Mapping[str, Sequence[Piece]], sections: Mapping[str, Output],
              addresses: Addresses, objects: Sequence[Object]) -> dict[str, tuple[int, int, int, int]]:
    index_of = _section_indices(pieces, {}, list(sections.values()))
    rows = {}
    for name in symbols.exports:
        owner, k = symbols.definitions[name]
        symbol = objects[owner].symbols[k]
        place = owner, symbol.section
        rows[name] = symbol.kind, index_of[place], addresses.pieces[place] + symbol.value, symbol.size
    return rows


def _section_parts(sections: Sequence[Output], contents: Mapping[str, bytes | bytearray],
                   blobs: Mapping[str, memoryview], addresses: Addresses) -> list[Part]:
    parts = []
    for section in sections:
        if section.name == ".blobs":
            parts += [Part(section.offset + addresses.pieces[BLOB, i] - section.address, blob)
                      for i, blob in enumerate(blobs.values())]
        elif section.kind != NOBITS and section.name in contents:
            parts.append(Part(section.offset, contents[section.name]))
    return parts


def _with_build_id(parts: Sequence[Part], at: int) -> list[Part]:
    note = Part(at, build_id_note(parts))
    return sorted([*parts, note], key=lambda part: part.offset)
