"""Rounding, signs, extremes, remainders and the like on floats, with NumPy's meaning at zeros, infinities and NaN.

`maximum` and `minimum` are IEEE 754-2019's: NaN if either is NaN, and -0 counts as less than +0.
"""

from __future__ import annotations

import math

from .real import Real


def sign(m: Real, x: str) -> str:
    result = m.select(m.compare("ogt", x, 0.0), 1.0, x)
    result = m.select(m.compare("olt", x, 0.0), -1.0, result)
    return m.select(m.compare("oeq", x, 0.0), 0.0, result)


def relu(m: Real, x: str) -> str:
    return m.select(m.compare("olt", x, 0.0), 0.0, x)


def rsqrt(m: Real, x: str) -> str:
    return m.div(1.0, m.sqrt(x))


def is_infinite(m: Real, x: str) -> str:
    return m.compare("oeq", m.abs(x), math.inf)


def is_finite(m: Real, x: str) -> str:
    return m.compare("olt", m.abs(x), math.inf)


def remainder(m: Real, x: str, y: str) -> str:
    """C's fmod for doubles: exact, with the sign of x.

    Each round takes off a whole multiple of |y| and 52 bits of the quotient: if q is |x|/|y| rounded, |x| - q|y| is
    a double.  Where the quotient could overflow, |y| is scaled by 2^600 or 2^1200 for the round.
    """
    bad = m.either(m.compare("une", m.abs(x), m.abs(x)), m.compare("une", m.abs(y), m.abs(y)))
    bad = m.either(bad, m.either(is_infinite(m, x), m.compare("oeq", y, 0.0)))
    divisor = m.select(bad, 1.0, m.abs(y))
    large = m.mul(divisor, 2.0**600)
    huge = m.mul(large, 2.0**600)

    def take_off(values: list[str]) -> tuple[list[str], str]:
        size = m.abs(values[0])
        unit = m.select(m.compare("oge", size, large), large, divisor)
        unit = m.select(m.compare("oge", size, huge), huge, unit)
        # Where the quotient is 0 the unit, which may be infinite, must not enter the product.
        below = m.compare("olt", size, unit)
        finite = m.select(below, 1.0, unit)
        quotient = m.select(below, 0.0, m.intrinsic("trunc", m.div(values[0], finite)))
        rest = _rest(m, values[0], quotient, finite)
        return [rest], m.compare("oge", m.abs(rest), divisor)

    start = m.select(bad, 0.0, m.abs(x))
    rest, = m.lanes.repeat([(m.lanes.vector(m.kind), start)], take_off)
    rest = m.select(m.compare("olt", rest, 0.0), m.add(rest, divisor), rest)
    return m.select(bad, math.nan, m.copysign(rest, x))


def _rest(m: Real, x: str, quotient: str, unit: str) -> str:
    """x - quotient*unit, which is a double; without fused multiply-add, where parts could overflow it is scaled."""
    if m.lanes.target.has_fma:
        return m.nfma(quotient, unit, x)
    large = m.compare("oge", m.abs(x), 2.0**1000)
    down = m.select(large, 2.0**-60, 1.0)
    small, unit = m.mul(x, down), m.mul(unit, down)
    product = m.mul(quotient, unit)
    rest = m.sub(m.sub(small, product), m.residual(product, quotient, unit))
    return m.mul(rest, m.select(large, 2.0**60, 1.0))


def _towards_divisor(m: Real, x: str, y: str) -> tuple[str, str, str]:
    """fmod, the remainder with the sign of y, and whether the two differ."""
    plain = remainder(m, x, y)
    opposite = m.compare("olt", m.copysign(1.0, plain), 0.0)
    differs = m.lanes.binary("xor", "i1", opposite, m.compare("olt", y, 0.0))
    moved = m.both(differs, m.compare("une", plain, 0.0))
    fixed = m.select(moved, m.add(plain, y), plain)
    return plain, m.select(m.compare("oeq", plain, 0.0), m.copysign(0.0, y), fixed), moved


def mod(m: Real, x: str, y: str) -> str:
    """Remainder with the sign of the divisor; NaN for a zero divisor."""
    return _towards_divisor(m, x, y)[1]


def floor_divide(m: Real, x: str, y: str) -> str:
    """The whole number that belongs to `mod`; x/y where y is zero."""
    plain, _, moved = _towards_divisor(m, x, y)
    quotient = m.div(m.sub(x, plain), y)
    quotient = m.select(moved, m.sub(quotient, 1.0), quotient)
    floor = m.intrinsic("floor", quotient)
    near = m.select(m.compare("ogt", m.sub(quotient, floor), 0.5), m.add(floor, 1.0), floor)
    ratio = m.div(x, y)
    near = m.select(m.compare("oeq", quotient, 0.0), m.copysign(0.0, ratio), near)
    return m.select(m.compare("oeq", y, 0.0), ratio, near)


def hypot(m: Real, x: str, y: str) -> str:
    """sqrt(x^2 + y^2), both scaled by a power of two; infinite if either is, even beside NaN."""
    a, b = m.abs(x), m.abs(y)
    larger = m.select(m.compare("ogt", a, b), a, b)
    smaller = m.select(m.compare("ogt", a, b), b, a)
    high, low = m.choose(2.0**60, 2.0**500), m.choose(2.0**-60, 2.0**-500)
    down, up = m.compare("ogt", larger, high), m.compare("olt", larger, low)
    scale = m.select(up, m.choose(2.0**90, 2.0**600), m.select(down, m.choose(2.0**-70, 2.0**-600), 1.0))
    back = m.select(up, m.choose(2.0**-90, 2.0**-600), m.select(down, m.choose(2.0**70, 2.0**600), 1.0))
    p, q = m.mul(larger, scale), m.mul(smaller, scale)
    square = m.two_product(p, p)
    total = m.fast_two_sum(square.high, m.mul(q, q))
    root = m.sqrt(total.high)
    rest = m.add(square.low, total.low)
    error = m.div(m.sub(rest, m.residual(total.high, root, root)), m.add(root, root))
    error = m.select(m.compare("ogt", root, 0.0), error, 0.0)
    result = m.mul(m.add(root, error), back)
    return m.select(m.either(is_infinite(m, x), is_infinite(m, y)), math.inf, result)
