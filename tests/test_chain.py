"""The search over bracketings of a chain: published chains, brute force, limits, and the two searches compared."""

from __future__ import annotations

from functools import cache
import random
from time import perf_counter

import numpy as np
import pytest

from graphc.ir.errors import GraphError
from passes.jacobian.bracketing import (Adjoint, Leaf, Multiply, Tangent, adjoint_sweep, formula, postorder,
                                        tangent_sweep)
from passes.jacobian.chain import best_bracketing, least_memory, priced
from passes.jacobian.dense_chain import Element, dense_chain, dense_plan, given, least_dense_memory, swept
from passes.jacobian.hessian_chain import hessian_plan, hessian_sweeps
from passes.jacobian.sparse_chain import colours, sparse_chain

from chains import CHAINS, HESSIANS, SPARSE, SPARSE_SIZES

published = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)


def elements_of(chain):
    return [swept(*sizes) for sizes in chain.sizes]


def random_chain(rng, longest=10, widest=8, kinds=("swept",)):
    sizes = [rng.randint(1, widest) for _ in range(rng.randint(2, longest + 1))]
    found = []
    for columns, rows in zip(sizes, sizes[1:]):
        edges = rng.randint(1, 40)
        found.append({"swept": swept(rows, columns, edges), "given": given(rows, columns),
                      "forward": Element(rows, columns, edges, None),
                      "reverse": Element(rows, columns, None, edges, tape=7),
                      "uneven": Element(rows, columns, edges, 3 * edges, tape=5)}[rng.choice(kinds)])
    return found


# -- published figures --
@published
def test_the_cost_is_the_published_one(chain):
    plan = dense_plan(elements_of(chain))
    assert plan.cost == chain.best
    assert priced(dense_chain(elements_of(chain)), plan.bracketing).cost == chain.best


@published
def test_sweeps_and_parts_cost_what_is_published(chain):
    model = dense_chain(elements_of(chain))
    assert priced(model, tangent_sweep(model.length)).cost == chain.tangent
    assert priced(model, adjoint_sweep(model.length)).cost == chain.adjoint
    parts = sum(min(way.cost for way in model.preaccumulate(k)) for k in range(model.length))
    products = dense_plan([given(e.rows, e.columns) for e in model.elements]).cost
    assert parts + products == chain.apart


@pytest.mark.parametrize("chain, memory, cost", [(c, *item) for c in CHAINS for item in c.by_memory.items()],
                         ids=lambda value: getattr(value, "name", str(value)))
def test_limited_memory(chain, memory, cost):
    plan = dense_plan(elements_of(chain), memory=memory)
    assert plan.cost == cost and plan.tape <= memory


@pytest.mark.parametrize("chain, threads, cost", [(c, *item) for c in CHAINS for item in c.by_threads.items()],
                         ids=lambda value: getattr(value, "name", str(value)))
def test_threads(chain, threads, cost):
    assert dense_plan(elements_of(chain), threads=threads).cost == cost


@pytest.mark.parametrize("text, left, right, best", HESSIANS, ids=lambda value: str(value)[:10])
def test_hessian_chains(text, left, right, best):
    sizes = list(map(int, text.split()))
    elements = [given(rows, columns) for columns, rows in zip(sizes, sizes[1:])]
    plan = hessian_plan(elements)
    assert plan.cost == best
    assert len(plan.splits) == plan.splits[-1].last == len(elements) - 1 and plan.splits[-1].first == 0
    accuracy = 0 if left < 1e9 else 5e-4  # the large ones were published with four digits
    assert hessian_sweeps(elements) == pytest.approx((left, right), rel=accuracy)


def patterns_of(rows_of_elements, sizes):
    found = []
    for text, columns, rows in zip(rows_of_elements, sizes, sizes[1:]):
        pattern = np.full((rows, columns), text == "*")
        for row, stored in enumerate(text.split() if text != "*" else ()):
            pattern[row, list(map(int, stored))] = True
        found.append(pattern)
    return found


def test_a_sparse_chain():
    patterns = patterns_of(SPARSE, SPARSE_SIZES)
    model = sparse_chain(patterns)
    left = right = Leaf(0, "given")
    left = Leaf(9, "given")
    for k in range(1, 10):
        right, left = Multiply(Leaf(k, "given"), right), Multiply(left, Leaf(9 - k, "given"))
    assert (best_bracketing(model).cost, priced(model, right).cost, priced(model, left).cost) == (49, 62, 448)
    assert dense_plan([given(*pattern.shape) for pattern in patterns]).cost == 147


# -- brute force --
def brute_force(elements, memory=None):
    """The least cost over all trees with runs of any length, straight from the definition."""
    edges = [e.tangent for e in elements]
    fits = [memory is None or e.tape <= memory for e in elements]

    @cache
    def least(j, i):
        e = elements[i]
        if i == j:
            return min(e.columns * edges[i], e.rows * edges[i] if fits[i] else float("inf"))
        m, n = elements[j].rows, elements[i].columns
        return min(min(least(j, k + 1) + least(k, i) + m * elements[k].rows * n,
                       least(k, i) + n * sum(edges[k + 1:j + 1]),
                       least(j, k + 1) + m * sum(edges[i:k + 1]) if pieces(i, k) else float("inf"))
                   for k in range(i, j))

    def pieces(i, k):  # a run may be cut into shorter ones, each with a tape of its own
        return all(fits[i:k + 1])

    return least(len(elements) - 1, 0)


def all_trees(elements, j, i):
    """Every tree of single steps, as (cost, rows, columns)."""
    e = elements[i]
    if i == j:
        return [e.columns * e.tangent, e.rows * e.adjoint]
    m, n = elements[j].rows, elements[i].columns
    found = [a + b + m * elements[k].rows * n for k in range(i, j)
             for a in all_trees(elements, j, k + 1) for b in all_trees(elements, k, i)]
    found += [a + n * elements[j].tangent for a in all_trees(elements, j - 1, i)]
    return found + [a + m * elements[i].adjoint for a in all_trees(elements, j, i + 1)]


def test_a_thousand_random_chains_equal_the_definition():
    rng = random.Random(1)
    for _ in range(1000):
        elements = random_chain(rng)
        memory = rng.choice([None, None, 0, 10, 20])
        assert dense_plan(elements, memory).cost == brute_force(elements, memory), (elements, memory)


def test_no_tree_is_cheaper():
    rng = random.Random(2)
    for _ in range(60):
        elements = random_chain(rng, longest=5)
        assert dense_plan(elements).cost == min(all_trees(elements, len(elements) - 1, 0)), elements


# -- the two searches --
def outcome(search, *arguments):
    try:
        plan = search(*arguments)
    except GraphError as fault:
        return str(fault).partition(";")[0]
    return plan.cost, str(plan.bracketing), plan.product, plan.tape


def test_arrays_find_the_trees_that_loops_find():
    rng = random.Random(3)
    kinds = ("swept", "swept", "given", "forward", "reverse", "uneven")
    for _ in range(250):
        elements = random_chain(rng, 8, rng.choice([2, 3, 8]), kinds)
        limits = rng.choice([None, None, 0, 6, 20]), rng.choice([1, 1, 2, 3, 5])
        found = outcome(dense_plan, elements, *limits), outcome(best_bracketing, dense_chain(elements), *limits)
        assert found[0] == found[1], (elements, limits)


def test_the_cost_of_a_plan_is_that_of_its_tree():
    rng = random.Random(4)
    for _ in range(100):
        elements = random_chain(rng, 10, 8, ("swept", "uneven", "given"))
        plan = dense_plan(elements, rng.choice([None, 6]))
        assert priced(dense_chain(elements), plan.bracketing) == plan


def test_huge_sizes_do_not_overflow():
    elements = [swept(e.rows * 10**7, e.columns * 10**7, e.tangent * 10**14) for e in elements_of(CHAINS[6])]
    assert dense_plan(elements).cost == 1344 * 10**21


# -- limits --
def test_the_least_memory():
    elements = elements_of(CHAINS[0])
    assert least_dense_memory(elements) == 0 and least_dense_memory(elements, 56) == 29
    assert least_dense_memory(elements, 130) == 14 and least_dense_memory(elements, 55) is None
    assert least_memory(dense_chain(elements), 130) == 14


@pytest.mark.parametrize("search", [dense_plan, lambda elements, *rest: best_bracketing(dense_chain(elements), *rest)])
def test_a_limit_that_nothing_fits_names_the_least_that_would_do(search):
    elements = [Element(2, 3, None, 4, tape=40), Element(5, 2, None, 4, tape=10)]
    with pytest.raises(GraphError, match=r"2 elements fits a tape of 39; the least that would do is 40"):
        search(elements, 39)
    assert search(elements, 40).cost == 40


def test_runs_are_cut_where_their_tape_would_pass_the_limit():
    elements = [swept(9, 9, 10), swept(9, 9, 10), swept(9, 9, 10), swept(1, 9, 10)]
    assert str(dense_plan(elements).bracketing) == "(adj(F3))adj(F2 F1 F0)"
    cut = dense_plan(elements, 25)
    assert str(cut.bracketing) == "((adj(F3))adj(F2))adj(F1 F0)" and cut.tape == 20 and cut.cost == 40


@pytest.mark.parametrize("arguments, message", [
    (([],), "one element or more"), (([given(2, 3)], -1), "memory is zero or more, got -1"),
    (([given(2, 3)], None, 0), "one thread or more, got 0"),
    (([given(2, 3), given(4, 5)],), "element 1 of the chain is 4x5, which does not fit element 0 of 2x3")])
def test_bad_input(arguments, message):
    with pytest.raises(GraphError, match=message):
        dense_plan(*arguments)


# -- form --
def test_formulas():
    tree = Multiply(Adjoint(3, 4, Leaf(5, "adjoint")), Tangent(1, 2, Leaf(0, "given")), (1, 2))
    assert str(tree) == repr(tree) == "((adj(F5))adj(F4 F3) || tan(F2 F1)(F0))"
    assert formula(tree, "abcdef".__getitem__) == "((adj(f))adj(e d) || tan(c b)(a))"
    assert formula(tangent_sweep(9)) == "tan(F8..F1)(tan(F0))" and formula(adjoint_sweep(1)) == "adj(F0)"
    assert [type(node).__name__ for node in postorder(tree)] == ["Leaf", "Tangent", "Leaf", "Adjoint", "Multiply"]


def test_ties_go_to_the_product_and_to_long_runs():
    square = Element(2, 2, 4, 4, 0)  # a step costs what a product costs
    assert str(dense_plan([square] * 3).bracketing) == "((F2 * F1) * F0)"
    assert str(dense_plan([Element(1, 1, 0, 0)] * 4).bracketing) == "tan(F3 F2 F1)(tan(F0))"


@pytest.mark.parametrize("length, seconds", [(100, 0.05), (500, 2.0)])
def test_planning_is_quick(length, seconds):
    rng = random.Random(5)
    sizes = [rng.randint(1, 100) for _ in range(length + 1)]
    elements = [swept(rows, columns, rng.randint(1, 9000)) for columns, rows in zip(sizes, sizes[1:])]
    times = []
    for _ in range(3):
        start = perf_counter()
        plan = dense_plan(elements)
        times.append(perf_counter() - start)
    assert min(times) < seconds
    assert priced(dense_chain(elements), plan.bracketing) == plan


def test_a_deep_tree_needs_no_recursion():
    tree = Leaf(0, "given")
    for k in range(1, 3000):
        tree = Multiply(Leaf(k, "given"), tree)
    assert len(formula(tree)) > 3000 and len(postorder(tree)) == 5999
    assert priced(dense_chain([given(2, 2)] * 3000), tree).cost == 2999 * 8


# -- colours --
def test_colours_of_known_patterns():
    n = 40
    band = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    arrow = (band == 0) | (np.arange(n) == 0) | (np.arange(n)[:, None] == 0)
    assert [colours(band <= width) for width in (0, 1, 3)] == [1, 3, 7]
    assert colours(arrow) == n and colours(np.zeros((3, 4), bool)) == 0


def test_sparse_sweeps_are_compressed():
    n = 30
    band = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1
    plan = best_bracketing(sparse_chain([band], [100], given=False))
    assert plan.cost == 300 and str(plan.bracketing) == "tan(F0)"
    both = best_bracketing(sparse_chain([band, band], [200, 200], given=False))
    assert both.cost == 1200 + int(band.sum(0) @ band.sum(1)) and str(both.bracketing) == "(tan(F1) * tan(F0))"
    swept_twice = best_bracketing(sparse_chain([band, band], [10, 10], given=False))
    assert swept_twice.cost == 30 + 50 and str(swept_twice.bracketing) == "tan(F1)(tan(F0))"
    with pytest.raises(GraphError, match="2 patterns and 1 sweeps"):
        sparse_chain([band, band], [1])
