"""Derivatives against complex steps and differences, for every op of the table; their text; their errors; their cost."""

import time

import numpy as np
import pytest

from graphc.derivatives import gradients, hessian, hvp, jacobian, jvp, vjp
from graphc.ir import build
from graphc.ir.errors import GraphError
from graphc.ir.node import OPS, Graph, ancestors, constant, located, make
from graphc.ir.reference import evaluate
from graphc.ir.types import Type, is_float
from samples import LEAVES, SAMPLES, all_samples, leaf, samples_of, values_of

STEP = 1e-3
CORNERS = ("floor", "ceil", "round", "trunc", "sign", "floor_divide")
COMPLEX = {"add", "sub", "mul", "div", "neg", "exp", "log", "sin", "cos", "tanh", "sqrt", "sinh", "cosh", "broadcast",
           "reshape", "transpose", "slice", "pad", "concat", "diagonal", "sum", "prod", "einsum", "gather", "scatter_add",
           "linear_scan", "constant", "placeholder"}


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
        return complex_run(y, {x: v + 1e-30j * direction[x] if x in direction else v for x, v in feeds.items()}).imag / 1e-30

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
