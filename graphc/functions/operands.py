"""What the functions accept: operands as nodes, axes and shapes as users write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import operator
from typing import Any, TypeAlias

from ..ir.build import Operand, refusal
from ..ir.dims import Dim
from ..ir.errors import DTypeError, GraphError, ShapeError
from ..ir.node import Node, constant
from ..ir.types import dtype_name

Axis: TypeAlias = "int | Sequence[int] | None"
ShapeLike: TypeAlias = "int | Dim | str | Sequence[int | Dim | str]"

__all__ = ["Axis", "DTypeError", "GraphError", "Operand", "ShapeError", "ShapeLike", "as_node", "as_nodes", "axes_of",
           "axis_of", "dtype_of", "refusal", "shape_of", "size_of"]


def as_node(x: Any) -> Node:
    """The node, or a constant of what is not one."""
    return x if isinstance(x, Node) else constant(x)


def as_nodes(values: Iterable[Any]) -> list[Node]:
    """Nodes of one graph: constants among them are made in the graph of the first node."""
    listed = list(values)
    graph = next((v.graph for v in listed if isinstance(v, Node)), None)
    return [v if isinstance(v, Node) else constant(v, graph=graph) for v in listed]


def axis_of(name: str, axis: Any, rank: int, operands: Sequence[Node] = ()) -> int:
    """The axis counted from the start."""
    try:
        k = operator.index(axis)
    except TypeError:
        raise refusal(name, f"axis must be an integer, got {axis!r}", operands) from None
    if not -rank <= k < rank:
        raise refusal(name, f"axis {k} is out of range for {rank} axes", operands)
    return k % rank if rank else 0


def axes_of(name: str, axis: Axis, rank: int, operands: Sequence[Node] = ()) -> tuple[int, ...]:
    """The axes counted from the start, all of them for None; each once, in the order given."""
    if axis is None:
        return tuple(range(rank))
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(axis_of(name, a, rank, operands) for a in listed)
    if len(set(axes)) != len(axes):
        raise refusal(name, f"axis {axis} names an axis twice", operands)
    return axes


def size_of(name: str, size: Any) -> int | Dim:
    """A size: an integer, a Dim, or the name of a symbolic size."""
    if isinstance(size, Dim):
        return size
    if isinstance(size, str):
        if not size.isidentifier():
            raise refusal(name, f"a symbolic size is named like a variable, got {size!r}")
        return Dim.symbol(size)
    try:
        return operator.index(size)
    except TypeError:
        raise refusal(name, f"a size is an integer, a Dim or a name, got {size!r}") from None


def shape_of(name: str, shape: Any) -> tuple[int | Dim, ...]:
    """A shape; a single size is a shape of one axis."""
    listed = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(size_of(name, size) for size in listed)


def dtype_of(name: str, dtype: Any) -> str:
    """Our name of a dtype."""
    try:
        return dtype_name(dtype)
    except TypeError as fault:
        raise refusal(name, str(fault), (), DTypeError) from None
