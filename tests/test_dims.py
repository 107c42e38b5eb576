"""Symbolic sizes: a canonical form, exact arithmetic, and what can be said without values."""

from hypothesis import given, strategies as st
import pytest
import sympy

from graphc.ir import dims
from graphc.ir.dims import Dim

N, M = Dim.symbol("n"), Dim.symbol("m")
VALUES = {"n": 7, "m": 3}

sizes = st.recursive(
    st.one_of(st.integers(-3, 5), st.sampled_from([N, M])),
    lambda inner: st.tuples(st.sampled_from(["+", "-", "*", "//", "min", "max"]), inner, inner), max_leaves=8)


def built(tree, values=None):
    """The size of a tree of operations, over the symbols or over their values."""
    if not isinstance(tree, tuple):
        return dims.evaluate(tree, values) if values else tree
    name, a, b = tree[0], built(tree[1], values), built(tree[2], values)
    if name == "//":
        b = dims.maximum(b, 1) if not isinstance(b, int) else max(b, 1)
        return dims.floordiv(a, b)
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "min": lambda: dims.minimum(a, b),
            "max": lambda: dims.maximum(a, b)}[name]()


@given(sizes)
def test_arithmetic_is_that_of_the_values(tree):
    size = built(tree)
    want = built(tree, VALUES)
    assert dims.evaluate(size, VALUES) == want
    assert dims.decode(dims.encode(size)) == size
    assert int(sympy.sympify(dims.to_sympy(size)).subs({sympy.Symbol(k, integer=True, nonnegative=True): v
                                                        for k, v in VALUES.items()})) == want


@given(sizes, sizes)
def test_what_is_known_is_true(a, b):
    a, b = built(a), built(b)
    gap = dims.evaluate(a - b, VALUES)
    known = dims.known_equal(a, b)
    assert known is None or known == (gap == 0)
    assert dims.sign(a - b) in (None, 1 if gap >= 0 else -1, -1 if gap <= 0 else 1)


def test_the_form_is_canonical():
    assert N + M == M + N and hash(N + M) == hash(M + N)
    assert (N + 1) * (N - 1) == N * N - 1
    assert N - N == 0 and isinstance(N - N, int)
    assert (2 * N * M) // (2 * M) == N
    assert repr(2 * N * M + N - 3) == "2*m*n + n - 3"
    assert repr((N + 7) // 8) == "((n + 7)//(8))"


def test_known_and_unknown():
    assert dims.known_equal(N, N) is True
    assert dims.known_equal(N + 1, N) is False
    assert dims.known_equal(N + 1, 0) is False  # sizes are never negative
    assert dims.known_equal(N, 3) is None
    assert dims.sign(N * M + 2) == 1 and dims.sign(-N) == -1 and dims.sign(N - M) is None
    assert dims.minimum(N, N + 2) == N and dims.maximum(N, N + 2) == N + 2
    assert dims.exact_quotient(N * M, N) == M and dims.exact_quotient(N + 1, N) is None
    assert dims.ceildiv(7, 2) == 4 and dims.evaluate(dims.ceildiv(N, 2), {"n": 7}) == 4


def test_symbols_and_substitution():
    assert dims.symbols_of(N * M, dims.floordiv(N, 3)) == ("m", "n")
    assert dims.substitute(N * M + 1, {"n": M}) == M * M + 1
    with pytest.raises(KeyError, match="no value for n"):
        dims.evaluate(N, {})
    with pytest.raises(TypeError, match="not known before run time"):
        bool(N == N and N)
    with pytest.raises(ZeroDivisionError):
        dims.floordiv(N, 0)


@pytest.mark.parametrize("data", [1.5, None, "n", [[1]], [[1, [["nope", 1, 2]]]], [[1, [[]]]], {}, [[[], []]]])
def test_decode_refuses_what_is_no_size(data):
    with pytest.raises(ValueError, match=r"not a size|unknown function"):
        dims.decode(data)
