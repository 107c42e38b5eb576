"""Exponentials: exp, exp2, expm1, sigmoid.

exp(x) = 2^n e^r with r = x - n log 2.  With tables in registers (AVX-512, double) n is a multiple of 1/16, the part of
2^n after the point is looked up and r lies in [-0.022, 0.022]; else n is whole and r lies in [-0.35, 0.35].
"""

from __future__ import annotations

import math
from typing import NamedTuple

from . import avx512
from .coefficients import POLYNOMIALS, SIXTEENTHS, SIXTEENTHS_ERROR
from .real import Pair, Real

# log 2 with trailing zero bits in the first part, so that n * LOG2_HIGH is exact: (single, double).
LOG2_HIGH = (0.693145751953125, 6.93147180369123816490e-01)
LOG2_LOW = (1.42860682030941723212e-6, 1.90821492927058770002e-10)

OVERFLOW = (89.0, 710.0)
UNDERFLOW = (-104.0, -746.0)
MAGIC_SIXTEENTH = 1.5 * 2.0**48  # adding it leaves a multiple of 1/16 in the low bits


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


def reduce_shortly(m: Real, x: str) -> tuple[str, str, str]:
    """(n, its low bits, r) without a tail."""
    n, low_bits = m.nearest(x, 1 / math.log(2))
    return n, low_bits, m.nfma(n, by_width(m, LOG2_LOW), m.nfma(n, by_width(m, LOG2_HIGH), x))


def has_table(m: Real) -> bool:
    return m.has_avx512 and m.bits == 64


def tabled(m: Real, x: str, *, low: str | None = None, exactly: bool = False) -> str:
    """e^x or e^(x + low); `exactly` takes what the table's entries lost into account."""
    shifted = m.fma(x, 1 / math.log(2), MAGIC_SIXTEENTH)
    n = m.sub(shifted, MAGIC_SIXTEENTH)
    high = m.nfma(n, LOG2_HIGH[1], x)
    r = m.nfma(n, LOG2_LOW[1], high) if low is None else m.sub(high, m.sub(m.mul(n, LOG2_LOW[1]), low))
    square, tail = m.mul(r, r), polynomial(m, "exp_table", r)
    power = avx512.lookup(m.lanes, m.kind, SIXTEENTHS, m.to_bits(shifted))
    if exactly:
        q = m.add(r, m.fma(square, tail, avx512.lookup(m.lanes, m.kind, SIXTEENTHS_ERROR, m.to_bits(shifted))))
    else:
        q = m.fma(square, tail, r)
    return avx512.scale(m.lanes, m.kind, m.fma(power, q, power), n)


def expm1_tabled(m: Real, x: str) -> str:
    """e^x - 1 for x in [0, 700].  n is rounded down, so that no two terms cancel."""
    shifted = m.add(m.fma(x, 1 / math.log(2), -1 / 32), MAGIC_SIXTEENTH)
    n = m.sub(shifted, MAGIC_SIXTEENTH)
    r = m.nfma(n, LOG2_LOW[1], m.nfma(n, LOG2_HIGH[1], x))
    power = avx512.lookup(m.lanes, m.kind, SIXTEENTHS, m.to_bits(shifted))
    error = avx512.lookup(m.lanes, m.kind, SIXTEENTHS_ERROR, m.to_bits(shifted))
    q = m.add(r, m.fma(m.mul(r, r), polynomial(m, "expm1_table", r), error))
    power = avx512.scale(m.lanes, m.kind, power, n)
    return m.fma(power, q, m.sub(power, 1.0))


def expm1_reduced(m: Real, reduced: Reduced) -> str:
    """e^(r + tail) - 1."""
    r = reduced.r
    return m.add(r, expm1_rest(m, reduced))


def expm1_rest(m: Real, reduced: Reduced) -> str:
    """e^(r + tail) - 1 - r."""
    square = m.mul(reduced.r, reduced.r)
    return m.fma(square, polynomial(m, "exp", reduced.r), m.fma(reduced.r, reduced.tail, reduced.tail))


def clamp(m: Real, x: str, wider: float = 0.0) -> str:
    """Into the range beyond which results are 0 and infinity; NaN stays."""
    return m.at_least(m.at_most(x, by_width(m, OVERFLOW) + wider), by_width(m, UNDERFLOW) - wider)


def exp(m: Real, x: str) -> str:
    clamped = clamp(m, x)
    if has_table(m):
        return tabled(m, clamped)
    n, low_bits, r = reduce_shortly(m, clamped)
    q = m.fma(m.mul(r, r), polynomial(m, "exp", r), r)
    return m.scale(m.add(q, 1.0), n, low_bits)


def exp_pair(m: Real, x: Pair) -> str:
    """e^(high + low); the low part must be finite."""
    clamped = clamp(m, x.high, 1.0)
    if has_table(m):
        return tabled(m, clamped, low=x.low, exactly=True)
    reduced = reduce(m, clamped, low=x.low)
    return m.scale(m.add(expm1_reduced(m, reduced), 1.0), reduced.n, reduced.low_bits)


def exp2(m: Real, x: str) -> str:
    limit = float(m.bias + 1)
    clamped = m.at_least(m.at_most(x, limit), -limit - m.mantissa)
    if has_table(m):
        shifted = m.add(clamped, MAGIC_SIXTEENTH)
        n = m.sub(shifted, MAGIC_SIXTEENTH)
        return _exp2_of(m, n, m.sub(clamped, n), shifted, "exp2_table")
    n, low_bits = m.nearest(clamped)
    r = m.sub(clamped, n)
    return m.scale(m.fma(r, polynomial(m, "exp2", r), 1.0), n, low_bits)


def _exp2_of(m: Real, n: str, r: str, shifted: str, name: str) -> str:
    power = avx512.lookup(m.lanes, m.kind, SIXTEENTHS, m.to_bits(shifted))
    return avx512.scale(m.lanes, m.kind, m.fma(power, m.mul(r, polynomial(m, name, r)), power), n)


def exp2_short(m: Real, x: str) -> str:
    """2^x in double for results in single precision; the rest of infinities and huge numbers is 0."""
    r = avx512.fraction(m.lanes, m.kind, x, 4)
    n = m.sub(x, r)
    return _exp2_of(m, n, r, m.add(n, MAGIC_SIXTEENTH), "exp2_short")


def expm1(m: Real, x: str) -> str:
    clamped = m.at_least(m.at_most(x, by_width(m, OVERFLOW)), -40.0)
    if m.has_avx512 and m.bits == 32:
        return _expm1_scaled(m, x, clamped)
    # 2^n (q + 1) - 1 with half of 2^n, which does not overflow where the result does not.
    reduced = reduce(m, clamped)
    half = m.power_of_two(m.bit("sub", reduced.low_bits, 1))
    result = m.fma(half, expm1_reduced(m, reduced), m.sub(half, 0.5))
    return keep_tiny(m, x, m.add(result, result))


def _expm1_scaled(m: Real, x: str, clamped: str) -> str:
    """2^n (q + (1 - 2^-n))."""
    n, _, r = reduce_shortly(m, clamped)
    q = m.fma(m.mul(r, r), polynomial(m, "exp", r), r)
    inverse = avx512.scale(m.lanes, m.kind, m.real(1.0), m.neg(n))
    return m.copysign(avx512.scale(m.lanes, m.kind, m.add(q, m.sub(1.0, inverse)), n), x)


def keep_tiny(m: Real, x: str, result: str, *, limit: float | None = None) -> str:
    """x itself where it is so small that f(x) rounds to x: keeps -0 and subnormals."""
    small = m.compare("olt", m.abs(x), limit or 2.0 ** -(m.mantissa + 2))
    return m.select(small, x, result)


def decay(m: Real, x: str) -> str:
    """e^-|x|, as exactly as it goes."""
    negative = m.neg(m.abs(x))
    return tabled(m, clamp(m, negative), exactly=True) if has_table(m) else exp(m, negative)


def sigmoid(m: Real, x: str) -> str:
    """1/(1 + e) or e/(1 + e) with e = exp(-|x|), which cannot overflow; in double 1 + e is a pair."""
    e = decay(m, x)
    top = m.select(m.compare("olt", x, 0.0), e, 1.0)
    if m.bits == 32:
        return m.ratio(top, m.add(e, 1.0))
    bottom = m.fast_two_sum(1.0, e)
    return m.ratio(top, bottom.high, bottom.low)
