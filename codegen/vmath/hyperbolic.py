"""Hyperbolic functions, their inverses, and the cube root."""

from __future__ import annotations

import math
from typing import NamedTuple

from . import avx512, exponential, logarithm
from .coefficients import CUBE_ROOTS, CUBE_ROOTS_ERROR
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
    """log(t + sqrt(t^2 + 1)) with t = |x|."""
    size = m.abs(x)
    result = _asinh_of_fraction(m, size) if m.has_avx512 and m.bits == 32 else _log_with_root(m, size, 1.0)
    return m.copysign(result, x)


def _asinh_of_fraction(m: Real, x: str) -> str:
    """log(1 + t + t^2/(1 + sqrt(1 + t^2)))."""
    large, t = _bounded(m, x)
    square = m.mul(t, t)
    beyond = m.add(t, m.div(square, m.add(m.sqrt(m.add(square, 1.0)), 1.0)))
    return _log_of_either(m, x, large, m.two_sum(1.0, beyond))


def acosh(m: Real, x: str) -> str:
    """log(x + sqrt(x^2 - 1)), the sum as a pair."""
    result = _log_with_root(m, x, -1.0)
    if not m.has_avx512:
        result = m.select(m.compare("oeq", x, 1.0), 0.0, result)
    return m.select(m.compare("ult", x, 1.0), math.nan, result)


def _bounded(m: Real, x: str) -> tuple[str, str]:
    """Where sqrt(x^2 +- 1) is x itself, and x cut off there."""
    bound = m.choose(2.0**30, 2.0**60)
    return m.compare("ogt", x, bound), m.at_most(x, bound)


def _log_of_either(m: Real, x: str, large: str, whole: Pair) -> str:
    """log(2x) = log(x) + log(2) where x is large, log(whole) elsewhere."""
    finite = x if m.has_avx512 else m.at_most(x, m.largest)
    bounded = Pair(m.select(large, finite, whole.high), m.select(large, 0.0, whole.low))
    result = logarithm.log_positive(m, bounded, raised=m.select(large, 1.0, 0.0))
    if m.has_avx512:
        return result
    result = m.select(m.compare("oeq", x, math.inf), x, result)
    return m.select(m.is_nan(x), x, result)


def _log_with_root(m: Real, x: str, constant: float) -> str:
    """log(t + sqrt(t^2 + constant)), the sum as a pair."""
    large, t = _bounded(m, x)
    square = m.two_product(t, t)
    total = m.two_sum(square.high, constant) if constant > 0.0 else m.fast_two_sum(square.high, constant)
    if m.has_avx512 and m.bits == 32:
        root, error = m.sqrt(m.add(total.high, m.add(total.low, square.low))), ""
    else:
        root, error = m.root(total.high, m.add(total.low, square.low))
    whole = m.fast_two_sum(root, t) if constant > 0.0 else m.fast_two_sum(t, root)
    result = _log_of_either(m, x, large, Pair(whole.high, m.add(whole.low, error)) if error else whole)
    return keep_tiny(m, x, result, limit=2.0 ** (-m.mantissa / 2 - 2)) if constant > 0.0 else result


def atanh(m: Real, x: str) -> str:
    """log((1 + t)/(1 - t))/2 with t = |x|, the quotient as a pair."""
    size = m.abs(x)
    t = size if m.has_avx512 else m.at_most(size, 1.0 - 2.0 ** (-m.mantissa - 1))
    quotient = m.pair_ratio(m.fast_two_sum(1.0, t), m.fast_two_sum(1.0, m.neg(t)))
    result = m.mul(logarithm.log_positive(m, quotient), 0.5)
    if not m.has_avx512:
        result = m.select(m.compare("oeq", size, 1.0), math.inf, result)
        result = m.select(m.compare("ugt", size, 1.0), math.nan, result)
    return keep_tiny(m, x, m.copysign(result, x), limit=2.0 ** (-m.mantissa / 2 - 2))


# -- the cube root --

def cbrt(m: Real, x: str) -> str:
    result = _cbrt_tabled(m, x) if m.has_avx512 else _cbrt_by_steps(m, x)
    return m.select(m.compare("ueq", m.add(x, x), x), x, result)  # 0, infinity


def _third(m: Real, exponent: str) -> tuple[str, str, str]:
    """exponent = 3n + remainder with a remainder of -1, 0 or 1: n, its low bits, the remainder."""
    n, low_bits = m.nearest(exponent, 1.0 / 3.0)
    return n, low_bits, m.nfma(n, 3.0, exponent)


def _cbrt_tabled(m: Real, x: str) -> str:
    """c = t w^2 with w near t^(-1/3), t in [1, 2): the root is c (1 - h)^(-2/3) with h = 1 - c w."""
    n, _, remainder = _third(m, avx512.exponent(m.lanes, m.kind, x))
    place = m.to_bits(m.add(remainder, m.magic))
    t = avx512.significand(m.lanes, m.kind, x, avx512.FROM_ONE, avx512.WITHOUT_SIGN)
    w = polynomial(m, "inverse_cbrt", t)
    c = m.mul(m.mul(t, w), w)
    h = m.nfma(c, w, 1.0)
    double = m.bits == 64
    step = m.mul(h, m.horner(h, (2 / 3, 5 / 9, 40 / 81) if double else (2 / 3, 5 / 9)))
    power = avx512.lookup(m.lanes, m.kind, cyclic(CUBE_ROOTS, double), place)
    root = m.mul(power, c)
    if double:
        step = m.add(step, avx512.lookup(m.lanes, m.kind, cyclic(CUBE_ROOTS_ERROR, double), place))
        root = m.add(root, m.fma(root, step, m.residual(root, power, c)))
    else:
        root = m.fma(root, step, root)
    return m.copysign(avx512.scale(m.lanes, m.kind, root, n), x)


def cyclic(values: tuple[float, float, float], double: bool) -> tuple[float, ...]:
    """A table by -1, 0, 1."""
    below, middle, above = values
    return (middle, above, *[0.0] * (13 if double else 29), below)


def _cbrt_by_steps(m: Real, x: str) -> str:
    """A polynomial on [0.35, 2.83] and Halley's step, two in double; the exponent taken out is a multiple of 3."""
    y, raised = logarithm.normalised(m, m.abs(x))
    parts = logarithm.split(m, Pair(y, ""), raised=raised)
    _, low_bits, remainder = _third(m, parts.exponent)
    mantissa = m.mul(m.add(parts.f, 1.0), m.power_of_two(m.nearest(remainder)[1]))
    root = polynomial(m, "cbrt", mantissa)
    for _ in range(1 if m.bits == 32 else 2):
        square = m.two_product(root, root)
        cube = m.mul(square.high, root)
        residue = m.sub(m.sub(mantissa, cube), m.fma(square.low, root, m.residual(cube, square.high, root)))
        root = m.fma(root, m.div(residue, m.fma(2.0, cube, mantissa)), root)
    return m.copysign(m.mul(root, m.power_of_two(low_bits)), x)
