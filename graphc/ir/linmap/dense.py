"""Maps written out as tensors: the finish of every derivative, and the only place where shapes are used.

Disjoint pads that are added become one concat: n slices of a vector cost one pass over it, not n.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import build
from ..dims import known_equal
from ..errors import Unsupported
from ..node import Node, default_graph
from ..types import Shape
from .contract import outer, placement
from .network import Network
from .tensors import arranged, placed, reduced, selected
from .term import Factor, LinMap, Size, Term, View


def dense_node(m: LinMap, out_shape: Shape, in_shape: Shape, dtype: str) -> Node:
    """The map as one node of shape out + in."""
    shape = (*out_shape, *in_shape)
    nodes = [term_node(term, dtype) for term in m if isinstance(term, Term)]
    if len(nodes) < len(m):
        raise Unsupported("linear map: an opaque piece was not swept (stage: derivatives)")
    if not nodes:
        return build.zeros(dtype, shape, default_graph())
    return build.cast(total(nodes, shape), dtype)


def full_tensor(m: LinMap, batch: Shape, shape: Shape, *, transpose: bool) -> Node:
    """The map as (*batch, *shape), where batch is its inner side if `transpose`."""
    dtype = next((n.type.dtype for t in m if isinstance(t, Term) for n, _ in t.factors), "float64")
    if not transpose:
        return dense_node(m, batch, shape, dtype)
    node = dense_node(m, shape, batch, dtype)
    rank = len(shape)
    return build.transpose(node, (*range(rank, rank + len(batch)), *range(rank)))


# -- one term --
def term_node(term: Term, dtype: str) -> Node:
    """The term over its atoms, axes in the order of out and inn."""
    net = Network()
    net.out, net.inn = net.load(term)
    ends = (*net.out, *net.inn)
    distinct = tuple(dict.fromkeys(ends))
    factor = place_views(net, combined(net, dtype))
    factor = reduced(factor, ends)
    node = arranged(factor, distinct, net.sizes)
    if len(distinct) == len(ends):
        return node
    return build.diagonal(node, [[k for k, atom in enumerate(ends) if atom == end] for end in distinct])


def combined(net: Network, dtype: str) -> Factor:
    """The product of all factors with the coefficient."""
    if not net.factors:
        return build.scalar(net.coef, dtype, default_graph()), ()
    return outer(net.factors, net.coef, net.sizes, placement(net))


def place_views(net: Network, factor: Factor) -> Factor:
    """Carries out the views one by one: reads the factor at a target, or writes it along one."""
    ends = {*net.out, *net.inn}
    blocks = exclusive(net, ends, factor)
    if blocks:
        net.views = [v for v in net.views if not any(v is b for b in blocks)]
        factor = placed(factor, blocks, net.sizes)
    while net.views:
        view, *net.views = net.views
        if view.target in factor[1]:
            factor = selected(factor, view, net.sizes)
            factor = reduced(factor, factor[1])
        elsewhere = ends.union(*(v.atoms for v in net.views))
        if view.target in elsewhere:
            factor = placed(*duplicated(net, factor, view, elsewhere), net.sizes)
    return factor


def exclusive(net: Network, ends: set[int], factor: Factor) -> list[View]:
    """Views that can be written at once: each has its target and its sources to itself."""
    found = []
    for view in net.views:
        others = {atom for v in net.views if v is not view for atom in v.atoms}
        if view.target not in others and view.target not in factor[1] and not others & set(view.sources) \
                and not ends & set(view.sources):
            found.append(view)
    return found


def duplicated(net: Network, factor: Factor, view: View, elsewhere: set[int]) -> tuple[Factor, list[View]]:
    """The factor with a second axis for every source that is needed elsewhere, and the view from those axes."""
    missing = [a for a in view.sources if a not in factor[1]]
    atoms = (*factor[1], *missing)
    node = arranged(factor, atoms, net.sizes)
    copies = {a: net.fresh(net.sizes[a]) for a in view.sources if a in elsewhere}
    groups = [[k] + [len(atoms) + j for j, a in enumerate(copies) if a == atom] for k, atom in enumerate(atoms)]
    node = build.diagonal(node, groups)
    strides = tuple((copies.get(a, a), s) for a, s in view.strides)
    labels = tuple(copies.get(a, a) for a in view.labels)
    return (node, (*atoms, *copies.values())), [View(view.target, view.base, strides, view.index, labels)]


# -- sums --
def total(nodes: Sequence[Node], shape: Shape) -> Node:
    """The sum of nodes of `shape`, given over any grouping of its axes."""
    core = tuple(size for size in shape if not (isinstance(size, int) and size == 1))
    shaped = [build.reshape(node, core) for node in nodes]
    return build.reshape(sum_of(joined_pads(shaped)), shape)


def sum_of(nodes: Sequence[Node]) -> Node:
    result = nodes[0]
    for node in nodes[1:]:
        if node.op.name == "neg":
            result = build.elementwise("sub", result, node.operands[0])
        else:
            result = build.elementwise("add", result, node)
    return result


def joined_pads(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, disjoint blocks of zeros and values joined to one node each."""
    blocks = [n for n in nodes if is_block(n)]
    if len(blocks) < 2:
        return list(nodes)
    shape, dtype = blocks[0].type.shape, blocks[0].type.dtype
    pieces = [(n.attrs["starts"], build.cast(n.operands[0], dtype)) for n in blocks]
    for axis in reversed(range(len(shape))):
        pieces = joined_along(pieces, axis)
    rank = len(shape)
    return [*(n for n in nodes if not is_block(n)), *(build.pad(x, starts, (1,) * rank, shape) for starts, x in pieces)]


def is_block(node: Node) -> bool:
    return node.op.name == "pad" and all(step == 1 for step in node.attrs["steps"])


Piece = tuple[tuple[Size, ...], Node]  # where it starts, and what it holds


def joined_along(pieces: Sequence[Piece], axis: int) -> list[Piece]:
    """Joins pieces that agree in all other axes and do not overlap along this one."""
    groups: dict[object, list[Piece]] = {}
    for starts, x in pieces:
        key = (*starts[:axis], None, *starts[axis + 1:]), (*x.type.shape[:axis], None, *x.type.shape[axis + 1:])
        groups.setdefault(key, []).append((starts, x))
    return [piece for group in groups.values() for run in runs(group, axis) for piece in run_joined(run, axis)]


def runs(group: list[Piece], axis: int) -> list[list[Piece]]:
    """Lists of pieces that follow one another without overlap; as few as first fit gives."""
    if len(group) < 2:
        return [group]
    if not all(isinstance(starts[axis], int) for starts, _ in group):
        return chained(group, axis)
    found: list[list[Piece]] = []
    ends: list[Size] = []
    for piece in sorted(group, key=lambda p: p[0][axis]):  # type: ignore[arg-type, return-value]
        start, size = piece[0][axis], piece[1].type.shape[axis]
        k = next((k for k, end in enumerate(ends) if isinstance(end, int) and end <= start), None)  # type: ignore[operator]
        if k is None:
            found.append([piece])
            ends.append(start + size)
        else:
            found[k].append(piece)
            ends[k] = start + size
    return found


def chained(group: list[Piece], axis: int) -> list[list[Piece]]:
    """Symbolic starts: pieces are joined where one starts exactly where another ends."""
    left, found = list(group), []
    ends = {starts[axis] + x.type.shape[axis] for starts, x in group}
    for head in [p for p in group if p[0][axis] not in ends] or group:
        run = [head]
        left = [p for p in left if p is not head]
        while True:
            end = run[-1][0][axis] + run[-1][1].type.shape[axis]
            following = next((p for p in left if known_equal(p[0][axis], end)), None)
            if following is None:
                break
            run.append(following)
            left = [p for p in left if p is not following]
        found.append(run)
    return found + [[p] for p in left if not any(p is q for run in found for q in run)]


def run_joined(run: list[Piece], axis: int) -> list[Piece]:
    """One piece: the pieces of a run and zeros between them."""
    if len(run) == 1:
        return run
    starts = run[0][0]
    nodes: list[Node] = []
    end = starts[axis]
    for begin, x in run:
        gap = begin[axis] - end
        if not (isinstance(gap, int) and gap == 0):
            nodes.append(build.zeros(x.type.dtype, (*x.type.shape[:axis], gap, *x.type.shape[axis + 1:]), x.graph))
        nodes.append(x)
        end = begin[axis] + x.type.shape[axis]
    return [(starts, build.concat(nodes, axis))]
