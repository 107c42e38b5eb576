"""Chains of sparse matrices: the cost model.

    element l    a boolean array, True where the matrix is stored; a sweep costs `sweeps[l]`, or is not to be had
    product      the interval of its elements, (last, first): the pattern of a product is that of its elements, whatever
                 their order, so that the search over bracketings is exact

    a product of two                sum over c of  stored in column c of the left * stored in row c of the right
    tangents of an interval         colours of its columns * sweep        columns of a colour share no row, so one
    adjoints of an interval         colours of its rows * sweep           sweep serves them all

Colours are found greedily in the order of the columns; they bound the least number from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphc.ir.errors import GraphError

from .chain import Accumulated, Interval

Pattern: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True)
class SparseChain:
    """The cost model; what is found about an interval is kept."""

    patterns: tuple[Pattern, ...]
    sweeps: tuple[int | None, ...]
    given: bool = True  # the matrices are there; else they are had by sweeps
    known: dict[Interval, Pattern] = field(default_factory=dict, repr=False, compare=False)
    stored: dict[Interval, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict, repr=False,
                                                                                compare=False)

    @property
    def length(self) -> int:
        return len(self.patterns)

    def pattern(self, interval: Interval) -> Pattern:
        """Where the product of the elements may be other than zero."""
        if interval not in self.known:
            last, first = interval
            found = self.patterns[first]
            for k in range(last - 1, first, -1):  # the longest product that is known already
                if (k, first) in self.known:
                    first, found = k, self.known[k, first]
                    break
            for k in range(first + 1, last + 1):
                found = self.patterns[k].astype(np.float32) @ found > 0
            self.known[interval] = found
        return self.known[interval]

    def counts(self, interval: Interval) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Entries stored in each row and in each column."""
        if interval not in self.stored:
            pattern = self.pattern(interval)
            self.stored[interval] = pattern.sum(axis=1), pattern.sum(axis=0)
        return self.stored[interval]

    def preaccumulate(self, element: int) -> list[Accumulated[Interval]]:
        interval = (element, element)
        if self.given:
            return [Accumulated("given", 0, interval)]
        sweep = self.sweeps[element]
        if sweep is None:
            return []
        pattern = self.pattern(interval)
        return [Accumulated("tangent", colours(pattern) * sweep, interval),
                Accumulated("adjoint", colours(pattern.T) * sweep, interval, sweep)]

    def multiply(self, left: Interval, right: Interval) -> tuple[int, Interval]:
        return int(self.counts(left)[1] @ self.counts(right)[0]), (left[0], right[1])

    def tangent(self, element: int, product: Interval) -> tuple[int, Interval] | None:
        sweep = self.sweeps[element]
        if sweep is None:
            return None
        return colours(self.pattern((element, product[1]))) * sweep, (element, product[1])

    def adjoint(self, element: int, product: Interval) -> tuple[int, Interval] | None:
        sweep = self.sweeps[element]
        if sweep is None:
            return None
        return colours(self.pattern((product[0], element)).T) * sweep, (product[0], element)

    def tape(self, element: int) -> int:
        return self.sweeps[element] or 0

    def finish(self, product: Interval) -> int:
        return 0


def sparse_chain(patterns: Sequence[Pattern], sweeps: Sequence[int | None] | None = None, given: bool = True
                 ) -> SparseChain:
    """The model of patterns from the right, once they are seen to fit together."""
    for k, (right, left) in enumerate(zip(patterns, patterns[1:])):
        if left.shape[1] != right.shape[0]:
            raise GraphError(f"jacobian: the pattern of element {k + 1} of the chain is {left.shape}, "
                             f"which does not fit element {k} of {right.shape}")
    if sweeps is not None and len(sweeps) != len(patterns):
        raise GraphError(f"jacobian: {len(patterns)} patterns and {len(sweeps)} sweeps")
    return SparseChain(tuple(patterns), tuple(sweeps or [None] * len(patterns)), given)


def colours(pattern: Pattern) -> int:
    """Colours of the columns such that two of a colour have no row in common: each takes the first that is free."""
    taken = np.zeros((0, pattern.shape[0]), np.bool_)  # by colour, the rows that its columns have
    for column in pattern.T:
        if not column.any():  # needs no sweep
            continue
        free = np.flatnonzero(~(taken & column).any(axis=1))
        if len(free):
            taken[free[0]] |= column
        else:
            taken = np.vstack([taken, column])
    return len(taken)
