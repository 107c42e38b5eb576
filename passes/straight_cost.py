"""What a static graph costs as straight-line code and as loops over vectors, in nanoseconds of one core.

Both are estimates from counts.  Straight-line code pays for every element; of dear functions, `LANES` share a vector.
Loops pay per vector, filled or not, and for every kernel; a value that hangs on a sum over contiguous elements is had
one row at a time.  Fitted to measurements of `benchmarks.small` on Sapphire Rapids; near ties go to loops, which
compile in less time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.costs import HEAVY, weight
from graphc.ir.node import Node
from graphc.ir.types import itemsize

from .roots import PIECEWISE, REDUCTIONS, is_leaf, label_sizes

SCALAR = 0.09  # a scalar operation of weight 1
SHARED = 0.3  # an operation of weight 1 on the lanes that dear functions share
MOVED = 0.15  # an element into or out of a lane
LANES = 4
VECTOR = 0.32  # an operation of weight 1 on a full vector in a loop
TABLED = 0.6  # of that for dear functions, which have tables in registers there
KERNEL = 5.0  # vector operations to begin a kernel
ACROSS = 6.0  # vector operations to add up the lanes
MARGIN = 1.25  # that straight-line code must be better
REGISTER = 64  # bytes
LEAF_ROWS = ("load", "const")
CHOOSING = ("where", "user")  # one branch of a condition that is known is not needed
WHOLE = frozenset({"broadcast", "reshape", "transpose", "pad", "concat", "diagonal", "sum", "prod", "max", "min"})


@dataclass(frozen=True)
class Call:
    """A live operation: its kind, how many operands it has."""

    kind: str
    arity: int


def worth(nodes: Sequence[Node]) -> float:
    """What straight-line code must cost less than, lest loops are taken."""
    return loop_cost(nodes) / MARGIN


class Floor:
    """What straight-line code costs at least, while it is being made: dear functions are left out.

    All rows count where every element of every node is needed; otherwise the stores alone.
    """

    def __init__(self, roots: Iterable[Node], nodes: Iterable[Node]) -> None:
        self.total = SCALAR * weight("store") * sum(int(root.size) for root in roots)
        self.counts = all(map(reads_all, nodes))
        self.seen = 0

    def after(self, kinds: Sequence[str]) -> float:
        """With the rows of these kinds, of which the first ones were there before."""
        if self.counts:
            prices = [weight(kind) for kind in kinds[self.seen:] if kind not in LEAF_ROWS]
            self.total += SCALAR * sum(price for price in prices if price < HEAVY)
            self.seen = len(kinds)
        return self.total


def reads_all(node: Node) -> bool:
    """Whether no row is made for its operands that it does not need; leaves are read by need."""
    if node.op.kind == "leaf":
        return True
    if node.op.name == "slice":
        return node.operands[0].op.kind == "leaf"
    if node.op.name == "einsum":
        return all(len(set(labels)) == len(labels) for labels in node.attrs["labels"])
    is_elementwise = node.op.kind == "elementwise"
    return node.size != 0 and (node.op.name in WHOLE or (is_elementwise and node.op.name not in CHOOSING))


def straight_cost(calls: Sequence[Call]) -> float:
    total = 0.0
    heavy: dict[str, int] = {}
    for call in calls:
        price = weight(call.kind)
        if price >= HEAVY:
            heavy[call.kind] = heavy.get(call.kind, 0) + 1
            total += MOVED * (call.arity + 1)
        else:
            total += SCALAR * price
    return total + sum(SHARED * weight(kind) * -(-count // LANES) for kind, count in heavy.items())


def loop_cost(nodes: Iterable[Node]) -> float:
    total = 0.0
    by_row: set[Node] = set()  # values that are had one row at a time
    for node in nodes:
        total += VECTOR * vector_operations(node, by_row)
    return total


def vector_operations(node: Node, by_row: set[Node]) -> float:
    """Of one node, which is entered in `by_row` if it belongs there."""
    name, size = node.op.name, int(node.size)
    if is_leaf(node):
        return 0.0
    if name == "einsum":
        return einsum_operations(node, by_row)
    if name in REDUCTIONS:
        by_row.add(node)
        return KERNEL + size * (vectors(node.operands[0], node.operands[0].shape[-1:]) + ACROSS)
    if name == "linear_scan":
        return KERNEL + 2.0 * size
    if name in PIECEWISE:
        fills = KERNEL if name in ("pad", "diagonal", "scatter_add") else 0.0
        return KERNEL + fills + sum(vectors(o, o.shape) for o in node.operands)
    if node.op.kind != "elementwise":
        return 0.0
    if any(o in by_row and o.size == size for o in node.operands):
        by_row.add(node)
        return size * loop_weight(name)
    return vectors(node, node.shape) * loop_weight(name)


def loop_weight(name: str) -> float:
    price = weight(name)
    return TABLED * price if price >= HEAVY else price


def einsum_operations(node: Node, by_row: set[Node]) -> float:
    """Products and sums; along an output axis that is contiguous in an operand nothing is added up across lanes."""
    sizes = {label: int(size) for label, size in label_sizes(node).items()}
    out = node.attrs["out"]
    points = 1
    for size in sizes.values():
        points *= size
    along = out[-1:] if out and any(labels[-1:] == out[-1:] for labels in node.attrs["labels"]) else ()
    rest = points // max(1, sizes[along[0]] if along else 1)
    if along:
        return KERNEL + rest * vectors(node, (sizes[along[0]],))
    by_row.add(node)
    inner = points // max(1, int(node.size))
    return KERNEL + int(node.size) * (2 * vectors(node, (inner,)) + ACROSS)


def vectors(node: Node, shape: Sequence[object]) -> int:
    """How many registers hold elements of the node in that shape."""
    count = 1
    for size in shape:
        assert isinstance(size, int)
        count *= size
    return -(-count * itemsize(node.dtype) // REGISTER)
