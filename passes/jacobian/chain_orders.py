"""The orders of a matrix chain that can win for some symbolic sizes, each with the condition under which it does.

    orders_that_can_win([n, 100, 20, 100])               n x 100, times 100 x 20, times 20 x 100
    ->  [(0, 1), (3, 2)]   4000*n               always; the other order, 10000*n + 200000, is left out
    orders_that_can_win([n, 784, 10, 10])
    ->  [(0, 1), (3, 2)]   7940*n               n <= 784
        [(1, 2), (0, 3)]   7840*n + 78400       n >= 785

Sizes are numbers, `Dim`s or sympy expressions of symbols that are whole and positive.  The cost of an order is a
polynomial in the symbols.  An order that is never cheaper than another is left out; that it is not is seen where no
coefficient of the difference is negative with 1 + t in the place of every symbol.  The conditions of the others exclude
one another and leave no sizes out, so that exactly one holds.

In one symbol, conditions are intervals of whole numbers.  In several they compare polynomials: an order is no dearer
than those after it and cheaper than those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, TypeAlias

import sympy

from graphc.ir.dims import Dim, to_sympy
from graphc.ir.errors import GraphError

Pairs: TypeAlias = "list[tuple[int, int]]"
Triple: TypeAlias = "tuple[int, int, int]"
MOST_MATRICES = 7  # which have 132 orders


class Winner(NamedTuple):
    """An order as pairs of matrices from the left, results numbered on; its multiplications; when it is the best."""

    pairs: Pairs
    cost: sympy.Expr
    condition: sympy.Basic


def orders_that_can_win(sizes: Sequence[int | Dim | sympy.Expr]) -> list[Winner]:
    """The orders of the chain sizes[0] x sizes[1], sizes[1] x sizes[2], .. that are best for some sizes."""
    widths = [sympy.sympify(to_sympy(size) if isinstance(size, Dim) else size) for size in sizes]
    count = len(widths) - 1
    if not 1 <= count <= MOST_MATRICES:
        raise GraphError(f"matrix chain: all orders are compared for 1 to {MOST_MATRICES} matrices, got {count}")
    widths, symbols = positive(widths)
    found = [(sympy.expand(cost_of(pairs, widths)), pairs) for pairs in all_orders(count)]
    kept = undominated(found, symbols)
    conditions = intervals(kept, symbols[0]) if len(symbols) == 1 else comparisons(kept)
    return [Winner(pairs, cost, condition) for (cost, pairs), condition in zip(kept, conditions)
            if condition is not sympy.false]


def positive(widths: Sequence[sympy.Expr]) -> tuple[list[sympy.Expr], list[sympy.Symbol]]:
    """The sizes in symbols that are known to be positive integers, in alphabetical order."""
    free = sorted(set().union(*(width.free_symbols for width in widths)), key=str)
    new = {symbol: sympy.Symbol(str(symbol), integer=True, positive=True) for symbol in free}
    return [width.subs(new) for width in widths], list(new.values())


def all_orders(count: int) -> list[Pairs]:
    """All bracketings of a chain, those from the left first."""
    trees: dict[tuple[int, int], list[tuple[Triple, ...]]] = {(k, k): [()] for k in range(count)}
    for distance in range(1, count):
        for i in range(count - distance):
            j = i + distance
            trees[i, j] = [(*left, *right, (i, k, j)) for k in range(j - 1, i - 1, -1)
                           for left in trees[i, k] for right in trees[k + 1, j]]
    return [numbered(tree, count) for tree in trees[0, count - 1]]


def numbered(products: Sequence[Triple], count: int) -> Pairs:
    """Products of matrices i..k and k+1..j, inner ones first, as pairs."""
    number = {(k, k): k for k in range(count)}
    pairs: Pairs = []
    for i, k, j in products:
        pairs.append((number[i, k], number[k + 1, j]))
        number[i, j] = count + len(pairs) - 1
    return pairs


def cost_of(pairs: Pairs, widths: Sequence[sympy.Expr]) -> sympy.Expr:
    """The multiplications of an order."""
    shapes = list(zip(widths, widths[1:]))
    total = sympy.Integer(0)
    for a, b in pairs:
        (rows, depth), (_, columns) = shapes[a], shapes[b]
        total += rows * depth * columns
        shapes.append((rows, columns))
    return total


# -- which can win --
Candidate: TypeAlias = "tuple[sympy.Expr, Pairs]"


def undominated(found: Sequence[Candidate], symbols: Sequence[sympy.Symbol]) -> list[Candidate]:
    """The candidates that no other is proven to be at least as good as; of equal ones, the first."""
    shifted = [coefficients(cost, symbols) for cost, _ in found]
    kept = [k for k in range(len(found))
            if not any(no_dearer(shifted[j], shifted[k]) and (j < k or shifted[j] != shifted[k])
                       for j in range(len(found)) if j != k)]
    return [found[k] for k in kept]


def coefficients(cost: sympy.Expr, symbols: Sequence[sympy.Symbol]) -> dict[object, sympy.Expr]:
    """Of the polynomial in t with 1 + t for every symbol; what is no polynomial is one coefficient of its own."""
    if not symbols:
        return {(): cost}
    shifted = cost.subs({symbol: symbol + 1 for symbol in symbols}, simultaneous=True)
    if not shifted.is_polynomial(*symbols):
        return {cost: sympy.Integer(1)}
    return dict(sympy.Poly(shifted, *symbols).terms())


def no_dearer(a: dict[object, sympy.Expr], b: dict[object, sympy.Expr]) -> bool:
    return all(b.get(term, 0) >= a.get(term, 0) for term in {**a, **b})


# -- conditions --
def comparisons(kept: Sequence[Candidate]) -> list[sympy.Basic]:
    """For each, that it is no dearer than those after it and cheaper than those before it."""
    return [sympy.And(*(compared(other, cost, strict=j < k) for j, (other, _) in enumerate(kept) if j != k))
            for k, (cost, _) in enumerate(kept)]


def compared(dear: sympy.Expr, cheap: sympy.Expr, strict: bool) -> sympy.Basic:
    """dear >= cheap, or >, without common factors and with no minus sign."""
    difference = sympy.terms_gcd(sympy.expand(dear - cheap))
    factors = [factor for factor in sympy.Mul.make_args(difference) if not factor.is_positive]
    terms = sympy.Add.make_args(sympy.expand(sympy.Mul(*factors) if factors else sympy.Integer(1)))
    negative = [term for term in terms if term.could_extract_minus_sign()]
    left, right = sympy.Add(*(term for term in terms if term not in negative)), -sympy.Add(*negative)
    return left > right if strict else left >= right


def intervals(kept: Sequence[Candidate], symbol: sympy.Symbol) -> list[sympy.Basic]:
    """For each, the whole numbers for which it is the first of the cheapest."""
    if not all(cost.is_polynomial(symbol) for cost, _ in kept):
        return comparisons(kept)
    conditions: list[sympy.Basic] = [sympy.false] * len(kept)
    for winner, low, high in stretches(kept, symbol):
        above = sympy.true if low == 1 else symbol >= low
        below = sympy.true if high is None else symbol <= high
        conditions[winner] = sympy.Or(conditions[winner], sympy.And(above, below))
    return conditions


def stretches(kept: Sequence[Candidate], symbol: sympy.Symbol) -> list[tuple[int, int, int | None]]:
    """Who wins from where to where; the last stretch is open."""
    turns = {int(sympy.floor(root)) for (a, _), (b, _) in combinations(kept, 2)
             for root in sympy.real_roots(sympy.Poly(a - b, symbol)) if root >= 1}
    starts = sorted({1} | turns | {turn + 1 for turn in turns})  # between two of them nothing changes
    found: list[tuple[int, int, int | None]] = []
    for start, after in zip(starts, [*starts[1:], None]):
        costs = [cost.subs(symbol, start) for cost, _ in kept]
        winner = costs.index(min(costs))
        if found and found[-1][0] == winner:
            winner, start, _ = found.pop()
        found.append((winner, start, None if after is None else after - 1))
    return found
