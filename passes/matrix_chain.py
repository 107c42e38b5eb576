"""Products of matrices and tensors, in the order that needs fewest multiplications.

    n2 = einsum(a, b; ij, jk -> ik);  n3 = einsum(n2, x; ij, j -> i)        a @ b @ x as written
    n4 = einsum(b, x; ij, j -> i);    n5 = einsum(a, n4; ij, j -> i)        after

A group is a contraction with all contractions that it alone reads, directly or through others of the group; what somebody
else reads, or is fetched, is a leaf.  A group is one contraction of its leaves, and is taken apart in the order that
`passes.pairing` finds, where that is cheaper than the order of writing.  Of symbolic sizes that holds if it is no dearer
for all of them small, typical and large (`SAMPLES`), so that a guess does not spoil what was written well.

With `exact` nothing moves: a contraction of several operands is taken from left to right, and products stay as written,
which keeps the rounding of every one of them.

Groups end at `MOST_LEAVES` leaves, or at `MOST_TENSORS` where they are not a chain: the search takes cubic time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from graphc.ir import build
from graphc.ir.node import Node, ancestors, located, make

from .pairing import TYPICAL, Labels, Pairs, Size, chain_of, pairing, pairs_cost, typical, volume

SAMPLES = (8, TYPICAL, 4096)  # what symbolic sizes are taken for when orders are compared
MOST_LEAVES = 256
MOST_TENSORS = 24


class Group(NamedTuple):
    """Contractions that feed only one another, as one of their leaves."""

    leaves: tuple[Node, ...]
    labels: tuple[Labels, ...]
    out: Labels
    inner: tuple[Node, ...]  # the contractions, as written

    @property
    def sizes(self) -> dict[int, Size]:
        return {label: size for group, x in zip(self.labels, self.leaves) for label, size in zip(group, x.shape)}


def ordered_products(fetches: Sequence[Node], exact: bool = False) -> list[Node]:
    """The fetches with their products in the cheapest order; with `exact`, in the order of writing."""
    nodes = ancestors(fetches)
    if not any(n.op.name == "einsum" and contracts(n) for n in nodes):
        return list(fetches)
    owner = {} if exact else owners(nodes, fetches)
    done: dict[Node, Node] = {}
    for node in nodes:
        if node in owner:
            continue  # part of the group of its reader
        if node.op.name != "einsum":
            done[node] = with_operands(node, [done[x] for x in node.operands])
            continue
        group = group_of(node, owner)
        with located(node.loc, node.scope) if False else located(node):
            made = in_order(group, [done[x] for x in group.leaves], exact)
        done[node] = rebuilt(node, done, owner) if made is None else made
    return [done[fetch] for fetch in fetches]
