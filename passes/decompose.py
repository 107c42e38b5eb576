"""Decompose: contractions as code generation takes them: products of two operands with one label each for rows, columns
and depth.

    n4 = einsum(a, b, c; ij, jk, kl -> il)            n4 = einsum(a, b; ij, jk -> ik);  n5 = einsum(n4, c; ij, jk -> ik)
    n4 = einsum(a[2,3,4], b[3,4,5]; pij, ijq -> pq)   n2 = reshape(a, (2, 12));  n3 = reshape(b, (12, 5));
                                                      n4 = einsum(n2, n3; ij, jk -> ik)

Of a binary einsum the labels are
    batch     in both operands and in the result: stay, each on its own
    rows m    in the first operand and the result;    columns n    in the second operand and the result
    depth k   in both operands, not in the result

1. Operands are paired until two are left, in an order found on estimated sizes (`pairing`).
2. A label twice in an operand is read from the diagonal, a label of one operand only is summed there, first.
3. Without depth there is no sum: the contraction becomes an elementwise product, which can be fused.
4. Axes of one element are dropped by a reshape and come back in the result.
5. Where there are rows, columns and depth, several labels of one of them are merged by a reshape.  The operand is
   transposed for that only where the labels do not lie side by side.  Without rows or columns there is nothing to tile,
   and the labels stay as they are.

Pairing and summing first changes the order of products and sums, which an einsum does not promise.  dtypes stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from graphc.ir import build
from graphc.ir.dims import Dim, product
from graphc.ir.node import Node

from .pattern import Number
from .rewrite import Rule, Table, rewrite, step, table
from .rules import contractions, identities, movement
from .rules.contractions import product as contraction
from .rules.identities import leaves

Labels: TypeAlias = "tuple[int, ...]"
TYPICAL = 64  # what a symbolic size is taken for
EXHAUSTIVE = 8  # operands up to which all orders are tried (3**8 pairs of subsets)


# -- 1. pairing --
def pairing(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int]) -> list[tuple[int, int]]:
    """The cheapest order in multiplications: pairs of operands, where results are numbered on after the operands."""
    order = best_pairs if len(labels) <= EXHAUSTIVE else greedy_pairs
    return order(labels, out, sizes)


def volume(labels: frozenset[int], sizes: Mapping[int, int]) -> int:
    result = 1
    for label in labels:
        result *= sizes[label]
    return result


def best_pairs(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int]) -> list[tuple[int, int]]:
    """Dynamic programming over sets of operands, as bit masks."""
    count = len(labels)
    kept = [kept_labels(labels, out, mask) for mask in range(1 << count)]
    best: dict[int, tuple[int, int]] = {1 << k: (0, 0) for k in range(count)}  # set -> its cost and its first half
    for mask in sorted(range(1, 1 << count), key=int.bit_count):
        half = (mask - 1) & mask
        while half:
            other = mask ^ half
            if half > other:  # the halves are unordered
                cost = best[half][0] + best[other][0] + volume(kept[half] | kept[other], sizes)
                if mask not in best or cost < best[mask][0]:
                    best[mask] = (cost, half)
            half = (half - 1) & mask
    return pairs_of(best, count)


def kept_labels(labels: Sequence[Labels], out: Labels, mask: int) -> frozenset[int]:
    """Labels of the product of a set of operands that the others or the result still need."""
    inside = {label for k, group in enumerate(labels) if mask >> k & 1 for label in group}
    outside = {label for k, group in enumerate(labels) if not mask >> k & 1 for label in group} | set(out)
    return frozenset(inside & outside) if mask & (mask - 1) else frozenset(inside)


def pairs_of(best: Mapping[int, tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The pairs of the whole set, inner ones first."""
    order: list[int] = []
    pending = [(1 << count) - 1]
    while pending:
        mask = pending.pop()
        if mask & (mask - 1):
            order.append(mask)
            pending += [best[mask][1], mask ^ best[mask][1]]
    number = {1 << k: k for k in range(count)}
    pairs = []
    for mask in reversed(order):
        halves = (number[best[mask][1]], number[mask ^ best[mask][1]])
        pairs.append((min(halves), max(halves)))
        number[mask] = count + len(pairs) - 1
    return pairs


def greedy_pairs(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int]) -> list[tuple[int, int]]:
    """Always the pair that makes least of the result over what it consumes, then the cheapest."""
    alive = {k: frozenset(group) for k, group in enumerate(labels)}
    pairs = []
    for number in range(len(labels), 2 * len(labels) - 1):
        readers: dict[int, int] = {label: 1 for label in out}
        for group in alive.values():
            for label in group:
                readers[label] = readers.get(label, 0) + 1

        def price(pair: tuple[int, int], readers: Mapping[int, int] = readers) -> tuple[int, int, tuple[int, int]]:
            a, b = alive[pair[0]], alive[pair[1]]
            made = volume(merged_labels(a, b, readers), sizes) - volume(a, sizes) - volume(b, sizes)
            return made, volume(a | b, sizes), pair

        i, j = min(combinations(sorted(alive), 2), key=price)
        alive[number] = merged_labels(alive.pop(i), alive.pop(j), readers)
        pairs.append((i, j))
    return pairs


def merged_labels(a: frozenset[int], b: frozenset[int], readers: Mapping[int, int]) -> frozenset[int]:
    """Labels of a product that somebody else still reads."""
    return frozenset(label for label in a | b if readers[label] > (label in a) + (label in b))


def paired(node: Node) -> Node | None:
    """A contraction of three operands or more as contractions of two."""
    if len(node.operands) < 3:
        return None
    labels, operands = list(node.attrs["labels"]), list(node.operands)
    out = node.attrs["out"]
    sizes = {label: size if isinstance(size, int) else TYPICAL for label, size in label_sizes(node).items()}
    used: set[int] = set()
    for i, j in pairing(labels, out, sizes):
        used |= {i, j}
        needed = {label for k, group in enumerate(labels) if k not in used for label in group} | set(out)
        final = len(used) == len(labels)
        both = dict.fromkeys((*labels[i], *labels[j]))
        result = out if final else tuple(label for label in both if label in needed)
        operands.append(build.einsum((labels[i], labels[j]), result, operands[i], operands[j]))
        labels.append(result)
    return operands[-1]


def label_sizes(node: Node) -> dict[int, int | Dim]:
    return {label: size for group, x in zip(node.attrs["labels"], node.operands) for label, size in zip(group, x.shape)}


# -- 2. labels of one operand --
def summed_first(node: Node) -> Node | None:
    """Diagonals are taken, and what only one operand has is summed, before operands meet."""
    if len(node.operands) != 2:
        return None
    labels: list[Labels] = list(node.attrs["labels"])
    operands = list(node.operands)
    for k in (0, 1):
        needed = set(labels[1 - k]) | set(node.attrs["out"])
        kept = tuple(dict.fromkeys(label for label in labels[k] if label in needed))
        if kept != labels[k]:
            operands[k] = build.einsum((labels[k],), kept, operands[k])
            labels[k] = kept
    changed = any(a is not b for a, b in zip(operands, node.operands))
    return build.einsum(labels, node.attrs["out"], *operands) if changed else None


# -- 3. products without a sum --
def elementwise_product(node: Node) -> Node | None:
    """A contraction that sums over nothing is a product of broadcast operands."""
    labels, out = node.attrs["labels"], node.attrs["out"]
    if len(node.operands) != 2 or any(len(set(group)) < len(group) or not set(group) <= set(out) for group in labels):
        return None
    a, b = (spread_to(x, group, out, node) for x, group in zip(node.operands, labels))
    return build.elementwise("mul", a, b)


def spread_to(x: Node, labels: Labels, out: Labels, node: Node) -> Node:
    """The operand transposed and broadcast to the axes of the result."""
    order = sorted(range(len(labels)), key=lambda k: out.index(labels[k]))
    return build.broadcast(build.transpose(x, order), node.shape, tuple(out.index(labels[k]) for k in order))


# -- 4. axes of one element --
def without_singles(node: Node) -> Node | None:
    """Labels of size 1 are dropped from operands and result."""
    sizes = label_sizes(node)
    single = {label for label, size in sizes.items() if isinstance(size, int) and size == 1}
    if len(node.operands) != 2 or not single:
        return None
    labels = [tuple(label for label in group if label not in single) for group in node.attrs["labels"]]
    small = [build.reshape(x, tuple(size for label, size in zip(group, x.shape) if label not in single))
             for x, group in zip(node.operands, node.attrs["labels"])]
    out = tuple(label for label in node.attrs["out"] if label not in single)
    return build.reshape(build.einsum(labels, out, *small), node.shape)


# -- 5. one label each for rows, columns and depth --
def grouped(node: Node) -> Node | None:
    """Several labels of rows, columns or depth merged into one."""
    if len(node.operands) != 2 or any(len(set(group)) < len(group) for group in node.attrs["labels"]):
        return None
    (a, b), out = node.attrs["labels"], node.attrs["out"]
    rows = [label for label in a if label in out and label not in b]
    columns = [label for label in b if label in out and label not in a]
    depth = [label for label in a if label in b and label not in out]
    if not (rows and columns and depth) or len(rows) == len(columns) == len(depth) == 1:
        return None
    merged = [ordered(rows, (a, out)), ordered(columns, (b, out)), ordered(depth, (a, b))]
    group_of = {label: group for group in merged for label in group}
    sizes = label_sizes(node)
    forms = [gathered(x, labels, group_of, sizes) for x, labels in zip(node.operands, (a, b))]
    groups = list(dict.fromkeys(group_of.get(label, (label,)) for label in out))
    result = build.einsum([form[1] for form in forms], groups, *(form[0] for form in forms))
    flat = [label for group in groups for label in group]
    wide = build.reshape(result, tuple(sizes[label] for label in flat))
    return build.transpose(wide, tuple(flat.index(label) for label in out))


def ordered(labels: Sequence[int], places: Sequence[Labels]) -> Labels:
    """The labels in the order in which they lie side by side in most of the places; the first place wins a tie."""
    orders = [tuple(label for label in place if label in labels) for place in places]
    return max(orders, key=lambda order: sum(lies_in(order, place) for place in places))


def lies_in(order: Labels, place: Labels) -> bool:
    """Whether the labels stand in this order side by side."""
    start = place.index(order[0])
    return place[start:start + len(order)] == order


def gathered(x: Node, labels: Labels, group_of: Mapping[int, Labels], sizes: Mapping[int, int | Dim]
             ) -> tuple[Node, list[Labels]]:
    """The operand with each group as one axis, and the groups of its axes."""
    groups = list(dict.fromkeys(group_of.get(label, (label,)) for label in labels))
    flat = [label for group in groups for label in group]
    moved = build.transpose(x, tuple(labels.index(label) for label in flat))
    return build.reshape(moved, tuple(product([sizes[label] for label in group]) for group in groups)), groups


# -- the pass --
def chain_example(dtype: str) -> Node:
    a, b, c = leaves(dtype, 3, (4, 4))
    return build.einsum(((0, 1), (1, 2), (2, 3)), (0, 3), a, b, c)


def cubes(dtype: str, labels: Sequence[Labels], out: Labels, shape: Sequence[Number] = (2, 3, 4)) -> Node:
    a, b = leaves(dtype, 2, tuple(shape))
    return contraction(a, b, labels, out)


RULES: list[Rule] = [
    step("pair_operands", ("einsum",), paired, reorders=True, example=chain_example),
    step("sum_first", ("einsum",), summed_first, reorders=True,
         example=lambda dtype: cubes(dtype, ((0, 1, 2), (0, 3, 4)), (0, 1, 3))),
    step("product_without_sum", ("einsum",), elementwise_product,
         example=lambda dtype: cubes(dtype, ((0, 1, 2), (0, 1, 2)), (2, 0, 1))),
    step("drop_singles", ("einsum",), without_singles, reorders=True,
         example=lambda dtype: cubes(dtype, ((0, 1, 2), (3, 1, 2)), (3, 0), (1, 3, 4))),
    step("merge_labels", ("einsum",), grouped, reorders=True,
         example=lambda dtype: cubes(dtype, ((0, 1, 2), (3, 1, 2)), (0, 3))),
]
TABLE: Table = table(RULES, movement.RULES, contractions.RULES, identities.RULES)


def decompose(fetches: Sequence[Node]) -> list[Node]:
    """The fetches with all contractions in the form above."""
    return rewrite(fetches, TABLE)
