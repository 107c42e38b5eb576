"""Straight-line programs with every buffer and the arena between pages that fault, in a child process."""

from __future__ import annotations

import ctypes
import sys

from graphc.ir.node import Graph
from graphc.ir.types import storage_dtype
from passes import lower as lowering
from passes import straight
import numpy as np

from compiled import Native
from kernel_guards import Fenced
from native import executable_targets
from program_guards import table
from straight_programs import PROGRAMS, random_program


def main() -> None:
    lowering.straight_drafts = lambda *a: straight.straight_drafts(*a, force=True)  # type: ignore[assignment]
    fences = [Fenced() for _ in range(16)]
    arena_fence = Fenced()
    for piece in (straight.PIECE, 9):
        straight.PIECE = piece
        for target in executable_targets():
            for k, build in enumerate([*PROGRAMS.values(), *(lambda s=s: random_program(s) for s in range(6))]):
                print(piece, target, k, flush=True)
                with Graph():
                    inputs, fetches = build()
                    made = Native(fetches, inputs, target_name=target)
                run(made, fences, arena_fence)
    print("done")


def run(made: Native, fences: list[Fenced], arena_fence: Fenced) -> None:
    program = made.program
    given = [np.ones(a.shape, storage_dtype(a.dtype)) for a in program.inputs]
    outputs = [np.zeros(a.shape, storage_dtype(a.dtype)) for a in program.outputs]
    arena = np.zeros(-(-made.emitted.arena_bytes({}) // 64) * 64, np.uint8)
    for at_end in (True, False):
        where = arena_fence.place(arena, at_end=at_end)
        tables = table(fences, given, at_end), table(fences[len(given):], outputs, at_end)
        assert made.entry(*tables, (ctypes.c_void_p * 1)(), where) == 0


if __name__ == "__main__":
    sys.exit(main())
