"""Matrix products: a contraction with the elementwise roots of its group as its epilogue."""

from __future__ import annotations

from typing import Any

from graphc.ir.errors import Unsupported
from graphc.ir.node import Node
from graphc.ir.plan import Contraction, Map

from .builder import MOVED, WIDE, Builder, Draft, root_value
from .coordinates import Coordinates, axis, flattened, operand_coordinates
from .groups import Group
from .roots import label_sizes, storage


ROW = -1  # the label of the axis that a vector lacks


def contraction_step(group: Group, roots: set[Node], stored: set[Node]) -> Draft:
    """A matrix product with the group's other roots as its epilogue."""
    matmul, *others = group.roots
    out = matmul.attrs["out"]
    (la, lb), sizes = matmul.attrs["labels"], label_sizes(matmul)
    free = [x for x in out if (x in la) != (x in lb)]
    inner = next(x for x in la if x not in out)
    if len(free) == 1:  # a vector is a matrix of one row
        free, sizes = [ROW, *free], {**sizes, ROW: 1}
    order = [x for x in out if x not in free] + free
    is_first = free[1] in lb
    a, b = matmul.operands if is_first else matmul.operands[::-1]
    labels_a, labels_b = (la, lb) if is_first else (lb, la)
    extents = tuple(sizes[x] for x in order)
    builder = Builder(extents, roots, matmul.loc)
    own = tuple(axis(order.index(x), len(order)) for x in out)
    wide = WIDE.get(matmul.dtype, matmul.dtype)
    number = builder.put("accumulator", (), wide)
    if wide != matmul.dtype:
        number = builder.put("cast", [number], matmul.dtype)
    builder.known[matmul, own] = number
    values = [(matmul, number)]
    for root in others:
        builder.loc = root.loc
        number = root_value(builder, root, own)
        builder.known[root, own] = number
        values.append((root, number))
    for root, number in values:
        if root in stored:
            builder.loc = root.loc
            builder.store(root, number, own)
    inside = [*order, inner]
    map_a = operand_map(builder, a, labels_a, inside, sizes)
    map_b = operand_map(builder, b, labels_b, inside, sizes)
    arguments = tuple(p.dtype for p in builder.places)
    kernel = Contraction(extents, sizes[inner], arguments, wide, map_a, map_b, tuple(builder.ops))
    label = "matmul" + "".join(f"+{r.op.name}" for r in others)
    return Draft(kernel, tuple(builder.places), tuple(r for r in group.roots if r in stored), label,
                 tuple(builder.indices.values()))


def operand_map(builder: Builder, operand: Node, labels: tuple[int, ...], inside: list[int], sizes: Any) -> Map:
    """Where a factor lies, over (*batch, m, n, k)."""
    at: Coordinates = tuple(axis(inside.index(x), len(inside)) for x in labels)
    extents = tuple(sizes[x] for x in inside)
    node = operand
    while (held := storage(node, builder.roots)) is None:
        found = operand_coordinates(node, 0, at, extents)
        if found is None or node.op.name not in MOVED:
            raise Unsupported(f"matmul: operand {operand!r} must lie in a buffer\n  at {operand.loc}")
        node, at = node.operands[0], found
    address = flattened(at, node.shape, len(inside))
    return Map(builder.argument(held), address.offset, address.strides)
