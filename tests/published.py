"""Published problems on which orders of elimination are compared, built with the public API.

`problem(name)` gives the ys, the xs, and a function that draws a point where the problem is well posed; `traced(name)`
the linearised graph of the same code without common subexpressions, on which the published figures were counted.
"""

from __future__ import annotations

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from passes.jacobian.scalar.graph import Dag, dag_of

Nodes = list[Any]
GAMMA = 0.5


class Problem(NamedTuple):
    ys: Nodes
    xs: Nodes
    point: Callable[[np.random.Generator], list[float]]


# Subexpressions are written out each time they occur, as in the publications: the graph merges them, `traced` does not.
def roe_flux(m: Any, x: Nodes) -> Nodes:
    """Roe's approximate flux of the Euler equations; left and right state are density, momentum, energy."""
    def pressure(density: Any, momentum: Any, energy: Any) -> Any:
        return (GAMMA - 1.0) * (energy - 0.5 * momentum ** 2 / density)

    def flux(density: Any, momentum: Any, energy: Any, p: Any) -> Nodes:
        v = momentum / density
        return [momentum, p + momentum * v, v * (p + energy)]

    left, right = x[:3], x[3:]
    pl, pr = pressure(*left), pressure(*right)
    vl, vr = left[1] / left[0], right[1] / right[0]
    hl, hr = (left[2] + pl) / left[0], (right[2] + pr) / right[0]
    root = m.sqrt(left[0] * right[0])
    weight = m.sqrt(left[0]) + m.sqrt(right[0])
    u = (m.sqrt(left[0]) * vl + m.sqrt(right[0]) * vr) / weight
    h = (m.sqrt(left[0]) * hl + m.sqrt(right[0]) * hr) / weight
    q2 = u ** 2
    a2 = (GAMMA - 1.0) * (h - 0.5 * q2)
    a = m.sqrt(a2)
    n, dp, dv = a * root, pr - pl, vr - vl
    c0 = ((right[0] - left[0]) - dp / a2) * m.abs(u)
    c1, c2 = (dv + dp / n) * m.abs(u + a), (dv - dp / n) * m.abs(u)
    c = 0.5 * root / a
    d = [c0 + c * c1 - c * c2, c0 * u + c * c1 * (u + a) - c * c2 * (u - a),
         c0 * 0.5 * q2 + c * c1 * (h + u * a) - c * c2 * (h - u * a)]
    return [0.5 * ((fl + fr) - one) for fl, fr, one in zip(flux(*left, pl), flux(*right, pr), d)]


def robot_arm(m: Any, t: Nodes) -> Nodes:
    """Position and angles of the hand of an arm with six joints."""
    a1, a2, a3, d1, d4, d6 = 175.0, 890.0, 50.0, 575.0, 1035.0, 185.0
    t1, t2, t3, t4, t5, t6 = t
    c1, c2, c4, c5, c6 = (m.cos(angle) for angle in (t1, t2, t4, t5, t6))
    s1, s2, s4, s5, s6 = (m.sin(angle) for angle in (t1, t2, t4, t5, t6))
    c23 = m.cos(t2) * m.cos(t3) - m.sin(t2) * m.sin(t3)
    s23 = m.cos(t2) * m.sin(t3) + m.sin(t2) * m.cos(t3)
    ax = s5 * (c1 * c23 * c4 + s1 * s4) + c1 * s23 * c5
    ay = s5 * (s1 * c23 * c4 - c1 * s4) + s1 * s23 * c5
    az = s23 * c4 * s5 - c23 * c5
    nz = c6 * (c23 * s5 + s23 * c4 * c5) - s23 * s4 * s6
    oz = -s6 * (c23 * s5 + s23 * c4 * c5) - s23 * s4 * c6
    px = d6 * (s5 * (c1 * c23 * c4 + s1 * s4) + c1 * s23 * c5) + c1 * (a1 + a2 * c2 + a3 * c23 + d4 * s23)
    py = d6 * (s5 * (s1 * c23 * c4 + c1 * s4) + s1 * s23 * c5) + s1 * (a1 + a2 * c2 + a3 * c23 + d4 * s23)
    pz = a2 * s2 + d1 + a3 * s23 - d4 * c23 + d6 * (s23 * c4 * s5 - c23 * c5)
    return [px, py, pz, m.atan2(ay, ax), m.atan2(m.sqrt(1.0 - az ** 2), az), m.atan2(oz, -nz)]


def heart_dipole(m: Any, x: Nodes) -> Nodes:
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


def propane(m: Any, x: Nodes) -> Nodes:
    """Combustion of propane in air, full formulation, pressure 40, air to fuel 10."""
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = x
    p, r = 40.0, 10.0
    root = m.sqrt(p / x11)
    total = x11
    for one in x[:10]:
        total = total - one
    return [x1 + x4 - 3.0, 2.0 * x1 + x2 + x4 + x7 + x8 + x9 + 2.0 * x10 - r, 2.0 * x2 + 2.0 * x5 + x6 + x7 - 8.0,
            2.0 * x3 + x9 - 4.0 * r, x2 * x4 - x1 * x5, m.sqrt(x2 * x4) - m.sqrt(x1) * root * x6,
            m.sqrt(x1 * x2) - m.sqrt(x4) * x7 * root, x1 - x4 * x8 * p / x11, x1 * m.sqrt(x3) - x4 * x9 * root,
            x1 ** 2 - x4 ** 2 * x10 * p / x11, total]


def black_scholes(m: Any, x: Nodes) -> Nodes:
    """The price of a call: spot, strike, rate, volatility, time."""
    def normal(z: Any) -> Any:
        return (1.0 + m.erf(z / math.sqrt(2.0))) / 2.0

    s, k, r, sigma, t = x
    forward = m.exp(r * t) * s
    d1 = (m.log(forward / k) + sigma ** 2 / 2.0 * t) / (sigma * m.sqrt(t))
    d2 = d1 - sigma * m.sqrt(t)
    return [m.exp(-r * t) * (forward * normal(d1) - k * normal(d2))]


def rosenbrock(m: Any, x: Nodes) -> Nodes:
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


PROBLEMS: dict[str, tuple[Callable[[Any, Nodes], Nodes], int, Callable[[np.random.Generator], list[float]]]] = {
    "RoeFlux_1d": (roe_flux, 6, roe_point),
    "RobotArm_6DOF": (robot_arm, 6, positive(6)),
    "HumanHeartDipole": (heart_dipole, 8, positive(8)),
    "PropaneCombustion": (propane, 11, positive(11)),
    "BlackScholes": (black_scholes, 5, positive(5)),
    "Rosenbrock": (rosenbrock, 6, positive(6)),
}


def problem(name: str) -> Problem:
    """The problem in float64 on scalar placeholders of the default graph."""
    build, count, point = PROBLEMS[name]
    xs = [gc.placeholder("float64", ()) for _ in range(count)]
    return Problem(build(gc, xs), xs, point)


# -- without common subexpressions --
class Trace:
    """The edges of straight-line code in which every operation that is written is a vertex."""

    def __init__(self) -> None:
        self.count = 0
        self.edges: list[tuple[int, int, str]] = []

    def put(self, *operands: tuple[Any, str]) -> Traced:
        result = Traced(self, self.count)
        self.count += 1
        for one, label in operands:
            if isinstance(one, Traced):
                self.edges.append((one.vertex, result.vertex, label))
        return result


class Traced:
    """A number of which only its vertex is known.  Has the operators and functions that the problems use."""

    def __init__(self, trace: Trace, vertex: int) -> None:
        self.trace, self.vertex = trace, vertex

    def __add__(self, other: Any) -> Traced:
        return self.trace.put((self, "unit"), (other, "unit"))

    __radd__ = __sub__ = __rsub__ = __add__

    def __mul__(self, other: Any) -> Traced:
        label = "value" if isinstance(other, Traced) else "constant"
        return self.trace.put((self, label), (other, label))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Traced:
        return self.trace.put((self, "value" if isinstance(other, Traced) else "constant"), (other, "value"))

    def __rtruediv__(self, other: Any) -> Traced:
        return self.trace.put((self, "value"))

    def __pow__(self, other: Any) -> Traced:
        return self.trace.put((self, "value"))

    def __neg__(self) -> Traced:
        return self.trace.put((self, "unit"))


class Functions:
    """Stands for the module of functions: a vertex for each call."""

    def __getattr__(self, name: str) -> Callable[..., Traced]:
        return lambda *operands: operands[0].trace.put(*((one, "value") for one in operands))


def traced(name: str) -> Dag:
    """The linearised graph of the problem as it is written."""
    build, count, _ = PROBLEMS[name]
    trace = Trace()
    xs = [trace.put() for _ in range(count)]
    ys = build(Functions(), xs)
    return dag_of(trace.count, trace.edges, range(count), [y.vertex for y in ys])
