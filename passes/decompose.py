"""Decompose: contractions as code generation takes them: products of two operands with one label each for rows, columns
and depth.

    n4 = einsum(a, b, c; ij, jk, kl -> il)            n4 = einsum(a, b; ij, jk -> ik);  n5 = einsum(n4, c; ij, jk -> ik)
    n4 = einsum(a[2,3,4], b[3,4,5]; pij, ijq -> pq)   n2 = reshape(a, (2, 12));  n3 = reshape(b, (12, 5));
                                                      n4 = einsum(n2, n3; ij, jk -> ik)

Of a binary einsum the labels are
    batch     in both operands and in the result: stay, each on its own
    rows m    in the first operand and the result;    columns n    in the second operand and the result
    depth k   in both operands, not in the result

1. Operands are paired until two are left, over all contractions that feed only one another (`passes.matrix_chain`).
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

from graphc.ir import build
from graphc.ir.dims import Dim, product
from graphc.ir.node import Node

from .matrix_chain import contracted, label_sizes, ordered_products
from .pairing import Labels, pairing, typical
from .pattern import Number
from .rewrite import Rule, Table, rewrite, step, table
from .rules import contractions, identities, movement
from .rules.contractions import product as contraction
from .rules.identities import leaves


# -- 1. pairing --
def paired(node: Node) -> Node | None:
    """A contraction of three operands or more as contractions of two."""
    if len(node.operands) < 3:
        return None
    labels, out = node.attrs["labels"], node.attrs["out"]
    return contracted(node.operands, labels, out, pairing(labels, out, typical(label_sizes(labels, node.operands))))


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
    sizes = label_sizes(node.attrs["labels"], node.operands)
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
    sizes = label_sizes(node.attrs["labels"], node.operands)
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


def decompose(fetches: Sequence[Node], exact: bool = False) -> list[Node]:
    """The fetches with all contractions in the form above; `exact` keeps products in the order of writing."""
    return rewrite(ordered_products(fetches, exact), TABLE)
