"""Where everything goes: input sections into output sections, output sections into segments of the library.

The order in the file is the order of `OUTPUTS`; addresses follow it.  Invariants:

1. address and offset of a section are equal modulo the page size, and each segment starts on a page of its own,
   so that no page is ever both writable and executable, without padding the file;
2. inside an output section, pieces keep the order of objects and sections, but constructors go by priority;
3. blobs come before the code, everything small around it: only the code that reads a blob has far to reach;
4. the read-only-after-relocation segment ends at a page's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from . import read
from .read import ALLOC, EXEC, NOBITS, WRITE, LinkError, Object, Section

READ, CODE, RELRO, DATA = 0, 1, 2, 3  # segments in order
SEGMENT_FLAGS = (4, 5, 6, 6)  # readable 4, writable 2, executable 1

HEADER_SIZE, PROGRAM_HEADER_SIZE = 64, 56
MAX_ADDRESS = 1 << 46


@dataclass(frozen=True)
class Output:
    """An output section.  `size`, `address` and `offset` are filled in by the layout."""

    name: str
    kind: int
    flags: int
    segment: int
    align: int = 1
    entry_size: int = 0
    size: int = 0
    address: int = 0
    offset: int = 0

    @property
    def end(self) -> int:
        return self.address + self.size


OUTPUTS = (
    Output(".note.gnu.build-id", read.NOTE, ALLOC, READ, 4),
    Output(".gnu.hash", read.GNU_HASH, ALLOC, READ, 8),
    Output(".dynsym", read.DYNSYM, ALLOC, READ, 8, 24),
    Output(".dynstr", read.STRTAB, ALLOC, READ),
    Output(".rela.dyn", read.RELA, ALLOC, READ, 8, 24),
    Output(".blobs", read.PROGBITS, ALLOC, READ, 64),
    Output(".rodata", read.PROGBITS, ALLOC, READ),
    Output(".eh_frame_hdr", read.PROGBITS, ALLOC, READ, 4),
    Output(".eh_frame", read.PROGBITS, ALLOC, READ, 8),
    Output(".text", read.PROGBITS, ALLOC | EXEC, CODE, 16),
    Output(".plt", read.PROGBITS, ALLOC | EXEC, CODE, 16),
    Output(".data.rel.ro", read.PROGBITS, ALLOC | WRITE, RELRO),
    Output(".init_array", read.INIT_ARRAY, ALLOC | WRITE, RELRO, 8, 8),
    Output(".fini_array", read.FINI_ARRAY, ALLOC | WRITE, RELRO, 8, 8),
    Output(".dynamic", read.DYNAMIC, ALLOC | WRITE, RELRO, 8, 16),
    Output(".got", read.PROGBITS, ALLOC | WRITE, RELRO, 8, 8),
    Output(".relro_padding", NOBITS, ALLOC | WRITE, RELRO),
    Output(".data", read.PROGBITS, ALLOC | WRITE, DATA),
    Output(".bss", NOBITS, ALLOC | WRITE, DATA),
)


class Piece(NamedTuple):
    """Section `part` of object `owner`, at `offset` of its output section."""

    owner: int
    part: int
    section: Section
    offset: int

    @property
    def end(self) -> int:
        return self.offset + max(1, self.section.size)


# -- input sections -> output sections --

# .ctors and .dtors are the old form of the arrays, with the entries in reverse order.
ARRAYS = {".init_array": (".init_array", False), ".ctors": (".init_array", True),
          ".fini_array": (".fini_array", False), ".dtors": (".fini_array", True)}


def _array_of(name: str) -> tuple[str, bool, str] | None:
    """(output section, reversed, priority as written) of a section of constructors or destructors."""
    for prefix, (output, is_reversed) in ARRAYS.items():
        if name == prefix or name.startswith(prefix + "."):
            return output, is_reversed, name[len(prefix) + 1:]
    return None


def output_of(section: Section) -> str:
    """Name of the output section that an allocated input section goes to."""
    if array := _array_of(section.name):
        return array[0]
    if section.name == ".eh_frame":
        return ".eh_frame"
    if section.flags & EXEC:
        return ".text"
    if not section.flags & WRITE:
        return ".rodata"
    if section.kind == NOBITS:
        return ".bss"
    return ".data.rel.ro" if section.name.startswith((".data.rel.ro", ".rodata")) else ".data"


def gather(objects: Sequence[Object]) -> dict[str, list[Piece]]:
    """Pieces of each output section, with their offsets in it."""
    chosen: dict[str, list[tuple[int, int, int, Section]]] = {}
    for owner, item in enumerate(objects):
        # An empty function still needs an address: LLVM makes them of code that cannot be reached.
        named = {symbol.section for symbol in item.symbols if symbol.kind != read.SECTION}
        for part, section in enumerate(item.sections):
            if section.is_allocated and section.kind != read.NOTE and (section.size or part in named):
                name = output_of(section)
                priority, section = _as_array(section, item.label)
                if name != ".bss" and section.kind == NOBITS:
                    raise LinkError(f"link: {item.label}: section {section.name} has no contents, "
                                    f"but would go to {name}")
                chosen.setdefault(name, []).append((priority, owner, part, section))
    return {name: _packed(sorted(rows, key=lambda row: row[:3]), name) for name, rows in chosen.items()}


def _packed(rows: Sequence[tuple[int, int, int, Section]], name: str) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    for _, owner, part, section in rows:
        # Unwind records follow one another without gaps, because a gap would read as the end.
        at = at if name == ".eh_frame" else round_up(at, section.align)
        pieces.append(Piece(owner, part, section, at))
        at = pieces[-1].end
    return pieces


def _as_array(section: Section, label: str) -> tuple[int, Section]:
    """Priority of a section of constructors (low runs first), and the section in the order of the new form."""
    array = _array_of(section.name)
    if array is None:
        return 0, section
    where = f"link: {label}: section {section.name}"
    _, is_reversed, written = array
    if written and not written.isdecimal():
        raise LinkError(f"{where}: priority {written!r} is no number")
    if section.size % 8 or section.kind == NOBITS:
        raise LinkError(f"{where}: {section.size} bytes, expected entries of 8 bytes")
    priority = int(written[:9]) if written else 65535 if not is_reversed else 0
    if not is_reversed:
        return priority, section
    words = [section.data[at:at + 8] for at in range(0, section.size, 8)]
    moved = tuple(row._replace(offset=section.size - 8 - row.offset) for row in section.relocations)
    return 65535 - priority, replace(section, data=b"".join(reversed(words)), relocations=moved)


# -- output sections -> addresses --

def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def lay_out(sizes: Mapping[str, int], aligns: Mapping[str, int], page: int) -> list[Output]:
    """The output sections that have a size, with addresses and file offsets."""
    present = [replace(output, size=sizes.get(output.name, 0), align=max(output.align, aligns.get(output.name, 1)))
               for output in OUTPUTS if sizes.get(output.name) or output.name == ".relro_padding"]
    address = HEADER_SIZE + PROGRAM_HEADER_SIZE * program_headers(present)
    offset, segment = address, READ
    placed: list[Output] = []
    for output in present:
        if output.align > page:
            raise LinkError(f"link: {output.name}: alignment {output.align}, more than a page of {page}")
        if output.segment != segment:
            segment, address = output.segment, round_up(address, page) + offset % page
        start = round_up(address, output.align)
        size = -start % page if output.name == ".relro_padding" else output.size
        offset += start - address  # even where there are no contents: a segment may begin with .bss
        placed.append(replace(output, address=start, offset=offset, size=size))
        address = start + size
        offset += 0 if output.kind == NOBITS else size
    if address > MAX_ADDRESS:
        raise LinkError(f"link: the library would take {address} bytes of memory")
    return [output for output in placed if output.size]


def program_headers(sections: Sequence[Output]) -> int:
    """One per segment, one for unwinding, and those for notes, dynamic linking, stack and relocated read-only data."""
    return len({s.segment for s in sections}) + any(s.name == ".eh_frame_hdr" for s in sections) + 4
