"""Derivatives against complex steps and differences, for every op of the table; their text, errors and cost."""

from dataclasses import replace
import time

import numpy as np
import pytest

from graphc.derivatives import gradients, hessian, hvp, jacobian, jvp, vjp
from graphc.ir import build
from graphc.ir.errors import GraphError, Unsupported
from graphc.ir.node import OPS, Graph, ancestors, constant
from graphc.ir.reference import evaluate
from graphc.ir.types import Type, is_float
from samples import LEAVES, SAMPLES, all_samples, leaf, samples_of, values_of
from passes.stabilise import stabilise

STEP = 1e-3
COMPLEX = {"add", "sub", "mul", "div", "neg", "exp", "log", "sin", "cos", "tanh", "sqrt", "sinh", "cosh", "broadcast",
           "reshape", "transpose", "slice", "pad", "concat", "diagonal", "sum", "prod", "einsum", "gather",
           "scatter_add", "linear_scan", "constant", "placeholder"}


@pytest.fixture(autouse=True)
def fresh_graph():
    with Graph():
        yield


def run(nodes, feeds):
    return evaluate(nodes, feeds, {})


def floats(nodes):
    return [node for node in ancestors(nodes) if node.op.name == "placeholder" and is_float(node.dtype)]


def weighted(y):
    """sum(y * w) with fixed, unequal weights, as a scalar node."""
    if y.type.size == 0:
        return build.reduce_sum(y, tuple(range(y.ndim)))
    w = constant(np.cos(1.0 + np.arange(y.size)).reshape(y.shape), y.dtype)
    return build.reduce_sum(build.elementwise("mul", y, w), tuple(range(y.ndim)))


def complex_run(node, feeds):
    """The reference with complex numbers in the place of floats."""
    values = {}
    for n in ancestors([node]):
        dtype = "complex128" if is_float(n.dtype) else n.dtype
        values[n] = np.asarray(feeds[n]) if n in feeds else n.op.reference(n.attrs, Type(dtype, n.shape),
                                                                         *(values[o] for o in n.operands))
    return values[node]


def directional(y, feeds, direction):
    """d/dt y(x + t*dx) at 0."""
    if all(n.op.name in COMPLEX for n in ancestors([y])):
        moved = {x: v + 1e-30j * direction[x] if x in direction else v for x, v in feeds.items()}
        return complex_run(y, moved).imag / 1e-30

    def at(t):
        return run([y], {x: v + t * direction[x] if x in direction else v for x, v in feeds.items()})[0]
    with np.errstate(all="ignore"):
        slopes = [(at(k * STEP) - at(-k * STEP)) / (2 * k * STEP) for k in (1, 2, 3)]
    return 1.5 * slopes[0] - 0.6 * slopes[1] + 0.1 * slopes[2]


def check_first_order(y, tolerance=2e-8):
    xs = floats([y])
    feeds = values_of([y])
    direction = {x: np.random.default_rng(x.id).normal(size=x.shape) for x in xs}
    want = directional(y, feeds, direction)
    tangent = jvp(y, xs, [constant(direction[x]) for x in xs])
    pulled = gradients(weighted(y), xs)
    got, total, *back = run([tangent, jvp(weighted(y), xs, [constant(direction[x]) for x in xs]), *pulled], feeds)
    assert tangent.type == y.type
    assert [p.type for p in pulled] == [x.type for x in xs]
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(sum((b * direction[x]).sum() for b, x in zip(back, xs)), total, rtol=1e-11, atol=1e-11)


def check_jacobians(y):
    xs, feeds = floats([y]), values_of([y])
    for x in xs:
        both = run([jacobian(y, x, "forward"), jacobian(y, x, "reverse")], feeds)
        assert both[0].shape == y.shape + x.shape
        np.testing.assert_allclose(both[0], both[1], rtol=1e-12, atol=1e-12)
        if x.size and y.size:
            direction = np.random.default_rng(3).normal(size=x.shape)
            want = run([jvp(y, x, constant(direction))], feeds)[0]
            np.testing.assert_allclose(np.tensordot(both[0], direction, x.ndim), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "number"), [(name, k) for name, k, _ in all_samples()])
def test_every_op_to_second_order(name, number):
    y = samples_of(name)[number]()
    xs = floats([y])
    if not xs:
        return
    if name == "stop_gradient":
        assert not run(gradients(weighted(y), xs), values_of([y]))[0].any()
        return
    if not is_float(y.dtype):
        with pytest.raises(GraphError, match="no derivative"):
            gradients(y, xs[0])
        assert run([gradients(weighted(build.cast(y, "float64")), xs)[0]], values_of([y]))[0].any() == np.False_
        return
    check_first_order(y)
    check_jacobians(y)
    slopes = gradients(weighted(build.elementwise("mul", y, y)), xs)
    for slope in slopes:
        if floats([slope]):
            check_first_order(slope, 2e-6)


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.kind == "structural"])
def test_every_structural_op_has_a_sample(name):
    assert SAMPLES.get(name), f"no sample of {name}: add a row to tests/samples.py"
    assert all(sample().op.name == name for sample in SAMPLES[name])


def test_every_float_op_declares_its_derivative():
    for name, op in OPS.items():
        if name not in LEAVES and any(is_float(sample().dtype) for sample in samples_of(name)):
            assert op.partials is not None or op.maps is not None, f"{name}: neither partials nor maps"


# -- whole programs --
def matmul(a, b):
    return build.einsum(((0, 1), (1, 2)), (0, 2), a, b)


def total(x):
    return build.reduce_sum(x, tuple(range(x.ndim)))


def ops_between(ys, below):
    """Names of the ops that the ys have and the nodes below do not, in order, without constants and broadcasts."""
    old = set(ancestors(below))
    return [n.op.name for n in ancestors(ys) if n not in old and n.op.name not in ("constant", "broadcast")]


def network():
    x, weights = leaf("x", 5, 4), [leaf("w0", 4, 3), leaf("w1", 3, 6), leaf("w2", 6, 2)]
    biases, h = [leaf("b0", 3), leaf("b1", 6), leaf("b2", 2)], x
    for w, b in zip(weights, biases):
        h = build.elementwise("tanh", build.elementwise("add", matmul(h, w), b))
    return total(build.elementwise("mul", h, h)), x, weights, biases


def test_a_network_has_two_contractions_a_layer_and_nothing_else_is_contracted():
    loss, _, weights, biases = network()
    ops = ops_between(gradients(loss, [*weights, *biases]), [loss])
    assert ops.count("einsum") == 2 * len(weights) - 1  # nobody asked for the gradient by x
    assert set(ops) == {"einsum", "mul", "sub", "sum"}
    assert ops.count("sum") == len(biases)
    check_first_order(loss, 1e-7)


def test_the_gradient_of_softmax_cross_entropy_is_what_a_person_writes():
    z, t = leaf("z", 4, 3), leaf("t", 4, 3)
    e = build.elementwise("exp", z)
    norm = build.elementwise("log", build.reduce_sum(e, (1,)))
    loss = build.elementwise("sub", total(norm), total(build.elementwise("mul", z, t)))
    stable = stabilise([loss], keep=[z])  # the loss is shifted by the maximum before it is differentiated
    assert ops_between([gradients(loss, z)], stable) == ["div", "mul", "sub"]  # exp(z) / sum(exp(z)) - t
    check_first_order(loss, 1e-7)


def test_the_gradient_of_a_mean_is_one_number_repeated():
    x = leaf("x", 4, 3)
    slope = gradients(build.elementwise("div", total(x), 12.0), x)
    assert slope.op.name == "broadcast" and slope.operands[0].op.name == "constant"
    assert run([slope], {})[0].tolist() == [[1 / 12] * 3] * 4


def slices(x, count):
    return [build.reshape(build.slice_(x, (k,), (1,), (1,)), ()) for k in range(count)]


def test_the_gradient_of_many_slices_is_one_concat():
    x = leaf("x", 40)
    y = None
    for k, part in enumerate(slices(x, 40)):
        term = build.elementwise("mul", build.elementwise("sin", part), float(k + 1))
        y = term if y is None else build.elementwise("add", y, term)
    ops = ops_between([gradients(y, x)], [y])
    assert ops.count("concat") == 1 and not {"pad", "add", "scatter_add"} & set(ops)
    check_first_order(y, 1e-7)


def test_overlapping_slices_are_added_as_few_concats():
    x = leaf("x", 6)
    left, right = (build.elementwise("sin", build.slice_(x, (k,), (1,), (5,))) for k in (0, 1))
    y = build.elementwise("mul", left, right)
    ops = ops_between([vjp(y, x, np.ones(5))], [y])
    assert ops.count("pad") == 2 and ops.count("add") == 1
    check_first_order(y)


@pytest.mark.parametrize("order", ["forward", "reverse", "auto"])
def test_lists_give_rows_of_jacobians(order):
    x1, x2 = leaf("x1", 3), leaf("x2", 2)
    y1, y2 = build.elementwise("sin", x1), build.elementwise("mul", total(x1), x2)
    rows = jacobian([y1, y2], [x1, x2], order)
    assert [[n.shape for n in row] for row in rows] == [[(3, 3), (3, 2)], [(2, 3), (2, 2)]]
    feeds = values_of([y1, y2])
    a, b = feeds[x1], feeds[x2]
    got = [run(row, {**feeds}) for row in rows]
    np.testing.assert_allclose(got[0][0], np.diag(np.cos(a)))
    np.testing.assert_allclose(got[0][1], np.zeros((3, 2)))
    np.testing.assert_allclose(got[1][0], np.outer(b, np.ones(3)))
    np.testing.assert_allclose(got[1][1], np.eye(2) * a.sum())


def test_third_order():
    x = leaf("x", 4)
    y = total(build.elementwise("mul", build.elementwise("mul", build.elementwise("sin", x), x), x))
    for _ in range(2):
        slope = gradients(y, x)
        y = total(build.elementwise("mul", slope, slope))
    check_first_order(gradients(y, x), 1e-6)


def test_hvp_is_the_hessian_times_a_vector():
    loss, _, weights, _ = network()
    v = leaf("v", 4, 3)
    product, matrix = hvp(loss, [weights[0]], [v])[0], hessian(loss, weights[0])
    feeds = values_of([product, matrix])
    got, full = run([product, matrix], feeds)
    np.testing.assert_allclose(got, np.tensordot(full, feeds[v], 2), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(full, full.transpose(2, 3, 0, 1), rtol=1e-10, atol=1e-12)


def test_seeds_of_several_ys_add_up():
    x = leaf("x", 3)
    y, z = build.elementwise("sin", x), total(x)
    u = np.array([1.0, 2.0, 3.0])
    a, b = run([gradients([y, z], x, [u, np.array(10.0)]), vjp([y, z], x, [u, np.array(10.0)])], values_of([y]))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, u * np.cos(values_of([y])[x]) + 10)


def test_the_same_node_may_be_y_and_x_and_an_inner_node_an_x():
    x = leaf("x", 3)
    h = build.elementwise("sin", x)
    y = total(build.elementwise("mul", h, h))
    one, inner, outer = run([gradients(y, y), *gradients(y, [h, x])], values_of([y]))
    v = values_of([y])[x]
    assert one == 1.0
    np.testing.assert_allclose(inner, 2 * np.sin(v))
    np.testing.assert_allclose(outer, 2 * np.sin(v) * np.cos(v))


# -- values that are not finite, ties, dtypes --
def slope_at(y, x, value):
    return run([gradients(y, x)], {x: np.array(value)})[0].tolist()


def test_what_where_masks_stays_zero():
    x = leaf("x", 3)
    safe = build.elementwise("where", build.elementwise("gt", x, 0.0), build.elementwise("sqrt", x), 0.0)
    assert slope_at(total(safe), x, [4.0, 0.0, -1.0])[0] == 0.25
    other = build.elementwise("where", build.elementwise("gt", x, 0.0), x, 0.0)
    scaled = build.elementwise("div", other, x)  # 1/x is infinite beside the mask
    assert slope_at(total(build.elementwise("mul", other, float("inf"))), x, [-1.0, -1.0, -1.0]) == [0.0] * 3
    assert scaled.shape == (3,)


def test_only_structural_zeros_drop_terms():
    x = leaf("x", 2)
    y = total(build.elementwise("mul", build.elementwise("exp", x), 0.0))
    assert np.isnan(slope_at(y, x, [1000.0, 0.0])[0])  # 0 * inf
    twice = total(build.elementwise("sub", build.elementwise("exp", x), build.elementwise("exp", x)))
    assert slope_at(twice, x, [0.0, 1.0]) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_share_equally(name):
    x = leaf("x", 2, 4)
    y = total(build.reduce(name, x, (1,)))
    assert slope_at(y, x, [[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]]) == [[0.25] * 4] * 2
    got = slope_at(y, x, [[np.nan, 1.0, 2.0, np.nan], [np.inf, -np.inf, np.inf, -np.inf]])
    assert got == [[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.5, 0.0] if name == "max" else [0.0, 0.5, 0.0, 0.5]]


@pytest.mark.parametrize("values", [[0.0, 2.0, 3.0, 4.0], [0.0, 0.0, 3.0, 4.0], [0.0, 0.0, 0.0, 4.0],
                                    [1.0, 2.0, 3.0, 4.0]])
def test_the_derivative_of_a_product_is_right_with_zeros(values):
    x = leaf("x", 4)
    y = build.reduce("prod", x, (0,))
    expected = [float(np.prod(values[:k] + values[k + 1:])) for k in range(4)]
    assert slope_at(y, x, values) == expected
    matrix = run([hessian(y, x)], {x: np.array(values)})[0]
    for i in range(4):
        for j in range(4):
            rest = np.prod([v for k, v in enumerate(values) if k not in (i, j)]) if i != j else 0.0
            assert matrix[i, j] == rest


@pytest.mark.parametrize("inner", ["float64", "float16", "bfloat16"])
def test_cotangents_have_the_dtype_of_the_operand(inner):
    x = leaf("x", 3, dtype="float32")
    h = build.elementwise("sin", build.cast(build.elementwise("mul", x, x), inner))
    y = total(build.elementwise("mul", build.cast(h, "float32"), x))
    slope = gradients(y, x)
    assert slope.dtype == "float32"
    dtypes = {n.dtype for n in ancestors([slope])}
    assert dtypes == {"float32", inner}
    v = np.array([0.5, 1.0, 1.5], "float32")
    expected = np.sin(v * v) + 2 * v * v * np.cos(v * v)
    np.testing.assert_allclose(run([slope], {x: v})[0], expected, rtol=1e-6 if inner == "float64" else 3e-2)
    assert jvp(y, x, np.ones(3, "float32")).dtype == "float32"


def test_integers_and_bools_pass_no_derivative():
    x = leaf("x", 3)
    rounded = build.cast(build.cast(x, "int32"), "float64")
    y = total(build.elementwise("mul", rounded, x))
    assert slope_at(y, x, [1.5, 2.5, 3.5]) == [1.0, 2.0, 3.0]


# -- errors --
MISTAKES = [
    (lambda x, y, i, far, alone: gradients(y, x), "jacobian.*vjp"),
    (lambda x, y, i, far, alone: gradients(total(y), i), "int64.*no derivative"),
    (lambda x, y, i, far, alone: gradients(total(i), x), "int64.*no derivative"),
    (lambda x, y, i, far, alone: gradients(total(y), far), "far.*another graph"),
    (lambda x, y, i, far, alone: vjp(y, x, far), "far.*another graph"),
    (lambda x, y, i, far, alone: gradients(total(y), [alone], unconnected="error"), "sum.*alone.*does not depend"),
    (lambda x, y, i, far, alone: jacobian(y, alone, unconnected="error"), "sin.*alone.*does not depend"),
    (lambda x, y, i, far, alone: jvp(y, alone, np.ones(3), unconnected="error"), "sin.*alone.*does not depend"),
    (lambda x, y, i, far, alone: jacobian(build.elementwise("floor", y), x, unconnected="error"), "without a deriv"),
    (lambda x, y, i, far, alone: gradients(total(y), x, unconnected="maybe"), "maybe.*zero, error"),
    (lambda x, y, i, far, alone: jacobian(y, x, "sideways"), "sideways.*auto, forward, reverse"),
    (lambda x, y, i, far, alone: vjp(y, x, np.ones(4)), r"\(4,\).*\(3,\)"),
    (lambda x, y, i, far, alone: jvp(y, [x], [np.ones(3)] * 2), "1 seeds are needed.*got 2"),
    (lambda x, y, i, far, alone: gradients(total(y), "x"), "expected a node, got str"),
    (lambda x, y, i, far, alone: gradients(total(y), []), "at least one x"),
]


@pytest.mark.parametrize(("call", "pattern"), MISTAKES)
def test_mistakes_name_what_is_wrong_and_the_line(call, pattern):
    x, i, alone = leaf("x", 3), leaf("i", 3, dtype="int64"), leaf("alone", 3)
    y = build.elementwise("sin", x)
    with Graph():
        far = leaf("far", 3)
    with pytest.raises(GraphError, match=f"(?s){pattern}") as caught:
        call(x, y, i, far, alone)
    assert "test_derivatives.py:" in str(caught.value)


def test_an_x_without_influence_has_zeros():
    x, alone = leaf("x", 3), leaf("alone", 2, 2)
    slopes = gradients(total(x), [x, alone])
    assert run(slopes, {})[1].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert not run([jvp(x, alone, np.ones((2, 2)))], {})[0].any()


def test_an_op_without_a_derivative_names_itself_and_the_line(monkeypatch):
    x = leaf("x", 3)
    y = build.linear_scan(x, x, 0)
    monkeypatch.setitem(OPS, "linear_scan", replace(OPS["linear_scan"], maps=None))
    object.__setattr__(y, "op", OPS["linear_scan"])
    with pytest.raises(Unsupported, match=r"(?s)linear_scan.*test_derivatives.py:\d+"):
        gradients(total(y), x)


def test_new_nodes_carry_the_line_of_the_node_they_differentiate():
    x = leaf("x", 3)
    h = build.elementwise("sin", x); line = h.loc.line  # noqa: E702
    y = total(build.elementwise("exp", h))
    cosine = next(n for n in ancestors([gradients(y, x)]) if n.op.name == "cos")
    assert cosine.loc.line == line


# -- cost --
def cpu_seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def test_a_chain_of_16_000_nodes_takes_less_than_two_seconds():
    x = h = leaf("x", 10)
    for _ in range(8000):
        h = build.elementwise("mul", build.elementwise("sin", h), 0.5)
    assert cpu_seconds(lambda: gradients(total(h), x)) < 2


def test_a_comb_of_400_layers_takes_less_than_a_third_of_a_second():
    h, weights = leaf("x", 16, 32), [leaf(f"w{k}", 32, 32) for k in range(400)]
    for k, w in enumerate(weights):
        h = build.elementwise("tanh", build.elementwise("add", matmul(h, w), leaf(f"in{k}", 16, 32)))
    y = total(h)
    assert min(cpu_seconds(lambda: gradients(y, weights)) for _ in range(2)) < 0.35
