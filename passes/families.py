"""Steps that differ in sizes only run one kernel, whose length is a symbol of its own.

    step 1  add+sub  b0 b1   for (100, 3)           step 1  add+sub  b0 b1  with .elements = 300   for (.elements)
    step 2  add+sub  b2 b3   for (50)        ->     step 2  add+sub  b2 b3  with .elements = 50    for (.elements)
    step 3  add+sub  b4 b5   for (8, 8)             step 3  add+sub  b4 b5  with .elements = 64    for (.elements)

So the updates of an optimiser are compiled once, however many variables there are.  It concerns kernels that go
through contiguous buffers from end to end, and otherwise do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.dims import Dim, product
from graphc.ir.plan import Kernel, KernelOp, KernelStep, Map, Schedule

from .coordinates import row_major

LENGTH = ".elements"  # no user's symbol begins with a dot
SMALLEST = 3  # members of a family; fewer kernels are better off with a length that is known


def with_shared_kernels(steps: Sequence[KernelStep]) -> list[KernelStep]:
    """The steps, those of a family with one kernel."""
    families: dict[str, list[int]] = {}
    flat: dict[int, Kernel] = {}
    for k, step in enumerate(steps):
        kernel = flattened(step.kernel) if isinstance(step.kernel, Kernel) else None
        if kernel is not None:
            flat[k] = kernel
            families.setdefault(repr(kernel), []).append(k)  # 0.0 and -0.0 are equal numbers, but not equal text
    result = list(steps)
    for members in families.values():
        lengths = {k: product(steps[k].kernel.extents) for k in members}
        if len(set(lengths.values())) >= SMALLEST:
            for k in members:
                result[k] = replace(steps[k], kernel=flat[k], sizes=((LENGTH, lengths[k]),))
    return result


def flattened(kernel: Kernel) -> Kernel | None:
    """The kernel over one axis of symbolic length, where all its buffers are contiguous or single elements."""
    if not kernel.extents or kernel.schedule != Schedule():
        return None
    contiguous, zero = row_major(kernel.extents), (0,) * len(kernel.extents)
    ops: list[KernelOp] = []
    for op in kernel.ops:
        if op.kind in ("reduce", "scan", "iota", "accumulate", "keep") or isinstance(op.value, Dim):
            return None
        m = op.map
        if m is None:
            ops.append(op)
        elif m.strides not in (contiguous, zero) or m.offset != 0 or m.indices or m.guards:
            return None
        else:
            ops.append(replace(op, map=Map(m.argument, 0, (int(m.strides == contiguous),))))
    return Kernel((Dim.symbol(LENGTH),), kernel.arguments, tuple(ops))
