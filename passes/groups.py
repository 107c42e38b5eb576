"""Roots -> groups: which roots are computed by one kernel.

    max1 = max(x, axes=(1,))       \
    e    = exp(x - bcast(max1))     |   one group over the axes (batch, 10), reducing axis 1:
    z    = sum(e, axes=(1,))        |   three passes over a row while it is in cache
    y    = e / bcast(z)            /

A root joins the group of a root that it reads (or that reads the same buffers) when

1. it has the group's axes, or those without the reduced ones;
2. it reduces the group's reduced axes, or nothing;
3. it reads the group's roots only in place: the element it is computing;
4. no root outside the group lies on a path from the group to it;
5. it is needed in the same alternatives of choices by sizes (`branches`).

The result of a matrix product takes the elementwise roots that read it in place into its epilogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from graphc.ir.costs import weight
from graphc.ir.dims import Dim
from graphc.ir.node import Node

from .branches import Cases, When
from .coordinates import Coordinates, axis, identity, operand_coordinates
from .roots import (
    CHEAP,
    PIECEWISE,
    REDUCTIONS,
    estimate,
    is_contraction,
    is_count,
    is_known,
    label_sizes,
    storage,
    without_casts,
)

Shape = tuple["int | Dim", ...]
MOST_STREAMS = 14  # buffers that one kernel runs through at a time
LARGE = 4096  # elements of a buffer that does not just stay in cache
MOST_OPS = 400  # scalar operations in one kernel


@dataclass(eq=False)
class Group:
    """Roots of one kernel; `domain` are the kernel's axes, `reduced` those that its reductions drop."""

    number: int
    kind: str  # loops, contraction, alone
    domain: Shape
    reduced: frozenset[int]
    roots: list[Node] = field(default_factory=list)
    reads: set[Node] = field(default_factory=set)  # roots and leaves of other kernels
    inlined: set[Node] = field(default_factory=set)
    after: set[Group] = field(default_factory=set)  # groups that must run before
    when: When = ()  # the cases in which its kernel runs

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(k for k in range(len(self.domain)) if k not in self.reduced)

    @property
    def row_shape(self) -> Shape:
        return tuple(self.domain[k] for k in self.kept)


def iteration_space(root: Node) -> tuple[Shape, frozenset[int]]:
    """The axes over which a root is computed, and those that it reduces."""
    if root.op.name in REDUCTIONS and not is_count(root):
        axes = root.attrs["axes"] if "axes" in root.attrs else (root.attrs["axis"],)
        return root.operands[0].shape, frozenset(axes)
    if root.op.name == "einsum":
        sizes = label_sizes(root)
        inner = [x for x in sizes if x not in root.attrs["out"]]
        labels = (*root.attrs["out"], *inner)
        return tuple(sizes[x] for x in labels), frozenset(range(len(root.shape), len(labels)))
    return root.shape, frozenset()


def operand_places(root: Node, axes: tuple[int, ...], extents: Shape) -> list[Coordinates | None]:
    """Where a root reads its operands; `axes[k]` is the kernel's axis for axis k of the root's iteration space."""
    own = tuple(axis(k, len(extents)) for k in axes)
    if root.op.name == "einsum":
        inner = [x for x in label_sizes(root) if x not in root.attrs["out"]]
        place = dict(zip((*root.attrs["out"], *inner), own))
        return [tuple(place[x] for x in labels) for labels in root.attrs["labels"]]
    if root.op.name in REDUCTIONS:
        return [own]
    return [operand_coordinates(root, k, own, extents) for k in range(len(root.operands))]


@dataclass
class Walk:
    """What a root reads, as (root or leaf, coordinates, None where it needs the flat buffer), and the nodes inlined."""

    reads: list[tuple[Node, Coordinates | None]] = field(default_factory=list)
    inlined: list[Node] = field(default_factory=list)


def walk(root: Node, axes: tuple[int, ...], extents: Shape, roots: set[Node]) -> Walk:
    """The expression of a root, down to buffers."""
    found = Walk(index_reads(root, roots))
    seen: set[tuple[int, Coordinates | None]] = set()
    pending = list(zip(root.operands, operand_places(root, axes, extents))) if not is_known(root) else []
    while pending:
        node, at = pending.pop()
        if (node.id, at) in seen:
            continue
        seen.add((node.id, at))
        held = storage(node, roots)
        if held is not None:
            found.reads.append((held, through_reshapes(node, held, at, extents)))
            continue
        if is_known(node):
            continue
        found.inlined.append(node)
        found.reads += index_reads(node, roots)
        assert at is not None, f"{node!r} must lie in a buffer"
        for k, operand in enumerate(node.operands):
            pending.append((operand, operand_coordinates(node, k, at, extents)))
    return found


def index_reads(node: Node, roots: set[Node]) -> list[tuple[Node, Coordinates | None]]:
    """The buffers of a gather's indices: their range is checked before the kernel runs, so it cannot compute them."""
    if node.op.name != "gather":
        return []
    return [(held, None) for o in node.operands[1:] if (held := storage(without_casts(o), roots)) is not None]


def through_reshapes(node: Node, held: Node, at: Coordinates | None, extents: Shape) -> Coordinates | None:
    """Where `held` is read when what it is reshaped to is read at `at`; None where that is no affine place."""
    while node is not held and at is not None:
        at = operand_coordinates(node, 0, at, extents)
        node = node.operands[0]
    return at


class Grouping:
    """Groups under construction, in the order of their first roots."""

    def __init__(self, roots: set[Node], cases: Cases) -> None:
        self.roots = roots
        self.cases = cases
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        self.readers: dict[Node, list[Group]] = {}

    def add(self, root: Node) -> None:
        kind = "alone" if root.op.name in PIECEWISE else "contraction" if is_contraction(root) else "loops"
        domain, reduced = iteration_space(root)
        if kind == "alone":
            self.open(root, kind, domain, reduced, self.plain_reads(root))
            return
        own = walk(root, tuple(range(len(domain))), domain, self.roots)
        if kind == "loops":
            for group in self.candidates(own, domain):
                axes = self.joined_axes(root, group, domain, reduced) if group.when == self.cases[root] else None
                if axes is not None and self.fits(root, group, axes):
                    self.join(root, group, axes, reduced)
                    return
        self.open(root, kind, domain, reduced, own)

    def plain_reads(self, root: Node) -> Walk:
        """What a piecewise root reads: each operand over its own axes."""
        found = Walk()
        for operand in root.operands:
            part = walk_from(operand, self.roots)
            found.reads += part.reads
            found.inlined += part.inlined
        return found

    def open(self, root: Node, kind: str, domain: Shape, reduced: frozenset[int], own: Walk) -> None:
        group = Group(len(self.groups), kind, domain, reduced, when=self.cases[root])
        self.groups.append(group)
        self.record(root, group, own)

    def record(self, root: Node, group: Group, own: Walk) -> None:
        group.roots.append(root)
        self.group_of[root] = group
        group.inlined.update(own.inlined)
        for node, _ in own.reads:
            if self.group_of.get(node) is not group:
                group.reads.add(node)
                if node in self.group_of:
                    group.after.add(self.group_of[node])
                readers = self.readers.setdefault(node, [])
                if group not in readers[-8:]:
                    readers.append(group)

    def candidates(self, own: Walk, domain: Shape) -> Iterator[Group]:
        """Groups of the roots that are read, latest first; then those that read the same buffers; then scalars."""
        producers = {self.group_of[n] for n, _ in own.reads if n in self.group_of}
        yield from sorted(producers, key=lambda g: -g.number)
        shared = {g for n, _ in own.reads for g in self.readers.get(n, ())[-8:]} - producers
        yield from sorted((g for g in shared if g.kind == "loops"), key=lambda g: -g.number)
        if domain == ():
            yield from (g for g in self.groups[-4:] if g.domain == () and g not in shared)

    def joined_axes(self, root: Node, group: Group, domain: Shape, reduced: frozenset[int]) -> tuple[int, ...] | None:
        """Which of the group's axes the root's are, if it may run there."""
        if group.kind == "contraction":
            return tuple(range(len(domain))) if not reduced and domain == group.roots[0].shape else None
        if group.kind != "loops":
            return None
        if domain == group.domain and (not reduced or not group.reduced or reduced == group.reduced):
            rows = any(r.shape != group.domain for r in group.roots) if reduced and not group.reduced else False
            return None if rows else tuple(range(len(domain)))
        return group.kept if not reduced and group.reduced and domain == group.row_shape else None

    def fits(self, root: Node, group: Group, axes: tuple[int, ...]) -> bool:
        own = walk(root, axes, group_extents(group), self.roots)
        for node, at in own.reads:
            if self.group_of.get(node) is group:
                if at is None or at != self.in_place(node, group):
                    return False
                if len(axes) < len(group.domain) and node.shape != group.row_shape:
                    return False
        reads = group.reads | {n for n, _ in own.reads if self.group_of.get(n) is not group}
        if sum(is_stream(n, group) for n in (*reads, *group.roots, root)) > MOST_STREAMS:
            return False
        if len(group.inlined | set(own.inlined)) > MOST_OPS:
            return False
        if group.kind == "contraction" and any(n.op.name in ("iota", "gather") for n in (root, *own.inlined)):
            return False
        others = {self.group_of[n] for n, _ in own.reads if n in self.group_of} - {group}
        return not self.depends(others, group)

    def in_place(self, node: Node, group: Group) -> Coordinates:
        """The coordinates of the element of a group's root that the kernel is at."""
        rank = len(group_extents(group))
        own = group_extents(group)
        if group.kind == "contraction" or (node.shape == own and not is_row(node, group)):
            return identity(rank)
        return tuple(axis(k, rank) for k in group.kept)

    def depends(self, groups: Iterable[Group], target: Group) -> bool:
        """Whether one of the groups runs after `target`."""
        seen: set[Group] = set()
        pending = list(groups)
        while pending:
            group = pending.pop()
            if group is target:
                return True
            if group not in seen:
                seen.add(group)
                pending += group.after
        return False

    def join(self, root: Node, group: Group, axes: tuple[int, ...], reduced: frozenset[int]) -> None:
        if reduced:
            group.reduced = reduced
        self.record(root, group, walk(root, axes, group_extents(group), self.roots))
        group.after.discard(group)


def is_stream(node: Node, group: Group) -> bool:
    """Whether a kernel runs through the whole of a large buffer."""
    return estimate(node.size) >= LARGE and node.ndim >= len(group.domain) - len(group.reduced)


def group_extents(group: Group) -> Shape:
    """The axes over which the roots of a group are computed (an epilogue has no reduced axis)."""
    return group.roots[0].shape if group.kind == "contraction" else group.domain


def is_row(root: Node, group: Group) -> bool:
    """Whether a root of the group has one value for each row."""
    return bool(group.reduced) and (bool(iteration_space(root)[1]) or root.shape != group.domain)


def walk_from(node: Node, roots: set[Node]) -> Walk:
    """What a node reads over its own axes, itself included."""
    held = storage(node, roots)
    if held is not None:
        return Walk([(held, None)], [])
    if is_known(node):
        return Walk()
    part = walk(node, tuple(range(node.ndim)), node.shape, roots)
    part.inlined.append(node)
    return part


def grouped(roots: set[Node], cases: Cases) -> list[Group]:
    grouping = Grouping(roots, cases)
    for root in sorted(roots, key=lambda n: n.id):
        grouping.add(root)
    return grouping.groups


def shared_nodes(groups: list[Group]) -> set[Node]:
    """Inlined nodes that several kernels would compute at a price, the last such ones of every expression."""
    homes: dict[Node, list[Group]] = {}
    for group in groups:
        for node in group.inlined:
            homes.setdefault(node, []).append(group)
    price: dict[Node, float] = {}
    for node in sorted(homes, key=lambda n: n.id):
        price[node] = min(1e9, weight(node.op.name) + sum(price.get(o, 1.0) for o in set(node.operands)))
    dear = {n for n, where in homes.items() if len(where) > 1 and price[n] > CHEAP}
    covered = {o for n in dear for o in n.operands if o in dear and homes[o] == homes[n]}
    return dear - covered | oversized(groups)


def oversized(groups: list[Group]) -> set[Node]:
    """Where to cut expressions that are too long for one kernel: every so many nodes."""
    cuts: set[Node] = set()
    for group in groups:
        if len(group.inlined) > 2 * MOST_OPS:
            ordered = sorted(group.inlined, key=lambda n: n.id)
            cuts.update(n for n in ordered[MOST_OPS::MOST_OPS])
    return cuts


def form_groups(roots: set[Node], cases: Cases) -> tuple[set[Node], list[Group]]:
    """Groups of the roots and of the shared nodes that had to become roots; `cases` of all nodes (`branches`)."""
    for _ in range(64):
        groups = grouped(roots, cases)
        more = shared_nodes(groups) - roots
        if not more:
            break
        roots = roots | more
    return roots, groups
