"""Optimisers: `minimize` gives updates, pairs (variable, new value) that are nodes of the graph.

    step = sess.function([x, t], loss, updates=gc.optim.Adam(1e-3).minimize(loss))

Their own state (momentum, moments, the number of steps) is in variables too, so it is saved and shipped like weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import init
from .functions import creation, real
from .derivatives import gradients
from .ir.errors import GraphError, user_line
from .ir.node import Graph, Node, ancestors, default_graph
from .ir.types import is_float

Updates = dict[Node, Node]
Rate = float | Node


def trainable(loss: Node) -> list[Node]:
    """The float variables that the loss depends on."""
    return [n for n in ancestors([loss]) if n.op.name == "variable" and is_float(n.dtype)]


@dataclass(frozen=True)
class Optimiser:
    """What all have in common: from a loss to updates."""

    learning_rate: Rate

    def minimize(self, loss: Node, variables: Sequence[Node] | None = None) -> Updates:
        """One step against the gradient of the scalar `loss` by `variables` (by default all that it depends on)."""
        chosen = trainable(loss) if variables is None else list(variables)
        if not chosen:
            raise GraphError(f"minimize: the loss depends on no float variable\n  at {user_line()}")
        return self.apply(list(zip(gradients(loss, chosen), chosen)))

    def apply(self, pairs: Sequence[tuple[Node, Node]]) -> Updates:
        """Updates from pairs (gradient, variable), for gradients that were clipped or averaged."""
        raise NotImplementedError

    def rate(self, variable: Node) -> Node | float:
        if isinstance(self.learning_rate, Node):
            return real.cast(self.learning_rate, variable.dtype)
        return self.learning_rate


def slot(variable: Node, kind: str) -> Node:
    """A variable of zeros beside another."""
    with variable.graph, default_graph().name_scope(kind):
        return creation.variable(init.zeros(variable.shape, variable.dtype), name=variable.name)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SGD(Optimiser):
    """Gradient descent with momentum: v = momentum v + g; w = w - rate v, or - rate (g + momentum v) with nesterov.

    Example::

        >>> import graphc as gc
        >>> with gc.Graph():
        ...     w = gc.variable([3.0], name="w")
        ...     updates = gc.optim.SGD(0.1).minimize((w * w).sum())
        ...     with gc.Session() as sess:
        ...         _ = sess.function([], [], updates=updates)()
        ...         round(float(sess.value(w)[0]), 6)
        2.4
    """

    learning_rate: Rate = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def apply(self, pairs: Sequence[tuple[Node, Node]]) -> Updates:
        updates: Updates = {}
        for gradient, variable in pairs:
            step = gradient
            if self.momentum:
                velocity = slot(variable, "momentum")
                updates[velocity] = self.momentum * velocity + gradient
                step = gradient + self.momentum * updates[velocity] if self.nesterov else updates[velocity]
            updates[variable] = variable - self.rate(variable) * step
        return updates


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba 2015, algorithm 1): epsilon is added to the square root of the corrected second moment."""

    learning_rate: Rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def apply(self, pairs: Sequence[tuple[Node, Node]]) -> Updates:
        graph = pairs[0][1].graph
        with graph, graph.name_scope("adam"):
            steps = creation.variable(np.zeros((), np.int64), name=graph_name(graph, "steps"))
        updates: Updates = {steps: steps + 1}
        count = real.cast(updates[steps], "float64")
        first_scale, second_scale = 1.0 / (1.0 - self.beta1 ** count), 1.0 / real.sqrt(1.0 - self.beta2 ** count)
        for gradient, variable in pairs:
            first, second = slot(variable, "adam_m"), slot(variable, "adam_v")
            updates[first] = self.beta1 * first + (1.0 - self.beta1) * gradient
            updates[second] = self.beta2 * second + (1.0 - self.beta2) * gradient * gradient
            rate = real.cast(self.rate(variable) * first_scale, variable.dtype)
            width = real.sqrt(updates[second]) * real.cast(second_scale, variable.dtype) + self.epsilon
            updates[variable] = variable - rate * updates[first] / width
        return updates


def graph_name(graph: Graph, name: str) -> str | None:
    """The name, or None (one is made) where it is taken already."""
    return None if graph.scope + name in graph.variables else name
