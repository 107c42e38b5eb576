"""Sparse Jacobians and Hessians: a static pattern in CSR form, and one node with the values of its entries.

    >>> import graphc as gc
    >>> x = gc.placeholder("float64", (4,))
    >>> found = gc.sparse_jacobian(x[1:] * x[:-1], x)
    >>> found.shape, found.indptr.tolist(), found.indices.tolist()
    ((3, 4), [0, 2, 4, 6], [0, 1, 1, 2, 2, 3])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from passes.jacobian.sparse import WAYS, SparsePlan, Way, sparse_hessian_plan, sparse_plan

from .derivatives import both_sides, gradients, refused, unreachable
from .ir.errors import ShapeError
from .ir.node import Node
from .ir.types import itemsize
from .origins import noted

Array = np.ndarray[Any, Any]
HESSIAN_WAYS = tuple(way for way in WAYS if way != "both")


@dataclass(frozen=True, eq=False)
class SparseJacobian:
    """dy/dx with rows and columns numbered in row-major order of y and x, rows in order, columns in order within a row.

    shape            (elements of y, elements of x)
    indptr, indices  the pattern in CSR form: int32 arrays, int64 where a number does not fit
    data             a node of shape (nnz,) with the values in the order of `indices`; fetch it with `Session.run`

    A Hessian is stored with both triangles.
    """

    shape: tuple[int, int]
    indptr: Array
    indices: Array
    data: Node
    plan: SparsePlan

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @property
    def method(self) -> str:
        """How the values are computed: direct, forward, reverse or both."""
        return self.plan.chosen.name

    @property
    def colours(self) -> int:
        """How many seeds are swept; 0 where the entries are computed directly."""
        return self.plan.chosen.tangents + self.plan.chosen.cotangents

    def to_scipy(self, values: Any) -> Any:
        """The values of `data` as a `scipy.sparse.csr_array`."""
        from scipy.sparse import csr_array
        array = np.asarray(values)
        if array.shape != (self.nnz,):
            raise ShapeError(f"to_scipy: expected {self.nnz} values, got an array of shape {array.shape}")
        return csr_array((array, self.indices, self.indptr), shape=self.shape)

    def explain(self) -> str:
        """The pattern, the way that was chosen, and what the others would cost."""
        rows, columns = self.shape
        share = 100 * self.nnz / max(rows * columns, 1)
        dense = rows * columns * itemsize(self.data.type.dtype)
        lines = [f"{rows} x {columns}, {self.nnz} entries ({share:.3g} %; dense {dense} bytes)"]
        lines += [("* " if way is self.plan.chosen else "  ") + way_text(way) for way in self.plan.ways]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<SparseJacobian {self.shape[0]} x {self.shape[1]}, {self.nnz} entries, {self.method}>"


def way_text(way: Way) -> str:
    seeds = " + ".join(f"{n} {what}" for n, what in ((way.tangents, "tangents"), (way.cotangents, "cotangents")) if n)
    least = "" if way.data is not None else "at least "
    return f"{way.name:8} {least}{seeds or 'no seeds'}, {way.multiplications} multiplications, {way.reads} entries read"


def sparse_jacobian(y: Node, x: Node, order: str = "auto", *, unconnected: str = "zero") -> SparseJacobian:
    """dy/dx by its non-zero entries; the shapes of y and x must be known.

    order: "auto" takes the cheapest; "direct" evaluates the entries from structured terms, "forward" and "reverse"
    sweep a seed per colour of the columns or rows, "both" sweeps dense rows in reverse and the others forward.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (1000,))
        >>> gc.sparse_jacobian(gc.sin(x), x).nnz
        1000
    """
    y, x = one_each("sparse_jacobian", y, x, order, WAYS, unconnected)
    return result("sparse_jacobian", sparse_plan(y, x, order), y, x, unconnected)


def sparse_hessian(y: Node, x: Node, order: str = "auto", *, unconnected: str = "zero") -> SparseJacobian:
    """The second derivatives of the scalar y by their non-zero entries, both triangles; one of them is computed.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (1000,))
        >>> gc.sparse_hessian(gc.sum(x[1:] * x[:-1] ** 2), x).nnz
        2997
    """
    y, x = one_each("sparse_hessian", y, x, order, HESSIAN_WAYS, unconnected)
    (slope,), _ = both_sides("sparse_hessian", gradients(y, x, unconnected=unconnected), x, unconnected)
    return result("sparse_hessian", sparse_hessian_plan(slope, x, order), y, x, "zero")


def one_each(name: str, y: Any, x: Any, order: str, orders: Sequence[str], unconnected: str) -> tuple[Node, Node]:
    if order not in orders:
        raise refused(name, f"order {order!r} is none of {', '.join(orders)}")
    for side, node in (("y", y), ("x", x)):
        if not isinstance(node, Node):
            raise refused(name, f"{side}: expected one node, got {type(node).__name__} {node!r:.60}")
    (y,), (x,) = both_sides(name, y, x, unconnected)
    return y, x


def result(name: str, plan: SparsePlan, y: Node, x: Node, unconnected: str) -> SparseJacobian:
    pattern = plan.pattern
    if not pattern.nnz and unconnected == "error" and 0 not in pattern.shape:
        raise unreachable(name, [y], [x])
    kind = np.int32 if max(*pattern.shape, pattern.nnz) <= np.iinfo(np.int32).max else np.int64
    indptr, indices = pattern.indptr.astype(kind), pattern.indices.astype(kind)
    return SparseJacobian(pattern.shape, indptr, indices, noted(name, plan.data, [y], [x]), plan)
