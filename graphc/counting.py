"""`count_operations`: the scalar operations in the code that is emitted for nodes."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Dim
from graphc.ir.errors import GraphError
from graphc.ir.node import Node, ancestors
from passes.count import program_operations
from passes.lower import Request

from .compiler import planned
from .config import Options

KINDS = ("arithmetic", "all")


def count_operations(nodes: Node | Sequence[Node], kinds: str = "arithmetic") -> dict[str, int | Dim]:
    """How often each scalar operation runs when these nodes are computed together, after all passes.

    A fused multiply-add counts as a product and an addition.  Loads, stores, other moves, casts and comparisons are
    counted with `kinds="all"` only.  Symbolic sizes give expressions.

    Example::

        >>> import graphc as gc
        >>> from graphc.counting import count_operations
        >>> x = gc.placeholder("float64", (100,))
        >>> count_operations(gc.sum(x * x))
        {'add': 100, 'mul': 100}
    """
    if kinds not in KINDS:
        raise GraphError(f"count_operations: kinds={kinds!r} is none of {', '.join(KINDS)}")
    outputs = (nodes,) if isinstance(nodes, Node) else tuple(nodes)
    if not outputs or not all(isinstance(node, Node) for node in outputs):
        raise GraphError(f"count_operations: expected a node or several, got {nodes!r:.60}")
    inputs = tuple(node for node in ancestors(outputs) if node.op.name == "placeholder")
    _, program = planned(Request("counted", inputs, outputs), Options.of())
    return program_operations(program, kinds == "all")
