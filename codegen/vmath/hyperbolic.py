"""Hyperbolic functions, their inverses, and the cube root."""

from __future__ import annotations

import math

from . import exp_log
from .exp_log import keep_tiny, polynomial
from .real import Pair, Real


def odd_polynomial(m: Real, name: str, x: str) -> str:
    """x + x*z*P(z) with z = x^2."""
    z = m.mul(x, x)
    return m.fma(m.mul(x, z), polynomial(m, name, z), x)


def sinh(m: Real, x: str) -> str:
    size = m.abs(x)
    near = odd_polynomial(m, "sinh", m.at_most(size, 1.0))
    half = exp_log.exp_pair(m, Pair(size, m.real(0.0)), halvings=1)
    far = m.sub(half, m.div(0.25, half))
    result = m.select(m.compare("olt", size, 1.0), near, far)
    return keep_tiny(m, x, m.copysign(result, x), limit=2.0 ** (-m.mantissa / 2 - 2))


def cosh(m: Real, x: str) -> str:
    half = exp_log.exp_pair(m, Pair(m.abs(x), m.real(0.0)), halvings=1)
    return m.add(half, m.div(0.25, half))


def tanh(m: Real, x: str) -> str:
    """E/(E + 2) with E = e^(2|x|) - 1; in double E is carried as a pair."""
    size = m.at_most(m.abs(x), m.choose(10.0, 22.0))
    reduced = exp_log.reduce(m, m.add(size, size))
    power = m.power_of_two(reduced.low_bits)
    total = m.fast_two_sum(m.sub(power, 1.0), m.mul(power, reduced.r))
    rest = m.fma(power, exp_log.expm1_rest(m, reduced), total.low)
    top = m.add(total.high, rest)
    if m.bits == 32:
        result = m.div(top, m.add(top, 2.0))
    else:
        rest = m.sub(rest, m.sub(top, total.high))
        bottom = m.two_sum(2.0, top)
        result = m.add(*m.pair_quotient(Pair(top, rest), Pair(bottom.high, m.add(bottom.low, rest))))
    return keep_tiny(m, x, m.copysign(result, x))


def asinh(m: Real, x: str) -> str:
    """log(|x| + sqrt(x^2 + 1)), the sum as a pair."""
    return m.copysign(_log_with_root(m, x, 1.0), x)


def acosh(m: Real, x: str) -> str:
    """log(x + sqrt(x^2 - 1)), the sum as a pair."""
    result = _log_with_root(m, x, -1.0)
    result = m.select(m.compare("oeq", x, 1.0), 0.0, result)
    return m.select(m.compare("ult", x, 1.0), math.nan, result)


def _log_with_root(m: Real, x: str, constant: float) -> str:
    """log(t + sqrt(t^2 + constant)), t = |x|; beyond a bound the root is t itself, and log(2t) = log(t) + log(2)."""
    size, bound = m.abs(x), m.choose(2.0**30, 2.0**60)
    large = m.compare("ogt", size, bound)
    t = m.at_most(size, bound)
    square = m.two_product(t, t)
    total = m.two_sum(square.high, constant)
    total = m.fast_two_sum(total.high, m.add(total.low, square.low))
    root = m.sqrt(total.high)
    safe = m.select(m.compare("ogt", root, 0.0), root, 1.0)
    error = m.div(m.sub(total.low, m.residual(total.high, root, root)), m.add(safe, safe))
    if constant > 0.0:
        whole = m.two_sum(root, t)
    else:
        whole = m.fast_two_sum(t, root)
    whole = m.fast_two_sum(whole.high, m.add(whole.low, error))
    finite = m.at_most(size, m.largest)
    bounded = Pair(m.select(large, finite, whole.high), m.select(large, 0.0, whole.low))
    result = exp_log.log_positive(m, bounded, raised=m.select(large, 1.0, 0.0))
    result = m.select(m.compare("oeq", size, math.inf), size, result)
    result = m.select(m.is_nan(x), x, result)
    return keep_tiny(m, size, result, limit=2.0 ** (-m.mantissa / 2 - 2)) if constant > 0.0 else result


def atanh(m: Real, x: str) -> str:
    """log((1 + t)/(1 - t))/2 with t = |x|, the quotient as a pair."""
    size = m.abs(x)
    t = m.at_most(size, 1.0 - 2.0 ** (-m.mantissa - 1))
    quotient = m.pair_quotient(m.fast_two_sum(1.0, t), m.fast_two_sum(1.0, m.neg(t)))
    result = m.mul(exp_log.log_positive(m, quotient), 0.5)
    result = m.select(m.compare("oeq", size, 1.0), math.inf, result)
    result = m.select(m.compare("ugt", size, 1.0), math.nan, result)
    return keep_tiny(m, x, m.copysign(result, x), limit=2.0 ** (-m.mantissa / 2 - 2))


def cbrt(m: Real, x: str) -> str:
    """A polynomial on [0.35, 2.83] and Halley's step, two in double; the exponent taken out is a multiple of 3."""
    y, raised = exp_log.normalised(m, m.abs(x))
    parts = exp_log.split(m, Pair(y, ""), raised=raised)
    thirds, low_bits = m.nearest(parts.exponent, 1.0 / 3.0)
    remaining = m.nearest(m.nfma(thirds, 3.0, parts.exponent))[1]
    mantissa = m.mul(m.add(parts.f, 1.0), m.power_of_two(remaining))
    root = polynomial(m, "cbrt", mantissa)
    for _ in range(1 if m.bits == 32 else 2):
        square = m.two_product(root, root)
        cube = m.mul(square.high, root)
        residue = m.sub(m.sub(mantissa, cube), m.fma(square.low, root, m.residual(cube, square.high, root)))
        root = m.fma(root, m.div(residue, m.fma(2.0, cube, mantissa)), root)
    result = m.copysign(m.mul(root, m.power_of_two(low_bits)), x)
    special = m.either(m.compare("ueq", x, 0.0), m.compare("oeq", m.abs(x), math.inf))
    return m.select(special, x, result)
