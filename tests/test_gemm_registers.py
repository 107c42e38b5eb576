"""Micro-kernels as machine code: everything in the loop over k stays in registers, and each machine's form is used."""

from __future__ import annotations

import re

import pytest

from codegen.gemm.blocking import most_rows
from codegen.gemm.tile import Tile, tile_function
from codegen.jit import assembly_text
from codegen.target import target
from codegen.text import Function, Module


def loop_of(name: str, rows: int, vectors: int, *, by_columns: bool) -> str:
    """The assembly of the loop over k."""
    chosen, module = target(name), Module()
    lanes = chosen.lanes(32)
    tile = tile_function(module, chosen, Tile(rows, vectors, lanes, "float", by_columns, vectors * lanes, 16))
    function = Function(module, "define void @entry(ptr %a, ptr %b, ptr %c, i64 %n) #0")
    function.emit(f"call fastcc void @{tile}(ptr %a, i64 %n, ptr %b, i64 %n, ptr %c, i64 %n, i1 false)")
    function.emit("ret void")
    module.add("entry", function.text())
    blocks = re.split(r"^\.LBB\w+:", assembly_text(module.text(), chosen).split("\nentry:")[0], flags=re.M)
    return max(blocks, key=lambda block: len(re.findall("fmadd|fmla", block)))


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "aarch64"])
@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("by_columns", [False, True])
def test_no_accumulator_leaves_its_register(name: str, vectors: int, by_columns: bool) -> None:
    rows = most_rows(target(name), vectors)
    loop = loop_of(name, rows, vectors, by_columns=by_columns)
    assert len(re.findall("fmadd|fmla", loop)) == 2 * rows * vectors
    assert not re.search(r"(ymm|zmm)\d+.*\(%rsp\)|\(%rsp\).*(ymm|zmm)\d+|\b[qd]\d+, .*\[sp", loop), loop


def test_arm_multiplies_by_a_lane() -> None:
    assert re.search(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", loop_of("aarch64", 8, 2, by_columns=True))
