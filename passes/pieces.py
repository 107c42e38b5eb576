"""Ops that write their output piece by piece (concat, pad, diagonal, scatter_add), and scans: kernels of their own."""

from __future__ import annotations

from typing import Any

from graphc.ir.dims import Dim
from graphc.ir.node import Node

from .builder import WIDE, Builder, Draft, finished
from .coordinates import Coordinate, IndexRead, identity


def zero_kernel(root: Node, roots: set[Node]) -> Draft:
    builder = Builder(root.shape, roots)
    zero = builder.put("const", (), root.dtype, None, 0)
    builder.store(root, zero, identity(root.ndim))
    return finished(builder, tuple(builder.places), (root,), [root])


def piece(root: Node, operand: Node, roots: set[Node], target: list[Coordinate], kind: str = "store") -> Draft:
    """A kernel over the operand's axes that writes it to those coordinates of the root."""
    builder = Builder(operand.shape, roots)
    number = builder.value(operand, identity(operand.ndim))
    builder.store(root, number, tuple(target), kind)
    return finished(builder, tuple(builder.places), (root,), [root])


def piecewise_kernels(root: Node, roots: set[Node]) -> list[Draft]:
    x = root.operands[0]
    own = identity(x.ndim)
    if root.op.name == "concat":
        drafts: list[Draft] = []
        start: int | Dim = 0
        for operand in root.operands:
            at = list(identity(operand.ndim))
            at[root.attrs["axis"]] = at[root.attrs["axis"]].scaled(1, start)
            drafts.append(piece(root, operand, roots, at))
            start = start + operand.shape[root.attrs["axis"]]
        return drafts
    if root.op.name == "pad":
        at = [c.scaled(step, begin) for c, begin, step in zip(own, root.attrs["starts"], root.attrs["steps"])]
        return [zero_kernel(root, roots), piece(root, x, roots, at)]
    if root.op.name == "diagonal":
        source = {k: own[i] for i, axes in enumerate(root.attrs["axes"]) for k in axes}
        return [zero_kernel(root, roots), piece(root, x, roots, [source[k] for k in range(root.ndim)])]
    if root.op.name == "scatter_add":
        return [zero_kernel(root, roots), scatter_piece(root, roots)]
    return [scan_kernel(root, roots)]


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
    builder = Builder(root.shape, roots)
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
