"""Running sums and products along an axis, by NumPy's names."""

from __future__ import annotations

from typing import Any

from ..ir import build
from ..ir.build import Operand
from ..ir.node import Node
from .operands import as_node, axis_of, dtype_of
from .reductions import summed_dtype


def cumsum(x: Operand, axis: int | None = None, dtype: Any = None) -> Node:
    """Sums of all elements up to each, along an axis or of the flat array.

    >>> print(gc.cumsum([[1.0, 2.0], [3.0, 4.0]], axis=1).type)
    float64[2, 2]
    """
    node, k = running("cumsum", x, axis, dtype)
    return build.linear_scan(build.ones(node.dtype, node.shape, node.graph), node, k)


def cumprod(x: Operand, axis: int | None = None, dtype: Any = None) -> Node:
    """Products of all elements up to each, along an axis or of the flat array.

    >>> print(gc.cumprod([[1.0, 2.0], [3.0, 4.0]], axis=1).type)
    float64[2, 2]
    """
    node, k = running("cumprod", x, axis, dtype)
    # y[i] = x[i]*y[i-1] + b[i], where only b[0] = x[0] is not zero and meets y[-1] = 0.
    shape = tuple(1 if a == k else size for a, size in enumerate(node.shape))
    if isinstance(node.shape[k], int) and node.shape[k] == 0:
        return node
    first = build.slice_(node, (0,) * node.ndim, (1,) * node.ndim, shape)
    start = build.pad(first, (0,) * node.ndim, (1,) * node.ndim, node.shape)
    inner = build.slice_(node, tuple(int(a == k) for a in range(node.ndim)), (1,) * node.ndim,
                         tuple(size - 1 if a == k else size for a, size in enumerate(node.shape)))
    factors = build.pad(inner, tuple(int(a == k) for a in range(node.ndim)), (1,) * node.ndim, node.shape)
    return build.linear_scan(factors, start, k)


def running(name: str, x: Operand, axis: int | None, dtype: Any) -> tuple[Node, int]:
    """The operand in the dtype of its sums, and the axis."""
    node = as_node(x)
    node = build.cast(node, summed_dtype(node.dtype) if dtype is None else dtype_of(name, dtype))
    if axis is None:
        return build.reshape(node, (node.size,)), 0
    return node, axis_of(name, axis, node.ndim, (node,))
