"""Dylibs and DLLs as memory that any system can map: what a loader would do to them, at an address of our choice.

Libraries of ours call nothing, so their code runs wherever the processor is the right one, whoever made the file for
what system: macOS calls as Linux does, and compilers here can call as Windows does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import struct

BASE = 1 << 36  # far from what programs here have


@dataclass(frozen=True)
class Flat:
    """Memory from `BASE` on, and the addresses of what can be called."""

    memory: bytearray
    exports: dict[str, int]


def flat(data: bytes) -> Flat:
    return flat_pe(data) if data[:2] == b"MZ" else flat_macho(data)


def shift(memory: bytearray, at: int, distance: int) -> None:
    """A pointer that the file has for another address."""
    value, = struct.unpack_from("<Q", memory, at)
    struct.pack_into("<Q", memory, at, value + distance)


def text_at(data: bytes | bytearray, at: int) -> str:
    return data[at:data.index(b"\0", at)].decode()


# -- Windows (PE format specification) --
def flat_pe(data: bytes) -> Flat:
    header = struct.unpack_from("<I", data, 0x3C)[0] + 24
    count, optional = struct.unpack_from("<HxxxxxxxxxxxxH", data, header - 18)
    prefers, = struct.unpack_from("<Q", data, header + 24)
    memory = bytearray(struct.unpack_from("<I", data, header + 56)[0])
    for k in range(count):
        size, start, stored, raw = struct.unpack_from("<8x4I", data, header + optional + 40 * k)
        memory[start:start + min(size, stored)] = data[raw:raw + min(size, stored)]
    places = [struct.unpack_from("<2I", data, header + 112 + 8 * k) for k in range(6)]
    at, end = places[5][0], sum(places[5])
    while at < end:
        page, size = struct.unpack_from("<2I", memory, at)
        for entry in struct.unpack_from(f"<{(size - 8) // 2}H", memory, at + 8):
            assert entry >> 12 in (0, 10), entry
            if entry >> 12:
                shift(memory, page + (entry & 0xFFF), BASE - prefers)
        at += size
    n, functions, names, ordinals = struct.unpack_from("<4I", memory, places[0][0] + 24)
    found = {}
    for k in range(n):
        ordinal, = struct.unpack_from("<H", memory, ordinals + 2 * k)
        address, = struct.unpack_from("<I", memory, functions + 4 * ordinal)
        found[text_at(memory, struct.unpack_from("<I", memory, names + 4 * k)[0])] = BASE + address
    return Flat(memory, found)


# -- macOS (mach-o/loader.h of XNU) --
def flat_macho(data: bytes) -> Flat:
    segments, memory, tables = [], bytearray(), (0,) * 10
    for command, at in commands(data):
        if command == 0x19:
            start, size, raw, stored = struct.unpack_from("<4Q", data, at + 24)
            segments.append(start)
            memory += bytes(max(0, start + size - len(memory)))
            memory[start:start + stored] = data[raw:raw + stored]
        if command in (0x22, 0x80000022):
            tables = struct.unpack_from("<10I", data, at + 8)
    rebase, size = tables[:2]
    for at in rebased(data[rebase:rebase + size], segments):
        shift(memory, at, BASE)
    start, size = tables[8:]
    return Flat(memory, {name[1:]: BASE + address for name, address in exported(data[start:start + size])})


def commands(data: bytes) -> Iterator[tuple[int, int]]:
    """The load commands: kind and place of each."""
    magic, _, _, kind, count, _ = struct.unpack_from("<6I", data)
    assert magic == 0xFEEDFACF and kind == 6
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, at)
        yield command, at
        at += size


def rebased(code: bytes, segments: list[int]) -> Iterator[int]:
    """Where pointers are, by the opcodes of a rebase table."""
    at = place = 0
    while at < len(code):
        kind, few = code[at] & 0xF0, code[at] & 0xF
        at += 1
        count = between = 0
        if kind == 0:
            return
        if kind == 0x20:
            offset, at = number_at(code, at)
            place = segments[few] + offset
        elif kind == 0x30:
            offset, at = number_at(code, at)
            place += offset
        elif kind == 0x40:
            place += 8 * few
        elif kind == 0x50:
            count = few
        elif kind == 0x60:
            count, at = number_at(code, at)
        elif kind == 0x70:
            count = 1
            between, at = number_at(code, at)
        elif kind == 0x80:
            count, at = number_at(code, at)
            between, at = number_at(code, at)
        else:
            assert kind == 0x10 and few == 1, "only pointers are moved"
        for _ in range(count):
            yield place
            place += 8 + between


def exported(trie: bytes, at: int = 0, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Names and addresses.  A node: the length of what is said of the name so far, that, edges of a text and a node."""
    length, at = number_at(trie, at)
    if length:
        _, after = number_at(trie, at)
        yield prefix, number_at(trie, after)[0]
    at += length
    edges, at = trie[at], at + 1
    for _ in range(edges):
        text = text_at(trie, at)
        place, at = number_at(trie, at + len(text) + 1)
        yield from exported(trie, place, prefix + text)


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """A number in ULEB128, and what comes after it."""
    value = bits = 0
    while True:
        value |= (data[at] & 127) << bits
        at, bits = at + 1, bits + 7
        if not data[at - 1] & 128:
            return value, at
