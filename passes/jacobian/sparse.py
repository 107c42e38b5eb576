"""Sparse Jacobians and Hessians: every way to compute the entries of a static pattern is built and priced, one is kept.

    direct     the entries straight from the factors of structured terms, by either sweep (see `direct`)
    forward    one tangent per colour of the columns        reverse   one cotangent per colour of the rows
    both       tangents for most rows, cotangents for dense ones
    star       of a Hessian: one tangent (or cotangent) of the gradient per colour

The price is the number of scalar multiplications beyond those of y itself, plus the entries read in decompression.
Where one seed times the least number of colours costs as much as the direct way, nothing is coloured: the rival is
listed with that bound and has no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.errors import Unsupported
from graphc.ir.linmap.cost import price
from graphc.ir.node import Node, ancestors, constant
from graphc.ir.types import numpy_dtype

from ..differentiate import Between, between
from .colouring import bicolouring, column_colouring, count, row_colouring, star_colouring
from .compressed import compressed
from .direct import data_of, terms_between
from .entries import Constants
from .pattern import Locals, Pattern, from_keys, known_size, local_pieces, pattern_between
from .values import taken

Array = np.ndarray[Any, Any]

WAYS = ("auto", "direct", "forward", "reverse", "both")


@dataclass(frozen=True, eq=False)
class Way:
    """One way to compute the entries: the node of their values, its seeds and its price.

    Without data, seeds and price are lower bounds, which were enough to reject it.
    """

    name: str
    data: Node | None
    tangents: int
    cotangents: int
    multiplications: int
    reads: int

    @property
    def cost(self) -> int:
        return self.multiplications + self.reads


@dataclass(frozen=True, eq=False)
class SparsePlan:
    """`data` are the values of the pattern's entries, in order, by the chosen way."""

    pattern: Pattern
    data: Node
    chosen: Way
    ways: tuple[Way, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """What all ways need: the part of the graph, its local maps, and the pattern."""

    part: Between
    locals: Locals
    y: Node
    x: Node
    pattern: Pattern
    constants: Constants


def problem_of(y: Node, x: Node) -> Problem:
    part, constants = between([y], [x]), Constants()
    locals_ = local_pieces(part)
    return Problem(part, locals_, y, x, pattern_between(part, locals_, y, x, constants), constants)


# -- Jacobians --
def sparse_plan(y: Node, x: Node, order: str) -> SparsePlan:
    """The pattern of dy/dx and the cheapest way to its entries, or the way that `order` names."""
    with y.graph:
        problem = problem_of(y, x)
        if not problem.pattern.nnz:
            return empty_plan(problem)
        ways = list(jacobian_ways(problem, order))
    return picked(problem, ways, order)


def empty_plan(problem: Problem) -> SparsePlan:
    none = constant(np.zeros(0, numpy_dtype(problem.y.type.dtype)), problem.y.type.dtype, graph=problem.y.graph)
    way = Way("direct", none, 0, 0, 0, 0)
    return SparsePlan(problem.pattern, none, way, (way,))


def picked(problem: Problem, ways: list[Way], order: str) -> SparsePlan:
    if not ways:
        raise Unsupported(f"sparse_jacobian: order={order!r} does not apply to d{problem.y!r}/d{problem.x!r}: it has a "
                          "scan, indices known only at run time, too many terms, or no dense rows (stage: derivatives)")
    chosen = min((way for way in ways if way.data is not None), key=lambda way: way.cost)  # the first of equal ones
    assert chosen.data is not None
    return SparsePlan(problem.pattern, chosen.data, chosen, tuple(ways))


def jacobian_ways(problem: Problem, order: str) -> Iterator[Way]:
    p = problem.pattern
    direct = list(direct_ways(problem, None)) if order in ("auto", "direct") else []
    yield from direct
    if order in ("auto", "forward"):
        yield rejected(problem, direct, int(p.counts.max()), is_forward=True) or forward_way(problem)
    if order in ("auto", "reverse"):
        yield rejected(problem, direct, int(p.transposed.counts.max()), is_forward=False) or reverse_way(problem)
    if order == "both" or (order == "auto" and stands_out(p.counts) and stands_out(p.transposed.counts)):
        yield from both_ways(problem)


def rejected(problem: Problem, direct: list[Way], fewest: int, *, is_forward: bool) -> Way | None:
    """The coloured way with lower bounds, where the direct way is known to be cheaper."""
    if not direct:
        return None
    start = problem.x if is_forward else problem.y
    one = swept(problem, np.zeros(known_size(start), np.int64), 1, is_forward=is_forward)
    name, seeds = ("forward", (fewest, 0)) if is_forward else ("reverse", (0, fewest))
    least = Way(name, None, *seeds, fewest * priced(name, problem, one, 0, 0).multiplications, problem.pattern.nnz)
    return least if least.cost >= direct[0].cost else None


def stands_out(counts: Array) -> bool:
    """Whether some rows have many more entries than most: only then can two sides do better than one."""
    return bool(counts.max(initial=0) > 2 * counts.mean() + 1)


def direct_ways(problem: Problem, source_of_entry: Array | None) -> Iterator[Way]:
    found: list[Way] = []
    for is_forward in (False, True):
        terms = terms_between(problem.part, problem.locals, problem.y, problem.x, is_forward=is_forward)
        if terms is None:
            continue
        for source in (None,) if source_of_entry is None else (None, source_of_entry):
            data = data_of(terms, problem.pattern, problem.constants, problem.y, problem.x, source)
            if data is not None:
                found.append(priced("direct", problem, data, 0, 0))
    if found:
        yield min(found, key=lambda way: way.cost)


def priced(name: str, problem: Problem, data: Node, tangents: int, cotangents: int) -> Way:
    """The way with its price: reads are the elements that its gathers and scatters move."""
    multiplications = price([data], [problem.y])
    known = set(ancestors([problem.y]))
    reads = sum(known_size(n.operands[1]) for n in ancestors([data])
                if n not in known and n.op.name in ("gather", "scatter_add"))
    assert isinstance(multiplications, int)
    return Way(name, data, tangents, cotangents, multiplications, reads)


def swept(problem: Problem, colours: Array, colour_count: int, *, is_forward: bool) -> Node:
    return compressed(problem.part, problem.locals, problem.y, problem.x, colours, colour_count, is_forward=is_forward)


def forward_way(problem: Problem) -> Way:
    p, colours = problem.pattern, column_colouring(problem.pattern)
    colour_count = count(colours)
    flat = swept(problem, colours, colour_count, is_forward=True)
    return priced("forward", problem, taken(flat, colours[p.indices] * p.shape[0] + p.rows), colour_count, 0)


def reverse_way(problem: Problem) -> Way:
    p, colours = problem.pattern, row_colouring(problem.pattern)
    colour_count = count(colours)
    flat = swept(problem, colours, colour_count, is_forward=False)
    return priced("reverse", problem, taken(flat, colours[p.rows] * p.shape[1] + p.indices), 0, colour_count)


def both_ways(problem: Problem) -> Iterator[Way]:
    p = problem.pattern
    found = bicolouring(p)
    if found is None:
        return
    tangents, cotangents = count(found.columns), count(found.rows)
    sides = [swept(problem, found.columns, tangents, is_forward=True),
             swept(problem, found.rows, cotangents, is_forward=False)]
    from_rows = found.rows[p.rows] >= 0
    places = np.where(from_rows, tangents * p.shape[0] + found.rows[p.rows] * p.shape[1] + p.indices,
                      found.columns[p.indices] * p.shape[0] + p.rows)
    yield priced("both", problem, taken(build.concat(sides, 0), places), tangents, cotangents)


# -- Hessians --
def sparse_hessian_plan(slope: Node, x: Node, order: str) -> SparsePlan:
    """The same for the derivative of a gradient: the pattern is symmetric, and one triangle gives the other."""
    with slope.graph:
        found = problem_of(slope, x)
        problem = Problem(found.part, found.locals, slope, x, symmetric(found.pattern), found.constants)
        if not problem.pattern.nnz:
            return empty_plan(problem)
        source = lower_source(problem.pattern)
        ways = list(direct_ways(problem, source)) if order in ("auto", "direct") else []
        if order != "direct":
            ways.extend(star_ways(problem, ways, order))
    return picked(problem, ways, order)


def symmetric(p: Pattern) -> Pattern:
    """The entries whose mirror image is one too: a second derivative that is zero one way is zero the other way."""
    mirrored = p.indices * p.shape[1] + p.rows
    return from_keys(np.intersect1d(p.keys, mirrored), p.shape)


def lower_source(p: Pattern) -> Array:
    """Of every entry, the place of it or of its mirror image in the lower triangle."""
    return p.places(np.maximum(p.rows, p.indices), np.minimum(p.rows, p.indices))


def star_ways(problem: Problem, direct: list[Way], order: str) -> Iterator[Way]:
    p = problem.pattern
    fewest = -(-int((p.rows >= p.indices).sum()) // p.shape[0])  # a colour gives one number per row
    sides = [(name, is_forward) for name, is_forward in (("forward", True), ("reverse", False))
             if order in ("auto", name)]
    bounds = [rejected(problem, direct, fewest, is_forward=is_forward) for _, is_forward in sides]
    if all(bounds):
        yield from (bound for bound in bounds if bound is not None)
        return
    colours = star_colouring(p)
    colour_count = count(colours)
    places = star_places(p, colours)
    for (name, is_forward), bound in zip(sides, bounds):
        flat = swept(problem, colours, colour_count, is_forward=is_forward)
        seeds = (colour_count, 0) if is_forward else (0, colour_count)
        yield bound or priced(name, problem, taken(flat, places), *seeds)


def star_places(p: Pattern, colours: Array) -> Array:
    """Where to read each entry (i, j): in row i if no other column there has the colour of j, else as (j, i)."""
    n = p.shape[0]
    slots = colours[p.indices] * n + p.rows
    _, inverse, counts = np.unique(slots, return_inverse=True, return_counts=True)
    return np.where(counts[inverse] == 1, slots, colours[p.rows] * n + p.indices)
