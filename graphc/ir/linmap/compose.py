"""The algebra: build, transpose, compose and add linear maps.

A vector is a map from nothing (`inn` is empty) or, as a cotangent, to nothing (`out` is empty), so composing with a
vector is jvp or vjp, and composing with the identity gives the map itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from .. import build
from ..node import Node
from ..types import Shape
from .contract import absorbed, contract, estimate
from .dense import dense_node, full_tensor
from .network import Network
from .tensors import arranged, scaled
from .term import ZERO, Factor, LinMap, Opaque, Size, Term, View
from .views import SEEN, known_value, reduce_views, see_through

MOST_TERMS = 4  # a map that is no vector and has more is written out

NamedView = tuple[Hashable, Size, Mapping[Hashable, Size]]  # target, base, stride of each source
IndexView = tuple[Hashable, Node, Sequence[Hashable]]  # target, index node, labels of its axes


def normal(net: Network) -> LinMap:
    """The network as a map of one term, or zero."""
    if 0 in net.sizes.values():
        return ZERO
    see_through(net)
    if net.views and not reduce_views(net):
        return ZERO
    contract(net)
    return (net.freeze(),)


def linear_map(out: Sequence[Hashable], inn: Sequence[Hashable], sizes: Mapping[Hashable, Size], *,
               factors: Iterable[tuple[Node, Sequence[Hashable]]] = (), views: Iterable[NamedView] = (),
               indices: Iterable[IndexView] = (), coef: float = 1.0) -> LinMap:
    """A map of one term by names; labels of size 1 are dropped."""
    net = Network()
    net.coef = coef
    atom_of = {label: net.fresh(size) for label, size in sizes.items() if not (isinstance(size, int) and size == 1)}

    def atoms(labels: Iterable[Hashable]) -> tuple[int, ...]:
        return tuple([atom_of[label] for label in labels if label in atom_of])

    def squeezed(node: Node, labels: Sequence[Hashable]) -> Factor:
        kept = atoms(labels)
        return (node if len(kept) == len(labels) else build.reshape(node, tuple(net.sizes[a] for a in kept))), kept

    net.out, net.inn = list(atoms(out)), list(atoms(inn))
    net.factors = [squeezed(node, labels) for node, labels in factors]
    net.views = [View(atom_of[target], base, tuple((atom_of[s], step) for s, step in strides.items() if s in atom_of))
                 for target, base, strides in views if target in atom_of]
    for target, node, labels in indices:
        if target in atom_of:
            index, kept = squeezed(node, labels)
            net.views.append(View(atom_of[target], index=index, labels=kept))
    return normal(net)


def axes_of(shape: Shape) -> tuple[tuple[int, ...], dict[Hashable, Size]]:
    """A label per axis and the sizes."""
    labels = tuple(range(len(shape)))
    return labels, dict(zip(labels, shape))


def identity(shape: Shape) -> LinMap:
    labels, sizes = axes_of(shape)
    return linear_map(labels, labels, sizes)


def diagonal(partial: Node | float, shape: Shape) -> LinMap:
    """Elementwise multiplication by the partial."""
    labels, sizes = axes_of(shape)
    if not isinstance(partial, Node):
        return linear_map(labels, labels, sizes, coef=float(partial))
    if shape and 1 not in shape and 0 not in shape:  # most elementwise ops: the form is known
        if partial.op.name not in SEEN:
            return (Term(labels, labels, shape, ((partial, labels),)),)
        inner = partial.operands[0] if partial.op.name == "broadcast" else partial
        if inner.type.rank == 0 and (value := known_value(inner)) is not None:
            return (Term(labels, labels, shape, coef=value),)
    return linear_map(labels, labels, sizes, factors=[(partial, labels)])


def vector(node: Node) -> LinMap:
    """The map from nothing that gives the node's value."""
    labels, sizes = axes_of(node.type.shape)
    return linear_map(labels, (), sizes, factors=[(node, labels)])


def covector(node: Node) -> LinMap:
    """The map to nothing that the node's value is."""
    return transposed(vector(node))


def relabel(out_shape: Shape, in_shape: Shape) -> LinMap:
    """The map of a reshape: the same elements in row-major order."""
    net = Network()
    left = [net.fresh(size) for size in out_shape if not (isinstance(size, int) and size == 1)]
    right = [net.fresh(size) for size in in_shape if not (isinstance(size, int) and size == 1)]
    if 0 in net.sizes.values():
        return ZERO
    net.out, net.inn = left, right
    net.unify(left, right)
    return normal(net)


def transposed(m: LinMap) -> LinMap:
    return tuple(transposed_piece(piece) for piece in m)


def transposed_piece(piece: Term | Opaque) -> Term | Opaque:
    if isinstance(piece, Opaque):
        return piece.transposed
    net = Network()
    net.inn, net.out = net.load(piece)
    return net.freeze()


# -- products --
def compose(a: LinMap, b: LinMap) -> LinMap:
    """a after b.  A product with an opaque piece is swept through it at once."""
    pieces = [piece for x in a for y in b for piece in product(x, y)]
    return tuple(pieces) if len(pieces) < 2 else add(pieces)


def product(x: Term | Opaque, y: Term | Opaque) -> LinMap:
    if isinstance(x, Opaque):
        return swept_forward(x, (y,) if isinstance(y, Term) else swept_back(identity(y.out_shape), y))
    if isinstance(y, Opaque):
        return swept_back((x,), y)
    scaled_term = scaling(x, y) if y.is_diagonal else None
    if scaled_term is not None:
        return (scaled_term,)
    net = Network()
    net.out, left = net.load(x)
    right, net.inn = net.load(y)
    net.unify(left, right)
    return normal(net)


def scaling(x: Term, y: Term) -> Term | None:
    """x after a diagonal y whose axes are those of x, the commonest product; None where it is not that simple."""
    if x.views or tuple([x.sizes[a] for a in x.inn]) != y.sizes or len(set(x.inn)) < len(x.inn):
        return None
    coef = x.coef * y.coef
    if not y.factors:
        return x if y.coef == 1.0 else replace(x, coef=coef)
    moved = [(node, tuple([x.inn[a] for a in atoms])) for node, atoms in y.factors]
    factors = absorbed([*x.factors, *moved], dict(enumerate(x.sizes)))
    if len(factors) > 1:
        factors.sort(key=lambda f: (f[1], f[0].id))
    return Term(x.out, x.inn, x.sizes, tuple(factors), (), coef)


def swept_forward(x: Opaque, y: LinMap) -> LinMap:
    """x after y, by applying x to y's columns."""
    batch = side_sizes(y, out=False)
    tangent = full_tensor(y, batch, x.in_shape, transpose=True)
    labels, sizes = axes_of((*batch, *x.out_shape))
    node = x.jvp(tangent, len(batch))
    return linear_map(labels[len(batch):], labels[:len(batch)], sizes, factors=[(node, labels)])


def swept_back(x: LinMap, y: Opaque) -> LinMap:
    """x after y, by applying the transpose of y to x's rows."""
    batch = side_sizes(x, out=True)
    cotangent = full_tensor(x, batch, y.out_shape, transpose=False)
    labels, sizes = axes_of((*batch, *y.in_shape))
    node = y.vjp(cotangent, len(batch))
    return linear_map(labels[:len(batch)], labels[len(batch):], sizes, factors=[(node, labels)])


def side_sizes(m: LinMap, *, out: bool) -> Shape:
    """Sizes of the atoms of a side."""
    first = m[0]
    assert isinstance(first, Term)
    return tuple(first.sizes[a] for a in (first.out if out else first.inn))


# -- sums --
def add(pieces: Iterable[Term | Opaque]) -> LinMap:
    """The sum: terms of equal structure are merged, and too many terms are written out."""
    groups: dict[object, list[Term]] = {}
    opaque: list[Term | Opaque] = []
    for piece in pieces:
        if isinstance(piece, Opaque):
            opaque.append(piece)
        else:
            merge_into(groups.setdefault(piece.structure, []), piece)
    terms = [term for group in groups.values() for term in group]
    if len(terms) > MOST_TERMS:
        return (*written_out(terms), *opaque)
    return (*terms, *opaque)


def written_out(terms: Sequence[Term]) -> LinMap:
    """The sum of terms as one tensor."""
    first = terms[0]
    out, inn = side_sizes((first,), out=True), side_sizes((first,), out=False)
    dtype = next((node.type.dtype for term in terms for node, _ in term.factors), "float64")
    node = dense_node(tuple(terms), out, inn, dtype)
    labels, sizes = axes_of((*out, *inn))
    return linear_map(labels[:len(out)], labels[len(out):], sizes, factors=[(node, labels)])


def merge_into(group: list[Term], term: Term) -> None:
    """Adds a term to those of its structure."""
    for k, other in enumerate(group):
        merged = merge(other, term)
        if merged is not None:
            group[k] = merged
            return
    group.append(term)


def merge(a: Term, b: Term) -> Term | None:
    """a + b as one term, where they differ in one factor at most (a missing one is 1) and its atoms nest."""
    if a.factor_keys == b.factor_keys:
        return replace(a, coef=a.coef + b.coef)
    common = set(a.factor_keys) & set(b.factor_keys)
    own = [f for f, key in zip(a.factors, a.factor_keys) if key not in common]
    its = [f for f, key in zip(b.factors, b.factor_keys) if key not in common]
    own, its = numbers_folded(own), numbers_folded(its)
    if len(own) > 1 or len(its) > 1:
        return None
    summed = sum_of_factors(own[0] if own else None, a.coef, its[0] if its else None, b.coef, a, b)
    if summed is None:
        return None
    node, atoms, coef = summed
    net = Network()
    net.out, net.inn = net.load(replace(a, factors=(), coef=coef))
    net.factors = [f for f, key in zip(a.factors, a.factor_keys) if key in common] + [(node, atoms)]
    return net.freeze()


def numbers_folded(factors: list[Factor]) -> list[Factor]:
    """Numbers multiplied into the one tensor beside them, if there is one."""
    tensors = [f for f in factors if f[1]]
    if len(factors) < 2 or len(tensors) > 1:
        return factors
    (node, atoms), *numbers = sorted(factors, key=lambda f: -len(f[1]))
    for number, _ in numbers:
        node = build.elementwise("mul", node, number)
    return [(node, atoms)]


def sum_of_factors(f: Factor | None, p: float, g: Factor | None, q: float, a: Term,
                   b: Term) -> tuple[Node, tuple[int, ...], float] | None:
    """p*f + q*g as (node, atoms, coefficient)."""
    ends = {*a.out, *a.inn}.union(*(view.atoms for view in a.views))
    if any(atom not in ends for factor in (f, g) if factor is not None for atom in factor[1]):
        return None
    if f is None or g is None:
        node, atoms = f or g  # type: ignore[misc]
        scale, rest = (p, q) if g is None else (q, p)
        return build.elementwise("add", scaled(node, scale), rest), atoms, 1.0
    big, small = (f, g) if len(f[1]) >= len(g[1]) else (g, f)
    if not set(small[1]) <= set(big[1]):
        return None
    return sum_of_nested(f, p, g, q, big[1], dict(enumerate(a.sizes)))


def sum_of_nested(f: Factor, p: float, g: Factor, q: float, atoms: tuple[int, ...],
                  sizes: Mapping[int, Size]) -> tuple[Node, tuple[int, ...], float]:
    from_f, from_g = arranged(f, atoms, sizes), arranged(g, atoms, sizes)
    if p == q:
        return build.elementwise("add", from_f, from_g), atoms, p
    if p == -q:  # the sign is absorbed
        first, second = (from_f, from_g) if p > 0 else (from_g, from_f)
        return build.elementwise("sub", first, second), atoms, abs(p)
    return build.elementwise("add", scaled(from_f, p), scaled(from_g, q)), atoms, 1.0


def settled(m: LinMap) -> LinMap:
    """Coefficients and scalars folded into a factor: for a map that is used twice, once is enough."""
    return tuple(settled_piece(piece) for piece in m)


def settled_piece(piece: Term | Opaque) -> Term | Opaque:
    if isinstance(piece, Opaque) or not piece.factors:
        return piece
    tensors = [f for f in piece.factors if f[1]]
    numbers = [node for node, atoms in piece.factors if not atoms]
    if piece.coef in (1.0, -1.0) and not (numbers and tensors):
        return piece
    target = min(tensors or piece.factors, key=lambda f: estimate(f[0].type.size))
    coef = piece.coef
    scale: Node | float = coef
    if numbers and tensors:
        scale = numbers[0] if coef == 1.0 else build.elementwise("mul", numbers[0], coef)
    new = build.elementwise("mul", target[0], scale), target[1]
    factors = tuple(new if f is target else f for f in piece.factors if f[1] or not tensors)
    return replace(piece, factors=factors, coef=1.0)
