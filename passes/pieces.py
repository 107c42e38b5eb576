"""Ops that write their output piece by piece (concat, pad, ..), alternatives of a choice, and scans: own kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphc.ir.dims import Dim, product
from graphc.ir.node import Node

from .branches import in_alternative
from .builder import WIDE, Builder, Draft, finished
from .coordinates import Coordinate, IndexRead, identity
from .roots import estimate

SMALL = 64  # elements of a piece that is written at once with many others
MOST_PIECES = 256


def zero_kernel(root: Node, roots: set[Node]) -> Draft:
    builder = Builder(root.shape, roots, root.loc)
    zero = builder.put("const", (), root.dtype, None, 0)
    builder.store(root, zero, identity(root.ndim))
    return finished(builder, tuple(builder.places), (root,), [root])


def piece(root: Node, operand: Node, roots: set[Node], target: list[Coordinate], kind: str = "store") -> Draft:
    """A kernel over the operand's axes that writes it to those coordinates of the root."""
    builder = Builder(operand.shape, roots, root.loc)
    number = builder.value(operand, identity(operand.ndim))
    builder.store(root, number, tuple(target), kind)
    return finished(builder, tuple(builder.places), (root,), [root])


def piecewise_kernels(root: Node, roots: set[Node]) -> list[Draft]:
    x = root.operands[0]
    own = identity(x.ndim)
    if root.op.name == "concat":
        return concat_kernels(root, roots)
    if root.op.name == "choose":
        return [replace(piece(root, operand, roots, list(own)), when=in_alternative(root, k, ()))
                for k, operand in enumerate(root.operands)]
    if root.op.name == "pad":
        at = [c.scaled(step, begin) for c, begin, step in zip(own, root.attrs["starts"], root.attrs["steps"])]
        return [zero_kernel(root, roots), piece(root, x, roots, at)]
    if root.op.name == "diagonal":
        source = {k: own[i] for i, axes in enumerate(root.attrs["axes"]) for k in axes}
        return [zero_kernel(root, roots), piece(root, x, roots, [source[k] for k in range(root.ndim)])]
    if root.op.name == "scatter_add":
        return [zero_kernel(root, roots), scatter_piece(root, roots)]
    return [scan_kernel(root, roots)]


def concat_kernels(root: Node, roots: set[Node]) -> list[Draft]:
    """Operands of one shape are written by one kernel, so that what they share is computed once."""
    along = root.attrs["axis"]
    start: int | Dim = 0
    alike: dict[Any, list[tuple[Node, int | Dim]]] = {}
    for operand in root.operands:
        alike.setdefault(operand.shape, []).append((operand, start))
        start = start + operand.shape[along]
    drafts = []
    for shape, pieces in alike.items():
        count = MOST_PIECES if estimate(product(shape)) <= SMALL else 4
        drafts += [joined_pieces(root, pieces[k:k + count], roots) for k in range(0, len(pieces), count)]
    return drafts


def joined_pieces(root: Node, pieces: list[tuple[Node, int | Dim]], roots: set[Node]) -> Draft:
    """A kernel that writes operands of one shape to their places along the axis of a concat."""
    along = root.attrs["axis"]
    first = pieces[0][0]
    builder = Builder(first.shape, roots, root.loc)
    own = identity(first.ndim)
    values = [builder.value(operand, own) for operand, _ in pieces]
    for value, (_, start) in zip(values, pieces):
        builder.store(root, value, (*own[:along], own[along].scaled(1, start), *own[along + 1:]))
    return finished(builder, tuple(builder.places), (root,), [root])


def scatter_piece(root: Node, roots: set[Node]) -> Draft:
    u = root.operands[0]
    place: dict[Any, Coordinate] = dict(zip(root.attrs["out"], identity(u.ndim)))
    zero = (0,) * u.ndim

    def target(label: Any, size: int | Dim) -> Coordinate:
        if isinstance(label, int):
            return place[label]
        at = tuple(place[x] for x in root.attrs["index_labels"][label[1]])
        return Coordinate(0, zero, ((IndexRead(root.operands[1 + label[1]], at, size, root), 1),))

    return piece(root, u, roots, [target(x, n) for x, n in zip(root.attrs["x_labels"], root.shape)], "accumulate")


def scan_kernel(root: Node, roots: set[Node]) -> Draft:
    builder = Builder(root.shape, roots, root.loc)
    own = identity(root.ndim)
    wide = WIDE.get(root.dtype, root.dtype)
    values = [builder.value(o, own) for o in root.operands]
    if wide != root.dtype:
        values = [builder.put("cast", [v], wide) for v in values]
    number = builder.put("scan", values, wide, None, (root.attrs["axis"], root.attrs["reverse"]))
    if wide != root.dtype:
        number = builder.put("cast", [number], root.dtype)
    builder.store(root, number, own)
    return finished(builder, tuple(builder.places), (root,), [root])
