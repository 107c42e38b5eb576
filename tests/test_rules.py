"""Every row of the tables of rewrite rules, tested by reading the tables: a new row needs no new test.

An equation is tested on its own left side, built over placeholders; a step on the graph that its row gives.
"""

from __future__ import annotations

from collections import Counter
import itertools

import mpmath
import numpy as np
import pytest

from graphc.ir import build
from graphc.ir.costs import weight
from graphc.ir.errors import GraphError, VerifyError
from graphc.ir.node import Graph, ancestors, make, uniform_value
from graphc.ir.reference import evaluate
from graphc.ir.types import numpy_dtype, round_bfloat16
from passes import simplify, stabilise
from passes.decompose import RULES as LOWERING
from passes.pattern import REDUCTIONS, Apply, Attribute, Variable, subterms
from passes.rewrite import Rule, counting, rewrite, rule, table
from passes.rules import ALL, stability

AXES, CONSTANTS = (1,), {"c": 3.0, "c1": 2.5, "c2": 0.75}
DTYPES = {"float": ("float32", "float64"), "int": ("int32", "uint8"), "bool": ("bool",),
          "discrete": ("int32", "bool"), "any": ("float32", "float64", "int32")}
SPECIAL = (0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-45, -1e-40, 2.3e-308, 1.2e-38, 0.5, -2.5, 3.0, 1 / 3, 1e5, -7e20,
           3.4e38, -1.7e308, np.inf, -np.inf, np.nan)
WHOLE = (0, 1, 2, 3, 5, 7, 100, -1, -2, -100, 2**31 - 1, -2**31)
names = pytest.mark.parametrize("one", [*ALL, *LOWERING], ids=lambda r: r.name)


# -- a graph for a row --
def left_side(one: Rule, dtype: str, shape=(4, 3)):
    """A node on which the rule should fire, and the leaves it is built on."""
    if one.example is not None:
        node = one.example(dtype)
    else:
        made = {}
        for term in subterms(one.left):
            made[id(term)] = built(term, made, dtype, shape, conditions(one.left))
        node = made[id(one.left)]
    leaves = [n for n in ancestors([node]) if n.op.name == "placeholder"]
    return node, leaves


def conditions(left):
    """Variables that stand for the condition of a `where`."""
    return {v.name for t in subterms(left) if isinstance(t, Apply) and t.op == "where"
            for v in subterms(t.operands[0]) if isinstance(v, Variable)}


def built(term, made, dtype, shape, bools):
    if isinstance(term, Variable):
        if term.is_constant:
            return CONSTANTS[term.name]
        return make("placeholder", name=term.name, dtype="bool" if term.name in bools else dtype, shape=shape)
    if not isinstance(term, Apply):
        return term.value
    operands = [made[id(o)] for o in term.operands]
    if term.op in REDUCTIONS:
        return build.reduce(term.op, operands[0], AXES)
    if term.op == "broadcast":
        assert isinstance(term.attribute, Attribute)
        return make("broadcast", operands[:1], shape=shape, axes=tuple(k for k in range(len(shape)) if k not in AXES))
    return whole(term.op, operands, dtype)


def whole(op, operands, dtype):
    """The op made as it is written: builder functions could simplify it."""
    like = next(o for o in operands if not isinstance(o, (int, float)))
    return make(op, [build.full(o, "bool" if isinstance(o, bool) else dtype, like.shape)
                     if isinstance(o, (int, float)) else o for o in operands])


def cases(one: Rule):
    for dtype in DTYPES[one.dtypes]:
        with Graph():
            try:
                node, leaves = left_side(one, dtype)
            except (GraphError, OverflowError):  # an op without a meaning for this dtype
                continue
            yield dtype, node, leaves


# -- requirements 1, 2, 5 --
@names
def test_fires_on_its_own_left_side_keeps_the_type_and_names_the_line(one):
    seen = 0
    for _, node, _ in cases(one):
        counts = Counter()
        with counting(counts):
            result, = rewrite([node], table([one]))
        assert counts[one.name] >= 1
        assert result.type == node.type
        lines = {(n.loc.file, n.loc.line) for n in ancestors([node])}
        assert {(n.loc.file, n.loc.line) for n in ancestors([result])} <= lines
        seen += 1
    assert seen


@names
def test_the_measure_decreases(one):
    if one.stability or one in LOWERING:
        pytest.skip("may cost more; that it ends is tested by the other tests, which rewrite to a fixed point")
    for _, node, _ in cases(one):
        result = one.applied(node)
        assert result is not None and measure(result) < measure(node)


def measure(root):
    """Work, elements moved, edges, depth of signs, ops out of canonical order, ops on constants."""
    order = ancestors([root])
    fixed = {}
    for n in order:
        fixed[n] = n.op.name == "constant" or (bool(n.operands) and all(fixed[o] for o in n.operands))
    inner = [n for n in order if n.operands and not fixed[n]]
    depth = dict.fromkeys(order, 0)
    for n in reversed(order):
        for o in n.operands:
            depth[o] = max(depth[o], depth[n] + 1)
    work = sum(weight(n.op.name) * max(n.size, *(o.size for o in n.operands)) for n in inner)
    moved = sum(n.size for n in inner if weight(n.op.name) == 0 or n.op.name in ("pad", "concat", "einsum", "cast"))
    signs = sum(depth[n] for n in inner if n.op.name == "neg")
    turned = sum(n.op.name in ("gt", "ge", "transpose") for n in inner) + sum(out_of_order(n) for n in inner)
    on_constants = sum(fixed[n] and bool(n.operands) for n in order)
    return work, moved, sum(len(n.operands) for n in inner), signs, turned, on_constants


def out_of_order(n):
    if not n.op.commutative or n.op.name in ("maximum", "minimum", "hypot"):
        return False
    keys = [(uniform_value(o) is not None, o.id) for o in n.operands]
    return keys[1] < keys[0]


def test_the_tables_have_no_name_twice_and_no_two_kinds_in_one_row():
    assert [n for n, k in Counter(r.name for r in [*ALL, *LOWERING]).items() if k > 1] == []
    for one in ALL:
        assert one.exact or not one.reorders, one.name
    assert all(r.stability for r in stability.RULES)
    assert not any(r.stability or not r.exact for table in simplify.EXACT for r in table)


@pytest.mark.parametrize("one", ALL, ids=lambda r: r.name)
def test_is_reached_in_the_table_that_runs(one):
    """No other row hides it: in the table with all others it still fires on its own left side."""
    rules = stabilise.RULES if one.stability else simplify.RULES if one.exact else simplify.FAST_RULES
    counts = Counter()
    for _, node, _ in cases(one):
        with counting(counts):
            rewrite([node], rules)
    assert counts[one.name] >= 1, dict(counts)


# -- requirement 4: bits --
@pytest.mark.parametrize("one", [r for r in ALL if r.exact and not (r.reorders or r.stability)], ids=lambda r: r.name)
def test_exact_rows_keep_every_bit(one):
    for dtype in DTYPES[one.dtypes]:
        with Graph():
            try:
                node, leaves = left_side(one, dtype, grid_shape(one, dtype))
            except (GraphError, OverflowError):
                continue
            result = one.applied(node)
            assert result is not None
            for feeds in grids(leaves):
                assert_same_bits(*evaluate([node, result], feeds, {}))


def values_of(dtype):
    if dtype == "bool":
        return np.array([False, True])
    if dtype.startswith(("int", "uint")):
        return np.array([v % 2**31 for v in WHOLE] if dtype[0] == "u" else WHOLE).astype(dtype)
    with np.errstate(all="ignore"):
        return np.array(SPECIAL, numpy_dtype(dtype))


def grid_shape(one, dtype):
    """Room for every combination of the special values of the variables of an equation."""
    if one.example is not None:
        return (4, 3)
    bools = conditions(one.left)
    count = 1
    for name in {t.name for t in subterms(one.left) if isinstance(t, Variable) and not t.is_constant}:
        count *= len(values_of("bool" if name in bools else dtype))
    return (-(-count // 3), 3)


def grids(leaves):
    """Feeds that hold all combinations, if there is room for them; else random draws of the special values."""
    room = max((n.size for n in leaves), default=0)
    choices = [values_of(n.dtype) for n in leaves]
    count = int(np.prod([len(c) for c in choices]))
    random = np.random.default_rng(0)
    if count <= room:
        rows = list(itertools.product(*choices))
        rows += rows[:1] * (room - count)
        columns = zip(*rows)
        yield {n: np.array(column, numpy_dtype(n.dtype)).reshape(n.shape) for n, column in zip(leaves, columns)}
        return
    for _ in range(20):
        yield {n: random.choice(c, n.shape) for n, c in zip(leaves, choices)}


def assert_same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.kind != "f":
        assert np.array_equal(a, b)
        return
    same = same_bits(a, b)
    assert same.all(), f"{a[~same][:5]} became {b[~same][:5]}"


def same_bits(a, b):
    return (a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")) | (np.isnan(a) & np.isnan(b))


@pytest.mark.parametrize("one", [r for r in [*ALL, *LOWERING] if r.reorders], ids=lambda r: r.name)
def test_reordering_rows_are_exact_where_nothing_is_rounded(one):
    random = np.random.default_rng(1)
    for dtype, node, leaves in cases(one):
        result = one.applied(node)
        assert result is not None
        feeds = {n: random.integers(0, 3, n.shape).astype(numpy_dtype(dtype)) for n in leaves}
        assert_same_bits(*evaluate([node, result], feeds, {}))
        if dtype.startswith("float"):
            feeds = {n: random.normal(size=n.shape).astype(dtype) for n in leaves}
            a, b = evaluate([node, result], feeds, {})
            np.testing.assert_allclose(a, b, rtol=100 * np.finfo(dtype).eps, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("one", [r for r in ALL if not r.exact], ids=lambda r: r.name)
def test_rows_of_real_numbers_hold_in_the_reals(one):
    random = np.random.default_rng(2)
    for dtype, node, leaves in cases(one):
        result = one.applied(node)
        assert result is not None
        feeds = {n: random.uniform(0.5, 2.0, n.shape).astype(dtype) for n in leaves}
        a, b = evaluate([node, result], feeds, {})
        if dtype == "int32":
            assert_same_bits(a, b)
            continue
        np.testing.assert_allclose(a, b, rtol=50 * np.finfo(dtype).eps, atol=50 * np.finfo(dtype).eps)


def test_no_row_of_real_numbers_could_be_an_exact_row():
    """A row that is bit-exact after all belongs with the exact ones, which run always."""
    too_careful = []
    for one in (r for r in ALL if not r.exact and r.example is None):
        if any(isinstance(t, Variable) and t.is_constant for t in subterms(one.left)):
            continue  # one constant may be kind where another is not
        with Graph():
            node, leaves = left_side(one, "float32", grid_shape(one, "float32"))
            result = one.applied(node)
            random = np.random.default_rng(5)
            ordinary = {n: random.normal(size=n.shape).astype("float32") * 100 for n in leaves}
            if all(same_bits(*evaluate([node, result], feeds, {})).all() for feeds in (*grids(leaves), ordinary)):
                too_careful.append(one.name)
    assert too_careful == []


@pytest.mark.parametrize("exponent, product", [
    (2.0, lambda x: x * x), (1.0, lambda x: x), (0.0, np.ones_like), (-1.0, lambda x: 1 / x), (0.5, np.sqrt)])
def test_powers_that_are_rewritten_are_what_numpy_computes(exponent, product):
    """With one number as the exponent of all elements NumPy takes these shortcuts; its general pow rounds worse."""
    for dtype in ("float32", "float64"):
        with Graph():
            x = make("placeholder", name="x", dtype=dtype, shape=(100_021,))
            values = np.concatenate([values_of(dtype), np.random.default_rng(3).normal(size=100_000)]).astype(dtype)
            power, = evaluate([make("pow", (x, build.full(exponent, dtype, x.shape)))], {x: values}, {})
        with np.errstate(all="ignore"):
            assert_same_bits(power, product(values))


# -- requirement 4: stability, against 50 digits --
@pytest.mark.parametrize("one", stability.RULES, ids=lambda r: r.name)
def test_stability_rows_lower_the_error(one):
    random = np.random.default_rng(4)
    for dtype in ("float32", "float64"):
        with Graph():
            node, leaves = left_side(one, dtype, (4, 3))
            result = one.applied(node)
            assert result is not None
            feeds = {n: sample(n, one, random) for n in leaves}
            before, after = evaluate([node, result], feeds, {})
            exact = oracle(node, feeds)
        left, right = error(before, exact), error(after, exact)
        if dtype == "float32":
            assert right < left, (left, right)
        assert right <= max(left, 64 * np.finfo(dtype).eps), (left, right)


def sample(n, one, random):
    if n.dtype == "bool":
        return random.integers(0, 2, n.shape).astype(bool)
    low, high = one.stability.get(n.name, (0.5, 2.0))
    spread = low == high or random.uniform(low, high, n.shape)
    return np.full(n.shape, low, n.dtype) if spread is True else np.asarray(spread).astype(n.dtype)


def error(values, exact):
    """The greatest relative error; NaN or infinity in the place of a number is an infinite one."""
    worst = mpmath.mpf(0)
    for value, right in zip(np.ravel(values).tolist(), np.ravel(exact)):
        if value == right:
            continue
        off = abs(mpmath.mpf(value) - right) / max(abs(right), mpmath.mpf(10) ** -60)
        worst = max(worst, off if mpmath.isfinite(off) else mpmath.inf)
    return worst


def times(a, b):
    return mpmath.mpf(0) if a == 0 or b == 0 else a * b


def over(a, b):
    return mpmath.mpf(0) if a == 0 else mpmath.inf * mpmath.sign(a) if b == 0 else a / b


def oracle(root, feeds):
    """The node's value with 50 digits and an endless range of exponents; an exact zero times anything is zero."""
    functions = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": times, "div": over, "neg": lambda a: -a,
        "exp": mpmath.exp, "log": mpmath.log, "log1p": mpmath.log1p, "expm1": mpmath.expm1, "sqrt": mpmath.sqrt,
        "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)), "erf": mpmath.erf, "erfc": mpmath.erfc, "cos": mpmath.cos,
        "where": lambda p, a, b: a if p else b}
    with mpmath.workdps(500):  # cancellation such as 1 - tanh(100) eats digits
        values = {}
        for n in ancestors([root]):
            operands = [values[o] for o in n.operands]
            if n in feeds:
                values[n] = np.vectorize(mpmath.mpf, otypes=[object])(feeds[n]) if n.dtype != "bool" else feeds[n]
            elif n.op.name == "constant":
                values[n] = np.array(mpmath.mpf(n.attrs["value"].array.item()), object)
            elif n.op.name in functions:
                values[n] = np.asarray(np.frompyfunc(functions[n.op.name], len(operands), 1)(*operands), object)
            elif n.op.name == "sum":
                values[n] = np.asarray(np.sum(operands[0], axis=n.attrs["axes"]), object)
            else:
                values[n] = np.asarray(n.op.reference.__closure__ and moved(n, operands[0]), object)
        return values[root]


def moved(n, x):
    if n.op.name == "broadcast":
        sizes = [n.shape[k] if k in n.attrs["axes"] else 1 for k in range(n.ndim)]
        return np.broadcast_to(x.reshape(sizes), n.shape)
    assert n.op.name == "slice", n.op.name
    return x[np.ix_(*(s + t * np.arange(c) for s, t, c in zip(n.attrs["starts"], n.attrs["steps"], n.shape)))]


# -- the engine --
def test_a_rule_that_makes_its_operand_again_is_found():
    there = rule("there", lambda x, y: x + y, lambda x, y: x - -y)
    back = rule("back", lambda x, y: x - -y, lambda x, y: x + y)
    with Graph():
        node, _ = left_side(there, "float32")
        with pytest.raises(VerifyError, match=r"comes from itself; the last rules: .*there, back|there"):
            rewrite([node], table([there, back]))


def test_a_rule_that_grows_without_end_is_found():
    grows = rule("grows", lambda x, y: x + y, lambda x, y: (x * 1.5) + y)
    with Graph():
        node, _ = left_side(grows, "float32")
        with pytest.raises(VerifyError, match=r"rules fired; the last rules: .*grows"):
            rewrite([node], table([grows]))


def test_a_rule_that_changes_the_type_declines():
    drops = rule("drops", lambda x, A: simple_sum(x, A), lambda x, A: x)
    with Graph():
        node, _ = left_side(drops, "float32")
        assert rewrite([node], table([drops]))[0] is node


def simple_sum(x, axes):
    return Apply("sum", (x,), axes)


def test_matching_goes_back_over_both_orders():
    """(a + b) * (b + a): the first order of the first factor binds x and y so that the second factor must be turned."""
    square = rule("square_of_sum", lambda x, y: (x + y) * (y - x), lambda x, y: y * y - x * x)
    with Graph():
        a, b = (make("placeholder", name=n, dtype="float64", shape=(2,)) for n in "ab")
        node = make("mul", (make("sub", (a, b)), make("add", (a, b))))
        result, = rewrite([node], table([square]))
        assert [o.operands for o in result.operands] == [(a, a), (b, b)]


def test_nodes_to_keep_are_not_looked_into():
    with Graph():
        x = make("placeholder", name="x", dtype="float64", shape=(3,))
        e = build.elementwise("exp", x)
        y = build.elementwise("log", build.elementwise("add", 1.0, e))
        assert stabilise.stabilise([y])[0].op.name == "softplus"
        kept, = stabilise.stabilise([y], keep=[e])
        assert kept.op.name == "log1p" and kept.operands[0] is e


def test_half_precision_rows_hold_too():
    """Rules carry no dtype: the exact rows of arithmetic on float16 and bfloat16."""
    for dtype in ("float16", "bfloat16"):
        for one in (r for r in ALL if r.exact and r.dtypes == "float" and r.example is None and not r.stability):
            with Graph():
                node, leaves = left_side(one, dtype)
                result = one.applied(node)
                if result is None:  # the row excludes the dtype
                    continue
                assert result.type == node.type
                if dtype == "bfloat16":
                    feeds = {n: round_bfloat16(np.resize(SPECIAL, n.shape).astype("float32")) for n in leaves
                             if n.dtype != "bool"}
                    feeds |= {n: np.resize([True, False], n.shape) for n in leaves if n.dtype == "bool"}
                    with np.errstate(all="ignore"):
                        assert_same_bits(*evaluate([node, result], feeds, {}))
