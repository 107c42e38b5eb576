"""Where an operand is read, as affine functions of a kernel's axes.

A **coordinate** is the position along one axis of a node:  offset + sum(strides[a] * axis a) + sum(stride * value of an
index node).  `operand_coordinates` composes a movement op into it:

    broadcast, transpose, slice, gather      always
    reshape                                  where no division is needed, else None: the operand must lie in a buffer
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.ir.dims import Dim, exact_quotient, product
from graphc.ir.node import Node


@dataclass(frozen=True, eq=False)
class IndexRead:
    """The value of an index node at a place, which counts along an axis of length `extent` of an operand of `user`."""

    node: Node
    at: Coordinates
    extent: int | Dim
    user: Node

    def __hash__(self) -> int:
        return hash((self.node.id, self.at, self.extent))

    def __eq__(self, other: object) -> bool:  # `==` of nodes would build one
        return (isinstance(other, IndexRead) and self.node is other.node and self.at == other.at
                and self.extent == other.extent)


@dataclass(frozen=True)
class Coordinate:
    """A position along one axis, as a function of the kernel's axes."""

    offset: int | Dim
    strides: tuple[int | Dim, ...]
    indices: tuple[tuple[IndexRead, int | Dim], ...] = ()

    def scaled(self, factor: int | Dim, offset: int | Dim = 0) -> Coordinate:
        return Coordinate(self.offset * factor + offset, tuple(s * factor for s in self.strides),
                          tuple((read, stride * factor) for read, stride in self.indices))

    def plus(self, other: Coordinate) -> Coordinate:
        return Coordinate(self.offset + other.offset, tuple(a + b for a, b in zip(self.strides, other.strides)),
                          self.indices + other.indices)


Coordinates = tuple[Coordinate, ...]


def axis(k: int, rank: int) -> Coordinate:
    """The coordinate that is axis k of a kernel with `rank` axes."""
    return Coordinate(0, tuple(int(a == k) for a in range(rank)))


def origin(rank: int) -> Coordinate:
    return Coordinate(0, (0,) * rank)


def identity(rank: int) -> Coordinates:
    return tuple(axis(k, rank) for k in range(rank))


def row_major(shape: tuple[int | Dim, ...]) -> tuple[int | Dim, ...]:
    """Strides, in elements, of a contiguous array."""
    strides: list[int | Dim] = []
    step: int | Dim = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))


def flattened(at: Coordinates, shape: tuple[int | Dim, ...], rank: int) -> Coordinate:
    """The position in the row-major array of that shape."""
    total = origin(rank)
    for coordinate, stride in zip(at, row_major(shape)):
        total = total.plus(coordinate.scaled(stride))
    return total


def operand_coordinates(node: Node, position: int, at: Coordinates,
                        extents: tuple[int | Dim, ...]) -> Coordinates | None:
    """Where operand `position` of a movement or elementwise node is read when the node is read at `at`."""
    rank = len(extents)
    match node.op.name:
        case "broadcast":
            return tuple(at[k] for k in node.attrs["axes"])
        case "transpose":
            back = {k: at[i] for i, k in enumerate(node.attrs["axes"])}
            return tuple(back[k] for k in range(len(at)))
        case "slice":
            return tuple(c.scaled(step, start) for c, start, step in zip(at, node.attrs["starts"], node.attrs["steps"]))
        case "reshape":
            return reshape_coordinates(node.shape, node.operands[0].shape, at, extents)
        case "gather":
            return gather_coordinates(node, position, at, rank)
        case _:
            return at


def gather_coordinates(node: Node, position: int, at: Coordinates, rank: int) -> Coordinates:
    place = dict(zip(node.attrs["out"], at))

    def index(k: int) -> Coordinates:
        return tuple(place[label] for label in node.attrs["index_labels"][k])

    if position:
        return index(position - 1)
    return tuple(place[label] if isinstance(label, int) else
                 Coordinate(0, (0,) * rank, ((IndexRead(node.operands[1 + label[1]], index(label[1]), size, node), 1),))
                 for label, size in zip(node.attrs["x_labels"], node.operands[0].shape))


Groups = list[tuple[list[int], list[int]]]


def reshape_groups(new: tuple[int | Dim, ...], old: tuple[int | Dim, ...]) -> Groups | None:
    """Runs of axes of equal product, sizes 1 left out; None where symbolic sizes hide them.

    (batch, 4, 6) <- (batch, 24) gives [([0], [0]), ([1, 2], [1])].
    """
    left = [k for k, size in enumerate(new) if size != 1]
    right = [k for k, size in enumerate(old) if size != 1]
    groups: Groups = []
    while left or right:
        if not left or not right:
            return None
        a, b = [left.pop(0)], [right.pop(0)]
        p: Any = new[a[0]]
        q: Any = old[b[0]]
        while p != q:
            if isinstance(p, int) and isinstance(q, int):
                grow_left = p < q
            else:
                grow_left = exact_quotient(q, p) is not None
            if grow_left and left:
                a.append(left.pop(0))
                p = p * new[a[-1]]
            elif not grow_left and right:
                b.append(right.pop(0))
                q = q * old[b[-1]]
            else:
                return None
        groups.append((a, b))
    return groups


def reshape_coordinates(new: tuple[int | Dim, ...], old: tuple[int | Dim, ...], at: Coordinates,
                        extents: tuple[int | Dim, ...]) -> Coordinates | None:
    rank = len(extents)
    groups = reshape_groups(new, old)
    if groups is None:
        return None
    result = [origin(rank)] * len(old)
    for a, b in groups:
        merged = flattened(tuple(at[k] for k in a), tuple(new[k] for k in a), rank)
        for k, later in zip(b, range(1, len(b) + 1)):
            inner = product([old[j] for j in b[later:]])
            parts = split_coordinate(merged, inner, extents)
            if parts is None:
                return None
            result[k], merged = parts
    return tuple(result)


def split_coordinate(c: Coordinate, inner: int | Dim,
                     extents: tuple[int | Dim, ...]) -> tuple[Coordinate, Coordinate] | None:
    """c as (c // inner, c % inner), where both are affine."""
    if inner == 1:
        return c, origin(len(extents))
    if c.indices or c.offset != 0:
        return None
    high: list[int | Dim] = []
    low: list[int | Dim] = []
    reach: int | Dim = 0
    for stride, extent in zip(c.strides, extents):
        quotient = 0 if stride == 0 else exact_quotient(stride, inner)
        high.append(0 if quotient is None else quotient)
        low.append(stride if quotient is None else 0)
        reach = reach + low[-1] * (extent - 1)
    gap = inner - 1 - reach
    if not isinstance(gap, int) or gap < 0 or any(isinstance(s, int) and s < 0 for s in low):
        return None
    return Coordinate(0, tuple(high)), Coordinate(0, tuple(low))
