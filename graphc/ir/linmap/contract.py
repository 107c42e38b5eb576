"""Contraction of a network's factors: pairwise, in the best order, scalings absorbed, everything else left apart.

Factors linked by a summed atom are contracted.  A factor whose atoms are a subset of another's scales it.  All other
products stay lazy, so a rank-one or Kronecker product is never written out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations

from .. import build
from ..dims import Dim, product as total, substitute, symbols_of
from ..node import Node, default_graph
from .network import Network
from .tensors import condition_of, contraction, elementwise_product, reduced, scaled, size_node
from .term import Factor, Size

TYPICAL = 64  # stands for every symbolic size where orders are compared
EXHAUSTIVE = 5  # factors up to which all orders are tried


def estimate(size: Size) -> int:
    """The size with a typical length in the place of every symbol."""
    if not isinstance(size, Dim):
        return size
    known = substitute(size, {name: TYPICAL for name in symbols_of(size)})
    return int(known)


def contract(net: Network) -> None:
    """Brings the factors into the form that `Term` promises."""
    if len(net.factors) == 1 and not net.views and set(net.sizes) == {*net.out, *net.inn} == set(net.factors[0][1]):
        net.factors = [reduced(net.factors[0], net.sizes)]
        return
    keep = net.ends()
    sum_unused(net, keep)
    place = placement(net)
    factors = [path(group, keep, net.sizes, place) for group in components(net.factors, keep)]
    net.factors = absorbed(factors, net.sizes)
    for atom in [a for a in net.sizes if a not in keep]:
        del net.sizes[atom]


def placement(net: Network) -> Callable[[int], int]:
    """Where an atom comes in the two sides: products are built in that order."""
    position: dict[int, int] = {}
    for atom in (*net.out, *net.inn):
        position.setdefault(atom, len(position))
    return lambda atom: position.get(atom, len(position) + atom)


def sum_unused(net: Network, keep: Collection[int]) -> None:
    """The sum over an atom that nothing depends on is a factor of its size."""
    used = {atom for _, atoms in net.factors for atom in atoms}
    for atom in [a for a in net.sizes if a not in keep and a not in used]:
        size = net.sizes.pop(atom)
        if not isinstance(size, Dim):
            net.coef *= size
        else:
            dtype = net.factors[0][0].type.dtype if net.factors else "float64"
            net.factors.append((build.cast(size_node(size, default_graph()), dtype), ()))


def components(factors: Sequence[Factor], keep: Collection[int]) -> list[list[Factor]]:
    """Groups of factors linked by summed atoms."""
    groups: list[tuple[set[int], list[Factor]]] = []
    for factor in factors:
        summed, members, rest = {a for a in factor[1] if a not in keep}, [factor], []
        for atoms, group in groups:
            if atoms & summed:
                summed, members = summed | atoms, group + members
            else:
                rest.append((atoms, group))
        groups = [*rest, (summed, members)]
    return [members for _, members in groups]


def path(group: list[Factor], keep: Collection[int], sizes: Mapping[int, Size], place: Callable[[int], int]) -> Factor:
    """The product of a group with all summed atoms gone."""
    while len(group) > 1:
        i, j = cheapest_pair([frozenset(atoms) for _, atoms in group], frozenset(keep), sizes)
        rest = [f for k, f in enumerate(group) if k not in (i, j)]
        needed = set(keep).union(*(atoms for _, atoms in rest))
        group = [*rest, pair(group[i], group[j], needed, sizes, place)]
    return reduced(group[0], keep)


def cheapest_pair(labels: Sequence[frozenset[int]], keep: frozenset[int], sizes: Mapping[int, Size]) -> tuple[int, int]:
    """The first pair of the best order, by exhaustion where factors are few, else the pair that is cheapest now."""
    if len(labels) == 2:
        return 0, 1
    lengths = {a: estimate(sizes[a]) for group in labels for a in group}
    pairs = list(combinations(range(len(labels)), 2))
    return min(pairs, key=lambda p: order_cost(labels, p, keep, lengths, deep=len(labels) <= EXHAUSTIVE))


def order_cost(labels: Sequence[frozenset[int]], chosen: tuple[int, int], keep: frozenset[int],
               lengths: Mapping[int, int], deep: bool) -> int:
    """Multiplications of this pair and, if `deep`, of the best order of the rest."""
    i, j = chosen
    rest = [group for k, group in enumerate(labels) if k not in chosen]
    needed = keep.union(*rest)
    joined = (labels[i] & (labels[j] | needed)) | (labels[j] & (labels[i] | needed))
    cost = int(total([lengths[a] for a in joined]))
    if not deep or not rest:
        return cost
    after = [*rest, joined & needed]
    return cost + min(order_cost(after, p, keep, lengths, deep) for p in combinations(range(len(after)), 2))


def pair(f: Factor, g: Factor, needed: Collection[int], sizes: Mapping[int, Size],
         place: Callable[[int], int]) -> Factor:
    """f * g with the atoms that nobody else needs summed."""
    f, g = reduced(f, {*needed, *g[1]}), reduced(g, {*needed, *f[1]})
    joined = tuple(dict.fromkeys(f[1] + g[1]))
    kept = [a for a in joined if a in needed]
    if len(kept) < len(joined):
        out = sorted(kept, key=place)
        return contraction(sorted((f, g), key=lambda h: min((out.index(a) for a in h[1] if a in out), default=0)), out)
    if set(g[1]) <= set(f[1]):
        return elementwise_product(f, g, f[1], sizes)
    if set(f[1]) <= set(g[1]):
        return elementwise_product(f, g, g[1], sizes)
    return elementwise_product(f, g, sorted(joined, key=place), sizes)


def absorbed(factors: list[Factor], sizes: Mapping[int, Size]) -> list[Factor]:
    """Multiplies every factor into one whose atoms contain its own.

    A number stays apart from tensors, but not from a mask: what the mask drops may be infinite.
    """
    done: list[Factor] = []
    for factor in sorted(factors, key=lambda f: len(f[1])):
        takes_numbers = not factor[1] or condition_of(factor[0]) is not None
        inside = [k for k, (_, atoms) in enumerate(done)
                  if (atoms or takes_numbers) and set(atoms) <= set(factor[1])]
        for k in reversed(inside):
            factor = elementwise_product(done.pop(k), factor, factor[1], sizes)
        done.append(factor)
    return done


def outer(factors: Sequence[Factor], coef: float, sizes: Mapping[int, Size], place: Callable[[int], int]) -> Factor:
    """The product of factors that share no summed atom; the coefficient goes into the smallest."""
    ordered = sorted(factors, key=lambda f: estimate(f[0].type.size))
    first: tuple[Node, tuple[int, ...]] = ordered[0]
    first = scaled(first[0], coef), first[1]
    for factor in ordered[1:]:
        first = pair(first, factor, {*first[1], *factor[1]}, sizes, place)
    return first
