"""Small programs over static shapes, by hand and at random, for tests of straight-line code."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.ir.node import Node
import numpy as np

Program = tuple[list[Node], list[Node]]  # inputs, fetches

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 1e-310, -3.5, 800.0, -800.0, 1e22)


def leaf(name: str, *shape: int, dtype: str = "float64") -> Node:
    return gc.placeholder(dtype, shape, name=name)


def pendulum() -> Program:
    """The angles and rates of a double pendulum, and the Jacobian."""
    x = leaf("x", 4)
    a, b, u, v = (x[k] for k in range(4))
    d = a - b
    below = 3.0 - gc.cos(2.0 * d)
    first = (-3 * 9.81 * gc.sin(a) - 9.81 * gc.sin(a - 2.0 * b) - 2.0 * gc.sin(d) * (v * v + u * u * gc.cos(d))) / below
    second = 2.0 * gc.sin(d) * (2.0 * u * u + 2 * 9.81 * gc.cos(a) + v * v * gc.cos(d)) / below
    rate = gc.stack([u, v, first, second])
    return [x], [rate, gc.jacobian(rate, x)]


def rotation() -> Program:
    """A vector turned by a unit quaternion."""
    q, v = leaf("q", 4), leaf("v", 3)
    w, p = q[0] / gc.sqrt(gc.sum(q * q)), q[1:] / gc.sqrt(gc.sum(q * q))
    t = 2.0 * cross(p, v)
    return [q, v], [v + w * t + cross(p, t)]


def cross(a: Node, b: Node) -> Node:
    return gc.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def network() -> Program:
    x, w, b = leaf("x", 5, dtype="float32"), leaf("w", 7, 5, dtype="float32"), leaf("b", 7, dtype="float32")
    h = gc.tanh((w @ x + b) * 0.1)
    return [x, w, b], [h, gc.jacobian(h, x), gc.max(h), gc.nn.softmax(h)]


def masks() -> Program:
    x, y = leaf("x", 2, 3), leaf("y", 2, 3)
    larger = gc.logical_and(x > y, gc.isfinite(x))
    rounded = gc.cast(gc.floor(x * 8.0), "int32")
    return [x, y], [larger, gc.where(larger, x, y), rounded + 3, rounded % 5, gc.any(larger, axis=0), gc.min(x, axis=1)]


def movement() -> Program:
    x = leaf("x", 3, 4)
    table = gc.constant([2, 0, -1, 1])
    return [x], [x.T, x[::-1, 1:3] * 2.0, gc.take(x, table, axis=1), gc.pad(x, ((1, 0), (0, 2))), gc.cumsum(x, axis=0),
                 gc.prod(x, axis=1), gc.reshape(x + 1.0, (2, 6)), gc.broadcast_to(x[:1], (2, 4)) + 1.0]


def traced() -> Program:
    x, y = leaf("x", 3), leaf("y", 3)
    function = gc.elementwise(lambda m, a, b: m.where(a > b, m.sin(a) * 2.0, m.exp(-b)))
    return [x, y], [function(x, y), gc.gradients(gc.sum(function(x, y)), [x])[0]]


PROGRAMS: dict[str, Callable[[], Program]] = {
    "pendulum": pendulum, "rotation": rotation, "network": network, "masks": masks, "movement": movement,
    "traced": traced,
}

UNARY = ("tanh", "sin", "cos", "exp", "abs", "negative", "square", "sigmoid", "floor", "sign", "arctan", "log1p",
         "sqrt", "cosh")
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "arctan2", "hypot")


def moved(x: Node, y: Node, which: int) -> Node:
    return [lambda: x[::-1], lambda: gc.concatenate([x[1:], y[:1]]), lambda: gc.cumsum(gc.tanh(x)),
            lambda: x * gc.max(y), lambda: gc.outer(x, y)[0]][which]()


def random_program(seed: int) -> Program:
    """Elementwise ops, movement and sums over vectors of up to 7 elements."""
    rng = np.random.default_rng([seed, 77])
    size = int(rng.integers(1, 8))
    inputs = [leaf("x", size), leaf("y", size)]
    nodes = list(inputs)
    for _ in range(14):
        x, y = (nodes[int(rng.integers(max(0, len(nodes) - 6), len(nodes)))] for _ in range(2))
        step = int(rng.integers(0, 6))
        if step < 2:
            name = str(rng.choice(UNARY))
            made = getattr(gc, name)(gc.tanh(x) if name in ("exp", "cosh") else x)
        elif step < 4:
            made = getattr(gc, str(rng.choice(BINARY)))(x, y)
        elif step == 4:
            made = gc.where(x > y * 0.5, x, gc.roll(y, 1)) + gc.tanh(gc.sum(gc.tanh(y)))
        else:
            made = moved(x, y, int(rng.integers(0, 5)))
        nodes.append(made)
    return inputs, [nodes[-1], nodes[-3], gc.sum(nodes[-2])]
