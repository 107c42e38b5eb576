"""Identities of arithmetic that hold bit by bit for floats, and in the integers too where the row says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.node import Node, make, uniform_value
from graphc.ir.types import numpy_dtype

from ..pattern import (abs_, ceil, cos, cosh, erf, exp, floor, isfinite, isnan, maximum, minimum, relu, round_, rsqrt,
                       sigmoid, sign, sin, sinh, softplus, sqrt, stop_gradient, tan, tanh, trunc)
from ..rewrite import Rule, rule, step

COMMUTING = ("add", "mul", "eq", "ne", "bitwise_and", "bitwise_or", "bitwise_xor")  # NaN payloads apart
NEVER_MINUS_ZERO = frozenset({"exp", "exp2", "abs", "sigmoid", "softplus", "cosh", "erfc", "hypot"})


def never_minus_zero(x: Node) -> bool:
    return bool(x.op.name in NEVER_MINUS_ZERO)


def is_native(x: Node) -> bool:
    """A dtype in which NumPy's power takes the root and the reciprocal where one exponent serves all elements."""
    return bool(x.dtype in ("float32", "float64"))


def has_exact_reciprocal(c: Node) -> bool:
    """A power of two whose reciprocal is a normal number too."""
    value = uniform_value(c)
    if value is None or not math.isfinite(value) or value == 0 or abs(math.frexp(value)[0]) != 0.5:
        return False
    if c.dtype == "bfloat16":
        return bool(2.0**-126 <= abs(value) <= 2.0**126)
    limits = np.finfo(numpy_dtype(c.dtype))
    return bool(float(limits.tiny) <= abs(value) <= 1 / float(limits.tiny))


def canonical_order(node: Node) -> Node | None:
    """Operands of a commutative op by age, constants last: a*b and b*a become one node."""
    a, b = node.operands
    return make(node.op.name, (b, a)) if order_of(b) < order_of(a) else None


def order_of(x: Node) -> tuple[bool, int]:
    return uniform_value(x) is not None, x.id


def swapped_sum(dtype: str) -> Node:
    a, b = leaves(dtype, 2)
    return make("mul", (b, a))


def leaves(dtype: str, count: int, shape: Any = (3, 4)) -> list[Node]:
    """Placeholders for the examples of rules."""
    return [make("placeholder", (), name=f"x{k}", dtype=dtype, shape=shape) for k in range(count)]


def by_reciprocal(node: Node) -> Node | None:
    """x / 2**k as a product; 4 times cheaper, and the same bits."""
    x, c = node.operands
    if not has_exact_reciprocal(c):
        return None
    return build.elementwise("mul", x, build.full(1 / float(uniform_value(c)), c.dtype, c.shape, c.graph))  # type: ignore[arg-type]


def quarter(dtype: str) -> Node:
    return build.elementwise("div", leaves(dtype, 1)[0], 4.0)


RULES: list[Rule] = [
    # -- neutral elements --
    rule("mul_one", lambda x: x * 1, lambda x: x, dtypes="any"),
    rule("div_one", lambda x: x / 1.0, lambda x: x),
    rule("sub_zero", lambda x: x - 0, lambda x: x, dtypes="any"),
    rule("add_minus_zero", lambda x: x + -0.0, lambda x: x),
    rule("add_zero", lambda x: x + 0.0, lambda x: x, when=lambda x: never_minus_zero(x),
         example=lambda dtype: build.elementwise("add", build.elementwise("exp", leaves(dtype, 1)[0]), 0.0)),
    rule("add_zero_integer", lambda x: x + 0, lambda x: x, dtypes="int"),
    rule("mul_zero_integer", lambda x: x * 0, lambda x: 0, dtypes="int"),
    rule("sub_self_integer", lambda x: x - x, lambda x: 0, dtypes="int"),
    rule("pow_one", lambda x: x ** 1.0, lambda x: x),
    rule("pow_zero", lambda x: x ** 0.0, lambda x: 1.0),
    rule("square", lambda x: x ** 2.0, lambda x: x * x),
    rule("pow_half", lambda x: x ** 0.5, lambda x: sqrt(x), when=lambda x: is_native(x)),
    rule("pow_minus_one", lambda x: x ** -1.0, lambda x: 1.0 / x, when=lambda x: is_native(x)),
    rule("inverse_sqrt", lambda x: 1.0 / sqrt(x), lambda x: rsqrt(x),
         when=lambda x: x.dtype != "bfloat16"),  # whose root would be rounded before it is inverted
    step("by_reciprocal", ("div",), by_reciprocal, dtypes="float", example=quarter),
    # -- signs: fewer, or nearer to the result, where they meet others --
    rule("mul_minus_one", lambda x: x * -1, lambda x: -x, dtypes="any"),
    rule("minus_zero_sub", lambda x: -0.0 - x, lambda x: -x),
    rule("neg_neg", lambda x: -(-x), lambda x: x, dtypes="any"),  # noqa: B002
    rule("add_neg", lambda x, y: x + -y, lambda x, y: x - y, dtypes="any"),
    rule("sub_neg", lambda x, y: x - -y, lambda x, y: x + y, dtypes="any"),
    rule("neg_mul_neg", lambda x, y: (-x) * (-y), lambda x, y: x * y, dtypes="any"),
    rule("neg_div_neg", lambda x, y: (-x) / (-y), lambda x, y: x / y),
    rule("neg_mul_constant", lambda x, c: (-x) * c, lambda x, c: x * -c),
    rule("neg_div_constant", lambda x, c: (-x) / c, lambda x, c: x / -c),
    rule("constant_div_neg", lambda x, c: c / (-x), lambda x, c: -c / x),
    rule("neg_of_mul_constant", lambda x, c: -(x * c), lambda x, c: x * -c),
    rule("neg_of_div_constant", lambda x, c: -(x / c), lambda x, c: x / -c),
    rule("neg_of_constant_div", lambda x, c: -(c / x), lambda x, c: -c / x),
    rule("mul_neg", lambda x, y: x * -y, lambda x, y: -(x * y)),
    rule("neg_div", lambda x, y: (-x) / y, lambda x, y: -(x / y)),
    rule("div_neg", lambda x, y: x / -y, lambda x, y: -(x / y)),
    # -- even and odd functions --
    rule("abs_neg", lambda x: abs_(-x), lambda x: abs_(x)),
    rule("abs_abs", lambda x: abs_(abs_(x)), lambda x: abs_(x), dtypes="any"),
    rule("abs_square", lambda x: abs_(x * x), lambda x: x * x),
    rule("abs_exp", lambda x: abs_(exp(x)), lambda x: exp(x)),
    rule("abs_sigmoid", lambda x: abs_(sigmoid(x)), lambda x: sigmoid(x)),
    rule("abs_mul_abs", lambda x: abs_(x) * abs_(x), lambda x: x * x),
    rule("cos_neg", lambda x: cos(-x), lambda x: cos(x)),
    rule("cos_abs", lambda x: cos(abs_(x)), lambda x: cos(x)),
    rule("cosh_neg", lambda x: cosh(-x), lambda x: cosh(x)),
    rule("sin_neg", lambda x: sin(-x), lambda x: -sin(x)),
    rule("tan_neg", lambda x: tan(-x), lambda x: -tan(x)),
    rule("sinh_neg", lambda x: sinh(-x), lambda x: -sinh(x)),
    rule("tanh_neg", lambda x: tanh(-x), lambda x: -tanh(x)),
    rule("erf_neg", lambda x: erf(-x), lambda x: -erf(x)),
    # -- idempotent functions --
    rule("floor_floor", lambda x: floor(floor(x)), lambda x: floor(x)),
    rule("floor_ceil", lambda x: floor(ceil(x)), lambda x: ceil(x)),
    rule("floor_round", lambda x: floor(round_(x)), lambda x: round_(x)),
    rule("floor_trunc", lambda x: floor(trunc(x)), lambda x: trunc(x)),
    rule("ceil_floor", lambda x: ceil(floor(x)), lambda x: floor(x)),
    rule("ceil_ceil", lambda x: ceil(ceil(x)), lambda x: ceil(x)),
    rule("ceil_round", lambda x: ceil(round_(x)), lambda x: round_(x)),
    rule("ceil_trunc", lambda x: ceil(trunc(x)), lambda x: trunc(x)),
    rule("round_floor", lambda x: round_(floor(x)), lambda x: floor(x)),
    rule("round_ceil", lambda x: round_(ceil(x)), lambda x: ceil(x)),
    rule("round_round", lambda x: round_(round_(x)), lambda x: round_(x)),
    rule("round_trunc", lambda x: round_(trunc(x)), lambda x: trunc(x)),
    rule("trunc_floor", lambda x: trunc(floor(x)), lambda x: floor(x)),
    rule("trunc_ceil", lambda x: trunc(ceil(x)), lambda x: ceil(x)),
    rule("trunc_round", lambda x: trunc(round_(x)), lambda x: round_(x)),
    rule("trunc_trunc", lambda x: trunc(trunc(x)), lambda x: trunc(x)),
    rule("sign_sign", lambda x: sign(sign(x)), lambda x: sign(x), dtypes="any"),
    rule("relu_relu", lambda x: relu(relu(x)), lambda x: relu(x), dtypes="any"),
    rule("relu_abs", lambda x: relu(abs_(x)), lambda x: abs_(x)),
    rule("relu_exp", lambda x: relu(exp(x)), lambda x: exp(x)),
    rule("relu_sigmoid", lambda x: relu(sigmoid(x)), lambda x: sigmoid(x)),
    rule("relu_softplus", lambda x: relu(softplus(x)), lambda x: softplus(x)),
    # -- maximum and minimum: NaN wins on both sides of the equations --
    rule("maximum_self", lambda x: maximum(x, x), lambda x: x, dtypes="any"),
    rule("minimum_self", lambda x: minimum(x, x), lambda x: x, dtypes="any"),
    rule("maximum_least", lambda x: maximum(x, -math.inf), lambda x: x),
    rule("minimum_greatest", lambda x: minimum(x, math.inf), lambda x: x),
    rule("isnan_neg", lambda x: isnan(-x), lambda x: isnan(x)),
    rule("isnan_abs", lambda x: isnan(abs_(x)), lambda x: isnan(x)),
    rule("isfinite_neg", lambda x: isfinite(-x), lambda x: isfinite(x)),
    rule("isfinite_abs", lambda x: isfinite(abs_(x)), lambda x: isfinite(x)),
    # -- canonical order --
    step("commute", COMMUTING, canonical_order, example=swapped_sum),
]

# After derivatives are built: before that, these nodes tell the derivative what to do.
DERIVED: list[Rule] = [
    rule("stop_gradient", lambda x: stop_gradient(x), lambda x: x, dtypes="any"),
]
