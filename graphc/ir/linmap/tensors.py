"""Node-level operations on labelled tensors: a factor is a node with one atom per axis.

    arranged    transposed and broadcast to a list of atoms
    selected    the target's axis of a factor, read through a view
    placed      the sources' axes written along the target's
    reduced     atoms summed away, repeated ones made one
    scaled, elementwise_product, contraction    products

A factor that is a cast of booleans is a **mask**: multiplying by it is a choice (`where`), because what it masks is a
structural zero and must stay zero beside an infinite value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .. import build
from ..dims import Atom, Dim, collapsed, product as total, sign
from ..errors import Unsupported
from ..node import Graph, Node, make
from ..types import promote
from .term import Factor, Size, View

Sizes = Mapping[int, Size]


def scaled(node: Node, coef: float) -> Node:
    if coef == 1.0:
        return node
    return build.elementwise("neg", node) if coef == -1.0 else build.elementwise("mul", node, coef)


def arranged(factor: Factor, atoms: Sequence[int], sizes: Sizes) -> Node:
    """The factor with exactly these axes; those that it lacks are broadcast."""
    node, labels = factor
    if labels == tuple(atoms):
        return node
    if len(set(labels)) < len(labels):
        node, labels = reduced(factor, labels)
    order = [a for a in atoms if a in labels]
    node = build.transpose(node, tuple(labels.index(a) for a in order))
    if len(order) == len(atoms):
        return node
    return build.broadcast(node, tuple(sizes[a] for a in atoms), tuple(k for k, a in enumerate(atoms) if a in labels))


def condition_of(node: Node) -> Node | None:
    """The booleans of a mask."""
    if node.op.name == "cast" and node.operands[0].type.dtype == "bool":
        return node.operands[0]
    return None


def elementwise_product(f: Factor, g: Factor, atoms: Sequence[int], sizes: Sizes) -> Factor:
    """f * g over `atoms`, which are those of either."""
    for (a, labels), other in ((f, g), (g, f)):
        if (condition := condition_of(a)) is not None:
            chosen = arranged(other, atoms, sizes)
            return build.elementwise("where", arranged((condition, labels), atoms, sizes), chosen,
                                     build.full_like(chosen, 0.0)), tuple(atoms)
    return build.elementwise("mul", arranged(f, atoms, sizes), arranged(g, atoms, sizes)), tuple(atoms)


def contraction(factors: Sequence[Factor], out: Sequence[int]) -> Factor:
    """The einsum of the factors in their common dtype."""
    dtype = factors[0][0].type.dtype if len(factors) == 1 else promote(*(node.type.dtype for node, _ in factors))
    nodes = [build.cast(node, dtype) for node, _ in factors]
    return build.einsum([labels for _, labels in factors], tuple(out), *nodes), tuple(out)


def reduced(factor: Factor, keep: Collection[int]) -> Factor:
    """Sums away what is not kept and takes diagonals of repeated atoms."""
    kept = tuple(dict.fromkeys([a for a in factor[1] if a in keep]))
    return factor if kept == factor[1] else contraction([factor], kept)


# -- views --
def nest(view: View, sizes: Sizes) -> tuple[int, ...] | None:
    """The sources in the order in which they form one row-major block, or None where they do not."""
    strides = list(view.strides)
    if all(isinstance(s, int) for _, s in strides):
        strides.sort(key=lambda pair: -abs(pair[1]))  # type: ignore[arg-type]
    for (_, outer), (atom, inner) in zip(strides, strides[1:]):
        if outer != inner * sizes[atom]:
            return None
    return tuple(atom for atom, _ in strides)


def block(view: View, sizes: Sizes) -> tuple[tuple[int, ...], int, Size] | None:
    """(sources in order, step, length) where the view is one strided range of the target; else None."""
    if view.index is not None:
        return None
    if not view.strides:
        return (), 1, 1
    order = nest(view, sizes)
    step = dict(view.strides)[order[-1]] if order else None
    if order is None or not isinstance(step, int) or step == 0:
        return None
    return order, step, total([sizes[a] for a in order])


def spliced(items: Sequence[Size], at: int, new: Sequence[Size]) -> tuple[Size, ...]:
    return (*items[:at], *new, *items[at + 1:])


def selected(factor: Factor, view: View, sizes: Sizes) -> Factor:
    """factor[.., target, ..] read at target = view(sources)."""
    while view.target in factor[1]:
        factor = selected_once(factor, view, sizes)
    return reduced(factor, factor[1])


def selected_once(factor: Factor, view: View, sizes: Sizes) -> Factor:
    node, labels = factor
    axis = labels.index(view.target)
    found = block(view, sizes)
    if found is None:
        return gathered(factor, axis, view, sizes)
    order, step, length = found
    shape, rank = node.type.shape, node.type.rank
    node = build.slice_(node, spliced((0,) * rank, axis, (view.base,)), (*(1,) * axis, step, *(1,) * (rank - axis - 1)),
                        spliced(shape, axis, (length,)))
    node = build.reshape(node, spliced(shape, axis, [sizes[a] for a in order]))
    return node, (*labels[:axis], *order, *labels[axis + 1:])


def gathered(factor: Factor, axis: int, view: View, sizes: Sizes) -> Factor:
    target = view.target
    node, labels = reduced((factor[0], tuple(target if k == axis else a for k, a in enumerate(factor[1]))), factor[1])
    axis = labels.index(target)
    index, sources = index_of(view, sizes, node.graph)
    out = (*labels[:axis], *(a for a in sources if a not in labels), *labels[axis + 1:])
    x_labels = tuple(("index", 0) if k == axis else a for k, a in enumerate(labels))
    return build.gather(node, [index], *canonical(x_labels, sources, out)), out


def canonical(x_labels: Sequence[object], sources: Sequence[int],
              out: Sequence[int]) -> tuple[tuple[object, ...], tuple[tuple[int, ...]], tuple[int, ...]]:
    """gather's labels numbered by their place in `out`."""
    place = {atom: k for k, atom in enumerate(out)}
    return (tuple(place[a] if isinstance(a, int) else a for a in x_labels), (tuple(place[a] for a in sources),),
            tuple(range(len(out))))


def index_of(view: View, sizes: Sizes, graph: Graph) -> Factor:
    """The view as an int64 index node over its sources."""
    if view.index is not None:
        return view.index, view.labels
    sources = view.sources
    shape = tuple(sizes[a] for a in sources)
    index = size_node(view.base, graph)
    for axis, (_, stride) in enumerate(view.strides):
        count = make("iota", graph=graph, dtype="int64", shape=(shape[axis],), axis=0)
        steps = build.elementwise("mul", count, size_node(stride, graph))
        index = build.elementwise("add", build.broadcast_to(index, shape), build.broadcast(steps, shape, (axis,)))
    return index, sources


def wrapped(index: Node, size: Node) -> Node:
    """Negative indices counted from the start."""
    return build.elementwise("where", build.elementwise("lt", index, 0), build.elementwise("add", index, size), index)


def agreement(view: View, sizes: Sizes, dtype: str, graph: Graph) -> Factor:
    """The mask over its atoms of where a view holds whose target is one of its own sources."""
    index, labels = index_of(view, sizes, graph)
    index = wrapped(index, size_node(sizes[view.target], graph))
    count = make("iota", graph=graph, dtype="int64", shape=index.type.shape, axis=labels.index(view.target))
    return build.cast(build.elementwise("eq", index, count), dtype), labels


def size_node(size: Size, graph: Graph) -> Node:
    """An int64 scalar that holds the size at run time: positive parts less negative ones, each counted as a length."""
    if not isinstance(size, Dim):
        return build.scalar(int(size), "int64", graph)
    parts = [collapsed({m: abs(c) for m, c in size.terms if (c > 0) == is_positive}) for is_positive in (True, False)]
    if not all(never_negative(atom) for monomial, _ in size.terms for atom in monomial):
        raise Unsupported(f"linear map: an index with the symbolic part {size}, which may be negative "
                          "(stage: derivatives)")
    counts = [build.scalar(part, "int64", graph) if isinstance(part, int) else
              build.reduce_sum(build.ones("int64", (part,), graph), (0,)) for part in parts]
    return counts[0] if parts[1] == 0 else build.elementwise("sub", counts[0], counts[1])


def never_negative(atom: Atom) -> bool:
    """A symbol, or a function of sizes that are never negative."""
    return isinstance(atom, str) or (sign(atom[1]) == 1 and sign(atom[2]) == 1)


def placed(factor: Factor, views: Sequence[View], sizes: Sizes) -> Factor:
    """sum over the sources of factor[.., sources, ..] at the targets, zero elsewhere; one pad for all blocks."""
    factor = reduced(factor, factor[1])
    missing = [a for view in views for a in view.sources if a not in factor[1]]
    if missing:
        atoms = (*factor[1], *dict.fromkeys(missing))
        factor = arranged(factor, atoms, sizes), atoms
    written: dict[int, tuple[View, int]] = {}
    lengths = dict(sizes)
    for view in views:
        found = block(view, sizes)
        if found is None:
            factor = scattered(factor, view, lengths)
            continue
        order, step, length = found
        lengths[view.target] = length
        written[view.target] = view, step
        factor = flattened(factor, order, view.target, lengths)
    return padded(factor, written, sizes) if written else factor


def flattened(factor: Factor, order: Sequence[int], target: int, sizes: Sizes) -> Factor:
    """The axes `order` as one axis called `target`."""
    labels = factor[1]
    at = min((labels.index(a) for a in order), default=len(labels))
    rest = [a for a in labels if a not in order]
    node = arranged(factor, (*rest[:at], *order, *rest[at:]), sizes)
    after = (*rest[:at], target, *rest[at:])
    return build.reshape(node, tuple(sizes[a] for a in after)), after


def padded(factor: Factor, written: Mapping[int, tuple[View, int]], sizes: Sizes) -> Factor:
    node, labels = factor
    starts = tuple(written[a][0].base if a in written else 0 for a in labels)
    steps = tuple(written[a][1] if a in written else 1 for a in labels)
    return build.pad(node, starts, steps, tuple(sizes[a] for a in labels)), labels


def scattered(factor: Factor, view: View, sizes: Sizes) -> Factor:
    node, labels = factor
    index, sources = index_of(view, sizes, node.graph)
    axis = min((labels.index(a) for a in sources), default=len(labels))
    rest = [a for a in labels if a not in sources]
    after = (*rest[:axis], view.target, *rest[axis:])
    x_labels = tuple(("index", 0) if a == view.target else a for a in after)
    node = build.scatter_add(node, [index], *canonical(x_labels, sources, labels),
                             shape=tuple(sizes[a] for a in after))
    return node, after
