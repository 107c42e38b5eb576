"""A zip of stored members: written in one go, and read with every length checked against the file before it is used.

    local header, name, data      for each member, one right after the other from byte 0
    central directory             an entry per member, the same facts again
    end                           at the very end of the file, no comment; beyond 4 GiB with the zip64 forms

The reader takes exactly that.  Because members are stored (not compressed) and tile the file, nothing read from one can
be larger than the file itself.  Sizes are little-endian; PKWARE's APPNOTE has the layouts.

    `Archive` gives parts of members; who reads a member compares its checksum with `Member.crc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import os
import re
import stat
import struct
from typing import BinaryIO, NoReturn
import zlib

from ..ir.errors import GraphError
from ..ir.files import Chunk, write_whole

LOCAL = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, crc, stored, size, name, extra
ENTRY = struct.Struct("<4s6H3I5H2I")  # .. made by, version, flags, .., name, extra, comment, disk, inner, outer, offset
END = struct.Struct("<4s4H2IH")  # signature, disk, disk, entries here, entries, nbytes, offset, comment
END64 = struct.Struct("<4sQ2H2I4Q")  # signature, size, made by, version, disk, disk, entries, entries, nbytes, offset
LOCATOR64 = struct.Struct("<4sIQI")  # signature, disk, offset, disks
SIZES64 = struct.Struct("<2H2Q")  # the extra field of a local header: id, length, size, stored
PLACES64 = struct.Struct("<2H3Q")  # of an entry: id, length, size, stored, offset

UTF8 = 0x800  # the flag for names in UTF-8
DATE = 0x21  # 1980-01-01: equal contents give equal files
FULL = 0xFFFFFFFF  # "see the zip64 form"
MOST_MEMBERS = 64
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # no folder, no dot file


@dataclass(frozen=True)
class Member:
    """Where the data of a member lies."""

    name: str
    start: int
    nbytes: int
    crc: int


# -- writing --
def write_archive(path: str | os.PathLike[str], members: Mapping[str, Sequence[Chunk]]) -> None:
    """A zip with these members, each given as pieces of its data."""
    write_whole(path, _pieces(members))


def _pieces(members: Mapping[str, Sequence[Chunk]]) -> Iterator[Chunk]:
    entries, position = [], 0
    for name, data in members.items():
        nbytes, crc = sum(memoryview(piece).nbytes for piece in data), _crc(data)
        head = LOCAL.pack(b"PK\3\4", 45, UTF8, 0, 0, DATE, crc, FULL, FULL, len(name), SIZES64.size)
        yield head + name.encode("ascii") + SIZES64.pack(1, SIZES64.size - 4, nbytes, nbytes)
        entry = ENTRY.pack(b"PK\1\2", 45, 45, UTF8, 0, 0, DATE, crc, FULL, FULL, len(name), PLACES64.size,
                           0, 0, 0, 0, FULL)
        entries.append(entry + name.encode("ascii") + PLACES64.pack(1, PLACES64.size - 4, nbytes, nbytes, position))
        yield from data
        position += LOCAL.size + len(name) + SIZES64.size + nbytes
    directory = b"".join(entries)
    count, after = len(entries), position + len(directory)
    yield directory
    yield END64.pack(b"PK\6\6", END64.size - 12, 45, 45, 0, 0, count, count, len(directory), position)
    yield LOCATOR64.pack(b"PK\6\7", 0, after, 1)
    yield END.pack(b"PK\5\6", 0, 0, count, count, min(len(directory), FULL), min(position, FULL), 0)


def _crc(data: Iterable[Chunk]) -> int:
    crc = 0
    for piece in data:
        crc = zlib.crc32(piece, crc)
    return crc


# -- reading --
class Archive:
    """An open zip and its members by name.  Every fault of the file goes through `refuse`."""

    def __init__(self, path: str, file: BinaryIO, nbytes: int) -> None:
        self.path, self.file, self.nbytes = path, file, nbytes
        self.members: dict[str, Member] = {}

    def refuse(self, fault: str) -> NoReturn:
        raise GraphError(f"{self.path!r}: {fault}")

    def member(self, name: str) -> Member:
        """The member of that name."""
        if name not in self.members:
            self.refuse(f"there is no member {name!r}, only {', '.join(self.members) or 'nothing'}")
        return self.members[name]

    def read(self, start: int, nbytes: int) -> bytes:
        """Bytes of the file that must be there."""
        self._check_range(start, nbytes)
        self.file.seek(start)
        data = self.file.read(nbytes)
        if len(data) != nbytes:
            self.refuse(f"the file became shorter while it was read (at byte {start + len(data)})")
        return data

    def read_into(self, start: int, room: memoryview) -> None:
        """Fills the room with bytes of the file that must be there."""
        self._check_range(start, room.nbytes)
        self.file.seek(start)
        if self.file.readinto(room) != room.nbytes:  # type: ignore[attr-defined]
            self.refuse(f"the file became shorter while it was read (at byte {start})")

    def whole(self, name: str) -> bytes:
        """All data of a member, with its checksum compared."""
        member = self.member(name)
        data = self.read(member.start, member.nbytes)
        self.check_crc(member, zlib.crc32(data))
        return data

    def check_crc(self, member: Member, crc: int) -> None:
        if crc != member.crc:
            self.refuse(f"member {member.name!r} is damaged: its checksum is {crc:08x}, not {member.crc:08x}")

    def _check_range(self, start: int, nbytes: int) -> None:
        if start < 0 or nbytes < 0 or start + nbytes > self.nbytes:
            self.refuse(f"bytes {start} to {start + nbytes} were asked for and the file has {self.nbytes}")


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """The archive at `path`, which must be an ordinary file; its layout is checked as a whole."""
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # opening a pipe would wait, and a device has no end
            raise GraphError(f"{name!r}: not an ordinary file")
        file = open(name, "rb")
    except (OSError, ValueError) as fault:  # ValueError: a path with a zero byte, and GraphError
        raise GraphError(str(fault) if isinstance(fault, GraphError) else
                         f"{name!r}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from None
    with file:
        archive = Archive(name, file, os.fstat(file.fileno()).st_size)
        start, nbytes, count = _directory_place(archive)
        archive.members = _members(archive, start, nbytes, count)
        yield archive


def _directory_place(archive: Archive) -> tuple[int, int, int]:
    """Start, length and number of entries of the central directory, which must end where the end record begins."""
    if archive.nbytes < END.size:
        archive.refuse(f"{archive.nbytes} bytes are too few for a zip file")
    end = archive.nbytes - END.size
    signature, disk, first_disk, here, count, nbytes, start, comment = END.unpack(archive.read(end, END.size))
    if signature != b"PK\5\6" or comment:
        archive.refuse("no zip file, or one that is cut short: the end record is not at the end")
    if end >= LOCATOR64.size and archive.read(end - LOCATOR64.size, 4) == b"PK\6\7":
        end, here, count, nbytes, start = _end64(archive, end - LOCATOR64.size, (count, nbytes, start))
    if disk or first_disk or here != count or start + nbytes != end:
        archive.refuse(f"the zip directory (byte {start}, {nbytes} bytes, {count} entries) does not end at byte {end}")
    if count > MOST_MEMBERS:
        archive.refuse(f"the zip file has {count} members; {MOST_MEMBERS} is the most")
    return start, nbytes, count


def _end64(archive: Archive, locator: int, short: tuple[int, int, int]) -> tuple[int, int, int, int, int]:
    """Place of the zip64 end record, and its counts; the short record must say the same or refer to it."""
    _, disk, place, disks = LOCATOR64.unpack(archive.read(locator, LOCATOR64.size))
    if disk or disks != 1 or place != locator - END64.size:
        archive.refuse(f"the zip64 end record is said to be at byte {place}, not {locator - END64.size}")
    signature, size, _, _, disk, first, here, count, nbytes, start = END64.unpack(archive.read(place, END64.size))
    if signature != b"PK\6\6" or size != END64.size - 12 or disk or first:
        archive.refuse(f"the zip64 end record at byte {place} is damaged")
    whole = zip(short, (count, nbytes, start), (0xFFFF, FULL, FULL), strict=True)
    if any(a not in (b, limit) for a, b, limit in whole):
        archive.refuse("the two end records of the zip file differ")
    return place, here, count, nbytes, start


def _members(archive: Archive, start: int, nbytes: int, count: int) -> dict[str, Member]:
    """The members, which must tile the file from its first byte to the directory."""
    directory = archive.read(start, nbytes)
    members: dict[str, Member] = {}
    place = expected = 0
    for _ in range(count):
        place, offset, member = _entry(archive, directory, place)
        if member.name in members:
            archive.refuse(f"two members are named {member.name!r}")
        if offset != expected:
            archive.refuse(f"member {member.name!r} begins at byte {offset}, not at {expected}")
        member = _located(archive, offset, member)
        members[member.name] = member
        expected = member.start + member.nbytes
    if place != nbytes or expected != start:
        archive.refuse(f"members end at byte {expected} of {start}, their directory at {place} of {nbytes}")
    return members


def _entry(archive: Archive, directory: bytes, place: int) -> tuple[int, int, Member]:
    """Reads one directory entry: the place after it, where the local header begins, the member without its place."""
    if place + ENTRY.size > len(directory):
        archive.refuse("the zip directory is cut short")
    (signature, _, _, flags, method, _, _, crc, stored, size, name_nbytes, extra_nbytes, comment_nbytes, disk, _, _,
     offset) = ENTRY.unpack_from(directory, place)
    head = place + ENTRY.size
    after = head + name_nbytes + extra_nbytes + comment_nbytes
    if signature != b"PK\1\2" or after > len(directory):
        archive.refuse(f"the zip directory is damaged at byte {place}")
    name = _name(archive, directory[head:head + name_nbytes])
    _check_form(archive, name, flags, method)
    extra = directory[head + name_nbytes:head + name_nbytes + extra_nbytes]
    size, stored, offset = _long_forms(archive, name, extra, (size, stored, offset))
    if disk or stored != size:
        archive.refuse(f"member {name!r} holds {stored} bytes for a size of {size}")
    return after, offset, Member(name, 0, size, crc)


def _located(archive: Archive, offset: int, member: Member) -> Member:
    """The member with the place of its data, after its local header has been compared with the directory."""
    (signature, _, flags, method, _, _, crc, stored, size, name_nbytes, extra_nbytes) = LOCAL.unpack(
        archive.read(offset, LOCAL.size))
    if signature != b"PK\3\4":
        archive.refuse(f"member {member.name!r} has no header at byte {offset}")
    _check_form(archive, member.name, flags, method)
    head = archive.read(offset + LOCAL.size, name_nbytes + extra_nbytes)
    size, stored = _long_forms(archive, member.name, head[name_nbytes:], (size, stored))
    facts = (member.name.encode("ascii"), member.nbytes, member.nbytes, member.crc)
    if (head[:name_nbytes], size, stored, crc) != facts:
        archive.refuse(f"the header of member {member.name!r} differs from the zip directory")
    start = offset + LOCAL.size + len(head)
    if start + member.nbytes > archive.nbytes:
        archive.refuse(f"member {member.name!r} of {member.nbytes} bytes goes beyond the end of the file")
    return Member(member.name, start, member.nbytes, crc)


def _name(archive: Archive, raw: bytes) -> str:
    name = raw.decode("ascii", errors="backslashreplace")
    if not NAME.fullmatch(name):
        archive.refuse(f"a member is named {name[:200]!r}; names are plain, without folders")
    return name


def _check_form(archive: Archive, name: str, flags: int, method: int) -> None:
    if method:
        archive.refuse(f"member {name!r} is compressed (method {method}); members are stored as they are")
    if flags & ~UTF8:
        archive.refuse(f"member {name!r} is encrypted or streamed (flags {flags:#x})")


def _long_forms(archive: Archive, name: str, extra: bytes, short: tuple[int, ...]) -> list[int]:
    """The sizes, with those that say "see the zip64 form" taken from the extra field."""
    place = 0
    wide = b""
    while place < len(extra):
        if place + 4 > len(extra):
            archive.refuse(f"member {name!r}: an extra field is cut short")
        kind, nbytes = struct.unpack_from("<2H", extra, place)
        if place + 4 + nbytes > len(extra):
            archive.refuse(f"member {name!r}: an extra field is cut short")
        wide = extra[place + 4:place + 4 + nbytes] if kind == 1 else wide
        place += 4 + nbytes
    found = []
    for value in short:
        if value == FULL:
            if len(wide) < 8:
                archive.refuse(f"member {name!r}: its zip64 sizes are missing")
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(value)
    return found
