"""NumPy references of the special functions that NumPy lacks: erf, erfc, lgamma, digamma, polygamma.

All of them compute in float64, whatever the operand's precision.  polygamma of order n (digamma is order 0):

    x >= 10 + n   asymptotic series in 1/x with the Bernoulli numbers
    0 < x         psi_n(x) = psi_n(x + 1) - (-1)^n n! / x^(n+1), until the series holds
    x < 0         psi_n(x) = (-1)^n psi_n(1 - x) - d^n/dx^n (pi cot(pi x))
    poles         +-0 as the one-sided limit, the negative integers NaN for even order and inf for odd order
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BERNOULLI = tuple(map(Fraction, ("1/6", "-1/30", "1/42", "-1/30", "5/66", "-691/2730", "7/6", "-3617/510",
                                 "43867/798", "-174611/330")))  # B2, B4, ..


def over_floats(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of one Python float, element by element."""
    each = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(each(np.asarray(x, np.float64)), np.float64)


def log_gamma(x: float) -> float:
    """log |gamma(x)|; +inf at the poles."""
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):
        return math.inf


erf = over_floats(math.erf)
erfc = over_floats(math.erfc)
lgamma = over_floats(log_gamma)


def digamma(x: Array) -> Array:
    return polygamma(0, x)


def polygamma(order: int, x: Array) -> Array:
    """The derivative of order + 1 of lgamma."""
    x = np.asarray(x, np.float64)
    odd = order % 2 == 1
    reflected = x < 0
    away = positive_polygamma(order, np.where(reflected, 1 - x, x))
    turned = (-away if odd else away) - cotangent_derivative(order, x - np.round(x))
    result = np.where(reflected, turned, away)
    result = np.where(reflected & (x == np.floor(x)), np.inf if odd else np.nan, result)
    at_zero = np.where(np.signbit(x), np.inf, -np.inf) if not odd else np.full_like(x, np.inf)
    return np.asarray(np.where(x == 0, at_zero, result))


def positive_polygamma(order: int, x: Array) -> Array:
    factorial = float(math.factorial(order))
    sign = -1.0 if order % 2 == 0 else 1.0
    shifted, rest = x.copy(), np.zeros_like(x)
    for _ in range(10 + order):
        low = shifted < 10 + order
        rest += np.where(low, sign * factorial / np.where(low, shifted, 1.0) ** (order + 1), 0.0)
        shifted = np.where(low, shifted + 1, shifted)
    return rest + asymptotic(order, shifted, sign)


def asymptotic(order: int, x: Array, sign: float) -> Array:
    inverse = 1 / x
    tail = np.zeros_like(x)
    for k in range(len(BERNOULLI), 0, -1):
        factor = BERNOULLI[k - 1] * math.factorial(2 * k + order - 1) / math.factorial(2 * k)
        tail = (tail + float(factor)) * inverse * inverse
    if order == 0:
        return np.log(x) - 0.5 * inverse - tail
    lead = math.factorial(order - 1) + 0.5 * math.factorial(order) * inverse
    return sign * (lead + tail) * inverse ** order


def cotangent_derivative(order: int, x: Array) -> Array:
    """d^n/dx^n of pi cot(pi x) = pi^(n+1) P_n(cot(pi x)), with P_0(c) = c and P_(n+1) = -(1 + c^2) P_n'."""
    polynomial = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(order):
        polynomial = np.polynomial.Polynomial([-1.0, 0.0, -1.0]) * polynomial.deriv()
    return np.asarray(math.pi ** (order + 1) * polynomial(1 / np.tan(math.pi * x)))
