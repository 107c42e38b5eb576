"""The linker for aarch64: arithmetic on the instructions, and an emulator (`unicorn`) where there is one."""

from __future__ import annotations

import struct

import pytest

from codegen.elf import LinkError, link
from codegen.elf.read import HEADER, SECTION_HEADER, read_object
from codegen.elf.relocations import AARCH64, ADRP, BRANCH26, LOW12, WORD32, Field, put
from tests.elf_programs import LIBC, compiled, first_library


class Image:
    """Symbols and code of a linked library."""

    def __init__(self, data: bytes) -> None:
        at, count, names_at = HEADER.unpack_from(data)[6], *HEADER.unpack_from(data)[12:]
        self.data = data
        self.headers = [SECTION_HEADER.unpack_from(data, at + 64 * i) for i in range(count)]
        names = self.headers[names_at][4]
        self.sections = {self.string(names + header[0]): header for header in self.headers}
        symtab = self.sections[".symtab"]
        self.symbols: dict[str, int] = {}
        for k in range(symtab[5] // 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, symtab[4] + 24 * k)
            self.symbols.setdefault(self.string(self.sections[".strtab"][4] + name), value)

    def string(self, at: int) -> str:
        return self.data[at:self.data.index(b"\0", at)].decode()

    def words(self, address: int, count: int) -> tuple[int, ...]:
        header = next(h for h in self.headers if h[3] <= address < h[3] + h[5] and h[1] == 1)
        return struct.unpack_from(f"<{count}I", self.data, header[4] + address - header[3])

    def relocations(self) -> list[tuple[int, int, int]]:
        header = self.sections[".rela.dyn"]
        return list(struct.iter_unpack("<QQq", self.data[header[4]:header[4] + header[5]]))


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def page_of(word: int, place: int) -> int:
    """The page that an ADRP instruction at `place` computes."""
    assert word & 0x9F000000 == 0x90000000
    return (place & ~0xFFF) + (signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21) << 12)


def address_of(image: Image, name: str) -> int:
    """What ADRP and the ADD or 64-bit LDR after it compute at the start of a function."""
    place = image.symbols[name]
    page, low = image.words(place, 2)
    if low & 0xFFC00000 == 0x91000000:
        return page_of(page, place) + (low >> 10 & 0xFFF)
    assert low & 0xFFC00000 == 0xF9400000, hex(low)
    return page_of(page, place) + (low >> 10 & 0xFFF) * 8


def branches(image: Image, name: str, count: int) -> list[int]:
    """Where the branches and calls of a function go."""
    place = image.symbols[name]
    return [place + 4 * i + signed(word & 0x3FFFFFF, 26) * 4 for i, word in enumerate(image.words(place, count))
            if word >> 26 in (0b000101, 0b100101)]


def test_arm_addresses() -> None:
    image = Image(first_library("aarch64"))
    at = image.symbols
    assert address_of(image, "zero_array") == at["zeros"]
    assert address_of(image, "the_table") == at["table"]
    assert address_of(image, "the_weights") == at["weights"]
    assert address_of(image, "count") == at["pointer"]
    assert address_of(image, "zero_middle") == at["middle"]
    assert at["second"] in branches(image, "direct", 3)
    assert at["triple"] in branches(image, "second", 4)
    slot = address_of(image, "small")  # `more` may be elsewhere, so it is reached by the table
    values = {place: addend for place, info, addend in image.relocations() if info == AARCH64.relative}
    assert values[slot] == at["more"]
    assert [values[at["table"] + 8 * i] for i in range(3)] == [at["triple"], at["plus5"], at["second"]]
    assert values[at["pointer"]] == at["counter"] and values[at["middle"]] == at["zeros"] + 56
    arrays = image.sections[".init_array"]
    assert [values[arrays[3] + 8 * i] for i in range(3)] == [at["early"], at["last"], at["last2"]]
    assert {header[3] >> 16 for header in image.headers if header[2] & 4} & {
        header[3] >> 16 for header in image.headers if header[2] & 1} == set()


def test_arm_unwind_records_have_an_end() -> None:
    image = Image(first_library("aarch64"))
    frame, header = image.sections[".eh_frame"], image.sections[".eh_frame_hdr"]
    version, encoding, distance = struct.unpack_from("<BB2xi", image.data, header[4])
    assert (version, encoding, header[3] + 4 + distance) == (1, 0x1B, frame[3])
    at, records = frame[4], 0
    while length := struct.unpack_from("<I", image.data, at)[0]:
        at, records = at + 4 + length, records + 1
    assert at + 4 == frame[4] + frame[5] and records > 15


def test_arm_call_stubs() -> None:
    names = ["malloc", "memcpy", "free", "getenv"]
    image = Image(link([compiled(LIBC, "aarch64")], exports=["copy", "release"], imports=names))
    stub, = branches(image, "release", 3)
    adrp, load, jump, _ = image.words(stub, 4)
    slot = page_of(adrp, stub) + (load >> 10 & 0xFFF) * 8
    assert load & 0xFFC003FF == 0xF9400211 and jump == 0xD61F0220  # ldr x17, [x16, ...]; br x17
    dynsym, dynstr = image.sections[".dynsym"], image.sections[".dynstr"]
    info, = (info for place, info, _ in image.relocations() if place == slot)
    name_at, = struct.unpack_from("<I", image.data, dynsym[4] + 24 * (info >> 32))
    assert info & 0xFFFFFFFF == AARCH64.glob_dat and image.string(dynstr[4] + name_at) == "free"


def test_arm_code_runs_in_an_emulator() -> None:
    unicorn = pytest.importorskip("unicorn")
    arm64 = pytest.importorskip("unicorn.arm64_const")
    data = first_library("aarch64")
    image, base = Image(data), 0x10000000
    machine_ = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    machine_.mem_map(base, 1 << 20)
    machine_.mem_map(0x70000000, 1 << 16)  # stack
    for kind, _, offset, address, _, size, *_ in struct.iter_unpack("<IIQQQQQQ", data[64:64 + 56 * data[56]]):
        if kind == 1:
            machine_.mem_write(base + address, data[offset:offset + size])
    for place, info, addend in image.relocations():
        assert info == AARCH64.relative
        machine_.mem_write(base + place, struct.pack("<Q", base + addend))

    def call(name: str, *, x0: int = 0, d0: float = 0.0) -> tuple[int, float]:
        machine_.reg_write(arm64.UC_ARM64_REG_SP, 0x7000FF00)
        machine_.reg_write(arm64.UC_ARM64_REG_LR, 0x70000000)
        machine_.reg_write(arm64.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        machine_.reg_write(arm64.UC_ARM64_REG_X0, x0)
        machine_.reg_write(arm64.UC_ARM64_REG_D0, struct.unpack("<Q", struct.pack("<d", d0))[0])
        machine_.emu_start(base + image.symbols[name], 0x70000000, timeout=5_000_000)
        word = machine_.reg_read(arm64.UC_ARM64_REG_D0)
        return machine_.reg_read(arm64.UC_ARM64_REG_X0), struct.unpack("<d", struct.pack("<Q", word))[0]

    for name in ("early", "last", "last2"):
        call(name)
    assert call("count")[0] == 21
    assert [call("via_table", x0=i, d0=2.0)[1] for i in range(3)] == [6.0, 7.0, 600.0]
    assert [call("number", x0=i)[1] for i in range(4)] == [1.5, 2.5, 3.5, 4.5]
    assert call("direct", d0=2.0)[1] == 600.0
    assert [call("choose", x0=i)[0] for i in range(6)] == [300, 7, 21, 1, 55, 0xFFFFFFFF]
    assert [call("small", x0=i)[0] for i in (0, 99)] == [0, 99]
    assert machine_.mem_read(call("hello")[0], 6) == b"hello\0"


@pytest.mark.parametrize(("field", "word", "value", "expected"), [
    (WORD32, 0, -2, 0xFFFFFFFE), (BRANCH26, 0x94000000, 8, 0x94000002), (BRANCH26, 0x94000000, -4, 0x97FFFFFF),
    (BRANCH26, 0x94000000, (1 << 27) - 4, 0x95FFFFFF), (ADRP, 0x90000010, 0x5000, 0xB0000030),
    (ADRP, 0x90000010, -0x1000, 0xF0FFFFF0), (LOW12[0], 0x91000000, 0x12345, 0x910D1400),
    (LOW12[3], 0xF9400000, 0x12348, 0xF941A400), (LOW12[4], 0x3DC00000, 0xFFF0, 0x3DC3FC00)])
def test_fields(field: Field, word: int, value: int, expected: int) -> None:
    code = bytearray(word.to_bytes(4, "little"))
    put(field, code, 0, value, "here")
    assert hex(int.from_bytes(code, "little")) == hex(expected)


@pytest.mark.parametrize(("field", "value", "why"), [
    (WORD32, 1 << 31, "does not fit 32 bits"), (BRANCH26, 1 << 27, "does not fit 26 bits in units of 4"),
    (BRANCH26, 2, "no multiple of 4"), (ADRP, 1 << 32, "does not fit 21 bits"), (LOW12[3], 4, "no multiple of 8")])
def test_values_that_do_not_fit(field: Field, value: int, why: str) -> None:
    with pytest.raises(LinkError, match=why):
        put(field, bytearray(4), 0, value, "here")


def test_call_too_far_for_arm() -> None:
    far = compiled('define void @far() section ".text" { ret void }', "aarch64")
    pad = f'@pad = hidden constant [{130 << 20} x i8] zeroinitializer, section ".text.pad"'
    call = "declare void @far()\ndefine i32 @near() { call void @far()\n ret i32 0 }"
    big = _as_code(compiled(pad.replace(str(130 << 20), "64"), "aarch64"), 130 << 20)
    with pytest.raises(LinkError, match=r"CALL26 to 'far'.*does not fit 26 bits"):
        link([compiled(call, "aarch64"), big, far], exports=["near"])


def _as_code(data: bytes, size: int) -> bytes:
    """The object with its section .text.pad made executable and so many zeros long."""
    changed = bytearray(data)
    parsed = read_object(data, "object")
    index = next(i for i, section in enumerate(parsed.sections) if section.name == ".text.pad")
    at = HEADER.unpack_from(data)[6] + 64 * index
    row = list(SECTION_HEADER.unpack_from(data, at))
    row[2], row[4], row[5] = 6, len(data), size
    SECTION_HEADER.pack_into(changed, at, *row)
    return bytes(changed) + bytes(size)
