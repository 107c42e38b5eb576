"""Which axis of a kernel carries the vector lanes, of which several steps are in flight, and which threads may split.

The cost model, in vector operations:
    lanes    the axis along which most elements are contiguous; a strided one costs three (a gather); stores count twice
             rows shorter than a vector lie one per lane
    steps    four, two of heavy polynomials, more where passes walk down columns and write, or a row is short
             several rows where a row is a few vectors; a square tile where the contiguous axes of two operands differ
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.dims import Dim, exact_quotient, sign
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Kernel

from .collapse import EFFECTS, Facts, is_nonzero, trips
from .target import KNOWN, Target
from .vectors import FLOATS, REGISTER, kind_bits
from .work import REGION, kernel_work

ASSUMED = 256  # extent of an axis whose length is not known before run time
BLOCK = 64  # rows and columns of a block of tiles: its lines fit in the caches, even where they share few sets
NARROW = KNOWN["x86-64-v2"]  # what takes little time with its short vectors does so everywhere
TILE = 16  # a tile of more rows would be too much code
LIGHT_STEPS = 4  # of what is no heavy polynomial


def bits_of(dtype: str) -> int:
    """Width in registers; a bool counts as the byte that it is in memory."""
    return 8 if dtype == "bool" else kind_bits(REGISTER[dtype])


def size_guess(extent: int | Dim) -> int:
    return extent if isinstance(extent, int) else ASSUMED


def split_axis(kernel: Kernel, known: Facts) -> int | None:
    """The axis that lo..hi runs over; it depends on the kernel alone, never on the target.

    The outermost parallel axis, unless it is very short and another is longer.  None where the chunks of no axis
    write apart, and for static kernels that are never shared: loops of known length have no more copies than needed.
    """
    work = kernel_work(kernel, known, NARROW)
    if isinstance(work, int) and work < REGION:
        return None
    closed = known.reduced | known.serial
    candidates = [a for a in range(len(kernel.extents)) if not closed >> a & 1 and _separates(kernel, a)]
    long = [a for a in candidates if size_guess(kernel.extents[a]) >= 8]
    ranked = long or sorted(candidates, key=lambda a: -size_guess(kernel.extents[a]))
    return ranked[0] if ranked else None


def _separates(kernel: Kernel, axis: int) -> bool:
    """Whether what is stored or accumulates at different points of the axis never meets."""
    for op in kernel.ops:
        if op.kind in ("store", "keep") and op.map is not None and not is_nonzero(op.map.strides[axis]):
            return False
        if op.kind == "accumulate" and op.map is not None:
            pairs = list(zip(op.map.strides, kernel.extents, strict=True))
            others = [pair for a, pair in enumerate(pairs) if a != axis and is_nonzero(pair[0])]
            others += [(stride, extent) for _, stride, extent in op.map.indices]
            own, extent = pairs[axis]
            if not (is_nonzero(own) and (_is_above(own, others) or _is_below(own, extent, others))):
                return False
    return True


def _is_above(own: int | Dim, others: list[tuple[int | Dim, int | Dim]]) -> bool:
    """A step along the axis is longer than all that the others reach."""
    reach: int | Dim = 0
    for stride, extent in others:
        size = _magnitude(stride)
        if size is None:
            return False
        reach = reach + size * (extent - 1)
    longest = _magnitude(own)
    return longest is not None and sign(longest - reach - 1) == 1


def _is_below(own: int | Dim, extent: int | Dim, others: list[tuple[int | Dim, int | Dim]]) -> bool:
    """The others move by whole lengths of the axis, so the place within one length says which point it is."""
    length = own * extent
    return is_nonzero(length) and all(exact_quotient(stride, length) is not None for stride, _ in others)


def _magnitude(size: int | Dim) -> int | Dim | None:
    direction = sign(size)
    return None if direction is None else size * direction


@dataclass(frozen=True)
class Choice:
    """`lanes` is None where nothing runs in vectors (`count` is 1 then); `factor` steps of `unroll` are in flight."""

    lanes: int | None
    unroll: int | None
    factor: int
    count: int


SCALAR = Choice(None, None, 1, 1)


def choose(kernel: Kernel, known: Facts, target: Target) -> Choice:
    count = _lane_count(kernel, known, target)
    allowed = [a for a in range(len(kernel.extents)) if not known.serial >> a & 1]
    if known.scan is not None:
        allowed = [a for a in allowed if a != known.scan[0]]
    if not allowed or count == 1:
        return SCALAR
    lanes = kernel.schedule.lanes if kernel.schedule.lanes in allowed else _lanes(kernel, known, allowed, count)
    extent = kernel.extents[lanes]
    if isinstance(extent, int):
        while count > 1 and count // 2 >= extent:
            count //= 2
    if count == 1:
        return SCALAR
    unroll, factor = _unroll(kernel, known, allowed, lanes, count, wide=target.vector_bits == 512)
    wanted = kernel.schedule.unroll
    if wanted is not None and wanted != unroll:
        if wanted != lanes and (known.serial >> wanted & 1 or known.reduced >> lanes & known.reduced >> wanted & 1):
            raise Unsupported(f"kernel: several steps of axis {wanted} cannot be in flight (code generation)")
        unroll, factor = wanted, 4
    if unroll != lanes:
        count, factor = _tile(kernel.extents[unroll], count, factor, shrinks=bool(known.reduced >> unroll & 1))
    return Choice(lanes, unroll, kernel.schedule.factor or factor, count)


def is_blocked(kernel: Kernel, known: Facts, choice: Choice) -> bool:
    """Whether tiles that are transposed in registers are taken in square blocks, both axes being long."""
    if choice.unroll is None or choice.lanes is None or known.reduced or 2 * choice.factor < choice.count:
        return False
    return min(size_guess(kernel.extents[a]) for a in (choice.lanes, choice.unroll)) >= 2 * BLOCK


def _tile(extent: int | Dim, count: int, factor: int, *, shrinks: bool) -> tuple[int, int]:
    """Lanes and steps of a tile: not too large, and no longer than the rows that lie in it."""
    if factor == count > TILE:
        factor = count = TILE
    if shrinks and isinstance(extent, int):
        while count > 4 and count // 2 >= extent:
            count //= 2
        factor = max(1, min(factor, count, extent))
    return count, factor


def _lane_count(kernel: Kernel, known: Facts, target: Target) -> int:
    """By the widest float, or the commonest element; no value may need more than four registers."""
    dtypes = [kernel.ops[i].dtype for i in known.live if kernel.ops[i].kind not in ("const", "iota", "second")]
    if not dtypes:
        return 1
    floats = [bits_of(d) for d in dtypes if d in FLOATS]
    widths = [bits_of(d) for d in dtypes]
    bits = max(floats) if floats else max(sorted(set(widths)), key=widths.count)
    return max(1, min(target.lanes(bits), 4 * target.lanes(max(widths))))


def _lanes(kernel: Kernel, known: Facts, allowed: list[int], count: int) -> int:
    def score(axis: int) -> tuple[float, int]:
        total = 0.0
        for i in known.live:
            op = kernel.ops[i]
            if op.map is None:
                continue
            elements = 1
            for a in range(len(kernel.extents)):
                if known.axes[i] >> a & 1:
                    elements *= max(1, size_guess(kernel.extents[a]))
            stride = op.map.strides[axis]
            gathered = any(known.has(j, axis) for j, _, _ in op.map.indices)
            kind = -3 if gathered else 1 if stride == 1 else -3 if is_nonzero(stride) else 0
            total += elements * (2 if op.kind == "store" else 1) * kind
        return total * min(1.0, size_guess(kernel.extents[axis]) / 16), axis

    best = max(allowed, key=score)
    if known.reduced >> best & 1 and size_guess(kernel.extents[best]) < count:
        # Rows shorter than a vector: one row per lane, by gathers.
        rows = [a for a in allowed if not known.reduced >> a & 1 and size_guess(kernel.extents[a]) >= count]
        if rows:
            return rows[-1]
    return best


def _unroll(kernel: Kernel, known: Facts, allowed: list[int], lanes: int, count: int, *, wide: bool) -> tuple[int, int]:
    """The axis of which several steps are in flight, and how many."""
    parallel = [a for a in allowed if not known.reduced >> a & 1 and a != lanes]
    extent = size_guess(kernel.extents[lanes])
    if not known.reduced >> lanes & 1:
        others = [a for a in range(len(kernel.extents)) if known.reduced >> a & 1] if known.reduced else parallel
        crossed = _crossed(kernel, others, lanes, 5 if known.reduced else count)
        if crossed is not None:
            return crossed, count
    steps = steps_of(known.weight)
    if known.reduced >> lanes & 1:
        rows = [a for a in parallel if size_guess(kernel.extents[a]) >= steps]
        if rows and extent <= 4 * count:
            return rows[-1], steps
    elif any(op.map and op.map.strides[lanes] not in (0, 1) for op in kernel.ops):
        return lanes, 1  # a gather fills the load ports by itself
    elif _is_long(kernel, known):
        steps = _column_steps(kernel, known, _is_short(kernel.extents[lanes], 16 * count), wide=wide)
    return lanes, max(1, min(steps, -(-extent // count)))


def steps_of(weight: float) -> int:
    """Longer chains of operations already overlap in the pipeline, and need the registers."""
    return 1 if weight > 160 else 2 if weight > 40 else LIGHT_STEPS


def row_steps(kernel: Kernel, choice: Choice, weight: float) -> int:
    """Vectors in flight in a pass of this weight along the lanes."""
    extent = kernel.extents[choice.lanes] if choice.lanes is not None else 1
    return max(1, min(steps_of(weight), -(-size_guess(extent) // choice.count)))


def _is_short(extent: int | Dim, length: int) -> bool:
    return isinstance(extent, int) and extent <= length


def _column_steps(kernel: Kernel, known: Facts, is_short: bool, *, wide: bool) -> int:
    """Where passes walk down columns, how many vectors of a row go together.

    All of a short row, for then memory is read from end to end.  Else few where rows are only read, as many misses are
    on their way then, and long pieces where they are written too.
    """
    if not wide or known.weight > 40:  # much code of which more at a time gains little
        return steps_of(known.weight)
    if known.weight > 16:
        return 8 if is_short else LIGHT_STEPS
    return 16 if is_short or _writes_rows(kernel, known) else LIGHT_STEPS


def _is_long(kernel: Kernel, known: Facts) -> bool:
    points = trips(kernel, [a for a in range(len(kernel.extents)) if known.reduced >> a & 1])
    return bool(known.reduced) and (points is None or points >= 64)


def _writes_rows(kernel: Kernel, known: Facts) -> bool:
    """Whether passes store what varies along the reduced axes."""
    return any(kernel.ops[i].kind in EFFECTS and known.axes[i] & known.reduced for i in known.live)


def _crossed(kernel: Kernel, others: list[int], lanes: int, least: int) -> int | None:
    """An axis along which a load is contiguous that strides along the lanes: tiles are transposed in registers."""
    for op in kernel.ops:
        if op.kind != "load" or op.map is None or op.map.indices or op.map.guards or op.map.strides[lanes] in (0, 1):
            continue
        for axis in others:
            shorter = min(size_guess(kernel.extents[axis]), size_guess(kernel.extents[lanes]))
            if op.map.strides[axis] == 1 and shorter >= least:
                return axis
    return None
