"""What relocation types mean, as one table per architecture, and how their values are put into code and data.

A `Rule` is read as: take the address of the `subject` (the symbol, its slot in the global offset table, its call
stub, or the table itself), add the addend, make it relative by `form`, and put the result into `field`.  The names
in the ABI documents: subject SYMBOL is S, CALL is L (or S where the symbol is ours), SLOT is G, TABLE is GOT; the
place that is patched is P.

The only rules that leave work to the dynamic loader have the form ADDRESS on a whole 64-bit word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
import struct
from typing import NamedTuple

from .read import LinkError


class Subject(Enum):
    SYMBOL = "symbol"
    CALL = "call"
    SLOT = "slot"
    TABLE = "table"


class Form(Enum):
    ADDRESS = "S+A"
    FROM_PLACE = "S+A-P"
    FROM_TABLE = "S+A-GOT"
    PAGES = "Page(S+A)-Page(P)"


class Field(NamedTuple):
    """`bits` bits, taken from bit `shift` of the value, stored from bit `low` of a word of `nbytes`.

    `checked`: the value must fit as a signed number.  `split`: the two lowest bits go to bit 29 instead (ADR, ADRP).
    """

    nbytes: int
    bits: int
    shift: int = 0
    low: int = 0
    checked: bool = True
    split: bool = False


WORD64 = Field(8, 64)
WORD32 = Field(4, 32)
BRANCH26 = Field(4, 26, shift=2)
BRANCH19 = Field(4, 19, shift=2, low=5)
BRANCH14 = Field(4, 14, shift=2, low=5)
ADR = Field(4, 21, low=5, split=True)
ADRP = Field(4, 21, shift=12, low=5, split=True)
LOW12 = tuple(Field(4, 12 - scale, shift=scale, low=10, checked=False) for scale in range(5))


class Rule(NamedTuple):
    name: str
    subject: Subject
    form: Form
    field: Field


@dataclass(frozen=True)
class Architecture:
    """What the linker must know of a machine."""

    name: str
    machine: int
    page: int  # largest page size that a system may have
    code_fill: bytes  # between functions of different objects: traps
    stub: bytes  # call stub, to be completed by `stub_rules` at its offsets, on the symbol's slot
    stub_rules: tuple[tuple[int, int, int], ...]  # (offset in the stub, relocation type, addend)
    ignored: tuple[int, ...]
    rules: Mapping[int, Rule]
    refused: Mapping[int, str]
    debug_fields: Mapping[int, Field]  # types that say S+A in sections for debuggers, which are not loaded
    relative: int  # types of the dynamic relocations
    glob_dat: int
    word: int


S, L, G, T = Subject.SYMBOL, Subject.CALL, Subject.SLOT, Subject.TABLE
STATIC = "is not position independent (make the object with reloc='pic')"
THREAD = "is thread-local storage, which is not linked"

X86_64 = Architecture(
    name="x86_64", machine=62, page=4096, code_fill=b"\xcc",
    stub=bytes.fromhex("ff 25 00 00 00 00 66 90"),  # jmp *slot(%rip); nop
    stub_rules=((2, 9, -4),), ignored=(0,), debug_fields={1: WORD64, 10: WORD32}, relative=8, glob_dat=6, word=1,
    rules={
        1: Rule("R_X86_64_64", S, Form.ADDRESS, WORD64),
        2: Rule("R_X86_64_PC32", S, Form.FROM_PLACE, WORD32),
        4: Rule("R_X86_64_PLT32", L, Form.FROM_PLACE, WORD32),
        9: Rule("R_X86_64_GOTPCREL", G, Form.FROM_PLACE, WORD32),
        24: Rule("R_X86_64_PC64", S, Form.FROM_PLACE, WORD64),
        25: Rule("R_X86_64_GOTOFF64", S, Form.FROM_TABLE, WORD64),
        26: Rule("R_X86_64_GOTPC32", T, Form.FROM_PLACE, WORD32),
        27: Rule("R_X86_64_GOT64", G, Form.FROM_TABLE, WORD64),
        28: Rule("R_X86_64_GOTPCREL64", G, Form.FROM_PLACE, WORD64),
        29: Rule("R_X86_64_GOTPC64", T, Form.FROM_PLACE, WORD64),
        31: Rule("R_X86_64_PLTOFF64", L, Form.FROM_TABLE, WORD64),
        41: Rule("R_X86_64_GOTPCRELX", G, Form.FROM_PLACE, WORD32),
        42: Rule("R_X86_64_REX_GOTPCRELX", G, Form.FROM_PLACE, WORD32),
        43: Rule("R_X86_64_CODE_4_GOTPCRELX", G, Form.FROM_PLACE, WORD32),
    },
    refused={10: f"R_X86_64_32 {STATIC}", 11: f"R_X86_64_32S {STATIC}", 12: f"R_X86_64_16 {STATIC}",
             14: f"R_X86_64_8 {STATIC}", 19: f"R_X86_64_TLSGD {THREAD}", 20: f"R_X86_64_TLSLD {THREAD}",
             21: f"R_X86_64_DTPOFF32 {THREAD}", 22: f"R_X86_64_GOTTPOFF {THREAD}", 23: f"R_X86_64_TPOFF32 {THREAD}"})

AARCH64 = Architecture(
    name="aarch64", machine=183, page=65536, code_fill=b"\0",
    # adrp x16, slot; ldr x17, [x16, :lo12:slot]; br x17; nop
    stub=struct.pack("<4I", 0x90000010, 0xF9400211, 0xD61F0220, 0xD503201F),
    stub_rules=((0, 311, 0), (4, 312, 0)), ignored=(0, 256), debug_fields={257: WORD64, 258: WORD32},
    relative=1027, glob_dat=1025, word=257,
    rules={
        257: Rule("R_AARCH64_ABS64", S, Form.ADDRESS, WORD64),
        260: Rule("R_AARCH64_PREL64", S, Form.FROM_PLACE, WORD64),
        261: Rule("R_AARCH64_PREL32", S, Form.FROM_PLACE, WORD32),
        273: Rule("R_AARCH64_LD_PREL_LO19", S, Form.FROM_PLACE, BRANCH19),
        274: Rule("R_AARCH64_ADR_PREL_LO21", S, Form.FROM_PLACE, ADR),
        275: Rule("R_AARCH64_ADR_PREL_PG_HI21", S, Form.PAGES, ADRP),
        276: Rule("R_AARCH64_ADR_PREL_PG_HI21_NC", S, Form.PAGES, ADRP._replace(checked=False)),
        277: Rule("R_AARCH64_ADD_ABS_LO12_NC", S, Form.ADDRESS, LOW12[0]),
        278: Rule("R_AARCH64_LDST8_ABS_LO12_NC", S, Form.ADDRESS, LOW12[0]),
        279: Rule("R_AARCH64_TSTBR14", L, Form.FROM_PLACE, BRANCH14),
        280: Rule("R_AARCH64_CONDBR19", L, Form.FROM_PLACE, BRANCH19),
        282: Rule("R_AARCH64_JUMP26", L, Form.FROM_PLACE, BRANCH26),
        283: Rule("R_AARCH64_CALL26", L, Form.FROM_PLACE, BRANCH26),
        284: Rule("R_AARCH64_LDST16_ABS_LO12_NC", S, Form.ADDRESS, LOW12[1]),
        285: Rule("R_AARCH64_LDST32_ABS_LO12_NC", S, Form.ADDRESS, LOW12[2]),
        286: Rule("R_AARCH64_LDST64_ABS_LO12_NC", S, Form.ADDRESS, LOW12[3]),
        299: Rule("R_AARCH64_LDST128_ABS_LO12_NC", S, Form.ADDRESS, LOW12[4]),
        311: Rule("R_AARCH64_ADR_GOT_PAGE", G, Form.PAGES, ADRP),
        312: Rule("R_AARCH64_LD64_GOT_LO12_NC", G, Form.ADDRESS, LOW12[3]),
        314: Rule("R_AARCH64_PLT32", L, Form.FROM_PLACE, WORD32),
    },
    refused={258: f"R_AARCH64_ABS32 {STATIC}", 259: f"R_AARCH64_ABS16 {STATIC}",
             **{kind: f"R_AARCH64_MOVW_* ({kind}) {STATIC}" for kind in range(263, 273)},
             **{kind: f"R_AARCH64_TLS* ({kind}) {THREAD}" for kind in range(512, 574)}})

ARCHITECTURES = {arch.machine: arch for arch in (X86_64, AARCH64)}


def rule_of(arch: Architecture, kind: int, where: str) -> Rule:
    """The rule of a relocation type; a LinkError says why there is none."""
    rule = arch.rules.get(kind)
    if rule is None:
        why = arch.refused.get(kind, f"{arch.name} relocation type {kind} is not known to this linker")
        raise LinkError(f"link: {where}: {why}")
    return rule


def is_word(rule: Rule) -> bool:
    """True where the dynamic loader must add the load address."""
    return rule.form is Form.ADDRESS and rule.field is WORD64


def value_of(form: Form, address: int, place: int, table: int) -> int:
    """The value to store; `address` already has the addend in it."""
    match form:
        case Form.ADDRESS:
            return address
        case Form.FROM_PLACE:
            return address - place
        case Form.FROM_TABLE:
            return address - table
        case Form.PAGES:
            return (address & ~0xFFF) - (place & ~0xFFF)


def put(field: Field, code: bytearray, at: int, value: int, where: str) -> None:
    """Stores `value` into the field at byte `at` of `code`."""
    if not 0 <= at <= len(code) - field.nbytes:
        raise LinkError(f"link: {where}: patches bytes {at}..{at + field.nbytes} of {len(code)}")
    if not field.checked:
        value &= (1 << (field.bits + field.shift)) - 1
    if value & ((1 << field.shift) - 1):
        raise LinkError(f"link: {where}: the value {value:#x} is no multiple of {1 << field.shift}")
    scaled, half = value >> field.shift, 1 << (field.bits - 1)
    if field.checked and not -half <= scaled < half:
        raise LinkError(f"link: {where}: the distance {value} does not fit {field.bits} bits"
                        f"{f' in units of {1 << field.shift} bytes' if field.shift else ''}")
    word = int.from_bytes(code[at:at + field.nbytes], "little")
    word = _insert_split(word, scaled) if field.split else _insert(word, scaled, field.low, field.bits)
    code[at:at + field.nbytes] = word.to_bytes(field.nbytes, "little")


def _insert(word: int, value: int, low: int, bits: int) -> int:
    mask = (1 << bits) - 1
    return word & ~(mask << low) | (value & mask) << low


def _insert_split(word: int, value: int) -> int:
    return _insert(_insert(word, value, 29, 2), value >> 2, 5, 19)
