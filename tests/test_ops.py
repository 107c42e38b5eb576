"""Every row of the op table: type rule and values against NumPy, the sympy form against the reference, partials against
numerical derivatives of the sympy form.

The tests read the table, so a new row is tested without touching this file.
"""

import itertools
import math
import warnings

import mpmath
import numpy as np
import pytest
import scipy.special
import sympy
from sympy.core.function import AppliedUndef

import graphc as gc
from graphc.ir import build
from graphc.ir.node import OPS, make
from graphc.ir.ops import special
from graphc.ir.reference import evaluate
from graphc.ir.types import DTYPES, FLOATS, numpy_dtype, round_bfloat16

ELEMENTWISE = sorted(name for name, op in OPS.items() if op.kind == "elementwise" and name != "user")
STATIC = {"polygamma": {"order": 2}, "cast": {"dtype": "float64"}}
NUMPY = {"sub": "subtract", "mul": "multiply", "div": "true_divide", "neg": "negative", "abs": "absolute",
         "pow": "power",
         "atan2": "arctan2", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
         "ge": "greater_equal", "bitwise_not": "invert", "round": "rint", "asin": "arcsin", "acos": "arccos",
         "atan": "arctan",
         "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"}
REAL = [d for d in DTYPES if d != "bfloat16"]


def arity(name):
    return len(OPS[name].partials)


def numpy_function(name):
    found = getattr(np, NUMPY.get(name, name), None)
    return found if isinstance(found, np.ufunc) else None


def run(node, *arrays):
    """The node's value where its placeholders, in order of their names, hold these arrays."""
    leaves = [n for n in gc.default_graph().placeholders.values()]
    return evaluate([node], dict(zip(leaves, arrays)), {})[0]


def leaves(*types):
    gc.reset_default_graph()
    return [gc.placeholder(dtype, shape, f"x{k}") for k, (dtype, shape) in enumerate(types)]


def sample(dtype, shape, seed=0):
    """Values of all signs and kinds, zeros among them."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype in FLOATS:
        values = rng.normal(size=shape).astype(numpy_dtype(dtype))
        return round_bfloat16(values) if dtype == "bfloat16" else values
    limits = np.iinfo(dtype)
    values = rng.integers(max(limits.min, -9), 10, shape)
    return np.where(rng.random(shape) < 0.1, limits.max, values).astype(dtype)


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if numpy_function(name)])
def test_dtypes_and_values_are_numpys(name):
    ufunc = numpy_function(name)
    for dtypes in itertools.product(REAL, repeat=arity(name)):
        arrays = [sample(d, (7, 5), k) for k, d in enumerate(dtypes)]
        if name == "pow" and not any(d.startswith("f") for d in dtypes):
            arrays[1] = np.abs(arrays[1] % 4).astype(dtypes[1])
        mixed = name in ("eq", "ne", "lt", "le", "gt", "ge") and np.result_type(*dtypes) == "float64" and not any(
            d.startswith("f") for d in dtypes)
        rounding = name in ("floor", "ceil", "trunc", "round", "isnan", "isinf",
                            "isfinite") and not dtypes[0].startswith("f")
        with np.errstate(all="ignore"):
            try:
                want = ufunc(*arrays)
            except TypeError:
                want = None
        nodes = leaves(*((d, a.shape) for d, a in zip(dtypes, arrays)))
        if want is None or mixed or rounding:
            with pytest.raises(gc.DTypeError):
                build.elementwise(name, *nodes)
            continue
        node = build.elementwise(name, *nodes)
        got = run(node, *arrays)
        assert node.dtype == want.dtype.name == got.dtype.name, (dtypes, node)
        np.testing.assert_array_equal(got, want, err_msg=str(dtypes))


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if numpy_function(name) and arity(name) <= 2])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool"])
def test_python_numbers_are_weak_as_in_numpy(name, dtype):
    ufunc, array = numpy_function(name), sample(dtype, (4,))
    for scalar in (2, 1.5):
        operands = [array, scalar][:arity(name)]
        with np.errstate(all="ignore"):
            try:
                want = ufunc(*operands)
            except TypeError:
                continue
        if name in ("floor", "ceil", "trunc", "round", "isnan", "isinf", "isfinite") and dtype != "float32":
            continue
        node = build.elementwise(name, *leaves((dtype, (4,))), *operands[1:])
        got = run(node, array)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_operands_broadcast(name):
    shapes = [(2, 1, 3), (4, 1), (3,)][:arity(name)]
    dtype = "bool" if name.startswith("bitwise") else "int32" if name.endswith("shift") else "float64"
    dtypes = ["bool", dtype, dtype] if name == "where" else [dtype] * arity(name)
    arrays = [sample(d, s) for d, s in zip(dtypes, shapes)]
    node = build.elementwise(name, *leaves(*zip(dtypes, shapes)), **STATIC.get(name, {}))
    full = np.broadcast_shapes(*shapes)
    assert node.shape == full
    spread = [np.broadcast_to(a, full).copy() for a in arrays]
    same = build.elementwise(name, *leaves(*((d, full) for d in dtypes)), **STATIC.get(name, {}))
    want = run(same, *spread)
    node = build.elementwise(name, *leaves(*zip(dtypes, shapes)), **STATIC.get(name, {}))
    np.testing.assert_array_equal(run(node, *arrays), want)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_bfloat16_results_are_rounded(name):
    dtypes = ["bool", "bfloat16", "bfloat16"] if name == "where" else ["bfloat16"] * arity(name)
    arrays = [sample(d, (50,), k) for k, d in enumerate(dtypes)]
    nodes = leaves(*((d, (50,)) for d in dtypes))
    try:
        node = build.elementwise(name, *nodes, **STATIC.get(name, {}))
    except gc.DTypeError:
        assert name.startswith("bitwise") or name.endswith("shift")
        return
    got = run(node, *arrays)
    if node.dtype == "bfloat16":
        np.testing.assert_array_equal(got, round_bfloat16(got))
    else:
        assert node.dtype == ("float64" if name == "cast" else "bool")


# -- the sympy form and the partials --
def real_rows():
    """Rows that are functions of reals, with their sympy form over symbols."""
    for name in ELEMENTWISE:
        op = OPS[name]
        count = arity(name) - (name == "where")
        symbols = sympy.symbols(f"x:{count}", real=True)
        extra = (symbols[0] > 0,) if name == "where" else ()
        form = op.sympy(*extra, *symbols, **STATIC.get(name, {})) if op.sympy else None
        if form is not None and not form.atoms(AppliedUndef) and not getattr(form, "is_Relational", False):
            yield name, symbols, form


REAL_ROWS = list(real_rows())
POINTS = [-3.7, -1.3, -0.6, -0.2, 0.15, 0.4, 0.8, 1.1, 1.9, 3.3, 5.2]


def points(count):
    """Points without ties between coordinates."""
    if count == 1:
        return [np.array([p]) for p in POINTS]
    rng = np.random.default_rng(1)
    return [rng.choice(POINTS, count, replace=False) for _ in range(11 * count)]


def real_value(function, point):
    """The function at the point, or None where it has no real value."""
    try:
        value = mpmath.mpmathify(function(*map(mpmath.mpf, map(float, point))))
    except (ValueError, ZeroDivisionError, TypeError):
        return None
    return float(value.real) if mpmath.isfinite(value) and abs(value.imag) < 1e-30 else None


def node_of(name, count):
    nodes = leaves(*[("float64", ())] * count)
    first = (build.elementwise("gt", nodes[0], 0.0),) if name == "where" else ()
    return nodes, build.elementwise(name, *first, *nodes, **STATIC.get(name, {}))


@pytest.mark.parametrize(("name", "symbols", "form"), REAL_ROWS, ids=[row[0] for row in REAL_ROWS])
def test_reference_is_the_sympy_form(name, symbols, form):
    function = sympy.lambdify(symbols, form, "mpmath")
    _, node = node_of(name, len(symbols))
    tested = 0
    for point in points(len(symbols)):
        want = real_value(function, point)
        if want is not None:
            assert run(node, *point) == pytest.approx(want, rel=1e-13, abs=1e-13), point
            tested += 1
    assert tested >= 4


@pytest.mark.parametrize(("name", "symbols", "form"), REAL_ROWS, ids=[row[0] for row in REAL_ROWS])
def test_partials_are_the_derivatives(name, symbols, form):
    """Against the numerical derivative of the sympy form, in 60 digits."""
    function = sympy.lambdify(symbols, form, "mpmath")
    tested = 0
    for k in range(len(symbols)):
        nodes, node = node_of(name, len(symbols))
        operands = node.operands
        partial = OPS[name].partials[k + (name == "where")]
        derivative = None if partial is None else build.cast(partial(node, *operands), "float64")
        for point in points(len(symbols)):
            if real_value(function, point) is None or real_value(function, point + 1e-9) is None:
                continue
            with mpmath.workdps(60):
                want = float(mpmath.diff(function, tuple(map(mpmath.mpf, map(float, point))),
                                         tuple(int(j == k) for j in range(len(symbols)))).real)
            got = 0.0 if derivative is None or name == "stop_gradient" else float(run(derivative, *point))
            if name == "stop_gradient":
                want = 0.0
            assert got == pytest.approx(want, rel=1e-11, abs=1e-11), (k, point)
            tested += 1
    assert tested >= 4


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_partials_keep_the_dtype(name, dtype):
    nodes = leaves(*[(dtype, (3,))] * (arity(name) - (name == "where")))
    first = (build.elementwise("gt", nodes[0], 0.0),) if name == "where" else ()
    if name.startswith("bitwise") or name.endswith("shift"):
        assert OPS[name].partials == (None,) * arity(name)
        return
    node = build.elementwise(name, *first, *nodes, **STATIC.get(name, {}))
    for partial in OPS[name].partials:
        if partial is not None and node.dtype != "bool":
            found = partial(node, *node.operands)
            assert found.dtype == (node.dtype if name == "cast" else dtype)
            assert found.shape == (3,)


def test_commutative_rows_commute():
    for name in ELEMENTWISE:
        if OPS[name].commutative:
            dtype = "int32" if name.startswith("bitwise") else "float64"
            a, b = sample(dtype, (50,)), sample(dtype, (50,), 1)
            x, y = leaves((dtype, (50,)), (dtype, (50,)))
            both = [build.elementwise(name, x, y), build.elementwise(name, y, x)]
            np.testing.assert_array_equal(run(both[0], a, b), run(both[1], a, b))


# -- edges --
def partial_at(name, k, *values, **attrs):
    nodes = leaves(*[("float64", ())] * len(values))
    node = build.elementwise(name, *nodes, **attrs)
    return float(run(OPS[name].partials[k](node, *node.operands), *map(np.float64, values)))


@pytest.mark.parametrize(("name", "k", "values", "want"), [
    ("relu", 0, (0.0,), 0.0), ("relu", 0, (-1.0,), 0.0), ("abs", 0, (0.0,), 0.0), ("sqrt", 0, (0.0,), math.inf),
    ("maximum", 0, (1.0, 1.0), 0.5), ("maximum", 1, (1.0, 1.0), 0.5), ("maximum", 0, (2.0, 1.0), 1.0),
    ("minimum", 0, (2.0, 1.0), 0.0),
    ("minimum", 1, (1.0, 1.0), 0.5), ("pow", 0, (0.0, 0.0), 0.0), ("pow", 0, (5.0, 0.0), 0.0),
    ("pow", 0, (0.0, 1.0), 1.0),
    ("pow", 0, (0.0, 2.0), 0.0), ("pow", 1, (0.0, 2.0), 0.0), ("pow", 1, (0.0, 0.0), 0.0),
    ("pow", 0, (-2.0, 3.0), 12.0),
    ("hypot", 0, (0.0, 0.0), 0.0), ("hypot", 1, (0.0, 2.0), 1.0), ("atan2", 0, (0.0, 0.0), 0.0),
    ("atan2", 1, (1e200, 1e200), -5e-201),
    ("copysign", 0, (0.0, -1.0), 0.0), ("copysign", 0, (2.0, -0.0), -1.0), ("cbrt", 0, (0.0,), math.inf),
    ("expm1", 0, (-50.0,), math.exp(-50)), ("sigmoid", 0, (1000.0,), 0.0), ("sigmoid", 0, (-1000.0,), 0.0),
    ("softplus", 0, (1000.0,), 1.0), ("erfc", 0, (30.0,), 0.0), ("log1p", 0, (0.0,), 1.0), ("tanh", 0, (1000.0,), 0.0)])
def test_partials_at_the_edges(name, k, values, want):
    assert partial_at(name, k, *values) == pytest.approx(want, rel=1e-12, abs=0 if want else 1e-300)


def test_the_partial_of_a_constant_power():
    x, = leaves(("float64", (4,)))
    for exponent in (0.0, 1.0, 3.0, -2.0):
        node = build.elementwise("pow", x, exponent)
        array = np.array([-2.0, 0.0, 0.5, 3.0])
        with np.errstate(all="ignore"):
            want = exponent * array ** (exponent - 1) if exponent else 0 * array
        np.testing.assert_allclose(run(OPS["pow"].partials[0](node, *node.operands), array), want)


def test_the_partials_of_where_are_masks():
    c, x = leaves(("bool", (2,)), ("float32", (2,)))
    node = build.elementwise("where", c, x, x)
    for k, want in ((1, [1, 0]), (2, [0, 1])):
        mask = OPS["where"].partials[k](node, *node.operands)
        assert mask.op.name == "cast" and mask.operands[0].dtype == "bool"
        np.testing.assert_array_equal(run(mask, np.array([True, False]), np.zeros(2, "float32")), want)


@pytest.mark.parametrize("dtype", [d for d in REAL if d.startswith(("int", "uint"))])
def test_integer_edges_are_defined(dtype):
    limits = np.iinfo(dtype)
    x, y = leaves((dtype, ()), (dtype, ()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, a, b, want in [("floor_divide", 7, 0, 0), ("mod", 7, 0, 0), ("pow", 2, 3, 8),
                                 ("add", limits.max, 1, limits.min),
                                 ("left_shift", 1, limits.bits, 0), ("right_shift", limits.max, limits.bits, 0)]:
            assert run(build.elementwise(name, x, y), np.array(a, dtype), np.array(b, dtype)) == want, name
        if limits.min < 0:
            for name, a, b, want in [("floor_divide", limits.min, -1, limits.min), ("floor_divide", -7, 2, -4),
                                     ("mod", -7, 2, 1),
                                     ("mod", 7, -2, -1), ("mod", limits.min, -1, 0), ("pow", 2, -1, 0),
                                     ("pow", -1, -3, -1),
                                     ("pow", -1, -2, 1), ("pow", 1, -9, 1), ("pow", 0, -1, 0),
                                     ("right_shift", -1, limits.bits, -1)]:
                assert run(build.elementwise(name, x, y), np.array(a, dtype), np.array(b, dtype)) == want, name


def test_nan_and_signs():
    x, y = leaves(("float64", ()), ("float64", ()))
    nan = math.nan
    for name in ("maximum", "minimum"):
        assert math.isnan(run(build.elementwise(name, x, y), nan,
                              1.0)) and math.isnan(run(build.elementwise(name, x, y), 1.0, nan))
    for name in ("sign", "relu", "sigmoid", "softplus", "round", "abs", "erf", "erfc", "lgamma", "digamma"):
        assert math.isnan(run(build.elementwise(name, x), nan, 0.0)), name
    assert [float(run(build.elementwise("round", x), v, 0.0)) for v in (0.5, 1.5, 2.5, -0.5)] == [0.0, 2.0, 2.0, -0.0]
    assert math.copysign(1, run(build.elementwise("round", x), -0.4, 0.0)) == -1
    assert run(build.elementwise("softplus", x), math.inf, 0.0) == math.inf
    assert run(build.elementwise("softplus", x), -math.inf, 0.0) == 0
    assert run(build.elementwise("sigmoid", x), -800.0, 0.0) == 0


# -- special functions --
def test_special_functions_are_scipys():
    x = np.concatenate([np.random.default_rng(0).uniform(-30, 30, 2000),
                        [1e5, 1e-10, 1e300, 0.0, -0.0, -1.0, np.inf, -np.inf, np.nan]])
    with np.errstate(all="ignore"):
        for name in ("erf", "erfc"):
            np.testing.assert_allclose(getattr(special, name)(x), getattr(scipy.special, name)(x), rtol=1e-13,
                                       atol=1e-300)
        log_gamma = np.where(x == -np.inf, np.inf, scipy.special.gammaln(x))  # C says inf
        np.testing.assert_allclose(special.lgamma(x), log_gamma, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(special.digamma(x), scipy.special.digamma(x), rtol=1e-12, atol=1e-12)
        for order in (1, 2, 3, 6):
            positive = np.where(x > 0, x, 1.0)
            np.testing.assert_allclose(special.polygamma(order, positive), scipy.special.polygamma(order, positive),
                                       rtol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_polygamma_of_negative_numbers(order):
    for x in (-0.5, -3.3, -100.1, -1e-3):
        assert special.polygamma(order, np.float64(x)) == pytest.approx(float(mpmath.psi(order, x)), rel=1e-12)


# -- ops made by users --
def test_partials_of_a_users_op():
    op = gc.elementwise(lambda m, x,
                        y: m.softplus(x) * y + m.where(x > y, m.sqrt(m.abs(x)), y / x) - m.polygamma(x, order=1))
    for values in [(1.5, 0.5), (0.5, 1.5), (2.0, -3.0)]:
        nodes = leaves(*[("float64", ())] * 2)
        node = op(*nodes)
        def f(x, y):
            branch = mpmath.sqrt(abs(x)) if x > y else y / x
            return mpmath.log(1 + mpmath.exp(x)) * y + branch - mpmath.psi(1, x)
        for k in range(2):
            found = run(OPS["user"].partials[k](node, *node.operands), *values)
            assert found == pytest.approx(float(mpmath.diff(f, values, (int(k == 0), int(k == 1)))), rel=1e-8)


def test_partials_of_a_users_op_keep_float32():
    op = gc.elementwise(lambda m, x: m.where(x > 0, x, m.relu(x) * 0.1) + m.maximum(x, 0.5))
    x, = leaves(("float32", (3,)))
    node = op(x)
    partial = OPS["user"].partials[0](node, x)
    assert partial.dtype == "float32"
    np.testing.assert_array_equal(run(partial, np.array([-1, 0.2, 2], "float32")), [0, 1, 2])


def test_every_structural_row_has_a_derivative_or_is_constant():
    constant = {"any", "all", "argmax", "argmin"}
    for name, op in OPS.items():
        if op.kind == "structural":
            assert (op.maps is None) == (name in constant), name


def test_a_users_expression_is_checked():
    x, = leaves(("float64", ()))
    for expression, message in [(((("no_such", (0,), None)),), "no_such"), ((("exp", (1,), None),), "beyond"),
                                ((), "needs an entry")]:
        with pytest.raises(gc.GraphError, match=message):
            make("user", (x,), name="f", expression=expression, arity=1)
