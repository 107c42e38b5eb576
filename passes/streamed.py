"""Outputs that are written past the caches, where they are large.

    step 3  add  b0 b1 b4        ->   the kernel of step 3 may stream argument 2
    b4   output  float32[16777216]

A store in the ordinary way first reads the line that it overwrites, and drives out of the caches what is still needed.
It pays to avoid both where an output is so large that its beginning is gone when the caller looks at it; it does not
where a later step reads the buffer, or a pass of the kernel reads back what it kept there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.plan import STREAMED_BYTES, Buffer, CopyStep, Kernel, KernelStep, RangeStep
from graphc.ir.types import itemsize

Step = KernelStep | RangeStep | CopyStep


def with_streamed_outputs(steps: Sequence[Step], buffers: Sequence[Buffer]) -> list[Step]:
    """The steps, their kernels marked; whether an output of symbolic size is large is seen when they run."""
    uses = Counter(number for step in steps for number in touched(step))
    return [replace(step, kernel=marked(step.kernel, [k for k, number in enumerate(step.buffers)
                                                      if uses[number] == 1 and may_be_large(buffers[number])]))
            if isinstance(step, KernelStep) and isinstance(step.kernel, Kernel) else step for step in steps]


def touched(step: Step) -> tuple[int, ...]:
    if isinstance(step, KernelStep):
        return step.buffers
    return (step.source, step.target) if isinstance(step, CopyStep) else (step.buffer,)


def may_be_large(buffer: Buffer) -> bool:
    if buffer.place != "output":
        return False
    return not isinstance(buffer.size, int) or buffer.size * itemsize(buffer.dtype) >= STREAMED_BYTES


def marked(kernel: Kernel, candidates: Sequence[int]) -> Kernel:
    """The kernel with those of the candidates as streamed that it only stores to, element by element."""
    if not candidates or any(op.kind in ("reduce", "scan", "keep", "accumulate") for op in kernel.ops):
        return kernel
    read = {op.map.argument for op in kernel.ops if op.map is not None and op.kind != "store"}
    chosen = tuple(k for k in candidates if k not in read)
    return replace(kernel, schedule=replace(kernel.schedule, streamed=chosen)) if chosen else kernel
