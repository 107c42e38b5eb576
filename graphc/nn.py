"""Layers and losses, composed of other ops: nothing below the graph knows them."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

from . import init, random
from .functions import contractions, creation, logic, movement, real, reductions
from .ir.errors import DTypeError, GraphError, ShapeError, user_line
from .ir.node import Node, default_graph
from .ir.types import is_float, is_integer, shape_text


def relu(x: Node) -> Node:
    """max(x, 0) for every element, of x's shape; its derivative at 0 is 0, and NaN stays NaN.

    Example::

        >>> import graphc as gc
        >>> gc.nn.relu(gc.constant([-1.0, 2.0])).shape
        (2,)
    """
    return real.relu(x)


def sigmoid(x: Node) -> Node:
    """1 / (1 + exp(-x)) for every element, of x's shape."""
    return real.sigmoid(x)


def softplus(x: Node) -> Node:
    """log(1 + exp(x)) for every element, without overflow."""
    return real.softplus(x)


def gelu(x: Node, approximate: bool = True) -> Node:
    """x times the normal distribution function (Hendrycks and Gimpel 2016, eq. 2), or its tanh approximation."""
    if approximate:
        return 0.5 * x * (1.0 + real.tanh(sqrt(2.0 / pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1.0 + real.erf(x * sqrt(0.5)))


def log_softmax(x: Node, axis: int = -1) -> Node:
    """x - logsumexp(x) along `axis`, of x's shape."""
    shifted = x - real.stop_gradient(reductions.max(x, axis=axis, keepdims=True))
    return shifted - real.log(reductions.sum(real.exp(shifted), axis=axis, keepdims=True))


def softmax(x: Node, axis: int = -1) -> Node:
    """exp(x) / sum(exp(x)) along `axis`, of x's shape, without overflow.

    Example::

        >>> import graphc as gc
        >>> gc.nn.softmax(gc.placeholder("float32", ("n", 3))).type.dtype
        'float32'
    """
    e = real.exp(x - real.stop_gradient(reductions.max(x, axis=axis, keepdims=True)))
    return e * (1.0 / reductions.sum(e, axis=axis, keepdims=True))  # one quotient per row; the sum is at least 1


def softmax_cross_entropy(logits: Node, labels: Node) -> Node:
    """Cross-entropy of softmax(logits) against labels, one value per row: float of shape logits.shape[:-1].

    labels: integers of shape logits.shape[:-1], classes counted from 0 (a label outside gives NaN), or probabilities
    of the shape of the logits.

    Example::

        >>> import graphc as gc
        >>> logits = gc.placeholder("float32", ("batch", 10))
        >>> gc.nn.softmax_cross_entropy(logits, gc.placeholder("int32", ("batch",))).type
        Type(dtype='float32', shape=(batch,))
    """
    if not is_float(logits.dtype) or logits.ndim == 0:
        raise DTypeError(f"softmax_cross_entropy: logits are floats of at least rank 1, got {logits.type}\n"
                         f"  at {user_line()}")
    if is_integer(labels.dtype):
        return integer_cross_entropy(logits, labels)
    if labels.ndim != logits.ndim:
        raise ShapeError(f"softmax_cross_entropy: probabilities have the logits' shape {shape_text(logits.shape)}, got "
                         f"{shape_text(labels.shape)}; class numbers are integers, got {labels.dtype}\n"
                         f"  at {user_line()}")
    return -reductions.sum(labels * log_softmax(logits), axis=-1)


def integer_cross_entropy(logits: Node, labels: Node) -> Node:
    if labels.ndim != logits.ndim - 1:
        raise ShapeError(f"softmax_cross_entropy: integer labels have shape {shape_text(logits.shape[:-1])}, got "
                         f"{shape_text(labels.shape)}\n  at {user_line()}")
    classes = logits.shape[-1]
    shifted = logits - real.stop_gradient(reductions.max(logits, axis=-1, keepdims=True))
    total = real.log(reductions.sum(real.exp(shifted), axis=-1))
    chosen = logic.equal(movement.expand_dims(labels, -1), creation.arange(classes, dtype=labels.dtype))
    own = reductions.sum(logic.where(chosen, shifted, 0.0), axis=-1)
    valid = logic.logical_and(labels >= 0, labels < classes) if isinstance(classes, int) else labels >= 0
    return logic.where(valid, total - own, float("nan"))


def sigmoid_cross_entropy(logits: Node, labels: Node) -> Node:
    """Cross-entropy of sigmoid(logits) against labels from [0, 1], one value per element."""
    return real.softplus(logits) - labels * logits


def layer_norm(x: Node, scale: Node | None = None, offset: Node | None = None, epsilon: float = 1e-5) -> Node:
    """(x - mean) / sqrt(variance + epsilon) along the last axis (Ba et al. 2016), times scale plus offset."""
    centred = x - reductions.mean(x, axis=-1, keepdims=True)
    result = centred * real.rsqrt(reductions.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    result = result if scale is None else result * scale
    return result if offset is None else result + offset


def dropout(x: Node, rate: float, state: Node) -> tuple[Node, Node]:
    """x with every element zero with probability `rate` and else divided by 1 - rate (Srivastava et al. 2014); and the
    state after, uint64 of shape (2,) as the state (see `graphc.random`).  A rate of 0 draws nothing.

    Example::

        >>> import graphc as gc
        >>> noise = gc.random.state(0)
        >>> y, after = gc.nn.dropout(gc.placeholder("float32", ("batch", 64)), 0.1, noise)
        >>> y.shape
        (batch, 64)
    """
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise GraphError(f"dropout: the rate is a number from 0 to below 1, got {rate!r:.40}\n  at {user_line()}")
    if not is_float(x.dtype):
        raise DTypeError(f"dropout: x is a float, got {x.type}\n  at {user_line()}")
    if rate == 0:
        return x, state
    kept, after = random.bernoulli(state, 1.0 - rate, x.shape)
    return logic.where(kept, x * (1.0 / (1.0 - rate)), 0.0), after


def dense(x: Node, units: int, activation: Callable[[Node], Node] | None = None, *, name: str = "dense", seed: int = 0,
          kernel: Any = None, bias: Any = True) -> Node:
    """activation(x @ kernel + bias): x of shape (..., n) gives (..., units).

    Declares the variables `name/kernel` of shape (n, units), by default from `init.he_normal`, and `name/bias`, by
    default zeros; `bias=False` leaves it out.

    Example::

        >>> import graphc as gc
        >>> with gc.Graph():
        ...     x = gc.placeholder("float32", ("batch", 4))
        ...     gc.nn.dense(x, 3, gc.nn.relu).shape
        (batch, 3)
    """
    width = x.shape[-1] if x.ndim else None
    if not isinstance(width, int):
        raise GraphError(f"dense: the last axis of {x.type} must have a known length\n  at {user_line()}")
    with x.graph, default_graph().name_scope(name):
        kernel = init.he_normal((width, units), seed=seed, dtype=x.dtype) if kernel is None else kernel
        weights = creation.variable(kernel, name="kernel")
        offset = None
        if bias is not False:
            offset = creation.variable(init.zeros((units,), x.dtype) if bias is True else bias, name="bias")
    y = contractions.matmul(x, weights)
    y = y if offset is None else y + offset
    return y if activation is None else activation(y)
