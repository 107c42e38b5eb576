"""Values that several kernels need: computed once and stored, or in each of them again.

With B the time to move the value once, s the number of buffers of its size that its expression reads, P the time of its
operations, and h kernels that need it:

    computed in each          h max(s B, P)
    computed once, stored     max(s B + B, P + 1 store) + h max(B, 1 load)

A buffer that nothing but the expression reads need not be stored itself then: 2 B less.  For a short expression, a gain
that is nothing beside the time of the kernels is not worth that one of them waits for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.ir.costs import LAUNCH, STEP, VECTOR_NBYTES, bandwidth, weight
from graphc.ir.node import Node, ancestors, users

from .estimates import group_cost, nbytes_of, register_nbytes
from .groups import MOST_OPS, Group
from .roots import CHEAP, MOVEMENT, PIECEWISE, estimate, is_known, is_leaf, storage

STREAMS = 8  # buffers of an expression that are told apart
MEMORY = 1.25  # how much quicker a plan must be that needs more memory
NOTABLE = 0.01  # of the time of all kernels that compute a value
Expression = tuple[float, frozenset[Node]]  # weighted operations on registers of bytes, buffers that it reads


def expression_of(node: Node, roots: set[Node], parts: Mapping[Node, Expression]) -> Expression:
    """What computing a node costs from its operands' expressions; a buffer costs its load.  What a broadcast repeats
    is computed once."""
    total, streams = weight(node.op.name) * own_nbytes(node), frozenset[Node]()
    for operand in dict.fromkeys(node.operands):
        held = storage(operand, roots)
        if held is not None:
            total += own_nbytes(operand)
            streams |= {held}
        elif operand in parts and not is_known(operand):
            own, buffers = parts[operand]
            total += own
            streams |= buffers
    return min(total, 1e15), frozenset(sorted(streams, key=size_of)[-STREAMS:]) if len(streams) > STREAMS else streams


def own_nbytes(node: Node) -> int:
    return estimate(node.size) * register_nbytes(node.dtype)


def size_of(node: Node) -> tuple[int, int]:
    return estimate(node.size), node.id


def of_its_size(node: Node, streams: Iterable[Node]) -> list[Node]:
    """The buffers that are about as large as the node."""
    return [b for b in streams if estimate(b.size) * 2 >= estimate(node.size)]


def gain_of_storing(node: Node, expression: Expression, homes: int, freed: int = 0) -> float:
    """Nanoseconds that storing saves, beyond what its memory is worth."""
    operations, streams = expression
    move = nbytes_of(node) / bandwidth(4.0 * nbytes_of(node))
    step = own_nbytes(node) / VECTOR_NBYTES * STEP
    compute = operations / VECTOR_NBYTES * STEP
    read = len(of_its_size(node, streams)) * move
    stored = max(read + move, compute + step) + homes * max(move, step) - 2 * freed * move
    return homes * max(read, compute) - MEMORY * stored


def is_dear(node: Node, expression: Expression, weight_: float) -> bool:
    """Whether an element costs more than this weight."""
    return expression[0] > weight_ * own_nbytes(node)


def expected_roots(targets: Iterable[Node], roots: set[Node]) -> set[Node]:
    """Nodes that are worth storing if all their users were in kernels of their own: what kernels share in their own
    axes is no price, and what would be recomputed is told before groups are formed, which keeps expressions short."""
    nodes = ancestors(targets)
    readers = users(nodes)
    parts: dict[Node, Expression] = {}
    found: set[Node] = set()
    for node in nodes:
        if is_leaf(node) or node in roots or node.op.name in PIECEWISE or is_known(node):
            continue
        parts[node] = expression_of(node, roots | found, parts)
        count = len(set(readers[node]))
        moved = any(u.op.name in MOVEMENT | {"gather"} for u in readers[node])
        if count > 1 and not moved and is_dear(node, parts[node], CHEAP) and (
                gain_of_storing(node, parts[node], count) > 0):
            found.add(node)
    return found


def shared_nodes(groups: Sequence[Group], roots: set[Node]) -> set[Node]:
    """Inlined nodes that several kernels would compute at a price, the last such ones of every expression."""
    homes: dict[Node, list[Group]] = {}
    for group in groups:
        for node in group.inlined:
            homes.setdefault(node, []).append(group)
    readers = users(ancestors(roots))
    times = {group: own_time(group) for group in groups}
    ordered = sorted(homes, key=lambda n: n.id)

    def pays(node: Node, own: Expression) -> bool:
        freed = any(b in roots and serves_only(b, node, readers) for b in of_its_size(node, own[1]))
        gain = gain_of_storing(node, own, len(homes[node]), int(freed))
        least = 0.0 if is_dear(node, own, 2 * CHEAP) else NOTABLE * sum(times[group] for group in homes[node])
        return gain > least

    parts: dict[Node, Expression] = {}
    dear: set[Node] = set()
    for node in ordered:
        parts[node] = expression_of(node, roots, parts)
        if len(homes[node]) > 1 and pays(node, parts[node]):
            dear.add(node)
    dear -= {o for n in dear for o in n.operands if o in dear and homes[o] == homes[n]}
    stored: set[Node] = set()
    for node in ordered:  # from those that are stored already, others may be cheap
        parts[node] = expression_of(node, roots | stored, parts) if stored else parts[node]
        if node in dear and pays(node, parts[node]):
            stored.add(node)
    return stored | oversized(groups)


def serves_only(buffer: Node, node: Node, readers: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether all that reads a buffer leads to the node."""
    while buffer is not node:
        following = set(readers.get(buffer, ()))
        if len(following) != 1:
            return False
        buffer = following.pop()
    return True


def own_time(group: Group) -> float:
    """Nanoseconds of a group's kernel if all its roots were stored."""
    return group_cost(group, lambda root: True).time - LAUNCH


def oversized(groups: Sequence[Group]) -> set[Node]:
    """Where to cut expressions that are too long for one kernel: every so many nodes."""
    cuts: set[Node] = set()
    for group in groups:
        if len(group.inlined) > 2 * MOST_OPS:
            ordered = sorted(group.inlined, key=lambda n: n.id)
            cuts.update(n for n in ordered[MOST_OPS::MOST_OPS])
    return cuts
