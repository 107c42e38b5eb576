r"""Groups that are put together because one kernel costs less than two (`graphc.ir.costs`).

    group 0: max, sum over (4096, 1024) less axis 1 \  what one made, the other reads from registers or from a row that
    group 2: y over (4096, 1024)                    /  is still in cache; a buffer that both read is read once

Two groups may be one where the roots of both, in order, may join one group, and no third group must run between.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.node import Node

from .estimates import group_cost
from .groups import Axes, Group, Grouping, recent
from .spaces import iteration_space

WORTHWHILE = 0.01  # a gain below this part of the time is none


class Merging:
    """Merges the groups of a grouping; `readers` are the roots that read a root, `kept` those that must be stored."""

    def __init__(self, grouping: Grouping, readers: dict[Node, set[Node]], kept: set[Node]) -> None:
        self.grouping = grouping
        self.readers = readers
        self.kept = kept
        self.refused: set[tuple[Group, Group]] = set()
        self.times: dict[Group, float] = {}

    def run(self) -> None:
        pending = list(self.grouping.groups)
        for group in pending:
            while group in self.grouping.groups and (made := self.best(group)) is not None:
                group = self.replace(*made)

    def best(self, group: Group) -> tuple[Group, Group, Group] | None:
        """The merger of this group with another that gains most."""
        found: list[tuple[float, int, Group, Group]] = []
        for other in self.neighbours(group):
            pair = (other, group) if other.number < group.number else (group, other)
            if pair in self.refused or not may_fit(*pair):
                continue
            trial = self.together(*pair)
            gain = self.gain(*pair, trial) if isinstance(trial, Group) else 0.0
            if isinstance(trial, Group) and gain > WORTHWHILE * self.time(trial):
                found.append((gain, -other.number, other, trial))
            else:
                self.refused.add(pair)
        if not found:
            return None
        _, _, other, trial = max(found, key=lambda f: f[:2])
        return group, other, trial

    def neighbours(self, group: Group) -> list[Group]:
        """Groups that this one reads, and those that read the same buffers."""
        found = dict.fromkeys(sorted(group.after, key=lambda g: -g.number))
        for node in group.reads:
            found.update(dict.fromkeys(recent(self.grouping.readers.get(node, {}))))
        found.pop(group, None)
        return list(found)

    def together(self, a: Group, b: Group) -> Group | str:
        """The group of the roots of both, or why it cannot be."""
        if "alone" in (a.kind, b.kind) or a.kind == b.kind == "contraction":
            return "each is a step of its own"
        wide = a if a.kind == "contraction" or (b.kind != "contraction" and len(a.domain) >= len(b.domain)) else b
        trial = Group(min(a.number, b.number), wide.kind, wide.domain, wide.reduced, when=a.when)
        if a.domain == b.domain and a.kind == b.kind:
            trial.reduced = a.reduced or b.reduced
        first = next(iter(wide.roots)) if wide.kind == "contraction" else None
        for root in sorted({**a.roots, **b.roots}, key=lambda n: (n is not first, n.id)):
            axes = self.first_axes(root, trial) if not trial.roots else self.grouping.place(root, trial)
            if isinstance(axes, str):
                return axes
            extents = trial.extents if trial.roots else trial.domain
            own = self.grouping.walks.of(root, axes, extents)
            trial.add(root, own, iteration_space(root)[1] if wide.kind == "loops" else frozenset())
            if any(node in b.roots or node in a.roots for node, _ in own.reads if node not in trial.roots):
                return f"{root.name} reads its operands from memory"
        beyond = (a.after | b.after) - {a, b}
        between = next((g for g in sorted(beyond, key=lambda g: g.number)
                        if self.grouping.depends([g], a) or self.grouping.depends([g], b)), None)
        return trial if between is None else f"kernel {between.number} must run between"

    def first_axes(self, root: Node, trial: Group) -> Axes | str:
        """The axes of the first root of a group of which the axes are known."""
        if self.grouping.cases[root] != trial.when:
            return "they run in other cases of sizes"
        if trial.kind == "contraction":
            return tuple(range(len(trial.domain)))
        return self.grouping.axes(root, trial)

    def gain(self, a: Group, b: Group, trial: Group) -> float:
        """Nanoseconds that one kernel saves."""
        return self.time(a) + self.time(b) - self.time(trial)

    def time(self, group: Group) -> float:
        if group not in self.times:
            self.times[group] = group_cost(group, self.is_stored(group)).time
        return self.times[group]

    def is_stored(self, group: Group) -> Callable[[Node], bool]:
        return lambda root: root in self.kept or any(r not in group.roots for r in self.readers.get(root, ()))

    def replace(self, a: Group, b: Group, new: Group) -> Group:
        """The grouping with the new group in the place of the two."""
        grouping = self.grouping
        for old in (a, b):
            del grouping.groups[old]
            for other in old.after:
                other.before.discard(old)
            for other in old.before:
                other.after.discard(old)
            for node in old.reads:
                grouping.readers[node].pop(old, None)
        new.before = (a.before | b.before) - {a, b}
        for other in new.before:
            other.after.add(new)
        for root in new.roots:
            grouping.group_of[root] = new
        grouping.groups[new] = None
        grouping.connect(new, new.reads)
        for other in sorted(new.before, key=lambda g: g.level):
            grouping.lift(other)
        return new


def may_fit(a: Group, b: Group) -> bool:
    """What can be seen at once: equal axes, or those of the rows."""
    if "alone" in (a.kind, b.kind) or a.when != b.when:
        return False
    if "contraction" in (a.kind, b.kind):
        product, other = (a, b) if a.kind == "contraction" else (b, a)
        return other.kind == "loops" and other.domain == product.extents and not other.reduced
    return a.domain == b.domain or a.domain == b.row_shape or b.domain == a.row_shape
