"""Elementwise ops made by users: from a Python function that is traced once per number of operands, or from sympy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
import inspect
from typing import Any

from ..ir.build import Operand
from ..ir.errors import GraphError
from ..ir.node import Node
from ..ir.ops import symbolic, user
from .operands import as_node, refusal


def elementwise(function: Callable[..., Any], name: str | None = None) -> Callable[..., Node]:
    """An elementwise op from `function(m, *operands)`, where `m` has every elementwise op by name.

    The function is traced into an expression, which the graph stores; its derivatives come from sympy.

    >>> swish = gc.elementwise(lambda m, x: x * m.sigmoid(x), name="swish")
    >>> print(swish(gc.constant([1.0, 2.0], "float32")).type)
    float32[2]
    """
    label = name or getattr(function, "__name__", "user").strip("<>")
    traced = cache(lambda arity: user.trace(function, arity))

    def op(*operands: Operand) -> Node:
        try:
            expression = traced(len(operands))
        except (GraphError, AttributeError) as fault:
            raise refusal(label, str(fault), operands, GraphError) from fault
        return user.call(label, expression, operands)

    op.__name__ = label
    op.__doc__ = inspect.getdoc(function)
    return op


def from_sympy(expression: Any, symbols: Mapping[Any, Operand]) -> Any:
    """The node of a sympy expression whose symbols stand for nodes; a list of nodes for a sequence or matrix.

    >>> import sympy
    >>> t = sympy.Symbol("t")
    >>> print(gc.from_sympy(sympy.exp(-t**2), {t: gc.constant([0.0, 1.0])}).type)
    float64[2]
    """
    nodes = {symbol: as_node(value) for symbol, value in symbols.items()}
    if isinstance(expression, Sequence) or hasattr(expression, "tolist"):
        return [as_node(symbolic.nodes_of(part, nodes)) for part in expression]
    return as_node(symbolic.nodes_of(expression, nodes))
