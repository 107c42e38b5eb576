"""Recomputation under a byte budget: values of the forward part are not kept but made again when they are needed.

    step 0  h = tanh(x @ w)                    step 0  h = tanh(x @ w)
    ..                                         ..
    step 9  reads h, last                ->    step 9  h' = tanh(x @ w)      the same kernel on another buffer
                                               step 10 reads h'

A step is a pure function of buffers, so that running it again gives the same bits; no code is added.  Up to the step at
which most bytes are live (the forward part), which values are kept is a minimum cut:

    value v     arc in(v) -> out(v) of its bytes: cut where it is kept
    step p      arc source -> p of `price` times its time: cut where it runs again
                if v is made again, p runs again: p -> in(v);  then p's inputs are needed again: out(u) -> p
    needed      out(v) -> sink for what later steps read

Values that cross the borders of segments are kept in any case (`checkpoints`): from the inputs alone, all would be made
again at once.  The cuts for some numbers of segments and some prices are tried, and the quickest plan that fits is
taken (segments alone are Chen et al. 2016, Training deep nets with sublinear memory cost).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from graphc.ir.costs import PRODUCT, VECTOR_NBYTES, Cost, weight
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.plan import Contraction, Program

from .builder import Again, Draft, Place, Scratch
from .memory import in_place, lifetimes, nbytes_of
from .roots import estimate

class Policy(NamedTuple):
    """What a cut may give up.  Values that are made in the last part of the forward steps, beyond `reach`, are kept."""

    segments: int
    price: float  # bytes that are kept rather than computed for a nanosecond
    products: bool  # whether products of matrices may run again
    reach: float = 1.0


POLICIES = [Policy(1, 20.0, False), Policy(1, 0.01, False),
            *(Policy(count, 0.01, True) for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))]
FINER = 4  # halvings of the reach of the policy that fits


@dataclass(frozen=True)
class Candidate:
    """Steps of which some run again, what they take longer, and the most bytes that are live at a step."""

    steps: list[Draft]
    policy: Policy
    time: float  # nanoseconds
    live: int


def within(limit: int, program: Program, forward: Forward,
           assemble: Callable[[Sequence[Draft]], Program]) -> Program:
    """The quickest program whose arena keeps the limit, or the smallest."""
    rivals = candidates(forward)
    smallest = min(rivals, key=lambda c: c.live)
    for rival in rivals:
        if rival.live > limit and rival is not smallest:
            continue
        made = assemble(rival.steps)
        if arena_of(made) <= limit:
            return refined(limit, rival.policy, made, forward, assemble)
        program = min(program, made, key=arena_of)
    return program


def refined(limit: int, policy: Policy, program: Program, forward: Forward,
            assemble: Callable[[Sequence[Draft]], Program]) -> Program:
    """A program that keeps the limit and makes less again, where one is found by halving the reach."""
    low, high = 0.0, policy.reach
    for _ in range(FINER):
        middle = (low + high) / 2
        trial = candidate(forward, policy._replace(reach=middle))
        made = assemble(trial.steps) if trial.live <= limit else None
        if made is not None and arena_of(made) <= limit:
            program, high = made, middle
        else:
            low = middle
    return program


def arena_of(program: Program) -> int:
    assert isinstance(program.arena, int), program.arena
    return program.arena


def candidates(forward: Forward) -> list[Candidate]:
    """Plans that keep less, the quickest first."""
    return sorted((candidate(forward, policy) for policy in POLICIES), key=lambda c: (c.time, c.live))


def candidate(forward: Forward, policy: Policy) -> Candidate:
    steps, time = forward.replayed(forward.kept(policy))
    return Candidate(steps, policy, time, max(live_bytes(steps, forward.resident), default=0))


def live_bytes(steps: Sequence[Draft], resident: set[Place]) -> list[int]:
    """Bytes of the arena's buffers that are live at each step."""
    same = in_place(steps, resident)
    change = [0] * (len(steps) + 1)
    for buffer in lifetimes(steps, resident, same):
        change[buffer.first] += estimate(buffer.nbytes)
        change[buffer.last + 1] -= estimate(buffer.nbytes)
    live, total = [], 0
    for k in range(len(steps)):
        total += change[k]
        live.append(total)
    return live


def step_time(step: Draft) -> float:
    """Nanoseconds of a step."""
    kernel = step.kernel
    points = estimate(product(kernel.extents))
    operations = sum(weight(op.kind) for op in kernel.ops) * points * 4 / VECTOR_NBYTES
    terms = points * estimate(kernel.depth) * PRODUCT if isinstance(kernel, Contraction) else 0.0
    read, written = (sum(estimate(nbytes_of(p)) for p in places) for places in (step.reads(), step.writes))
    return Cost(read, written, operations, terms).time


class Forward:
    """The steps up to that at which most bytes are live, the values that they make, and which of them later steps need.

    `resident` are leaves and results, which take no arena.
    """

    def __init__(self, steps: Sequence[Draft], resident: set[Place]) -> None:
        live = live_bytes(steps, resident)
        turn = max(range(len(live)), key=live.__getitem__, default=0)
        self.steps = steps
        self.turn = turn
        self.resident = resident
        self.times = [step_time(step) for step in steps[:turn]]
        writers: dict[Node | Again, list[int]] = {}
        for k, step in enumerate(steps):
            for made in step.writes:
                writers.setdefault(made, []).append(k)
        self.writer: dict[Place, int] = {place: at[0] for place, at in writers.items()
                                         if len(at) == 1 and at[0] < turn and place not in resident}
        self.runs_again = [all(p in self.writer for p in step.writes) and not step.when for step in steps[:turn]]
        self.needed = {p for step in steps[turn:] for p in step.reads() if p in self.writer}
        self.last_read: dict[Place, int] = {}
        for k, step in enumerate(steps[:turn]):
            for place in step.reads():
                self.last_read[place] = k

    def checkpoints(self, count: int) -> set[Place]:
        """Values that cross the borders of so many segments of the forward steps, where the fewest bytes do."""
        crossing = [0] * (self.turn + 1)
        for place, made in self.writer.items():
            crossing[made] += estimate(nbytes_of(place))
            crossing[max(self.last_read.get(place, made), made)] -= estimate(nbytes_of(place))
        for k in range(1, self.turn):
            crossing[k] += crossing[k - 1]
        found: set[Place] = set()
        for part in range(1, count):
            reach = max(1, self.turn // (2 * count))
            middle = part * self.turn // count
            window = range(max(0, middle - reach), min(self.turn - 1, middle + reach))
            border = min(window, key=lambda k: (crossing[k], abs(k - middle)), default=middle)
            found |= {p for p, made in self.writer.items() if made <= border < self.last_read.get(p, made)}
        return found

    def kept(self, policy: Policy) -> frozenset[Place]:
        """The values that are not made again."""
        import networkx as nx

        graph = nx.DiGraph()
        forced = self.checkpoints(policy.segments)
        stop = policy.reach * self.turn
        for place, made in self.writer.items():
            start, end = ("in", place), ("out", place)
            graph.add_edge(start, end, capacity=estimate(nbytes_of(place)))
            graph.add_edge(("step", made), start)
            if place in forced or made >= stop:
                graph.add_edge("source", start)
            if place in self.needed:
                graph.add_edge(end, "sink")
        for k, step in enumerate(self.steps[:self.turn]):
            if not self.runs_again[k] or (isinstance(step.kernel, Contraction) and not policy.products):
                graph.add_edge("source", ("step", k))
                continue
            graph.add_edge("source", ("step", k), capacity=int(policy.price * self.times[k]))
            for place in step.reads():
                if place in self.writer:
                    graph.add_edge(("out", place), ("step", k))
        if "sink" not in graph or "source" not in graph:
            return frozenset(self.needed)
        _, (early, late) = nx.minimum_cut(graph, "source", "sink")
        return frozenset(p for p in self.writer if ("in", p) in early and ("out", p) in late)

    def replayed(self, kept: frozenset[Place]) -> tuple[list[Draft], float]:
        """The steps, with those of the forward part that run again before what needs them, and their time."""
        result = list(self.steps[:self.turn])
        renamed: dict[Place, Place] = {}
        time = 0.0
        for step in self.steps[self.turn:]:
            again = self.closure([p for p in step.reads() if p in self.needed and p not in kept], kept, renamed)
            for k in again:
                made = tuple(Again(p, k) for p in self.steps[k].writes if isinstance(p, Node))
                renamed.update({p.root: p for p in made})
                result.append(rerun(self.steps[k], renamed, made))
                time += self.times[k]
            result.append(reading(step, renamed))
        return result, time

    def closure(self, places: Sequence[Place], kept: frozenset[Place], renamed: dict[Place, Place]) -> list[int]:
        """The steps that make the places, and what they need that is neither kept nor made again already."""
        found: set[int] = set()
        pending = [p for p in places if p not in renamed]
        while pending:
            k = self.writer[pending.pop()]
            if k not in found:
                found.add(k)
                pending += [p for p in self.steps[k].reads()
                            if p in self.writer and p not in kept and p not in renamed]
        return sorted(found)


def rerun(step: Draft, renamed: dict[Place, Place], writes: tuple[Again, ...]) -> Draft:
    """The step on other buffers.  What it reads by index was checked when it ran first."""
    places = tuple(replace(p) if isinstance(p, Scratch) else renamed.get(p, p) for p in step.places)
    return replace(step, places=places, writes=writes, indices=())


def reading(step: Draft, renamed: dict[Place, Place]) -> Draft:
    """The step, reading what was made again."""
    if not any(p in renamed for p in step.places):
        return step
    return replace(step, places=tuple(renamed.get(p, p) for p in step.places))
