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
from .dense_chain import Element, dense_plan, given
from .elimination import Walk
from .forms import Bill, Form, Forms, size_of
from .orders import (RULES, bottlenecks, folded, form_price, greedy, is_diagonal, restarted, split_at, subset_dp,
                     weight)
from .segments import SegmentChain, Segments, order_of, segments
from .tensor import Linear, nodes_of

STEPS_A_SECOND = 20_000  # of the search; a deterministic stand-in for the clock
CHAIN_STEPS = 600_000  # of a search of one second: the cube of the longest chain described in full
EXACT = "exact elimination"
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
    yield from sweeps(linear)
    if len(inner) < 2 or is_cheap(forms, linear):
        return
    first = folded(forms, linear) if len(inner) <= GREEDY_VERTICES else ()
    yield from chains(forms, linear, first, memory, threads, longest_chain(budget))
    yield from restarts(linear)
    if len(inner) <= GREEDY_VERTICES:
        yield from searched(forms, linear, first, budget)


def sweeps(linear: Linear[Form]) -> list[Candidate]:
    """Forward and reverse, first that which is preferred among equals."""
    found = [Candidate("forward", linear.inner), Candidate("reverse", linear.inner[::-1])]
    return found if elements(linear, linear.sources) < elements(linear, linear.sinks) else found[::-1]


def elements(linear: Linear[Form], ends: Iterable[int | None]) -> int:
    return sum(size_of(linear, v) for v in {v: None for v in ends if v is not None})


def longest_chain(budget: float) -> int:
    length: float = (CHAIN_STEPS * min(budget, 60.0)) ** (1 / 3)
    return max(20, round(length))


def is_cheap(forms: Forms, linear: Linear[Form]) -> bool:
    """Whether a sweep costs nothing: nothing can be better."""
    return any(form_price(forms, linear, order, 0) == 0 for order in (linear.inner, linear.inner[::-1]))


def chains(forms: Forms, linear: Linear[Form], first: tuple[int, ...], memory: int | None, threads: int,
           longest: int) -> Iterator[Candidate]:
    """The best bracketing of the chain of segments of the folded graph."""
    rest = without(linear, forms, first)
    parts = segments(rest)
    if len(parts.interiors) > longest:
        first = (*first, *beside_diagonals(forms, rest, parts))
        rest = without(linear, forms, first)
        parts = segments(rest)
    if not parts.cuts or is_lopsided(parts):
        return
    if len(parts.interiors) > longest:
        plan = dense_plan(dense_elements(forms, rest, parts), memory, threads)
        yield Candidate("chain of dense matrices", (*first, *order_of(plan.bracketing, parts)))
        return
    model = SegmentChain(forms, rest, parts, tapes(forms, rest, parts))
    limits = [None] if memory is None else [None, memory, memory // 4, 0]
    for limit, t in [(limit, 1) for limit in limits] + [(None, threads)] * (threads > 1):
        try:
            found = best_bracketing(model, limit, t)
        except GraphError:  # no bracketing within this tape: a rival less
            continue
        name = "chain" + (f", tape {limit}" if limit is not None else "") + (f", {t} threads" if t > 1 else "")
        yield Candidate(name, (*first, *order_of(found.bracketing, parts)))


def beside_diagonals(forms: Forms, linear: Linear[Form], parts: Segments) -> list[int]:
    """Separators whose elimination makes a diagonal part of the smaller of its neighbours."""
    weights = [sum(weight(forms, linear.edges[edge]) for edge in edges) for edges in parts.edges]
    found: list[int] = []
    for k, edges in enumerate(parts.edges):
        if len(edges) == 1 and is_diagonal(forms.map(linear.edges[edges[0]])):
            sides = [(weights[n], parts.cuts[max(k, n) - 1]) for n in (k - 1, k + 1) if 0 <= n < len(weights)]
            found.append(min(sides)[1])
    return sorted(dict.fromkeys(found))


def dense_elements(forms: Forms, linear: Linear[Form], parts: Segments) -> list[Element]:
    """The segments as dense matrices: one edge is given, several are swept at the price of their factors' elements."""
    inner = [size_of(linear, v) for v in parts.cuts]
    sizes = [elements(linear, linear.sources), *inner, elements(linear, linear.sinks)]
    found: list[Element] = []
    for columns, rows, edges in zip(sizes, sizes[1:], parts.edges):
        work = sum(weight(forms, linear.edges[edge]) for edge in edges)
        matrix = 0 if len(edges) == 1 else work * min(rows, columns)
        found.append(Element(rows, columns, work, work, matrix, 0) if matrix else given(rows, columns))
    return found


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
    if free <= EXACT_VERTICES and budget > 0:
        yield Candidate(EXACT, subset_dp(forms, linear, first))
