"""x^y with all the special cases of C99."""

from __future__ import annotations

import math

from .exponential import exp, exp_pair
from .logarithm import log_core, log_pair, split
from .real import Operand, Pair, Real


def pow(m: Real, x: str, y: str) -> str:
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
