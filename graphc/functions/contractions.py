"""Products of matrices and tensors, by NumPy's names and rules.  All of them become einsum nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..ir import build
from ..ir.build import Operand
from ..ir.dims import known_equal, maximum, minimum
from ..ir.node import Node
from ..ir.types import Shape, promote
from .operands import as_node, as_nodes, axes_of, refusal
from .reductions import summed_dtype

Label: TypeAlias = "str | int"


def alike(*operands: Operand) -> list[Node]:
    """The operands as nodes of their common dtype."""
    nodes = as_nodes(operands)
    dtype = promote(*(n.dtype for n in nodes))
    return [build.cast(n, dtype) for n in nodes]


def matmul(a: Operand, b: Operand) -> Node:
    """The matrix product over the last two axes; leading axes are batches and broadcast; vectors lose their axis.

    >>> print(gc.matmul(gc.ones((5, 2, 3)), gc.ones((3, 4))).type)
    float64[5, 2, 4]
    """
    a, b = alike(a, b)
    if not a.ndim or not b.ndim:
        raise refusal("matmul", f"needs one axis or more, got {a.type} and {b.type}; use * for scalars", (a, b))
    inner = (a.shape[-1], b.shape[-2] if b.ndim > 1 else b.shape[0])
    if known_equal(*inner) is False:
        raise refusal("matmul", f"shapes {a.type} and {b.type}: {inner[0]} columns against {inner[1]} rows", (a, b))
    batches = [n.shape[:-2] for n in (a, b)]
    rank = max(map(len, batches))
    a, batch_a = without_single(a, batches[0], batches[1], rank)
    b, batch_b = without_single(b, batches[1], batches[0], rank)
    matrix_a, matrix_b = a.ndim > len(batch_a) + 1, b.ndim > len(batch_b) + 1
    labels_a = (*batch_a, "row", "depth") if matrix_a else (*batch_a, "depth")
    labels_b = (*batch_b, "depth", "column") if matrix_b else (*batch_b, "depth")
    out = (*range(rank), *(("row",) if matrix_a else ()), *(("column",) if matrix_b else ()))
    return build.einsum((labels_a, labels_b), out, a, b)


def without_single(x: Node, batch: Shape, other: Shape, rank: int) -> tuple[Node, tuple[int, ...]]:
    """x without batch axes of size 1 that the other operand repeats, and the labels of those that are left."""
    base = rank - len(batch)
    kept = []
    for k, size in enumerate(batch):
        opposite = base + k - (rank - len(other))
        repeated = isinstance(size, int) and size == 1 and opposite >= 0 and other[opposite] != 1
        if not repeated:
            kept.append(k)
    shape = (*(batch[k] for k in kept), *x.shape[len(batch):])
    return build.reshape(x, shape), tuple(base + k for k in kept)


def einsum(subscripts: str, *operands: Operand) -> Node:
    """NumPy's einsum: "ij,jk->ik"; without "->" the output has the labels that occur once, in alphabetical order.

    An ellipsis stands for leading axes that broadcast.

    >>> print(gc.einsum("bij,bj->bi", gc.ones((5, 2, 3)), gc.ones((5, 3))).type)
    float64[5, 2]
    """
    nodes = alike(*operands)
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(nodes):
        raise refusal("einsum", f"{subscripts!r} has {len(terms)} terms for {len(nodes)} operands", nodes)
    groups = [expanded(subscripts, term, n, nodes) for term, n in zip(terms, nodes)]
    named = [label for group in groups for label in group if isinstance(label, str)]
    dots: list[Label] = [*sorted({label for group in groups for label in group if isinstance(label, int)})]
    if not arrow:
        out: list[Label] = [*dots, *sorted(label for label in set(named) if named.count(label) == 1)]
    else:
        out = output_labels(subscripts, right, dots, set(named), nodes)
    nodes, groups = broadcast_dots(nodes, groups, dots)
    return build.einsum(groups, out, *nodes)


def expanded(subscripts: str, term: str, x: Node, nodes: Sequence[Node]) -> list[Label]:
    """One label per axis; axes of the ellipsis are negative numbers counted from its end."""
    head, dots, tail = term.partition("...")
    letters = head + tail
    if not all(letter.isalpha() and letter.isascii() for letter in letters):
        raise refusal("einsum", f"{subscripts!r}: labels are letters, got {term!r}", nodes)
    free = x.ndim - len(letters)
    if free < 0 or (free and not dots):
        raise refusal("einsum", f"{subscripts!r}: {term!r} has {len(letters)} labels for {x.type}", nodes)
    return [*head, *range(-free, 0), *tail]


def output_labels(subscripts: str, right: str, dots: list[Label], named: set[str], nodes: Sequence[Node]
                  ) -> list[Label]:
    head, ellipsis, tail = right.partition("...")
    letters = head + tail
    if len(set(letters)) != len(letters) or not set(letters) <= named:
        raise refusal("einsum", f"{subscripts!r}: output labels are distinct and occur in the operands", nodes)
    return [*head, *(dots if ellipsis else ()), *tail]


def broadcast_dots(nodes: Sequence[Node], groups: Sequence[list[Label]], dots: Sequence[Label]
                   ) -> tuple[list[Node], list[list[Label]]]:
    """Operands without axes of size 1 under an ellipsis where another operand is longer."""
    long = {label for n, group in zip(nodes, groups) for label, size in zip(group, n.shape)
            if label in dots and not (isinstance(size, int) and size == 1)}
    kept = [[k for k, (label, size) in enumerate(zip(group, n.shape))
             if label not in long or not (isinstance(size, int) and size == 1)] for n, group in zip(nodes, groups)]
    return ([build.reshape(n, tuple(n.shape[k] for k in ks)) for n, ks in zip(nodes, kept)],
            [[group[k] for k in ks] for group, ks in zip(groups, kept)])


def tensordot(a: Operand, b: Operand, axes: int | Sequence[Sequence[int] | int] = 2) -> Node:
    """The sum of products over the last axes of a and first of b, or over the pairs of axes given.

    >>> print(gc.tensordot(gc.ones((2, 3, 4)), gc.ones((3, 4, 5))).type)
    float64[2, 5]
    """
    a, b = alike(a, b)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise refusal("tensordot", f"{axes} axes of {a.type} and {b.type}", (a, b))
        left, right = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        left = axes_of("tensordot", as_sequence(axes[0]), a.ndim, (a, b))
        right = axes_of("tensordot", as_sequence(axes[1]), b.ndim, (a, b))
    if len(left) != len(right):
        raise refusal("tensordot", f"axes {axes} pair {len(left)} axes with {len(right)}", (a, b))
    labels_a = [("a", k) for k in range(a.ndim)]
    labels_b = [("a", left[right.index(k)]) if k in right else ("b", k) for k in range(b.ndim)]
    out = [label for label in labels_a if label[1] not in left] + [label for label in labels_b if label[0] == "b"]
    return build.einsum((labels_a, labels_b), out, a, b)


def as_sequence(axes: Sequence[int] | int) -> Sequence[int]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def dot(a: Operand, b: Operand) -> Node:
    """NumPy's dot: scalars multiply, otherwise the last axis of a meets the last but one of b.

    >>> print(gc.dot([1.0, 2.0], [3.0, 4.0]).type)
    float64[]
    """
    a, b = alike(a, b)
    if not a.ndim or not b.ndim:
        return build.elementwise("mul", a, b)
    return tensordot(a, b, ((a.ndim - 1,), (max(b.ndim - 2, 0),)))


def inner(a: Operand, b: Operand) -> Node:
    """The sum of products over the last axes of both.

    >>> print(gc.inner([[1.0, 2.0]], [3.0, 4.0]).type)
    float64[1]
    """
    a, b = alike(a, b)
    if not a.ndim or not b.ndim:
        return build.elementwise("mul", a, b)
    return tensordot(a, b, ((a.ndim - 1,), (b.ndim - 1,)))


def outer(a: Operand, b: Operand) -> Node:
    """All products of an element of a with one of b, both taken flat.

    >>> print(gc.outer([1.0, 2.0], [1.0, 2.0, 3.0]).type)
    float64[2, 3]
    """
    a, b = alike(a, b)
    return build.einsum(((0,), (1,)), (0, 1), build.reshape(a, (a.size,)), build.reshape(b, (b.size,)))


def diagonal(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
    """The diagonal of two axes, as the last axis.

    >>> print(gc.diagonal([[1.0, 2.0], [3.0, 4.0]]).type)
    float64[2]
    """
    node, (a, b) = diagonal_axes("diagonal", x, axis1, axis2)
    node = shifted(node, offset, a, b)
    labels = ["d" if k in (a, b) else k for k in range(node.ndim)]
    return build.einsum((labels,), [label for label in labels if label != "d"] + ["d"], node)


def trace(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
    """The sum of the diagonal of two axes.

    >>> print(gc.trace([[1.0, 2.0], [3.0, 4.0]]).type)
    float64[]
    """
    node, (a, b) = diagonal_axes("trace", x, axis1, axis2)
    node = shifted(build.cast(node, summed_dtype(node.dtype)), offset, a, b)
    labels = ["d" if k in (a, b) else k for k in range(node.ndim)]
    return build.einsum((labels,), [label for label in labels if label != "d"], node)


def diagonal_axes(name: str, x: Operand, axis1: int, axis2: int) -> tuple[Node, tuple[int, ...]]:
    node = as_node(x)
    if node.ndim < 2:
        raise refusal(name, f"needs two axes or more, got {node.type}", (node,))
    return node, axes_of(name, (axis1, axis2), node.ndim, (node,))


def shifted(x: Node, offset: int, a: int, b: int) -> Node:
    """The largest square of axes a and b whose main diagonal is the one at the offset."""
    rows, columns = x.shape[a], x.shape[b]
    down, right = max(-offset, 0), max(offset, 0)
    rows, columns = maximum(rows - down, 0), maximum(columns - right, 0)
    length = minimum(rows, columns) if known_equal(rows, columns) is not True else rows
    starts = tuple(down if k == a else right if k == b else 0 for k in range(x.ndim))
    shape = tuple(length if k in (a, b) else size for k, size in enumerate(x.shape))
    return build.slice_(x, starts if not isinstance(length, int) or length else (0,) * x.ndim, (1,) * x.ndim, shape)


def diag(x: Operand, k: int = 0) -> Node:
    """The k-th diagonal of a matrix, or the matrix with x on its k-th diagonal.

    >>> print(gc.diag([1.0, 2.0], 1).type)
    float64[3, 3]
    """
    node = as_node(x)
    if node.ndim == 2:
        return diagonal(node, k)
    if node.ndim != 1:
        raise refusal("diag", f"needs one or two axes, got {node.type}", (node,))
    square = build.diagonal(node, ((0, 1),))
    if k == 0:
        return square
    size = node.shape[0] + abs(k)
    return build.pad(square, (max(-k, 0), max(k, 0)), (1, 1), (size, size))
