"""Roots -> groups: which roots are computed by one kernel.

    max1 = max(x, axes=(1,))       \
    e    = exp(x - bcast(max1))     |   one group over the axes (batch, 10), reducing axis 1:
    z    = sum(e, axes=(1,))        |   three passes over a row while it is in cache
    y    = e / bcast(z)            /

A root joins the group of a root that it reads (or that reads the same buffers) when

1. it has the group's axes, or those without the reduced ones;
2. it reduces the group's reduced axes, or nothing;
3. it reads the group's roots only in place: the element it is computing;
4. a row stays in cache until the pass that reads it again;
5. no root outside the group lies on a path from the group to it;
6. it is needed in the same alternatives of choices by sizes (`branches`).

The result of a matrix product takes the elementwise roots that read it in place into its epilogue.  What is said here
is what may be one kernel; groups that are formed one root at a time are put together by their cost in `merging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from graphc.ir.costs import ROW_NBYTES
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import itemsize

from .branches import Cases, When
from .coordinates import Coordinates, axis, identity
from .roots import PIECEWISE, estimate, is_contraction
from .spaces import Shape, Walk, Walks, iteration_space, piecewise_reads

MOST_STREAMS = 14  # buffers that one kernel runs through at a time
LARGE = 4096  # elements of a buffer that does not just stay in cache
MOST_OPS = 400  # scalar operations in one kernel
COLUMNS = 64  # neighbouring columns that a kernel goes down at once
RECENT = 8  # readers of a buffer that are asked whether one more may join them

Axes = tuple[int, ...]


@dataclass(eq=False)
class Group:
    """Roots of one kernel; `domain` are the kernel's axes, `reduced` those that its reductions drop."""

    number: int
    kind: str  # loops, contraction, alone
    domain: Shape
    reduced: frozenset[int]
    roots: dict[Node, None] = field(default_factory=dict)  # in the order of computation
    reads: dict[Node, None] = field(default_factory=dict)  # roots and leaves of other kernels
    inlined: dict[Node, None] = field(default_factory=dict)
    large: dict[Node, None] = field(default_factory=dict)  # roots and reads that do not just stay in cache
    after: set[Group] = field(default_factory=set)  # groups that must run before
    before: set[Group] = field(default_factory=set)  # groups that must run after
    level: int = 0  # above the levels of all groups that must run before
    when: When = ()  # the cases in which its kernel runs

    @property
    def kept(self) -> Axes:
        return tuple(k for k in range(len(self.domain)) if k not in self.reduced)

    @property
    def row_shape(self) -> Shape:
        return tuple(self.domain[k] for k in self.kept)

    @property
    def extents(self) -> Shape:
        """The axes over which its roots are computed (an epilogue has no reduced axis)."""
        return next(iter(self.roots)).shape if self.kind == "contraction" else self.domain

    def add(self, root: Node, own: Walk, reduced: frozenset[int]) -> None:
        self.reduced = reduced or self.reduced
        self.roots[root] = None
        self.inlined.update(dict.fromkeys(own.inlined))
        self.reads.update(dict.fromkeys(node for node, _ in own.reads if node not in self.roots))
        self.large.update(dict.fromkeys(node for node in (root, *(n for n, _ in own.reads)) if is_large(node)))


class Grouping:
    """Groups under construction, in the order of their first roots."""

    def __init__(self, roots: set[Node], cases: Cases) -> None:
        self.cases = cases
        self.walks = Walks(roots)
        self.groups: dict[Group, None] = {}
        self.group_of: dict[Node, Group] = {}
        self.readers: dict[Node, dict[Group, None]] = {}
        self.number = 0

    def add(self, root: Node) -> None:
        domain, reduced = iteration_space(root)
        if root.op.name in PIECEWISE:
            self.open(root, "alone", domain, reduced, piecewise_reads(root, self.walks.roots))
            return
        own = self.walks.of(root, tuple(range(len(domain))), domain)
        if is_contraction(root):
            self.open(root, "contraction", domain, reduced, own)
            return
        for group in self.candidates(own, domain):
            axes = self.place(root, group)
            if isinstance(axes, tuple) and not self.depends(self.sources(own, group), group):
                self.record(root, group, self.walks.of(root, axes, group.extents), reduced)
                return
        self.open(root, "loops", domain, reduced, own)

    def open(self, root: Node, kind: str, domain: Shape, reduced: frozenset[int], own: Walk) -> None:
        group = Group(self.number, kind, domain, reduced, when=self.cases[root])
        self.number += 1
        self.groups[group] = None
        self.record(root, group, own, reduced)

    def record(self, root: Node, group: Group, own: Walk, reduced: frozenset[int]) -> None:
        group.add(root, own, reduced)
        self.group_of[root] = group
        self.connect(group, [node for node, _ in own.reads if node not in group.roots])

    def connect(self, group: Group, reads: Iterable[Node]) -> None:
        """Enters what a group reads, and with it what must run before it."""
        for node in reads:
            self.readers.setdefault(node, {})[group] = None
            if node in self.group_of:
                group.after.add(self.group_of[node])
                self.group_of[node].before.add(group)
        self.lift(group)

    def lift(self, group: Group) -> None:
        """Raises levels until each is above those that must run before."""
        pending = [group]
        while pending:
            one = pending.pop()
            least = 1 + max((g.level for g in one.after), default=-1)
            if least > one.level:
                one.level = least
                pending += one.before

    def sources(self, own: Walk, group: Group) -> set[Group]:
        """The other groups that a root reads."""
        return {self.group_of[n] for n, _ in own.reads if n in self.group_of} - {group}

    def candidates(self, own: Walk, domain: Shape) -> Iterator[Group]:
        """Groups of the roots that are read, latest first; then those that read the same buffers; then scalars."""
        producers = {self.group_of[n] for n, _ in own.reads if n in self.group_of}
        yield from sorted(producers, key=lambda g: -g.number)
        shared = {g for n, _ in own.reads for g in recent(self.readers.get(n, {}))} - producers
        yield from sorted((g for g in shared if g.kind == "loops"), key=lambda g: -g.number)
        if domain == ():
            yield from (g for g in recent(self.groups) if g.domain == () and g not in shared)

    # -- what may be one kernel --
    def place(self, root: Node, group: Group) -> Axes | str:
        """The axes of the group that are the root's, or why it cannot run there."""
        axes = self.axes(root, group)
        if isinstance(axes, str):
            return axes
        own = self.walks.of(root, axes, group.extents)
        reads = dict.fromkeys(n for n, _ in own.reads)
        for node, at in own.reads:
            if node in group.roots and (at is None or at != in_place(node, group)):
                return f"{root.name} reads {node.name} elsewhere than where it is computed"
            if node in group.roots and len(axes) < len(group.domain) and node.shape != group.row_shape:
                return f"{root.name} has one value per row, {node.name} has many"
        if len(axes) == len(group.domain) and any(n in group.roots and is_row(n, group) for n in reads) and (
                size := row_nbytes(root, group)) > ROW_NBYTES:
            return f"a row of {size} bytes is out of cache when {root.name} reads it again"
        streams = sum(is_stream(n, group) for n in {**group.large, **reads, root: None})
        if streams > MOST_STREAMS:
            return f"{streams} buffers, at most {MOST_STREAMS}"
        if (count := len(group.inlined) + len(own.inlined)) > MOST_OPS and (
                count := len({**group.inlined, **dict.fromkeys(own.inlined)})) > MOST_OPS:
            return f"{count} operations, at most {MOST_OPS}"
        if group.kind == "contraction" and any(n.op.name in ("iota", "gather") for n in (root, *own.inlined)):
            return f"{root.name} reads by index, which an epilogue does not"
        return axes

    def axes(self, root: Node, group: Group) -> Axes | str:
        """Which of the group's axes the root's are, by their sizes."""
        domain, reduced = iteration_space(root)
        if group.when != self.cases[root]:
            return "they run in other cases of sizes"
        if group.kind == "alone" or root.op.name in PIECEWISE:
            return f"{(next(iter(group.roots)) if group.kind == 'alone' else root).op.name} is written by pieces"
        if group.kind == "contraction":
            if reduced or domain != group.extents:
                return (f"an epilogue runs over {shape_text(group.extents)}, "
                        f"{root.name} over {space_text(domain, reduced)}")
            return tuple(range(len(domain)))
        if domain == group.domain and (not reduced or not group.reduced or reduced == group.reduced):
            rows = any(r.shape != group.domain for r in group.roots) if reduced and not group.reduced else False
            return "rows are not of this reduction" if rows else tuple(range(len(domain)))
        if not reduced and group.reduced and domain == group.row_shape:
            return group.kept
        return f"{root.name} runs over {space_text(domain, reduced)}, not {space_text(group.domain, group.reduced)}"

    def depends(self, groups: Iterable[Group], target: Group) -> bool:
        """Whether one of the groups runs after `target`: a walk through what lies above it."""
        seen: set[Group] = set()
        pending = [g for g in groups if g.level >= target.level]
        while pending:
            group = pending.pop()
            if group is target:
                return True
            if group not in seen:
                seen.add(group)
                pending += [g for g in group.after if g.level >= target.level]
        return False


def recent(groups: dict[Group, None]) -> list[Group]:
    """The latest few, latest last."""
    found = []
    for group in reversed(groups):
        found.append(group)
        if len(found) == RECENT:
            break
    return found[::-1]


def in_place(node: Node, group: Group) -> Coordinates:
    """The coordinates of the element of a group's root that the kernel is at."""
    rank = len(group.extents)
    if group.kind == "contraction" or (node.shape == group.extents and not is_row(node, group)):
        return identity(rank)
    return tuple(axis(k, rank) for k in group.kept)


def is_row(root: Node, group: Group) -> bool:
    """Whether a root of the group has one value for each row."""
    return bool(group.reduced) and (bool(iteration_space(root)[1]) or root.shape != group.domain)


def is_stream(node: Node, group: Group) -> bool:
    """Whether a kernel runs through the whole of a large buffer."""
    return is_large(node) and node.ndim >= len(group.domain) - len(group.reduced)


def is_large(node: Node) -> bool:
    return estimate(node.size) >= LARGE


def row_nbytes(root: Node, group: Group) -> int:
    """Bytes that a kernel reads of one buffer before it comes to the next row, or the next few columns."""
    last = len(group.domain) - 1
    columns = 1 if last in group.reduced else min(COLUMNS, estimate(group.domain[last]))
    return estimate(product([group.domain[k] for k in group.reduced])) * columns * itemsize(root.dtype)


def shape_text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"


def space_text(domain: Shape, reduced: Iterable[int]) -> str:
    """(64, 10) less axis 1."""
    dropped = ", ".join(map(str, sorted(reduced)))
    return shape_text(domain) + (f" less axis {dropped}" if dropped else "")


def grouped(roots: set[Node], cases: Cases) -> Grouping:
    """Every root in a group."""
    grouping = Grouping(roots, cases)
    for root in sorted(roots, key=lambda n: n.id):
        grouping.add(root)
    return grouping
