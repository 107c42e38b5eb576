"""How long a step takes on one core, roughly, in picoseconds: whether threads pay, and how small a piece may be.

The estimate is low rather than high, because a region that is too short costs all that its workers wait for.
"""

from __future__ import annotations

from graphc.ir.costs import weight
from graphc.ir.dims import Dim, product
from graphc.ir.plan import Contraction, Kernel, KernelOp
from graphc.ir.types import itemsize

from .collapse import Facts, operands_of
from .target import Target

REGION = 40_000_000  # a step that takes less is not shared: it would gain little and might wait for a worker
PIECE = 5_000_000  # a piece is no smaller, or claiming it would be felt
PIECES = 4  # for each thread, so that one who comes late or is held up does not hold up the others
BOXES = 2  # the same for products, whose operands are read again for every piece
CYCLE = 350  # of a core
NBYTE = 10  # reading or writing one byte that is in the second-level cache


def point_work(ops: tuple[KernelOp, ...], numbers: tuple[int, ...], target: Target) -> int:
    """One point of these operations, a vector's share."""
    total = 0.0
    for op in (ops[i] for i in numbers):
        nbytes = itemsize(op.dtype)
        total += weight(op.kind) * CYCLE * 8 * nbytes / target.vector_bits
        if op.map is not None:
            total += NBYTE * nbytes
    return max(1, round(total))


def kernel_work(kernel: Kernel, known: Facts, target: Target) -> int | Dim:
    """All points; what does not vary along all axes is left out, unless nothing does."""
    everywhere = (1 << len(kernel.extents)) - 1

    def is_full(number: int) -> bool:
        op = kernel.ops[number]
        inner = operands_of(op) if op.kind == "reduce" else ()
        return known.axes[number] == everywhere or any(known.axes[i] == everywhere for i in inner)
    full = tuple(i for i in known.live if is_full(i))
    return product(kernel.extents) * point_work(kernel.ops, full or known.live, target)


def product_work(contraction: Contraction, target: Target) -> int | Dim:
    """Multiplications, or the reading of an operand where there are few rows or columns; and the epilogue."""
    *batch, m, n = contraction.extents
    nbytes = itemsize(contraction.dtype)
    lanes = target.vector_bits // (8 * nbytes)
    few = max(1, min(size if isinstance(size, int) else lanes for size in (m, n)))
    step = round(max(CYCLE / (2 * lanes), NBYTE * nbytes / few))
    epilogue = point_work(contraction.ops, tuple(range(len(contraction.ops))), target)
    return product([*batch, m, n]) * (contraction.depth * step + epilogue)
