"""Sparse Jacobians and Hessians: patterns contain all non-zeros, every way gives the dense values; refusals."""

import numpy as np
import pytest

from graphc.derivatives import gradients
from graphc.functions import arithmetic, contractions, creation, indexing, movement, real, reductions, scans
from graphc.functions.creation import placeholder
from graphc.ir.linmap import dense_node, identity
from graphc.ir.errors import GraphError, ShapeError, Unsupported
from graphc.ir.node import Graph, ancestors, constant
from graphc.ir.reference import evaluate
from graphc.ir.types import Type, is_float
from graphc.session import Session
from graphc.sparse import sparse_hessian, sparse_jacobian
from passes.differentiate import between, forward
from passes.jacobian.entries import Constants, entries
from passes.jacobian.sparse import problem_of
from samples import all_samples, samples_of, values_of

WAYS = ("auto", "direct", "forward", "reverse", "both")


@pytest.fixture(autouse=True)
def fresh_graph():
    with Graph():
        yield


def matrix_of(found, feeds):
    """The sparse result as a dense matrix."""
    values = evaluate([found.data], feeds, {})[0]
    assert values.shape == (found.nnz,) == found.indices.shape
    dense = np.zeros(found.shape)
    dense[np.repeat(np.arange(found.shape[0]), np.diff(found.indptr)), found.indices] = values
    return dense


def mask_of(found):
    mask = np.zeros(found.shape, bool)
    mask[np.repeat(np.arange(found.shape[0]), np.diff(found.indptr)), found.indices] = True
    return mask


def ways_of(y, x, ways=WAYS):
    """The result of every way that applies."""
    found = {}
    for way in ways:
        try:
            found[way] = sparse_jacobian(y, x, way)
        except Unsupported as fault:
            assert way in ("direct", "both"), fault
    return found


def dense_jacobian(y, x):
    """By a plain forward sweep of the identity."""
    m, = forward(between([y], [x]), {x: identity(x.shape)}, [y], x.shape)
    return dense_node(m, y.shape, x.shape, y.dtype)


def check(y, x, feeds, *, exact=False):
    """Every way against the dense Jacobian; with `exact`, the pattern has no other entries."""
    want = evaluate([dense_jacobian(y, x)], feeds, {})[0].reshape(y.size, x.size)
    found = ways_of(y, x)
    for way, result in found.items():
        mask = mask_of(result)
        assert not (want != 0)[~mask].any(), way
        np.testing.assert_allclose(matrix_of(result, feeds), want, rtol=1e-12, atol=1e-12, err_msg=way)
        if exact:
            np.testing.assert_array_equal(mask, want != 0)
    return found


# -- all ops --
@pytest.mark.parametrize(("name", "number"), [(name, k) for name, k, _ in all_samples()])
def test_every_op(name, number):
    y = samples_of(name)[number]()
    if not is_float(y.dtype):
        return
    for x in [n for n in ancestors([y]) if n.op.name == "placeholder" and is_float(n.dtype)]:
        check(y, x, values_of([y]))


# -- structured patterns, exactly --
def diffused(u):
    return movement.roll(u, 1, 0) + movement.roll(u, -1, 0) + movement.roll(u, 1, 1) + movement.roll(u, -1, 1) - 4 * u


def windows(x):
    return x[2:] * x[1:-1] + real.sin(x[:-2])


def half_updated(x):
    """A slice changed in the middle of a vector, by itself and its neighbours."""
    inner = x[1:-1] * x[:-2]
    return x * x + movement.pad(inner, ((1, 1),))


def heat(u):
    """Conduction that depends on the temperature, on a ring: all five bands vary."""
    flow = (1.0 + u * u) * (movement.roll(u, 1, 0) - u)
    return flow - movement.roll(flow, -1, 0)


def heat_between_walls(u):
    """The same between walls: the first and last rows have fewer entries."""
    flow = (1.0 + u[:-1] * u[1:]) * (u[1:] - u[:-1])
    return movement.pad(flow, ((0, 1),)) - movement.pad(flow, ((1, 0),))


def uneven_rows(x):
    """Rows with one and with two entries by turns."""
    return movement.concatenate([x[:1] * x[k:k + 1] if k % 2 else x[k:k + 1] for k in range(12)], 0)


def shrinking_windows(x):
    """Products of ever shorter ends: the first rows have many terms, the last have none."""
    n = x.shape[0]
    return sum(movement.pad(x[:k] * x[n - k:], ((0, n - k),)) for k in range(1, n // 2))


def relabelled(x):
    """Reshapes that do not nest, with windows before and between them."""
    return movement.reshape(movement.reshape(x, (4, 15))[1:], (9, 5))[2:7]


def banded_constant(x):
    band = np.eye(7) * 2 - np.eye(7, k=1) - np.eye(7, k=-1)
    return contractions.matmul(constant(band), real.exp(x))


STRUCTURED = {
    "windows": (windows, (9,)),
    "half updated": (half_updated, (9,)),
    "strided": (lambda x: real.exp(x[1::3]) * x[::-3], (9,)),
    "reversed": (lambda x: movement.flip(x, 0) * x, (8,)),
    "periodic": (lambda u: diffused(u) + u * u * u, (5, 6)),
    "ring": (heat, (9,)),
    "walls": (heat_between_walls, (9,)),
    "reshape": (lambda x: real.sin(movement.reshape(movement.reshape(x, (4, 6))[1:3], (3, 4))), (6, 4)),
    "reshape that does not nest": (lambda x: real.sin(relabelled(x)), (6, 10)),
    "transpose": (lambda x: movement.transpose(x) * 3.0 + movement.transpose(x * x), (3, 5)),
    "rows of a matrix": (lambda x: contractions.matmul(real.tanh(x), np.arange(1.0, 13).reshape(3, 4)), (5, 3)),
    "gather": (lambda x: real.exp(indexing.take(x, constant(np.array([3, 3, -1, 0])), 0)), (6,)),
    "scatter": (lambda x: indexing.scatter_add(constant(np.array([2, 0, 2])), x * x, (4,)), (3,)),
    "banded constant": (banded_constant, (7,)),
    "triangular mask": (lambda x: contractions.matmul(creation.tril(constant(np.ones((5, 5)))), x), (5,)),
    "outer product with zeros": (lambda x: constant(np.array([[0.0], [2.0], [3.0]])) * real.sin(x), (4,)),
    "sums of rows": (lambda x: reductions.sum(real.exp(x), 1), (3, 4)),
    "running sum": (lambda x: scans.cumsum(real.exp(x), 0), (6,)),
    "stacked": (lambda x: movement.stack([x[0] * x[1], real.sin(x[0]), x[2] + 1.0]), (3, 4)),
    "two stencils": (lambda x: windows(windows(x)), (12,)),
    "a scalar": (lambda x: real.sin(x), ()),
    "one element": (lambda x: x * x, (1, 1)),
    "linear": (lambda x: 2.0 * x[1:] - x[:-1], (8,)),
    "mixed constants": (lambda x: movement.concatenate([2.0 * x[:3], x[3:] * x[3:]], 0), (7,)),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_structured_pattern_is_exact(name):
    function, shape = STRUCTURED[name]
    x = placeholder("float64", shape, name="x")
    feeds = {x: np.random.default_rng(5).uniform(0.5, 1.5, shape)}
    found = check(function(x), x, feeds, exact=True)
    assert ("direct" in found) == (name != "running sum")


def test_an_update_that_overlaps_is_summed_in_layers_or_scattered():
    """Many terms at one entry: the sum of all windows of a vector."""
    x = placeholder("float64", (12,), name="x")
    y = sum((x[k:k + 6] * x[3:9] for k in range(7)), x[:6] * 0.5)
    check(y, x, {x: np.linspace(0.5, 2, 12)}, exact=True)


@pytest.mark.parametrize(("function", "shape", "gathers"), [
    (heat, (9,), False), (heat_between_walls, (9,), False), (half_updated, (9,), False),
    (lambda x: real.sin(x), (9,), False), (lambda u: diffused(u) + u * u * u, (5, 6), False),
    (lambda x: sum(x[k:k + 6] * x[5 + k:11 + k] for k in range(5)), (20,), True),
    (lambda x: contractions.matmul(x, x), (3, 3), True),
    (lambda x: uneven_rows(x) + indexing.take(x, constant(np.arange(12)), 0), (12,), True),
    (uneven_rows, (12,), True), (shrinking_windows, (20,), True),
])
def test_entries_are_choices_by_row_or_gathered(function, shape, gathers):
    """Equal rows need no gather; many runs of unequal rows, many terms, or several entries of a term in a row do."""
    x = placeholder("float64", shape, name="x")
    found = sparse_jacobian(function(x), x, "direct")
    assert any(n.op.name in ("gather", "scatter_add") for n in ancestors([found.data])) == gathers
    check(function(x), x, {x: np.random.default_rng(5).uniform(0.5, 1.5, shape)}, exact=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 4e-3), ("bfloat16", 3e-2), ("float32", 1e-5)])
def test_other_floats(dtype, tolerance):
    values = np.linspace(0.5, 1.5, 9)
    wide, x = placeholder("float64", (9,), name="wide"), placeholder(dtype, (9,), name="x")
    want = evaluate([sparse_jacobian(heat(wide), wide).data], {wide: values}, {})[0]
    for way in ("auto", "forward", "reverse"):
        found = sparse_jacobian(heat(x), x, way)
        assert found.data.dtype == dtype
        got = evaluate([found.data], {x: values}, {})[0].astype("float64")
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=8 * tolerance)


def test_many_contributions_to_few_entries_are_scattered():
    x = placeholder("float64", (20,), name="x")
    assert any(n.op.name == "scatter_add" for n in ancestors([sparse_jacobian(shrinking_windows(x), x, "direct").data]))


def test_run_time_indices_are_taken_to_be_any():
    x, i = placeholder("float64", (5,), name="x"), placeholder("int64", (3,), name="i")
    y = indexing.take(real.exp(x), i, 0)
    found = check(y, x, {x: np.arange(5.0) / 5, i: np.array([4, -1, 0])})
    assert "direct" not in found
    assert found["auto"].nnz == 15
    with pytest.raises(Unsupported, match="order='direct' does not apply"):
        sparse_jacobian(y, x, "direct")


def test_dense_rows_and_columns_take_both_sides():
    x = placeholder("float64", (40,), name="x")
    y = x[0] * real.sin(x) + movement.pad(movement.reshape(reductions.sum(x * x), (1,)), ((0, 39),))
    found = check(y, x, {x: np.linspace(0.5, 2, 40)})
    assert found["both"].colours == 3
    assert found["forward"].colours == found["reverse"].colours == 40
    assert found["auto"].plan.chosen.cost <= min(way.cost for way in found["auto"].plan.ways)


# -- random programs --
UNARY = (real.sin, real.exp, lambda v: v * v, lambda v: 2.0 * v, real.tanh)


def random_program(rng, x):
    """A vector through elementwise ops, windows, gathers, concatenations, reshapes and sums."""
    pool = [x]
    for _ in range(rng.integers(2, 8)):
        v = pool[rng.integers(len(pool))]
        n = v.shape[0]
        kind = rng.integers(8)
        if kind == 0:
            pool.append(UNARY[rng.integers(len(UNARY))](v))
        elif kind == 1 and n > 2:
            start = int(rng.integers(n - 1))
            pool.append(v[start::int(rng.integers(1, 3))])
        elif kind == 2:
            pool.append(indexing.take(v, constant(rng.integers(-n, n, rng.integers(1, 7))), 0))
        elif kind == 3:
            other = pool[rng.integers(len(pool))]
            size = min(n, other.shape[0])
            pool.append(v[:size] * other[other.shape[0] - size:])
        elif kind == 4:
            pool.append(movement.concatenate([v, pool[rng.integers(len(pool))]], 0)[:14])
        elif kind == 5:
            other = pool[rng.integers(len(pool))]
            size = min(n, other.shape[0])
            pool.append(v[n - size:] - other[:size])
        elif kind == 6 and n % 2 == 0:
            pool.append(movement.ravel(movement.transpose(movement.reshape(v, (2, n // 2)))))
        elif kind == 7 and n % 3 == 0:
            pool.append(reductions.sum(movement.reshape(v, (3, n // 3)), 0))
    return pool[-1]


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed):
    rng = np.random.default_rng(seed)
    x = placeholder("float64", (int(rng.integers(3, 12)),), name="x")
    check(random_program(rng, x), x, {x: rng.uniform(0.4, 1.2, x.shape)})


# -- the Brusselator --
def brusselator(state, alpha):
    u, v = state[0], state[1]
    return movement.stack([1.0 + u * u * v - 4.4 * u + alpha * diffused(u), 3.4 * u - u * u * v + alpha * diffused(v)])


def complex_run(node, feeds):
    values = {}
    for n in ancestors([node]):
        dtype = "complex128" if is_float(n.dtype) else n.dtype
        values[n] = feeds[n] if n in feeds else n.op.reference(n.attrs, Type(dtype, n.shape),
                                                               *(values[o] for o in n.operands))
    return values[node]


def test_brusselator_against_complex_steps():
    n = 32
    x = placeholder("float64", (2, n, n), name="x")
    y = brusselator(x, 10.0 * (n - 1) ** 2)
    ways = {way: sparse_jacobian(y, x, way) for way in ("auto", "forward", "reverse")}
    found = ways["auto"]
    assert found.shape == (2048, 2048)
    assert found.nnz == 12_288
    assert found.method == "direct" and found.colours == 0
    assert ways["forward"].colours <= 12 and ways["reverse"].colours <= 12
    state = np.random.default_rng(0).uniform(0.5, 3, x.shape)
    colours = np.random.default_rng(1).normal(size=(4, *x.shape))
    want = [complex_run(y, {x: state + 1e-30j * direction}).imag.reshape(-1) / 1e-30 for direction in colours]
    with Session() as session:
        values = session.run([result.data for result in ways.values()], {x: state})
    for way, got in zip(ways, values):
        matrix = found.to_scipy(got)
        for direction, expected in zip(colours, want):
            scale = abs(matrix) @ abs(direction.reshape(-1))
            assert (abs(matrix @ direction.reshape(-1) - expected) <= 1e-13 * scale).all(), way
    exact_columns = [0, 5, 31, 1023, 1024, 2047]
    for j in exact_columns:
        direction = np.zeros(2048)
        direction[j] = 1.0
        step = complex_run(y, {x: state + 1e-30j * direction.reshape(x.shape)}).imag.reshape(-1) / 1e-30
        for got in values:
            np.testing.assert_allclose(found.to_scipy(got)[:, [j]].toarray()[:, 0], step, rtol=1e-10)


def test_brusselator_pattern_has_six_entries_per_row():
    x = placeholder("float64", (2, 100, 100), name="x")
    found = sparse_jacobian(brusselator(x, 1.0), x, "direct")
    assert found.nnz == 120_000
    assert set(np.diff(found.indptr).tolist()) == {6}


# -- Hessians --
def rosenbrock(x):
    return reductions.sum(100.0 * (x[1:] - x[:-1] * x[:-1]) ** 2 + (1.0 - x[:-1]) ** 2)


HESSIANS = {
    "rosenbrock": (rosenbrock, (100,), 298),
    "elementwise": (lambda x: reductions.sum(real.exp(x) * x), (30,), 30),
    "grid": (lambda u: (u[1:] * real.sin(u[:-1])).sum() + (u[:, 1:] * u[:, :-1] ** 2).sum(), (4, 5), None),
    "arrow": (lambda x: reductions.sum(x * x * x[0]), (25,), 73),
    "scan": (lambda x: reductions.sum(scans.cumsum(x * x, 0) ** 2), (7,), 49),
    "norm": (lambda x: reductions.sum(x * x) ** 0.5, (6,), 36),
    "linear": (lambda x: reductions.sum(3.0 * x), (6,), 0),
    "logsumexp": (lambda x: reductions.logsumexp(x), (5,), 25),
}


@pytest.mark.parametrize("name", HESSIANS)
def test_hessian(name):
    function, shape, nnz = HESSIANS[name]
    x = placeholder("float64", shape, name="x")
    y, feeds = function(x), {x: np.random.default_rng(2).uniform(0.5, 1.5, shape)}
    want = evaluate([dense_jacobian(gradients(y, x), x)], feeds, {})[0].reshape(x.size, x.size)
    for way in ("auto", "direct", "forward", "reverse"):
        try:
            found = sparse_hessian(y, x, way)
        except Unsupported:
            assert way == "direct" and name == "scan"
            continue
        assert nnz is None or found.nnz == nnz
        np.testing.assert_array_equal(mask_of(found), mask_of(found).T)
        np.testing.assert_allclose(matrix_of(found, feeds), want, rtol=1e-11, atol=1e-11, err_msg=way)


def test_rosenbrock_takes_three_colours_and_the_direct_way_less():
    x = placeholder("float64", (100,), name="x")
    found = {way: sparse_hessian(rosenbrock(x), x, way) for way in ("auto", "forward", "reverse")}
    assert found["auto"].method == "direct"
    assert {way: result.colours for way, result in found.items()} == {"auto": 0, "forward": 3, "reverse": 3}
    assert all(way.cost >= found["auto"].plan.chosen.cost for result in found.values() for way in result.plan.ways)
    for rival in found["auto"].plan.ways[1:]:  # rejected by a bound that holds
        assert rival.data is None and rival.cost <= found[rival.name].plan.chosen.cost


# -- the interface --
def test_compiled_values_and_scipy():
    x = placeholder("float32", (10,), name="x")
    found = sparse_jacobian(windows(x), x)
    assert found.data.dtype == "float32"
    assert found.indptr.dtype == found.indices.dtype == np.int32
    values = np.linspace(0.5, 1, 10, dtype=np.float32)
    with Session() as session:
        got = found.to_scipy(session.run(found.data, {x: values})).toarray()
        want = session.run(dense_jacobian(windows(x), x), {x: values})
    np.testing.assert_allclose(got, want, rtol=1e-6)
    with pytest.raises(ShapeError, match=r"expected 24 values, got an array of shape \(3,\)"):
        found.to_scipy(np.zeros(3))


@pytest.mark.parametrize("function", [
    uneven_rows, shrinking_windows, lambda x: sum(x[k:k + 6] * x[3:9] for k in range(7)), heat,
    lambda x: x[0] * real.sin(x) + movement.pad(movement.reshape(reductions.sum(x * x), (1,)), ((0, 11),)),
])
def test_native_code_of_every_way(function):
    x = placeholder("float64", (12,), name="x")
    y, values = function(x), np.linspace(0.5, 2, 12)
    with Session() as session:
        for way, found in ways_of(y, x).items():
            want = evaluate([found.data], {x: values}, {})[0]
            np.testing.assert_allclose(session.run(found.data, {x: values}), want, rtol=1e-14, err_msg=way)


def test_explain_and_determinism():
    x = placeholder("float64", (50,), name="x")
    first, again = (sparse_jacobian(windows(x), x) for _ in range(2))
    assert first.data is again.data
    assert first.explain() == again.explain()
    lines = first.explain().splitlines()
    assert lines[0] == "48 x 50, 144 entries (6 %; dense 19200 bytes)"
    assert lines[1].startswith("* direct   no seeds")
    assert [line.split()[:3] for line in lines[2:]] == [["forward", "at", "least"], ["reverse", "at", "least"]]


def test_by_an_inner_node():
    x = placeholder("float64", (6,), name="x")
    inner = real.exp(x)
    assert sparse_jacobian(windows(inner), inner).nnz == 12
    assert sparse_jacobian(inner, inner).nnz == 6


def test_unconnected():
    x, z = placeholder("float64", (4,), name="x"), placeholder("float64", (3,), name="z")
    found = sparse_jacobian(real.sin(x), z)
    assert found.nnz == 0 and found.shape == (4, 3)
    assert evaluate([found.data], {}, {})[0].shape == (0,)
    with pytest.raises(GraphError, match="does not depend on it"):
        sparse_jacobian(real.sin(x), z, unconnected="error")
    empty = placeholder("float64", (0,), name="empty")
    assert sparse_jacobian(real.sin(empty), empty, unconnected="error").shape == (0, 0)


def test_refusals():
    x, n = placeholder("float64", (4,), name="x"), placeholder("float64", ("n",), name="n")
    with pytest.raises(Unsupported, match="size that is not known before run time"):
        sparse_jacobian(real.sin(n), n)
    with pytest.raises(GraphError, match="order 'sideways' is none of auto, direct"):
        sparse_jacobian(x, x, "sideways")
    with pytest.raises(GraphError, match="order 'both' is none of"):
        sparse_hessian(reductions.sum(x), x, "both")
    with pytest.raises(GraphError, match="expected one node, got list"):
        sparse_jacobian([x], x)
    with pytest.raises(GraphError, match="holds int64, which has no derivative"):
        sparse_jacobian(arithmetic.add(placeholder("int64", (4,)), 1), x)
    with pytest.raises(ShapeError, match="not a scalar"):
        sparse_hessian(x * x, x)


def test_a_dense_jacobian_that_is_too_large_says_so():
    x = placeholder("float64", (20_000,), name="x")
    with pytest.raises(Unsupported, match=r"has 400000000 entries \(6400000000 bytes of indices\), more than"):
        sparse_jacobian(real.exp(x) * reductions.sum(x * x), x)


def test_entries_of_terms_equal_their_dense_form():
    """Points by joins of index relations: reshapes that do not nest, composed with windows."""
    x = placeholder("float64", (6, 10), name="x")
    problem = problem_of(relabelled(x), x)
    assert problem.pattern.nnz == 25
    terms = [piece for found in problem.locals.values() for _, piece in found]
    assert any(entries(term, Constants()).free is None for term in terms)
