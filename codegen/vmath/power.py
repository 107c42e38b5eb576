"""x^y with all the special cases of C99: e^(y log|x|), then the sign."""

from __future__ import annotations

import math

from . import avx512
from .coefficients import LOGARITHMS
from .exponential import exp, exp2_short, exp_pair, polynomial
from .logarithm import BASE_2, log_core, log_pair, parted, split
from .real import Operand, Pair, Real


def pow(m: Real, x: str, y: str) -> str:
    if m.has_avx512:
        return _completed(m, x, y, _single_tabled(m, x, y) if m.bits == 32 else _by_pair(m, x, y))
    result = _through_double(m, x, y) if m.bits == 32 else _by_pair(m, m.abs(x), y)
    return _special(m, x, y, result)


def _single_tabled(m: Real, x: str, y: str) -> str:
    """2^(y log2|x|) in double, which has the digits that the logarithm needs."""
    wide = Real(m.lanes, 64)
    base, power = (m.lanes.convert("fpext", "float", operand, "double") for operand in (x, y))
    e, fraction, index = parted(wide, base, avx512.WITHOUT_SIGN, BASE_2)
    c, table = (avx512.lookup(m.lanes, wide.kind, values, index) for values in LOGARITHMS[2, 64])
    r = wide.fma(fraction, c, -1.0)
    product = wide.mul(wide.fma(r, polynomial(wide, "log2_short", r), wide.add(e, table)), power)
    return m.lanes.convert("fptrunc", "double", exp2_short(wide, product), "float")


def _through_double(m: Real, x: str, y: str) -> str:
    """|x|^y in single precision without tables; no float is subnormal in double."""
    wide = Real(m.lanes, 64)
    base, power = (m.lanes.convert("fpext", "float", operand, "double") for operand in (m.abs(x), y))
    product = wide.mul(log_core(wide, split(wide, Pair(base, ""))), power)
    return m.lanes.convert("fptrunc", "double", exp(wide, product), "float")


def _by_pair(m: Real, x: str, y: str) -> str:
    """|x|^y with the logarithm as a pair: its error is multiplied by up to 745."""
    log_x = log_pair(m, x)
    bounded = y if m.has_avx512 else m.at_least(m.at_most(y, 2.0**100), -(2.0**100))  # the least logarithm is 2^-53
    product = m.two_product(log_x.high, bounded)
    low = m.fma(log_x.low, bounded, product.low)
    return exp_pair(m, Pair(product.high, m.select(m.compare("olt", m.abs(product.high), 800.0), low, 0.0)))


def _completed(m: Real, x: str, y: str, result: str) -> str:
    """The other cases, for lanes with a negative base or where |x|^y came out as NaN: a branch, as they are few."""
    negative = m.bit_compare("slt", m.to_bits(x), 0)

    def some_special() -> list[str]:
        odd, fraction = _kinds_of_exponent(m, y)
        unit = m.either(m.compare("oeq", m.abs(x), 1.0), m.compare("oeq", y, 0.0))
        value = m.select(unit, 1.0, result)
        value = m.select(m.both(negative, odd), m.neg(value), value)
        value = m.select(m.both(_finite_negative(m, x), fraction), math.nan, value)
        return [m.select(m.compare("oeq", y, 0.0), 1.0, value)]
    special = m.lanes.any(m.either(negative, m.is_nan(result)))
    chosen, = m.lanes.function.choose(special, (m.lanes.vector(m.kind),), some_special, lambda: [result])
    return chosen


def _kinds_of_exponent(m: Real, y: str) -> tuple[str, str]:
    """Where y is an odd whole number, and where it is none (or NaN)."""
    half = m.mul(y, 0.5)
    fraction = m.compare("une", m.intrinsic("trunc", y), y)
    whole = m.lanes.binary("xor", "i1", fraction, m.lanes.literal("i1", 1))
    return m.both(whole, m.compare("one", m.intrinsic("trunc", half), half)), fraction


def _finite_negative(m: Real, x: str) -> str:
    return m.both(m.compare("olt", x, 0.0), m.compare("one", x, -math.inf))


def _special(m: Real, x: str, y: str, result: str) -> str:
    magnitude, size = m.abs(x), m.abs(y)
    odd, fraction = _kinds_of_exponent(m, y)
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
    result = m.select(m.both(negative, odd), m.neg(result), result)
    result = m.select(m.both(_finite_negative(m, x), fraction), math.nan, result)
    result = m.select(m.compare("uno", x, y), m.add(x, y), result)
    return m.select(m.either(m.compare("oeq", x, 1.0), m.compare("oeq", y, 0.0)), 1.0, result)
