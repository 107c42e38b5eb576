"""The derivative of a node by each of its operands, from the one declaration in its op's row."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import Unsupported
from ..node import Node
from ..types import is_float
from .compose import diagonal
from .term import LinMap


def is_constant_in(node: Node, position: int) -> bool:
    """Whether the node is known to have no derivative by this operand, without building anything."""
    if not is_float(node.type.dtype) or not is_float(node.operands[position].type.dtype):
        return True
    return node.op.partials is not None and node.op.partials[position] is None


def local_maps(node: Node, positions: Collection[int]) -> dict[int, LinMap]:
    """The map by each of these operands; an operand in which the node is constant has none."""
    active = [k for k in positions if not is_constant_in(node, k)]
    if not active or 0 in node.type.shape:
        return {}
    if any(0 in node.operands[k].type.shape for k in active):  # an empty operand: an empty sum
        active = [k for k in active if 0 not in node.operands[k].type.shape]
        if not active:
            return {}
    if node.op.partials is not None:
        return {k: m for k in active if (m := partial_map(node, k)) is not None}
    if node.op.maps is None:
        raise Unsupported(f"{node.op.name}: no derivative (stage: derivatives)\n  at {node.loc}")
    maps = node.op.maps(node)
    return {k: maps[k] for k in active if maps[k] is not None}


def partial_map(node: Node, position: int) -> LinMap | None:
    assert node.op.partials is not None
    function = node.op.partials[position]
    partial = None if function is None else function(node, *node.operands)
    return None if partial is None else diagonal(partial, node.type.shape)
