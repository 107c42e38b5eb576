"""Order of the steps: operands before users, old values of variables before their updates, few buffers alive at a time.

The writer of a variable stands behind all steps that read its old value, so that it may write in place.  A step that is
the last to read what it reads runs as soon as it can: the update of a layer's weights follows its gradient.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence

from graphc.ir.node import Node

from .builder import Draft, Place
from .memory import nbytes_of
from .roots import estimate

WINDOW = 32  # ready steps of which the best is chosen


def dependencies(steps: Sequence[Draft], state: Mapping[Node, Node]) -> list[set[int]]:
    """For each step the steps that must come before it.  `state` maps a root to the variable that it becomes."""
    writers: dict[Place, list[int]] = {}
    for k, step in enumerate(steps):
        for node in step.writes:
            writers.setdefault(node, []).append(k)
    before: list[set[int]] = []
    for k, step in enumerate(steps):
        own = {w for place in step.reads() for w in writers.get(place, ())}
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
                     writers: Mapping[Place, Sequence[int]]) -> list[tuple[int, int]]:
    """(reader of a variable, writer of its new value)."""
    new_value = {variable: root for root, variable in state.items()}
    return [(k, w) for k, step in enumerate(steps) for place in step.reads()
            if isinstance(place, Node) and place in new_value for w in writers.get(new_value[place], ())]


def after_range_checks(steps: Sequence[Draft], state: Mapping[Node, Node],
                       writers: Mapping[Place, Sequence[int]]) -> list[tuple[int, int]]:
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


def schedule(steps: Sequence[Draft], state: Mapping[Node, Node], resident: set[Place]) -> list[Draft]:
    """The steps in an order that honours their dependencies; `resident` places take no arena.

    Of those ready, one that leaves fewer bytes alive than before, the one that leaves the fewest; else the one that
    came first.
    """
    bytes_of = {p: estimate(nbytes_of(p)) for step in steps for p in step.places if p not in resident}
    readers: dict[Place, int] = {}
    for step in steps:
        for place in set(step.reads()):
            readers[place] = readers.get(place, 0) + 1

    def growth(k: int) -> int:
        """Bytes that are alive after step k and were not before, less those that were."""
        step = steps[k]
        made = sum(bytes_of.get(p, 0) for p in step.writes if readers.get(p, 0))
        return made - sum(bytes_of.get(p, 0) for p in set(step.reads()) if readers[p] == 1)

    def best(ready: list[int]) -> int:
        return min(ready, key=lambda k: (min(0, growth(k)), k))

    order: list[Draft] = []
    for k in in_order(dependencies(steps, state), best):
        order.append(steps[k])
        for place in set(steps[k].reads()):
            readers[place] -= 1
    return order


def in_order(before: Sequence[set[int]], choose: Callable[[list[int]], int] = min) -> Iterator[int]:
    """The steps one by one, chosen from the first of those of which all that must come before is done."""
    waiting = [len(b) for b in before]
    after: list[list[int]] = [[] for _ in before]
    for k, b in enumerate(before):
        for other in sorted(b):
            after[other].append(k)
    ready = [k for k, n in enumerate(waiting) if n == 0]
    while ready:
        k = choose(ready[:WINDOW])
        ready.remove(k)
        yield k
        for user in after[k]:
            waiting[user] -= 1
            if waiting[user] == 0:
                insort(ready, user)
