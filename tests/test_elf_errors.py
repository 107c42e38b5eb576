"""What the linker refuses, and that corrupt objects give a LinkError and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
import random

import llvmlite.binding as llvm
import numpy as np
import pytest

from codegen.elf import LinkError, link
from codegen.elf.read import HEADER, RELA, SECTION_HEADER, SYMTAB, read_object
from codegen.elf.relocations import ARCHITECTURES
from codegen.target import target
from tests.elf_programs import FIRST, SECOND, compiled

REFUSED = [
    ("declare void @f()\ndeclare void @a()\ndefine void @g() { call void @f()\n call void @a()\n ret void }",
     "undefined symbols.*'a', 'f'"),
    ("define void @h() { ret void }", "exports that no object defines: 'g'"),
    ("$g = comdat any\ndefine void @g() comdat { ret void }", "COMDAT"),
    ("@t = thread_local global i32 0\ndefine ptr @g() { ret ptr @t }", "thread-local"),
    ("@c = common global i32 0\ndefine ptr @g() { ret ptr @c }", "common"),
    ('module asm ".section .rodata.mine,\\22a\\22"\nmodule asm ".quad g"\ndefine void @g() { ret void }',
     "object 0: .rodata.mine.*0x0: R_X86_64_64 to 'g': an address in a section that is read-only"),
    ("@w = external hidden global i32\ndefine ptr @g() { ret ptr @w }", "undefined symbols.*'w'"),
    ("@data = external hidden global i32\ndefine ptr @g() { ret ptr @data }", "imported symbols are reached by"),
    ("@i = ifunc void (), ptr @r\ndefine ptr @r() { ret ptr null }\ndefine void @g() { call void @i()\n ret void }",
     "indirect"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_refused_objects(text: str, why: str) -> None:
    with pytest.raises(LinkError, match=why):
        link([compiled(text)], exports=["g"], imports=["data"])


def test_refused_addresses_that_are_not_position_independent() -> None:
    chosen = target("x86-64-v2")
    module = llvm.parse_assembly(f'target triple = "{chosen.triple}"\n@t = internal global [9 x i32] zeroinitializer\n'
                                 "define ptr @g(i64 %i) { %p = getelementptr i32, ptr @t, i64 %i\n ret ptr %p }")
    made = llvm.Target.from_triple(chosen.triple).create_target_machine(reloc="static", codemodel="small")
    with pytest.raises(LinkError, match=r"R_X86_64_32S? is not position independent"):
        link([bytes(made.emit_object(module))], exports=["g"])


def test_refused_combinations() -> None:
    f = "define void @f() { ret void }"
    cases: Sequence[tuple[list[bytes], dict[str, object], str]] = (
        ([compiled(f), compiled(f)], {}, "'f' is defined in object 0 and object 1"),
        ([compiled(f), compiled(SECOND, "aarch64")], {}, "machines"), ([], {}, "0 objects"),
        ([compiled(f)], {"exports": ["f", "f"]}, "exported twice: 'f'"),
        ([compiled(f)], {"blobs": {"f": b"1"}}, "blobs that the objects also define: 'f'"),
        ([compiled(f)], {"blobs": {"b": np.zeros((4, 4))[:, 1]}}, "blob 'b': not contiguous"),
        ([compiled(f)], {"soname": ""}, "library name"), ([compiled(f)], {"needed": ["a\0b"]}, "library name"))
    for objects, options, why in cases:
        with pytest.raises(LinkError, match=why):
            link(objects, **{"exports": ["f"], **options})  # type: ignore[arg-type]


def test_tables_name_every_rule_once() -> None:
    for arch in ARCHITECTURES.values():
        names = [rule.name for rule in arch.rules.values()]
        assert len(set(names)) == len(names) and not set(arch.rules) & set(arch.refused)
        assert all(kind in arch.rules for _, kind, _ in arch.stub_rules)


# -- corrupt input --

def attempt(data: bytes) -> bool:
    """Whether the object links; anything but success or a LinkError fails the test."""
    try:
        link([data, compiled(SECOND)], exports=["triple"], blobs={"weights": b"1234", "more": b"12"})
    except LinkError as error:
        assert str(error).startswith("link: ")
        return False
    return True


def test_truncated_objects() -> None:
    whole = compiled(FIRST)
    assert attempt(whole)
    for length in {*range(0, 200), *range(200, len(whole), 37), len(whole) - 1}:
        assert not attempt(whole[:length]), length


@pytest.mark.parametrize("value", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_symbol_outside_its_section(value: int) -> None:
    data = bytearray(compiled(SECOND))
    at, count = HEADER.unpack_from(data)[6], HEADER.unpack_from(data)[12]
    table = next(row for row in SECTION_HEADER.iter_unpack(data[at:at + 64 * count]) if row[1] == SYMTAB)
    k = next(k for k, symbol in enumerate(read_object(bytes(data), "it").symbols) if symbol.name == "bump")
    data[table[4] + 24 * k + 8:table[4] + 24 * k + 16] = value.to_bytes(8, "little")
    with pytest.raises(LinkError, match=rf"'bump'\): at {value} of section .text"):
        link([bytes(data), compiled(FIRST)], exports=["bump"])


@pytest.mark.parametrize("name", ["x86-64-v2", "aarch64"])
def test_mutated_objects(name: str) -> None:
    whole, source = compiled(FIRST, name), random.Random(20)
    tables = _table_ranges(whole)
    outcomes = []
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(source.choice((1, 1, 2, 8))):
            start, end = source.choice(tables)
            at = source.randrange(start, end)
            changed[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        try:
            link([bytes(changed), compiled(SECOND, name)], exports=["triple"], blobs={"weights": b"1", "more": b"12"})
            outcomes.append(True)
        except LinkError as error:
            assert str(error).startswith("link: ")
            outcomes.append(False)
    assert outcomes.count(False) > 50 and outcomes.count(True) > 50


def _table_ranges(data: bytes) -> list[tuple[int, int]]:
    """Header, section headers, and symbol and relocation tables: where a change matters."""
    at, count = HEADER.unpack_from(data)[6], HEADER.unpack_from(data)[12]
    rows = [SECTION_HEADER.unpack_from(data, at + 64 * i) for i in range(count)]
    return [(0, 64), (at, at + 64 * count), *((row[4], row[4] + row[5]) for row in rows if row[1] in (2, RELA))]
