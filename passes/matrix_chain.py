"""Products of matrices and tensors, in the order that needs fewest multiplications.

    n2 = einsum(a, b; ij, jk -> ik);  n3 = einsum(n2, x; ij, j -> i)        a @ b @ x as written
    n4 = einsum(b, x; ij, j -> i);    n5 = einsum(a, n4; ij, j -> i)        after

A group is a contraction with all contractions that it alone reads, directly or through others of the group; what
somebody else reads, or is fetched, is a leaf.  A group is one contraction of its leaves, and is taken apart in the
order that `passes.pairing` finds, where that is cheaper than the order of writing.  With symbolic sizes it must be no
dearer for all of them small, typical and large (`SAMPLES`), so that a guess does not spoil what was written well.

With `exact` nothing moves: a contraction of several operands is taken from left to right, and products stay as written,
which keeps the rounding of every one of them.

Groups end at `MOST_LEAVES` leaves, or at `MOST_TENSORS` where they are not a chain: the search takes cubic time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

from graphc.ir import build
from graphc.ir.node import Node, ancestors, located

from .pairing import TYPICAL, Labels, Pairs, Size, chain_of, pairing, pairs_cost, typical
from .rewrite import count_uses, with_operands

SAMPLES = (8, TYPICAL, 4096)  # what symbolic sizes are taken for when orders are compared
MOST_LEAVES = 256
MOST_TENSORS = 24


class Group(NamedTuple):
    """Contractions that feed only one another, as one contraction of their leaves."""

    leaves: list[Node]
    labels: list[Labels]
    out: Labels
    inner: list[Node]  # the contractions as written, readers first


def ordered_products(fetches: Sequence[Node], exact: bool = False) -> list[Node]:
    """The fetches with their products in the cheapest order; with `exact`, in the order of writing."""
    nodes = ancestors(fetches)
    groups = groups_of(nodes, {} if exact else count_uses(fetches))
    inside = {n for group in groups.values() for n in group.inner}
    done: dict[Node, Node] = {}
    for node in nodes:
        if node in groups:
            with located(node):
                made = in_order(groups[node], done, exact)
            if made is None:
                as_written(groups[node], done)
            else:
                done[node] = made
        elif node not in inside:
            done[node] = with_operands(node, [done[x] for x in node.operands])
    return [done[fetch] for fetch in fetches]


# -- groups --
def groups_of(nodes: Sequence[Node], uses: Mapping[int, int]) -> dict[Node, Group]:
    """The groups by their last contraction; `uses` counts readers, and what is not in it is never taken in."""
    groups: dict[Node, Group] = {}
    inside: set[Node] = set()
    for node in reversed(nodes):
        if node.op.name == "einsum" and node not in inside:
            groups[node] = group_of(node, uses)
            inside.update(groups[node].inner)
    return groups


def group_of(root: Node, uses: Mapping[int, int]) -> Group:
    """Contractions whose only reader is in the group are taken in, with their labels renamed to those of the reader."""
    fresh = count(1 + max((label for group in root.attrs["labels"] for label in group), default=0))
    group = Group([], [], root.attrs["out"], [])
    pending: list[tuple[Node, Labels]] = [(root, root.attrs["out"])]
    while pending:
        x, labels = pending.pop()
        small = len(group.leaves) + len(pending) + len(x.operands) <= MOST_LEAVES
        if x is not root and not (x.op.name == "einsum" and uses.get(x.id) == 1 and small):
            group.leaves.append(x)
            group.labels.append(labels)
            continue
        group.inner.append(x)
        name = dict(zip(x.attrs["out"], labels))
        for label in (label for part in x.attrs["labels"] for label in part):
            if label not in name:
                name[label] = next(fresh)
        pending += [(operand, tuple(name[label] for label in part))
                    for operand, part in zip(reversed(x.operands), reversed(x.attrs["labels"]))]
    return group


def label_sizes(labels: Sequence[Labels], operands: Sequence[Node]) -> dict[int, Size]:
    return {label: size for group, x in zip(labels, operands) for label, size in zip(group, x.shape)}


# -- orders --
def in_order(group: Group, done: Mapping[Node, Node], exact: bool) -> Node | None:
    """The group in the cheapest order; None where it stays as it is."""
    if len(group.leaves) < 3 or (len(group.inner) > 1 and not searchable(group)):
        return None
    pairs = left_to_right(len(group.leaves)) if exact else cheapest(group)
    return None if pairs is None else contracted([done[x] for x in group.leaves], group.labels, group.out, pairs)


def searchable(group: Group) -> bool:
    return len(group.leaves) <= MOST_TENSORS or chain_of(group.labels, group.out) is not None


def left_to_right(operands: int) -> Pairs:
    return [(0, 1), *((k, operands + k - 2) for k in range(2, operands))]


def cheapest(group: Group) -> Pairs | None:
    """The order that is best on typical sizes, if it is no worse than that of writing on others."""
    sizes = label_sizes(group.labels, group.leaves)
    pairs = pairing(group.labels, group.out, typical(sizes))
    if any(len(x.operands) > 2 for x in group.inner):
        return pairs  # no order is written
    symbolic = any(not isinstance(size, int) for size in sizes.values())
    gains = [written_cost(group, value) - pairs_cost(group.labels, group.out, typical(sizes, value), pairs)
             for value in (SAMPLES if symbolic else (TYPICAL,))]
    return pairs if max(gains) > 0 and min(gains) >= 0 else None


def written_cost(group: Group, value: int) -> int:
    """Multiplications of the contractions as written."""
    total = 0
    for x in group.inner:
        labels, out = x.attrs["labels"], x.attrs["out"]
        sizes = typical(label_sizes(labels, x.operands), value)
        total += pairs_cost(labels, out, sizes, pairing(labels, out, sizes))
    return total


def contracted(operands: Sequence[Node], labels: Sequence[Labels], out: Labels, pairs: Pairs) -> Node:
    """The contraction two operands at a time; of a pair, what was written first comes first."""
    nodes, groups = list(operands), list(labels)
    first = list(range(len(nodes)))  # the first leaf in each
    used: set[int] = set()
    for pair in pairs:
        i, j = sorted(pair, key=first.__getitem__)
        used |= {i, j}
        needed = {label for k, group in enumerate(groups) if k not in used for label in group} | set(out)
        both = dict.fromkeys((*groups[i], *groups[j]))
        result = out if len(used) == len(groups) else tuple(label for label in both if label in needed)
        nodes.append(build.einsum((groups[i], groups[j]), result, nodes[i], nodes[j]))
        groups.append(result)
        first.append(first[i])
    return nodes[-1]


def as_written(group: Group, done: dict[Node, Node]) -> None:
    for x in reversed(group.inner):
        done[x] = with_operands(x, [done[operand] for operand in x.operands])
