"""Chains of dense matrices: the cost model, and the search over intervals with arrays in place of loops.

    element l    rows x columns; one tangent, one adjoint and the matrix itself cost what is given, or cannot be had
    product      (rows, columns)

    dense_plan([swept(3, 3, 29), swept(1, 3, 14), swept(2, 1, 7)])
    ->  cost 56, bracketing "(tan(F2) * (adj(F1))adj(F0))"

The search gives the trees that `best_bracketing` gives.  Intervals of d + 1 elements are computed at one stroke from
shorter ones, which are kept twice, with the splits down and the intervals across:
    from_first[s, i] = C[i+s, i]          the right halves of all splits are rows of it,
    from_last[s, j]  = C[j, j-s]          the left halves are rows of it in reverse.
Costs are int64 where the dearest plan fits with room to spare, and Python's integers otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphc.ir.errors import GraphError

from .bracketing import Bracketing
from .chain import (ADJOINT, LEAF, MULTIPLY, TANGENT, Accumulated, ChainPlan, Choice, assembled, checked, largest_tape,
                    least_limit)

Shape: TypeAlias = "tuple[int, int]"
Numbers: TypeAlias = "NDArray[Any]"
ROOM = 2**60  # sums of a few costs below this stay in int64


class Element(NamedTuple):
    """A linear map: what a tangent, an adjoint and the whole matrix cost; None where they cannot be had."""

    rows: int
    columns: int
    tangent: int | None = None
    adjoint: int | None = None
    matrix: int | None = None
    tape: int = 0  # held while an adjoint is computed


def given(rows: int, columns: int) -> Element:
    """A matrix that is there."""
    return Element(rows, columns, matrix=0)


def swept(rows: int, columns: int, edges: int) -> Element:
    """A function known by its sweeps, which cost a multiplication per edge of its graph; an adjoint tapes the edges."""
    return Element(rows, columns, edges, edges, tape=edges)


@dataclass(frozen=True)
class DenseChain:
    """The cost model."""

    elements: tuple[Element, ...]

    @property
    def length(self) -> int:
        return len(self.elements)

    def preaccumulate(self, element: int) -> list[Accumulated[Shape]]:
        e = self.elements[element]
        ways = [("given", e.matrix, 1, 0), ("tangent", e.tangent, e.columns, 0), ("adjoint", e.adjoint, e.rows, e.tape)]
        return [Accumulated(mode, price * count, (e.rows, e.columns), tape)
                for mode, price, count, tape in ways if price is not None]

    def multiply(self, left: Shape, right: Shape) -> tuple[int, Shape]:
        return left[0] * left[1] * right[1], (left[0], right[1])

    def tangent(self, element: int, product: Shape) -> tuple[int, Shape] | None:
        e = self.elements[element]
        return None if e.tangent is None else (e.tangent * product[1], (e.rows, product[1]))

    def adjoint(self, element: int, product: Shape) -> tuple[int, Shape] | None:
        e = self.elements[element]
        return None if e.adjoint is None else (e.adjoint * product[0], (product[0], e.columns))

    def tape(self, element: int) -> int:
        return self.elements[element].tape

    def finish(self, product: Shape) -> int:
        return 0


def dense_chain(elements: Sequence[Element]) -> DenseChain:
    """The model of elements from the right, once they are seen to fit together."""
    for k, (right, left) in enumerate(zip(elements, elements[1:])):
        if left.columns != right.rows:
            raise GraphError(f"jacobian: element {k + 1} of the chain is {left.rows}x{left.columns}, which does "
                             f"not fit element {k} of {right.rows}x{right.columns}")
    return DenseChain(tuple(elements))


# -- the search --
def dense_plan(elements: Sequence[Element], memory: int | None = None, threads: int = 1) -> ChainPlan[Shape]:
    """The cheapest bracketing of elements from the right; limits as for `best_bracketing`."""
    model = dense_chain(elements)
    threads = checked(model, memory, threads)
    search = Search(model, memory, threads)
    cost = search.run()
    if cost is None:
        least = least_dense_memory(elements)
        raise GraphError(f"jacobian: no order of the {model.length} elements fits a tape of {memory}; "
                         + ("nor any other" if least is None else f"the least that would do is {least}"))
    tree: Bracketing = assembled(search.choice, model.length, threads, model.tape, memory)
    return ChainPlan(tree, cost, (elements[-1].rows, elements[0].columns), largest_tape(model, tree))


def least_dense_memory(elements: Sequence[Element], cost: int | None = None) -> int | None:
    """The smallest limit on the tape under which there is a plan, or one of at most this cost; None if none is."""
    model = dense_chain(elements)
    return least_limit(model, cost, lambda limit: Search(model, limit, 1).run())


def dearest(elements: Sequence[Element]) -> int:
    """At least the cost of any plan."""
    widest = max(max(e.rows, e.columns, 1) for e in elements)
    sweeps = sum(max(e.tangent or 0, e.adjoint or 0, 1) for e in elements)
    return widest * (2 * sweeps + len(elements) * widest * widest) + sum(e.matrix or 0 for e in elements)


class Search:
    """The tables of one search: costs, and what made them, by number of threads, length and place of intervals."""

    def __init__(self, model: DenseChain, memory: int | None, threads: int) -> None:
        self.model, self.memory, self.threads = model, memory, threads
        bound, q = dearest(model.elements), model.length
        self.far = 4 * bound  # what cannot be had
        self.dtype: Any = np.int64 if 16 * bound < ROOM else object
        self.rows = np.array([e.rows for e in model.elements], self.dtype)
        self.columns = np.array([e.columns for e in model.elements], self.dtype)
        fits = [e.adjoint is not None and (memory is None or e.tape <= memory) for e in model.elements]
        self.can = {TANGENT: np.array([e.tangent is not None for e in model.elements]), ADJOINT: np.array(fits)}
        self.sweep = {TANGENT: np.array([e.tangent or 0 for e in model.elements], self.dtype),
                      ADJOINT: np.array([e.adjoint or 0 for e in model.elements], self.dtype)}
        self.from_first = np.full((threads, q, q), self.far, self.dtype)
        self.from_last = self.from_first.copy()
        self.kind, self.split, self.own, self.run_length = (np.zeros((threads, q, q), np.int32) for _ in range(4))
        self.modes: list[str] = []

    def run(self) -> int | None:
        """The least cost; None where nothing fits."""
        self.fill_leaves()
        for distance in range(1, self.model.length):
            for t in range(self.threads):
                self.fill(distance, t)
        cost = int(self.from_first[-1, -1, 0])
        return cost if cost < self.far else None

    def fill_leaves(self) -> None:
        for k in range(self.model.length):
            ways = [way for way in self.model.preaccumulate(k) if self.memory is None or way.tape <= self.memory]
            best = min(ways, key=lambda way: way.cost, default=None)
            self.modes.append("" if best is None else best.mode)
            if best is not None:
                self.from_first[:, 0, k] = self.from_last[:, 0, k] = best.cost

    def fill(self, d: int, t: int) -> None:
        """All intervals of d + 1 elements: products, where a step is not cheaper."""
        q = self.model.length
        cost, split, own = self.products(d, t)
        tangent, adjoint = self.steps(d, t)
        runs = [self.extended(TANGENT, self.kind[t, d - 1, :q - d], self.run_length[t, d - 1, :q - d]),
                self.extended(ADJOINT, self.kind[t, d - 1, 1:q - d + 1], self.run_length[t, d - 1, 1:q - d + 1])]
        by_adjoint = (adjoint < tangent) | ((adjoint == tangent) & (runs[1] > runs[0]))
        step = np.where(by_adjoint, adjoint, tangent)
        by_step = step < cost
        place = (t, d, slice(0, q - d))
        self.kind[place] = np.where(by_step, np.where(by_adjoint, ADJOINT, TANGENT), MULTIPLY)
        self.run_length[place] = np.where(by_step, np.where(by_adjoint, runs[1], runs[0]), 0)
        self.split[place], self.own[place] = split, own
        best = np.minimum(np.where(by_step, step, cost), self.far)
        self.from_first[place] = best
        self.from_last[t, d, d:] = best

    def products(self, d: int, t: int) -> tuple[Numbers, Numbers, Numbers]:
        """The least costs of a product, its split after so many elements, and the threads of its left half or 0."""
        q = self.model.length
        window = np.lib.stride_tricks.sliding_window_view(self.rows, q - d)[:d]  # [s, i] = rows[i + s]
        price = window * (self.rows[d:] * self.columns[:q - d])
        best = split = own = np.zeros(0)
        for threads in range(t + 1):  # 0: one half after the other, both with all threads
            left = self.from_last[threads - 1 if threads else t, :d][::-1, d:]
            right = self.from_first[t - threads, :d, :q - d]
            costs = (np.maximum(left, right) if threads else left + right) + price
            at = costs.argmin(axis=0)
            least = costs[at, np.arange(q - d)]
            if not threads:
                best, split, own = least, at, np.zeros(q - d, np.int32)
                continue
            wins = (least < best) | ((least == best) & (at < split))
            best, split, own = np.where(wins, least, best), np.where(wins, at, split), np.where(wins, threads, own)
        return best, split, own

    def steps(self, d: int, t: int) -> tuple[Numbers, Numbers]:
        """Costs with the last element applied as a tangent, and with the first as an adjoint."""
        q = self.model.length
        tangent = self.from_first[t, d - 1, :q - d] + self.columns[:q - d] * self.sweep[TANGENT][d:]
        adjoint = self.from_first[t, d - 1, 1:q - d + 1] + self.rows[d:] * self.sweep[ADJOINT][:q - d]
        return (np.where(self.can[TANGENT][d:], tangent, self.far),
                np.where(self.can[ADJOINT][:q - d], adjoint, self.far))

    @staticmethod
    def extended(kind: int, kinds: Numbers, run_length: Numbers) -> Numbers:
        return np.where(kinds == kind, run_length, 0) + 1

    def choice(self, j: int, i: int, t: int) -> Choice:
        """What makes elements i..j with t threads."""
        place = (t - 1, j - i, i)
        if i == j:
            return Choice(LEAF, mode=self.modes[i])
        own = int(self.own[place])
        return Choice(int(self.kind[place]), i + int(self.split[place]), threads=(own, t - own) if own else None)
