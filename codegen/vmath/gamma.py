"""log|Gamma(x)|, its derivative digamma and the higher ones, in double precision.

Between reductions every function is a polynomial near [1, 2] or Stirling's series beyond 8 or 10.  Negative arguments
are reflected, in a branch that is taken only if some lane has one.

lgamma is relatively accurate at its zeros 1 and 2.  Between the poles at negative arguments it crosses zero by
cancellation, and there, as at the negative zeros of digamma and of polygamma, only the absolute error is small.
"""

from __future__ import annotations

from fractions import Fraction
import math

from graphc.ir.errors import Unsupported

from . import coefficients, trig
from .logarithm import log as log_of, log_pair
from .real import Pair, Real

LOG_ROOT_TWO_PI = 0.9189385332046728
STIRLING_FROM = 8.0
DIGAMMA_SERIES_FROM = 10.0
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
TERMS = 12  # of the sum that comes before Euler and Maclaurin's series in polygamma
TAIL_TERMS = 12
LARGEST_ORDER = 100


def lgamma(m: Real, x: str) -> str:
    size = m.abs(x)
    positive = _lgamma_positive(m, size)
    negative = m.compare("olt", x, 0.0)
    vector = m.lanes.vector(m.kind)

    def reflected() -> list[str]:
        # log(pi / |x sin(pi x)|) - lgamma(|x|)
        quadrant, rest = _half_turns(m, x)
        sine = m.abs(trig._turn(m, trig.turned(m, quadrant, rest), ahead=0))
        # Where x^2 would vanish the first logarithm is -2 log|x|.
        tiny = m.compare("olt", size, 2.0**-100)
        log = log_of(m, m.select(tiny, size, m.div(math.pi, m.mul(sine, size))))
        log = m.mul(log, m.select(tiny, -2.0, 1.0))
        return [m.select(negative, _lgamma_pole(m, x, m.sub(log, positive)), positive)]

    result, = m.lanes.function.choose(m.lanes.any(negative), (vector,), reflected, lambda: [positive])
    return m.select(m.compare("oeq", size, math.inf), math.inf, result)


def _lgamma_pole(m: Real, x: str, result: str) -> str:
    whole = m.compare("oeq", m.intrinsic("trunc", x), x)
    return m.select(whole, math.inf, result)


def _half_turns(m: Real, x: str) -> trig.Angle:
    """pi x = n pi/2 + rest."""
    n, low_bits = m.nearest(m.select(m.compare("olt", m.abs(x), 2.0**50), m.add(x, x), 0.0))
    small = m.select(m.compare("olt", m.abs(x), 2.0**50), x, 0.0)
    rest = m.nfma(n, 0.5, small)
    twice = m.add(rest, rest)
    return low_bits, m.pair_product(Pair(twice, m.real(0.0)), m.pair_constant(*HALF_PI))


def _lgamma_positive(m: Real, x: str) -> str:
    """x >= 0: moved into [1.5, 2.5) by Gamma(x + 1) = x Gamma(x) below 8, Stirling's series from there on."""
    stirling = m.compare("oge", x, STIRLING_FROM)
    product, t = _moved(m, m.select(stirling, 2.0, x))
    low = m.compare("olt", x, 1.5)
    logarithm = log_pair(m, m.select(stirling, m.at_most(x, m.largest), product))
    near = _times_polynomial(m, m.two_product(t, m.add(t, 1.0)), "lgamma", t)
    signed = Pair(m.select(low, m.neg(logarithm.high), logarithm.high),
                  m.select(low, m.neg(logarithm.low), logarithm.low))
    small = m.add(*m.pair_sum(signed, near))
    small = m.select(m.compare("oeq", x, 0.0), math.inf, small)
    return m.select(stirling, _stirling(m, x, logarithm), small)


def _times_polynomial(m: Real, factor: Pair, name: str, x: str) -> Pair:
    """factor * P(x), its leading term exactly: the terms after it are small."""
    first, *others = coefficients.POLYNOMIALS[name][1]
    leading = m.two_product(factor.high, first)
    rest = m.mul(factor.high, m.mul(x, m.polynomial(x, others)))
    return Pair(leading.high, m.add(rest, m.fma(factor.low, first, leading.low)))


def _moved(m: Real, x: str) -> tuple[str, str]:
    """(p, t) with t in [-1/2, 1/2): Gamma(x) = Gamma(2 + t) * p, or Gamma(2 + t)/p where x < 1.5; t is exact."""
    low = m.compare("olt", x, 1.5)
    very_low = m.compare("olt", x, 0.5)
    place = m.select(low, 2.0, x)
    product = m.select(low, m.select(very_low, m.mul(x, m.add(x, 1.0)), x), 1.0)
    for _ in range(6):
        above = m.compare("oge", place, 2.5)
        less = m.sub(place, 1.0)
        place = m.select(above, less, place)
        product = m.select(above, m.mul(product, less), product)
    short = m.sub(x, m.select(very_low, 0.0, 1.0))
    return product, m.select(low, short, m.sub(place, 2.0))


def _stirling(m: Real, x: str, logarithm: Pair) -> str:
    """(x - 1/2)(log x - 1) + (log(2 pi) - 1)/2 + sum B_2k / (2k (2k - 1) x^(2k - 1))."""
    inverse = m.div(1.0, x)
    series = m.mul(inverse, m.polynomial(m.mul(inverse, inverse), coefficients.STIRLING[:9]))
    less_one = m.two_sum(logarithm.high, -1.0)
    product = m.two_product(less_one.high, m.sub(x, 0.5))
    rest = m.fma(m.add(less_one.low, logarithm.low), m.sub(x, 0.5), product.low)
    rest = m.add(rest, m.add(series, LOG_ROOT_TWO_PI - 0.5))
    huge = m.compare("ogt", x, 2.0**900)  # the exact product's parts would overflow to NaN
    return m.select(huge, m.mul(less_one.high, x), m.add(product.high, rest))


# -- digamma --

def digamma(m: Real, x: str) -> str:
    """Reflected where x < 0: psi(x) = psi(1 - x) - pi cot(pi x); minus infinity at 0, NaN at the other poles."""
    negative = m.compare("olt", x, 0.0)
    positive = _digamma_positive(m, m.select(negative, m.sub(1.0, x), x))
    vector = m.lanes.vector(m.kind)

    def reflected() -> list[str]:
        cotangent = _cotangent(m, x)
        whole = m.compare("oeq", m.intrinsic("trunc", x), x)
        value = m.select(whole, math.nan, m.fma(-math.pi, cotangent, positive))
        return [m.select(negative, value, positive)]

    result, = m.lanes.function.choose(m.lanes.any(negative), (vector,), reflected, lambda: [positive])
    return m.select(_is_tiny(m, x), m.div(-1.0, x), result)


def _is_tiny(m: Real, x: str) -> str:
    """So near the pole at 0 that its first term is all there is; beyond, the cotangent cannot overflow."""
    return m.compare("olt", m.abs(x), 2.0**-60)


def _cotangent(m: Real, x: str) -> str:
    """cot(pi x)."""
    quadrant, rest = _half_turns(m, x)
    # cot(y) = -tan(y + pi/2)
    return m.neg(trig.tangent(m, m.bit("add", quadrant, 1), rest))


def _digamma_positive(m: Real, x: str) -> str:
    series = m.compare("oge", x, DIGAMMA_SERIES_FROM)
    safe = m.select(series, 1.5, x)
    below = m.compare("olt", safe, 1.0)
    place = m.select(below, m.add(safe, 1.0), safe)
    top, bottom = m.select(below, -1.0, 0.0), m.select(below, safe, 1.0)
    for _ in range(8):  # the sum of 1/(place - k) as one fraction
        above = m.compare("oge", place, 2.0)
        less = m.sub(place, 1.0)
        top = m.select(above, m.fma(top, less, bottom), top)
        bottom = m.select(above, m.mul(bottom, less), bottom)
        place = m.select(above, less, place)
    zero = coefficients.DIGAMMA_ZERO
    distance = m.fast_two_sum(m.sub(place, zero[0]), -zero[1])
    value = _times_polynomial(m, distance, "digamma", m.sub(place, 1.5))
    quotient = m.two_sum(m.div(top, bottom), value.high)
    near = m.add(quotient.high, m.add(quotient.low, value.low))
    large = m.select(series, x, 10.0)
    inverse = m.div(1.0, large)
    z = m.mul(inverse, inverse)
    tail = m.fma(z, m.polynomial(z, coefficients.DIGAMMA_TAIL[:8]), m.mul(inverse, 0.5))
    return m.select(series, m.sub(log_of(m, large), tail), near)


# -- polygamma --

def polygamma(m: Real, x: str, order: int | None) -> str:
    """The derivative of digamma of that order: (-1)^(n+1) n! zeta(n + 1, x), reflected where x < 0."""
    if order is None or not 1 <= order <= LARGEST_ORDER:
        raise Unsupported(f"polygamma: order {order!r} in code generation; there are 1 to {LARGEST_ORDER}")
    negative = m.compare("olt", x, 0.0)
    place = m.select(negative, m.sub(1.0, x), x)
    sign = 1.0 if order % 2 else -1.0
    positive = _hurwitz(m, place, order)
    vector = m.lanes.vector(m.kind)

    def reflected() -> list[str]:
        # (-1)^n psi_n(1 - x) - psi_n(x) = pi d^n/dx^n cot(pi x)
        cotangent = _cotangent(m, x)
        slope = m.polynomial(cotangent, cotangent_derivative(order))
        value = m.sub(m.neg(positive), slope)
        whole = m.compare("oeq", m.intrinsic("trunc", x), x)
        pole = math.inf if order % 2 else math.nan
        return [m.select(negative, m.select(whole, pole, value), m.mul(positive, sign))]

    result, = m.lanes.function.choose(m.lanes.any(negative), (vector,), reflected, lambda: [m.mul(positive, sign)])
    pole = m.mul(_inverse_power(m, x, order + 1), float(math.factorial(order)) * sign)
    return m.select(_is_tiny(m, x), pole, result)


def cotangent_derivative(order: int) -> list[float]:
    """Coefficients in c = cot(pi x) of pi d^n/dx^n c: each derivative is -pi (1 + c^2) d/dc."""
    poly = [0, 1]
    for _ in range(order):
        slope = [k * c for k, c in enumerate(poly)][1:]
        poly = [-a - b for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return [float(c) * math.pi ** (order + 1) for c in poly]


def _hurwitz(m: Real, x: str, order: int) -> str:
    """n! zeta(n + 1, x) for x > 0 by Euler and Maclaurin: terms up to x + TERMS, then the integral and corrections."""
    s = order + 1
    far = m.compare("oge", x, float(TERMS))
    end = m.select(far, x, m.add(x, float(TERMS)))
    inverse = m.div(1.0, end)
    z = m.mul(inverse, inverse)
    # end^(1-s) (1/(s-1) + 1/(2 end) + sum B_2j/(2j)! s(s+1)..(s+2j-2) / end^(2j))
    corrections = m.fma(z, m.polynomial(z, euler_maclaurin(s)), m.fma(inverse, 0.5, 1.0 / (s - 1)))
    tail = total = m.mul(_inverse_power(m, end, s - 1), corrections)
    lost: str = m.real(0.0)
    for k in reversed(range(TERMS)):  # the least first
        total, error = m.two_sum(total, _inverse_power(m, m.add(x, float(k)) if k else x, s))
        lost = m.add(lost, error)
    total = m.select(far, tail, m.add(total, lost))
    return m.mul(total, float(math.factorial(order)))


def euler_maclaurin(s: int) -> list[float]:
    """B_2j/(2j)! * s(s+1)...(s+2j-2)."""
    bernoulli = bernoulli_numbers(2 * TAIL_TERMS)
    result, rising = [], Fraction(s)
    for j in range(1, TAIL_TERMS + 1):
        result.append(float(bernoulli[2 * j] / math.factorial(2 * j) * rising))
        rising *= (s + 2 * j - 1) * (s + 2 * j)
    return result


def bernoulli_numbers(last: int) -> list[Fraction]:
    numbers = [Fraction(1)]
    for n in range(1, last + 1):
        numbers.append(-sum((math.comb(n + 1, k) * b for k, b in enumerate(numbers)), Fraction(0)) / (n + 1))
    return numbers


def _inverse_power(m: Real, x: str, exponent: int) -> str:
    """x^-exponent by squaring, divided last so that one rounding of the inverse is not multiplied."""
    result, base = "", x
    while exponent:
        if exponent & 1:
            result = m.mul(result, base) if result else base
        exponent >>= 1
        if exponent:
            base = m.mul(base, base)
    return m.div(1.0, result)
