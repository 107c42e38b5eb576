"""The algebra of linear maps: structure on known cases, laws on samples, random programs against complex steps."""

import random

import numpy as np
import pytest

from graphc.derivatives import gradients, jacobian, jvp, vjp
from graphc.ir import build
from graphc.ir.dims import Dim
from graphc.ir.linmap import (Opaque, add, compose, covector, dense_node, diagonal, identity, linear_map, local_maps,
                              merged, relabel, settled, transposed, vector)
from graphc.ir.linmap.cost import finish_price, ghosts, map_price
from graphc.ir.node import Graph, ancestors, constant, make
from graphc.ir.reference import evaluate
from graphc.ir.types import Type, is_float
from passes.differentiate import between, forward, reverse
from samples import SAMPLES, leaf, values_of


@pytest.fixture(autouse=True)
def fresh_graph():
    with Graph():
        yield


def elementwise(name, *operands):
    return build.elementwise(name, *operands)


def total(x):
    return build.reduce_sum(x, tuple(range(x.ndim)))


def reshape(x, *shape):
    return make("reshape", (x,), shape=shape)


def sliced(x, start, step, size):
    return make("slice", (x,), starts=(start,), steps=(step,), shape=(size,))


def padded(x, start, step, size):
    return make("pad", (x,), starts=(start,), steps=(step,), shape=(size,))


def jacobian_map(y, x, order="reverse"):
    if order == "forward":
        return forward(between([y], [x]), {x: identity(x.shape)}, [y], x.shape)[0]
    return reverse(between([y], [x]), {y: identity(y.shape)}, [x], y.shape)[0]


def written(m, out_shape, in_shape, feeds=None):
    node = dense_node(m, out_shape, in_shape, "float64")
    return evaluate([node], values_of([node]) if feeds is None else feeds, {})[0]


def form(m):
    """The map's terms without node numbers: sides, factors' axes, views, coefficient."""
    def letters(atoms):
        return "".join("abcdefgh"[a] for a in atoms)

    return [(letters(t.out), letters(t.inn), [letters(a) for _, a in t.factors],
             [v.text(lambda a: "abcdefgh"[a]).split("[")[0].split("=constant")[0] for v in t.views], t.coef) for t in m]


# -- structure --
def vec():
    return leaf("x", 6)


def mat():
    return leaf("x", 3, 4)


def softmax(x):
    e = elementwise("exp", x)
    return elementwise("div", e, total(e))


STRUCTURES = {
    "an elementwise op is diagonal": (vec, lambda x: elementwise("tanh", x), [("a", "a", ["a"], [], 1.0)]),
    "A x has A": (vec, lambda x: build.einsum(((0, 1), (1,)), (0,), leaf("A", 4, 6), x), [("a", "b", ["ab"], [], 1.0)]),
    "x A by a matrix is a delta": (mat, lambda x: build.einsum(((0, 1), (1, 2)), (0, 2), x, leaf("A", 4, 5)),
                                   [("ab", "ac", ["cb"], [], 1.0)]),
    "the Hessian of a sum is diagonal": (vec, lambda x: gradients(total(elementwise("sin", x)), x),
                                         [("a", "a", ["a"], [], -1.0)]),
    "the Hessian of a norm is diagonal and rank one": (
        vec, lambda x: gradients(elementwise("sqrt", total(elementwise("mul", x, x))), x),
        [("a", "a", [""], [], 1.0), ("a", "b", ["", "a", "b"], [], -4.0)]),
    "softmax is diagonal less rank one": (
        vec, softmax, [("a", "a", ["", "a"], [], 1.0), ("a", "b", ["a", "b"], [], -1.0)]),
    "parallel edges add": (vec, lambda x: elementwise("mul", x, x), [("a", "a", ["a"], [], 2.0)]),
    "a term without factors joins one with": (
        vec, lambda x: elementwise("add", elementwise("mul", elementwise("sin", x), elementwise("exp", x)), x),
        [("a", "a", ["a"], [], 1.0)]),
    "a slice": (vec, lambda x: sliced(x, 1, 2, 3), [("a", "b", [], ["b=1+2*a"], 1.0)]),
    "two flips": (vec, lambda x: sliced(sliced(x, 5, -1, 6), 5, -1, 6), [("a", "a", [], [], 1.0)]),
    "a slice of its own pad": (vec, lambda x: sliced(padded(x, 2, 1, 9), 2, 1, 6), [("a", "a", [], [], 1.0)]),
    "a slice of part of a pad": (
        vec, lambda x: sliced(padded(x, 2, 1, 9), 0, 1, 4), [("a", "b", [], ["a=2+c", "b=c"], 1.0)]),
    "a slice beside a pad is zero": (vec, lambda x: sliced(padded(x, 4, 1, 10), 0, 1, 4), []),
    "a slice of a strided pad": (vec, lambda x: sliced(padded(x, 1, 2, 12), 1, 2, 6), [("a", "a", [], [], 1.0)]),
    "a slice of a concat keeps the live part": (
        vec, lambda x: sliced(build.concat([elementwise("sin", x), elementwise("cos", x)], 0), 6, 1, 6),
        [("a", "a", ["a"], [], -1.0)]),
    "reshapes that nest": (
        mat, lambda x: reshape(elementwise("sin", reshape(x, 12)), 3, 4), [("ab", "ab", ["ab"], [], 1.0)]),
    "reshapes that do not nest": (mat, lambda x: reshape(elementwise("sin", reshape(x, 2, 6)), 3, 4),
                                  [("ab", "ab", ["ab"], [], 1.0)]),
    "rows of the flat matrix": (mat, lambda x: reshape(sliced(reshape(x, 12), 4, 1, 8), 2, 4),
                                [("ab", "cb", [], ["c=1+a"], 1.0)]),
    "every other element of the flat matrix": (mat, lambda x: sliced(reshape(x, 12), 0, 2, 6),
                                               [("ab", "abc", [], ["c=0"], 1.0)]),
    "the diagonal of a diagonal": (vec, lambda x: build.einsum(((0, 0),), (0,), build.diagonal(x, [(0, 1)])),
                                   [("a", "a", [], [], 1.0)]),
    "a trace": (vec, lambda x: build.einsum(((0, 0),), (), build.einsum(((0,), (1,)), (0, 1), x, x)),
                [("", "a", ["a"], [], 2.0)]),
    "the sum of a broadcast": (vec, lambda x: build.reduce_sum(build.broadcast(x, (5, 6), (1,)), (0,)),
                               [("a", "a", [], [], 5.0)]),
    "a gather": (vec, lambda x: build.take(x, constant(np.array([1, 1, 0])), 0), [("a", "b", [], ["b"], 1.0)]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(name):
    operand, function, expected = STRUCTURES[name]
    x = operand()
    y = function(x)
    m = jacobian_map(y, x)
    assert form(m) == expected, m
    if "Hessian" not in name and "softmax" not in name:
        assert map_price(m, ()) <= 13  # nothing was multiplied out
    ops = {n.op.name for n in ancestors([n for t in m for n, _ in t.factors])}
    assert not ops & {"pad", "scatter_add", "diagonal"} or "diagonal" in name or "pad" in name


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_written_out(name):
    operand, function, _ = STRUCTURES[name]
    x = operand()
    y = function(x)
    a, b, _ = evaluate([jacobian(y, x, "forward"), jacobian(y, x, "reverse"), y], values_of([y]), {})
    np.testing.assert_allclose(a, b, atol=1e-14)


n, m = Dim.symbol("n"), Dim.symbol("m")
SYMBOLIC = {
    "nested reshapes": (
        lambda x: reshape(elementwise("sin", reshape(x, 4 * n)), n, 4), [("ab", "ab", ["ab"], [], 1.0)]),
    "finer reshapes": (
        lambda x: reshape(elementwise("sin", reshape(x, 2 * n, 2)), 4 * n), [("abc", "abc", ["abc"], [], 1.0)]),
    "a concat and its second half": (
        lambda x: make("slice", (build.concat([elementwise("sin", x), elementwise("cos", x)], 0),), starts=(n, 0),
                       steps=(1, 1), shape=(n, 4)), [("ab", "ab", ["ab"], [], -1.0)]),
    "a slice": (lambda x: make("slice", (x,), starts=(1, 0), steps=(1, 1), shape=(n - 1, 4)),
                [("ab", "cb", [], ["c=1+a"], 1.0)]),
    "a reversed axis, twice": (
        lambda x: make("slice", (make("slice", (x,), starts=(n - 1, 0), steps=(-1, 1), shape=(n, 4)),),
                       starts=(n - 1, 0), steps=(-1, 1), shape=(n, 4)), [("ab", "ab", [], [], 1.0)]),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_symbolic_structure(name):
    function, expected = SYMBOLIC[name]
    x = leaf("x", n, 4)
    y = function(x)
    assert form(jacobian_map(y, x)) == expected
    value = np.linspace(0.1, 0.9, 12).reshape(3, 4)
    known = leaf("known", 3, 4)
    for order in ("forward", "reverse"):
        got = evaluate([jacobian(y, x, order), y], {x: value}, {})[0]
        assert got.shape == evaluate([y], {x: value}, {})[0].shape + (3, 4)
        u = np.arange(1.0, 1.0 + np.prod(got.shape[:got.ndim - 2])).reshape(got.shape[:got.ndim - 2])
        seed = make("placeholder", (), name=f"u_{order}", dtype="float64", shape=y.shape)
        pulled = evaluate([vjp(y, x, seed), y], {x: value, seed: u}, {})[0]
        np.testing.assert_allclose(pulled, np.tensordot(u, got, u.ndim))
    assert known.shape == (3, 4)


def test_a_symbolic_reshape_that_does_not_nest_is_a_reshape_of_the_vector():
    x = leaf("x", n, m)
    y = reshape(elementwise("sin", x), m, n)
    u = leaf("u", m, n)
    pulled = vjp(y, x, u)
    assert [n.op.name for n in ancestors([pulled]) if n.op.name != "placeholder"] == ["reshape", "cos", "mul"]
    a, b = np.random.default_rng(0).normal(size=(2, 3)), np.random.default_rng(1).normal(size=(3, 2))
    np.testing.assert_allclose(evaluate([pulled], {x: a, u: b}, {})[0], b.reshape(2, 3) * np.cos(a))


def test_a_symbolic_sum_of_a_broadcast_counts_at_run_time():
    x, other = leaf("x", n), leaf("other", n, m)
    y = total(build.elementwise("add", build.broadcast(elementwise("sin", x), (n, m), (0,)), other))
    got = evaluate([gradients(y, x), y], {x: np.zeros(3), other: np.zeros((3, 5))}, {})[0]
    assert got.tolist() == [5.0] * 3


# -- laws --
def sample_maps():
    """A map per structural sample: (name, number)."""
    return [(name, k) for name, rows in SAMPLES.items() for k in range(len(rows))
            if name not in ("user", "argmax", "argmin", "any", "all")]


@pytest.mark.parametrize(("name", "number"), sample_maps())
def test_laws_on_the_map_of_every_structural_op(name, number):
    node = SAMPLES[name][number]()
    feeds = values_of([node])
    for k, local in local_maps(node, range(len(node.operands))).items():
        x = node.operands[k]
        out, inn = node.shape, x.shape
        whole = written(compose(local, identity(inn)), out, inn, feeds)
        np.testing.assert_allclose(written(compose(identity(out), local), out, inn, feeds), whole)
        back = written(compose(transposed(local), identity(out)), inn, out, feeds)
        order = (*range(len(inn), len(inn) + len(out)), *range(len(inn)))
        np.testing.assert_allclose(back.transpose(order), whole)
        twice = written(compose(add((*local, *local)), identity(inn)), out, inn, feeds)
        np.testing.assert_allclose(twice, 2 * whole)
        check_on_vectors(local, whole, out, inn, feeds)
        if not any(isinstance(piece, Opaque) for piece in local):
            gram = written(compose(transposed(local), local), inn, inn, feeds)
            flat = whole.reshape(int(np.prod(out)), int(np.prod(inn)))
            np.testing.assert_allclose(gram.reshape(flat.shape[1], flat.shape[1]), flat.T @ flat, atol=1e-12)


def check_on_vectors(local, whole, out, inn, feeds):
    rng = np.random.default_rng(0)
    t, u = rng.normal(size=inn), rng.normal(size=out)
    pushed = written(compose(local, vector(constant(t))), out, (), feeds)
    np.testing.assert_allclose(pushed, np.tensordot(whole, t, t.ndim), atol=1e-12)
    pulled = written(compose(covector(constant(u)), local), (), inn, feeds)
    np.testing.assert_allclose(pulled, np.tensordot(u, whole, u.ndim), atol=1e-12)


@pytest.mark.parametrize(("out", "inn"), [
    ((6,), (2, 3)), ((3, 4), (2, 6)), ((2, 6), (4, 3)), ((1, 5), (5, 1)), ((), (1, 1)), ((4, 9), (6, 6)),
    ((2, 3, 5), (3, 10)), ((30,), (2, 3, 5)), ((0, 3), (0,))])
def test_relabel_is_the_identity_of_row_major_order(out, inn):
    size = int(np.prod(out))
    np.testing.assert_array_equal(written(relabel(out, inn), out, inn), np.eye(size).reshape(*out, *inn))
    there_and_back = compose(relabel(inn, out), relabel(out, inn))
    assert all(term.is_diagonal and not term.factors for term in there_and_back)


def test_a_window_view_with_two_sources():
    """i = o + 2*k: a dilated convolution's window."""
    window = linear_map(("o", "k"), ("i",), {"o": 3, "k": 2, "i": 5}, views=[("i", 0, {"o": 1, "k": 2})])
    expected = np.array([[[float(i == o + 2 * k) for i in range(5)] for k in range(2)] for o in range(3)])
    np.testing.assert_array_equal(written(window, (3, 2), (5,)), expected)
    x = np.arange(5.0)
    np.testing.assert_array_equal(written(compose(window, vector(constant(x))), (3, 2), ()), expected @ x)
    u = np.arange(6.0).reshape(3, 2)
    pulled = written(compose(covector(constant(u)), window), (), (5,))
    np.testing.assert_array_equal(pulled, np.tensordot(u, expected, 2))


def test_a_factor_is_kept_apart_until_something_is_summed():
    u, v, w = leaf("u", 4), leaf("v", 5), leaf("w", 4)
    rank_one = compose(vector(u), covector(v))
    assert form(rank_one) == [("a", "b", ["a", "b"], [], 1.0)]
    scaled = compose(diagonal(w, (4,)), rank_one)
    assert map_price(scaled) == 4 and finish_price(scaled, (4,), (5,), "float64") == 20


def test_settled_folds_coefficients_and_numbers_once():
    u, s = leaf("u", 4), leaf("s")
    lazy = compose(diagonal(3.0, (4,)), compose(vector(u), vector(s)))
    assert form(lazy) == [("a", "", ["", "a"], [], 3.0)] or form(lazy) == [("a", "", ["a", ""], [], 3.0)]
    assert form(settled(lazy)) == [("a", "", ["a"], [], 1.0)]
    feeds = {u: np.arange(4.0), s: np.array(2.0)}
    np.testing.assert_array_equal(written(settled(lazy), (4,), (), feeds), 6 * np.arange(4.0))


def test_a_map_of_more_terms_than_the_cap_is_written_out():
    pieces = [t for k in range(6) for t in compose(vector(leaf(f"u{k}", 4)), covector(leaf(f"v{k}", 5)))]
    summed = add(pieces)
    assert form(summed) == [("ab", "", ["ab"], [], 1.0)] or form(summed) == [("a", "b", ["ab"], [], 1.0)]
    feeds = {node: np.random.default_rng(node.id).normal(size=node.shape) for t in pieces for node, _ in t.factors}
    expected = sum(np.outer(*(feeds[node] for node, _ in t.factors)) for t in pieces)
    np.testing.assert_allclose(written(summed, (4,), (5,), feeds), expected)


def test_a_map_of_ghosts_costs_what_the_real_one_costs():
    a, b = leaf("a", 3, 4), leaf("b", 4, 5)
    first = linear_map("i", "j", {"i": 3, "j": 4}, factors=[(a, "ij")])
    second = linear_map("j", "k", {"j": 4, "k": 5}, factors=[(b, "jk")])
    with Graph() as scratch:
        names = {}
        product = compose(ghosts(first, scratch, names), ghosts(second, scratch, names))
    assert map_price(product) == map_price(compose(first, second)) == 60
    assert {node.graph for t in product for node, _ in t.factors} == {scratch}


def test_merged_casts_factors_to_the_dtype_of_the_node():
    u = leaf("u", 3, dtype="float32")
    assert merged(vector(u), (3,), (), "float64")[0].factors[0][0].dtype == "float64"


# -- random programs --
def grow(rng, x, pool):
    """One random op on x, or x itself where the op does not fit."""
    shape, rank = x.shape, x.ndim
    size = int(np.prod(shape))
    kind = rng.choice(RANDOM)
    if kind == "reshape":
        return reshape(x, *random_factors(rng, size))
    if kind in ("slice", "pad"):
        return random_window(rng, x, kind)
    if kind == "transpose":
        return build.transpose(x, rng.sample(range(rank), rank))
    if kind in ("sin", "tanh"):
        return elementwise(kind, elementwise("mul", x, 0.7))
    if kind in ("mul", "add", "sub"):
        return elementwise(kind, x, rng.choice([y for y in pool if y.shape == shape]))
    if kind == "broadcast" and size < 20:
        axis = rng.randrange(rank + 1)
        wide = (*shape[:axis], rng.choice([1, 2, 3]), *shape[axis:])
        return build.broadcast(x, wide, tuple(a for a in range(rank + 1) if a != axis))
    if kind == "scatter_add" and rank == 1:
        index = constant(np.array([rng.randrange(4) for _ in range(size)]))
        return build.scatter_add(x, [index], (("index", 0),), ((0,),), (0,), (4,))
    return grow_along(rng, x, pool, kind) if rank else x


def grow_along(rng, x, pool, kind):
    axis, shape, rank = rng.randrange(x.ndim), x.shape, x.ndim
    if kind in ("sum", "prod"):
        return build.reduce(kind, x, (axis,))
    if kind == "linear_scan":
        return build.linear_scan(elementwise("mul", x, 0.5), x, axis, rng.random() < 0.5)
    if kind == "take" and x.size < 20:
        index = rng.choice([(), (2,), (2, 2)])
        values = np.array([rng.randrange(-shape[axis], shape[axis]) for _ in range(int(np.prod(index)))])
        return build.take(x, constant(values.reshape(index)), axis)
    if kind == "concat" and x.size < 20:
        fits = [y for y in pool if y.ndim == rank and y.size < 20
                and y.shape[:axis] + y.shape[axis + 1:] == shape[:axis] + shape[axis + 1:]]
        return build.concat([x, rng.choice(fits)], axis)
    if kind == "diagonal" and rank < 3 and x.size < 12:
        return build.diagonal(x, [(a, rank) if a == axis else (a,) for a in range(rank)])
    if kind == "trace":
        other = next((a for a in range(rank) if a != axis and shape[a] == shape[axis]), None)
        if other is not None:
            labels = tuple(axis if a == other else a for a in range(rank))
            return build.einsum((labels,), sorted(set(labels) - ({axis} if rng.random() < 0.5 else set())), x)
    return x


RANDOM = ("reshape", "reshape", "reshape", "slice", "slice", "pad", "transpose", "sin", "tanh", "mul", "add", "sub",
          "broadcast", "scatter_add", "sum", "prod", "linear_scan", "take", "take", "concat", "diagonal", "trace")


def random_factors(rng, size):
    factors = []
    while size > 1:
        factors.append(rng.choice([d for d in range(2, size + 1) if size % d == 0]))
        size //= factors[-1]
    if rng.random() < 0.3:
        factors.insert(rng.randrange(len(factors) + 1), 1)
    return factors


def random_window(rng, x, kind):
    starts, steps, shape = [], [], []
    for extent in x.shape:
        step = rng.choice([1, 1, 1, -1, 2, -2])
        count = rng.randint(1, (extent - 1) // abs(step) + 1) if kind == "slice" else extent
        reach = (count - 1) * abs(step)
        room = extent - 1 - reach if kind == "slice" else rng.randint(0, 2)
        low = rng.randint(0, room)
        starts.append(low if step > 0 else low + reach)
        steps.append(step)
        shape.append(count if kind == "slice" else reach + 1 + room)
    return x if np.prod(shape) > 60 else make(kind, (x,), starts=tuple(starts), steps=tuple(steps), shape=tuple(shape))


def complex_run(node, feeds):
    values = {}
    for node_ in ancestors([node]):
        dtype = "complex128" if is_float(node_.dtype) else node_.dtype
        values[node_] = feeds[node_] if node_ in feeds else node_.op.reference(
            node_.attrs, Type(dtype, node_.shape), *(values[o] for o in node_.operands))
    return values[node]


@pytest.mark.parametrize("block", range(10))
def test_random_programs(block):
    for seed in range(40 * block, 40 * block + 40):
        with Graph():
            check_program(seed)


def check_program(seed):
    rng = random.Random(seed)
    x = leaf("x", *rng.choice([(6,), (2, 3), (3, 4), (12,), (2, 2, 3), (4, 1, 2)]))
    pool = [x]
    for _ in range(rng.randint(2, 8)):
        pool.append(grow(rng, pool[-1], pool[-3:]))
    y = pool[-1]
    random_values = np.random.default_rng(seed)
    value = random_values.normal(size=x.shape) * 0.7
    want = np.zeros(y.shape + x.shape)
    for place in np.ndindex(*x.shape):
        step = value.astype(complex)
        step[place] += 1e-30j
        want[(..., *place)] = complex_run(y, {x: step}).imag / 1e-30
    u, t = random_values.normal(size=y.shape), random_values.normal(size=x.shape)
    fetches = [jacobian(y, x, "reverse"), jacobian(y, x, "forward"), vjp(y, x, constant(u)), jvp(y, x, constant(t))]
    got = evaluate(fetches, {x: value}, {})
    scale = max(1.0, np.abs(want).max(initial=0.0))
    for found, expected in zip(got, (want, want, np.tensordot(u, want, u.ndim), np.tensordot(want, t, t.ndim))):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * scale, err_msg=f"seed {seed}: {pool}")
