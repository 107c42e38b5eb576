"""What a native function needs in bytes, known before it runs.

    Memory(inputs=256*batch, outputs=40*batch, state=12840, constants=0, arena=320*batch)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from .dims import Dim, product, substitute
from .plan import Array, Border, Constant, CopyStep, KernelStep, Program, RangeStep
from .types import itemsize

UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


@dataclass(frozen=True)
class Memory:
    """Bytes by their place: numbers, or expressions of the symbolic sizes.  The arena holds intermediate results and
    packed operands; every call that runs at the same time needs one."""

    inputs: int | Dim
    outputs: int | Dim
    state: int | Dim
    constants: int | Dim
    arena: int | Dim

    @property
    def total(self) -> int | Dim:
        """All that is in memory while a call runs."""
        return self.inputs + self.outputs + self.state + self.constants + self.arena

    def at(self, **sizes: int) -> Memory:
        """The bytes where the symbolic sizes have these values."""
        return Memory(*(substitute(getattr(self, f.name), sizes) for f in fields(self)))

    def __str__(self) -> str:
        parts = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return ", ".join(f"{name} {size_text(size)}" for name, size in [*parts, ("total", self.total)])


def memory_of(border: Border, constants: Iterable[Constant], threads: int = 1) -> Memory:
    """What a function with this border and these constants needs, on so many threads."""
    return Memory(nbytes(border.inputs), nbytes(border.outputs), nbytes(border.state),
                  sum(len(c.data) for c in constants), border.arena + border.slot * (threads - 1))


def nbytes(arrays: Iterable[Array]) -> int | Dim:
    total: int | Dim = 0
    for array in arrays:
        total = total + product(array.shape) * itemsize(array.dtype)
    return total


def size_text(size: int | Dim) -> str:
    """1.84 MB; an expression as it is."""
    if not isinstance(size, int):
        return f"{size} B"
    for factor, unit in UNITS:
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def most_live(program: Program, sizes: Mapping[str, int]) -> int:
    """The largest sum of arena buffers that are alive at one step: no arena can be smaller.  Buffers of one place that
    follow each other in one step count once."""
    spans: dict[int, list[int]] = {}
    for number, step in enumerate(program.steps):
        for b in buffers_of(step):
            if program.buffers[b].place == "arena":
                spans.setdefault(b, [number, number])[1] = number
    change = [0] * (len(program.steps) + 1)
    for b, (first, last) in spans.items():
        buffer = program.buffers[b]
        size = substitute(buffer.size * itemsize(buffer.dtype), sizes)
        assert isinstance(size, int), f"size {size}: a value is missing"
        change[first] += size
        change[last + 1] -= size
    live = most = 0
    for step_change in change:
        live += step_change
        most = max(most, live)
    return most


def buffers_of(step: KernelStep | RangeStep | CopyStep) -> tuple[int, ...]:
    if isinstance(step, KernelStep):
        return step.buffers
    return (step.buffer,) if isinstance(step, RangeStep) else (step.source, step.target)
