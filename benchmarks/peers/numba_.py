"""Numba: loops as a Numba user would write them, derivatives by hand, fast mathematics allowed."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin
from typing import Any

import numba
from numba import njit
import numpy as np

from . import Case, Inputs, Table, calling
from .. import formulas

FAST: dict[str, Any] = {"fastmath": True}
LINKS = np.array([(length, round(cos(pi * twist / 180)), round(sin(pi * twist / 180)), offset)
                  for length, twist, offset in formulas.ARM])

version = lambda: numba.__version__


def loops(function: Callable[..., Any], *constants: Any) -> dict[str, Callable[[Inputs], Case]]:
    """Compiles anew for every case; scalars are passed as such."""
    def build(inputs: Inputs) -> Case:
        return calling(njit(**FAST)(function), *(a if a.ndim else a[()] for a in inputs.values()), *constants)
    return {"": build}


def scale(x: Any) -> Any:
    y = np.empty_like(x)
    for k in range(x.size):
        y[k] = x[k] * 2 + 1
    return y


def chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    y = np.empty_like(x)
    one = np.float32(1)
    for k in range(x.size):
        v = x[k]
        y[k] = np.tanh(a * v + b) / (one + np.exp(-c * v)) - np.exp(-v * v) / (one + abs(v))
    return y


def softmax(x: Any) -> Any:
    y = np.empty_like(x)
    for r in range(x.shape[0]):
        top = x[r].max()
        total = np.float32(0)
        for k in range(x.shape[1]):
            y[r, k] = np.exp(x[r, k] - top)
            total += y[r, k]
        y[r] *= np.float32(1) / total
    return y


def layernorm(x: Any, g: Any, b: Any) -> Any:
    y = np.empty_like(x)
    n = np.float32(x.shape[1])
    for r in range(x.shape[0]):
        mean = x[r].sum() / n
        square = np.float32(0)
        for k in range(x.shape[1]):
            square += (x[r, k] - mean) ** 2
        inverse = np.float32(1) / np.sqrt(square / n + np.float32(1e-5))
        for k in range(x.shape[1]):
            y[r, k] = (x[r, k] - mean) * inverse * g[k] + b[k]
    return y


def logsumexp(x: Any) -> Any:
    y = np.empty(x.shape[0], x.dtype)
    for r in range(x.shape[0]):
        top = x[r].max()
        total = np.float32(0)
        for k in range(x.shape[1]):
            total += np.exp(x[r, k] - top)
        y[r] = np.log(total) + top
    return y


def dense(x: Any, b: Any, W: Any) -> Any:
    y = np.dot(x, W)
    for r in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[r, k] = max(y[r, k] + b[k], np.float32(0))
    return y


def network_jacobian(x: Any, W0: Any, W1: Any, W2: Any, W3: Any) -> Any:
    one = x.dtype.type(1)
    h0 = np.tanh(np.dot(W0, x))
    h1 = np.tanh(np.dot(W1, h0))
    h2 = np.tanh(np.dot(W2, h1))
    inner = np.dot(W1 * (one - h0 * h0), W0)
    for r in range(inner.shape[0]):
        inner[r] *= one - h1[r] * h1[r]
    return np.dot(np.dot(W3 * (one - h2 * h2), W2), inner)


def rosenbrock_gradient(x: Any) -> Any:
    g = np.zeros_like(x)
    for k in range(x.size - 1):
        t = x[k + 1] - x[k] * x[k]
        g[k] += -400 * x[k] * t - 2 * (1 - x[k])
        g[k + 1] += 200 * t
    return g


def arm(q: Any, links: Any) -> Any:
    """The tool's frame and axis times lever for every joint."""
    T, J = np.zeros((3, 4)), np.empty((3, 6))
    axes, origins = np.empty((6, 3)), np.empty((6, 3))
    for r in range(3):
        T[r, r] = 1.0
    for k in range(6):
        axes[k], origins[k] = T[:, 2], T[:, 3]
        length, ct, st, offset = links[k, 0], links[k, 1], links[k, 2], links[k, 3]
        c, s = cos(q[k]), sin(q[k])
        for r in range(3):
            x, y, z, w = T[r, 0], T[r, 1], T[r, 2], T[r, 3]
            T[r, 0] = x * c + y * s
            T[r, 1] = -x * s * ct + y * c * ct + z * st
            T[r, 2] = x * s * st - y * c * st + z * ct
            T[r, 3] = x * length * c + y * length * s + z * offset + w
    for k in range(6):
        x, y, z = T[0, 3] - origins[k, 0], T[1, 3] - origins[k, 1], T[2, 3] - origins[k, 2]
        J[0, k] = axes[k, 1] * z - axes[k, 2] * y
        J[1, k] = axes[k, 2] * x - axes[k, 0] * z
        J[2, k] = axes[k, 0] * y - axes[k, 1] * x
    return T, J


CASES: Table = {
    "scale": loops(scale),
    "chain": loops(chain),
    "softmax": loops(softmax),
    "layernorm": loops(layernorm),
    "logsumexp": loops(logsumexp),
    "gemm": loops(lambda a, b: np.dot(a, b)),
    "dense": loops(dense),
    "jacobian": loops(network_jacobian),
    "rosenbrock": loops(rosenbrock_gradient),
    "arm": loops(arm, LINKS),
    "product": loops(lambda A, B, C, D, x: np.dot(np.dot(np.dot(np.dot(A, B), C), D), x)),
}
