"""The axes of a kernel before loops exist: merged, dropped, and what depends on them.

    collapse   (64, 1, 32) contiguous -> (2048,): an axis merges with one whose stride times extent is its stride
    facts      what each operation depends on: axes (a bit mask), the pass it belongs to; what is live, what is serial
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce as fold

from graphc.ir.costs import weight
from graphc.ir.dims import product
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Kernel, KernelOp, Map, Schedule

EFFECTS = ("store", "keep", "accumulate")
INDEXED = ("argmax", "argmin")



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
    free = [a for a in alive if a not in pinned and not any(is_nonzero(row[a]) for row in guard_rows)]

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


def is_nonzero(size: object) -> bool:
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
    return Schedule(moved(schedule.lanes), moved(schedule.unroll), schedule.factor, schedule.streamed)


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
    return mask_of(tuple(a for row in rows for a, stride in enumerate(row) if is_nonzero(stride)))


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
    cost = round(sum(weight(kernel.ops[i].kind) for i in live))
    scan, serial = _scan(kernel, reduced), _serial(kernel, axes, reduced)
    return Facts(tuple(axes), tuple(stages), live, reduced, scan, serial, cost)


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
        if op.map is None or op.kind not in ("keep", "accumulate"):
            continue
        still = mask_of(tuple(a for a, stride in enumerate(op.map.strides) if not is_nonzero(stride)))
        serial |= still & ~reduced if op.kind == "keep" else still
        if op.kind == "accumulate":
            serial |= fold(lambda mask, index: mask | axes[index[0]], op.map.indices, 0)
    return serial


def trips(kernel: Kernel, axes: Sequence[int]) -> int | None:
    """Points of a nest over these axes; None where that is known at run time only."""
    total = product([kernel.extents[a] for a in axes])
    return total if isinstance(total, int) else None
