"""Arithmetic, bits, comparisons and logic, by NumPy's names and rules.

Operands are nodes, Python numbers (weak), NumPy arrays or lists; they are promoted and broadcast as NumPy does.
"""

from __future__ import annotations

from ..ir import build
from ..ir.build import Operand
from ..ir.node import Node, uniform_value
from ..ir.types import dtype_name, is_float, is_integer
from .operands import as_node, refusal


def add(a: Operand, b: Operand) -> Node:
    """a + b, broadcast; bool + bool is or.

    >>> print(gc.add([[1.0], [2.0]], [1.0, 2.0, 3.0]).type)
    float64[2, 3]
    """
    return build.elementwise("add", a, b)


def subtract(a: Operand, b: Operand) -> Node:
    """a - b, broadcast.

    >>> print(gc.subtract(gc.constant([1], 'int32'), 2).type)
    int32[1]
    """
    return build.elementwise("sub", a, b)


def multiply(a: Operand, b: Operand) -> Node:
    """a * b, broadcast; bool * bool is and.

    >>> print(gc.multiply(gc.constant([1.0], 'float32'), 2.0).type)
    float32[1]
    """
    return build.elementwise("mul", a, b)


def divide(a: Operand, b: Operand) -> Node:
    """a / b, broadcast; integers become floats.

    >>> print(gc.divide([1, 2], 2).type)
    float64[2]
    """
    return build.elementwise("div", a, b)


def floor_divide(a: Operand, b: Operand) -> Node:
    """The floor of a / b, broadcast; for integers x // 0 is 0.

    >>> print(gc.floor_divide([7, -7], 2).type)
    int64[2]
    """
    return build.elementwise("floor_divide", a, b)


def mod(a: Operand, b: Operand) -> Node:
    """a - b*floor(a/b), broadcast: the sign is that of b; for integers x % 0 is 0.

    >>> print(gc.mod([7, -7], 2).type)
    int64[2]
    """
    return build.elementwise("mod", a, b)


def maximum(a: Operand, b: Operand) -> Node:
    """The greater of a and b, broadcast; NaN if one of them is. Ties share the derivative.

    >>> print(gc.maximum([1.0, 2.0], 1.5).type)
    float64[2]
    """
    return build.elementwise("maximum", a, b)


def minimum(a: Operand, b: Operand) -> Node:
    """The lesser of a and b, broadcast; NaN if one of them is. Ties share the derivative.

    >>> print(gc.minimum([1.0, 2.0], 1.5).type)
    float64[2]
    """
    return build.elementwise("minimum", a, b)


def copysign(a: Operand, b: Operand) -> Node:
    """The magnitude of a with the sign of b, broadcast; floats.

    >>> print(gc.copysign([1.0, 2.0], -1.0).type)
    float64[2]
    """
    return build.elementwise("copysign", a, b)


def hypot(a: Operand, b: Operand) -> Node:
    """sqrt(a*a + b*b) without overflow, broadcast; floats.

    >>> print(gc.hypot(3.0, [4.0, 5.0]).type)
    float64[2]
    """
    return build.elementwise("hypot", a, b)


def arctan2(a: Operand, b: Operand) -> Node:
    """The angle of the point (b, a), broadcast; floats in [-pi, pi].

    >>> print(gc.arctan2([1.0, -1.0], 1.0).type)
    float64[2]
    """
    return build.elementwise("atan2", a, b)


def negative(x: Operand) -> Node:
    """-x.

    >>> print(gc.negative([1, -2]).type)
    int64[2]
    """
    return build.elementwise("neg", x)


def absolute(x: Operand) -> Node:
    """|x|; its derivative at 0 is 0.

    >>> print(gc.absolute([1.0, -2.0]).type)
    float64[2]
    """
    return build.elementwise("abs", x)


def sign(x: Operand) -> Node:
    """-1, 0 or 1 by the sign of x; NaN stays NaN.

    >>> print(gc.sign([1.0, -2.0]).type)
    float64[2]
    """
    return build.elementwise("sign", x)


def positive(x: Operand) -> Node:
    """x itself.

    >>> print(gc.positive([1, -2]).type)
    int64[2]
    """
    return as_node(x)


def power(a: Operand, b: Operand) -> Node:
    """a ** b, broadcast.  Integers to negative powers are refused where the power is known; make one of them a float.

    >>> print(gc.power([1.0, 2.0], 2).type)
    float64[2]
    """
    base = as_node(a)
    exponent = b if isinstance(b, (int, float)) else uniform_value(b) if isinstance(b, Node) else None
    if exponent is not None and exponent < 0 and not is_float(base.dtype) and not (
            isinstance(exponent, float) or is_float(dtype_name(getattr(b, "dtype", "int64")))):
        raise refusal("power", f"an integer to the power {exponent} is not an integer; use a float", (base,))
    if type(b) in (int, float) and b == 2 and (is_float(base.dtype) or (is_integer(base.dtype) and type(b) is int)):
        return build.elementwise("mul", base, base)
    return build.elementwise("pow", a, b)


def square(x: Operand) -> Node:
    """x * x.

    >>> print(gc.square([1, 2]).type)
    int64[2]
    """
    x = as_node(x)
    return build.elementwise("mul", x, x)


def reciprocal(x: Operand) -> Node:
    """1 / x; integers become floats.

    >>> print(gc.reciprocal([1.0, 2.0]).type)
    float64[2]
    """
    return build.elementwise("div", 1, x)


def clip(x: Operand, min: Operand | None = None, max: Operand | None = None) -> Node:
    """x limited to [min, max], broadcast; where min > max the result is max.

    >>> print(gc.clip([1.0, 2.0, 3.0], 1.5, 2.5).type)
    float64[3]
    """
    low = as_node(x) if min is None else build.elementwise("maximum", x, min)
    return low if max is None else build.elementwise("minimum", low, max)


def logaddexp(a: Operand, b: Operand) -> Node:
    """log(exp(a) + exp(b)) without overflow, broadcast; floats.

    >>> print(gc.logaddexp([1000.0, 0.0], 1000.0).type)
    float64[2]
    """
    top, low = build.elementwise("maximum", a, b), build.elementwise("minimum", a, b)
    # Equal infinities have no difference.
    gap = build.elementwise("where", build.elementwise("eq", top, low), 0, build.elementwise("sub", low, top))
    return build.elementwise("add", top, build.elementwise("log1p", build.elementwise("exp", gap)))
