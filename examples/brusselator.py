"""Solves the Brusselator, a stiff reaction with diffusion on a periodic square, by SciPy with a sparse Jacobian.

    python examples/brusselator.py [cells per side]

    u' = 1 + u^2 v - 4.4 u + a lap(u) + f      v' = 3.4 u - u^2 v + a lap(v)      a = 10 / spacing^2

where f = 5 inside a small disk from t = 1.1 on.  An implicit method needs the Jacobian of the right-hand side, 2 n^2 by
2 n^2 with six entries per row.  Two runs are compared: SciPy estimates it by differences from the pattern that the
compiler found (`jac_sparsity=`), or gets the exact entries from a compiled function (`jac=`).
"""

from __future__ import annotations

from dataclasses import dataclass
import itertools
import sys
import time
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

import graphc as gc

END, RTOL, ATOL = 4.0, 1e-5, 1e-7
Array = np.ndarray[Any, Any]


def neighbours(w: gc.Node) -> gc.Node:
    """The sum of the four neighbours on the periodic grid."""
    return gc.roll(w, 1, 0) + gc.roll(w, -1, 0) + gc.roll(w, 1, 1) + gc.roll(w, -1, 1)


def right_hand_side(n: int) -> tuple[gc.Node, gc.Node, gc.Node]:
    """Placeholders for t and the flat state, and the flat derivative of the state."""
    t = gc.placeholder("float64", (), name="t")
    state = gc.placeholder("float64", (2 * n * n,), name="state")
    u, v = gc.reshape(state, (2, n, n))
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    disk = np.where((x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.01, 5.0, 0.0)
    alpha = 10.0 * n * n
    reaction = u * u * v
    du = 1.0 + reaction - 4.4 * u + alpha * (neighbours(u) - 4.0 * u) + gc.where(t >= 1.1, 1.0, 0.0) * disk
    dv = 3.4 * u - reaction + alpha * (neighbours(v) - 4.0 * v)
    return t, state, gc.ravel(gc.stack([du, dv]))


def start(n: int) -> Array:
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    return np.stack([22 * (y * (1 - y)) ** 1.5, 27 * (x * (1 - x)) ** 1.5]).reshape(-1)


@dataclass
class Run:
    """What a solution took."""

    final: Array
    seconds: float
    evaluations: int
    jacobians: int

    def __str__(self) -> str:
        return f"{self.seconds:6.2f} s  {self.evaluations:5d} evaluations of f, {self.jacobians} Jacobians"


def solve(f: Any, initial: Array, **jacobian: Any) -> Run:
    """The state at the end, by backward differentiation formulas; evaluations for differences are counted too."""
    evaluations = itertools.count()

    def counted(t: float, y: Array) -> Array:
        next(evaluations)
        rate: Array = f(t, y)
        return rate

    began = time.perf_counter()
    found = solve_ivp(counted, (0.0, END), initial, method="BDF", rtol=RTOL, atol=ATOL, t_eval=[END], **jacobian)
    if not found.success:
        raise RuntimeError(f"solve_ivp: {found.message}")
    return Run(found.y[:, -1], time.perf_counter() - began, next(evaluations), found.njev)


def largest_difference(jacobian: gc.SparseJacobian, exact: Array, f: Any, state: Array) -> float:
    """Of the Jacobian times a direction against a central difference, relative to the largest."""
    direction = np.random.default_rng(0).normal(size=state.shape)
    step = 1e-6
    estimate = (f(2.0, state + step * direction) - f(2.0, state - step * direction)) / (2 * step)
    product = jacobian.to_scipy(exact) @ direction
    return float(abs(product - estimate).max() / abs(product).max())


def main(n: int = 16) -> tuple[Run, Run, float]:
    """Solves both ways; returns both runs and the relative difference of their final states."""
    t, state, rate = right_hand_side(n)
    jacobian = gc.sparse_jacobian(rate, state)
    print(jacobian.explain())
    initial = start(n)
    with gc.Session() as session:
        f, entries = session.function([t, state], rate), session.function([state], jacobian.data)
        error = largest_difference(jacobian, entries(initial), f, initial)
        print(f"against a central difference along a random direction: {error:.1e}")
        pattern = jacobian.to_scipy(np.ones(jacobian.nnz))
        estimated = solve(f, initial, jac_sparsity=pattern)
        exact = solve(f, initial, jac=lambda _, y: jacobian.to_scipy(entries(y)).tocsc())
    difference = float(abs(estimated.final - exact.final).max() / abs(exact.final).max())
    print(f"jac_sparsity= the pattern   {estimated}")
    print(f"jac= the exact entries      {exact}")
    print(f"the final states differ by {difference:.1e}")
    return estimated, exact, difference


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
