"""Functions of one real number, elementwise, by NumPy's names.

Floats keep their dtype; integers and bools become floats as in NumPy. Derivatives are exact to rounding.
"""

from __future__ import annotations

from typing import Any

from ..ir import build
from ..ir.build import Operand
from ..ir.node import Node
from ..ir.types import is_float
from .operands import as_node, refusal


def exp(x: Operand) -> Node:
    """e to the power x.

    >>> print(gc.exp([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("exp", x)


def exp2(x: Operand) -> Node:
    """2 to the power x.

    >>> print(gc.exp2([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("exp2", x)


def expm1(x: Operand) -> Node:
    """exp(x) - 1, exact near 0.

    >>> print(gc.expm1([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("expm1", x)


def log(x: Operand) -> Node:
    """The natural logarithm; -inf at 0, NaN below.

    >>> print(gc.log([1.0, 2.0]).type)
    float64[2]
    """
    return build.elementwise("log", x)


def log2(x: Operand) -> Node:
    """The logarithm to base 2.

    >>> print(gc.log2([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("log2", x)


def log10(x: Operand) -> Node:
    """The logarithm to base 10.

    >>> print(gc.log10([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("log10", x)


def log1p(x: Operand) -> Node:
    """log(1 + x), exact near 0.

    >>> print(gc.log1p([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("log1p", x)


def sqrt(x: Operand) -> Node:
    """The square root; NaN below 0.

    >>> print(gc.sqrt([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("sqrt", x)


def rsqrt(x: Operand) -> Node:
    """1 / sqrt(x).

    >>> print(gc.rsqrt([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("rsqrt", x)


def cbrt(x: Operand) -> Node:
    """The real cube root.

    >>> print(gc.cbrt([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("cbrt", x)


def sin(x: Operand) -> Node:
    """The sine.

    >>> print(gc.sin([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("sin", x)


def cos(x: Operand) -> Node:
    """The cosine.

    >>> print(gc.cos([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("cos", x)


def tan(x: Operand) -> Node:
    """The tangent.

    >>> print(gc.tan([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("tan", x)


def arcsin(x: Operand) -> Node:
    """The inverse sine, in [-pi/2, pi/2].

    >>> print(gc.arcsin([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("asin", x)


def arccos(x: Operand) -> Node:
    """The inverse cosine, in [0, pi].

    >>> print(gc.arccos([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("acos", x)


def arctan(x: Operand) -> Node:
    """The inverse tangent, in [-pi/2, pi/2].

    >>> print(gc.arctan([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("atan", x)


def sinh(x: Operand) -> Node:
    """The hyperbolic sine.

    >>> print(gc.sinh([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("sinh", x)


def cosh(x: Operand) -> Node:
    """The hyperbolic cosine.

    >>> print(gc.cosh([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("cosh", x)


def tanh(x: Operand) -> Node:
    """The hyperbolic tangent.

    >>> print(gc.tanh([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("tanh", x)


def arcsinh(x: Operand) -> Node:
    """The inverse hyperbolic sine.

    >>> print(gc.arcsinh([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("asinh", x)


def arccosh(x: Operand) -> Node:
    """The inverse hyperbolic cosine; NaN below 1.

    >>> print(gc.arccosh([1.0, 2.0]).type)
    float64[2]
    """
    return build.elementwise("acosh", x)


def arctanh(x: Operand) -> Node:
    """The inverse hyperbolic tangent; NaN beyond [-1, 1].

    >>> print(gc.arctanh([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("atanh", x)


def erf(x: Operand) -> Node:
    """The error function.

    >>> print(gc.erf([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("erf", x)


def erfc(x: Operand) -> Node:
    """1 - erf(x), exact for large x.

    >>> print(gc.erfc([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("erfc", x)


def lgamma(x: Operand) -> Node:
    """log |gamma(x)|; inf at the poles.

    >>> print(gc.lgamma([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("lgamma", x)


def digamma(x: Operand) -> Node:
    """The derivative of lgamma.

    >>> print(gc.digamma([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("digamma", x)


def sigmoid(x: Operand) -> Node:
    """1 / (1 + exp(-x)), without overflow.

    >>> print(gc.sigmoid([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("sigmoid", x)


def softplus(x: Operand) -> Node:
    """log(1 + exp(x)), without overflow.

    >>> print(gc.softplus([0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("softplus", x)


def polygamma(order: int, x: Operand) -> Node:
    """The derivative of digamma of a static order; order 0 is digamma.

    >>> print(gc.polygamma(1, [0.5, 1.0]).type)
    float64[2]
    """
    return build.elementwise("digamma", x) if order == 0 else build.elementwise("polygamma", x, order=order)


def relu(x: Operand) -> Node:
    """max(x, 0), NaN stays NaN; the derivative at 0 is 0.

    >>> print(gc.relu([-1.0, 1.0]).type)
    float64[2]
    """
    return build.elementwise("relu", x)


def rounded(name: str, x: Operand) -> Node:
    """A rounding; integers are whole already."""
    node = as_node(x)
    return build.elementwise(name, node) if is_float(node.dtype) else node


def floor(x: Operand) -> Node:
    """The greatest whole number that is not above x.

    >>> print(gc.floor([0.5, -0.5]).type)
    float64[2]
    """
    return rounded("floor", x)


def ceil(x: Operand) -> Node:
    """The least whole number that is not below x.

    >>> print(gc.ceil([0.5, -0.5]).type)
    float64[2]
    """
    return rounded("ceil", x)


def trunc(x: Operand) -> Node:
    """The whole number next to x towards 0.

    >>> print(gc.trunc([0.5, -0.5]).type)
    float64[2]
    """
    return rounded("trunc", x)


def round(x: Operand, decimals: int = 0) -> Node:
    """The nearest number of so many decimals; halves go to the even neighbour.

    >>> print(gc.round([0.5, 1.5]).type)
    float64[2]
    """
    node = as_node(x)
    if decimals == 0 or (not is_float(node.dtype) and decimals > 0):
        return rounded("round", node)
    if not is_float(node.dtype):
        raise refusal("round", f"integers are rounded to decimals >= 0, got decimals={decimals}", (node,))
    # As NumPy: a power of ten is exact up to 10**22, its reciprocal never is.
    scale, there, back = 10.0 ** abs(decimals), *(("mul", "div") if decimals > 0 else ("div", "mul"))
    return build.elementwise(back, rounded("round", build.elementwise(there, node, scale)), scale)


def cast(x: Operand, dtype: Any) -> Node:
    """x in another dtype, converted as a C cast does (towards 0, wrapping).

    >>> print(gc.cast([0.5, 1.5], "int32").type)
    int32[2]
    """
    return build.cast(as_node(x), dtype)


def stop_gradient(x: Operand) -> Node:
    """x, which derivatives take for a constant.

    >>> print(gc.stop_gradient([0.5, 1.5]).type)
    float64[2]
    """
    return build.elementwise("stop_gradient", x)


def identity(x: Operand) -> Node:
    """x itself, as a node.

    >>> print(gc.identity([0.5, 1.5]).type)
    float64[2]
    """
    return as_node(x)
