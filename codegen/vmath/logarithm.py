"""Logarithms: log, log2, log10, log1p, of pairs, and softplus.

log(x) = n log 2 + log(m).  With AVX-512, m lies in [3/4, 3/2), r = m c - 1 with c from a table in registers is small;
the instructions give 0, infinity and negative numbers their logarithms too.  Elsewhere m lies in [0.71, 1.41] and its
logarithm is a polynomial (single) or a series of f/(2 + f) (double), f = m - 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from . import avx512
from .coefficients import LOGARITHMS, LOGARITHMS_LOW, POLYNOMIALS
from .exponential import LOG2_HIGH, LOG2_LOW, decay, keep_tiny, polynomial
from .real import Pair, Real

LOG2_PAIR = (0.6931471805599453, 2.3190468138462996e-17)  # to twice the precision of a double
# 1/log 2 and 1/log 10 as pairs, single and double.
INVERSE_LOG2 = ((1.4426950216293335, 1.9259629911266175e-08), (1.4426950408889634, 2.0355273740931033e-17))
INVERSE_LOG10 = ((0.4342944920063019, -1.0103050052231683e-08), (0.4342944819032518, 1.098319650216765e-17))
# log10(2) with room for the exponent in the first part.
LOG10_2 = ((0.301025390625, 4.605038981195214e-06), (0.30102999566383914, 1.42050232272661e-13))


BasePair = tuple[tuple[float, float], tuple[float, float]]


class Base(NamedTuple):
    """log_b(2) and 1/log(b) as pairs, (single, double); `number` 0 is e."""

    number: int
    of_two: BasePair
    inverse: BasePair


BASE_E = Base(0, ((LOG2_HIGH[0], LOG2_LOW[0]), (LOG2_HIGH[1], LOG2_LOW[1])), ((1.0, 0.0), (1.0, 0.0)))
BASE_2 = Base(2, ((1.0, 0.0), (1.0, 0.0)), INVERSE_LOG2)
BASE_10 = Base(10, LOG10_2, INVERSE_LOG10)


# -- with tables --

def parted(m: Real, x: str, sign: int, base: Base) -> tuple[str, str, str]:
    """x = 2^e fraction, and the fraction's place in the tables; the fraction is in [1, 2) or in [3/4, 3/2)."""
    interval = avx512.FROM_ONE if base.number == 2 else avx512.AROUND_ONE
    fraction = avx512.significand(m.lanes, m.kind, x, interval, sign)
    e = avx512.exponent(m.lanes, m.kind, x)
    if base.number != 2:
        e = m.sub(e, avx512.exponent(m.lanes, m.kind, fraction))
    return e, fraction, m.bit("lshr", m.to_bits(fraction), 48 if m.bits == 64 else 18)


def tabled(m: Real, x: Pair, base: Base = BASE_E, *, raised: str | None = None) -> str:
    """log_b(x.high + x.low) + raised log_b(2): -inf of 0, NaN of negative numbers.  `x.low` may be empty."""
    double = m.bits == 64
    inverses, logarithms = LOGARITHMS[base.number, m.bits]
    e, fraction, index = parted(m, x.high, avx512.NAN_IF_NEGATIVE, base)
    c = avx512.lookup(m.lanes, m.kind, inverses, index)
    r = m.fma(fraction, c, -1.0)
    if x.low:
        usual = m.compare("one", m.mul(x.high, 0.5), x.high)  # neither 0 nor infinite, whose low parts mean nothing
        r = m.fma(c, m.select(usual, avx512.scale(m.lanes, m.kind, x.low, m.neg(e)), 0.0), r)
    if raised:
        e = m.add(e, raised)
    (two, two_low), (factor, factor_low) = base.of_two[double], base.inverse[double]
    table = avx512.lookup(m.lanes, m.kind, logarithms, index)
    high = m.add(e, table) if two == 1.0 else m.fma(e, two, table)
    name = f"log{base.number}_{'table' if double else 'single'}"
    square = m.mul(r, r)
    rest = m.fma(square, polynomial(m, name, r), m.mul(e, two_low)) if two_low else m.mul(square, polynomial(
        m, name, r))
    if base.number:
        return m.add(high, m.fma(r, factor, m.fma(r, factor_low, rest)))
    return m.add(high, m.add(r, rest))


# -- without --

class Split(NamedTuple):
    """high + low = 2^exponent (1 + f)."""

    exponent: str
    f: str


SQRT_HALF_BITS = (0x3F3504F3, 0x3FE6A09E667F3BCD)


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
    if m.has_avx512:
        return tabled(m, Pair(x, ""))
    y, raised = normalised(m, x)
    return log_special(m, x, log_core(m, split(m, Pair(y, ""), raised=raised)))


def log_positive(m: Real, x: Pair, *, raised: str | None = None) -> str:
    """Logarithm of a positive, finite, normal pair, plus `raised` times log 2."""
    return tabled(m, x, raised=raised) if m.has_avx512 else log_core(m, split(m, x, raised=raised))


def log2(m: Real, x: str) -> str:
    return _log_of_base(m, x, BASE_2)


def log10(m: Real, x: str) -> str:
    return _log_of_base(m, x, BASE_10)


def _log_of_base(m: Real, x: str, base: Base) -> str:
    """e log_b(2) + log(1 + f)/log(b), summed as pairs: exact where the answer is a whole number."""
    if m.has_avx512:
        return tabled(m, Pair(x, ""), base)
    y, raised = normalised(m, x)
    e, f = split(m, Pair(y, ""), raised=raised)
    double = m.bits == 64
    scaled = m.pair_product(log_fraction(m, f), m.pair_constant(*base.inverse[double]))
    high, low = base.of_two[double]
    total, error = m.fast_two_sum(m.mul(e, high), scaled.high)
    rest = m.add(error, m.fma(e, low, scaled.low) if low else scaled.low)
    return log_special(m, x, m.add(total, rest))


def log1p(m: Real, x: str) -> str:
    if m.has_avx512:
        return m.copysign(tabled(m, m.two_sum(1.0, x)), x)
    total = m.two_sum(1.0, m.at_most(x, m.largest))
    result = log_positive(m, total)
    result = m.select(m.compare("oeq", x, math.inf), x, result)
    result = m.select(m.compare("oeq", x, -1.0), -math.inf, result)
    result = m.select(m.compare("ult", x, -1.0), math.nan, result)
    return keep_tiny(m, x, result)


def log_pair_tabled(m: Real, x: str) -> Pair:
    """log|x| to about 2^-62; the sum of r, -r^2/2 and smaller terms, each with what rounding lost of it."""
    e, fraction, index = parted(m, x, avx512.WITHOUT_SIGN, BASE_E)
    inverses, logarithms = LOGARITHMS[0, 64]
    c, table, table_low = (avx512.lookup(m.lanes, m.kind, t, index) for t in (inverses, logarithms, LOGARITHMS_LOW))
    product, r_low = m.two_product(fraction, c)
    r = m.sub(product, 1.0)
    first = m.fast_two_sum(m.fma(e, LOG2_HIGH[1], table), r)
    square = m.two_product(r, m.mul(r, -0.5))
    second = m.fast_two_sum(first.high, square.high)
    # The third power as a pair too: where x is near 1 and the power large, it counts.
    third, *others = POLYNOMIALS["log_power"][1]
    cube = m.two_product(square.high, r)
    leading = m.two_product(cube.high, third)
    tail = m.fma(m.fma(square.low, r, cube.low), third, leading.low)
    tail = m.fma(m.mul(cube.high, r), m.polynomial(r, others), tail)
    rest = m.add(m.fma(e, LOG2_LOW[1], table_low), m.add(first.low, m.add(second.low, square.low)))
    rest = m.add(m.add(rest, m.nfma(r, m.nfma(r, r_low, r_low), r_low)), m.add(tail, leading.high))
    finite = m.compare("olt", m.abs(e), 2.0 * m.bias)  # of 0 and infinity the sums have no low parts
    return m.fast_two_sum(second.high, m.select(finite, rest, 0.0))


def log_pair(m: Real, x: str) -> Pair:
    """log(x) to about 2^-65 for positive finite doubles, subnormal ones too."""
    if m.has_avx512:
        return log_pair_tabled(m, x)
    y, raised = normalised(m, x)
    e, f = split(m, Pair(y, ""), raised=raised)
    s = m.pair_quotient(Pair(f, m.real(0.0)), m.two_sum(2.0, f))
    z = m.pair_product(s, s)
    cube = m.pair_product(z, s)
    third = m.pair_product(cube, m.pair_constant(0.6666666666666666, 3.700743415417188e-17))
    tail = m.mul(m.mul(cube.high, z.high), m.polynomial(z.high, POLYNOMIALS["log_pair"][1]))
    twice = Pair(m.add(s.high, s.high), m.add(s.low, s.low))
    fraction = m.pair_sum(twice, Pair(third.high, m.add(third.low, tail)))
    log2_e = m.two_product(e, LOG2_PAIR[0])
    return m.pair_sum(Pair(log2_e.high, m.fma(e, LOG2_PAIR[1], log2_e.low)), fraction)


def softplus(m: Real, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|))."""
    e = decay(m, x)
    tail = log_positive(m, m.fast_two_sum(1.0, e))
    if not m.has_avx512:
        tail = keep_tiny(m, e, tail)
    return m.add(m.select(m.compare("olt", x, 0.0), 0.0, x), tail)
