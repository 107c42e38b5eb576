"""Prices a European call with all its first and second derivatives, and compares the greeks with their closed forms.

    python examples/black_scholes.py

The price is exp(-r T) (F N(d1) - K N(d2)) with F = S exp(r T) (Black and Scholes 1973, in the form of Black 1976).
"""

from __future__ import annotations

from math import erf, exp, log, pi, sqrt

import numpy as np

import graphc as gc

NAMES = ("S", "K", "r", "sigma", "T")
MARKET = (100.0, 110.0, 0.03, 0.25, 0.75)


def price(x: list[gc.Node]) -> gc.Node:
    spot, strike, rate, volatility, time = x
    deviation = volatility * gc.sqrt(time)
    forward = spot * gc.exp(rate * time)
    d1 = gc.log(forward / strike) / deviation + 0.5 * deviation
    return gc.exp(-rate * time) * (forward * normal(d1) - strike * normal(d1 - deviation))


def normal(d: gc.Node) -> gc.Node:
    return 0.5 * (1.0 + gc.erf(d * sqrt(0.5)))


def closed_form() -> dict[str, float]:
    """Delta, vega, gamma from the textbook."""
    s, k, r, v, t = MARKET
    d1 = (log(s / k) + (r + v * v / 2) * t) / (v * sqrt(t))
    density = exp(-d1 * d1 / 2) / sqrt(2 * pi)
    return {"delta": 0.5 * (1 + erf(d1 / sqrt(2))), "vega": s * density * sqrt(t), "gamma": density / (s * v * sqrt(t))}


def main() -> dict[str, float]:
    """Evaluates; returns the greeks that have closed forms."""
    with gc.Graph(), gc.Session() as sess:
        x = [gc.placeholder("float64", (), name=name) for name in NAMES]
        value = price(x)
        gradient = gc.gradients(value, x)
        hessian = gc.hessian(value, x)
        f = sess.function(x, [value, gc.stack(gradient), *(h for row in hessian for h in row)])
        result, first, *second = f(*MARKET)
        count = sum(gc.count_operations([value, *gradient]).values())
        print(f"{count} operations in the native code of the price and its gradient")
    matrix = np.array(second).reshape(5, 5)
    found = {"delta": float(first[0]), "vega": float(first[3]), "gamma": float(matrix[0, 0])}
    print(f"price {result:.6f}")
    for name, wanted in closed_form().items():
        print(f"{name:6} {found[name]:.12f}   closed form {wanted:.12f}")
    assert np.allclose(matrix, matrix.T, rtol=1e-10, atol=1e-12)
    return found


if __name__ == "__main__":
    main()
