"""Over which axes a root is computed, and what it reads there.

    sum(x * bcast(w), axes=(1,))      space (batch, 64), reducing axis 1; reads x at (i0, i1) and w at (i1)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.ir.dims import Dim
from graphc.ir.node import Node

from .coordinates import Coordinates, axis, operand_coordinates
from .roots import REDUCTIONS, is_count, is_known, label_sizes, storage, without_casts

Shape = tuple["int | Dim", ...]
Read = tuple[Node, "Coordinates | None"]  # a root or leaf, and where: None where the flat buffer is needed


def iteration_space(root: Node) -> tuple[Shape, frozenset[int]]:
    """The axes over which a root is computed, and those that it reduces."""
    if root.op.name in REDUCTIONS and not is_count(root):
        axes = root.attrs["axes"] if "axes" in root.attrs else (root.attrs["axis"],)
        return root.operands[0].shape, frozenset(axes)
    if root.op.name == "einsum":
        sizes = label_sizes(root)
        inner = [x for x in sizes if x not in root.attrs["out"]]
        labels = (*root.attrs["out"], *inner)
        return tuple(sizes[x] for x in labels), frozenset(range(len(root.shape), len(labels)))
    return root.shape, frozenset()


def operand_places(root: Node, axes: tuple[int, ...], extents: Shape) -> list[Coordinates | None]:
    """Where a root reads its operands; `axes[k]` is the kernel's axis for axis k of the root's iteration space."""
    own = tuple(axis(k, len(extents)) for k in axes)
    if root.op.name == "einsum":
        inner = [x for x in label_sizes(root) if x not in root.attrs["out"]]
        place = dict(zip((*root.attrs["out"], *inner), own))
        return [tuple(place[x] for x in labels) for labels in root.attrs["labels"]]
    if root.op.name in REDUCTIONS:
        return [own]
    return [operand_coordinates(root, k, own, extents) for k in range(len(root.operands))]


@dataclass
class Walk:
    """What a root reads, and the nodes inlined in its expression."""

    reads: list[Read] = field(default_factory=list)
    inlined: list[Node] = field(default_factory=list)


def walk(root: Node, axes: tuple[int, ...], extents: Shape, roots: set[Node]) -> Walk:
    """The expression of a root, down to buffers."""
    found = Walk(index_reads(root, roots))
    seen: set[tuple[int, Coordinates | None]] = set()
    pending = list(zip(root.operands, operand_places(root, axes, extents))) if not is_known(root) else []
    while pending:
        node, at = pending.pop()
        if (node.id, at) in seen:
            continue
        seen.add((node.id, at))
        held = storage(node, roots)
        if held is not None:
            found.reads.append((held, through_reshapes(node, held, at, extents)))
            continue
        if is_known(node):
            continue
        found.inlined.append(node)
        found.reads += index_reads(node, roots)
        assert at is not None, f"{node!r} must lie in a buffer"
        for k, operand in enumerate(node.operands):
            pending.append((operand, operand_coordinates(node, k, at, extents)))
    return found


def index_reads(node: Node, roots: set[Node]) -> list[Read]:
    """The buffers of a gather's indices: their range is checked before the kernel runs, so it cannot compute them."""
    if node.op.name != "gather":
        return []
    return [(held, None) for o in node.operands[1:] if (held := storage(without_casts(o), roots)) is not None]


def through_reshapes(node: Node, held: Node, at: Coordinates | None, extents: Shape) -> Coordinates | None:
    """Where `held` is read when what it is reshaped to is read at `at`; None where that is no affine place."""
    while node is not held and at is not None:
        at = operand_coordinates(node, 0, at, extents)
        node = node.operands[0]
    return at


def piecewise_reads(root: Node, roots: set[Node]) -> Walk:
    """What a piecewise root reads: each operand over its own axes."""
    found = Walk()
    for operand in root.operands:
        part = walk_from(operand, roots)
        found.reads += part.reads
        found.inlined += part.inlined
    return found


def walk_from(node: Node, roots: set[Node]) -> Walk:
    """What a node reads over its own axes, itself included."""
    held = storage(node, roots)
    if held is not None:
        return Walk([(held, None)], [])
    if is_known(node):
        return Walk()
    part = walk(node, tuple(range(node.ndim)), node.shape, roots)
    part.inlined.append(node)
    return part


class Walks:
    """The walks of one set of roots, each made once."""

    def __init__(self, roots: set[Node]) -> None:
        self.roots = roots
        self.known: dict[tuple[Node, tuple[int, ...], Shape], Walk] = {}

    def of(self, root: Node, axes: tuple[int, ...], extents: Shape) -> Walk:
        key = (root, axes, extents)
        if key not in self.known:
            self.known[key] = walk(root, axes, extents, self.roots)
        return self.known[key]
