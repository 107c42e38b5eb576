"""Relocations applied: slots and stubs counted before the layout, values put into the contents after it.

`scan` finds what the relocations ask for (slots of the global offset table, call stubs for imports, words that the
loader must complete), so that the layout knows all sizes.  `relocate` then puts the values into the contents and
returns what is left for the loader: rows of (place, type, row of the symbol table, addend).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .layout import Output, Piece
from .read import WRITE, LinkError, Object, Relocation
from .relocations import Architecture, Form, Rule, Subject, is_word, put, rule_of, value_of
from .resolve import IMPORTED, TABLE, Symbols, Target

SLOT_SIZE = 8

DynamicRow = tuple[int, int, int, int]


class Site(NamedTuple):
    """A relocation with all that is known of it before the layout; `where` names it in errors."""

    output: str
    piece: Piece
    row: Relocation
    rule: Rule
    target: Target
    where: str


class Demands(NamedTuple):
    """Slots by target and stubs by number of the import, numbered in order of first use."""

    slots: dict[Target, int]
    stubs: dict[int, int]
    dynamic_relocations: int
    uses_table: bool


def sites(objects: Sequence[Object], pieces: Mapping[str, Sequence[Piece]], symbols: Symbols,
          arch: Architecture) -> Iterator[Site]:
    """Every relocation of the pieces, checked for what can be checked without addresses."""
    for output, piece, row in ((o, p, r) for o, rows in pieces.items() for p in rows for r in p.section.relocations):
        if row.kind in arch.ignored:
            continue
        item = objects[piece.owner]
        where = f"{item.label}: {piece.section.name}+{row.offset:#x}"
        rule, name = rule_of(arch, row.kind, where), item.symbols[row.symbol].name
        where = f"{where}: {rule.name} to {name!r}"
        target = symbols.targets[piece.owner][row.symbol]
        if target is None:
            raise LinkError(f"link: {where}: symbol {row.symbol} has no address")
        if target.owner == IMPORTED and rule.subject is Subject.SYMBOL and not is_word(rule):
            raise LinkError(f"link: {where}: imported symbols are reached by calls, by the global offset table "
                            "or by a pointer in data, not by a distance")
        if is_word(rule) and not piece.section.flags & WRITE:
            raise LinkError(f"link: {where}: an address in a section that is read-only from the start "
                            "(constants with addresses belong in .data.rel.ro)")
        yield Site(output, piece, row, rule, target, where)


def scan(found: Sequence[Site]) -> Demands:
    """What the relocations need beside the sections themselves."""
    slots: dict[Target, int] = {}
    stubs: dict[int, int] = {}
    words, uses_table = 0, False
    for site in found:
        words += is_word(site.rule)
        uses_table |= site.rule.subject is Subject.TABLE or site.rule.form is Form.FROM_TABLE
        uses_table |= site.target.owner == TABLE
        is_stub = site.rule.subject is Subject.CALL and site.target.owner == IMPORTED
        if is_stub:
            stubs.setdefault(site.target.part, len(stubs))
        if is_stub or site.rule.subject is Subject.SLOT:
            slots.setdefault(site.target, len(slots))
    return Demands(slots, stubs, words + len(slots), uses_table)


@dataclass(frozen=True)
class Addresses:
    """Where everything came to lie; `pieces` by (owner, part), blobs included."""

    pieces: Mapping[tuple[int, int], int]
    demands: Demands
    table: int
    stubs: int
    stub_size: int

    def of(self, target: Target, where: str) -> int:
        if target.owner == TABLE:
            return self.table
        base = self.pieces.get((target.owner, target.part))
        if base is None:
            raise LinkError(f"link: {where}: the symbol is in section {target.part}, which is not part of the library")
        return base + target.value

    def slot(self, target: Target) -> int:
        return self.table + SLOT_SIZE * self.demands.slots[target]

    def subject(self, rule: Rule, target: Target, where: str) -> int:
        """The address that a rule starts from, before the addend."""
        if rule.subject is Subject.SLOT:
            return self.slot(target)
        if rule.subject is Subject.TABLE:
            return self.table
        if rule.subject is Subject.CALL and target.owner == IMPORTED:
            return self.stubs + self.stub_size * self.demands.stubs[target.part]
        return self.of(target, where)


def relocate(found: Sequence[Site], contents: Mapping[str, bytearray], sections: Mapping[str, Output],
             addresses: Addresses, arch: Architecture) -> list[DynamicRow]:
    """Patches `contents` in place."""
    left = [_slot_row(target, addresses, arch) for target in addresses.demands.slots]
    for site in found:
        at = site.piece.offset + site.row.offset
        if not 0 <= site.row.offset <= site.piece.section.size - site.rule.field.nbytes:
            raise LinkError(f"link: {site.where}: beyond the section's {site.piece.section.size} bytes")
        place = sections[site.output].address + at
        if is_word(site.rule):
            left.append(_word_row(site, place, addresses, arch))
            continue
        address = addresses.subject(site.rule, site.target, site.where) + site.row.addend
        value = value_of(site.rule.form, address, place, addresses.table)
        put(site.rule.field, contents[site.output], at, value, site.where)
    return left


def _slot_row(target: Target, addresses: Addresses, arch: Architecture) -> DynamicRow:
    if target.owner == IMPORTED:
        return addresses.slot(target), arch.glob_dat, 1 + target.part, 0
    return addresses.slot(target), arch.relative, 0, addresses.of(target, "global offset table")


def _word_row(site: Site, place: int, addresses: Addresses, arch: Architecture) -> DynamicRow:
    if site.target.owner == IMPORTED:
        return place, arch.word, 1 + site.target.part, site.row.addend
    value = addresses.of(site.target, site.where) + site.row.addend
    if not -1 << 63 <= value < 1 << 63:
        raise LinkError(f"link: {site.where}: the address {value:#x} does not fit 64 bits")
    return place, arch.relative, 0, value


def stub_contents(addresses: Addresses, arch: Architecture) -> bytearray:
    """The call stubs: each jumps to what its slot holds."""
    code = bytearray(arch.stub * len(addresses.demands.stubs))
    for part, k in addresses.demands.stubs.items():
        for offset, kind, addend in arch.stub_rules:
            rule, at = arch.rules[kind], k * addresses.stub_size + offset
            address = addresses.slot(Target(IMPORTED, part, 0)) + addend
            put(rule.field, code, at, value_of(rule.form, address, addresses.stubs + at, addresses.table), "call stub")
    return code
