"""Where every buffer lives: lifetimes -> offsets in one arena, in place where an operand dies.

A root is stored in the output or variable it becomes, else in the arena.  Buffers of known size get the lowest offset
at which they fit beside all that are alive with them; buffers of symbolic size share slots, one slot's size being the
largest of its buffers', so that the offsets are expressions of the run-time sizes.

Invariant (checked by `overlaps`): two buffers alive at the same step do not share a byte, unless one takes the other's
place in the step that reads it last, element by element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphc.ir.dims import Dim, maximum, product
from graphc.ir.plan import Contraction, Kernel, Map, is_straight
from graphc.ir.rows import needs_of, passes_of
from graphc.ir.types import itemsize

from .builder import Draft, Place, Scratch

ALIGNMENT = 64


@dataclass(eq=False)
class Lifetime:
    """A buffer of the arena, alive from step `first` to step `last`, both included."""

    place: Place
    nbytes: int | Dim
    first: int
    last: int
    offset: int | Dim = 0


@dataclass
class Slot:
    """Arena space that buffers of symbolic size use one after the other."""

    nbytes: int | Dim
    free_from: int
    members: list[Lifetime] = field(default_factory=list)


def aligned(nbytes: int | Dim) -> int | Dim:
    return (nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def nbytes_of(place: Place) -> int | Dim:
    return aligned(product(place.shape) * itemsize(place.dtype))


def lifetimes(steps: Sequence[Draft], elsewhere: set[Place], same: Mapping[Place, Place]) -> list[Lifetime]:
    """Lifetimes of what lives in the arena; `same` says which place shares another's buffer."""
    found: dict[Place, Lifetime] = {}
    for k, step in enumerate(steps):
        for place in step.places:
            home = same.get(place, place)
            if home in elsewhere:
                continue
            known = found.setdefault(home, Lifetime(home, nbytes_of(home), k, k))
            known.last = k
    return list(found.values())


def in_place(steps: Sequence[Draft], elsewhere: set[Place]) -> dict[Place, Place]:
    """For each root that can take the buffer of an operand dying in the step that writes it: that operand."""
    last_use: dict[Place, int] = {}
    writers: dict[Place, int] = {}
    for k, step in enumerate(steps):
        for place in step.places:
            last_use[place] = k
        for place in step.writes:
            writers[place] = writers.get(place, 0) + 1
    same: dict[Place, Place] = {}
    until: dict[Place, int] = dict(last_use)  # the last use of whatever shares a home
    for k, step in enumerate(steps):
        taken: set[Place] = set()
        for root in step.writes:
            if root in elsewhere or writers[root] > 1:
                continue
            for operand in step.reads():
                home = same.get(operand, operand)
                is_free = last_use[operand] == k == until[home] and home not in taken
                if (is_free and operand not in elsewhere and home not in elsewhere and not isinstance(operand, Scratch)
                        and fits_in_place(step, operand, root)):
                    same[root] = home
                    until[home] = max(until[home], last_use[root])
                    taken.add(home)
                    break
    return same


def fits_in_place(step: Draft, operand: Place, root: Place) -> bool:
    """Whether the step may overwrite the operand with the root: it reads and writes them with one and the same map, and
    no pass over the row reads the operand after the one that stores the root."""
    kernel = step.kernel
    if operand.dtype != root.dtype or operand.shape != root.shape:
        return False
    if isinstance(kernel, Kernel) and is_straight(kernel):
        return True
    source, target = position(step, operand), position(step, root)
    if isinstance(kernel, Contraction) and source in (kernel.a.argument, kernel.b.argument):
        return False
    if any(op.kind in ("scan", "accumulate") for op in kernel.ops):
        return False
    if any(op.kind == "keep" and op.map and op.map.argument == target for op in kernel.ops):
        return False
    loads = [k for k, op in enumerate(kernel.ops) if op.map and op.map.argument == source]
    stores = [k for k, op in enumerate(kernel.ops) if op.map and op.map.argument == target]
    if len(stores) != 1 or not loads or any(kernel.ops[k].kind != "load" for k in loads):
        return False
    store, first = kernel.ops[stores[0]].map, passes_of(kernel.ops)
    need = needs_of(kernel.ops, first)
    return all(replaced_map(kernel.ops[k].map) == replaced_map(store) and need[k] <= first[stores[0]] for k in loads)


def replaced_map(m: Map | None) -> Map | None:
    """The map without its argument, for comparison."""
    return m and replace(m, argument=0)


def position(step: Draft, place: Place) -> int:
    return next(k for k, p in enumerate(step.places) if p is place)


def assign_offsets(found: Sequence[Lifetime]) -> int | Dim:
    """Gives every lifetime its offset; returns the bytes of the arena."""
    total: int | Dim = best_fit([b for b in found if isinstance(b.nbytes, int)])
    slots: list[Slot] = []
    for buffer in sorted((b for b in found if not isinstance(b.nbytes, int)), key=lambda b: b.first):
        free = [s for s in slots if s.free_from <= buffer.first]
        slot = next((s for s in free if s.nbytes == buffer.nbytes), free[0] if free else None)
        if slot is None:
            slot = Slot(buffer.nbytes, 0)
            slots.append(slot)
        slot.nbytes = maximum(slot.nbytes, buffer.nbytes)
        slot.free_from = buffer.last + 1
        slot.members.append(buffer)
    for slot in slots:
        for buffer in slot.members:
            buffer.offset = total
        total = total + slot.nbytes
    return total


def best_fit(known: Sequence[Lifetime]) -> int:
    """Offsets of buffers of known size; returns where the last byte ends.  Two orders are tried, large ones first and
    those first that are alive longest, and the tighter kept."""
    best: tuple[int, list[int]] = (0, [])
    for order in (lambda b: (-b.nbytes, b.first), lambda b: (b.first - b.last, -b.nbytes, b.first)):
        total, offsets = placed(sorted(known, key=order))
        if not best[1] or total < best[0]:
            best = total, [offsets[b] for b in known]
    for buffer, offset in zip(known, best[1]):
        buffer.offset = offset
    return best[0]


def placed(ordered: Sequence[Lifetime]) -> tuple[int, dict[Lifetime, int]]:
    """The lowest offset of each buffer, in turn, where it meets none that is alive with it; before, where all end."""
    count = len(ordered)
    first, last, start, stop = (np.zeros(count, np.int64) for _ in range(4))
    offsets: dict[Lifetime, int] = {}
    for k, buffer in enumerate(ordered):
        nbytes = buffer.nbytes
        alive = np.flatnonzero((first[:k] <= buffer.last) & (last[:k] >= buffer.first))
        first[k], last[k] = buffer.first, buffer.last
        start[k] = offsets[buffer] = lowest_gap(nbytes, start[alive], stop[alive])  # type: ignore[arg-type]
        stop[k] = start[k] + nbytes
    return int(stop.max(initial=0)), offsets


def lowest_gap(nbytes: int, start: np.ndarray[Any, Any], stop: np.ndarray[Any, Any]) -> int:
    """The lowest offset at which so many bytes lie in none of the spans."""
    order = np.argsort(start, kind="stable")
    begins = start[order]
    ends = np.concatenate([[0], np.maximum.accumulate(stop[order])])  # what is busy below each span
    fits = np.flatnonzero(begins - ends[:-1] >= nbytes)
    return int(ends[fits[0]] if len(fits) else ends[-1])


def overlaps(found: Sequence[Lifetime]) -> list[tuple[Lifetime, Lifetime]]:
    """Pairs of static buffers that are alive together and share bytes: none, if the plan is right."""
    known = [b for b in found if isinstance(b.nbytes, int) and isinstance(b.offset, int)]
    return [(a, b) for i, a in enumerate(known) for b in known[:i]
            if a.first <= b.last and b.first <= a.last
            and a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes]  # type: ignore[operator]
