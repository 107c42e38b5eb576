"""Programs as text, for people and golden tests.

    program main(batch)   arena 64*batch bytes
      b0  input   float32[64*batch]  x
      b1  output  float32[10*batch]  output0
    step 0  matmul+add  b2 b0 b1
      for (batch, 10), sum over 64 of b0[64*i0 + i2] * b1[10*i2 + i1]
        %0 = accumulator  float32
        b2[10*i0 + i1] = %0
"""

from __future__ import annotations

from collections.abc import Sequence

from .dims import Dim
from .plan import Buffer, Case, Contraction, CopyStep, Kernel, KernelOp, KernelStep, Map, Program, RangeStep


def program_text(program: Program) -> str:
    """All buffers and steps of a program."""
    lines = [f"program {program.name}({', '.join(program.symbols)})   arena {program.arena} bytes"]
    lines += [f"  b{k:<3} {buffer_text(buffer)}" for k, buffer in enumerate(program.buffers)]
    for k, step in enumerate(program.steps):
        if isinstance(step, KernelStep):
            buffers = " ".join(f"b{b}" for b in step.buffers)
            own = "".join(f"  with {name} = {size}" for name, size in step.sizes)
            lines.append(f"step {k}  {step.label}  {buffers}{own}{when_text(step.when)}")
            lines += kernel_lines(step.kernel, [f"b{b}" for b in step.buffers])
        elif isinstance(step, RangeStep):
            bounds = f"[-({step.extent}), {step.extent})"
            lines.append(f"step {k}  require b{step.buffer} in {bounds}{when_text(step.when)}")
        else:
            assert isinstance(step, CopyStep)
            lines.append(f"step {k}  copy b{step.source} to b{step.target}" + when_text(step.when))
    return "\n".join(lines) + "\n"


def when_text(when: Sequence[Case]) -> str:
    return f"  when {', '.join(map(str, when))}" if when else ""


def buffer_text(buffer: Buffer) -> str:
    where = f" at {buffer.offset}" if buffer.place == "arena" else ""
    return f"{buffer.place:<8} {buffer.dtype}[{buffer.size}]{where}  {buffer.name}".rstrip()


def kernel_lines(kernel: Kernel | Contraction, names: Sequence[str]) -> list[str]:
    """A kernel's axes and operations; `names` are its arguments."""
    head = f"  for ({', '.join(map(str, kernel.extents))})"
    if isinstance(kernel, Contraction):
        head += f", sum over {kernel.depth} of {place(kernel.a, names)} * {place(kernel.b, names)}"
    return [head, *(f"    {op_text(k, op, names)}" for k, op in enumerate(kernel.ops))]


def op_text(number: int, op: KernelOp, names: Sequence[str]) -> str:
    operands = " ".join(f"%{k}" for k in op.operands)
    if op.kind in ("store", "accumulate") and op.map:
        return f"{place(op.map, names)} {'=' if op.kind == 'store' else '+='} {operands}"
    detail = place(op.map, names) if op.map else "" if op.value is None else str(op.value)
    return " ".join(filter(None, [f"%{number} =", op.kind, operands, detail, f" {op.dtype}"]))


def place(m: Map, names: Sequence[str]) -> str:
    """An address as an expression of the axes."""
    terms = [] if m.offset == 0 else [str(m.offset)]
    terms += [axis_text(stride, f"i{k}") for k, stride in enumerate(m.strides) if stride != 0]
    terms += [axis_text(stride, f"%{op}") for op, stride, _ in m.indices]
    guard = f" if {len(m.guards)} guards hold else {m.fill}" if m.guards else ""
    return f"{names[m.argument]}[{' + '.join(terms) or '0'}]{guard}"


def axis_text(stride: int | Dim, axis: str) -> str:
    if stride == 1:
        return axis
    text = str(stride)
    return f"({text})*{axis}" if " " in text or text.startswith("-") else f"{text}*{axis}"
