"""The functions a user calls, against NumPy: values, dtypes and shapes, and the examples of their docstrings."""

import doctest
import itertools
import math
import random

import numpy as np
import pytest

import graphc as gc
from graphc import functions
from graphc.ir.reference import evaluate

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 4)).astype("float32")
B = RNG.normal(size=(2, 3, 4))
V = RNG.normal(size=4)
K = RNG.integers(-5, 6, (3, 4)).astype("int32")
T = K > 0


def value(node, feeds=None):
    return evaluate([node], feeds or {}, {})[0]


def agree(node, want, rtol=1e-6):
    want = np.asarray(want)
    got = value(node)
    assert node.dtype == want.dtype.name
    assert node.shape == want.shape == got.shape
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6 if want.dtype.kind == "f" else 0, equal_nan=True)


@pytest.mark.parametrize("module", functions.FUNCTIONS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_run(module):
    with gc.Graph():
        found = doctest.testmod(module, extraglobs={"gc": gc})
    assert found.failed == 0
    assert found.attempted


@pytest.mark.parametrize("name", sorted({n for names in functions.FUNCTIONS.values() for n in names.split()}))
def test_every_public_function_has_an_example(name):
    assert ">>> " in functions.PUBLIC[name].__doc__


def test_graphc_gives_every_function_under_every_name():
    for name, function in functions.PUBLIC.items():
        assert getattr(gc, name) is function
        assert name in gc.__all__
    assert set(gc.__all__) <= set(dir(gc))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gc.nothing


def test_the_examples_of_the_package_run():
    with gc.Graph():
        assert doctest.testmod(gc, extraglobs={"gc": gc}).failed == 0


SAME_AS_NUMPY = [  # the same call in both
    *((name, (A, A.T[:1].T)) for name in ("add", "subtract", "multiply", "divide", "floor_divide", "mod", "maximum",
                                          "minimum",
                                          "copysign", "hypot", "arctan2", "equal", "less", "greater_equal",
                                          "logaddexp")),
    *((name, (K, np.int32(3))) for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift",
                                            "mod",
                                            "floor_divide", "divide", "power")),
    *((name, (A,)) for name in ("negative", "absolute", "sign", "square", "reciprocal", "exp", "exp2", "expm1",
                                "cbrt", "sin",
                                "cos", "tan", "sinh", "cosh", "tanh", "arcsinh", "arctan", "floor", "ceil", "trunc",
                                "isnan", "isfinite", "ravel", "transpose", "flip", "cumsum", "cumprod", "diagonal",
                                "trace")),
    *((name, (T, K)) for name in ("logical_and", "logical_or", "logical_xor")), ("logical_not", (K,)), ("invert", (K,)),
    *((name, (K,)) for name in ("floor", "round", "isnan", "sqrt", "exp", "mean", "sum", "prod", "any", "all", "max",
                                "argmin")),
    ("where", (T, A, np.float32(0))), ("where", (T, 1, 2.5)), ("clip", (A, -0.5, 0.5)), ("clip", (A, None, 0.5)),
    ("round", (A, 2)), ("round", (A * 1000, -2)), ("power", (A, 2)), ("power", (K, 2)), ("power", (A, 3.0)),
    ("swapaxes", (B, 0, 2)), ("moveaxis", (B, 0, -1)), ("moveaxis", (B, (0, 1), (-1, 0))),
    ("expand_dims", (A, (0, -1))),
    ("squeeze", (A[:, None, :1],)), ("squeeze", (A[:, None, :1], 1)), ("broadcast_to", (V, (3, 4))),
    ("reshape", (A, (2, -1))), ("reshape", (A, -1)), ("transpose", (B, (2, 0, 1))), ("flip", (B, (0, 2))),
    ("tile", (A, (2, 1, 3))), ("tile", (V, 2)), ("repeat", (A, 2, 1)), ("repeat", (A, 2)),
    ("repeat", (A, [1, 0, 2], 0)),
    ("roll", (A, 1)), ("roll", (A, -2, 1)), ("roll", (B, (1, -1), (0, 2))), ("concatenate", ([A, K],)),
    ("concatenate", ([A, A], 1)), ("stack", ([V, V], 1)), ("stack", ([V, V],)),
    ("pad", (A, 1)), ("pad", (A, (1, 2), "edge")),
    ("pad", (A, ((2, 1), (3, 2)), "reflect")), ("pad", (A, (2, 1), "symmetric")), ("pad", (A, (3, 2), "wrap")),
    ("matmul", (A, V)), ("matmul", (A, A.T)), ("matmul", (B, B.transpose(0, 2, 1))),
    ("matmul", (V, B.transpose(0, 2, 1))),
    ("matmul", (B[:1], B.transpose(0, 2, 1))), ("matmul", (B[:, None], B.transpose(0, 2, 1)[:1])), ("matmul", (V, V)),
    ("matmul", (K, K.T)), ("matmul", (B, V)),
    ("einsum", ("ij,kj->ik", A, A)), ("einsum", ("ij,kj", A, A)), ("einsum", ("...ij->...ji", B)),
    ("einsum", ("ii->i", A[:, :3])),
    ("einsum", ("ii", A[:, :3])), ("einsum", ("i...,j...->ij...", B[0], A)), ("einsum", ("...i,...i", B, V)),
    ("einsum", ("ba", A)),
    ("einsum", ("...ij,...jk->...ik", B[:1], B.transpose(0, 2, 1))), ("einsum", ("a,b,c->cab", V, V, V)),
    ("tensordot", (B, A)), ("tensordot", (B, A, ([2], [1]))), ("tensordot", (A, V, 1)), ("tensordot", (V, V, 0)),
    ("dot", (A, V)), ("dot", (A, B.transpose(0, 2, 1))), ("dot", (A, 2.0)), ("inner", (A, A)), ("inner", (A, 3.0)),
    ("outer", (A, V)), ("trace", (B, 1, 1, 2)), ("trace", (K,)), ("diagonal", (B, -1, 2, 0)), ("diagonal", (A, 2)),
    ("diagonal", (A, 9)), ("diag", (V,)), ("diag", (V, 2)), ("diag", (V, -1)), ("diag", (A, 1)),
    ("take", (A, [2, -1], 0)), ("take", (A, [[0, 1], [2, 3]], 1)), ("take", (A, [5, 0])), ("take", (A, 1, 0)),
    ("take_along_axis", (A, np.argsort(A, 1), 1)), ("take_along_axis", (A, np.array([[1]] * 3), 1)),
    ("tril", (A,)), ("tril", (A, 1)), ("triu", (B, -1)), ("eye", (3,)), ("eye", (3, 4, 1)), ("eye", (3, 4, -1)),
    ("arange", (5,)), ("arange", (1, 7, 2)), ("arange", (1.0, 2.0, 0.25)), ("linspace", (0, 1, 5)),
    ("zeros", ((2, 3),)),
    ("ones", (3,)), ("full", ((2, 3), 7)), ("zeros_like", (A,)), ("ones_like", (K,)), ("full_like", (A, 3)),
    ("argmax", (A,)), ("argmax", (A, 1)), ("argmin", (B, -1)), ("cumsum", (A, 1)), ("cumsum", (K, 0)),
    ("cumprod", (K, 1)),
    ("cumsum", (T, 0)),
]


@pytest.mark.parametrize(("name", "arguments"), SAME_AS_NUMPY,
                         ids=[f"{k}-{name}" for k, (name, _) in enumerate(SAME_AS_NUMPY)])
def test_agrees_with_numpy(name, arguments):
    with np.errstate(all="ignore"):
        want = getattr(np, name)(*arguments)
    agree(functions.PUBLIC[name](*arguments), want)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min", "any", "all", "var", "std"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()])
def test_reductions_have_numpys_axes(name, axis, keepdims):
    agree(functions.PUBLIC[name](B, axis=axis, keepdims=keepdims), getattr(np, name)(B, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "any", "cumsum", "var"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "int32", "uint32", "int64", "uint64", "bool"])
def test_reductions_have_numpys_dtypes(name, dtype):
    array = np.array([[0, 1], [1, 1]]).astype(dtype)
    if name == "cumsum":
        agree(gc.cumsum(array, 0), np.cumsum(array, 0))
    else:
        agree(functions.PUBLIC[name](array, axis=0), getattr(np, name)(array, axis=0), rtol=1e-3)


def test_pad_takes_a_value():
    agree(gc.pad(A, ((1, 2), (0, 1)), constant_values=7), np.pad(A, ((1, 2), (0, 1)), constant_values=7))
    with pytest.raises(gc.GraphError, match=r"no mode 'mean'"):
        gc.pad(A, 1, "mean")
    with pytest.raises(gc.ShapeError, match="mirrors at most 2 of axis 0"):
        gc.pad(A, 3, "reflect")


def test_var_has_ddof():
    agree(gc.var(B, axis=1, ddof=1), np.var(B, axis=1, ddof=1))
    agree(gc.std(A, ddof=2), np.std(A, ddof=2))


def test_half_sums_are_accumulated_in_single():
    half = np.full(4096, 1, "float16")
    assert value(gc.sum(half)) == 4096  # one by one in float16 it would stop at 2048
    assert value(gc.mean(np.full(4096, 60000, "float16"))) == 60000


@pytest.mark.parametrize("row", [[1.0, 2.0], [1000.0, 1000.0], [-math.inf, -math.inf], [-math.inf, 1.0],
                                 [math.inf, 1.0],
                                 [math.inf, -math.inf], [math.nan, 1.0], [-1000.0, -1001.0]])
def test_logsumexp(row):
    array = np.array([row])
    with np.errstate(all="ignore"):
        want = np.logaddexp.reduce(array, axis=1)
    agree(gc.logsumexp(array, axis=1), want)
    agree(gc.logsumexp(array, axis=1, keepdims=True), want[:, None])
    agree(gc.logaddexp(*row), np.logaddexp(*row))


@pytest.mark.parametrize("ord", [0, 1, 2, 3, math.inf, -math.inf])
def test_norm(ord):
    agree(gc.norm(A, ord, axis=1), np.linalg.norm(A, ord, axis=1))


@pytest.mark.parametrize("sections", [2, [1], [1, 3], [-1], [0, 2]])
def test_split(sections):
    for got, want in itertools.zip_longest(gc.split(A, sections, 1), np.split(A, sections, 1)):
        agree(got, want)


INDICES = [
    0, -1, slice(1, 3), slice(None, None, -1), slice(None, None, 2), slice(5, 1), slice(-2, None),
    slice(None, None, -2),
    slice(2, None, -1), slice(100, None, -3), slice(-100, 2), None, Ellipsis, (0, 1, 2), (Ellipsis, 1), (1, Ellipsis),
    (slice(None), None, 1),
    (Ellipsis, None, slice(0, 4, 3)), [1, 0], [[0, 1], [1, 0]], ([0, 1], [2, 0]), (slice(None), [2, 0, 0]),
    ([0, 1], slice(None), [3, 1]),
    ([[0], [1]], [0, 2]), (0, [1, 2]), ([0, 1], 2), (slice(None), [0, 1], [2, 3]), ([1], None, slice(0, 2)),
    (np.array([True, False]),),
    np.array([True, True]), (slice(None), np.array([True, False, True])), (slice(None), np.ones((3, 4), bool)),
    (np.int64(1), slice(1)),
    (slice(None), slice(3, 0, -2), slice(None)), [], (slice(0, 0),),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing_is_numpys(index):
    node = gc.constant(B)
    agree(node[index], B[np.array(index, int) if isinstance(index, list) else index])


def random_entry(rng, size):
    bounds = [None, *range(-size - 2, size + 3)]
    return rng.choice([
        rng.randrange(-size, size), slice(None),
        slice(rng.choice(bounds), rng.choice(bounds), rng.choice([None, 1, 2, -1, -3])),
        np.array([rng.randrange(-size, size) for _ in range(2)]),
        np.array([[rng.randrange(-size, size)] for _ in range(3)])])


@pytest.mark.parametrize("seed", range(200))
def test_random_indices_are_numpys(seed):
    rng = random.Random(seed)
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    for _ in range(5):
        index = [random_entry(rng, size) for size in array.shape[:rng.randrange(5)]]
        if rng.random() < 0.4:
            index.insert(rng.randrange(len(index) + 1), None)
        if rng.random() < 0.3:
            index.append(Ellipsis)
        agree(gc.constant(array)[tuple(index)], array[tuple(index)])


def test_indices_may_be_nodes():
    i = gc.constant([1, 0])
    agree(gc.constant(B)[i], B[[1, 0]])
    agree(gc.constant(B)[:, i, gc.constant([[2], [3]])], B[:, [1, 0], [[2], [3]]])
    agree(gc.constant(B)[i, 1:], B[[1, 0], 1:])


def test_gather_scatter_and_one_hot():
    agree(gc.gather_nd(B, [[[1, 2], [0, 0]]]), B[[[1, 0]], [[2, 0]]])
    agree(gc.scatter_add([0, 2, 0], A, (5, 4)), np.stack([A[0] + A[2], 0 * A[0], A[1], 0 * A[0], 0 * A[0]]))
    agree(gc.scatter_add(1, V, (2, 4)), np.stack([0 * V, V]))
    agree(gc.one_hot([0, 2, -1], 3), np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], "float32"))
    agree(gc.one_hot([[0], [1]], 2, "int8", axis=0), np.array([[[1], [0]], [[0], [1]]], "int8"))


def test_operators_are_numpys():
    a, b = gc.constant(K), gc.constant(np.int32(3))
    for got, want in [(a + 1, K + 1), (1 - a, 1 - K), (a * 2.5, K * 2.5), (a / b, K / 3), (a // 2, K // 2),
                      (a % 3, K % 3),
                      (a ** 2, K ** 2), (2.0 ** a, 2.0 ** K), (-a, -K), (+a, K), (abs(a), abs(K)), (~a, ~K),
                      (a < 2, K < 2),
                      (a == 0, K == 0), (a & 1, K & 1), (1 | a, 1 | K), (a ^ b, K ^ 3), (a << 2, K << 2),
                      (a >> 1, K >> 1),
                      (a @ a.T, K @ K.T), (A @ a.T, A @ K.T), (A + a, A + K), (a.T, K.T), (a[0], K[0])]:
        agree(got, want)


def test_methods_are_numpys():
    a = gc.constant(A)
    for got, want in [(a.sum(0), A.sum(0)), (a.mean(axis=1), A.mean(axis=1)), (a.max(), A.max()),
                      (a.reshape(2, 6), A.reshape(2, 6)),
                      (a.reshape((4, -1)), A.reshape(4, -1)), (a.transpose(), A.T), (a.transpose(1, 0), A.T),
                      (a.transpose((1, 0)), A.T),
                      (a.astype("int32"), A.astype("int32")), (a.ravel(), A.ravel()), (a.clip(0, 1), A.clip(0, 1)),
                      (a.cumsum(1), A.cumsum(1)), (a.var(ddof=1), A.var(ddof=1)), (a.argmax(0), A.argmax(0)),
                      (a.repeat(2, 0), A.repeat(2, 0)),
                      (a.dot(A.T), A.dot(A.T)), (a.round(1), A.round(1)), (a.take([0], 1), A.take([0], 1)),
                      (a.squeeze(), A)]:
        agree(got, want)


def test_mixed_signs_compare_exactly():
    signed, unsigned = np.array([-1, 5, 2**62]), np.array([2**64 - 1, 5, 2**63], "uint64")
    for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        ufunc = getattr(np, name)
        agree(functions.PUBLIC[name](gc.constant(signed), gc.constant(unsigned)), ufunc(signed, unsigned))
        agree(functions.PUBLIC[name](gc.constant(unsigned), gc.constant(signed)), ufunc(unsigned, signed))


def test_integers_compare_with_python_integers_of_any_size():
    small = np.array([0, 255], "uint8")
    for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        for other in (-1, 256, 2**70):
            agree(functions.PUBLIC[name](gc.constant(small), other), getattr(np, name)(small, other))
            agree(functions.PUBLIC[name](other, gc.constant(small)), getattr(np, name)(other, small))


# -- symbolic sizes --
def symbolic(shape=("n", 4), dtype="float32"):
    return gc.placeholder(dtype, shape)


@pytest.mark.parametrize("function", [
    lambda x: x[1:3], lambda x: x[:-1], lambda x: x[::2], lambda x: x[::-1], lambda x: x[-1], lambda x: x[0],
    lambda x: x[1:, 0],
    lambda x: x[-2:], lambda x: x[:, None, 1:], lambda x: x[::-2], lambda x: x[1::3],
    lambda x: x.mean(0), lambda x: x.var(0), lambda x: x.reshape(-1), lambda x: x.reshape(2, -1), lambda x: x.T @ x,
    lambda x: x.cumsum(0), lambda x: x.cumprod(0), lambda x: x.max(0), lambda x: x.argmax(), lambda x: x.repeat(2, 0)],
    ids=lambda f: "")
def test_symbolic_sizes(function):
    array = RNG.normal(size=(6, 4)).astype("float32")
    x = symbolic()
    node = function(x)
    got, want = value(node, {x: array}), function(array)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_symbolic_functions():
    array = RNG.normal(size=(6, 4)).astype("float32")
    x = symbolic()
    n = x.shape[0]
    for node, want in [(gc.tril(x), np.tril(array)), (gc.concat([x, x[:2]]), np.concatenate([array, array[:2]])),
                       (gc.roll(x, 2, 0), np.roll(array, 2, 0)), (gc.flip(x), np.flip(array)),
                       (gc.arange(n), np.arange(6)),
                       (gc.arange(1, n, 2), np.arange(1, 6, 2)), (gc.arange(n, 0, -1), np.arange(6, 0, -1)),
                       (gc.eye(n), np.eye(6)),
                       (gc.pad(x, 1, "edge"), np.pad(array, 1, "edge")), (gc.split(x, 2)[1], array[3:]),
                       (gc.tile(x, (2, 1)), np.tile(array, (2, 1))),
                       (gc.norm(x, axis=0), np.linalg.norm(array, axis=0)),
                       (gc.arange(n, 2 * n), np.arange(6, 12))]:
        got = evaluate([node, x], {x: array}, {})[0]
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_an_odd_axis_does_not_split_in_two():
    x = symbolic()
    with pytest.raises(gc.ShapeError, match="needs"):
        value(gc.split(x, 2)[0], {x: np.zeros((5, 4), "float32")})


# -- ops made by users --
def test_elementwise_from_a_function():
    bump = gc.elementwise(lambda m, x, y: m.where(x > 0, m.exp(-x * x) / (1 + m.abs(y)), 2.0), name="bump")
    x, y = A[0], A[1]
    agree(bump(x, y), np.where(x > 0, np.exp(-x * x) / (1 + abs(y)), 2.0).astype("float32"))
    agree(bump(x, 0.5), np.where(x > 0, np.exp(-x * x) / np.float32(1.5), 2.0).astype("float32"))
    assert bump(x, y).op.name == "user"
    assert bump(x, y) is bump(x, y)


def test_from_sympy():
    sympy = pytest.importorskip("sympy")
    t, u = sympy.symbols("t u")
    feeds = {t: gc.constant(V), u: gc.constant(V + 1)}
    expression = sympy.sin(t) ** 2 + sympy.sqrt(u**2 + 1) / t - 3 + sympy.Piecewise((t, t > u), (u, True))
    agree(gc.from_sympy(expression, feeds), np.sin(V) ** 2 + np.sqrt((V + 1) ** 2 + 1) / V - 3 + np.maximum(V, V + 1))
    first, second = gc.from_sympy([t * u, sympy.pi], feeds)
    agree(first, V * (V + 1))
    assert value(second) == pytest.approx(math.pi)
    with pytest.raises(gc.Unsupported, match="zeta"):
        gc.from_sympy(sympy.zeta(t), feeds)
