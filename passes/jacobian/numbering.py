"""A topological numbering of nodes that depends on the graph alone.

Ids of nodes tell in which order they were built, and so may the order of a sum's operands.  What is the same graph for
its user must have the same plan; so nodes are numbered depth first, and the operands of a commutative op are visited in
the order of their digests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from graphc.ir.node import Bits, Graph, Node, ancestors

from ..differentiate import Between


def numbered(part: Between, ys: Sequence[Node]) -> list[Node]:
    """The nodes of the part, operands first."""
    inside, digest = set(part.nodes), digests(ys)
    placed: dict[Node, None] = {}
    pending = [y for y in reversed(ys) if y in inside]
    while pending:
        node = pending[-1]
        missing = [] if node in placed else [o for o in reversed(live(node, part, digest))
                                             if o in inside and o not in placed]
        if missing:
            pending += missing
        else:
            placed.setdefault(pending.pop())
    return list(placed)


def lasting_graph() -> Graph:
    """A graph of our own that keeps its nodes.

    A node that is dropped and built again has a new id, and when it is dropped is up to the garbage collector.
    """
    interned: Any = {}
    return Graph(interned=interned)


def live(node: Node, part: Between, digest: Mapping[Node, int]) -> list[Node]:
    """The operands through which paths run, each once."""
    operands = [node.operands[k] for k in part.active[node]]
    if node.op.commutative:
        operands.sort(key=digest.__getitem__)
    return list(dict.fromkeys(operands))


def digests(ys: Sequence[Node]) -> dict[Node, int]:
    """A number for every node, by its op, type, attributes and operands; seldom equal for different ones."""
    found: dict[Node, int] = {}
    for node in ancestors(ys):
        below = [found[o] for o in node.operands]
        if node.op.commutative:
            below.sort()
        attrs = [crc32(v.array.tobytes()) if isinstance(v, Bits) else v for v in node.attrs.values()]
        found[node] = crc32(repr((node.op.name, node.type, attrs, below)).encode())
    return found
