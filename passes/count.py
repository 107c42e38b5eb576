"""How many scalar operations a program runs, counted on the kernels that code is written from.

    y = sum(x * x) over 1000 elements    ->    {"mul": 1000, "add": 1000}

An operation is written in the outermost loop in which all axes are open that it depends on, so it runs once per point
of the loops around it.  What several passes over the reduced axes need is computed in each of them, unless it was kept.
A sum runs one addition per element, a contraction one product and one addition per term (fused or not).  Axes are
taken in the kernel's order; where the emitter turns loops round to get at vectors, what depends on some of the axes
only may run at other numbers of points.  Symbolic sizes give expressions; a step that runs
for some sizes only counts for those.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Dim, product
from graphc.ir.plan import Contraction, Kernel, KernelOp, KernelStep, Program, taken

Counts = dict[str, "int | Dim"]
MOVES = frozenset({"load", "store", "keep", "const", "iota", "second", "accumulator", "identity", "stop_gradient",
                   "cast", "where", "copysign"})
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "any", "all", "argmax",
                         "argmin"})
MONOIDS = {"max": "maximum", "min": "minimum", "fastmax": "maximum"}
EFFECTS = ("store", "keep", "accumulate")


def program_operations(program: Program, everything: bool = False) -> Counts:
    """Operations by name; with `everything`, moves, casts and comparisons as well."""
    total: Counts = {}
    for step in program.steps:
        if isinstance(step, KernelStep):
            for name, count in step_operations(step.kernel):
                if everything or name not in MOVES | COMPARISONS:
                    total[name] = total.get(name, 0) + step.size(count) * taken(step.when)
    return {name: total[name] for name in sorted(total)}


def step_operations(kernel: Kernel | Contraction) -> list[tuple[str, int | Dim]]:
    """(name, runs) of all live operations of a kernel."""
    found: list[tuple[str, int | Dim]] = []
    if isinstance(kernel, Contraction):
        terms = product(kernel.extents) * kernel.depth
        found += [("mul", terms), ("add", terms)]
    nest = Nest(kernel.extents, kernel.ops)
    for number in sorted(nest.live):
        op, runs = kernel.ops[number], nest.runs(number)
        if op.kind == "scan":
            found += [("mul", runs), ("add", runs)]
        elif op.kind == "accumulate":
            found.append(("add", runs))
        elif op.kind == "reduce":
            monoid = op.value[0]
            found.append((MONOIDS.get(monoid, monoid), runs))
        else:
            found.append((op.kind, runs))
    return found


class Nest:
    """What each operation of a kernel depends on, and in which passes it is computed."""

    def __init__(self, extents: Sequence[int | Dim], ops: Sequence[KernelOp]) -> None:
        self.extents = extents
        self.ops = ops
        self.reduced = {a for op in ops if op.kind == "reduce" for a in op.value[1]}
        self.reduced |= {op.value[0] for op in ops if op.kind == "scan"}
        self.axes: list[frozenset[int]] = []
        self.stages: list[int] = []
        for op in ops:
            sources = sources_of(op)
            self.axes.append(self.axes_of(op, sources))
            self.stages.append(max((self.stages[s] for s in sources), default=0) + (op.kind == "reduce"))
        self.live = closure(ops, [k for k, op in enumerate(ops) if op.kind in EFFECTS])
        self.passes = self.computed_in()

    def axes_of(self, op: KernelOp, sources: Sequence[int]) -> frozenset[int]:
        found = {a for s in sources for a in self.axes[s]}
        if op.map is not None:
            rows = (op.map.strides, *(guard.strides for guard in op.map.guards))
            found |= {a for row in rows for a, stride in enumerate(row) if not is_zero(stride)}
        if op.kind == "iota":
            found.add(op.value)
        if op.kind == "scan":
            found.add(op.value[0])
        if op.kind == "reduce":
            found -= self.reduced
        if op.kind in ("accumulate", "accumulator"):
            found |= set(range(len(self.extents))) - self.reduced
        return frozenset(found)

    def computed_in(self) -> dict[int, int]:
        """In how many passes an operation that varies along a reduced axis is computed."""
        counts: dict[int, int] = {}
        for stage in range(max((self.stages[k] for k in self.live), default=0) + 1):
            ends = [k for k in self.live if (self.ops[k].kind == "reduce" and self.stages[k] == stage + 1) or (
                self.ops[k].kind in EFFECTS and self.stages[k] == stage and self.axes[k] & self.reduced)]
            for k in self.needed(ends, stage):
                counts[k] = counts.get(k, 0) + 1
        return counts

    def needed(self, ends: Sequence[int], stage: int) -> set[int]:
        """What a pass computes: all that its ends are made of, up to earlier reductions and kept values."""
        found: set[int] = set()
        pending = list(ends)
        while pending:
            k = pending.pop()
            op = self.ops[k]
            if k in found or (op.kind == "reduce" and k not in ends):
                continue
            found.add(k)
            is_read_back = op.kind == "keep" and self.stages[k] < stage
            pending += indices_of(op) if is_read_back else sources_of(op)
        return found

    def runs(self, number: int) -> int | Dim:
        """How often the operation runs."""
        op, axes = self.ops[number], self.axes[number]
        parallel = [a for a in range(len(self.extents)) if a not in self.reduced]
        inner = sorted(self.reduced)
        if op.kind == "reduce":
            return product([self.extents[a] for a in (*parallel, *inner)])
        if axes & self.reduced:
            last = max(inner.index(a) for a in axes & self.reduced)
            points = product([self.extents[a] for a in (*parallel, *inner[:last + 1])])
            return points * self.passes.get(number, 1)
        last = max((parallel.index(a) for a in axes), default=-1)
        return product([self.extents[a] for a in parallel[:last + 1]])


def closure(ops: Sequence[KernelOp], ends: Sequence[int]) -> set[int]:
    found: set[int] = set()
    pending = list(ends)
    while pending:
        k = pending.pop()
        if k not in found:
            found.add(k)
            pending += sources_of(ops[k])
    return found


def sources_of(op: KernelOp) -> tuple[int, ...]:
    """The operations whose values it reads, those in its address included."""
    return op.operands + indices_of(op)


def indices_of(op: KernelOp) -> tuple[int, ...]:
    return tuple(k for k, _, _ in op.map.indices) if op.map is not None else ()


def is_zero(size: int | Dim) -> bool:
    return isinstance(size, int) and size == 0
