"""Bits, comparisons and logic, by NumPy's names and rules."""

from __future__ import annotations

from ..ir import build
from ..ir.build import Operand
from ..ir.node import Node
from ..ir.types import SIGNED, is_float
from .operands import as_node


def bitwise_and(a: Operand, b: Operand) -> Node:
    """a & b of bools or integers, broadcast.

    >>> print(gc.bitwise_and([6, 5], 3).type)
    int64[2]
    """
    return build.elementwise("bitwise_and", a, b)


def bitwise_or(a: Operand, b: Operand) -> Node:
    """a | b of bools or integers, broadcast.

    >>> print(gc.bitwise_or([6, 5], 3).type)
    int64[2]
    """
    return build.elementwise("bitwise_or", a, b)


def bitwise_xor(a: Operand, b: Operand) -> Node:
    """a ^ b of bools or integers, broadcast.

    >>> print(gc.bitwise_xor([6, 5], 3).type)
    int64[2]
    """
    return build.elementwise("bitwise_xor", a, b)


def left_shift(a: Operand, b: Operand) -> Node:
    """a << b of integers, broadcast; 0 where b is the width or more.

    >>> print(gc.left_shift([6, 5], 3).type)
    int64[2]
    """
    return build.elementwise("left_shift", a, b)


def right_shift(a: Operand, b: Operand) -> Node:
    """a >> b of integers, broadcast; the sign bit fills.

    >>> print(gc.right_shift([6, 5], 3).type)
    int64[2]
    """
    return build.elementwise("right_shift", a, b)


def equal(a: Operand, b: Operand) -> Node:
    """a == b, broadcast; bool.

    >>> print(gc.equal([1.0, 2.0], 2.0).type)
    bool[2]
    """
    return compared("eq", a, b)


def not_equal(a: Operand, b: Operand) -> Node:
    """a != b, broadcast; bool.

    >>> print(gc.not_equal([1.0, 2.0], 2.0).type)
    bool[2]
    """
    return compared("ne", a, b)


def less(a: Operand, b: Operand) -> Node:
    """a < b, broadcast; bool.

    >>> print(gc.less([1.0, 2.0], 2.0).type)
    bool[2]
    """
    return compared("lt", a, b)


def less_equal(a: Operand, b: Operand) -> Node:
    """a <= b, broadcast; bool.

    >>> print(gc.less_equal([1.0, 2.0], 2.0).type)
    bool[2]
    """
    return compared("le", a, b)


def greater(a: Operand, b: Operand) -> Node:
    """a > b, broadcast; bool.

    >>> print(gc.greater([1.0, 2.0], 2.0).type)
    bool[2]
    """
    return compared("gt", a, b)


def greater_equal(a: Operand, b: Operand) -> Node:
    """a >= b, broadcast; bool.

    >>> print(gc.greater_equal([1.0, 2.0], 2.0).type)
    bool[2]
    """
    return compared("ge", a, b)


def compared(name: str, a: Operand, b: Operand) -> Node:
    """The comparison; signed integers against uint64 by their sign first, since they have no common dtype."""
    if not (isinstance(a, Node) and isinstance(b, Node)) or {a.dtype, b.dtype} & {"uint64"} != {"uint64"} \
            or a.dtype == b.dtype or b.dtype not in MIXED or a.dtype not in MIXED:
        return build.elementwise(name, a, b)
    if a.dtype == "uint64":
        return compared(REFLECTED[name], b, a)
    negative = build.elementwise("lt", a, 0)
    unsigned = build.elementwise(name, build.cast(a, "uint64"), b)
    if name in ("lt", "le", "ne"):
        return build.elementwise("bitwise_or", negative, unsigned)
    return build.elementwise("bitwise_and", build.elementwise("bitwise_not", negative), unsigned)


MIXED = (*SIGNED, "uint64")
REFLECTED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def invert(x: Operand) -> Node:
    """~x of bools or integers.

    >>> print(gc.invert([True, False]).type)
    bool[2]
    """
    return build.elementwise("bitwise_not", x)


def truth(x: Operand) -> Node:
    """x != 0, as bool."""
    return build.cast(as_node(x), "bool")


def logical_and(a: Operand, b: Operand) -> Node:
    """Whether both are true (not 0), broadcast.

    >>> print(gc.logical_and([True, False], True).type)
    bool[2]
    """
    return build.elementwise("bitwise_and", truth(a), truth(b))


def logical_or(a: Operand, b: Operand) -> Node:
    """Whether one is true (not 0), broadcast.

    >>> print(gc.logical_or([True, False], True).type)
    bool[2]
    """
    return build.elementwise("bitwise_or", truth(a), truth(b))


def logical_xor(a: Operand, b: Operand) -> Node:
    """Whether exactly one is true (not 0), broadcast.

    >>> print(gc.logical_xor([True, False], True).type)
    bool[2]
    """
    return build.elementwise("bitwise_xor", truth(a), truth(b))


def logical_not(x: Operand) -> Node:
    """Whether x is false (0).

    >>> print(gc.logical_not([1.0, 0.0]).type)
    bool[2]
    """
    return build.elementwise("bitwise_not", truth(x))


def where(condition: Operand, a: Operand, b: Operand) -> Node:
    """a where the condition holds, b elsewhere; all broadcast.  Derivatives pass only through the branch taken.

    >>> print(gc.where([True, False], [1.0, 2.0], 0.0).type)
    float64[2]
    """
    return build.elementwise("where", truth(condition), a, b)


def class_of_float(name: str, x: Operand, of_integers: bool) -> Node:
    node = as_node(x)
    if is_float(node.dtype):
        return build.elementwise(name, node)
    return build.full(of_integers, "bool", node.shape, node.graph)


def isnan(x: Operand) -> Node:
    """Whether x is NaN; bool.

    >>> print(gc.isnan([1.0, 2.0]).type)
    bool[2]
    """
    return class_of_float("isnan", x, of_integers=False)


def isinf(x: Operand) -> Node:
    """Whether x is inf or -inf; bool.

    >>> print(gc.isinf([1.0, 2.0]).type)
    bool[2]
    """
    return class_of_float("isinf", x, of_integers=False)


def isfinite(x: Operand) -> Node:
    """Whether x is neither infinite nor NaN; bool.

    >>> print(gc.isfinite([1.0, 2.0]).type)
    bool[2]
    """
    return class_of_float("isfinite", x, of_integers=True)
