"""Jacobians by plans: values against complex steps, natively and by reference; Hessians and products; mistakes."""

import numpy as np
import pytest

import graphc as gc
from graphc.derivatives import gradients, hessian, hvp, jacobian, plan_jacobian
from graphc.ir.errors import DTypeError, GraphError, Unsupported
from graphc.ir.linmap.cost import price
from graphc.ir.node import OPS, Graph, ancestors
from graphc.ir.types import Type, is_float
from passes.jacobian import plan as plans

STEP = 1e-30


@pytest.fixture(autouse=True)
def fresh_graph():
    plans.PLANS.clear()
    with Graph():
        yield


def leaf(name, *shape, dtype="float64"):
    return gc.placeholder(dtype, shape, name=name)


def feeds_of(nodes):
    leaves = [n for n in ancestors(nodes) if n.op.name == "placeholder"]
    return {n: np.random.default_rng(len(n.name)).normal(size=n.shape) + 0.1 for n in leaves}


def complex_value(y, feeds):
    values = {}
    for n in ancestors([y]):
        dtype = "complex128" if is_float(n.dtype) else n.dtype
        values[n] = np.asarray(feeds[n]) if n in feeds else n.op.reference(n.attrs, Type(dtype, n.shape),
                                                                         *(values[o] for o in n.operands))
    return values[y]


def complex_jacobian(y, x, feeds):
    """Column by column, y(x + i*h*e).imag / h."""
    columns = []
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = STEP
        columns.append(complex_value(y, {**feeds, x: feeds[x] + 1j * step.reshape(x.shape)}).imag / STEP)
    return np.stack(columns, -1).reshape(y.shape + x.shape)


def worst(got, want):
    return np.max(np.abs(got - want)) / max(np.max(np.abs(want)), 1e-300)


def check(ys, xs, orders=("auto", "forward", "reverse")):
    feeds = feeds_of(ys)
    want = [complex_jacobian(y, x, feeds) for y in ys for x in xs]
    for mode in ("native", "reference"):
        with gc.Session(mode=mode) as session:
            for order in orders:
                nodes = [node for row in jacobian(ys, xs, order) for node in row]
                for got, expected, node in zip(session.run(nodes, feeds), want, nodes):
                    assert got.shape == node.shape
                    assert worst(got, expected) <= 1e-10, (mode, order)


def chain(*sizes):
    x = h = leaf("x", sizes[0])
    for k, (a, b) in enumerate(zip(sizes, sizes[1:])):
        h = gc.tanh(leaf(f"w{k}", b, a) @ h)
    return h, x


def stencil(n):
    u = leaf("u", n)
    inner = u[2:] - 2.0 * u[1:-1] + u[:-2]
    return gc.sin(inner) * u[1:-1]


# -- values --
def test_chains():
    y, x = chain(12, 7, 2, 7, 12)
    check([y], [x])


def test_residual_blocks():
    h = x = leaf("x", 9)
    for k in range(3):
        h = h + leaf(f"u{k}", 9, 2) @ gc.tanh(leaf(f"v{k}", 2, 9) @ h)
    check([h], [x])


def test_all_inputs_and_weights_of_several_outputs():
    y, x = chain(6, 5, 2, 5, 6)
    weights = [n for n in ancestors([y]) if n.name in ("w0", "w2")]
    check([y, gc.sum(y * y), gc.cos(x)], [x, *weights])


def test_norms_sums_and_batches():
    x = leaf("x", 4, 5)
    h = x / gc.sqrt(1.0 + gc.sum(x * x, axis=1, keepdims=True))
    check([gc.tanh(h @ leaf("w", 5, 3)), gc.exp(h)], [x])


def test_stencils_slices_and_reshapes():
    y = stencil(12)
    (u,) = [n for n in ancestors([y]) if n.op.name == "placeholder"]
    check([y, gc.reshape(gc.concat([y, u]), (2, 11)), gc.sin(u[::3])], [u])


def test_scans():
    x = leaf("x", 6)
    check([gc.cumsum(gc.sin(x)) * x], [x])


def test_scalar_code():
    x = leaf("x", 3)
    a, b, c = x[0], x[1], x[2]
    r = gc.sqrt(a * a + b * b + 1.0)
    check([gc.stack([a * b / r, gc.sin(c) * r, gc.exp(a * c) + b])], [x])


def test_an_inner_node_as_x_and_a_y_that_another_is_computed_from():
    x = leaf("x", 4)
    h = gc.sin(x)
    y = gc.tanh(leaf("w", 3, 4) @ h)
    first, again = jacobian([y, h], [h, x]), jacobian([y, h], [x])
    feeds = feeds_of([y])
    with gc.Session() as session:
        (jyh, jyx), (jhh, jhx) = session.run(first[0], feeds), session.run(first[1], feeds)
        only = [session.run(row[0], feeds) for row in again]
    np.testing.assert_allclose(jhh, np.eye(4))
    np.testing.assert_allclose(jhx, np.diag(np.cos(feeds[x])))
    np.testing.assert_allclose(jyx, jyh @ jhx, rtol=1e-12)
    np.testing.assert_allclose(only[0], jyx, rtol=1e-12)
    np.testing.assert_allclose(only[1], jhx, rtol=1e-12)


def test_what_was_planned_is_what_the_session_computes():
    y, x = chain(16, 8, 2, 8, 16)
    plan = plan_jacobian(y, x)
    check([y], [x], [plan])


def test_coloured_sweeps_give_the_same_numbers():
    from passes.jacobian import engines
    from passes.jacobian.tensor import linearised
    y = stencil(10)
    (u,) = [n for n in ancestors([y]) if n.op.name == "placeholder"]
    linear = linearised([y], [u])
    ways = engines.coloured(linear)
    assert {w.name for w in ways} == {engines.FORWARD, engines.REVERSE} and "3 colours for 10 seeds" in ways[0].note
    feeds = feeds_of([y])
    want = complex_jacobian(y, u, feeds)
    with gc.Session() as session:
        for way in ways:
            got = session.run(engines.built(way.name, way.order, linear)[0, 0], feeds)
            assert worst(got, want) <= 1e-10, way.name


# -- Hessians --
def loss_of(x, z):
    return gc.sum(gc.tanh(leaf("w", 3, 5) @ x) * z) + gc.sum(gc.exp(x)) * gc.sum(z * z * z)


def test_all_blocks_of_a_hessian():
    x, z = leaf("x", 5), leaf("z", 3)
    loss = loss_of(x, z)
    feeds = feeds_of([loss])
    slopes = gradients(loss, [x, z])
    blocks = hessian(loss, [x, z])
    with gc.Session() as session:
        for p, slope in enumerate(slopes):
            for q, node in enumerate((x, z)):
                want = complex_jacobian(slope, node, feeds)
                assert worst(session.run(blocks[p][q], feeds), want) <= 1e-10


def test_a_hessian_of_scalar_code_is_symmetric_and_right():
    spot, rate, vol, term = (leaf(name, dtype="float64") for name in ("spot", "rate", "vol", "term"))
    root = vol * gc.sqrt(term)
    d = (gc.log(spot) + (rate + 0.5 * vol * vol) * term) / root
    value = spot * gc.sin(d) - gc.exp(-rate * term) * gc.sin(d - root)
    xs = [spot, rate, vol, term]
    feeds = dict(zip(xs, (1.1, 0.05, 0.3, 0.7), strict=True))
    slopes = gradients(value, xs)
    blocks = hessian(value, xs)
    with gc.Session() as session:
        for p, slope in enumerate(slopes):
            for q, x in enumerate(xs):
                want = complex_jacobian(slope, x, {k: np.asarray(v) for k, v in feeds.items()})
                assert worst(session.run(blocks[p][q], feeds), want) <= 1e-10, (p, q)


@pytest.mark.parametrize("size", [3, 30])
def test_products_with_a_hessian_by_the_cheaper_way(size):
    x, v = leaf("x", size), leaf("v", size)
    y = gc.sum(gc.tanh(leaf("w", size, size) @ gc.sin(x)))
    product = hvp(y, [x], [v])[0]
    feeds = feeds_of([y, v])
    with gc.Session() as session:
        got, matrix = session.run([product, hessian(y, x)], feeds)
    np.testing.assert_allclose(got, matrix @ feeds[v], rtol=1e-10)
    slope = gradients(y, x)
    both = [price([gc.jvp(slope, x, v)], [slope]), price([gc.vjp(slope, x, v)], [slope])]
    assert price([product], [slope]) == min(both)


# -- mistakes --
MISTAKES = [
    (lambda x, y, i, alone: plan_jacobian(gc.cast(y, "int32"), x), DTypeError, "int32.*no derivative"),
    (lambda x, y, i, alone: jacobian(y, i), DTypeError, "int64.*no derivative"),
    (lambda x, y, i, alone: jacobian(y > 0.0, x), DTypeError, "bool.*no derivative"),
    (lambda x, y, i, alone: jacobian(y, [x, alone], unconnected="error"), GraphError, "alone.*does not depend"),
    (lambda x, y, i, alone: jacobian(y, x, "both"), GraphError, "both.*auto, forward, reverse"),
    (lambda x, y, i, alone: plan_jacobian(y, x, memory=8), GraphError, "memory=8 bytes; the least that would do is"),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), MISTAKES)
def test_mistakes_say_what_is_wrong_and_where(call, kind, pattern):
    x, i, alone = leaf("x", 3), leaf("i", 3, dtype="int64"), leaf("alone", 3)
    y = gc.sin(leaf("w", 3, 3) @ gc.tanh(x))
    with pytest.raises(kind, match=f"(?s){pattern}") as caught:
        call(x, y, i, alone)
    assert "test_jacobian.py:" in str(caught.value)


def test_an_unreachable_x_gives_zeros_of_the_right_shape():
    x, alone = leaf("x", 3), leaf("alone", 2, 2)
    first, second = jacobian(gc.sin(x), [x, alone])
    with gc.Session() as session:
        values = session.run([first, second], {x: np.ones(3)})
    assert values[1].shape == (3, 2, 2) and not values[1].any() and values[0].any()
    assert plan_jacobian(gc.sin(x), alone).multiplications == 0


def test_an_op_without_a_derivative_is_named(monkeypatch):
    from dataclasses import replace
    x = leaf("x", 3)
    y = gc.cumprod(x)
    node = next(n for n in ancestors([y]) if n.op.maps is not None)
    monkeypatch.setattr(node.op.__class__, "__hash__", object.__hash__)
    object.__setattr__(node, "op", replace(OPS[node.op.name], maps=None))
    with pytest.raises(Unsupported, match=rf"(?s){node.op.name}.*test_jacobian.py:\d+"):
        jacobian(y, x)


def test_a_dense_result_beyond_memory_is_refused_with_its_bytes():
    x = leaf("x", 10_000_000)
    with pytest.raises(GraphError, match=r"(?s)takes 800000000000000 bytes.*sparse_jacobian.*gc.jvp and gc.vjp"):
        jacobian(gc.sin(x), x)
    assert plan_jacobian(gc.sin(x), x).multiplications == 0


def test_the_name_of_a_plan_is_no_secret():
    y, x = chain(4, 2, 4)
    plan = plan_jacobian(y, x)
    assert plan.name in plan.explain() and all(r.name in plan.explain() for r in plan.rejected)
    assert not np.isnan(float(plan.multiplications))
