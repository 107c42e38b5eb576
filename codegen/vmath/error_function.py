"""The error function and its complement."""

from __future__ import annotations

from . import exponential
from .coefficients import POLYNOMIALS
from .exponential import polynomial
from .real import Pair, Real


def erf(m: Real, x: str) -> str:
    """x + x P(x^2) near 0; beyond, 1 - erfc with erfc of just the accuracy that is left to see."""
    size = m.abs(x)
    near = m.fma(x, polynomial(m, "erf_small", m.mul(x, x)), x)
    if m.bits == 32:
        t = m.at_most(size, 4.0)
        complement = exponential.exp(m, m.fma(t, polynomial(m, "erf_log", t), m.neg(t)))
        limit = 0.927734375
    else:
        t = m.at_most(size, 6.0)
        u = m.div(1.0, m.add(t, 1.0))
        complement = m.mul(polynomial(m, "erf_large", u), exponential.exp(m, m.neg(m.mul(t, t))))
        limit = 1.0
    return m.select(m.compare("ogt", size, limit), m.copysign(m.sub(1.0, complement), x), near)


def erfc(m: Real, x: str) -> str:
    """1 - erf(x) up to 0.47; else e^(-x^2) erfcx(x), and 2 minus that for negative x."""
    size = m.abs(x)
    near = m.sub(1.0, m.fma(x, polynomial(m, "erf_small", m.mul(x, x)), x))
    t = m.at_least(m.at_most(size, 28.0), 0.4)
    q = m.div(m.sub(t, 4.0), m.add(t, 4.0))
    first, *others = POLYNOMIALS["erfcx"][m.bits == 64]
    top = m.fast_two_sum(first, m.mul(q, m.polynomial(q, others)))
    scaled = m.pair_quotient(top, m.two_sum(m.add(t, t), 1.0))
    square = m.two_product(t, t)
    far = _times_exp(m, scaled, Pair(m.neg(square.high), m.neg(square.low)))
    positive = m.select(m.compare("olt", x, 0.0), m.sub(2.0, far), far)
    result = m.select(m.compare("olt", size, 0.47), near, positive)
    return m.select(m.compare("uno", x, 0.0), x, result)


def _times_exp(m: Real, factor: Pair, exponent: Pair) -> str:
    """factor * e^exponent with one rounding at the end, for an exponent in -800..0."""
    bound = exponential.by_width(m, exponential.UNDERFLOW) - 20.0
    clamped = m.at_least(exponent.high, bound)
    reduced = exponential.reduce(m, clamped, low=exponent.low)
    q = exponential.expm1_reduced(m, reduced)
    product = m.add(factor.high, m.fma(factor.high, q, factor.low))
    return m.scale(product, reduced.n, reduced.low_bits)
