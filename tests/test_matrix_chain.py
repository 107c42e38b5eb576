"""Products that the user wrote: their order, their values, and `exact`."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import sympy

import graphc as gc
from graphc.ir.dims import Dim
from graphc.ir.errors import GraphError
from graphc.ir.linmap.cost import price
from graphc.ir.node import ancestors
from graphc.ir.reference import evaluate
from passes.decompose import decompose
from passes.jacobian.chain_orders import all_orders, cost_of, orders_that_can_win
from passes.matrix_chain import MOST_LEAVES, ordered_products
from passes.pairing import best_pairs, chain_of, pairing, pairs_cost
from passes.simplify import simplify

RNG = np.random.default_rng(7)


def leaves(*shapes, dtype="float64"):
    return [gc.placeholder(dtype, shape) for shape in shapes]


def value_of(fetches, nodes, arrays):
    return evaluate(fetches, dict(zip(nodes, arrays)), {})


def shapes_of(node):
    """Shapes of all contractions that a node takes."""
    return [n.shape for n in ancestors([node]) if n.op.name == "einsum"]


# -- W13 --
def test_a_chain_that_ends_in_a_vector_is_four_matrix_vector_products():
    a, b, c, d, x = nodes = leaves(*[(1000, 1000)] * 4, (1000,))
    y = a @ b @ c @ d @ x
    after, = decompose(simplify([y]))
    assert shapes_of(after) == [(1000,)] * 4
    assert (price([y]), price([after])) == (3 * 10**9 + 10**6, 4 * 10**6)
    arrays = [RNG.standard_normal(n.shape) for n in nodes]
    with gc.Session() as session:
        found = session.run(y, dict(zip(nodes, arrays)))
    np.testing.assert_allclose(found, np.linalg.multi_dot(arrays), rtol=1e-9, atol=1e-7)


# -- all ways to write a product --
WRITTEN = {
    "left": lambda a, b, c, d: a @ b @ c @ d, "right": lambda a, b, c, d: a @ (b @ (c @ d)),
    "pairs": lambda a, b, c, d: (a @ b) @ (c @ d),
    "einsum": lambda a, b, c, d: gc.einsum("ij,jk,kl,lm->im", a, b, c, d),
    "einsum in disorder": lambda a, b, c, d: gc.einsum("kl,ij,lm,jk->im", c, a, d, b),
    "transposed": lambda a, b, c, d: gc.transpose(gc.transpose(c @ d) @ gc.transpose(a @ b)),
    "einsum of einsum": lambda a, b, c, d: gc.einsum("ij,jk,kl->il", a, gc.einsum("ij,jk->ik", b, c), d),
}


@pytest.mark.parametrize("sizes", [(2, 30, 3, 40, 5), (40, 3, 30, 2, 20), (7, 7, 7, 7, 7), (50, 1, 50, 1, 50)])
@pytest.mark.parametrize("written", WRITTEN)
def test_the_order_is_the_best_however_it_is_written(written, sizes):
    nodes = leaves(*zip(sizes, sizes[1:]))
    y = WRITTEN[written](*nodes)
    after, = ordered_products(simplify([y]))
    best = min(int(cost_of(pairs, list(map(sympy.Integer, sizes)))) for pairs in all_orders(4))
    assert price([after]) == best and after.type == y.type
    arrays = [RNG.standard_normal(n.shape) for n in nodes]
    lowered = decompose(simplify([y]))
    np.testing.assert_allclose(value_of(lowered, nodes, arrays)[0], np.linalg.multi_dot(arrays), rtol=1e-12, atol=1e-9)


def test_what_is_written_well_stays_as_it_is():
    nodes = leaves((9, 9), (9, 9), (9,))
    y = nodes[0] @ (nodes[1] @ nodes[2])
    assert ordered_products([y])[0] is y


def test_products_that_others_read_are_kept():
    a, b, x, z = leaves((30, 30), (30, 30), (30,), (30,))
    both = a @ b
    fetches = [both @ x, both @ z]
    assert ordered_products(fetches) == fetches
    assert ordered_products([both @ x, both])[1] is both
    once, = ordered_products([both @ x])
    assert price([once]) == 1800


def test_batches_and_sums():
    shapes = (5, 20, 20), (5, 20, 20), (5, 20, 1)
    nodes = leaves(*shapes)
    y = gc.exp(nodes[0] @ nodes[1] @ nodes[2])
    after, = ordered_products(simplify([y]))
    assert price([after]) == 2 * 5 * 20 * 20
    arrays = [RNG.standard_normal(shape) for shape in shapes]
    expected = np.exp(arrays[0] @ (arrays[1] @ arrays[2]))
    np.testing.assert_allclose(value_of([after], nodes, arrays)[0], expected, rtol=1e-10)


def test_ten_tensors_that_are_no_chain_are_not_made_worse():
    nodes = leaves(*[(6, 6)] * 9, (6, 6, 6))
    y = nodes[0]
    for other in nodes[1:9]:
        y = y @ other
    y = gc.einsum("ij,ijk->k", y, nodes[9])
    after, = ordered_products([y])
    assert price([after]) <= price([y])
    arrays = [RNG.standard_normal(n.shape) for n in nodes]
    np.testing.assert_allclose(value_of([after], nodes, arrays)[0], value_of([y], nodes, arrays)[0], rtol=1e-10)


def test_long_chains():
    count = MOST_LEAVES + 40
    nodes = leaves(*[(12, 12)] * count, (12,))
    y = nodes[0]
    for other in nodes[1:]:
        y = y @ other
    after, = ordered_products([y])
    assert price([after]) <= 41 * 12**3 + (MOST_LEAVES + 1) * 12**2
    matrix = np.linalg.qr(RNG.standard_normal((12, 12)))[0]
    arrays = [matrix] * count + [np.ones(12)]
    np.testing.assert_allclose(value_of([after], nodes, arrays)[0], np.linalg.matrix_power(matrix, count) @ np.ones(12),
                               rtol=1e-9)


@pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
def test_other_dtypes(dtype):
    nodes = leaves((8, 9), (9, 8), (8, 1), dtype=dtype)
    y = nodes[0] @ nodes[1] @ nodes[2]
    arrays = [RNG.integers(0, 2 if dtype == "bool" else 9, n.shape).astype(dtype) for n in nodes]
    after, = ordered_products([y])
    assert price([after]) == 8 * 9 + 8 * 9
    np.testing.assert_array_equal(value_of([after], nodes, arrays)[0], arrays[0] @ arrays[1] @ arrays[2])


# -- exact --
def test_exact_keeps_the_order_of_writing():
    nodes = leaves((20, 20), (20, 20), (20,))
    y = nodes[0] @ nodes[1] @ nodes[2]
    together = gc.einsum("ij,jk,k->i", *nodes)
    assert ordered_products([y], exact=True)[0] is y
    assert price(decompose([together], exact=True)) == price([y]) == 8400
    assert price(decompose([together])) == 800


def test_exact_is_a_switch_of_a_session():
    """Products of which only one order overflows show which one was taken."""
    a, b, x = nodes = leaves((2, 2), (2, 2), (2,))
    arrays = [np.full((2, 2), 1e200), np.full((2, 2), 1e200), np.full(2, 1e-200)]
    y = a @ b @ x
    with gc.Session() as session:
        assert np.isfinite(session.run(y, dict(zip(nodes, arrays)))).all()
    with gc.Session(exact=True) as session:
        assert np.isinf(session.run(y, dict(zip(nodes, arrays)))).all()


# -- symbolic sizes --
def test_symbolic_sizes_follow_the_order_that_is_good_for_all():
    n = Dim.symbol("n")
    a, b, x = leaves((n, 50), (50, n), (n,))
    after, = ordered_products([a @ b @ x])
    assert shapes_of(after) == [(50,), (n,)]
    x, w, v = leaves((n, 784), (784, 10), (10, 10))  # either order is best for some n: it stays as written
    for y in (x @ w @ v, x @ (w @ v)):
        assert ordered_products([y])[0] is y


# -- pairing --
@pytest.mark.parametrize("labels, out, chain", [
    ([(0, 1), (1, 2), (2, 3)], (0, 3), [0, 1, 2]), ([(0, 1), (1, 2), (2, 3)], (3, 0), [2, 1, 0]),
    ([(1, 2), (0, 1), (3, 2)], (0, 3), [1, 0, 2]), ([(0, 1), (1, 2), (2,)], (0,), [0, 1, 2]),
    ([(0,), (0, 1), (1,)], (), [0, 1, 2]), ([(9, 0, 1), (9, 1, 2)], (9, 0, 2), [0, 1]),
    ([(0, 1), (1, 2), (2, 0)], (), None), ([(0, 1), (1, 2), (1, 3)], (0, 2, 3), None), ([(0, 0), (0, 1)], (1,), None),
    ([(0, 1), (1, 2), (3, 4), (4, 3)], (0, 2), None), ([(0, 1), (1, 2)], (0, 1, 2), None),
    ([(0, 1), (2, 3)], (0, 1, 2, 3), None)])
def test_chains_are_recognised(labels, out, chain):
    assert chain_of(labels, out) == chain


def test_chains_are_paired_as_well_as_by_all_subsets():
    for _ in range(100):
        count = int(RNG.integers(3, 8))
        sizes = dict(enumerate(map(int, RNG.integers(1, 30, count + 1))))
        labels = [(k, k + 1) for k in range(count)]
        labels = [labels[k] for k in RNG.permutation(count)]
        out = (0, count)
        costs = [pairs_cost(labels, out, sizes, order(labels, out, sizes)) for order in (pairing, best_pairs)]
        assert costs[0] == costs[1]


# -- orders that can win --
n, m, k = sympy.symbols("n m k")
SYMBOLIC = [[n, 784, 10, 10], [n, 1000, 10, 1000, 1], [n, m, 10, m], [n, 30, n, 40, n, 5, 9], [n, m, k, n, m],
            [3, 4, 5, 6], [Dim.symbol("n") * 2 + 1, 7, Dim.symbol("n"), 9], [n // 2, 8, n, 9]]


@pytest.mark.parametrize("sizes", SYMBOLIC, ids=str)
def test_exactly_one_condition_holds_and_its_order_is_the_best(sizes):
    winners = orders_that_can_win(sizes)
    symbols = sorted(set().union(*(w.condition.free_symbols | w.cost.free_symbols for w in winners)), key=str)
    for point in product((1, 2, 5, 8, 9, 784, 785, 10**5), repeat=len(symbols)) if len(symbols) < 3 else \
            product((1, 3, 50, 999), repeat=3):
        at = dict(zip(symbols, point))
        holding = [w for w in winners if w.condition.subs(at) == sympy.true]
        costs = [w.cost.subs(at) for w in winners]
        assert len(holding) == 1 and holding[0].cost.subs(at) == min(costs), at
        numbers = [numeric(size, {str(s): v for s, v in at.items()}) for size in sizes]
        assert min(costs) == min(cost_of(pairs, numbers) for pairs in all_orders(len(sizes) - 1)), at


def numeric(size, values):
    size = gc.ir.dims.to_sympy(size) if isinstance(size, Dim) else sympy.sympify(size)
    return size.subs({symbol: values[str(symbol)] for symbol in size.free_symbols})


def test_conditions_in_one_symbol_are_intervals():
    first, second = orders_that_can_win([n, 784, 10, 10])
    whole = next(iter(first.cost.free_symbols))
    assert (first.pairs, first.cost, first.condition) == ([(0, 1), (3, 2)], 7940 * whole, whole <= 784)
    assert (second.pairs, second.condition) == ([(1, 2), (0, 3)], whole >= 785)


def test_an_order_that_never_wins_is_left_out():
    only, = orders_that_can_win([n, 100, 20, 100])
    assert only.pairs == [(0, 1), (3, 2)] and only.condition == sympy.true
    assert [len(all_orders(count)) for count in range(1, 7)] == [1, 1, 2, 5, 14, 42]


def test_too_many_matrices():
    with pytest.raises(GraphError, match="for 1 to 7 matrices, got 8"):
        orders_that_can_win([n] * 9)
