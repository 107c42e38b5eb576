"""The NumPy meaning of a graph: every node computed on its own, at its own precision.  The oracle of all compiled code.

bfloat16 values are float32 arrays that hold bfloat16 values, rounded after every op.  Symbolic sizes take their values
from the shapes of what is fed.  A value is dropped after its last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .dims import Dim, known_equal, substitute, symbols_of
from .errors import FeedError, GraphError, ShapeError
from .node import Node
from .plan import DimCheck
from .types import Type, as_dtype, shape_text

Array = np.ndarray[Any, Any]
HOLDS = {"==": lambda a, b: a == b, ">=": lambda a, b: a >= b}


def evaluate(fetches: Sequence[Node], feeds: Mapping[Node, Any], variables: Mapping[Node, Any]) -> list[Array]:
    """The values of the fetches.  Any node may be fed; a node that is fed is not computed."""
    given = {**variables, **feeds}
    order = needed(fetches, given)
    values = {node: settled(node, value) for node, value in given.items()}
    symbols = bind_sizes(values)
    uses = count_uses(order, fetches, given)
    for node in order:
        check_sizes(node, symbols)
        if node in given:
            continue
        if node.op.name in ("placeholder", "variable"):
            raise FeedError(f"{node.name}: {node!r} has no value; feed it")
        values[node] = compute(node, [values[o] for o in node.operands], symbols)
        for operand in node.operands:
            uses[operand] -= 1
            if not uses[operand]:
                del values[operand]
    return [values[node] for node in fetches]


def needed(fetches: Sequence[Node], given: Mapping[Node, Any]) -> list[Node]:
    """The nodes to compute, operands first; the walk stops at nodes that are given."""
    seen: dict[int, Node] = {}
    pending = list(fetches)
    while pending:
        node = pending.pop()
        if node.id not in seen:
            seen[node.id] = node
            if node not in given:
                pending.extend(node.operands)
    return [seen[i] for i in sorted(seen)]


def count_uses(order: Sequence[Node], fetches: Sequence[Node], given: Mapping[Node, Any]) -> dict[Node, int]:
    """How often each value is read; a fetch counts as one more read, which never comes."""
    uses = dict.fromkeys(order, 0)
    for node in order:
        if node not in given:
            for operand in node.operands:
                uses[operand] += 1
    for node in fetches:
        uses[node] += 1
    return uses


def compute(node: Node, operands: Sequence[Array], symbols: Mapping[str, int]) -> Array:
    """One node on values of its operands."""
    type, attrs = node.type, node.attrs
    if symbols and (symbols_of(*type.shape) or any(has_symbols(v) for v in attrs.values())):
        type = Type(type.dtype, bound(type.shape, symbols))
        attrs = {name: bound(value, symbols) for name, value in attrs.items()}
    try:
        return np.asarray(node.op.reference(attrs, type, *operands))
    except GraphError as fault:
        raise fault.__class__(f"{node.op.name}: {fault}\n  at {node.loc}") from None


def settled(node: Node, value: Any) -> Array:
    """What was fed or stored, as an array of the node's dtype and rank."""
    array = as_dtype(value, node.dtype)
    if array.ndim != node.ndim:
        raise ShapeError(f"{node.name}: expected {node.type}, got an array of shape {shape_text(array.shape)}\n"
                         f"  at {node.loc}")
    return array


# -- symbolic sizes --
def bound(value: Any, symbols: Mapping[str, int]) -> Any:
    """An attribute with sizes in place of symbols."""
    if isinstance(value, Dim):
        return substitute(value, symbols)
    return tuple(bound(item, symbols) for item in value) if isinstance(value, tuple) else value


def has_symbols(value: Any) -> bool:
    return isinstance(value, Dim) or (isinstance(value, tuple) and any(map(has_symbols, value)))


def bind_sizes(values: Mapping[Node, Array]) -> dict[str, int]:
    """The symbols' values, from the arrays of placeholders and variables; every known size is checked."""
    symbols: dict[str, int] = {}
    origin: dict[str, str] = {}
    for node, array in values.items():
        for axis, (size, length) in enumerate(zip(node.shape, array.shape)):
            name = plain_symbol(size)
            if name is not None and symbols.setdefault(name, length) != length:
                raise ShapeError(f"{node.name}: axis {axis} is {length} long, but {name} is {symbols[name]} "
                                 f"by {origin[name]}\n  at {node.loc}")
            if name is not None:
                origin.setdefault(name, f"axis {axis} of {node.name}")
    for node, array in values.items():
        expected = bound(node.shape, symbols)
        if any(known_equal(a, b) is False for a, b in zip(expected, array.shape)):
            raise ShapeError(f"{node.name}: expected {node.type}, got an array of shape {shape_text(array.shape)}\n"
                             f"  at {node.loc}")
    return symbols


def plain_symbol(size: int | Dim) -> str | None:
    """The name, if the size is one symbol."""
    names = symbols_of(size)
    return names[0] if len(names) == 1 and size == Dim.symbol(names[0]) else None


def check_sizes(node: Node, symbols: Mapping[str, int]) -> None:
    for check in node.checks:
        refuse_unless(check, symbols)


def refuse_unless(check: DimCheck, symbols: Mapping[str, int]) -> None:
    """Raises the check's message with the sizes that came, unless it holds."""
    a, b = substitute(check.a, symbols), substitute(check.b, symbols)
    if isinstance(a, int) and isinstance(b, int) and not HOLDS[check.relation](a, b):
        raise ShapeError(f"{check.message}\n  needs {check.a} {check.relation} {check.b}, got {a} and {b}")
