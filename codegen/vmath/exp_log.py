"""Exponentials, logarithms and powers: exp, exp2, expm1, log, log2, log10, log1p, pow, sigmoid, softplus.

exp(x) = 2^n e^r with r = x - n log 2 in [-0.35, 0.35].  log(x) = n log 2 + log(m) with m in [0.71, 1.41].  Logarithms
of sums are taken of a `Pair`, so that log1p and the inverse hyperbolic functions share one core.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .coefficients import POLYNOMIALS
from .real import Operand, Pair, Real

# log 2 with trailing zero bits in the first part, so that n * LOG2_HIGH is exact: (single, double).
LOG2_HIGH = (0.693145751953125, 6.93147180369123816490e-01)
LOG2_LOW = (1.42860682030941723212e-6, 1.90821492927058770002e-10)
LOG2_PAIR = (0.6931471805599453, 2.3190468138462996e-17)  # to twice the precision of a double
# 1/log 2 and 1/log 10 as pairs, single and double.
INVERSE_LOG2 = ((1.4426950216293335, 1.9259629911266175e-08), (1.4426950408889634, 2.0355273740931033e-17))
INVERSE_LOG10 = ((0.4342944920063019, -1.0103050052231683e-08), (0.4342944819032518, 1.098319650216765e-17))
# log10(2) with room for the exponent in the first part.
LOG10_2 = ((0.301025390625, 4.605038981195214e-06), (0.30102999566383914, 1.42050232272661e-13))

OVERFLOW = (89.0, 710.0)
UNDERFLOW = (-104.0, -746.0)


class Reduced(NamedTuple):
    """x = n log 2 + r + tail."""

    n: str
    low_bits: str
    r: str
    tail: str


def polynomial(m: Real, name: str, x: str) -> str:
    return m.polynomial(x, POLYNOMIALS[name][m.bits == 64])


def by_width(m: Real, pair: tuple[float, float]) -> float:
    return pair[m.bits == 64]


def reduce(m: Real, x: str, *, low: str | None = None) -> Reduced:
    """`low`, when given, is added to x.  The tail is what rounding r lost."""
    n, low_bits = m.nearest(x, 1 / math.log(2))
    high = m.nfma(n, by_width(m, LOG2_HIGH), x)
    part = m.mul(n, by_width(m, LOG2_LOW))
    if low is not None:
        part = m.sub(part, low)
    r = m.sub(high, part)
    return Reduced(n, low_bits, r, m.sub(m.sub(high, r), part))


def expm1_reduced(m: Real, reduced: Reduced) -> str:
    """e^(r + tail) - 1."""
    r = reduced.r
    return m.add(r, expm1_rest(m, reduced))


def expm1_rest(m: Real, reduced: Reduced) -> str:
    """e^(r + tail) - 1 - r."""
    square = m.mul(reduced.r, reduced.r)
    return m.fma(square, polynomial(m, "exp", reduced.r), m.fma(reduced.r, reduced.tail, reduced.tail))


def exp(m: Real, x: str) -> str:
    clamped = m.at_least(m.at_most(x, by_width(m, OVERFLOW)), by_width(m, UNDERFLOW))
    n, low_bits = m.nearest(clamped, 1 / math.log(2))
    r = m.nfma(n, by_width(m, LOG2_LOW), m.nfma(n, by_width(m, LOG2_HIGH), clamped))
    q = m.fma(m.mul(r, r), polynomial(m, "exp", r), r)
    return m.scale(m.add(q, 1.0), n, low_bits)


def exp_pair(m: Real, x: Pair, *, halvings: int = 0) -> str:
    """e^(high + low) / 2^halvings; the low part must be finite."""
    clamped = m.at_least(m.at_most(x.high, by_width(m, OVERFLOW) + 1), by_width(m, UNDERFLOW) - 1)
    reduced = reduce(m, clamped, low=x.low)
    q = expm1_reduced(m, reduced)
    n, low_bits = reduced.n, reduced.low_bits
    if halvings:
        n, low_bits = m.sub(n, float(halvings)), m.bit("sub", low_bits, halvings)
    return m.scale(m.add(q, 1.0), n, low_bits)


def exp2(m: Real, x: str) -> str:
    limit = float(m.bias + 1)
    clamped = m.at_least(m.at_most(x, limit), -limit - m.mantissa)
    n, low_bits = m.nearest(clamped)
    r = m.sub(clamped, n)
    return m.scale(m.fma(r, polynomial(m, "exp2", r), 1.0), n, low_bits)


def expm1(m: Real, x: str) -> str:
    """2^n (q + 1) - 1 with half of 2^n, which does not overflow where the result does not."""
    clamped = m.at_least(m.at_most(x, by_width(m, OVERFLOW)), -40.0)
    reduced = reduce(m, clamped)
    half = m.power_of_two(m.bit("sub", reduced.low_bits, 1))
    result = m.fma(half, expm1_reduced(m, reduced), m.sub(half, 0.5))
    return keep_tiny(m, x, m.add(result, result))


def keep_tiny(m: Real, x: str, result: str, *, limit: float | None = None) -> str:
    """x itself where it is so small that f(x) rounds to x: keeps -0 and subnormals."""
    small = m.compare("olt", m.abs(x), limit or 2.0 ** -(m.mantissa + 2))
    return m.select(small, x, result)


# -- logarithms --

class Split(NamedTuple):
    """high + low = 2^exponent (1 + f)."""

    exponent: str
    f: str


def split(m: Real, x: Pair, *, raised: str | None = None) -> Split:
    """Exponent and fraction of a positive normal number; `raised` is added to the exponent."""
    whole = m.bit("sub", m.to_bits(x.high), SQRT_HALF_BITS[m.bits == 64])
    exponent = m.bit("ashr", whole, m.mantissa)
    fraction = m.sub(m.from_bits(m.bit("sub", m.to_bits(x.high), m.bit("shl", exponent, m.mantissa))), 1.0)
    if x.low:
        # The low part matters only where the high part is not huge; the bound keeps 2^-exponent normal.
        bounded = m.bit_select(m.bit_compare("sgt", exponent, m.bias - 2), m.bias - 2, exponent)
        fraction = m.add(fraction, m.mul(x.low, m.power_of_two(m.bit("sub", 0, bounded))))
    number = m.from_integer(exponent)
    return Split(m.add(number, raised) if raised else number, fraction)


SQRT_HALF_BITS = (0x3F3504F3, 0x3FE6A09E667F3BCD)


def normalised(m: Real, x: str) -> Pair:
    """(y, e) with x = y 2^e and y normal: subnormal numbers are scaled up."""
    tiny = m.compare("olt", x, m.smallest_normal)
    shift = m.mantissa + 2
    return Pair(m.select(tiny, m.mul(x, 2.0**shift), x), m.select(tiny, float(-shift), 0.0))


def log_core(m: Real, parts: Split) -> str:
    e, f = parts
    square = m.mul(f, f)
    if m.bits == 32:
        tail = m.fma(m.mul(square, f), polynomial(m, "log_single", f), m.mul(square, -0.5))
        return m.fma(e, LOG2_HIGH[0], m.add(m.fma(e, LOG2_LOW[0], tail), f))
    half = m.mul(square, 0.5)
    s, rest = atanh_series(m, f)
    tail = m.fma(s, m.add(half, rest), m.mul(e, LOG2_LOW[1]))
    return m.sub(m.mul(e, LOG2_HIGH[1]), m.sub(m.sub(half, tail), f))


def atanh_series(m: Real, f: str) -> tuple[str, str]:
    """s = f/(2+f) and R with log(1+f) = f - s(f - R), that is f - (h - s(h + R)) with h = f^2/2."""
    s = m.div(f, m.add(f, 2.0))
    z = m.mul(s, s)
    return s, m.mul(z, polynomial(m, "log_double", z))


def log_fraction(m: Real, f: str) -> Pair:
    """log(1 + f) as a pair with a few bits more than the format."""
    half = m.mul(m.mul(f, f), 0.5)
    half_error = m.mul(m.residual(m.add(half, half), f, f), 0.5)
    if m.bits == 32:
        tail = m.mul(m.mul(m.mul(f, f), f), polynomial(m, "log_single", f))
    else:
        s, rest = atanh_series(m, f)
        tail = m.mul(s, m.add(half, rest))
    high, low = m.fast_two_sum(f, m.neg(half))
    return m.fast_two_sum(high, m.add(low, m.sub(tail, half_error)))


def log_special(m: Real, x: str, result: str) -> str:
    """The logarithm's values at infinity, zero and below."""
    result = m.select(m.compare("oeq", x, math.inf), x, result)
    result = m.select(m.compare("oeq", x, 0.0), -math.inf, result)
    return m.select(m.compare("ult", x, 0.0), math.nan, result)


def log(m: Real, x: str) -> str:
    y, raised = normalised(m, x)
    return log_special(m, x, log_core(m, split(m, Pair(y, ""), raised=raised)))


def log_positive(m: Real, x: Pair, *, raised: str | None = None) -> str:
    """Logarithm of a positive, finite, normal pair, plus `raised` times log 2."""
    return log_core(m, split(m, x, raised=raised))


def log2(m: Real, x: str) -> str:
    return _log_of_base(m, x, INVERSE_LOG2, ((1.0, 0.0), (1.0, 0.0)))


def log10(m: Real, x: str) -> str:
    return _log_of_base(m, x, INVERSE_LOG10, LOG10_2)


BasePair = tuple[tuple[float, float], tuple[float, float]]


def _log_of_base(m: Real, x: str, inverse: BasePair, of_two: BasePair) -> str:
    """e log_b(2) + log(1 + f)/log(b), summed as pairs: exact where the answer is a whole number."""
    y, raised = normalised(m, x)
    e, f = split(m, Pair(y, ""), raised=raised)
    double = m.bits == 64
    scaled = m.pair_product(log_fraction(m, f), m.pair_constant(*inverse[double]))
    high, low = of_two[double]
    total, error = m.fast_two_sum(m.mul(e, high), scaled.high)
    rest = m.add(error, m.fma(e, low, scaled.low) if low else scaled.low)
    return log_special(m, x, m.add(total, rest))


def log1p(m: Real, x: str) -> str:
    total = m.two_sum(1.0, m.at_most(x, m.largest))
    result = log_positive(m, total)
    result = m.select(m.compare("oeq", x, math.inf), x, result)
    result = m.select(m.compare("oeq", x, -1.0), -math.inf, result)
    result = m.select(m.compare("ult", x, -1.0), math.nan, result)
    return keep_tiny(m, x, result)


def log_pair(m: Real, x: str) -> Pair:
    """log(x) to about 2^-65 for positive finite doubles, subnormal ones too."""
    y, raised = normalised(m, x)
    e, f = split(m, Pair(y, ""), raised=raised)
    s = m.pair_quotient(Pair(f, m.real(0.0)), m.two_sum(2.0, f))
    z = m.pair_product(s, s)
    cube = m.pair_product(z, s)
    third = m.pair_product(cube, m.pair_constant(0.6666666666666666, 3.700743415417188e-17))
    tail = m.mul(m.mul(cube.high, z.high), polynomial(m, "log_pair", z.high))
    twice = Pair(m.add(s.high, s.high), m.add(s.low, s.low))
    fraction = m.pair_sum(twice, Pair(third.high, m.add(third.low, tail)))
    log2_e = m.two_product(e, LOG2_PAIR[0])
    return m.pair_sum(Pair(log2_e.high, m.fma(e, LOG2_PAIR[1], log2_e.low)), fraction)


# -- functions made of both --

def sigmoid(m: Real, x: str) -> str:
    """1/(1 + e) or e/(1 + e) with e = exp(-|x|), which cannot overflow; in double 1 + e and the quotient are pairs."""
    e = exp(m, m.neg(m.abs(x)))
    top = m.select(m.compare("olt", x, 0.0), e, 1.0)
    if m.bits == 32:
        return m.div(top, m.add(e, 1.0))
    return m.add(*m.pair_quotient(Pair(top, m.real(0.0)), m.fast_two_sum(1.0, e)))


def softplus(m: Real, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|))."""
    e = exp(m, m.neg(m.abs(x)))
    tail = keep_tiny(m, e, log_positive(m, m.fast_two_sum(1.0, e)))
    return m.add(m.select(m.compare("olt", x, 0.0), 0.0, x), tail)


def pow(m: Real, x: str, y: str) -> str:
    """x^y with all the special cases of C99."""
    result = _pow_through_double(m, x, y) if m.bits == 32 else _pow_by_pair(m, x, y)
    return _pow_special(m, x, y, result)


def _pow_through_double(m: Real, x: str, y: str) -> str:
    """|x|^y in single precision: a double has the digits that the logarithm needs, and no float is subnormal in it."""
    wide = Real(m.lanes, 64)
    base, power = (m.lanes.convert("fpext", "float", operand, "double") for operand in (m.abs(x), y))
    product = wide.mul(log_core(wide, split(wide, Pair(base, ""))), power)
    return m.lanes.convert("fptrunc", "double", exp(wide, product), "float")


def _pow_by_pair(m: Real, x: str, y: str) -> str:
    """|x|^y with the logarithm as a pair: its error is multiplied by up to 745."""
    log_x = log_pair(m, m.abs(x))
    bounded = m.at_least(m.at_most(y, 2.0**100), -(2.0**100))  # the least logarithm is 2^-53
    product = m.two_product(log_x.high, bounded)
    low = m.fma(log_x.low, bounded, product.low)
    return exp_pair(m, Pair(product.high, m.select(m.compare("olt", m.abs(product.high), 800.0), low, 0.0)))


def _pow_special(m: Real, x: str, y: str, result: str) -> str:
    magnitude, size = m.abs(x), m.abs(y)
    whole = m.compare("oeq", m.intrinsic("trunc", y), y)
    half = m.mul(y, 0.5)
    odd = m.both(whole, m.compare("one", m.intrinsic("trunc", half), half))
    negative = m.bit_compare("slt", m.to_bits(x), 0)
    upward = m.compare("ogt", y, 0.0)
    # |x|^y at 0 and infinity, then at infinite y.
    endless: Operand = m.select(upward, math.inf, 0.0)
    vanishing = m.select(upward, 0.0, math.inf)
    result = m.select(m.compare("oeq", magnitude, 0.0), vanishing, result)
    result = m.select(m.compare("oeq", magnitude, math.inf), endless, result)
    at_infinity = m.select(m.compare("ogt", magnitude, 1.0), endless, vanishing)
    at_infinity = m.select(m.compare("oeq", magnitude, 1.0), 1.0, at_infinity)
    result = m.select(m.compare("oeq", size, math.inf), at_infinity, result)
    # The sign of odd powers; a negative base has no other power but whole ones.
    result = m.select(m.both(negative, odd), m.neg(result), result)
    finite_negative = m.both(m.compare("olt", x, 0.0), m.compare("one", magnitude, math.inf))
    fraction = m.compare("one", m.intrinsic("trunc", y), y)
    result = m.select(m.both(finite_negative, fraction), math.nan, result)
    result = m.select(m.compare("uno", x, y), m.add(x, y), result)
    return m.select(m.either(m.compare("oeq", x, 1.0), m.compare("oeq", y, 0.0)), 1.0, result)
