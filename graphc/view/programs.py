"""The steps of a compiled function: a box per kernel, an arrow per buffer that one writes and another reads.

    matmul+relu                the kernel's label: what it was made of
    over batch × 32 × 64       its axes, and the depth of a matrix product
    add, relu                  the operations that do the work, with their counts
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..ir.dims import Dim
from ..ir.errors import Unsupported
from ..ir.plan import Buffer, Contraction, CopyStep, Kernel, KernelOp, KernelStep, Program, RangeStep
from .diagram import Arrow, Box, Diagram, fold_leaves

Step = KernelStep | RangeStep | CopyStep
WRITES = ("store", "keep", "accumulate")
QUIET = ("load", "store", "keep", "const", "accumulator", "second")  # operations that say nothing about the work
PLACE_KINDS = {"input": "input", "output": "output", "state": "variable", "constant": "constant"}
MOST_KINDS = 12  # kinds of operation named in a box


def reads_and_writes(step: Step) -> tuple[list[int], list[int]]:
    """The buffers that a step reads and those that it writes, in order."""
    if isinstance(step, RangeStep):
        return [step.buffer], []
    if isinstance(step, CopyStep):
        return [step.source], [step.target]
    if not isinstance(step, KernelStep):
        raise Unsupported(f"dump: no picture of the step {step!r:.100}")
    kernel = step.kernel
    read = [kernel.a.argument, kernel.b.argument] if isinstance(kernel, Contraction) else []
    written: list[int] = []
    for op in kernel.ops:
        if op.map is not None and op.kind in ("load", "accumulate"):
            read.append(op.map.argument)
        if op.map is not None and op.kind in WRITES:
            written.append(op.map.argument)
    return _distinct(step.buffers[k] for k in read), _distinct(step.buffers[k] for k in written)


def _distinct(items: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(items))


# -- texts in boxes --
def buffer_names(program: Program) -> list[str]:
    """Names of what crosses the border; t0, t1, .. for what lives in the arena."""
    names, inner = [], 0
    for number, buffer in enumerate(program.buffers):
        if buffer.place == "arena":
            names.append(f"t{inner}")
            inner += 1
        else:
            own = "" if buffer.place == "constant" else buffer.name  # constants are named by their contents
            names.append(own or f"{buffer.place} {buffer.number if buffer.number >= 0 else number}")
    return names


def step_title(step: Step) -> str:
    if isinstance(step, RangeStep):
        return "check range"
    return "copy" if isinstance(step, CopyStep) else step.label or "kernel"


def step_lines(step: Step) -> list[str]:
    """What a step runs over, and what it computes there."""
    if isinstance(step, RangeStep):
        return [f"in [-{step.extent}, {step.extent})"]
    if isinstance(step, CopyStep):
        return []
    kernel = step.kernel
    sizes = [step.size(n) for n in kernel.extents]
    over = " × ".join(f"({n})" if isinstance(n, Dim) and len(n.terms) > 1 else str(n) for n in sizes) or "1"
    depth = f" × {kernel.depth}" if isinstance(kernel, Contraction) else ""
    return [f"over {over}{depth}", *work_lines(kernel)]


def work_lines(kernel: Kernel | Contraction) -> list[str]:
    """The operations of a kernel with their counts, a few to a line."""
    counts = Counter(_op_name(op) for op in kernel.ops if op.kind not in QUIET)
    parts = [name if count == 1 else f"{count} {name}" for name, count in counts.items()]
    if len(parts) > MOST_KINDS:
        parts = [*parts[:MOST_KINDS - 1], f"{len(parts) - MOST_KINDS + 1} more"]
    return [", ".join(parts[k:k + 4]) for k in range(0, len(parts), 4)]


def _op_name(op: KernelOp) -> str:
    if op.kind == "reduce":
        return f"{op.value[0]} over axes" if op.value[1] else op.value[0]
    return f"cast {op.dtype}" if op.kind == "cast" else op.kind


# -- boxes --
def program_diagram(program: Program) -> Diagram:
    """Inputs, variables and constants that are read; steps; outputs and new values of variables."""
    names = buffer_names(program)
    writers: dict[int, list[str]] = {}
    leaves: dict[int, Box] = {}
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    for k, step in enumerate(program.steps):
        read, written = reads_and_writes(step)
        key = f"s{k}"
        for buffer in read:
            if buffer not in writers and buffer not in leaves:
                leaves[buffer] = _leaf_box(program, buffer, names[buffer])
            arrows += [Arrow(source, key, _label(program, program.buffers[buffer]))
                       for source in writers.get(buffer) or [leaves[buffer].key]]
        for buffer in written:  # who reads what it writes comes after all that wrote there before
            writers[buffer] = [key] if buffer in read else [*writers.get(buffer, ()), key]
        boxes.append(Box(key, step_title(step), tuple(step_lines(step)), _step_kind(step)))
    for buffer, sources in writers.items():
        place = program.buffers[buffer].place
        if place in ("output", "state"):
            title, kind = (f"update {names[buffer]}", "update") if place == "state" else (names[buffer], "output")
            boxes.append(Box(f"w{buffer}", title, (_type(program, program.buffers[buffer]),), kind))
            arrows += [Arrow(source, f"w{buffer}") for source in sources]
    diagram = Diagram(program.name, (*leaves.values(), *boxes), tuple(dict.fromkeys(arrows)))
    return fold_leaves(diagram, most_users=4)


def _leaf_box(program: Program, number: int, name: str) -> Box:
    buffer = program.buffers[number]
    return Box(f"b{number}", name, (_type(program, buffer),), PLACE_KINDS.get(buffer.place, "other"))


def _type(program: Program, buffer: Buffer) -> str:
    """dtype and shape of what crosses the border; dtype and size of the rest."""
    border = {"input": program.inputs, "output": program.outputs, "state": program.state}.get(buffer.place)
    shape = border[buffer.number].shape if border is not None and buffer.number >= 0 else (buffer.size,)
    return f"{buffer.dtype}[{', '.join(map(str, shape))}]"


def _label(program: Program, buffer: Buffer) -> str:
    """What flows: only what lives in the arena is not named by a box."""
    return _type(program, buffer) if buffer.place == "arena" else ""


def _step_kind(step: Step) -> str:
    if isinstance(step, KernelStep):
        return "contraction" if isinstance(step.kernel, Contraction) else "kernel"
    return "movement" if isinstance(step, CopyStep) else "other"
