"""Hyperbolic functions, their inverses, and the cube root."""

from __future__ import annotations

import math
from typing import NamedTuple

from . import avx512, exponential, logarithm
from .exponential import keep_tiny, polynomial
from .real import Pair, Real


class Halves(NamedTuple):
    """|x| = n log 2 + r: the parts of e^r beyond 1 + r, even and odd, and (1 + 4^-n)/2 and (1 - 4^-n)/2."""

    n: str
    low_bits: str
    r: str
    even: str
    odd: str
    sum: str
    difference: str


def halves(m: Real, x: str) -> Halves:
    n, low_bits, r = exponential.reduce_shortly(m, m.at_most(m.abs(x), m.choose(90.0, 711.0)))
    z = m.mul(r, r)
    even, odd = m.mul(z, polynomial(m, "cosh", z)), m.mul(m.mul(r, z), polynomial(m, "sinh_reduced", z))
    if m.has_avx512:
        small = avx512.scale(m.lanes, m.kind, m.real(0.5), m.mul(n, -2.0))
    else:
        whole = m.bit("sub", low_bits, m.magic_bits)
        most = m.bias // 2 - 1
        whole = m.bit_select(m.bit_compare("sgt", whole, most), most, whole)
        small = m.from_bits(m.bit("shl", m.bit("sub", m.bias - 1, m.bit("shl", whole, 1)), m.mantissa))
    return Halves(n, low_bits, r, even, odd, m.add(small, 0.5), m.sub(0.5, small))


def sinh(m: Real, x: str) -> str:
    """2^n (sum sinh(r) + difference cosh(r)), the large terms first: they cancel a little where n = 1."""
    parts = halves(m, x)
    rest = m.fma(parts.difference, parts.even, m.mul(parts.sum, parts.odd))
    result = m.add(m.fma(parts.sum, parts.r, parts.difference), rest)
    return m.copysign(m.scale(result, parts.n, parts.low_bits), x)


def cosh(m: Real, x: str) -> str:
    parts = halves(m, x)
    rest = m.mul(parts.difference, m.add(parts.r, parts.odd))
    return m.scale(m.add(parts.sum, m.fma(parts.sum, parts.even, rest)), parts.n, parts.low_bits)


def tanh(m: Real, x: str) -> str:
    """E/(E + 2) with E = e^(2|x|) - 1."""
    size = m.at_most(m.abs(x), m.choose(10.0, 22.0))
    twice = m.add(size, size)
    if m.bits == 64:
        result = _tanh_tabled(m, twice) if m.has_avx512 else _tanh_by_pair(m, twice)
    else:
        _, low_bits, r = exponential.reduce_shortly(m, twice)
        power = m.power_of_two(low_bits)
        q = m.fma(m.mul(r, r), polynomial(m, "exp", r), r)
        top = m.fma(power, q, m.sub(power, 1.0))
        result = m.ratio(top, m.add(top, 2.0))
    result = m.copysign(result, x)
    return result if m.has_avx512 else keep_tiny(m, x, result)


def _tanh_tabled(m: Real, x: str) -> str:
    top = exponential.expm1_tabled(m, x)
    bottom = m.two_sum(2.0, top)
    return m.ratio(top, bottom.high, bottom.low)


def _tanh_by_pair(m: Real, x: str) -> str:
    reduced = exponential.reduce(m, x)
    power = m.power_of_two(reduced.low_bits)
    total = m.fast_two_sum(m.sub(power, 1.0), m.mul(power, reduced.r))
    rest = m.fma(power, exponential.expm1_rest(m, reduced), total.low)
    top = m.add(total.high, rest)
    rest = m.sub(rest, m.sub(top, total.high))
    bottom = m.two_sum(2.0, top)
    return m.add(*m.pair_quotient(Pair(top, rest), Pair(bottom.high, m.add(bottom.low, rest))))


# -- inverses --

def asinh(m: Real, x: str) -> str:
    """log(|x| + sqrt(x^2 + 1)), the sum as a pair."""
    return m.copysign(_log_with_root(m, m.abs(x), 1.0), x)


def acosh(m: Real, x: str) -> str:
    """log(x + sqrt(x^2 - 1)), the sum as a pair."""
    return m.select(m.compare("ult", x, 1.0), math.nan, _log_with_root(m, x, -1.0))


def _log_with_root(m: Real, x: str, constant: float) -> str:
    """log(t + sqrt(t^2 + constant)); beyond a bound the root is t itself, and log(2t) = log(t) + log(2)."""
    bound = m.choose(2.0**30, 2.0**60)
    large = m.compare("ogt", x, bound)
    t = m.at_most(x, bound)
    square = m.two_product(t, t)
    total = m.two_sum(square.high, constant)
    total = m.fast_two_sum(total.high, m.add(total.low, square.low))
    root, error = m.root(total.high, total.low)
    whole = m.two_sum(root, t) if constant > 0.0 else m.fast_two_sum(t, root)
    whole = m.fast_two_sum(whole.high, m.add(whole.low, error))
    finite = m.at_most(x, m.largest)
    bounded = Pair(m.select(large, finite, whole.high), m.select(large, 0.0, whole.low))
    result = logarithm.log_positive(m, bounded, raised=m.select(large, 1.0, 0.0))
    result = m.select(m.compare("oeq", x, math.inf), x, result)
    result = m.select(m.is_nan(x), x, result)
    return keep_tiny(m, x, result, limit=2.0 ** (-m.mantissa / 2 - 2)) if constant > 0.0 else result


def atanh(m: Real, x: str) -> str:
    """log((1 + t)/(1 - t))/2 with t = |x|, the quotient as a pair."""
    size = m.abs(x)
    t = m.at_most(size, 1.0 - 2.0 ** (-m.mantissa - 1))
    quotient = m.pair_ratio(m.fast_two_sum(1.0, t), m.fast_two_sum(1.0, m.neg(t)))
    result = m.mul(logarithm.log_positive(m, quotient), 0.5)
    result = m.select(m.compare("oeq", size, 1.0), math.inf, result)
    result = m.select(m.compare("ugt", size, 1.0), math.nan, result)
    return keep_tiny(m, x, m.copysign(result, x), limit=2.0 ** (-m.mantissa / 2 - 2))


CUBE_ROOTS = (1.0, 2.0 ** (1 / 3), 2.0 ** (2 / 3))


def cbrt(m: Real, x: str) -> str:
    """A polynomial on [0.35, 2.83] and Halley's step, two in double; the exponent taken out is a multiple of 3."""
    y, raised = logarithm.normalised(m, m.abs(x))
    parts = logarithm.split(m, Pair(y, ""), raised=raised)
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
