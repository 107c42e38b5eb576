"""Lowering: the kernels of a graph, where its buffers lie, and native code of whole graphs against the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys

import graphc as gc
from graphc.ir.node import Graph, Node
from graphc.ir.plan import Contraction, Kernel, KernelStep, Program
from graphc.ir.plan_text import program_text
from graphc.ir.reference import evaluate
from passes.lower import Request, lower
from passes.memory import Lifetime, assign_offsets, overlaps
import numpy as np
import pytest

from compiled import Native, native


def program(outputs: list[Node], inputs: list[Node], updates: dict[Node, Node] | None = None) -> Program:
    return lower(Request("main", tuple(inputs), tuple(outputs), tuple((updates or {}).items())))


def labels(made: Program) -> list[str]:
    return [step.label for step in made.steps if isinstance(step, KernelStep)]


@pytest.fixture
def x() -> Node:
    with Graph():
        yield gc.placeholder("float32", ("batch", 16), name="x")


@pytest.mark.parametrize("n", [1, 5, 9, 17, 40, 1000])
def test_a_kept_value_is_not_overwritten_while_it_is_computed_with(n: int) -> None:
    """The sum of a kept value and a row's total is cheap, so it is computed anew in the pass after the maximum."""
    with Graph(), gc.Session(threads=1) as sess:
        y = gc.placeholder("float64", (n,), name="y")
        total = gc.broadcast_to(gc.tanh(gc.sum(gc.tanh(y))), (n,))
        value = gc.where(y > y * 0.5, y, gc.roll(y, 1)) + total
        fetches = [gc.log1p(gc.abs(value * gc.max(value))), total]
        feeds = {y: np.random.default_rng(0).standard_normal(n)}
        for got, wanted in zip(sess.run(fetches, feeds), evaluate(fetches, feeds, {})):
            np.testing.assert_allclose(got, wanted, rtol=1e-13)


@pytest.mark.parametrize("n", [1, 9, 100, 1000])
def test_an_index_is_not_overwritten_while_rows_are_chosen_by_it(n: int) -> None:
    """The index is loaded anew in the pass after the maximum, when the variable's new value must not be there yet."""
    rng = np.random.default_rng(0)
    order, values = rng.permutation(n), rng.permutation(n)
    with Graph(), gc.Session(threads=1) as sess:
        table, v = gc.placeholder("int64", (n,), name="table"), gc.variable(order, name="v")
        taken = gc.take(table, v, axis=0)
        step = sess.function([table], taken - gc.max(taken), updates={v: taken})
        np.testing.assert_array_equal(step(values), values[order] - (n - 1))
        np.testing.assert_array_equal(sess.value(v), values[order])


@pytest.mark.parametrize("n", [3, 40])
def test_a_reshape_of_what_the_kernel_computes_is_not_loaded(n: int) -> None:
    rng = np.random.default_rng(0)
    with Graph(), gc.Session(threads=1) as sess:
        x, v, w = (gc.placeholder("float64", (1, n), name=name) for name in "xvw")
        product = gc.reshape(v, (n,)) * gc.tanh(gc.sum(x, axis=0))
        row = gc.reshape(product, (1, n))
        total = w * w + row
        fetches = [gc.arctan2(gc.tanh(total), total)[:, 1:], gc.tanh(row.T @ row)]
        feeds = {node: rng.standard_normal((1, n)) for node in (x, v, w)}
        for got, wanted in zip(sess.run(fetches, feeds), evaluate(fetches, feeds, {})):
            np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_softmax_is_one_kernel_that_keeps_the_exponentials(x: Node) -> None:
    made = program([gc.nn.softmax(x)], [x])
    assert len(made.steps) == 1
    kinds = [op.kind for op in made.steps[0].kernel.ops]
    assert kinds.count("reduce") == 2 and kinds.count("exp") == 1 and kinds.count("keep") == 1


def test_layer_norm_is_one_kernel(x: Node) -> None:
    assert len(program([gc.nn.layer_norm(x)], [x]).steps) == 1


def test_dense_layer_is_one_contraction_with_its_epilogue(x: Node) -> None:
    w = gc.variable(np.ones((16, 32), "float32"), name="w")
    b = gc.variable(np.ones(32, "float32"), name="b")
    v = gc.variable(np.ones((32, 8), "float32"), name="v")
    made = program([gc.relu(x @ w + b) @ v], [x])
    assert [type(step.kernel) for step in made.steps] == [Contraction, Contraction]
    assert "relu" in labels(made)[0]


def test_optimiser_runs_in_the_epilogue_and_in_place(x: Node) -> None:
    w = gc.variable(np.ones((16, 32), "float32"), name="w")
    loss = gc.sum(gc.square(x @ w))
    updates = gc.optim.Adam(1e-3).minimize(loss)
    made = program([loss], [x], updates)
    assert not [s for s in made.steps if not isinstance(s, KernelStep)], "updates are written in place, not copied"
    stores = [sum(op.kind == "store" for op in s.kernel.ops) for s in made.steps if isinstance(s.kernel, Contraction)]
    assert 3 in stores


def test_swapped_variables_read_old_values(x: Node) -> None:
    a = gc.variable(np.arange(3.0), name="a")
    b = gc.variable(np.arange(3.0) + 10, name="b")
    made = Native([a + b], [], [(a, b), (b, a)])
    state = [np.arange(3.0), np.arange(3.0) + 10]
    assert [s.name for s in made.program.state] == ["a", "b"]
    made({}, state)
    np.testing.assert_array_equal(state, [np.arange(3.0) + 10, np.arange(3.0)])


def test_fetched_variable_gives_its_old_value(x: Node) -> None:
    a = gc.variable(np.ones(3), name="a")
    made = Native([a], [], [(a, a + 1)])
    state = [np.ones(3)]
    assert made({}, state)[0].tolist() == [1, 1, 1]
    assert state[0].tolist() == [2, 2, 2]


def test_scalar_graph_is_one_kernel_without_loops() -> None:
    with Graph():
        q = [gc.placeholder("float64", (), name=f"q{k}") for k in range(4)]
        y = gc.sin(q[0]) * gc.cos(q[1]) + q[2] / q[3]
        z = gc.exp(q[0] - q[1])
        made = program([y, z, *gc.gradients(y, q)], q)
        assert len(made.steps) == 1 and made.steps[0].kernel.extents == ()


def test_unknown_size_is_refused() -> None:
    with Graph():
        n = gc.Dim.symbol("n")
        x = gc.placeholder("float32", (3,), name="x")
        y = gc.broadcast_to(x, (n, 3))
        with pytest.raises(gc.GraphError, match=r"'n'.*unknown at run time"):
            program([y], [x])


def test_index_out_of_range_is_refused(x: Node) -> None:
    i = gc.placeholder("int32", (2,), name="i")
    made = Native([gc.take(x, i, axis=1)], [x, i])
    data = np.arange(32, dtype="float32").reshape(2, 16)
    np.testing.assert_array_equal(made({x: data, i: np.array([-1, 3], "int32")})[0], data[:, [-1, 3]])
    for bad in ([16, 0], [0, -17]):
        with pytest.raises(ValueError, match="index lies outside"):
            made({x: data, i: np.array(bad, "int32")})


def test_computed_indices_are_checked_before_variables_change(x: Node) -> None:
    i = gc.placeholder("int64", (2,), name="i")
    w = gc.variable(np.zeros(16, "float32"), name="w")
    made = Native([gc.take(x, i * 2 + 1, axis=1)], [x, i], [(w, w + gc.sum(x, axis=0))])
    data, state = np.ones((3, 16), "float32"), [np.zeros(16, "float32")]
    assert made({x: data, i: np.array([-1, 3])}, state)[0].shape == (3, 2) and state[0][0] == 3
    with pytest.raises(ValueError, match="index lies outside"):
        made({x: data, i: np.array([0, 8])}, state)
    assert state[0].tolist() == [3] * 16


def test_a_later_pass_reads_the_old_value() -> None:
    with Graph():
        v = gc.variable(np.zeros((4, 300)), name="v")
        doubled = v * 2
        made = Native([v / gc.sum(doubled, axis=1, keepdims=True)], [], [(v, doubled)])
        state = [np.random.default_rng(0).uniform(1, 2, (4, 300))]
        old = state[0].copy()
        got = made({}, state)[0]
        np.testing.assert_allclose(got, old / (2 * old).sum(axis=1, keepdims=True), rtol=1e-12)
        np.testing.assert_array_equal(state[0], 2 * old)


@pytest.mark.parametrize("seed", range(20))
def test_live_buffers_never_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(60):
        first = int(rng.integers(0, 50))
        size = 64 * int(rng.integers(0, 30))
        found.append(Lifetime(k, size, first, first + int(rng.integers(0, 12))))  # type: ignore[arg-type]
    total = assign_offsets(found)
    assert overlaps(found) == []
    assert all(b.offset + b.nbytes <= total for b in found)
    peak = max(sum(b.nbytes for b in found if b.first <= t <= b.last) for t in range(70))
    assert total <= 1.5 * peak


def test_arena_is_reused(x: Node) -> None:
    y = x
    for _ in range(10):
        y = gc.transpose(gc.cumsum(y, axis=0) * 2.0).reshape((-1, 16))
    made = program([y], [x])
    buffers = [b for b in made.buffers if b.place == "arena"]
    assert len({str(b.offset) for b in buffers}) < len(buffers)


def pieces(n: Node) -> list[Node]:
    return [gc.concatenate([n, gc.exp(n)[:, ::-1]], axis=1), gc.pad(n, ((1, 2), (0, 3))), gc.flip(n, 1),
            gc.roll(n, 3, axis=1), gc.cumsum(n, axis=1), gc.cumprod(n, axis=0)]


CASES: dict[str, Callable[[Node], list[Node]]] = {
    "row statistics": lambda n: [gc.mean(n, axis=1), gc.var(n, axis=1, ddof=1), gc.max(n, axis=1),
                                 gc.argmin(n, axis=1)],
    "column statistics": lambda n: [gc.mean(n, axis=0), gc.std(n, axis=0), gc.logsumexp(n, axis=0)],
    "softmax then loss": lambda n: [gc.sum(gc.log(gc.nn.softmax(n)) * n), gc.nn.softmax(n), gc.nn.log_softmax(n)],
    "shared heavy value": lambda n: [gc.exp(n) + 1, gc.sum(gc.exp(n), axis=0), gc.exp(n).T @ n],
    "gram": lambda n: [n.T @ n, n @ n.T, gc.sum(n * (n @ (n.T @ n)))],
    "pieces": pieces,
    "indices": lambda n: [gc.take(n, gc.constant([3, 0, -1]), axis=1), n[:, 2:9:3], n[..., None] * 2, n[0]],
    "reshape": lambda n: [gc.exp(n).reshape((-1,)), n.reshape((-1, 4, 4)).transpose((0, 2, 1)).sum(axis=2),
                          n.ravel()[:5]],
    "outer": lambda n: [gc.einsum("ij,kj->ik", n, n), gc.einsum("ij->j", n), gc.einsum("ij,ij->i", n, n),
                        gc.tril(n @ n.T)],
    "gradient": lambda n: gc.gradients(gc.sum(gc.tanh(n @ n.T)), [n]),
    "second order": lambda n: gc.gradients(gc.sum(gc.gradients(gc.sum(gc.sin(n) * n ** 3), [n])[0] ** 2), [n]),
}


@pytest.mark.parametrize("name", CASES)
def test_native_is_reference(name: str) -> None:
    with Graph():
        n = gc.placeholder("float64", ("batch", 16), name="n")
        nodes = CASES[name](n)
        made = Native(nodes, [n])
        for batch in (5, 1, 16, 33):
            data = np.random.default_rng(batch).standard_normal((batch, 16))
            for got, wanted, node in zip(made({n: data}), evaluate(nodes, {n: data}, {}), nodes):
                where = f"{name} {node!r} batch {batch}"
                np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12, err_msg=where)


def test_kernels_are_within_their_limits() -> None:
    with Graph():
        v = [gc.placeholder("float64", (), name=f"v{k}") for k in range(8)]
        y = v[0]
        for k in range(3000):
            y = gc.sin(y) * v[k % 8] + y
        made = program([y], v)
        assert len(made.steps) > 3
        assert all(isinstance(s.kernel, Kernel) and len(s.kernel.ops) < 1500 for s in made.steps)
        feeds = {n: np.asarray(0.1 * k) for k, n in enumerate(v)}
        np.testing.assert_allclose(native([y], feeds)[0], evaluate([y], feeds, {})[0], rtol=1e-9)


def test_program_as_text(golden: Callable[[str], None]) -> None:
    with Graph():
        x = gc.placeholder("float32", ("batch", 64), name="x")
        w = gc.variable(np.ones((64, 32), "float32"), name="w")
        golden(program_text(program([gc.nn.softmax(gc.relu(x @ w + 1.0))], [x])))


def test_no_access_outside_the_buffers() -> None:
    child = Path(__file__).with_name("program_guards.py")
    result = subprocess.run([sys.executable, str(child)], cwd=child.parent, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"after {result.stdout[-300:]}\n{result.stderr[-3000:]}"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_indices_of_any_integers_are_checked(dtype):
    rows = np.arange(12.0).reshape(4, 3)
    is_signed = dtype.startswith("int")
    with gc.Graph():
        i = gc.placeholder(dtype, ("n",), name="i")
        f = gc.Session().function([i], gc.constant(rows)[i])
    good = [3, 0, 2, *([-1, -4] if is_signed else [])]
    np.testing.assert_array_equal(f(np.array(good, dtype)), rows[good])
    assert f(np.zeros(0, dtype)).shape == (0, 3)
    for bad in (4, np.iinfo(dtype).max, *([-5, np.iinfo(dtype).min] if is_signed else [])):
        with pytest.raises(ValueError, match="index lies outside"):
            f(np.array([0, bad], dtype))
