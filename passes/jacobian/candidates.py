"""The rivals among which a plan is chosen: always forward and reverse, and what the searches find.

Each is an elimination order with a name.  Their order here is the preference among equals: sweeps before anything else,
because they are what everybody knows.  What a search may take is counted in steps, not in seconds, so that the same
graph gives the same rivals on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from graphc.ir.errors import GraphError
from graphc.ir.linmap.contract import estimate

from .chain import best_bracketing
from .elimination import Walk
from .forms import Bill, Form, Forms, size_of
from .orders import RULES, bottlenecks, folded, form_price, greedy, restarted, split_at, subset_dp
from .segments import SegmentChain, Segments, order_of, segments
from .tensor import Linear, nodes_of

STEPS_A_SECOND = 20_000  # of the search; a deterministic stand-in for the clock
LONGEST_CHAIN = 40  # segments up to which products are described in full
EXACT_VERTICES = 9  # free vertices up to which all sets are tried
GREEDY_VERTICES = 1500
MANY_RULES = 120  # inner vertices up to which all greedy rules run
RESTARTS = 6


class Candidate(NamedTuple):
    name: str
    order: tuple[int, ...]


def candidates(forms: Forms, linear: Linear[Form], memory: int | None, budget: float,
               threads: int = 1) -> Iterator[Candidate]:
    """All rivals, the sweeps first."""
    inner = linear.inner
    sweeps = [Candidate("forward", inner), Candidate("reverse", inner[::-1])]
    yield from sweeps if elements(linear, linear.sources) < elements(linear, linear.sinks) else sweeps[::-1]
    if len(inner) < 2 or is_cheap(forms, linear):
        return
    first = folded(forms, linear) if len(inner) <= GREEDY_VERTICES else ()
    yield from chains(forms, linear, first, memory, threads)
    yield from restarts(linear)
    if len(inner) <= GREEDY_VERTICES:
        yield from searched(forms, linear, first, budget)


def elements(linear: Linear[Form], ends: Iterable[int | None]) -> int:
    return sum(size_of(linear, v) for v in {v: None for v in ends if v is not None})


def is_cheap(forms: Forms, linear: Linear[Form]) -> bool:
    """Whether a sweep costs nothing: nothing can be better."""
    return any(form_price(forms, linear, order, 0) == 0 for order in (linear.inner, linear.inner[::-1]))


def chains(forms: Forms, linear: Linear[Form], first: tuple[int, ...], memory: int | None,
           threads: int) -> Iterator[Candidate]:
    """The best bracketing of the chain of segments of the folded graph."""
    rest = without(linear, forms, first)
    parts = segments(rest)
    if not parts.cuts or len(parts.interiors) > LONGEST_CHAIN or is_lopsided(parts):
        return
    model = SegmentChain(forms, rest, parts, tapes(forms, rest, parts))
    limits = [None] if memory is None else [None, memory, memory // 4, 0]
    for limit, t in [(limit, 1) for limit in limits] + [(None, threads)] * (threads > 1):
        try:
            plan = best_bracketing(model, limit, t)
        except GraphError:  # no bracketing within this tape: a rival less
            continue
        name = "chain" + (f", tape {limit}" if limit is not None else "") + (f", {t} threads" if t > 1 else "")
        yield Candidate(name, (*first, *order_of(plan.bracketing, parts)))


def is_lopsided(parts: Segments) -> bool:
    """Whether nearly all of a large graph is one element, so that the chain is only a sweep through it."""
    sizes = [len(inner) for inner in parts.interiors]
    return sum(sizes) > MANY_RULES and max(sizes) > 0.8 * sum(sizes)


def without(linear: Linear[Form], forms: Forms, first: tuple[int, ...]) -> Linear[Form]:
    """The graph after the elimination of the first vertices."""
    walk: Walk[Form] = Walk(linear, Bill(forms, linear))
    walk.run(first)
    return replace(linear, edges=walk.edges())


def tapes(forms: Forms, linear: Linear[Form], parts: Segments) -> dict[int, int]:
    """Bytes of the distinct factors in every element."""
    found: dict[int, int] = {}
    for k, edges in enumerate(parts.edges):
        held: dict[int, int] = {}
        for edge in edges:
            form = linear.edges[edge]
            held.update((name, estimate(node.type.nbytes))
                        for name, node in zip(form.names, nodes_of(forms.map(form))))
        found[k] = sum(held.values())
    return found


def restarts(linear: Linear[Form]) -> Iterator[Candidate]:
    """Sweeps that start anew at small vertices: each alone, and all of them."""
    inner = linear.inner
    cuts = bottlenecks(linear, RESTARTS)
    for cut in cuts:
        name = linear.nodes[cut].name
        yield Candidate(f"restart at {name}", restarted(inner, [cut]))
        yield Candidate(f"meeting at {name}", split_at(inner, cut))
    if len(cuts) > 1:
        yield Candidate("restarts", restarted(inner, cuts))


def searched(forms: Forms, linear: Linear[Form], first: tuple[int, ...], budget: float) -> Iterator[Candidate]:
    rules = RULES if len(linear.inner) <= MANY_RULES else {"markowitz": RULES["markowitz"]}
    for name, rule in rules.items():
        yield Candidate(name, greedy(forms, linear, first, rule))
    free = len(linear.inner) - len(first)
    if 1 < free <= EXACT_VERTICES and budget > 0:
        yield Candidate("exact elimination", subset_dp(forms, linear, first))
