"""Forms that lose digits, overflow or make NaN, replaced by forms that do not.

`stability` gives for each variable the range on which the error must come out lower; outside it the two sides agree to
rounding.  These rows serve before differentiation, where the derivative of the better form is better too, and after it.

    shift     exp of something with no greatest element taken out: the greatest element is subtracted first
    guard     a product with what `where` set to zero: selected after the product, for 0 * inf is NaN
"""

from __future__ import annotations

import math

from graphc.ir import build
from graphc.ir.node import Node, make, uniform_value

from ..pattern import (Apply, Operand, abs_, cos, cosh, eq, erf, erfc, exp, expm1, gt, isfinite, log, log1p, lt, max_,
                       maximum, minimum, sigmoid, sin, sinh, softplus, spread, sqrt, stop_gradient, sum_, tanh, where)
from ..rewrite import Rule, rule, step
from .identities import leaves

LOG_HALF = -math.log(2.0)
MOVING = ("gather", "slice", "reshape", "transpose", "broadcast")


# -- conditions --
def is_reduced(x: Node, op: str) -> bool:
    """A broadcast of a reduction of this kind, perhaps guarded."""
    if x.op.name != "broadcast":
        return False
    pending = [x.operands[0]]
    while pending:
        node = pending.pop()
        if node.op.name == op:
            return True
        pending += node.operands if node.op.name in ("where", "stop_gradient", "reshape", "broadcast") else ()
    return False


def is_shifted(x: Node) -> bool:
    """Something with its greatest element taken away."""
    return x.op.name == "sub" and is_reduced(x.operands[1], "max")


def is_scaled(x: Node) -> bool:
    return x.op.name == "div" and is_reduced(x.operands[1], "max")


def is_log_half(x: Node) -> bool:
    value = uniform_value(x)
    return value is not None and abs(value - LOG_HALF) < 0.01


def is_split(x: Node) -> bool:
    """One side of the choice that `log_one_minus_exp` makes."""
    return x.op.name in ("maximum", "minimum") and is_log_half(x.operands[1])


def counts(x: Node, axes: tuple[int, ...], c: Node) -> bool:
    """Whether c is the number of elements along these axes of x."""
    number = 1
    for axis in axes:
        size = x.shape[axis]
        if not isinstance(size, int):
            return False
        number *= size
    return uniform_value(c) == number


def inverts(x: Node, axes: tuple[int, ...], c: Node) -> bool:
    """Whether c is one over the number of elements along these axes of x, without rounding."""
    value = uniform_value(c)
    return bool(value) and math.frexp(value)[0] == 0.5 and counts(x, axes, build.full_like(c, 1 / value))  # type: ignore[operator,arg-type]


# -- right sides --
def peak(x: Operand, axes: object) -> Apply:
    """The greatest element if it is finite, else 0; a constant for derivatives, in which it cancels."""
    top = stop_gradient(max_(x, axes))
    return where(isfinite(top), top, 0.0)


def shifted_softmax(x: Operand, axes: object) -> Apply:
    e = exp(x - spread(peak(x, axes), axes, x))
    return e / spread(sum_(e, axes), axes, x)


def log_sum_exp(x: Operand, axes: object) -> Apply:
    top = peak(x, axes)
    return top + log(sum_(exp(x - spread(top, axes, x)), axes))


def log_one_minus_exp(x: Operand) -> Apply:
    """log(1 - exp(x)) for x < 0: each form on its good side, and split so that no derivative sees the other side."""
    near = log(-expm1(maximum(x, LOG_HALF)))
    far = log1p(-exp(minimum(x, LOG_HALF)))
    return where(lt(LOG_HALF, x), near, far)


def scaled_unit(x: Operand, axes: object) -> Apply:
    """x over its Euclidean norm, divided by the greatest magnitude before anything is squared."""
    top = stop_gradient(max_(abs_(x), axes))
    size = where(gt(top, 0.0), where(isfinite(top), top, 1.0), 1.0)
    y = x / spread(size, axes, x)
    return y / spread(sqrt(sum_(y * y, axes)), axes, x)


def centred(x: Operand, c: Operand, axes: object) -> Apply:
    """The mean square of what differs from the mean."""
    d = x - spread(sum_(x, axes) / c, axes, x)
    return sum_(d * d, axes) / c


# -- steps --
def log_of_moved(node: Node) -> Node | None:
    """log of some elements of a softmax or a sigmoid: the logarithm is taken before they are picked."""
    inner = node.operands[0]
    within = log_of_probability(inner.operands[0]) if inner.op.name in MOVING else None
    if within is None:
        return None
    return make(inner.op.name, (within, *inner.operands[1:]), graph=node.graph, **inner.attrs)


def log_of_probability(x: Node) -> Node | None:
    if x.op.name == "sigmoid":
        return build.elementwise("neg", build.elementwise("softplus", build.elementwise("neg", x.operands[0])))
    if x.op.name == "div" and x.operands[0].op.name == "exp" and is_reduced(x.operands[1], "sum"):
        return build.elementwise("sub", x.operands[0].operands[0], build.elementwise("log", x.operands[1]))
    return None


def picked_sigmoid(dtype: str) -> Node:
    x, = leaves(dtype, 1)
    moved = make("slice", (build.elementwise("sigmoid", x),), starts=(0, 1), steps=(1, 1), shape=(3, 2))
    return make("log", (moved,))


def quarters(dtype: str) -> Node:
    x, = leaves(dtype, 1)
    squares, total = (build.reduce_sum(y, (1,)) for y in (build.elementwise("mul", x, x), x))
    mean = build.elementwise("mul", total, 0.25)
    return build.elementwise("sub", build.elementwise("mul", squares, 0.25), build.elementwise("mul", mean, mean))


RULES: list[Rule] = [
    # -- log and exp near 1 and 0; operands come first, so 1 - exp(x) is -expm1(x) when its log is looked at --
    rule("softplus", lambda x: log(1.0 + exp(x)), lambda x: softplus(x), stability={"x": (-60.0, 1000.0)}),
    rule("softplus_log1p", lambda x: log1p(exp(x)), lambda x: softplus(x), stability={"x": (700.0, 1000.0)}),
    rule("log_add_exp", lambda x, y: log(exp(x) + exp(y)),
         lambda x, y: maximum(x, y) + softplus(-abs_(where(eq(x, y), 0.0, x - y))),
         stability={"x": (700.0, 1000.0), "y": (700.0, 1000.0)}),
    rule("log_one_minus_exp", lambda x: log(-expm1(x)), lambda x: log_one_minus_exp(x),
         when=lambda x: not is_split(x), stability={"x": (-60.0, -30.0)}),
    rule("log_sigmoid", lambda x: log(sigmoid(x)), lambda x: -softplus(-x), stability={"x": (-1000.0, -80.0)}),
    rule("log_exp", lambda x: log(exp(x)), lambda x: x, stability={"x": (-1000.0, 1000.0)}),
    rule("log1p_expm1", lambda x: log1p(expm1(x)), lambda x: x, stability={"x": (-1000.0, 1000.0)}),
    rule("log1p", lambda x: log(1.0 + x), lambda x: log1p(x), stability={"x": (-1e-3, 1e-3)}),
    rule("log1p_sub", lambda x: log(1.0 - x), lambda x: log1p(-x), stability={"x": (-1e-3, 1e-3)}),
    rule("expm1", lambda x: exp(x) - 1.0, lambda x: expm1(x), stability={"x": (-1e-3, 1e-3)}),
    rule("expm1_add", lambda x: exp(x) + -1.0, lambda x: expm1(x), stability={"x": (-1e-3, 1e-3)}),
    rule("one_minus_exp", lambda x: 1.0 - exp(x), lambda x: -expm1(x), stability={"x": (-1e-3, 1e-3)}),
    # -- sigmoid and its kin --
    rule("sigmoid", lambda x: 1.0 / (1.0 + exp(-x)), lambda x: sigmoid(x), stability={"x": (-100.0, -80.0)}),
    rule("sigmoid_of_neg", lambda x: 1.0 / (1.0 + exp(x)), lambda x: sigmoid(-x), stability={"x": (80.0, 100.0)}),
    rule("sigmoid_quotient", lambda x: exp(x) / (1.0 + exp(x)), lambda x: sigmoid(x), stability={"x": (80.0, 1000.0)}),
    rule("one_minus_sigmoid", lambda x: 1.0 - sigmoid(x), lambda x: sigmoid(-x), stability={"x": (5.0, 80.0)}),
    rule("tanh_quotient", lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)), lambda x: tanh(x),
         stability={"x": (-1e-3, 1e-3)}),
    rule("sinh_half", lambda x: (exp(x) - exp(-x)) * 0.5, lambda x: sinh(x), stability={"x": (-1e-3, 1e-3)}),
    rule("cosh_half", lambda x: (exp(x) + exp(-x)) * 0.5, lambda x: cosh(x), stability={"x": (88.8, 89.3)}),
    rule("erfc", lambda x: 1.0 - erf(x), lambda x: erfc(x), stability={"x": (2.0, 5.0)}),
    rule("erf", lambda x: 1.0 - erfc(x), lambda x: erf(x), stability={"x": (-1e-3, 1e-3)}),
    rule("versine", lambda x: 1.0 - cos(x), lambda x: sin(x * 0.5) * sin(x * 0.5) * 2.0,
         stability={"x": (-1e-2, 1e-2)}),
    # -- roots of squares --
    rule("sqrt_square", lambda x: sqrt(x * x), lambda x: abs_(x), stability={"x": (1e30, 1e38)}),
    rule("unit_vector", lambda x, A: x / spread(sqrt(sum_(x * x, A)), A, x), lambda x, A: scaled_unit(x, A),
         when=lambda x: not is_scaled(x), stability={"x": (1e22, 1e38)}),
    # -- softmax --
    rule("log_softmax", lambda x, A: log(exp(x) / spread(sum_(exp(x), A), A, x)),
         lambda x, A: x - spread(log(sum_(exp(x), A)), A, x), stability={"x": (-85.0, 85.0)}),
    rule("softmax", lambda x, A: exp(x) / spread(sum_(exp(x), A), A, x), lambda x, A: shifted_softmax(x, A),
         when=lambda x: not is_shifted(x), stability={"x": (700.0, 1000.0)}),
    rule("logsumexp", lambda x, A: log(sum_(exp(x), A)), lambda x, A: log_sum_exp(x, A),
         when=lambda x: not is_shifted(x), stability={"x": (700.0, 1000.0)}),
    step("log_of_moved", ("log",), log_of_moved, example=picked_sigmoid, dtypes="float",
         stability={"x0": (-1000.0, -900.0)}),
    # -- variance as a difference of large numbers --
    rule("variance", lambda x, c, A: sum_(x * x, A) / c - (sum_(x, A) / c) * (sum_(x, A) / c),
         lambda x, c, A: centred(x, c, A), when=lambda x, c, A: counts(x, A, c), stability={"x": (1e4, 1.001e4)}),
    rule("variance_by_product", lambda x, c, A: sum_(x * x, A) * c - (sum_(x, A) * c) * (sum_(x, A) * c),
         lambda x, c, A: centred(x, 1.0 / c, A), when=lambda x, c, A: inverts(x, A, c),
         stability={"x0": (1e4, 1.001e4)}, example=quarters),
    # -- guards --
    rule("guard_mul", lambda p, x, y: where(p, x, 0.0) * y, lambda p, x, y: where(p, x * y, 0.0),
         stability={"y": (math.inf, math.inf)}),
    rule("guard_mul_else", lambda p, x, y: where(p, 0.0, x) * y, lambda p, x, y: where(p, 0.0, x * y),
         stability={"y": (math.inf, math.inf)}),
    rule("guard_div", lambda p, x, y: where(p, x, 0.0) / y, lambda p, x, y: where(p, x / y, 0.0),
         stability={"y": (0.0, 0.0)}),
    rule("guard_div_else", lambda p, x, y: where(p, 0.0, x) / y, lambda p, x, y: where(p, 0.0, x / y),
         stability={"y": (0.0, 0.0)}),
]
