"""The order in which the operands of a contraction are multiplied, two at a time.

    pairing([(0, 1), (1, 2), (2,)], (0,), {0: 9, 1: 9, 2: 9})    ->    [(1, 2), (0, 3)]

Pairs name operands by position; results are numbered on after the operands.  The order is the cheapest in
multiplications for a matrix chain of any length, however its operands are listed, and for all else up to `EXHAUSTIVE`
operands; beyond that it is a greedy one.  Sizes are numbers; `typical` gives them for symbolic ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from graphc.ir.dims import Dim, evaluate, symbols_of

from .jacobian.bracketing import Bracketing, Leaf, postorder
from .jacobian.dense_chain import dense_plan, given

Labels: TypeAlias = "tuple[int, ...]"
Pairs: TypeAlias = "list[tuple[int, int]]"
Size: TypeAlias = "int | Dim"
TYPICAL = 64  # what a symbolic size is taken for
EXHAUSTIVE = 8  # operands up to which all orders are tried (3**8 pairs of subsets)


def pairing(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int]) -> Pairs:
    """The cheapest order in multiplications."""
    if len(labels) < 3:
        return [(0, 1)] if len(labels) == 2 else []
    chain = chain_of(labels, out)
    if chain is not None:
        return chain_pairs(chain, labels, sizes)
    order = best_pairs if len(labels) <= EXHAUSTIVE else greedy_pairs
    return order(labels, out, sizes)


def typical(sizes: Mapping[int, Size], value: int = TYPICAL) -> dict[int, int]:
    """The sizes, with all symbols taken for the value."""
    symbols = dict.fromkeys(symbols_of(*sizes.values()), value)
    return {label: evaluate(size, symbols) for label, size in sizes.items()}


def pairs_cost(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int], pairs: Pairs) -> int:
    """The multiplications of an order."""
    groups, total = [frozenset(group) for group in labels], 0
    masks = [1 << k for k in range(len(labels))]
    for i, j in pairs:
        total += volume(groups[i] | groups[j], sizes)
        masks.append(masks[i] | masks[j])
        groups.append(kept_labels(labels, out, masks[-1]))
    return total


def volume(labels: frozenset[int], sizes: Mapping[int, int]) -> int:
    result = 1
    for label in labels:
        result *= sizes[label]
    return result


# -- chains of matrices --
def chain_of(labels: Sequence[Labels], out: Labels) -> list[int] | None:
    """The operands from left to right, if they are matrices, or vectors at the ends, that are multiplied in a row.

    Labels that all operands and the result have are batches and do not matter.
    """
    shared = set(out).intersection(*labels)
    groups = [tuple(label for label in group if label not in shared) for group in labels]
    readers: dict[int, list[int]] = {}
    for k, group in enumerate(groups):
        if not 1 <= len(group) <= 2 or len(set(group)) < len(group):
            return None
        for label in group:
            readers.setdefault(label, []).append(k)
    if any(len(found) != (1 if label in out else 2) for label, found in readers.items()):
        return None
    bonds = [[label for label in group if label not in out] for group in groups]
    ends = [k for k, group in enumerate(bonds) if len(group) == 1]
    if len(ends) != 2:
        return None
    order = [first_of(ends, groups, out)]
    while len(order) < len(groups):
        ahead = [k for label in bonds[order[-1]] for k in readers[label] if k not in order[-2:]]
        if len(ahead) != 1 or ahead[0] == order[0]:
            return None  # a ring beside the chain
        order.append(ahead[0])
    return order


def first_of(ends: Sequence[int], groups: Sequence[Labels], out: Labels) -> int:
    """The end whose free label comes first in the result; of a vector and a matrix, the matrix."""
    place = {label: k for k, label in enumerate(out)}
    return min(ends, key=lambda k: (min(place.get(label, len(out)) for label in groups[k]), k))


def chain_pairs(chain: Sequence[int], labels: Sequence[Labels], sizes: Mapping[int, int]) -> Pairs:
    """The cheapest bracketing of a chain of three operands or more, as pairs."""
    shared = frozenset.intersection(*map(frozenset, labels))
    bonds = [next(label for label in labels[a] if label in labels[b] and label not in shared)
             for a, b in zip(chain, chain[1:])]
    ends = [volume(frozenset(labels[k]) - {bond} - shared, sizes)
            for k, bond in ((chain[0], bonds[0]), (chain[-1], bonds[-1]))]
    widths = [ends[0], *(sizes[bond] for bond in bonds), ends[1]]
    matrices = [given(rows, columns) for rows, columns in zip(widths, widths[1:])]
    return tree_pairs(dense_plan(matrices[::-1]).bracketing, chain[::-1])


def tree_pairs(tree: Bracketing, operands: Sequence[int]) -> Pairs:
    """The products of a tree of matrices that are given; element l is `operands[l]`."""
    pairs: Pairs = []
    values: list[int] = []
    for node in postorder(tree):
        if isinstance(node, Leaf):
            values.append(operands[node.element])
        else:
            a, b = values.pop(), values.pop()
            pairs.append((min(a, b), max(a, b)))
            values.append(len(operands) + len(pairs) - 1)
    return pairs


# -- any contraction --
def best_pairs(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int]) -> Pairs:
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


def pairs_of(best: Mapping[int, tuple[int, int]], count: int) -> Pairs:
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


def greedy_pairs(labels: Sequence[Labels], out: Labels, sizes: Mapping[int, int]) -> Pairs:
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
