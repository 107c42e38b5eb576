"""Rivals that are no elimination orders of the tensor graph: scalar code, and coloured sweeps.

    scalar code         small graphs of scalars, as straight-line code (`scalar.candidate`); judged by the arithmetic of
                        values and Jacobian together that is left after common subexpressions
    coloured forward    columns without a row in common swept together (`compressed`), judged by multiplications
    coloured reverse    rows without a column in common

Each is built once over the user's nodes to be priced.  Nodes that nobody holds are gone again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
import math

from graphc.ir import build
from graphc.ir.dims import Dim
from graphc.ir.errors import Unsupported
from graphc.ir.linmap import LinMap, Term
from graphc.ir.linmap.contract import estimate
from graphc.ir.linmap.cost import multiplications, price
from graphc.ir.node import Node, ancestors, constant

from .canonical import canonical, copied_back
from .colouring import column_colouring, count, row_colouring
from .elimination import jacobian_maps
from .pattern import Pattern
from .pricing import dense_results
from .scalar.candidate import ScalarCandidate, scalar_candidate
from .sparse import forward_way, problem_of, reverse_way
from .tensor import Linear, Pair, known_nodes

SCALAR, FORWARD, REVERSE = "scalar code", "coloured forward", "coloured reverse"
MOSTLY = 0.6  # share of vertices of one element from which a graph is scalar code
MOST_VERTICES = 600
MOST_ENTRIES = 1 << 18  # of a Jacobian that is coloured
DENSE = 16  # entries per row or column from which a local map counts as dense
MOST_SCALARS = 256  # entries of Jacobians that are written as scalars
ARITHMETIC = frozenset({"add", "sub", "mul", "div", "neg"})

Results = dict[Pair, Node]


@dataclass(frozen=True)
class Engine:
    """A way to all wanted Jacobians as dense nodes, and its price."""

    name: str
    order: tuple[int, ...]  # of the scalar graph
    multiplications: int
    nbytes: int
    arithmetic: int  # operations of values and Jacobians
    note: str
    results: Results = field(repr=False)


def ends(linear: Linear[LinMap]) -> tuple[list[int], list[int]]:
    """The positions of the ys and xs that are connected."""
    return ([p for p, v in enumerate(linear.sinks) if v is not None],
            [q for q, v in enumerate(linear.sources) if v is not None])


def sides(linear: Linear[LinMap]) -> tuple[list[Node], list[Node]]:
    """The ys and xs that are connected."""
    return ([linear.nodes[v] for v in linear.sinks if v is not None],
            [linear.nodes[v] for v in linear.sources if v is not None])


def built(name: str, order: tuple[int, ...], linear: Linear[LinMap]) -> Results:
    """The Jacobians by the engine of this name."""
    return rebuilt(linear, order) if name == SCALAR else swept(linear, name)


# -- scalar code --
def is_scalar_code(linear: Linear[LinMap]) -> bool:
    inner = linear.inner
    ones = sum(estimate(linear.size(v)) == 1 for v in inner)
    return 1 < len(inner) <= MOST_VERTICES and ones >= MOSTLY * len(inner)


def scalar_code(linear: Linear[LinMap], budget: float) -> Engine | None:
    """The scalar engine's Jacobians, where it takes the graph."""
    ys, xs = sides(linear)
    if not is_scalar_code(linear) or any(estimate(y.type.size) * estimate(x.type.size) > MOST_SCALARS
                                         for y in ys for x in xs):
        return None
    copies, inputs, back = canonical(ys, xs)
    with copies[0].graph:
        found = scalar_candidate(copies, inputs, budget, symmetric=is_symmetric(linear))
    if found is None or isinstance(found.cost, Dim):
        return None
    note = (f"scalar code: {found.published} products where each counts, {found.fewest} by the order with the fewest"
            + (" (proven)" if found.proven else ""))
    return engine(SCALAR, tuple(found.order), linear, wanted(linear, found, back), note)


def is_symmetric(linear: Linear[LinMap]) -> bool:
    rows, columns = ends(linear)
    return linear.symmetric and rows == columns


def rebuilt(linear: Linear[LinMap], order: tuple[int, ...]) -> Results:
    copies, inputs, back = canonical(*sides(linear))
    with copies[0].graph:
        found = scalar_candidate(copies, inputs, order=order, symmetric=is_symmetric(linear))
    assert found is not None
    return wanted(linear, found, back)


def wanted(linear: Linear[LinMap], found: ScalarCandidate, back: dict[Node, Node]) -> Results:
    """The Jacobians in the user's graph by positions, without pairs that nobody asks for."""
    with next(iter(back)).graph:
        rows = found.build()
    ps, qs = ends(linear)
    asked = {(p, q): node for p, row in zip(ps, rows) for q, node in zip(qs, row) if (p, q) not in linear.skipped}
    return dict(zip(asked, copied_back(asked.values(), back, linear.nodes[0].graph)))


# -- coloured sweeps --
def is_sparse(linear: Linear[LinMap]) -> bool:
    """Whether all sizes are known and no local map is a large dense matrix: else colours save nothing."""
    for (j, i), m in linear.edges.items():
        if isinstance(linear.size(j), Dim) or isinstance(linear.size(i), Dim):
            return False
        longest = max(estimate(linear.size(j)), estimate(linear.size(i)))
        if any(not isinstance(piece, Term) or entries(piece) > DENSE * longest for piece in m):
            return False
    return True


def entries(term: Term) -> int:
    """At most so many elements of the term's matrix are not zero."""
    targets = {view.target for view in term.views}
    free = {*term.out, *term.inn}.union(*(view.sources for view in term.views)) - targets
    return math.prod(estimate(term.sizes[atom]) for atom in free)


def coloured(linear: Linear[LinMap]) -> list[Engine]:
    """Both coloured sweeps of one y by one x, where colours save seeds."""
    ys, xs = sides(linear)
    if len(linear.sinks) != 1 or len(linear.sources) != 1 or not ys or not is_sparse(linear):
        return []
    (y,), (x,) = ys, xs
    rows, columns = estimate(y.type.size), estimate(x.type.size)
    if rows * columns > MOST_ENTRIES:
        return []
    try:
        pattern = problem_of(y, x).pattern
    except Unsupported:  # indices known at run time only: no pattern, no colours
        return []
    found: list[Engine] = []
    for name, colours, seeds in ((FORWARD, column_colouring, columns), (REVERSE, row_colouring, rows)):
        colour_count = count(colours(pattern)) if pattern.nnz else seeds
        if colour_count < seeds:
            note = f"{colour_count} colours for {seeds} seeds"
            found.append(engine(name, (), linear, swept(linear, name), note))
    return found


def swept(linear: Linear[LinMap], name: str) -> Results:
    """The compressed sweep, its entries scattered into the dense Jacobian."""
    (y,), (x,) = sides(linear)
    problem = problem_of(y, x)
    data = (forward_way if name == FORWARD else reverse_way)(problem).data
    assert data is not None
    shape = (*y.type.shape, *x.type.shape)
    return {(0, 0): scattered(data, problem.pattern, shape)}


def scattered(data: Node, pattern: Pattern, shape: tuple[int | Dim, ...]) -> Node:
    """The entries of a pattern in a dense tensor of this shape."""
    places = constant(pattern.keys, "int64", data.graph)
    flat = build.scatter_add(data, [places], (("index", 0),), ((0,),), (0,), (math.prod(pattern.shape),))
    return build.reshape(flat, shape)


# -- prices --
def engine(name: str, order: tuple[int, ...], linear: Linear[LinMap], results: Results, note: str) -> Engine:
    """An engine priced by what it built; the partials of the local maps count for none, as in a plan."""
    ys, nodes, given = sides(linear)[0], list(results.values()), known_nodes(linear)
    products = estimate(price([*nodes, *given], ys)) - estimate(price(given, ys))
    return Engine(name, order, max(0, products), held(nodes, given), arithmetic([*ys, *nodes]), note, results)


def held(nodes: Iterable[Node], given: Iterable[Node]) -> int:
    """Bytes of all that is new: what straight-line code or one sweep may hold at a time, at most."""
    known = set(ancestors(given))
    return sum(estimate(node.type.nbytes) for node in ancestors(nodes) if node not in known)


def arithmetic(nodes: Iterable[Node]) -> int:
    """Additions, subtractions, products, quotients and changes of sign of all that the nodes depend on."""
    return sum(scalar_operations(node) for node in ancestors(nodes))


def scalar_operations(node: Node) -> int:
    size = estimate(node.type.size)
    if node.op.name in ARITHMETIC:
        return size
    if node.op.name == "einsum":
        products = estimate(multiplications(node)) // max(1, len(node.operands) - 1)
        return estimate(multiplications(node)) + max(0, products - size) if len(node.operands) > 1 else \
            max(0, estimate(node.operands[0].type.size) - size)
    if node.op.name in ("sum", "prod"):
        return max(0, estimate(node.operands[0].type.size) - size)
    return 0


def tensor_arithmetic(linear: Linear[LinMap], order: Sequence[int]) -> int:
    """The arithmetic of values and Jacobians multiplied in this order."""
    return arithmetic([*sides(linear)[0], *dense_results(linear, jacobian_maps(linear, order))])
