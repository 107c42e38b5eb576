"""The axes of a kernel before loops exist: merged, dropped, and given roles.

    collapse   (64, 1, 32) contiguous          ->  (2048,)      an axis whose stride is the next one's stride times extent
    facts      what each operation depends on: axes (a bit mask), the pass it belongs to, what is live, what must stay serial
    choose     which axis carries the vector lanes, of which axis several steps are in flight, and how many

The cost model of `choose` is in its tables and comments: lanes lie where most elements are contiguous, rows shorter
than a vector put the rows in the lanes, rows of a few vectors keep several rows in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce as fold

from graphc.ir.dims import product, sign
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Kernel, KernelOp, Map, Schedule

from .scalars import weight as weight_of
from .target import Target

EFFECTS = ("store", "keep", "accumulate")
INDEXED = ("argmax", "argmin")
BITS = {"float64": 64, "float32": 32, "float16": 32, "bfloat16": 32, "int64": 64, "uint64": 64, "int32": 32,
        "uint32": 32, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8, "bool": 8}
FLOATS = ("float64", "float32", "float16", "bfloat16")

# Cost in vector operations of what is not elementwise; what is not here costs one.
WEIGHTS = {"const": 0.0, "second": 0.0, "accumulator": 0.0, "iota": 0.0, "load": 1.0, "store": 1.0, "keep": 1.0, "scan": 2.0,
           "accumulate": 3.0, "reduce": 1.0}
ASSUMED = 256  # extent of an axis whose length is not known before run time
TILE = 16  # a tile of more rows would be too much code
SMALL = 4096  # weighted element operations below which a static kernel is one piece for one thread


# -- merging --
def collapse(kernel: Kernel) -> Kernel:
    """The same kernel with mergeable axes merged and axes of length 1 dropped."""
    rows = [list(m.strides) for m in _maps(kernel)] + [list(g.strides) for m in _maps(kernel) for g in m.guards]
    guard_rows = rows[len(_maps(kernel)):]
    pinned = {op.value if op.kind == "iota" else op.value[0] for op in kernel.ops if op.kind in ("iota", "scan")}
    reduced = set(reduced_axes(kernel))
    ordered = any(op.kind == "reduce" and op.value[0] in INDEXED for op in kernel.ops)
    extents = list(kernel.extents)
    home = list(range(len(extents)))  # the axis that each axis lives in now; -1 when dropped
    alive = [a for a in home if a in pinned or extents[a] != 1]
    home = [a if a in alive else -1 for a in home]
    free = [a for a in alive if a not in pinned and not any(_nonzero(row[a]) for row in guard_rows)]

    def merges(a: int, b: int) -> bool:
        if (a in reduced) != (b in reduced) or (a in reduced and ordered and _next(alive, reduced, a) != b):
            return False
        return all(row[a] == row[b] * extents[b] for row in rows)

    while pair := next(((a, b) for a in free for b in free if a != b and merges(a, b)), None):
        outer, inner = pair
        extents[inner] = extents[outer] * extents[inner]
        home = [inner if h == outer else h for h in home]
        alive.remove(outer)
        free.remove(outer)
    if len(alive) == len(kernel.extents):
        return kernel
    number = [alive.index(h) if h >= 0 else -1 for h in home]
    return Kernel(tuple(extents[a] for a in alive), kernel.arguments,
                  tuple(_renumbered(op, alive, number) for op in kernel.ops), _schedule(kernel.schedule, number))


def _maps(kernel: Kernel) -> list[Map]:
    return [op.map for op in kernel.ops if op.map is not None]


def _nonzero(size: object) -> bool:
    return not (isinstance(size, int) and size == 0)


def _next(alive: list[int], reduced: set[int], axis: int) -> int | None:
    """The reduced axis that follows: an index along several axes counts in their order."""
    return next((a for a in alive if a > axis and a in reduced), None)


def _renumbered(op: KernelOp, alive: list[int], number: list[int]) -> KernelOp:
    if op.kind == "reduce":
        monoid, axes = op.value
        return replace(op, value=(monoid, tuple(sorted({number[a] for a in axes if number[a] >= 0}))))
    if op.kind == "scan":
        return replace(op, value=(number[op.value[0]], op.value[1]))
    if op.kind == "iota":
        return replace(op, value=number[op.value])
    if op.map is None:
        return op
    guards = tuple(replace(g, strides=tuple(g.strides[a] for a in alive)) for g in op.map.guards)
    return replace(op, map=replace(op.map, strides=tuple(op.map.strides[a] for a in alive), guards=guards))


def _schedule(schedule: Schedule, number: list[int]) -> Schedule:
    def moved(axis: int | None) -> int | None:
        return None if axis is None or number[axis] < 0 else number[axis]
    return Schedule(moved(schedule.lanes), moved(schedule.unroll), schedule.factor)


def reduced_axes(kernel: Kernel) -> tuple[int, ...]:
    """The axes that passes run over: those of the reductions and of the scan."""
    axes = {a for op in kernel.ops if op.kind == "reduce" for a in op.value[1]}
    return tuple(sorted(axes | {op.value[0] for op in kernel.ops if op.kind == "scan"}))


# -- what every operation depends on --
@dataclass(frozen=True)
class Facts:
    """Axis sets are bit masks.  `stages[i]` is the pass over the reduced axes in which operation i can first be had."""

    axes: tuple[int, ...]
    stages: tuple[int, ...]
    live: tuple[int, ...]
    reduced: int
    scan: tuple[int, bool] | None  # axis and direction
    serial: int  # parallel axes that must run one step at a time, in order
    weight: int  # of all live operations at one point

    def has(self, op: int, axis: int | None) -> bool:
        return axis is not None and bool(self.axes[op] >> axis & 1)


def mask_of(axes: tuple[int, ...]) -> int:
    return fold(lambda mask, axis: mask | 1 << axis, axes, 0)


def map_axes(address: Map) -> int:
    """The axes along which the affine part or a guard of a map varies."""
    rows = (address.strides, *(g.strides for g in address.guards))
    return mask_of(tuple(a for row in rows for a, stride in enumerate(row) if _nonzero(stride)))


def facts(kernel: Kernel) -> Facts:
    reduced = mask_of(reduced_axes(kernel))
    everywhere = (1 << len(kernel.extents)) - 1
    axes: list[int] = []
    stages: list[int] = []
    for op in kernel.ops:
        sources = operands_of(op)
        varies = fold(lambda mask, source: mask | axes[source], sources, map_axes(op.map) if op.map else 0)
        if op.kind == "iota":
            varies = 1 << op.value
        if op.kind == "scan":
            varies |= 1 << op.value[0]
        if op.kind == "reduce":
            varies &= ~reduced
        if op.kind == "accumulate":  # it counts every point, also those at which nothing differs
            varies |= everywhere & ~reduced
        axes.append(varies)
        stages.append(max((stages[s] for s in sources), default=0) + (op.kind == "reduce"))
    live = _live(kernel)
    weight = round(sum(_weight(kernel.ops[i]) for i in live))
    return Facts(tuple(axes), tuple(stages), live, reduced, _scan(kernel, reduced), _serial(kernel, axes, reduced), weight)


def operands_of(op: KernelOp) -> tuple[int, ...]:
    """The operations whose values it reads, those in its address included."""
    return op.operands + tuple(i for i, _, _ in op.map.indices) if op.map and op.map.indices else op.operands


def _live(kernel: Kernel) -> tuple[int, ...]:
    wanted = [op.kind in EFFECTS for op in kernel.ops]
    for i in range(len(kernel.ops) - 1, -1, -1):
        if wanted[i]:
            for source in operands_of(kernel.ops[i]):
                wanted[source] = True
    return tuple(i for i, is_wanted in enumerate(wanted) if is_wanted)


def _weight(op: KernelOp) -> float:
    return WEIGHTS[op.kind] if op.kind in WEIGHTS else weight_of(op.kind)


def _scan(kernel: Kernel, reduced: int) -> tuple[int, bool] | None:
    found = tuple(dict.fromkeys(op.value for op in kernel.ops if op.kind == "scan"))
    if len(found) > 1:
        raise Unsupported(f"scan: one kernel scans along one axis in one direction, not {found} (code generation)")
    if found and reduced != 1 << found[0][0]:
        raise Unsupported(f"scan: along axis {found[0][0]} in a kernel that reduces others (code generation)")
    return (found[0][0], bool(found[0][1])) if found else None


def _serial(kernel: Kernel, axes: list[int], reduced: int) -> int:
    """Axes along which several points write one element: a kept row that is reused, and what accumulates."""
    serial = 0
    for op in kernel.ops:
        if op.kind == "keep" and op.map:
            serial |= mask_of(tuple(a for a, s in enumerate(op.map.strides) if not _nonzero(s) and not reduced >> a & 1))
        if op.kind == "accumulate" and op.map:
            serial |= mask_of(tuple(a for a, s in enumerate(op.map.strides) if not _nonzero(s)))
            serial |= fold(lambda mask, index: mask | axes[index[0]], op.map.indices, 0)
    return serial


# -- roles --
def size_guess(extent: object) -> int:
    return extent if isinstance(extent, int) else ASSUMED


def trips(kernel: Kernel, axes: tuple[int, ...]) -> int | None:
    """Points of a nest over these axes; None where that is known at run time only."""
    total = product([kernel.extents[a] for a in axes])
    return total if isinstance(total, int) else None


def split_axis(kernel: Kernel, known: Facts) -> int | None:
    """The axis that lo..hi runs over; it depends on the kernel alone, never on the target.

    The outermost parallel axis, unless it is very short and another is longer.  None for small static kernels and
    where the chunks of no axis write apart.
    """
    points = trips(kernel, tuple(range(len(kernel.extents))))
    if points is not None and points * max(known.weight, 1) <= SMALL:
        return None
    candidates = [a for a in range(len(kernel.extents)) if not (known.reduced | known.serial) >> a & 1 and _separates(kernel, a)]
    long = [a for a in candidates if size_guess(kernel.extents[a]) >= 8]
    return (long or sorted(candidates, key=lambda a: -size_guess(kernel.extents[a])) or [None])[0]


def _separates(kernel: Kernel, axis: int) -> bool:
    """Whether what accumulates at different points of the axis never meets: its stride exceeds what all else reaches."""
    for op in kernel.ops:
        if op.kind != "accumulate" or op.map is None:
            continue
        reach: int | object = 0
        for other, stride in enumerate(op.map.strides):
            if other == axis:
                continue
            if sign(stride) is None:
                return False
            reach = reach + stride * (sign(stride) or 1) * (kernel.extents[other] - 1)  # type: ignore[operator]
        for _, stride, extent in op.map.indices:
            if sign(stride) is None:
                return False
            reach = reach + stride * (sign(stride) or 1) * (extent - 1)  # type: ignore[operator]
        own = op.map.strides[axis]
        if sign(own) is None or sign(own * (sign(own) or 1) - reach - 1) != 1:  # type: ignore[operator]
            return False
    return True


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
    if wanted is not None and wanted != lanes and (wanted not in allowed or known.reduced >> wanted & 1):
        raise Unsupported(f"kernel: several steps of axis {wanted} cannot be in flight (code generation)")
    factor = kernel.schedule.factor or (factor if wanted in (None, unroll) else 4)
    unroll = unroll if wanted is None else wanted
    if unroll != lanes and factor == count > TILE:
        factor = count = TILE
    if known.reduced >> unroll & 1 and unroll != lanes and isinstance(kernel.extents[unroll], int):
        while count > 4 and count // 2 >= kernel.extents[unroll]:  # rows shorter than a vector
            count //= 2
        factor = min(count, kernel.extents[unroll])
    return Choice(lanes, unroll, factor, count)


def _lane_count(kernel: Kernel, known: Facts, target: Target) -> int:
    """By the widest float, or the commonest element; no value may need more than four registers."""
    dtypes = [kernel.ops[i].dtype for i in known.live if kernel.ops[i].kind not in ("const", "iota", "second")]
    if not dtypes:
        return 1
    floats = [BITS[d] for d in dtypes if d in FLOATS]
    widths = [BITS[d] for d in dtypes]
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
            kind = -3 if gathered else 1 if stride == 1 else -3 if _nonzero(stride) else 0
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
    # Longer chains of operations already overlap in the pipeline, and need the registers.
    steps = 1 if known.weight > 160 else 2 if known.weight > 40 else 4
    if known.reduced >> lanes & 1:
        rows = [a for a in parallel if size_guess(kernel.extents[a]) >= steps]
        if rows and extent <= 4 * count:
            return rows[-1], steps
    elif any(op.map and op.map.strides[lanes] not in (0, 1) for op in kernel.ops):
        return lanes, 1  # a gather fills the load ports by itself
    elif known.reduced and known.scan is None and steps == 4:
        steps = 16 if known.weight <= 8 else 8  # walking down columns: long pieces of every row, for the prefetcher
        steps = steps if wide else steps // 2
    return lanes, max(1, min(steps, -(-extent // count)))


def _crossed(kernel: Kernel, others: list[int], lanes: int, least: int) -> int | None:
    """An axis along which a load is contiguous that strides along the lanes: tiles are transposed in registers."""
    for op in kernel.ops:
        if op.kind != "load" or op.map is None or op.map.indices or op.map.guards or op.map.strides[lanes] in (0, 1):
            continue
        for axis in others:
            if op.map.strides[axis] == 1 and min(size_guess(kernel.extents[axis]), size_guess(kernel.extents[lanes])) >= least:
                return axis
    return None
