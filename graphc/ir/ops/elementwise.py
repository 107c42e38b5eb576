"""Elementwise ops: one row per op.

Columns: name; dtype rule (a NumPy ufunc, or a rule of its own); NumPy reference; partials, one per operand, as
functions of (result, *operands), None where the op is constant in the operand; the same function of sympy expressions.

A partial that is a cast of booleans is a mask: the derivative passes where it holds and is zero elsewhere, whatever
came in; a NaN from the branch that `where` did not take must not get through, so that is no product.

Where a derivative does not exist: 0 at a corner's own point for abs, relu, sign and steps; 1/2 each for the ties of
maximum and minimum; 0 for hypot and atan2 at the origin, and for x**y by y at x = 0; by x at y = 0 it is 0.
Integers: x // 0 = x % 0 = 0; a power with a negative exponent is truncated towards 0 (0 to a negative power is 0).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
import math
from typing import Any

import numpy as np

from ..build import cast, elementwise, full_like
from ..errors import DTypeError
from ..node import Attrs, Infer, Need, Node, uniform_value
from ..types import DTYPES, Type, is_float, ufunc_types
from . import special
from .declare import Array, declare

Rule = Callable[[tuple[Any, ...]], tuple[tuple[str, ...], str]]
Partial = Callable[..., Any] | None


# -- dtype rules --
def by(ufunc: Any) -> Rule:
    """The promotion of a NumPy ufunc."""
    return cache(partial(ufunc_types, ufunc))


@cache
def comparison(operands: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
    """Both sides in their common dtype; signed against uint64 has none that is exact."""
    wanted, result = ufunc_types(np.less, operands)
    if wanted[0] != wanted[1]:
        raise TypeError("comparison of int64 with uint64")
    return wanted, result


@cache
def choice(operands: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
    """bool, then two branches of a common dtype."""
    if operands[0] != "bool":
        raise TypeError("the condition of where is bool")
    branches, result = ufunc_types(np.maximum, operands[1:])
    return ("bool", *branches), result


@cache
def same(operands: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
    """Any dtype, unchanged."""
    wanted, _ = ufunc_types(np.maximum, (operands[0], operands[0]))
    return wanted[:1], wanted[0]


def floats_to(result: str | None) -> Rule:
    """Floats only (integers have no fraction to round and are never NaN)."""
    @cache
    def rule(operands: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
        wanted, _ = same(operands)
        if not is_float(wanted[0]):
            raise TypeError("needs floats")
        return wanted, result or wanted[0]
    return rule


@cache
def all_float(operands: tuple[Any, ...]) -> tuple[tuple[str, ...], str]:
    """All operands in one float dtype, which is the result's."""
    dtype = operands[0]
    for other in operands[1:]:
        dtype = ufunc_types(np.add, (dtype, other))[1]
    dtype = ufunc_types(np.exp, (dtype,))[1]
    return (dtype,) * len(operands), dtype


def type_rule(rule: Rule) -> Infer:
    """Operands of exactly the dtypes that the rule wants, and of one shape."""
    def infer(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
        given = tuple([t.dtype for t in types])
        try:
            wanted, result = rule(given)
        except TypeError as fault:
            raise DTypeError(f"no meaning for {', '.join(map(str, types))}: {fault}") from None
        if wanted != given:
            raise DTypeError(f"needs {', '.join(wanted)}, got {', '.join(map(str, types))}; cast them first")
        return Type(result, common_shape(need, types))
    return infer


def common_shape(need: Need, types: tuple[Type, ...]) -> Any:
    shape = types[0].shape
    for t in types[1:]:
        if t.shape != shape:
            shape = need.same_shape(shape, t.shape, "operands")
    return shape


# -- references --
def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attrs, type, *arrays: function(*arrays)


def power(x: Array, y: Array) -> Array:
    if x.dtype.kind != "i":
        return np.asarray(np.power(x, y))
    odd = (y & 1).astype(bool)
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(odd, -1, 1), 0)).astype(x.dtype)
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0)))


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), np.where(np.isnan(x), x, e / (1 + e))))


def softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


# -- partials: terse names for the builder calls --
def _builder(name: str) -> Callable[..., Node]:
    return lambda *operands: elementwise(name, *operands)


add, sub, mul, div, neg, power_of = map(_builder, ("add", "sub", "mul", "div", "neg", "pow"))
where, eq, gt, lt = map(_builder, ("where", "eq", "gt", "lt"))
rsqrt, exp, log, sin, cos, sinh, cosh = map(_builder, ("rsqrt", "exp", "log", "sin", "cos", "sinh", "cosh"))


def plus_one(y: Node, *operands: Node) -> Node:
    return full_like(y, 1)


def minus_one(y: Node, *operands: Node) -> Node:
    return full_like(y, -1)


def square(x: Node) -> Node:
    return mul(x, x)


def nonzero(x: Node) -> Node:
    """x, and 1 where it is 0."""
    return where(eq(x, 0.0), 1.0, x)


def power_by_base(y: Node, a: Node, b: Node) -> Node:
    exponent = uniform_value(b)
    if exponent is not None:
        return full_like(y, 0) if exponent == 0 else mul(b, power_of(a, sub(b, 1.0)))
    return mul(b, power_of(a, where(eq(b, 0.0), 1.0, sub(b, 1.0))))  # 0 * 0**-1 would be NaN


def power_by_exponent(y: Node, a: Node, b: Node) -> Node:
    return mul(y, log(nonzero(a)))


def mod_by_divisor(y: Node, a: Node, b: Node) -> Node:
    return neg(elementwise("floor_divide", a, b))


def winner(wins: Callable[[Node, Node], Node]) -> tuple[Partial, Partial]:
    """1 for the operand that wins, 1/2 each where they tie."""
    def share(a: Node, b: Node) -> Node:
        half_at_tie = where(eq(a, b), full_like(a, 0.5), full_like(a, 0))
        return where(wins(a, b), full_like(a, 1), half_at_tie)
    return (lambda y, a, b: share(a, b), lambda y, a, b: share(b, a))


def arc_denominator(a: Node, b: Node) -> Node:
    return nonzero(elementwise("hypot", a, b))


def mask(y: Node, condition: Node) -> Node:
    return cast(condition, y.dtype)


def step(y: Node, x: Node) -> Node:
    return mask(y, gt(x, 0))


def over(factor: float) -> Partial:
    """factor / x, for the logarithms."""
    return lambda y, x: div(factor, x)


def gauss(factor: float) -> Partial:
    return lambda y, x: mul(exp(neg(square(x))), factor)


def polygamma_next(y: Node, x: Node) -> Node:
    return elementwise("polygamma", x, order=y.attrs["order"] + 1)


def cast_partial(y: Node, x: Node) -> Node | None:
    return full_like(y, 1) if is_float(y.dtype) and is_float(x.dtype) else None


# -- sympy forms --
def sign_of(s: Any, x: Any) -> Any:
    return s.sign(x)


def kink(s: Any, x: Any) -> Any:
    return s.Piecewise((x, x > 0), (0, True))


def copied(s: Any, a: Any, b: Any) -> Any:
    return s.Piecewise((s.Abs(a), b >= 0), (-s.Abs(a), True))


def with_sympy(form: Callable[..., Any]) -> Callable[..., Any]:
    """The form with the module sympy, which is loaded when it is first called."""
    def run(*expressions: Any, **attrs: Any) -> Any:
        import sympy
        return form(sympy, *expressions, **attrs)
    return run


def bits(ufunc: Any) -> Callable[..., Any]:
    return lambda s, *x: s.Function(ufunc.__name__)(*x)


TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
ZERO, ZEROS = (None,), (None, None)
UNARY_FLOAT = by(np.exp)

# name, dtype rule, reference, partials, sympy form, flags
ROWS: list[tuple[Any, ...]] = [
    # -- arithmetic --
    ("add", by(np.add), np.add, (plus_one, plus_one), lambda s, a, b: a + b, "commutative"),
    ("sub", by(np.subtract), np.subtract, (plus_one, minus_one), lambda s, a, b: a - b),
    ("mul", by(np.multiply), np.multiply, (lambda y, a, b: b, lambda y, a, b: a), lambda s, a, b: a * b, "commutative"),
    ("div", by(np.true_divide), np.true_divide,
     (lambda y, a, b: div(1.0, b), lambda y, a, b: neg(div(y, b))), lambda s, a, b: a / b),
    ("neg", by(np.negative), np.negative, (minus_one,), lambda s, x: -x),
    ("abs", by(np.absolute), np.absolute, (lambda y, x: elementwise("sign", x),), lambda s, x: s.Abs(x)),
    ("sign", by(np.sign), np.sign, ZERO, sign_of),
    ("pow", by(np.power), power, (power_by_base, power_by_exponent), lambda s, a, b: a ** b),
    ("mod", by(np.remainder), np.remainder, (plus_one, mod_by_divisor), lambda s, a, b: a - b * s.floor(a / b)),
    ("floor_divide", by(np.floor_divide), np.floor_divide, ZEROS, lambda s, a, b: s.floor(a / b)),
    ("maximum", by(np.maximum), np.maximum, winner(gt), lambda s, a, b: s.Max(a, b), "commutative"),
    ("minimum", by(np.minimum), np.minimum, winner(lt), lambda s, a, b: s.Min(a, b), "commutative"),
    ("copysign", by(np.copysign), np.copysign,
     (lambda y, a, b: mul(elementwise("copysign", full_like(a, 1), b), elementwise("sign", a)), None), copied),
    ("hypot", by(np.hypot), np.hypot,
     (lambda y, a, b: div(a, nonzero(y)), lambda y, a, b: div(b, nonzero(y))),
     lambda s, a, b: s.sqrt(a * a + b * b), "commutative"),
    ("atan2", by(np.arctan2), np.arctan2,
     (lambda y, a, b: div(div(b, arc_denominator(a, b)), arc_denominator(a, b)),
      lambda y, a, b: neg(div(div(a, arc_denominator(a, b)), arc_denominator(a, b)))), lambda s, a, b: s.atan2(a, b)),
    # -- comparisons --
    ("eq", comparison, np.equal, ZEROS, lambda s, a, b: s.Eq(a, b), "commutative"),
    ("ne", comparison, np.not_equal, ZEROS, lambda s, a, b: s.Ne(a, b), "commutative"),
    ("lt", comparison, np.less, ZEROS, lambda s, a, b: a < b),
    ("le", comparison, np.less_equal, ZEROS, lambda s, a, b: a <= b),
    ("gt", comparison, np.greater, ZEROS, lambda s, a, b: a > b),
    ("ge", comparison, np.greater_equal, ZEROS, lambda s, a, b: a >= b),
    # -- bits --
    ("bitwise_and", by(np.bitwise_and), np.bitwise_and, ZEROS, bits(np.bitwise_and), "commutative"),
    ("bitwise_or", by(np.bitwise_or), np.bitwise_or, ZEROS, bits(np.bitwise_or), "commutative"),
    ("bitwise_xor", by(np.bitwise_xor), np.bitwise_xor, ZEROS, bits(np.bitwise_xor), "commutative"),
    ("bitwise_not", by(np.invert), np.invert, ZERO, bits(np.invert)),
    ("left_shift", by(np.left_shift), np.left_shift, ZEROS, bits(np.left_shift)),
    ("right_shift", by(np.right_shift), np.right_shift, ZEROS, bits(np.right_shift)),
    ("where", choice, np.where,
     (None, lambda y, c, a, b: mask(y, c), lambda y, c, a, b: mask(y, elementwise("bitwise_not", c))),
     lambda s, c, a, b: s.Piecewise((a, c), (b, True))),
    # -- exponentials and powers --
    ("exp", UNARY_FLOAT, np.exp, (lambda y, x: y,), lambda s, x: s.exp(x)),
    ("exp2", by(np.exp2), np.exp2, (lambda y, x: mul(y, math.log(2)),), lambda s, x: 2 ** x),
    ("expm1", by(np.expm1), np.expm1, (lambda y, x: exp(x),), lambda s, x: s.exp(x) - 1),
    ("log", by(np.log), np.log, (over(1.0),), lambda s, x: s.log(x)),
    ("log2", by(np.log2), np.log2, (over(1 / math.log(2)),), lambda s, x: s.log(x, 2)),
    ("log10", by(np.log10), np.log10, (over(1 / math.log(10)),), lambda s, x: s.log(x, 10)),
    ("log1p", by(np.log1p), np.log1p, (lambda y, x: div(1.0, add(x, 1.0)),), lambda s, x: s.log(1 + x)),
    ("sqrt", by(np.sqrt), np.sqrt, (lambda y, x: div(0.5, y),), lambda s, x: s.sqrt(x)),
    ("rsqrt", by(np.sqrt), lambda x: 1 / np.sqrt(x), (lambda y, x: div(mul(y, -0.5), x),), lambda s, x: 1 / s.sqrt(x)),
    ("cbrt", by(np.cbrt), np.cbrt, (lambda y, x: div(1 / 3, square(y)),),
     lambda s, x: s.sign(x) * s.Abs(x) ** s.Rational(1, 3)),
    # -- trigonometric and hyperbolic --
    ("sin", by(np.sin), np.sin, (lambda y, x: cos(x),), lambda s, x: s.sin(x)),
    ("cos", by(np.cos), np.cos, (lambda y, x: neg(sin(x)),), lambda s, x: s.cos(x)),
    ("tan", by(np.tan), np.tan, (lambda y, x: add(square(y), 1.0),), lambda s, x: s.tan(x)),
    ("asin", by(np.arcsin), np.arcsin, (lambda y, x: rsqrt(mul(sub(1.0, x), add(x, 1.0))),), lambda s, x: s.asin(x)),
    ("acos", by(np.arccos), np.arccos, (lambda y, x: neg(rsqrt(mul(sub(1.0, x), add(x, 1.0)))),),
     lambda s, x: s.acos(x)),
    ("atan", by(np.arctan), np.arctan, (lambda y, x: div(1.0, add(square(x), 1.0)),), lambda s, x: s.atan(x)),
    ("sinh", by(np.sinh), np.sinh, (lambda y, x: cosh(x),), lambda s, x: s.sinh(x)),
    ("cosh", by(np.cosh), np.cosh, (lambda y, x: sinh(x),), lambda s, x: s.cosh(x)),
    ("tanh", by(np.tanh), np.tanh, (lambda y, x: sub(1.0, square(y)),), lambda s, x: s.tanh(x)),
    ("asinh", by(np.arcsinh), np.arcsinh, (lambda y, x: rsqrt(add(square(x), 1.0)),), lambda s, x: s.asinh(x)),
    ("acosh", by(np.arccosh), np.arccosh, (lambda y, x: rsqrt(mul(sub(x, 1.0), add(x, 1.0))),),
     lambda s, x: s.acosh(x)),
    ("atanh", by(np.arctanh), np.arctanh, (lambda y, x: div(1.0, mul(sub(1.0, x), add(x, 1.0))),),
     lambda s, x: s.atanh(x)),
    # -- special --
    ("erf", UNARY_FLOAT, special.erf, (gauss(TWO_OVER_ROOT_PI),), lambda s, x: s.erf(x)),
    ("erfc", UNARY_FLOAT, special.erfc, (gauss(-TWO_OVER_ROOT_PI),), lambda s, x: s.erfc(x)),
    ("lgamma", UNARY_FLOAT, special.lgamma, (lambda y, x: elementwise("digamma", x),), lambda s, x: s.loggamma(x)),
    ("digamma", UNARY_FLOAT, special.digamma, (lambda y, x: elementwise("polygamma", x, order=1),),
     lambda s, x: s.digamma(x)),
    ("sigmoid", UNARY_FLOAT, sigmoid, (lambda y, x: mul(y, sub(1.0, y)),), lambda s, x: 1 / (1 + s.exp(-x))),
    ("softplus", UNARY_FLOAT, softplus, (lambda y, x: elementwise("sigmoid", x),), lambda s, x: s.log(1 + s.exp(x))),
    ("relu", by(np.positive), lambda x: np.maximum(x, 0), (lambda y, x: step(y, y),), kink),  # y > 0 where x > 0
    # -- rounding and classes of floats --
    ("floor", floats_to(None), np.floor, ZERO, lambda s, x: s.floor(x)),
    ("ceil", floats_to(None), np.ceil, ZERO, lambda s, x: s.ceiling(x)),
    ("round", floats_to(None), np.rint, ZERO, bits(np.rint)),
    ("trunc", floats_to(None), np.trunc, ZERO, lambda s, x: s.sign(x) * s.floor(s.Abs(x))),
    ("isnan", floats_to("bool"), np.isnan, ZERO, bits(np.isnan)),
    ("isinf", floats_to("bool"), np.isinf, ZERO, bits(np.isinf)),
    ("isfinite", floats_to("bool"), np.isfinite, ZERO, bits(np.isfinite)),
    ("stop_gradient", same, lambda x: x, ZERO, lambda s, x: x),
]

for _name, _rule, _reference, _partials, _form, *_flags in ROWS:
    declare(_name, "elementwise", type_rule(_rule), plain(_reference), partials=_partials, rule=_rule,
            sympy=with_sympy(_form), commutative="commutative" in _flags)


# -- rows with a static parameter --
def polygamma_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    order = attrs["order"]
    if not isinstance(order, int) or order < 0:
        raise DTypeError(f"order is a static integer >= 0, got {order!r}")
    return type_rule(UNARY_FLOAT)(need, types, attrs)


def cast_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    if attrs["dtype"] not in DTYPES:
        raise DTypeError(f"no dtype {attrs['dtype']!r}; there are {', '.join(DTYPES)}")
    return Type(attrs["dtype"], types[0].shape)


def cast_values(attrs: Attrs, type: Type, x: Array) -> Array:
    return x  # the wrapper of every reference converts


declare("polygamma", "elementwise", polygamma_type, lambda attrs, type, x: special.polygamma(attrs["order"], x),
        partials=(polygamma_next,), rule=UNARY_FLOAT, sympy=with_sympy(lambda s, x, order: s.polygamma(order, x)))
declare("cast", "elementwise", cast_type, cast_values, partials=(cast_partial,), rule=same,
        sympy=with_sympy(lambda s, x, dtype: x))
