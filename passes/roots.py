"""Which nodes get a buffer of their own: the roots.  All other nodes are computed inside the kernels that read them.

A **root** is what must be in memory: a fetch or update, the result of a reduction, contraction or scan, of an op that
writes its output piecewise, an operand that can only be read through a buffer.  A node that several kernels would have
to recompute at a price becomes one too (`shared_nodes`).

`storage(node)` is the root or leaf that holds a node's value in row-major order: itself, or what it is a reshape of.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphc.ir.costs import weight
from graphc.ir.dims import Dim, evaluate, product, symbols_of
from graphc.ir.node import Node, ancestors, uniform_value

from .coordinates import reshape_groups

REDUCTIONS = frozenset({"sum", "prod", "max", "min", "any", "all", "argmax", "argmin"})
PIECEWISE = frozenset({"concat", "choose", "pad", "scatter_add", "diagonal", "linear_scan"})
LEAVES = frozenset({"placeholder", "variable"})
MOVEMENT = frozenset({"broadcast", "transpose", "slice", "reshape"})
CHEAP = 6.0  # recomputing an expression of this weight costs no more than a store and a load
OUTGROWN = 1 << 18  # elements of a matrix that is not in a cache when it is multiplied by a vector
TINY = 2048  # multiplications below which a product of matrices is a plain loop nest
TYPICAL = 64  # what a symbolic size is taken for in estimates


def estimate(size: int | Dim) -> int:
    """The size, symbols taken as typical."""
    return size if isinstance(size, int) else evaluate(size, dict.fromkeys(symbols_of(size), TYPICAL))


def is_leaf(node: Node) -> bool:
    """Lies in a buffer that is there before the first kernel."""
    return node.op.name in LEAVES or (node.op.name == "constant" and uniform_value(node) is None)


def is_contraction(node: Node) -> bool:
    """A product of matrices that is worth packing and tiling: one label each for m, n, k, and not tiny.

    One of a matrix and a vector is a loop nest like others, unless the matrix outgrows the caches: then it is a matter
    of how memory is read.
    """
    if node.op.name != "einsum" or len(node.operands) != 2:
        return False
    (a, b), out = node.attrs["labels"], node.attrs["out"]
    if len(set(a)) < len(a) or len(set(b)) < len(b):
        return False
    sizes = label_sizes(node)
    m, n = [x for x in a if x not in b and x in out], [x for x in b if x not in a and x in out]
    k = [x for x in a if x in b and x not in out]
    if not (len(m) <= 1 and len(n) <= 1 and len(k) == 1 and m + n) or set(a) | set(b) != set(out) | set(k):
        return False
    rows, columns = (product([sizes[x] for x in labels]) for labels in (m, n))
    volume = product([rows, columns, sizes[k[0]]])
    if 1 in (rows, columns):
        return rows != columns and isinstance(volume, int) and volume >= OUTGROWN and node.dtype != "bool"
    return estimate(volume) > TINY


def is_count(node: Node) -> bool:
    """A sum of equal numbers: their number times one of them, known without a loop."""
    return node.op.name == "sum" and uniform_value(node.operands[0]) is not None


def is_known(node: Node) -> bool:
    """Has one value everywhere that is known when the kernel starts."""
    return uniform_value(node) is not None or is_count(node)


def label_sizes(node: Node) -> dict[int, int | Dim]:
    return {label: size for labels, operand in zip(node.attrs["labels"], node.operands)
            for label, size in zip(labels, operand.shape)}


def without_movement(node: Node) -> Node:
    while node.op.name in MOVEMENT:
        node = node.operands[0]
    return node


def without_casts(node: Node) -> Node:
    """The buffer all of whose elements an index node reads: ranges are checked there."""
    while node.op.name in MOVEMENT - {"slice"} or (node.op.name == "cast" and node.operands[0].dtype != "bool"
                                       and not node.operands[0].dtype.startswith(("float", "bfloat"))):
        node = node.operands[0]
    return node


def needs_operand_in_memory(node: Node) -> Iterable[Node]:
    """Operands (or what they move) that this node can only read from a buffer."""
    if is_contraction(node):
        yield from map(without_movement, node.operands)
    elif node.op.name in ("gather", "scatter_add"):
        yield from map(without_casts, node.operands[1:])
        if node.op.name == "gather":
            yield without_movement(node.operands[0])
    elif node.op.name == "reshape":
        groups = reshape_groups(node.shape, node.operands[0].shape)
        if groups is None or any(len(old) > 1 for _, old in groups):
            yield node.operands[0]
    elif node.op.name == "broadcast":
        yield from heavy_under_broadcast(node)
    elif node.op.name == "einsum" and len(node.operands) > 1:
        yield from (o for o in node.operands if chain_weight(o) > CHEAP)


def heavy_under_broadcast(node: Node) -> Iterable[Node]:
    """An expensive operand that would be computed again for every step of a new outer axis."""
    operand = node.operands[0]
    new_outer = any(k not in node.attrs["axes"] for k in range(max(node.attrs["axes"], default=-1)))
    if operand.ndim and new_outer and chain_weight(operand) > CHEAP:
        yield operand


def chain_weight(node: Node) -> float:
    """Weight of the expression that would be computed in place of a load: a walk that stops when it is dear enough."""
    total, pending = 0.0, [node]
    while pending and total <= CHEAP:
        one = pending.pop()
        if is_leaf(one) or one.op.name in REDUCTIONS | PIECEWISE or one.op.name in ("einsum", "constant"):
            continue
        total += weight(one.op.name)
        pending += one.operands
    return total


def forced_roots(targets: Iterable[Node]) -> set[Node]:
    """The nodes that need a buffer whatever the kernels look like."""
    targets = list(targets)
    found = {t for t in targets if not is_leaf(t)}
    for node in ancestors(targets):
        if (node.op.name in REDUCTIONS and not is_count(node)) or node.op.name in PIECEWISE | {"einsum"}:
            found.add(node)
        found.update(o for o in needs_operand_in_memory(node) if not is_leaf(o))
    return found


def storage(node: Node, roots: set[Node]) -> Node | None:
    """The root or leaf whose buffer holds the node's value in row-major order, or None."""
    while True:
        if node in roots or is_leaf(node):
            return node
        if node.op.name != "reshape":
            return None
        node = node.operands[0]
