"""Rows that are true of real numbers and not of floats: they run under `fast_math` only."""

from __future__ import annotations

import math

from graphc.ir.node import Node, uniform_value

from ..pattern import exp, log, rsqrt, sqrt
from ..rewrite import Rule, rule
from .reductions import OF_REALS


def has_reciprocal(c: Node) -> bool:
    """Neither the number nor its reciprocal overflows or vanishes."""
    value = uniform_value(c)
    return value is not None and value != 0 and math.isfinite(value) and 2.0**-14 <= abs(value) <= 2.0**14


RULES: list[Rule] = [
    # -- zeros and ones --
    rule("real_add_zero", lambda x: x + 0.0, lambda x: x, exact=False),  # -0.0 + 0.0 is 0.0
    rule("real_mul_zero", lambda x: x * 0.0, lambda x: 0.0, exact=False),  # inf * 0.0 is NaN
    rule("real_zero_div", lambda x: 0.0 / x, lambda x: 0.0, exact=False),
    rule("real_zero_sub", lambda x: 0.0 - x, lambda x: -x, exact=False),
    rule("real_sub_self", lambda x: x - x, lambda x: 0.0, exact=False),
    rule("real_div_self", lambda x: x / x, lambda x: 1.0, exact=False),
    rule("real_neg_sub", lambda x, y: -(x - y), lambda x, y: y - x, exact=False),
    # -- constants that meet --
    rule("real_mul_mul", lambda x, c1, c2: (x * c1) * c2, lambda x, c1, c2: x * (c1 * c2), exact=False),
    rule("real_add_add", lambda x, c1, c2: (x + c1) + c2, lambda x, c1, c2: x + (c1 + c2), exact=False),
    rule("real_sub_add", lambda x, c1, c2: (x - c1) + c2, lambda x, c1, c2: x + (c2 - c1), exact=False),
    rule("real_add_sub", lambda x, c1, c2: (x + c1) - c2, lambda x, c1, c2: x + (c1 - c2), exact=False),
    rule("real_sub_sub", lambda x, c1, c2: (x - c1) - c2, lambda x, c1, c2: x - (c1 + c2), exact=False),
    rule("real_div_constant", lambda x, c: x / c, lambda x, c: x * (1.0 / c), exact=False,
         when=lambda x, c: uniform_value(x) is None and has_reciprocal(c)),
    # -- quotients --
    rule("real_mul_div", lambda x, y: (x * y) / y, lambda x, y: x, exact=False),
    rule("real_div_mul", lambda x, y: (x / y) * y, lambda x, y: x, exact=False),
    rule("real_div_div", lambda x, y, z: (x / y) / z, lambda x, y, z: x / (y * z), exact=False),
    rule("real_div_of_div", lambda x, y, z: x / (y / z), lambda x, y, z: (x * z) / y, exact=False),
    # -- factors --
    rule("real_factor", lambda x, y, z: x * y + x * z, lambda x, y, z: x * (y + z), exact=False),
    rule("real_factor_sub", lambda x, y, z: x * y - x * z, lambda x, y, z: x * (y - z), exact=False),
    # -- powers, roots, exponentials --
    rule("real_pow_three", lambda x: x ** 3.0, lambda x: x * x * x, exact=False),
    rule("real_pow_minus_half", lambda x: x ** -0.5, lambda x: rsqrt(x), exact=False),
    rule("real_pow_minus_two", lambda x: x ** -2.0, lambda x: 1.0 / (x * x), exact=False),
    rule("real_div_sqrt", lambda x, y: x / sqrt(y), lambda x, y: x * rsqrt(y), exact=False),
    rule("real_sqrt_squared", lambda x: sqrt(x) * sqrt(x), lambda x: x, exact=False),
    rule("real_exp_log", lambda x: exp(log(x)), lambda x: x, exact=False),
    rule("real_exp_mul_exp", lambda x, y: exp(x) * exp(y), lambda x, y: exp(x + y), exact=False),
    rule("real_exp_div_exp", lambda x, y: exp(x) / exp(y), lambda x, y: exp(x - y), exact=False),
    *OF_REALS,
]
