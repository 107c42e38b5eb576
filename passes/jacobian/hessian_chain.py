"""The Hessian of a chain of functions from the Hessians and Jacobians of its elements: where to split it.

    F = F[q-1] o ... o F[0];  of elements i..j, split before element k,
    F''[j:i] = F'[j:k] * F''[k-1:i]  +  F'[k-1:i]^T * F''[j:k] * F'[k-1:i]

    H[i,i] = 0
    H[j,i] = min over i < k <= j of  C[j,k] + H[k-1,i] + m[j] m[k-1] n[i]^2
                                  +  H[j,k] + C[k-1,i] + m[j] m[k-1] n[i] (m[k-1] + n[i])

with C the cost of dense Jacobians of intervals.  Each use of a Jacobian is charged, so that the cost is an upper bound
on that of a program that shares them; the best split under this cost is found, and no other forms are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .dense_chain import ROOM, Element, Search, dense_chain, given

Numbers = NDArray[Any]


class Split(NamedTuple):
    """The Hessian of elements first..last from those of first..at-1 and at..last."""

    last: int
    at: int
    first: int

    def __str__(self) -> str:
        outer, inner = f"{self.last}:{self.at}", f"{self.at - 1}:{self.first}"
        return f"H[{self.last}:{self.first}] = J[{outer}] H[{inner}] + J[{inner}]' H[{outer}] J[{inner}]"


class HessianPlan(NamedTuple):
    """Splits in the order in which they can be computed, and their multiplications."""

    cost: int
    splits: tuple[Split, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.splits))


class Sizes(NamedTuple):
    """Costs of Jacobians by (last, first), and sizes of the elements."""

    jacobians: Numbers
    rows: Numbers
    columns: Numbers


def hessian_plan(elements: Sequence[Element]) -> HessianPlan:
    """The cheapest splits of a chain of elements from the right, whose own Jacobians and Hessians are given."""
    sizes = measured(elements)
    q = len(elements)
    cost, at = np.zeros_like(sizes.jacobians), np.zeros((q, q), np.int32)
    for distance in range(1, q):
        for i in range(q - distance):
            j = i + distance
            costs = split_costs(sizes, cost, j, i)
            best = int(costs.argmin())
            cost[j, i], at[j, i] = costs[best], i + 1 + best
    return HessianPlan(int(cost[q - 1, 0]), ordered(at, q))


def measured(elements: Sequence[Element]) -> Sizes:
    search = Search(dense_chain([given(e.rows, e.columns) for e in elements]), None, 1)
    search.run()
    q = len(elements)
    widest = max(max(e.rows, e.columns, 1) for e in elements)
    dtype: Any = np.int64 if 8 * q * widest**4 < ROOM else object
    jacobians = np.zeros((q, q), dtype)
    for distance in range(q):
        for i in range(q - distance):
            jacobians[i + distance, i] = search.from_first[0, distance, i]
    return Sizes(jacobians, search.rows.astype(dtype), search.columns.astype(dtype))


def split_costs(sizes: Sizes, hessians: Numbers, j: int, i: int) -> Numbers:
    """The cost of elements i..j for every element before which they can be split: i + 1, ..., j."""
    m, k, n = sizes.rows[j], sizes.rows[i:j], sizes.columns[i]
    outer = sizes.jacobians[j, i + 1:j + 1] + hessians[i:j, i] + m * k * n * n
    inner = hessians[j, i + 1:j + 1] + sizes.jacobians[i:j, i] + m * k * n * (k + n)
    total: Numbers = outer + inner
    return total


def ordered(at: NDArray[np.int32], q: int) -> tuple[Split, ...]:
    """All splits of the whole, those of parts before those that they are part of."""
    found, pending = [], [(q - 1, 0)]
    while pending:
        j, i = pending.pop()
        if j > i:
            k = int(at[j, i])
            found.append(Split(j, k, i))
            pending += [(j, k), (k - 1, i)]
    return tuple(reversed(found))


def hessian_sweeps(elements: Sequence[Element]) -> tuple[int, int]:
    """The costs of bracketing to the left, where elements join from the right one at a time, and to the right."""
    m, n = [e.rows for e in elements], [e.columns for e in elements]
    left = right = jacobian = 0
    for i in range(len(elements) - 2, -1, -1):
        product = m[-1] * m[i] * n[i]
        left += jacobian + product * (m[i] + 2 * n[i])
        jacobian += product
    jacobian = 0
    for j in range(1, len(elements)):
        product = m[j] * m[j - 1] * n[0]
        right += jacobian + product * (m[j - 1] + 2 * n[0])
        jacobian += product
    return left, right
