"""Reductions, by NumPy's names, axes and dtypes: sums of small integers are int64, means of integers float64.

`axis` is None (all axes), an int, or a tuple of ints; `keepdims` keeps reduced axes with size 1.  float16 and bfloat16
are accumulated in float32.
"""

from __future__ import annotations

import math
from typing import Any

from ..ir import build
from ..ir.build import Operand
from ..ir.dims import Dim, product
from ..ir.errors import DTypeError
from ..ir.node import Node, make
from ..ir.types import is_float
from .movement import expand_dims, reshape
from .operands import Axis, as_node, axes_of, axis_of, dtype_of, refusal


def reduced(name: str, x: Node, axes: tuple[int, ...], *, keepdims: bool) -> Node:
    result = build.reduce(name, x, axes)
    return expand_dims(result, tuple(sorted(axes))) if keepdims else result


def summed_dtype(dtype: str) -> str:
    """NumPy's dtype of a sum: integers of less than 64 bits are added in 64."""
    if is_float(dtype):
        return dtype
    return "uint64" if dtype.startswith("uint") else "int64"


def sum(x: Operand, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Node:
    """The sum over axes.

    >>> print(gc.sum([[1.0, 2.0], [3.0, 4.0]], axis=0).type)
    float64[2]
    """
    return accumulated("sum", x, axis, dtype, keepdims)


def prod(x: Operand, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Node:
    """The product over axes.

    >>> print(gc.prod(gc.constant([[1, 2], [3, 4]], "int32"), axis=0).type)
    int64[2]
    """
    return accumulated("prod", x, axis, dtype, keepdims)


def accumulated(name: str, x: Operand, axis: Axis, dtype: Any, keepdims: bool) -> Node:
    node = as_node(x)
    target = summed_dtype(node.dtype) if dtype is None else dtype_of(name, dtype)
    if target == "bool":
        return reduced({"sum": "any", "prod": "all"}[name], build.cast(node, "bool"),
                       axes_of(name, axis, node.ndim, (node,)), keepdims=keepdims)
    return reduced(name, build.cast(node, target), axes_of(name, axis, node.ndim, (node,)), keepdims=keepdims)


def count(x: Node, axes: tuple[int, ...]) -> int | Dim:
    """How many elements a reduction over the axes takes together."""
    return product([x.shape[a] for a in axes])


def size_as(size: int | Dim, dtype: str, graph: Any) -> Node:
    """A size as a scalar node; a symbolic one is counted at run time."""
    if isinstance(size, int):
        return build.scalar(float(size) if is_float(dtype) else size, dtype, graph)
    return build.cast(build.size_node(size, graph), dtype)


def mean(x: Operand, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Node:
    """The mean over axes; integers and bools become float64.

    >>> print(gc.mean([[1, 2], [3, 4]], axis=1).type)
    float64[2]
    """
    node = as_node(x)
    target = dtype_of("mean", dtype) if dtype is not None else node.dtype if is_float(node.dtype) else "float64"
    axes = axes_of("mean", axis, node.ndim, (node,))
    # A sum of float16 overflows where its mean does not.
    inner = "float32" if target in ("float16", "bfloat16") else target
    total = reduced("sum", build.cast(node, inner), axes, keepdims=keepdims)
    return build.cast(build.elementwise("div", total, size_as(count(node, axes), inner, node.graph)), target)


def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The greatest element over axes, NaN if there is one.  An empty axis is refused.

    >>> print(gc.max([[1.0, 2.0], [3.0, 4.0]], axis=0, keepdims=True).type)
    float64[1, 2]
    """
    node = as_node(x)
    return reduced("max", node, axes_of("max", axis, node.ndim, (node,)), keepdims=keepdims)


def min(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The least element over axes, NaN if there is one.  An empty axis is refused.

    >>> print(gc.min([[1.0, 2.0], [3.0, 4.0]], axis=0).type)
    float64[2]
    """
    node = as_node(x)
    return reduced("min", node, axes_of("min", axis, node.ndim, (node,)), keepdims=keepdims)


def any(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """Whether an element over axes is true (not 0).

    >>> print(gc.any([[True, False], [False, False]], axis=1).type)
    bool[2]
    """
    node = build.cast(as_node(x), "bool")
    return reduced("any", node, axes_of("any", axis, node.ndim, (node,)), keepdims=keepdims)


def all(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """Whether all elements over axes are true (not 0).

    >>> print(gc.all([[True, False], [False, False]], axis=1).type)
    bool[2]
    """
    node = build.cast(as_node(x), "bool")
    return reduced("all", node, axes_of("all", axis, node.ndim, (node,)), keepdims=keepdims)


def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Node:
    """The index of the first greatest element (of the first NaN, if there is one) along an axis, or of all; int64.

    >>> print(gc.argmax([[1.0, 2.0], [3.0, 4.0]], axis=1).type)
    int64[2]
    """
    return indexed("argmax", x, axis, keepdims)


def argmin(x: Operand, axis: int | None = None, keepdims: bool = False) -> Node:
    """The index of the first least element (of the first NaN, if there is one) along an axis, or of all; int64.

    >>> print(gc.argmin([[1.0, 2.0], [3.0, 4.0]], axis=1).type)
    int64[2]
    """
    return indexed("argmin", x, axis, keepdims)


def indexed(name: str, x: Operand, axis: int | None, keepdims: bool) -> Node:
    node = as_node(x)
    if axis is None:
        found = make(name, (build.reshape(node, (node.size,)),), axis=0)
        return reshape(found, (1,) * node.ndim) if keepdims else found
    k = axis_of(name, axis, node.ndim, (node,))
    found = make(name, (node,), axis=k)
    return expand_dims(found, k) if keepdims else found


def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """log(sum(exp(x))) over axes without overflow; -inf for rows of -inf, inf where there is an inf.

    >>> print(gc.logsumexp([[1000.0, 1000.0]], axis=1).type)
    float64[1]
    """
    node = as_node(x)
    node = build.cast(node, build.float_of(node.dtype))
    axes = axes_of("logsumexp", axis, node.ndim, (node,))
    top = build.elementwise("stop_gradient", build.reduce("max", node, axes))
    # A row whose maximum is infinite is not shifted: inf - inf would be NaN.
    shift = build.elementwise("where", build.elementwise("isfinite", top), top, 0)
    distance = build.elementwise("sub", node, spread(shift, node, axes))
    total = build.reduce("sum", build.elementwise("exp", distance), axes)
    result = build.elementwise("add", build.elementwise("log", total), shift)
    return expand_dims(result, axes) if keepdims else result


def spread(value: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """A reduction's result repeated along the axes that it dropped from x."""
    return build.broadcast(value, x.shape, tuple(k for k in range(x.ndim) if k not in axes))


def var(x: Operand, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Node:
    """The variance over axes: squared distances from the mean, divided by their number - ddof.

    >>> print(gc.var([[1.0, 2.0], [3.0, 4.0]], axis=0, ddof=1).type)
    float64[2]
    """
    node = as_node(x)
    target = node.dtype if is_float(node.dtype) else "float64"
    inner = "float32" if target in ("float16", "bfloat16") else target
    axes = axes_of("var", axis, node.ndim, (node,))
    node = build.cast(node, inner)
    distance = build.elementwise("sub", node, spread(mean(node, axes), node, axes))
    total = reduced("sum", build.elementwise("mul", distance, distance), axes, keepdims=keepdims)
    number = count(node, axes) - ddof
    if isinstance(number, int) and number < 0:
        number = 0  # as NumPy: a division by zero
    return build.cast(build.elementwise("div", total, size_as(number, inner, node.graph)), target)


def std(x: Operand, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Node:
    """The standard deviation over axes: the root of `var`.

    >>> print(gc.std([[1.0, 2.0], [3.0, 4.0]], axis=0).type)
    float64[2]
    """
    return build.elementwise("sqrt", var(x, axis, ddof, keepdims))


def norm(x: Operand, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Node:
    """The vector norm over axes: ord 1, 2, inf, -inf, 0, or another power.

    >>> print(gc.norm([[3.0, 4.0]], axis=1).type)
    float64[1]
    """
    node = as_node(x)
    node = build.cast(node, build.float_of(node.dtype))
    if isinstance(ord, str) or not isinstance(ord, (int, float)):
        raise refusal("norm", f"ord is a number (1, 2, math.inf ..), got {ord!r}", (node,), DTypeError)
    axes = axes_of("norm", axis, node.ndim, (node,))
    if ord == 2:
        return build.elementwise("sqrt", reduced("sum", build.elementwise("mul", node, node), axes, keepdims=keepdims))
    size = build.elementwise("abs", node)
    if math.isinf(ord):
        return reduced("max" if ord > 0 else "min", size, axes, keepdims=keepdims)
    if ord == 0:
        return reduced("sum", build.cast(build.elementwise("ne", node, 0), node.dtype), axes, keepdims=keepdims)
    if ord == 1:
        return reduced("sum", size, axes, keepdims=keepdims)
    total = reduced("sum", build.elementwise("pow", size, ord), axes, keepdims=keepdims)
    return build.elementwise("pow", total, 1 / ord)
