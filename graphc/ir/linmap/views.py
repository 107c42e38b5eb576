"""Simplification of a network: factors are seen through, and views are read, chained, solved or carried out.

Rewrites, tried in this order until none fits; each removes a view, a factor's axis or an atom:

    own      a view whose target is one of its sources is a mask over them
    read     a factor at the target is read through the view: what it holds elsewhere does not matter
    chain    the source of one view is the target of another: the first is composed with the second
    drop     a summed target that only its view knows sums to 1
    unite    the target of a view that is the identity is its source
    fold     two targets that number the same summed sources are one
    solve    two views of one target make an equation between their sources
    carry    a summed target with several views, the sources of one of which are summed in one factor: pad that factor
"""

from __future__ import annotations

from collections import Counter
import math

from .. import build
from ..dims import known_equal
from ..errors import VerifyError
from ..node import Node, default_graph
from .contract import contract, outer, placement
from .equations import solve
from .network import Network, merged_strides
from .tensors import agreement, block, index_of, placed, selected, size_node, wrapped
from .term import Factor, Size, View

LIMIT = 10_000  # rewrites of one network; a correct table ends long before


# -- factors --
def see_through(net: Network) -> None:
    """Drops what a factor only repeats: broadcasts, transposes, signs and uniform constants."""
    factors: list[Factor] = []
    for node, atoms in net.factors:
        while node.op.name in SEEN:
            node, atoms = SEEN[node.op.name](net, node, atoms)
        if node.type.rank == 0 and (value := known_value(node)) is not None:
            net.coef *= value
            continue
        factors.append((node, atoms))
    net.factors = factors


def see_broadcast(net: Network, node: Node, atoms: tuple[int, ...]) -> Factor:
    return squeezed(node.operands[0], tuple(atoms[axis] for axis in node.attrs["axes"]))


def see_transpose(net: Network, node: Node, atoms: tuple[int, ...]) -> Factor:
    of_operand = dict(zip(node.attrs["axes"], atoms))
    return node.operands[0], tuple(of_operand[k] for k in range(len(atoms)))


def see_neg(net: Network, node: Node, atoms: tuple[int, ...]) -> Factor:
    net.coef = -net.coef
    return node.operands[0], atoms


SEEN = {"broadcast": see_broadcast, "transpose": see_transpose, "neg": see_neg}


def known_value(node: Node) -> float | None:
    """The number that a scalar is, if it is finite; an infinite one must meet masks, so it stays a factor."""
    if node.op.name == "constant":
        value = float(node.attrs["value"].array)
    elif node.op.kind == "elementwise" and all(o.op.name == "constant" for o in node.operands):
        value = float(node.op.reference(node.attrs, node.type, *(o.attrs["value"].array for o in node.operands)))
    else:
        return None
    return value if math.isfinite(value) else None


def squeezed(node: Node, atoms: tuple[int, ...]) -> Factor:
    """Without the axes of size 1 that the broadcast kept."""
    shape = node.type.shape
    if 1 not in shape:
        return node, atoms
    kept = [k for k, size in enumerate(shape) if not (isinstance(size, int) and size == 1)]
    return build.reshape(node, tuple(shape[k] for k in kept)), tuple(atoms[k] for k in kept)


# -- views --
def reduce_views(net: Network) -> bool:
    """Rewrites until nothing fits; False where two views exclude each other, so that the term is zero."""
    for _ in range(LIMIT):
        if not net.views:
            return True
        if own(net) or read(net) or chain(net) or drop(net) or unite(net) or fold(net):
            continue
        verdict = solve(net)
        if verdict == "zero":
            return False
        if verdict == "none" and not carry(net):
            return True
    raise VerifyError(f"linear map: the rewrites of views do not end on {net.views!r} with factors {net.factors!r}")


def views_by_target(net: Network) -> dict[int, list[View]]:
    found: dict[int, list[View]] = {}
    for view in net.views:
        found.setdefault(view.target, []).append(view)
    return found


def own(net: Network) -> bool:
    """A view whose target is among its own sources holds at some of its values only: a mask."""
    for view in net.views:
        if view.target in view.sources:
            dtype = net.factors[0][0].type.dtype if net.factors else "float64"
            net.factors.append(agreement(view, net.sizes, dtype, default_graph()))
            net.views = [v for v in net.views if v is not view]
            return True
    return False


def read(net: Network) -> bool:
    """Every factor at a target is read through its (first affine) view."""
    did = False
    for target, views in views_by_target(net).items():
        view = min(views, key=lambda v: v.index is not None)
        for k, factor in enumerate(net.factors):
            if target in factor[1]:
                net.factors[k] = selected(factor, view, net.sizes)
                did = True
    if did:
        see_through(net)
    return did


def chain(net: Network) -> bool:
    """Composes a view with the view of one of its sources."""
    targets = views_by_target(net)
    for k, view in enumerate(net.views):
        for source in view.sources:
            inner = next((v for v in targets.get(source, ()) if v is not view), None)
            if inner is not None:
                net.views[k] = composed(net, view, inner)
                return True
    return False


def composed(net: Network, view: View, inner: View) -> View:
    """view after inner, where inner's target is a source of view."""
    if view.index is not None:
        index, labels = selected((view.index, view.labels), inner, net.sizes)
        return View(view.target, index=index, labels=labels)
    stride = dict(view.strides)[inner.target]
    rest = tuple((atom, s) for atom, s in view.strides if atom != inner.target)
    if inner.index is None:
        inside = tuple((atom, stride * s) for atom, s in inner.strides)
        return View(view.target, view.base + stride * inner.base, merged_strides(rest + inside))
    return mixed(net, View(view.target, view.base, rest), stride, inner)


def mixed(net: Network, affine: View, stride: Size, inner: View) -> View:
    """base + strides + stride * wrapped index, as one index node."""
    assert inner.index is not None
    if not affine.strides and known_equal(affine.base, 0) and known_equal(stride, 1) \
            and known_equal(net.sizes[affine.target], net.sizes[inner.target]):
        return View(affine.target, index=inner.index, labels=inner.labels)
    graph = inner.index.graph
    size = size_node(net.sizes[inner.target], graph)
    counted = wrapped(inner.index, size)
    offset, sources = index_of(affine, net.sizes, graph)
    labels = (*inner.labels, *(a for a in sources if a not in inner.labels))
    shape = tuple(net.sizes[a] for a in labels)
    scaled = build.broadcast(build.elementwise("mul", counted, size_node(stride, graph)), shape,
                             tuple(range(len(inner.labels))))
    order = sorted(range(len(sources)), key=lambda k: labels.index(sources[k]))
    offset = build.broadcast(build.transpose(offset, order), shape, tuple(labels.index(sources[k]) for k in order))
    return View(affine.target, index=build.elementwise("add", scaled, offset), labels=labels)


def drop(net: Network) -> bool:
    """sum over a target of [target = view] is 1."""
    known = Counter(atom for view in net.views for atom in view.atoms)
    ends = {*net.out, *net.inn}
    for view in net.views:
        if known[view.target] == 1 and view.target not in ends:  # `read` left no factor there
            net.views.remove(view)
            del net.sizes[view.target]
            return True
    return False


def unite(net: Network) -> bool:
    """A view that is the identity makes its two atoms one."""
    for view in net.views:
        if view.index is None and len(view.strides) == 1 and is_onto(view, net):
            net.views.remove(view)
            net.identify(view.sources[0], view.target)
            return True
    return False


def fold(net: Network) -> bool:
    """Two targets that are the same numbering of summed sources are one atom, which takes the place of the sources."""
    ends = {*net.out, *net.inn}
    for view in net.views:
        if view.index is not None or ends & set(view.sources):
            continue
        touching = [v for v in net.views if set(v.sources) & set(view.sources)]
        if len(touching) < 2 or any(v.key[1:] != view.key[1:] for v in touching) or not is_onto(view, net):
            continue
        net.factors = [placed(f, [view], net.sizes) if set(f[1]) & set(view.sources) else f for f in net.factors]
        net.views = [v for v in net.views if not any(v is t for t in touching)]
        for atom in view.sources:
            del net.sizes[atom]
        net.parts = {v.target: (view.target,) for v in touching if v is not view}
        net.rewire()
        return True
    return False


def is_onto(view: View, net: Network) -> bool:
    """Whether the view numbers its sources so that every value of the target comes once."""
    found = block(view, net.sizes)
    return (found is not None and bool(view.strides) and found[1] == 1 and known_equal(view.base, 0) is True
            and known_equal(found[2], net.sizes[view.target]) is True)


def carry(net: Network) -> bool:
    """Writes a factor along a summed target, where the sources of a view of it are summed and nobody else's."""
    known = Counter(atom for view in net.views for atom in set(view.atoms))
    ends = {*net.out, *net.inn}
    for view in net.views:
        if view.target in ends or known[view.target] < 2 or any(a in ends or known[a] > 1 for a in view.sources):
            continue
        carry_out(net, view)
        return True
    return False


def carry_out(net: Network, view: View) -> None:
    """Contracts the factors that know the sources into one, and writes it along the target."""
    own = [f for f in net.factors if set(f[1]) & set(view.sources)]
    others = [f for f in net.factors if not any(f is g for g in own)]
    part = Network()
    part.sizes = {a: net.sizes[a] for a in sorted({*view.sources}.union(*(atoms for _, atoms in own)))}
    elsewhere = net.ends().union(*(atoms for _, atoms in others))
    part.factors, part.out = own, [a for a in part.sizes if a in elsewhere]
    contract(part)
    ones = (build.full(1.0, own[0][0].type.dtype if own else "float64", (), default_graph()), ())
    factor = outer(part.factors or [ones], 1.0, net.sizes, placement(net))
    net.coef *= part.coef
    net.factors = [*others, placed(factor, [view], net.sizes)]
    net.views = [v for v in net.views if v is not view]
    for atom in [a for a in net.sizes if a in view.sources or (a in own_atoms(own) and a not in part.out)]:
        del net.sizes[atom]


def own_atoms(factors: list[Factor]) -> set[int]:
    return {atom for _, atoms in factors for atom in atoms}
