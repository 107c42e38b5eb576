"""Fusion: the nodes of a request -> groups, one for each kernel.

    kernel 0  loops  max+exp+sum+sub  over (4096, 1024) less axis 1
      reads 16.8 MB, writes 16.8 MB, 126 M operations: 1.34 ms (memory)
      makes  y

1. Roots are what must be in memory (`roots`), and what is worth storing because several kernels need it (`sharing`).
2. Every root joins a group of those before it, or opens one (`groups`).
3. What several groups would compute at a price becomes a root too, and 2 is done again.
4. Groups whose one kernel is cheaper than two are merged (`merging`).

`fusion_text` shows what came out, what it costs, and why neighbours stayed apart: GRAPHC_DUMP=fuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.costs import Cost
from graphc.ir.node import Node

from .branches import Cases
from .estimates import group_cost
from .groups import Group, Grouping, grouped, space_text
from .merging import Merging
from .roots import PIECEWISE, forced_roots, is_leaf
from .sharing import expected_roots, shared_nodes
from .spaces import iteration_space, piecewise_reads

ROUNDS = 64  # of forming groups and storing what they share


@dataclass(frozen=True)
class Fusion:
    """Groups in an order that need not be that of their kernels; `stored` are the roots that others read."""

    roots: set[Node]
    groups: list[Group]
    stored: set[Node]
    merging: Merging


def fuse(targets: Sequence[Node], cases: Cases) -> Fusion:
    """The groups of all that the targets need; `cases` of all nodes (`branches`)."""
    roots = forced_roots(targets)
    roots |= expected_roots(targets, roots)
    for _ in range(ROUNDS):
        grouping = grouped(roots, cases)
        more = shared_nodes(list(grouping.groups), roots) - roots
        if not more:
            break
        roots = roots | more
    kept = {t for t in targets if not is_leaf(t)} | {r for r in roots if grouping.group_of[r].kind == "alone"}
    merging = Merging(grouping, readers_of(grouping), kept)
    merging.run()
    groups = sorted(grouping.groups, key=lambda g: g.number)
    stored = kept | {node for group in groups for node in group.reads if node in roots}
    return Fusion(roots, groups, stored, merging)


def readers_of(grouping: Grouping) -> dict[Node, set[Node]]:
    """For each root the roots whose expressions read it."""
    found: dict[Node, set[Node]] = {}
    for root in grouping.group_of:
        domain, _ = iteration_space(root)
        own = (piecewise_reads(root, grouping.walks.roots) if root.op.name in PIECEWISE
               else grouping.walks.of(root, tuple(range(len(domain))), domain))
        for node, _ in own.reads:
            found.setdefault(node, set()).add(root)
    return found


# -- text --
def fusion_text(fusion: Fusion) -> str:
    """Every group with its figures, and why it is not one with those that it reads."""
    number = {group: k for k, group in enumerate(fusion.groups)}
    lines: list[str] = []
    for group, k in number.items():
        cost = group_cost(group, lambda root: root in fusion.stored)
        label = "+".join(dict.fromkeys(r.op.name for r in group.roots))
        lines += [f"kernel {k}  {group.kind}  {label}  over {space_text(group.domain, group.reduced)}",
                  f"  {cost_text(cost)}"]
        if made := [r.name for r in group.roots if r in fusion.stored]:
            lines.append(f"  makes {', '.join(made)}")
        lines += [f"  apart from {number[other]}: {apart(fusion.merging, other, group)}"
                  for other in sorted(group.after, key=lambda g: number[g])]
    return "\n".join(lines) + "\n"


def cost_text(cost: Cost) -> str:
    limit = f"moving from {cost.level}" if cost.moving >= cost.computing else "computing"
    return (f"reads {quantity(cost.read)}B, writes {quantity(cost.written)}B: {duration(cost.moving)}; "
            f"{quantity(cost.operations)} operations: {duration(cost.computing)}; "
            f"time {duration(cost.time)} ({limit})")


def apart(merging: Merging, a: Group, b: Group) -> str:
    """Why two groups are not one."""
    trial = merging.together(a, b)
    if isinstance(trial, str):
        return trial
    parts = duration(merging.time(a) + merging.time(b))
    return f"one kernel would take {duration(merging.time(trial))}, two take {parts}"


def quantity(value: float) -> str:
    """Three digits and a unit: 16.8 M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "


def duration(nanoseconds: float) -> str:
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if nanoseconds >= factor:
            return f"{nanoseconds / factor:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"
