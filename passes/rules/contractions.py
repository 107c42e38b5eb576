"""Contractions: movement of an operand is a matter of its labels, and needs no copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir import build
from graphc.ir.node import Node, make

from ..rewrite import Rule, step
from .identities import leaves

Labels = tuple[int, ...]
Absorbed = tuple[Node, Labels]


def absorbing(name: str, operand: Callable[[Node, Labels, set[int]], Absorbed | None]) -> Callable[[Node], Node | None]:
    """The rewrite that takes an op of this name out of the operands of an einsum."""
    def run(node: Node) -> Node | None:
        labels: list[Labels] = list(node.attrs["labels"])
        for k, x in enumerate(node.operands):
            if x.op.name != name:
                continue
            elsewhere = {label for other in (*labels[:k], *labels[k + 1:]) for label in other}
            found = operand(x, labels[k], elsewhere)
            if found is not None:
                labels[k] = found[1]
                return build.einsum(labels, node.attrs["out"], *node.operands[:k], found[0], *node.operands[k + 1:])
        return None
    return run


def transposed_operand(x: Node, labels: Labels, elsewhere: set[int]) -> Absorbed:
    order = x.attrs["axes"]
    return x.operands[0], tuple(labels[order.index(k)] for k in range(len(order)))


def broadcast_operand(x: Node, labels: Labels, elsewhere: set[int]) -> Absorbed | None:
    """New axes whose label another operand has need not be there."""
    dropped = [k for k in range(x.ndim) if k not in x.attrs["axes"] and labels[k] in elsewhere]
    if not dropped:
        return None
    rest = [k for k in range(x.ndim) if k not in dropped]
    axes = tuple(rest.index(k) for k in x.attrs["axes"])
    small = build.broadcast(x.operands[0], tuple(x.shape[k] for k in rest), axes)
    return small, tuple(labels[k] for k in rest)


def single_axis_operand(x: Node, labels: Labels, elsewhere: set[int]) -> Absorbed | None:
    """A reshape that only adds axes of one element, whose labels are then summed over or seen elsewhere."""
    inner = x.operands[0]
    added = [k for k, size in enumerate(x.shape) if isinstance(size, int) and size == 1 and labels[k] in elsewhere]
    kept = [k for k in range(x.ndim) if k not in added]
    if not added or tuple(x.shape[k] for k in kept) != inner.shape:
        return None
    return inner, tuple(labels[k] for k in kept)


def transposed_result(node: Node) -> Node | None:
    """A transposed contraction writes its result in the other order."""
    product = node.operands[0]
    if product.op.name != "einsum":
        return None
    out = tuple(product.attrs["out"][k] for k in node.attrs["axes"])
    return build.einsum(product.attrs["labels"], out, *product.operands)


def summed_result(node: Node) -> Node | None:
    """A sum over axes of a contraction is part of the contraction."""
    product = node.operands[0]
    if product.op.name != "einsum":
        return None
    out = tuple(label for k, label in enumerate(product.attrs["out"]) if k not in node.attrs["axes"])
    return build.einsum(product.attrs["labels"], out, *product.operands)


def diagonal_of_diagonal(node: Node) -> Node | None:
    """What lies on a diagonal is read from there."""
    x = node.operands[0]
    if len(node.operands) != 1 or x.op.name != "diagonal":
        return None
    labels = node.attrs["labels"][0]
    groups = [[labels[k] for k in group] for group in x.attrs["axes"]]
    if any(len(set(group)) > 1 for group in groups) or len({group[0] for group in groups}) < len(groups):
        return None
    return build.einsum([[group[0] for group in groups]], node.attrs["out"], x.operands[0])


def product(a: Node, b: Node, labels: Sequence[Labels] = ((0, 1), (1, 2)), out: Labels = (0, 2)) -> Node:
    """A contraction of two operands, as the examples use it."""
    return make("einsum", (a, b), labels=tuple(labels), out=out)


def squares(dtype: str) -> Node:
    a, b = leaves(dtype, 2, (4, 4))
    return product(a, b)


def transposed_example(dtype: str) -> Node:
    a, b = leaves(dtype, 2, (4, 4))
    return product(make("transpose", (a,), axes=(1, 0)), b)


def broadcast_in_both(dtype: str) -> Node:
    a, = leaves(dtype, 1)
    row = make("placeholder", (), name="row", dtype=dtype, shape=(4,))
    return product(a, make("broadcast", (row,), shape=(3, 4), axes=(1,)), ((0, 1), (0, 1)), (0,))


def single_example(dtype: str) -> Node:
    a = make("placeholder", (), name="row", dtype=dtype, shape=(4,))
    b = make("placeholder", (), name="column", dtype=dtype, shape=(1, 4))
    return product(make("reshape", (a,), shape=(1, 4)), b, ((0, 1), (0, 1)), (0,))


def diagonal_example(dtype: str) -> Node:
    spread = make("diagonal", (leaves(dtype, 1, (4,))[0],), axes=((0, 1),))
    return make("einsum", (spread,), labels=((0, 0),), out=(0,))


RULES: list[Rule] = [
    step("einsum_of_transpose", ("einsum",), absorbing("transpose", transposed_operand), reorders=True,
         example=transposed_example),
    step("einsum_of_broadcast", ("einsum",), absorbing("broadcast", broadcast_operand), reorders=True,
         example=broadcast_in_both),
    step("einsum_of_single", ("einsum",), absorbing("reshape", single_axis_operand), reorders=True,
         example=single_example),
    step("transpose_of_einsum", ("transpose",), transposed_result, reorders=True, lonely=True,
         example=lambda dtype: make("transpose", (squares(dtype),), axes=(1, 0))),
    step("sum_of_einsum", ("sum",), summed_result, reorders=True, lonely=True, dtypes="float",
         example=lambda dtype: make("sum", (squares(dtype),), axes=(1,))),
    step("diagonal_of_diagonal", ("einsum",), diagonal_of_diagonal, example=diagonal_example),
]
