"""Published problems on which orders of elimination are compared, built with the public API.

`problem(name)` gives the ys, the xs, and a function that draws a point where the problem is well posed.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import numpy as np

import graphc as gc

Nodes = list[Any]
GAMMA = 0.5


class Problem(NamedTuple):
    ys: Nodes
    xs: Nodes
    point: Callable[[np.random.Generator], list[float]]


def roe_flux(x: Nodes) -> Nodes:
    """Roe's approximate flux of the Euler equations in one dimension, left and right state (density, momentum, energy)."""
    def side(density: Any, momentum: Any, energy: Any) -> tuple[Any, Any, Any]:
        speed = momentum / density
        pressure = (GAMMA - 1.0) * (energy - 0.5 * momentum ** 2 / density)
        return speed, pressure, (energy + pressure) / density

    (vl, pl, hl), (vr, pr, hr) = side(*x[:3]), side(*x[3:])
    root, left, right = gc.sqrt(x[0] * x[3]), gc.sqrt(x[0]), gc.sqrt(x[3])
    weight = left + right
    u, h = (left * vl + right * vr) / weight, (left * hl + right * hr) / weight
    a2 = (GAMMA - 1.0) * (h - 0.5 * u ** 2)
    a = gc.sqrt(a2)
    n, dp, dv = a * root, pr - pl, vr - vl
    c0 = ((x[3] - x[0]) - dp / a2) * gc.abs(u)
    c1, c2 = (dv + dp / n) * gc.abs(u + a), (dv - dp / n) * gc.abs(u)
    c = 0.5 * root / a
    d0 = c0 + c * c1 - c * c2
    d1 = c0 * u + c * c1 * (u + a) - c * c2 * (u - a)
    d2 = c0 * 0.5 * u ** 2 + c * c1 * (h + u * a) - c * c2 * (h - u * a)
    f0, f1 = x[1] + x[4], (pl + x[1] * vl) + (pr + x[4] * vr)
    f2 = vl * (pl + x[2]) + vr * (pr + x[5])
    return [0.5 * (f0 - d0), 0.5 * (f1 - d1), 0.5 * (f2 - d2)]


def robot_arm(t: Nodes) -> Nodes:
    """Position and angles of the hand of an arm with six joints."""
    a1, a2, a3, d1, d4, d6 = 175.0, 890.0, 50.0, 575.0, 1035.0, 185.0
    c1, c2, c3, c4, c5, c6 = map(gc.cos, t)
    s1, s2, s3, s4, s5, s6 = map(gc.sin, t)
    c23, s23 = c2 * c3 - s2 * s3, c2 * s3 + s2 * c3
    ax = s5 * (c1 * c23 * c4 + s1 * s4) + c1 * s23 * c5
    ay = s5 * (s1 * c23 * c4 - c1 * s4) + s1 * s23 * c5
    az = s23 * c4 * s5 - c23 * c5
    nz = c6 * (c23 * s5 + s23 * c4 * c5) - s23 * s4 * s6
    oz = -s6 * (c23 * s5 + s23 * c4 * c5) - s23 * s4 * c6
    reach = a1 + a2 * c2 + a3 * c23 + d4 * s23
    px = d6 * ax + c1 * reach
    py = d6 * (s5 * (s1 * c23 * c4 + c1 * s4) + s1 * s23 * c5) + s1 * reach
    pz = a2 * s2 + d1 + a3 * s23 - d4 * c23 + d6 * az
    return [px, py, pz, gc.atan2(ay, ax), gc.atan2(gc.sqrt(1.0 - az ** 2), az), gc.atan2(oz, -nz)]


def heart_dipole(x: Nodes) -> Nodes:
    """Two dipoles of the human heart from measurements."""
    x1, x2, x3, x4, x5, x6, x7, x8 = x
    a, b = x5 ** 2 - x7 ** 2, x6 ** 2 - x8 ** 2
    c, d = x5 * (x5 ** 2 - 3.0 * x7 ** 2), x7 * (x7 ** 2 - 3.0 * x5 ** 2)
    e, f = x6 * (x6 ** 2 - 3.0 * x8 ** 2), x8 * (x8 ** 2 - 3.0 * x6 ** 2)
    return [x1 + x2 - 1.0, x3 + x4 - 1.0,
            x5 * x1 + x6 * x2 - x7 * x3 - x8 * x4 - 1.0, x7 * x1 + x8 * x2 + x5 * x3 + x6 * x4 - 1.0,
            x1 * a - 2.0 * x3 * x5 * x7 + x2 * b - 2.0 * x4 * x6 * x8 - 1.0,
            x3 * a - 2.0 * x1 * x5 * x7 + x4 * b - 2.0 * x2 * x6 * x8 - 1.0,
            x1 * c + x3 * d + x2 * e + x4 * f - 1.0, x3 * c - x1 * d + x4 * e - x2 * f - 1.0]


def propane(x: Nodes) -> Nodes:
    """Combustion of propane in air, full formulation, pressure 40, air to fuel 10."""
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = x
    p, r = 40.0, 10.0
    root = gc.sqrt(p / x11)
    total = x11
    for one in x[:10]:
        total = total - one
    return [x1 + x4 - 3.0, 2.0 * x1 + x2 + x4 + x7 + x8 + x9 + 2.0 * x10 - r, 2.0 * x2 + 2.0 * x5 + x6 + x7 - 8.0,
            2.0 * x3 + x9 - 4.0 * r, x2 * x4 - x1 * x5, gc.sqrt(x2 * x4) - gc.sqrt(x1) * root * x6,
            gc.sqrt(x1 * x2) - gc.sqrt(x4) * x7 * root, x1 - x4 * x8 * p / x11, x1 * gc.sqrt(x3) - x4 * x9 * root,
            x1 ** 2 - x4 ** 2 * x10 * p / x11, total]


def black_scholes(x: Nodes) -> Nodes:
    """The price of a call: spot, strike, rate, volatility, time."""
    s, k, r, sigma, t = x
    forward = gc.exp(r * t) * s
    d1 = (gc.log(forward / k) + sigma ** 2 / 2.0 * t) / (sigma * gc.sqrt(t))
    d2 = d1 - sigma * gc.sqrt(t)
    return [gc.exp(-r * t) * (forward * normal(d1) - k * normal(d2))]


def normal(z: Any) -> Any:
    return (1.0 + gc.erf(z / math.sqrt(2.0))) / 2.0


def rosenbrock(x: Nodes) -> Nodes:
    total = None
    for a, b in zip(x, x[1:]):
        term = 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2
        total = term if total is None else total + term
    return [total]


def positive(count: int) -> Callable[[np.random.Generator], list[float]]:
    return lambda rng: list(rng.uniform(0.5, 1.5, count))


def roe_point(rng: np.random.Generator) -> list[float]:
    """With gamma = 1/2 a real speed of sound needs a negative energy."""
    density, momentum, energy = rng.uniform(0.5, 1.5, 2), rng.uniform(0.1, 0.5, 2), rng.uniform(4.0, 6.0, 2)
    left, right = zip(density, momentum, -energy)
    return [*left, *right]


PROBLEMS: dict[str, tuple[Callable[[Nodes], Nodes], int, Callable[[np.random.Generator], list[float]]]] = {
    "RoeFlux_1d": (roe_flux, 6, roe_point),
    "RobotArm_6DOF": (robot_arm, 6, positive(6)),
    "HumanHeartDipole": (heart_dipole, 8, positive(8)),
    "PropaneCombustion": (propane, 11, positive(11)),
    "BlackScholes": (black_scholes, 5, positive(5)),
    "Rosenbrock": (rosenbrock, 6, positive(6)),
}


def problem(name: str, graph: gc.Graph | None = None) -> Problem:
    """The problem in float64 on scalar placeholders of the default graph."""
    build, count, point = PROBLEMS[name]
    xs = [gc.placeholder("float64", ()) for _ in range(count)]
    return Problem(build(xs), xs, point)
