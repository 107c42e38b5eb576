"""Nodes and graphs: interning, weak tables, scopes, long chains, user lines."""

import gc as garbage
import threading

import numpy as np
import pytest

import graphc as gc
from graphc.ir import build
from graphc.ir.node import ancestors, located, make, path_to, uniform_value, users
from graphc.ir.text import postorder


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph() as new:
        yield new


def test_equal_nodes_are_one_node():
    x = gc.placeholder("float32", (3,))
    assert gc.exp(x) is gc.exp(x)
    assert x + 1 is x + 1
    assert x - x is not x
    assert (x * 2) is not (2 * x)  # operand order counts
    assert x.sum(0) is gc.sum(x)


def test_constants_are_equal_by_bits():
    assert gc.constant(0.0) is not gc.constant(-0.0)
    assert gc.constant(float("nan")) is gc.constant(float("nan"))
    assert gc.constant(1) is not gc.constant(1.0)
    assert gc.constant(1) is not gc.constant(True)
    x = gc.placeholder("float32", ())
    assert x * 0.0 is not x * -0.0
    array = np.ones(3)
    node = gc.constant(array)
    array[0] = 5
    assert node.attrs["value"].array[0] == 1


def test_nodes_that_nobody_holds_are_gone(graph):
    x = gc.placeholder("float32", (3,))
    before = len(graph.interned)
    y = gc.exp(x) + gc.sin(x)
    assert len(graph.interned) == before + 3
    del y
    garbage.collect()
    assert len(graph.interned) == before


@pytest.mark.parametrize("length", [10**5, pytest.param(10**6, marks=pytest.mark.slow)])
def test_a_long_chain(length):
    x = node = gc.placeholder("float32", (2,))
    for _ in range(length):
        node = gc.sin(node)
    assert len(ancestors([node])) == length + 1
    assert len(postorder([node])) == length + 1
    assert len(path_to(node, x)) == length + 1
    del node
    garbage.collect()
    assert len(x.graph.interned) == 1


def test_walks():
    x = gc.placeholder("float32", (3,))
    a = gc.exp(x)
    b = a * a
    assert [n.op.name for n in ancestors([b])] == ["placeholder", "exp", "mul"]
    assert [n.op.name for n in users(ancestors([b]))[a]] == ["mul", "mul"]
    assert [n.op.name for n in path_to(b, x)] == ["mul", "exp", "placeholder"]
    assert path_to(x, b) == []


def test_broadcasts_stay_outside():
    """The op of two rows is a row: rank-one derivatives stay small."""
    v = gc.placeholder("float32", (4,))
    row = gc.broadcast_to(v, (3, 4))
    node = gc.exp(row * 2.0) + row
    assert node.op.name == "broadcast"
    assert node.operands[0].shape == (4,)
    column = gc.broadcast_to(gc.placeholder("float32", (3, 1)), (3, 4))
    assert (row + column).op.name == "add"
    assert (gc.ones((3, 4)) * 2).op.name == "broadcast"


def test_movement_collapses():
    x = gc.placeholder("float32", ("n", 6))
    assert x.T.T is x
    assert x.reshape(-1).reshape(x.shape) is x
    assert gc.transpose(gc.transpose(gc.reshape(x, (-1, 2, 3)), (1, 2, 0)), (2, 0, 1)) is gc.reshape(x, (-1, 2, 3))
    assert x[::-1][::-1] is x
    assert x[2:][1:] is x[3:]
    assert gc.cast(x, "float32") is x
    assert gc.einsum("ij->ij", x) is x
    assert gc.einsum("ij->ji", x) is x.T
    assert gc.einsum("ij->j", x) is x.sum(0)
    assert gc.broadcast_to(gc.broadcast_to(x[0], (2, 6)), (3, 2, 6)) is gc.broadcast_to(x[0], (3, 2, 6))


def test_uniform_values():
    assert uniform_value(gc.full((2, 3), 7)) == 7
    assert uniform_value(gc.constant([1.0, 1.0])) == 1
    assert uniform_value(gc.constant([1.0, 2.0])) is None
    assert uniform_value(gc.placeholder("float32", ())) is None


def test_names_and_scopes():
    with gc.name_scope("layer"):
        w = gc.variable(np.zeros(3), name="w")
        with gc.name_scope("inner"):
            x = gc.placeholder("float32", (3,), name="x")
    assert (w.name, x.name) == ("layer/w", "layer/inner/x")
    assert [gc.placeholder("float32", ()).name for _ in range(2)] == ["placeholder", "placeholder_1"]
    assert gc.placeholder("float32", (None, 2)).shape != gc.placeholder("float32", (None, 2)).shape


def test_variables_keep_a_copy(graph):
    array = np.zeros(3, "float64")
    w = gc.variable(array, name="w", dtype="float32")
    array[0] = 1
    assert w.dtype == "float32"
    assert graph.initial["w"].tolist() == [0, 0, 0]
    assert graph.initial["w"].dtype == np.float32

    class Ones:
        shape, dtype = (2,), "float16"

        def __call__(self):
            return np.ones(2, "float16")

    v = gc.variable(Ones(), name="v")
    assert str(v.type) == "float16[2]"
    assert graph.initial["v"]().tolist() == [1, 1]


def test_the_default_graph():
    inner = gc.Graph()
    with inner:
        x = gc.placeholder("float32", (2,))
        assert gc.default_graph() is inner
        with pytest.raises(gc.GraphError, match="leave the block first"):
            gc.reset_default_graph()
    assert x.graph is inner
    assert gc.tril(gc.reshape(x, (1, 2))).graph is inner  # helpers build in the operand's graph


def test_rewritten_nodes_keep_the_users_line():
    x = gc.placeholder("float32", (2,))
    y = gc.exp(x)
    with located(y):
        z = build.elementwise("mul", y, y)
    assert z.loc == y.loc


def test_threads_build_the_same_node():
    x = gc.placeholder("float32", (2,))
    found = []

    def build_it():
        node = x
        for _ in range(200):
            node = gc.sin(node)
        found.append(node)

    threads = [threading.Thread(target=build_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(node is found[0] for node in found)


def test_symbolic_checks_are_on_the_node():
    x = gc.placeholder("float32", ("n", 3))
    assert [str(c.a) for c in x[2:5].checks] == ["n"]
    y = gc.placeholder("float32", ("m", 3))
    check, = (x + y).checks
    assert {str(check.a), str(check.b)} == {"n", "m"}
    assert "test_graph.py" in check.message


def test_make_takes_ops_by_name():
    x = gc.placeholder("float32", (2, 3))
    assert make("sum", (x,), axes=(0,)) is x.sum(0)
    with pytest.raises(KeyError):
        make("no_such_op", (x,))
