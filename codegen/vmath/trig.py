"""Sine, cosine, tangent and their inverses.

Arguments are reduced by n pi/2 to a pair r in [-pi/4, pi/4].  Up to a bound this is Cody and Waite's subtraction of
n times the parts of pi/2; if any lane is beyond, a branch multiplies by the digits of 2/pi that matter (Payne and
Hanek), which is right up to the largest double.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .exponential import keep_tiny, polynomial
from .payne_hanek import narrowed, reduce_large
from .real import Pair, Real

# pi/2 in parts of a full double or float each, and in parts of 33 bits for machines without fused multiply-add.
HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
HALF_PI_SINGLE = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
HALF_PI_SHORT = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
QUARTER_PI = ((0.7853981852531433, -2.1855694143368964e-08), (0.7853981633974483, 3.061616997868383e-17))

Angle = tuple[str, Pair]  # the quadrant in the low two bits of an integer, and the rest in [-pi/4, pi/4]


class Turned(NamedTuple):
    """Sine and cosine of the rest as pairs, and the quadrant."""

    quadrant: str
    sine: Pair
    cosine: Pair


def reduce(m: Real, x: str) -> Angle:
    limit = m.choose(2.0**17, 2.0**30 if m.lanes.target.has_fma else 2.0**20)
    if m.bits == 32 and not m.lanes.target.has_fma:
        return _in_double(m, x)
    large = m.compare("oge", m.abs(x), limit)
    quadrant, rest = _cody_waite(m, m.select(large, 0.0, x))

    def beyond() -> list[str]:
        far_quadrant, far = reduce_large(m, m.select(large, x, 1.0))
        far_high = m.select(m.compare("olt", m.abs(x), math.inf), far.high, math.nan)
        return [m.bit_select(large, far_quadrant, quadrant), m.select(large, far_high, rest.high),
                m.select(large, far.low, rest.low)]

    real, whole = m.lanes.vector(m.kind), m.lanes.vector(m.integer)
    quadrant, high, low = m.lanes.function.choose(
        m.lanes.any(large), (whole, real, real), beyond, lambda: [quadrant, rest.high, rest.low], unlikely=True)
    return quadrant, Pair(high, low)


def _cody_waite(m: Real, x: str) -> Angle:
    n, low_bits = m.nearest(x, 2 / math.pi)
    if not m.lanes.target.has_fma:
        return low_bits, _subtract_short(m, x, n)
    first, second, third = HALF_PI_SINGLE if m.bits == 32 else HALF_PI
    exact = m.nfma(n, first, x)  # a multiple of the last bit of `first` below 1, hence exact
    if m.bits == 32:
        near = m.nfma(n, second, exact)
        return low_bits, m.fast_two_sum(near, m.mul(n, -third))
    product = m.two_product(n, second)
    near_pair = m.two_sum(exact, m.neg(product.high))
    return low_bits, m.fast_two_sum(near_pair.high, m.nfma(n, third, m.sub(near_pair.low, product.low)))


def _subtract_short(m: Real, x: str, n: str) -> Pair:
    first, second, third, rest = HALF_PI_SHORT
    high = m.sub(x, m.mul(n, first))
    one = m.two_sum(high, m.neg(m.mul(n, second)))
    two = m.two_sum(one.high, m.neg(m.mul(n, third)))
    return m.fast_two_sum(two.high, m.sub(m.add(one.low, two.low), m.mul(n, rest)))


def _in_double(m: Real, x: str) -> Angle:
    quadrant, rest = reduce(Real(m.lanes, 64), m.lanes.convert("fpext", "float", x, "double"))
    return m.lanes.convert("trunc", "i64", quadrant, "i32"), narrowed(m, rest)


def turned(m: Real, quadrant: str, rest: Pair) -> Turned:
    """Sine and cosine kernels on [-pi/4, pi/4]."""
    r, low = rest
    z = m.mul(r, r)
    sine = m.fma(m.mul(z, r), polynomial(m, "sin", z), low)
    half = m.mul(z, 0.5)
    top = m.fast_two_sum(1.0, m.neg(half))
    cosine = m.fma(m.mul(z, z), polynomial(m, "cos", z), m.sub(top.low, m.mul(r, low)))
    return Turned(quadrant, Pair(r, sine), Pair(top.high, cosine))


def _turn(m: Real, parts: Turned, *, ahead: int) -> str:
    """The sine of the angle plus `ahead` quadrants."""
    quadrant = m.bit("add", parts.quadrant, ahead) if ahead else parts.quadrant
    value = m.select(is_odd(m, quadrant), m.add(*parts.cosine), m.add(*parts.sine))
    sign = m.bit("shl", m.bit("and", quadrant, 2), m.bits - 2)
    return m.from_bits(m.bit("xor", m.to_bits(value), sign))


def is_odd(m: Real, quadrant: str) -> str:
    return m.bit_compare("ne", m.bit("and", quadrant, 1), 0)


def sin(m: Real, x: str) -> str:
    result = _turn(m, turned(m, *reduce(m, x)), ahead=0)
    return keep_tiny(m, x, result, limit=2.0 ** (-m.mantissa / 2 - 2))


def cos(m: Real, x: str) -> str:
    return _turn(m, turned(m, *reduce(m, x)), ahead=1)


def sin_cos(m: Real, x: str) -> tuple[str, str]:
    """Both, with the bits of `sin` and `cos`, from one reduction."""
    parts = turned(m, *reduce(m, x))
    sine = keep_tiny(m, x, _turn(m, parts, ahead=0), limit=2.0 ** (-m.mantissa / 2 - 2))
    return sine, _turn(m, parts, ahead=1)


def tan(m: Real, x: str) -> str:
    result = tangent(m, *reduce(m, x))
    return keep_tiny(m, x, result, limit=2.0 ** (-m.mantissa / 2 - 2))


def tangent(m: Real, quadrant: str, rest: Pair) -> str:
    """t = tan(rest), and -1/t in odd quadrants; t is a pair in double."""
    r, low = rest
    z = m.mul(r, r)
    tail = m.fma(m.mul(z, r), polynomial(m, "tan", z), low)
    odd = is_odd(m, quadrant)
    if m.bits == 32:
        t = m.add(r, tail)
        return m.ratio(m.select(odd, -1.0, t), m.select(odd, t, 1.0))
    high, low = m.fast_two_sum(r, tail)
    return m.select(odd, _negative_inverse(m, high, low), high)


def _negative_inverse(m: Real, high: str, low: str) -> str:
    """-1/(high + low): the quotient is corrected with its own help."""
    if not m.lanes.target.has_fma:
        return m.ratio(-1.0, high, low)
    quotient = m.div(-1.0, high)
    rest = m.nfma(quotient, low, m.nfma(quotient, high, -1.0))
    return m.nfma(rest, quotient, quotient)


# -- inverses --

class Arc(NamedTuple):
    """asin(base) = base + tail with base = |x| up to 1/2, and beyond sqrt((1 - |x|)/2) and what rounding lost of it."""

    near: str
    base: str
    lost: str
    tail: str


def _arc(m: Real, x: str) -> Arc:
    size = m.abs(x)
    near = m.compare("ole", size, 0.5)
    z = m.select(near, m.mul(size, size), m.fma(-0.5, size, 0.5))
    root, lost = (m.sqrt(z), "") if m.has_avx512 and m.bits == 32 else m.root(z)
    base = m.select(near, size, root)
    return Arc(near, base, lost, m.mul(m.mul(base, z), polynomial(m, "asin", z)))


def _corrected(m: Real, arc: Arc) -> str:
    return m.add(arc.base, m.add(arc.lost, arc.tail) if arc.lost else arc.tail)


def asin(m: Real, x: str) -> str:
    """asin(base), or pi/2 - 2 asin(base); NaN beyond 1 comes from the root."""
    arc = _arc(m, x)
    high, low = QUARTER_PI[m.bits == 64]
    far = m.sub(2 * high, m.sub(m.mul(2.0, _corrected(m, arc)), 2 * low))
    result = m.copysign(m.select(arc.near, m.add(arc.base, arc.tail), far), x)
    return keep_tiny(m, x, result, limit=2.0 ** (-m.mantissa / 2 - 2))


def acos(m: Real, x: str) -> str:
    """pi/2 - asin(x) near 0, 2 asin(s) near 1, pi - 2 asin(s) near -1."""
    arc = _arc(m, x)
    high, low = QUARTER_PI[m.bits == 64]
    middle = m.sub(2 * high, m.sub(x, m.sub(2 * low, m.copysign(arc.tail, x))))
    corrected = _corrected(m, arc)
    twice = m.add(corrected, corrected)
    left = m.sub(4 * high, m.sub(twice, 4 * low))
    return m.select(arc.near, middle, m.select(m.compare("olt", x, 0.0), left, twice))


def atan(m: Real, x: str) -> str:
    result = _angle(m, m.abs(x), m.real(1.0))
    return keep_tiny(m, x, m.copysign(result, x), limit=2.0 ** (-m.mantissa / 2 - 2))


def _angle(m: Real, a: str, b: str, *, turned_back: str | None = None) -> str:
    """atan(a/b) for a, b >= 0 and not both 0 or infinite; pi minus it where `turned_back` holds.

    With p the lesser and q the greater of a and b, atan(p/q) is near 0 or pi/4 + atan((p - q)/(p + q)); the answer is a
    whole number k of quarter turns plus or minus that, all in one sum.
    """
    steep = m.compare("ogt", a, b)
    p, q = m.select(steep, b, a), m.select(steep, a, b)
    wide = m.compare("ogt", p, m.mul(q, math.tan(math.pi / 8)))
    t = m.div(m.select(wide, m.sub(p, q), p), m.select(wide, m.add(p, q), q))
    z = m.mul(t, t)
    tail = m.mul(m.mul(t, z), polynomial(m, "atan", z))
    quarters, direction = m.select(wide, 1.0, 0.0), m.real(1.0)
    quarters = m.select(steep, m.sub(2.0, quarters), quarters)
    direction = m.select(steep, -1.0, direction)
    if turned_back:
        quarters = m.select(turned_back, m.sub(4.0, quarters), quarters)
        direction = m.select(turned_back, m.neg(direction), direction)
    high, low = QUARTER_PI[m.bits == 64]
    total = m.fast_two_sum(m.mul(quarters, high), m.mul(direction, t))
    rest = m.fma(direction, tail, m.fma(quarters, low, total.low))
    if not turned_back:
        return m.add(total.high, rest)
    # Three quarter turns do not fit the format: what their product lost belongs to the rest.
    return m.add(total.high, m.add(rest, m.residual(m.mul(quarters, high), quarters, high)))


def atan2(m: Real, y: str, x: str) -> str:
    a, b = m.abs(y), m.abs(x)
    larger = m.select(m.compare("ogt", a, b), a, b)
    usual = m.both(m.compare("ogt", larger, 0.0), m.compare("olt", larger, m.largest / 4))
    unusual = m.lanes.binary("xor", "i1", usual, m.lanes.literal("i1", 1))
    vector = m.lanes.vector(m.kind)
    a, b = m.lanes.function.choose(m.lanes.any(unusual), (vector, vector), lambda: _comparable(m, a, b, larger),
                                   lambda: [a, b])
    back = m.bit_compare("slt", m.to_bits(x), 0)
    result = m.copysign(_angle(m, a, b, turned_back=back), y)
    return m.select(m.compare("uno", x, y), m.add(x, y), result)


def _comparable(m: Real, a: str, b: str, larger: str) -> list[str]:
    """(a, b) with the same angle, both finite and their sum too, and not both 0."""
    both_infinite = m.both(m.compare("oeq", a, math.inf), m.compare("oeq", b, math.inf))
    a, b = m.select(both_infinite, 1.0, a), m.select(both_infinite, 1.0, b)
    large = m.compare("ogt", larger, m.largest / 4)
    a, b = (m.select(large, m.mul(value, 0.25), value) for value in (a, b))
    return [a, m.select(m.compare("oeq", larger, 0.0), 1.0, b)]
