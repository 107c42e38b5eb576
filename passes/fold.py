"""Constant folding: one generic rule, through the op's own reference at the node's dtype.

    add(constant([1, 2]), broadcast(constant(1)))    ->    constant([2, 3])

A node is folded where all operands are constants or uniform, and the result is no larger than `MAX_NBYTES` or than the
operands together.  Uniform values stay one number with a broadcast.  What fails (an index out of range) is left alone:
it must fail at run time, not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir import build
from graphc.ir.errors import GraphError
from graphc.ir.node import Bits, Node, constant, make
from graphc.ir.types import numpy_dtype

MAX_NBYTES = 2**16
NEVER = frozenset({"constant", "broadcast", "placeholder", "variable", "iota", "stop_gradient", "choose"})


def fold(node: Node) -> Node | None:
    """The node's value as a constant, or None."""
    if not node.operands or any(o.op.name not in ("constant", "broadcast") for o in node.operands):
        return None
    if node.op.name in NEVER or not all(isinstance(size, int) for size in node.shape):
        return None
    given = [value_of(o) for o in node.operands]
    if any(value is None for value in given) or not worth(node):
        return None
    try:
        result = node.op.reference(node.attrs, node.type, *given)
    except (GraphError, IndexError, ValueError, ArithmeticError):
        return None
    return as_constant(node, np.asarray(result))


def worth(node: Node) -> bool:
    """A result that is not large, or no larger than the constants that it comes from."""
    operands = sum((o.operands[0] if o.op.name == "broadcast" else o).type.nbytes for o in node.operands)
    return bool(node.type.nbytes <= max(MAX_NBYTES, operands))  # type: ignore[type-var,operator]


def value_of(node: Node) -> np.ndarray[Any, Any] | None:
    """The array of a constant, or of a broadcast constant of static shape (which takes no memory)."""
    if not all(isinstance(size, int) for size in node.shape):
        return None
    if node.op.name == "constant":
        array: np.ndarray[Any, Any] = node.attrs["value"].array
        return array
    if node.op.name != "broadcast" or node.operands[0].op.name != "constant":
        return None
    inner = node.operands[0].attrs["value"].array
    sizes = [1] * node.ndim
    for size, axis in zip(inner.shape, node.attrs["axes"]):
        sizes[axis] = size
    return np.broadcast_to(inner.reshape(sizes), node.shape)  # type: ignore[arg-type]


def as_constant(node: Node, array: np.ndarray[Any, Any]) -> Node:
    """A constant node of this value; one number and a broadcast where all elements have the same bits."""
    array = np.ascontiguousarray(array, numpy_dtype(node.dtype)).reshape(node.shape)
    if array.ndim and array.size and array.tobytes() == array.flat[:1].tobytes() * array.size:
        one = make("constant", graph=node.graph, value=Bits(array.flat[:1].reshape(()), node.dtype))
        return build.broadcast(one, node.shape, ())
    return constant(array, node.dtype, node.graph)
