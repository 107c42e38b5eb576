"""Order of the steps: operands before users, old values of variables before their updates, few buffers alive at a time.

Groups already come in an order that works; the only freedom used is to put the writer of a variable behind all steps
that read its old value, so that it may write in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import heapq

from graphc.ir.node import Node

from .builder import Draft


def dependencies(steps: Sequence[Draft], state: Mapping[Node, Node]) -> list[set[int]]:
    """For each step the steps that must come before it.  `state` maps a root to the variable that it becomes."""
    writers: dict[Node, list[int]] = {}
    for k, step in enumerate(steps):
        for node in step.writes:
            writers.setdefault(node, []).append(k)
    before: list[set[int]] = []
    for k, step in enumerate(steps):
        own = {w for place in step.reads() if isinstance(place, Node) for w in writers.get(place, ())}
        own |= {w for node in step.writes for w in writers[node] if w < k}
        before.append(own - {k})
    place = positions(before)
    for reader, writer in [*after_old_values(steps, state, writers), *after_range_checks(steps, state, writers)]:
        if place[reader] < place[writer] or (reader != writer and not reaches(before, reader, writer)):
            before[writer].add(reader)
            if place[reader] > place[writer]:
                place = positions(before)
    return before


def positions(before: Sequence[set[int]]) -> list[int]:
    """Where each step stands in an order that honours its dependencies."""
    found = [0] * len(before)
    for position, k in enumerate(in_order(before)):
        found[k] = position
    return found


def after_old_values(steps: Sequence[Draft], state: Mapping[Node, Node],
                     writers: Mapping[Node, Sequence[int]]) -> list[tuple[int, int]]:
    """(reader of a variable, writer of its new value)."""
    new_value = {variable: root for root, variable in state.items()}
    return [(k, w) for k, step in enumerate(steps) for place in step.reads()
            if isinstance(place, Node) and place in new_value for w in writers.get(new_value[place], ())]


def after_range_checks(steps: Sequence[Draft], state: Mapping[Node, Node],
                       writers: Mapping[Node, Sequence[int]]) -> list[tuple[int, int]]:
    """(writer of an index buffer, writer of a variable): a call that is refused leaves variables as they were."""
    made = dict.fromkeys(w for step in steps for held in step.index_buffers for w in writers.get(held, ()))
    return [(maker, w) for maker in made for root in state for w in writers.get(root, ())]


def reaches(before: Sequence[set[int]], start: int, target: int) -> bool:
    """Whether `start` must run after `target`."""
    seen: set[int] = set()
    pending = [start]
    while pending:
        k = pending.pop()
        if k == target:
            return True
        if k not in seen:
            seen.add(k)
            pending += before[k]
    return False


def schedule(steps: Sequence[Draft], state: Mapping[Node, Node]) -> list[Draft]:
    """The steps in an order that honours their dependencies; of those ready, the one that came first."""
    return [steps[k] for k in in_order(dependencies(steps, state))]


def in_order(before: Sequence[set[int]]) -> list[int]:
    waiting = [len(b) for b in before]
    after: list[list[int]] = [[] for _ in before]
    for k, b in enumerate(before):
        for other in sorted(b):
            after[other].append(k)
    ready = [k for k, n in enumerate(waiting) if n == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for user in after[k]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    return order
