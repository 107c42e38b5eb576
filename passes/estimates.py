"""What a group costs, before its kernel exists.

Every buffer that a kernel reads is counted once per pass over it, every root that others read once; an operation as
often as its own node has elements, since what does not depend on an axis is computed outside its loop.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.costs import PRODUCT, ROW_NBYTES, VECTOR_NBYTES, Cost, weight
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import itemsize

from .groups import Group, is_row, row_nbytes
from .roots import REDUCTIONS, estimate
from .spaces import iteration_space


def nbytes_of(node: Node) -> int:
    return estimate(node.size) * itemsize(node.dtype)


def register_nbytes(dtype: str) -> int:
    """Bytes of an element while it is computed with: narrow types are widened."""
    return max(4, itemsize(dtype))


def group_cost(group: Group, is_stored: Callable[[Node], bool]) -> Cost:
    """The cost of a group's kernel; `is_stored` says of its roots which are read elsewhere."""
    points = estimate(product(group.domain))
    again = passes_of(group) if group.reduced and row_nbytes(next(iter(group.roots)), group) > ROW_NBYTES else 1
    read = sum(nbytes_of(n) * (again if estimate(n.size) * 2 > points else 1) for n in group.reads)
    written = sum(nbytes_of(r) for r in group.roots if is_stored(r))
    operations = 0.0
    for node in (*group.inlined, *group.roots):
        if node.op.name in REDUCTIONS or (node.op.name == "einsum" and group.kind == "loops"):
            count = estimate(product(iteration_space(node)[0])) * (2 if node.op.name == "einsum" else 1)
        elif node.op.name == "einsum":
            continue
        else:
            count = min(estimate(node.size), points)
        operations += count * weight(node.op.name) * register_nbytes(node.dtype) / VECTOR_NBYTES
    return Cost(read, written, operations, products_time(group, points))


def products_time(group: Group, points: int) -> float:
    """Nanoseconds of the multiply-adds of a matrix product."""
    if group.kind != "contraction":
        return 0.0
    return points * PRODUCT * register_nbytes(next(iter(group.roots)).dtype) / 4


def passes_of(group: Group) -> int:
    """How often a kernel goes over its rows."""
    own: dict[Node, int] = {}
    for root in group.roots:
        before = [own[n] + is_row(n, group) for n in inputs_of(root, group) if n in own]
        own[root] = max(before, default=0)
    return 1 + max((n for r, n in own.items() if iteration_space(r)[0] == group.domain), default=0)


def inputs_of(root: Node, group: Group) -> list[Node]:
    """The roots of its group that a root's expression reads."""
    found: list[Node] = []
    seen: set[Node] = set()
    pending = list(root.operands)
    while pending:
        node = pending.pop()
        if node in group.roots:
            found.append(node)
        elif node in group.inlined and node not in seen:
            seen.add(node)
            pending += node.operands
        elif node.op.name == "reshape":
            pending += node.operands
    return found
