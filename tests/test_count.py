"""Counts of operations against counts by hand."""

import numpy as np
import pytest

import graphc as gc
from graphc.counting import count_operations
from graphc.ir.errors import GraphError


@pytest.fixture(autouse=True)
def fresh_graph():
    with gc.Graph():
        yield


def test_elementwise_and_sum():
    x = gc.placeholder("float64", (100,))
    assert count_operations(gc.sum(x * x)) == {"add": 100, "mul": 100}
    assert count_operations([gc.sin(x) - x, gc.exp(x)]) == {"exp": 100, "sin": 100, "sub": 100}


def test_shared_values_count_once():
    x = gc.placeholder("float64", (10, 3))
    e = gc.exp(x)
    assert count_operations([e + 1.0, e * x]) == {"add": 30, "exp": 30, "mul": 30}


def test_what_depends_on_one_axis_runs_along_it_only():
    x, b = gc.placeholder("float64", (10, 30)), gc.placeholder("float64", (10, 1))
    assert count_operations(x * gc.sin(b)) == {"mul": 300, "sin": 10}


def test_constants_are_folded_first():
    x = gc.placeholder("float64", ())
    assert count_operations(x * (gc.constant(2.0) + gc.constant(3.0))) == {"mul": 1}


@pytest.mark.parametrize("m, k, n", [(3, 4, 5), (64, 32, 48)])  # loops, and a tiled product
def test_products_of_matrices(m, k, n):
    a, b = gc.placeholder("float64", (m, k)), gc.placeholder("float64", (k, n))
    assert count_operations(a @ b) == {"add": m * k * n, "mul": m * k * n}
    assert count_operations(gc.tanh(a @ b)) == {"add": m * k * n, "mul": m * k * n, "tanh": m * n}


def test_passes_over_a_row():
    x = gc.placeholder("float32", (8, 16))
    counts = count_operations(gc.softmax(x) if hasattr(gc, "softmax") else gc.exp(x - gc.max(x, axis=1, keepdims=True)))
    assert counts["exp"] == 8 * 16 and counts["maximum"] == 8 * 16


def test_symbolic_sizes():
    x = gc.placeholder("float64", ("n", 5))
    n = x.shape[0]
    assert count_operations(gc.sum(gc.sin(x), axis=1)) == {"add": 5 * n, "sin": 5 * n}


def test_moves_and_comparisons():
    x = gc.placeholder("float64", (6,))
    y = gc.where(x > 0.0, x, 2.0 * x)
    assert count_operations(y) == {"mul": 6}
    everything = count_operations(y, kinds="all")
    assert everything["lt"] == everything["where"] == everything["load"] == everything["store"] == 6


def test_scans():
    x = gc.placeholder("float64", (7,))
    counts = count_operations(gc.cumsum(x))
    assert counts == {"add": 7}  # straight-line code, which folds the factors of 1


def test_nothing_to_compute():
    x = gc.placeholder("float64", (7,))
    assert count_operations(x) == {}
    assert count_operations(gc.constant(np.ones(3))) == {}


def test_refusals():
    x = gc.placeholder("float64", (7,))
    with pytest.raises(GraphError, match="kinds='some' is none of"):
        count_operations(x, kinds="some")
    with pytest.raises(GraphError, match="expected a node"):
        count_operations([])
