"""Which entries of dy/dx can be non-zero, found without values: boolean products of the patterns of the local maps.

A **pattern** is a sparse boolean matrix in CSR form, rows and the columns in each of them in order, no entry twice.  It
contains every entry that is non-zero for some feed.  Constants are looked into (a triangular mask, a banded matrix, the
indices of a gather), values known only at run time are taken to be anything, and nothing cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math
from typing import Any

import numpy as np

from graphc.ir.errors import Unsupported
from graphc.ir.linmap import Opaque, Term, local_maps
from graphc.ir.node import Node, located
from graphc.ir.types import Shape

from ..differentiate import Between
from .entries import Constants, entries, ranges, require_few

Array = np.ndarray[Any, Any]
Pairs = tuple[Array, Array]  # rows, columns
Piece = Term | Opaque
Locals = dict[Node, list[tuple[Node, Piece]]]  # of every node: operand, and a piece of the map by it


@dataclass(frozen=True, eq=False)
class Pattern:
    """A boolean matrix: the columns of row r are indices[indptr[r]:indptr[r + 1]]."""

    shape: tuple[int, int]
    indptr: Array
    indices: Array

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @cached_property
    def counts(self) -> Array:
        """Entries per row."""
        return np.diff(self.indptr)

    @cached_property
    def rows(self) -> Array:
        """The row of every entry."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int64), self.counts)

    @cached_property
    def keys(self) -> Array:
        """row * columns + column of every entry, in order."""
        return self.rows * self.shape[1] + self.indices

    @cached_property
    def transposed(self) -> Pattern:
        return from_pairs(self.indices, self.rows, (self.shape[1], self.shape[0]))

    def places(self, rows: Array, cols: Array) -> Array:
        """Where these entries stand; -1 for those that the pattern lacks."""
        wanted = rows * self.shape[1] + cols
        if not self.nnz:
            return np.full(len(wanted), -1)
        found = np.minimum(np.searchsorted(self.keys, wanted), self.nnz - 1)
        return np.where(self.keys[found] == wanted, found, -1)

    def lists(self) -> list[list[int]]:
        """The columns of every row, as Python lists."""
        flat, ends = self.indices.tolist(), self.indptr.tolist()
        return [flat[a:b] for a, b in zip(ends, ends[1:])]


def from_keys(keys: Array, shape: tuple[int, int]) -> Pattern:
    """The pattern of entries numbered row * columns + column, in any order, repeated or not."""
    if len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
        keys = np.sort(keys)
        keys = keys[np.append(True, keys[1:] > keys[:-1])]
    rows, cols = np.divmod(keys, max(shape[1], 1))
    indptr = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
    return Pattern(shape, indptr, cols)


def from_pairs(rows: Array, cols: Array, shape: tuple[int, int]) -> Pattern:
    return from_keys(np.asarray(rows, np.int64) * shape[1] + cols, shape)


def identity_pattern(n: int) -> Pattern:
    return Pattern((n, n), np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int64))


def product(pairs: Pairs, b: Pattern, rows: int) -> Array:
    """Keys of the entries of (pairs) times b."""
    out, inner = pairs
    counts = b.counts[inner]
    require_few(int(counts.sum()), "a product of patterns")
    return np.repeat(out, counts) * b.shape[1] + b.indices[ranges(b.indptr[inner], counts)]


def union(patterns: Sequence[Pattern]) -> Pattern:
    distinct = list({id(p): p for p in patterns}.values())
    if len(distinct) == 1:
        return distinct[0]
    return from_keys(np.concatenate([p.keys for p in distinct]), distinct[0].shape)


# -- propagation --
def local_pieces(part: Between) -> Locals:
    """The local maps of all nodes between x and y, unmerged: a sum of many shifts must not be written out."""
    found: Locals = {}
    for node in part.nodes:
        refuse_symbolic(node)
        with located(node):
            by_position = local_maps(node, part.active[node]) if part.active[node] else {}
        found[node] = [(node.operands[k], piece) for k, local in by_position.items() for piece in local]
    return found


def refuse_symbolic(node: Node) -> None:
    if not isinstance(node.type.size, int):
        raise Unsupported(f"sparse pattern: {node!r} has a size that is not known before run time; a static pattern "
                          "needs static shapes (stage: derivatives)")


def pattern_between(part: Between, locals_: Locals, y: Node, x: Node, constants: Constants) -> Pattern:
    """The pattern of dy/dx, rows and columns numbered in row-major order."""
    refuse_symbolic(y)
    refuse_symbolic(x)
    columns = known_size(x)
    found: dict[Node, Pattern] = {}
    for node in part.nodes:
        patterns = [identity_pattern(columns)] if node is x else []
        for operand, piece in locals_[node]:
            if operand in found:
                patterns.append(pushed(piece, node, operand, found[operand], constants))
        if patterns:
            found[node] = union(patterns)
    none = np.zeros(0, np.int64)
    return found[y] if y in found else from_keys(none, (known_size(y), columns))


def static_shape(shape: Shape) -> tuple[int, ...]:
    return tuple(size for size in shape if isinstance(size, int))


def known_size(node: Node) -> int:
    size = node.type.size
    assert isinstance(size, int)
    return size


def pushed(piece: Piece, node: Node, operand: Node, below: Pattern, constants: Constants) -> Pattern:
    """The pattern of a local map times that of its operand."""
    if isinstance(piece, Term) and piece.is_diagonal and not any(constants.is_fixed(f) for f, _ in piece.factors):
        return below
    rows = known_size(node)
    return from_keys(product(local_pairs(piece, node, constants), below, rows), (rows, below.shape[1]))


def local_pairs(piece: Piece, node: Node, constants: Constants) -> Pairs:
    if isinstance(piece, Term):
        found = entries(piece, constants)
        return found.rows, found.cols
    if node.op.name == "linear_scan":
        return scan_pairs(piece, node.attrs["axis"], node.attrs["reverse"])
    m, n = (math.prod(static_shape(shape)) for shape in (piece.out_shape, piece.in_shape))
    require_few(m * n, f"the map of {node!r}")
    rows, cols = np.divmod(np.arange(m * n, dtype=np.int64), n)
    return rows, cols


def scan_pairs(piece: Opaque, axis: int, reverse: bool) -> Pairs:
    """Every element of a scan depends on those before it in its own line."""
    shape = static_shape(piece.out_shape)
    size, length = math.prod(shape), shape[axis]
    require_few(size * (length + 1) // 2, "the map of linear_scan")
    lines = np.moveaxis(np.arange(size, dtype=np.int64).reshape(shape), axis, 0).reshape(length, -1)
    later, earlier = np.tril_indices(length)
    i, j = (earlier, later) if reverse else (later, earlier)
    return lines[i].reshape(-1), lines[j].reshape(-1)
