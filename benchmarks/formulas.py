"""The mathematics of the workloads in NumPy: references, and what a NumPy user would write by hand.

Functions take arrays by the names of the workload's inputs, in whatever precision, and return a list of results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math
from math import cos, pi, sin
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

EPSILON = 1e-5
MLP = (784, 512, 256, 10)
PARAMETERS = ("W0", "b0", "W1", "b1", "W2", "b2")
RATE, BETA1, BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-8
FEATURES, HIDDEN = 8, 10
CELLS, DIFFUSION = 32, 10.0 * 32 ** 2
ARM = ((0.0, 90, 0.6718), (0.4318, 0, 0.0), (0.0203, -90, 0.15005), (0.0, 90, 0.4318), (0.0, -90, 0.0),
       (0.0, 0, 0.0563))
"""Length, twist in degrees and offset of each link of an arm like the PUMA 560 (Denavit and Hartenberg 1955)."""


# -- arrays --
def chain(x: Array, a: Array, b: Array, c: Array) -> list[Array]:
    return [np.tanh(a * x + b) / (1 + np.exp(-c * x)) - np.exp(-x * x) / (1 + np.abs(x))]


def softmax(x: Array) -> list[Array]:
    e = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return [e]


def layernorm(x: Array, g: Array, b: Array) -> list[Array]:
    centred = x - x.mean(-1, keepdims=True)
    return [centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + x.dtype.type(EPSILON)) * g + b]


def logsumexp(x: Array) -> list[Array]:
    top = x.max(-1)
    return [np.log(np.exp(x - top[:, None]).sum(-1)) + top]


def gelu_norm(x: Array, r: Array, g: Array, b: Array) -> list[Array]:
    """Layer norm of gelu(x) + r, gelu by the error function."""
    erf = np.array([math.erf(v) for v in (x / 2 ** 0.5).ravel().tolist()]).reshape(x.shape)
    return layernorm(x * (1 + erf) / 2 + r, g, b)


def dense(x: Array, W: Array, b: Array) -> list[Array]:
    return [np.maximum(x @ W + b, 0)]


# -- training --
def loss_and_gradients(parameters: Sequence[Array], x: Array, y: Array) -> tuple[Any, list[Array]]:
    """Cross-entropy of relu layers, and its derivatives by hand."""
    W0, b0, W1, b1, W2, b2 = parameters
    h0 = np.maximum(x @ W0 + b0, 0)
    h1 = np.maximum(h0 @ W1 + b1, 0)
    z = h1 @ W2 + b2
    z -= z.max(1, keepdims=True)
    e = np.exp(z)
    total, rows = e.sum(1, keepdims=True), np.arange(len(y))
    loss = (np.log(total[:, 0]) - z[rows, y]).mean()
    d2 = e / total
    d2[rows, y] -= 1
    d2 /= len(y)
    d1 = (d2 @ W2.T) * (h1 > 0)
    d0 = (d1 @ W1.T) * (h0 > 0)
    return loss, [x.T @ d0, d0.sum(0), h0.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0)]


def cross_entropy(z: Array, y: Array) -> list[Array]:
    """Mean cross-entropy of integer labels, and its gradient."""
    top, rows = z.max(1, keepdims=True), np.arange(len(y))
    e = np.exp(z - top)
    total = e.sum(1, keepdims=True)
    gradient = e / total
    gradient[rows, y] -= 1
    gradient /= len(y)
    return [(np.log(total[:, 0]) + top[:, 0] - z[rows, y]).mean(), gradient]


def adam(parameters: Sequence[Array], means: Sequence[Array], squares: Sequence[Array], gradients: Sequence[Array],
         step: int) -> None:
    """One step of Adam in place (Kingma and Ba 2015)."""
    rate, scale = RATE / (1 - BETA1 ** step), (1 - BETA2 ** step) ** -0.5
    for p, m, v, g in zip(parameters, means, squares, gradients):
        m *= BETA1
        m += (1 - BETA1) * g
        v *= BETA2
        v += (1 - BETA2) * (g * g)
        p -= rate * m / (np.sqrt(v) * scale + ADAM_EPSILON)


def first_update(p: Array, g: Array) -> list[Array]:
    """The parameters after one step of Adam from zero moments."""
    found = p.copy()
    adam([found], [np.zeros_like(p)], [np.zeros_like(p)], [g], 1)
    return [found]


def three_steps(x: Array, y: Array, **weights: Array) -> list[Array]:
    """The losses of three steps, and the norms of the parameters after them."""
    parameters = [weights[name].copy() for name in PARAMETERS]
    means, squares = [[np.zeros_like(p) for p in parameters] for _ in range(2)]
    losses = []
    for step in (1, 2, 3):
        loss, gradients = loss_and_gradients(parameters, x, y)
        adam(parameters, means, squares, gradients, step)
        losses.append(loss)
    return [np.array(losses), np.array([np.linalg.norm(p) for p in parameters])]


# -- derivatives --
def network_jacobian(x: Array, **weights: Array) -> list[Array]:
    """Of W3 tanh(W2 tanh(W1 tanh(W0 x))): the product from both ends to the narrow middle."""
    W0, W1, W2, W3 = (weights[f"W{k}"] for k in range(4))
    h0 = np.tanh(W0 @ x)
    h1 = np.tanh(W1 @ h0)
    h2 = np.tanh(W2 @ h1)
    inner = (1 - h1 * h1)[:, None] * ((W1 * (1 - h0 * h0)) @ W0)
    return [((W3 * (1 - h2 * h2)) @ W2) @ inner]


def regression_hessian(X: Array, y: Array, p: Array) -> list[Array]:
    """Of mean((tanh(X W + b) w - y)^2) by p = (W, b, w)."""
    n, split = len(y), FEATURES * HIDDEN
    W, b, w = p[:split].reshape(FEATURES, HIDDEN), p[split:split + HIDDEN], p[split + HIDDEN:]
    h = np.tanh(X @ W + b)
    residual, slope = h @ w - y, 1 - h * h
    ends = np.concatenate([X, np.ones((n, 1))], 1)
    dz = slope * w
    J = np.concatenate([(X[:, :, None] * dz[:, None, :]).reshape(n, -1), dz, h], 1)
    H = 2 / n * J.T @ J
    bend = 2 / n * residual[:, None] * (-2 * h * dz)
    for j in range(HIDDEN):
        at = np.r_[np.arange(FEATURES) * HIDDEN + j, split + j]
        H[np.ix_(at, at)] += ends.T @ (bend[:, j:j + 1] * ends)
        mixed = ends.T @ (2 / n * residual * slope[:, j])
        H[at, split + HIDDEN + j] += mixed
        H[split + HIDDEN + j, at] += mixed
    return [H]


def rosenbrock_gradient(x: Array) -> list[Array]:
    g = np.zeros_like(x)
    t = x[1:] - x[:-1] ** 2
    g[:-1] += -400 * x[:-1] * t - 2 * (1 - x[:-1])
    g[1:] += 200 * t
    return [g]


# -- robot arm --
def multiplied(a: Any, b: Any) -> Any:
    """a * b of whatever scalars, without the products by the numbers 0 and 1."""
    if 0 in [v for v in (a, b) if isinstance(v, (int, float))]:
        return 0
    if isinstance(a, (int, float)) and a == 1:
        return b
    return a if isinstance(b, (int, float)) and b == 1 else a * b


def total(terms: Sequence[Any]) -> Any:
    kept = [t for t in terms if not (isinstance(t, (int, float)) and t == 0)]
    return sum(kept[1:], kept[0]) if kept else 0


def arm_frames(q: Sequence[Any], sine: Callable[[Any], Any], cosine: Callable[[Any], Any]) -> list[list[list[Any]]]:
    """The frames of the joints and last the tool's: three rows of four scalars each, rotation and origin."""
    frame: list[list[Any]] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    frames = [frame]
    for angle, (length, twist, offset) in zip(q, ARM):
        c, s, ct, st = cosine(angle), sine(angle), round(cos(pi * twist / 180)), round(sin(pi * twist / 180))
        link = [[c, multiplied(-s, ct), multiplied(s, st), multiplied(length, c)],
                [s, multiplied(c, ct), multiplied(-c, st), multiplied(length, s)],
                [0, st, ct, offset]]
        frame = [[total([*(multiplied(row[k], link[k][j]) for k in range(3)), row[3] if j == 3 else 0])
                  for j in range(4)] for row in frame]
        frames.append(frame)
    return frames


def arm_and_jacobian(q: Array) -> list[Array]:
    """The tool's frame, and the Jacobian of its origin: axis times lever for every joint."""
    *joints, tool = (np.array(frame, float) for frame in arm_frames([float(v) for v in q], sin, cos))
    return [tool, np.stack([np.cross(frame[:, 2], tool[:, 3] - frame[:, 3]) for frame in joints], 1)]


# -- Brusselator --
def reaction_pattern(n: int = CELLS) -> tuple[Array, Array]:
    """Rows and columns of the entries, ordered by row, then by column; and the order that sorts the groups below."""
    cell = np.arange(n * n).reshape(n, n)
    around = [np.roll(cell, shift, axis).ravel() for shift in (1, -1) for axis in (0, 1)]
    u, v = cell.ravel(), cell.ravel() + n * n
    groups = [(u, u), (u, v), (v, u), (v, v), *((u, a) for a in around), *((v, a + n * n) for a in around)]
    rows, columns = (np.concatenate([group[k] for group in groups]) for k in (0, 1))
    return np.stack([rows, columns]), np.lexsort((columns, rows))


def reaction_entries(state: Array) -> list[Array]:
    """d(du)/du, d(du)/dv, d(dv)/du, d(dv)/dv of every cell, then the eight neighbours; sorted as the pattern says."""
    n = int((len(state) // 2) ** 0.5)
    u, v = state[:n * n], state[n * n:]
    diffusion = 10.0 * n * n
    local = [2 * u * v - 4.4 - 4 * diffusion, u * u, 3.4 - 2 * u * v, -u * u - 4 * diffusion]
    return [np.concatenate([*local, np.full(8 * n * n, diffusion)])[reaction_pattern(n)[1]]]
