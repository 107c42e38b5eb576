"""Small programs as formulas over whatever scalars: nodes, CasADi expressions, or the names of a traced program.

A formula takes a sequence of scalars and a table of functions (sin, cos, tanh, sqrt), and returns a list of scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .formulas import arm_frames

Functions = dict[str, Callable[[Any], Any]]
GRAVITY = 9.81
INERTIA = (0.01, 0.012, 0.02)
RNG = np.random.default_rng(0)
LAYERS = [(RNG.standard_normal((n, m)) / m ** 0.5, RNG.standard_normal(n)) for m, n in ((8, 16), (16, 4))]


def arm(q: Sequence[Any], m: Functions) -> list[Any]:
    """The origin of the tool of an arm with six joints."""
    return [row[3] for row in arm_frames(q, m["sin"], m["cos"])[-1]]


def pendulum(x: Sequence[Any], m: Functions) -> list[Any]:
    """The rates of two equal pendulums, one hung from the other."""
    a, b, u, v = (x[k] for k in range(4))
    d = a - b
    sine, cosine = m["sin"](d), m["cos"](d)
    below = 3 - m["cos"](2 * d)
    first = -3 * GRAVITY * m["sin"](a) - GRAVITY * m["sin"](a - 2 * b) - 2 * sine * (v * v + u * u * cosine)
    second = 2 * sine * (2 * u * u + 2 * GRAVITY * m["cos"](a) + v * v * cosine)
    return [u, v, first / below, second / below]


def quadrotor(x: Sequence[Any], m: Functions) -> list[Any]:
    """The rates of position, velocity, attitude (a quaternion) and spin, from these and four thrusts."""
    v, (w, i, j, k), (p, q, r), u = x[3:6], x[6:10], x[10:13], x[13:17]
    thrust = u[0] + u[1] + u[2] + u[3]
    force = [2 * (i * k + w * j) * thrust, 2 * (j * k - w * i) * thrust, (1 - 2 * (i * i + j * j)) * thrust - GRAVITY]
    turn = [-0.5 * (i * p + j * q + k * r), 0.5 * (w * p + j * r - k * q), 0.5 * (w * q - i * r + k * p),
            0.5 * (w * r + i * q - j * p)]
    x_, y, z = INERTIA
    moments = [0.1 * (u[1] - u[3]), 0.1 * (u[2] - u[0]), 0.02 * (u[0] - u[1] + u[2] - u[3])]
    spin = [(moments[0] - (z - y) * q * r) / x_, (moments[1] - (x_ - z) * p * r) / y,
            (moments[2] - (y - x_) * p * q) / z]
    return [*v, *force, *turn, *spin]


def inverse(a: Sequence[Any], m: Functions) -> list[Any]:
    """Of a matrix of four rows, by minors of two."""
    rows = [a[4 * k:4 * k + 4] for k in range(4)]
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    upper, lower = ([r[i] * s[j] - s[i] * r[j] for i, j in pairs] for r, s in (rows[:2], rows[2:]))
    signs = (1, -1, 1, 1, -1, 1)
    terms = [upper[k] * lower[5 - k] for k in range(6)]
    scale = 1 / sum((t if s > 0 else -t for s, t in zip(signs[1:], terms[1:])), terms[0])
    found = []
    for column in range(4):
        others = [k for k in range(4) if k != column]
        for row in range(4):
            near, minors = (rows[1 - row], lower) if row < 2 else (rows[5 - row], upper)
            by = [minors[pairs.index((others[b], others[c]))] for b, c in ((1, 2), (0, 2), (0, 1))]
            value = near[others[0]] * by[0] - near[others[1]] * by[1] + near[others[2]] * by[2]
            found.append((value if (row + column) % 2 == 0 else -value) * scale)
    return found


def cross(x: Sequence[Any], m: Functions) -> list[Any]:
    a, b = x[:3], x[3:6]
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def rotation(x: Sequence[Any], m: Functions) -> list[Any]:
    """A vector turned by a quaternion, which is made a unit first."""
    size = 1 / m["sqrt"](sum((x[k] * x[k] for k in range(1, 4)), x[0] * x[0]))
    w, axis, vector = x[0] * size, [c * size for c in x[1:4]], x[4:7]
    twice = [2 * c for c in cross([*axis, *vector], m)]
    return [v + w * t + c for v, t, c in zip(vector, twice, cross([*axis, *twice], m))]


def network(x: Sequence[Any], m: Functions) -> list[Any]:
    """Two layers, 8-16-4, of fixed weights."""
    h = list(x)
    for number, (matrix, bias) in enumerate(LAYERS):
        h = [sum((float(c) * e for c, e in zip(row[1:], h[1:])), float(row[0]) * h[0]) + float(b)
             for row, b in zip(matrix, bias)]
        h = h if number else [m["tanh"](e) for e in h]
    return h


def rosenbrock(x: Sequence[Any], m: Functions) -> list[Any]:
    """The gradient, by hand."""
    n = len(x)
    t = [x[k + 1] - x[k] * x[k] for k in range(n - 1)]
    found = [-400 * x[k] * t[k] - 2 * (1 - x[k]) for k in range(n - 1)]
    return [found[0], *(200 * t[k - 1] + found[k] for k in range(1, n - 1)), 200 * t[n - 2]]
