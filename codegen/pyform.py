"""What the caller of a native function must know of it, for programs and for the entries of libraries."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.dims import Dim, product
from graphc.ir.plan import Array, Contraction, CopyStep, DimCheck, KernelStep, Program


@dataclass(frozen=True)
class CallForm:
    """What a native function takes and gives, as far as its caller must know.

    numbers     the place of each variable in the table that the native function takes
    arena       bytes of memory of its own; None: the word `arena` is the function of the sizes that says it
    has_slots   `arena` is for one thread, and the word says how much it is for all
    work        (operations per step, steps): how long a call takes, roughly
    is_entry    called as `entry(size.., input.., output.., [ptr table of variables,] arena)` (`codegen.library`), else
                as `entry(ptr inputs, ptr outputs, ptr state, ptr arena, size..)` (`codegen.program`)
    """

    name: str
    symbols: tuple[str, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    state: tuple[Array, ...]
    numbers: tuple[int, ...]
    checks: tuple[DimCheck, ...]
    arena: int | Dim | None
    work: tuple[tuple[int, int | Dim], ...]
    single: bool  # the one output is returned bare, not in a list
    is_entry: bool = False
    has_slots: bool = False


def form_of(program: Program, arena: int | Dim, single: bool, *, has_slots: bool = False) -> CallForm:
    return CallForm(program.name, program.symbols, program.inputs, program.outputs, program.state,
                    tuple(range(len(program.state))), program.checks, arena, operations(program), single,
                    has_slots=has_slots)


def operations(program: Program) -> tuple[tuple[int, int | Dim], ...]:
    """The work of every step."""
    found: list[tuple[int, int | Dim]] = []
    for step in program.steps:
        if isinstance(step, KernelStep):
            depth = step.kernel.depth if isinstance(step.kernel, Contraction) else 1
            found.append((max(1, len(step.kernel.ops)), step.size(product(step.kernel.extents) * depth)))
        else:
            buffer = program.buffers[step.source if isinstance(step, CopyStep) else step.buffer]
            found.append((1, buffer.size))
    return tuple(found)
