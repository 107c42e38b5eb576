"""Linear maps with structure: a sum of terms, each an einsum over named atoms with index relations.

    M[out.., inn..] = coef * sum over interior atoms of  prod factor[atoms] * prod [target = view(sources)]

An **atom** is a part of an axis, named by a small int; `out` and `inn` list the atoms of the two sides in row-major
order, and axes of size 1 have none.  The shapes themselves are not stored, so a reshape is an identity.  An atom on
both sides is a Kronecker delta, one in `out` only a broadcast, one in `inn` only a sum.  A side may repeat an atom.

A **factor** is a node of the graph with one atom per axis (no axis of size 1).  A **view** says that one atom is a
function of others, `target = base + sum(stride * source)`, or `target = index[labels]` for an index node (values in
[-n, n), negative ones count from the end).  A view is always in range.  Slices, pads, windows and reshapes that do not
nest are affine views; gathers are index views.  Neither costs a multiplication.

    slice      out (o) inn (i)       view i = start + step*o          pad: the same with the sides swapped
    gather     out (o, k) inn (i, k) view i = index[o]
    reshape    out (a, b) inn (c, d) views f = 4*a + b, f = 6*c + d   where (3, 4) and (2, 6) do not nest

Invariants: atoms are numbered 0.. by first appearance in out, inn, views, factors; the source of a view is not the
target of another; a target stands in no factor; a factor's atoms are no subset of another's.

**Opaque** is the one other kind of piece: a linear function that is no einsum (a scan) and is given as code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..dims import Dim
from ..node import Node
from ..types import Shape

Size = int | Dim
Factor = tuple[Node, tuple[int, ...]]
Stride = tuple[int, Size]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """target = base + sum(stride * source), or target = index[labels]."""

    target: int
    base: Size = 0
    strides: tuple[Stride, ...] = ()
    index: Node | None = None
    labels: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[int, ...]:
        return self.labels if self.index is not None else tuple(atom for atom, _ in self.strides)

    @property
    def atoms(self) -> tuple[int, ...]:
        return (self.target, *self.sources)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal views."""
        return self.target, self.base, self.strides, -1 if self.index is None else self.index.id, self.labels

    def text(self, name: Callable[[int], str]) -> str:
        if self.index is not None:
            return f"{name(self.target)}={self.index.name}[{''.join(map(name, self.labels))}]"
        parts = [f"{stride}*{name(atom)}" if stride != 1 else name(atom) for atom, stride in self.strides]
        return f"{name(self.target)}={'+'.join(([str(self.base)] if self.base != 0 or not parts else []) + parts)}"


@dataclass(frozen=True, eq=False)
class Term:
    """One einsum with index relations; see the module's text for its meaning and invariants."""

    out: tuple[int, ...]
    inn: tuple[int, ...]
    sizes: tuple[Size, ...]
    factors: tuple[Factor, ...] = ()
    views: tuple[View, ...] = ()
    coef: float = 1.0

    @cached_property
    def structure(self) -> tuple[Any, ...]:
        """Equal for terms that differ in factors and coefficient only."""
        ends = {*self.out, *self.inn}.union(*(view.atoms for view in self.views))
        return (self.out, self.inn, tuple(view.key for view in self.views),
                tuple(self.sizes[atom] for atom in sorted(ends)))

    @cached_property
    def factor_keys(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        return tuple((node.id, atoms) for node, atoms in self.factors)

    @property
    def is_diagonal(self) -> bool:
        """Whether it only scales the elements of a vector."""
        return self.out == self.inn and not self.views and len(self.sizes) == len(self.out)

    def __repr__(self) -> str:
        def name(atom: int) -> str:
            return LETTERS[atom] if atom < len(LETTERS) else f"[{atom}]"

        def names(atoms: tuple[int, ...]) -> str:
            return "".join(map(name, atoms))

        parts = [f"{node.name}[{names(atoms)}]" for node, atoms in self.factors]
        parts += [view.text(name) for view in self.views]
        sizes = ", ".join(f"{name(atom)}:{size}" for atom, size in enumerate(self.sizes))
        return f"{self.coef:g} * ({names(self.out)} <- {names(self.inn)}) {' '.join(parts)} {{{sizes}}}"


@dataclass(frozen=True, eq=False)
class Opaque:
    """A linear function from `in_shape` to `out_shape` that is no einsum.

    `jvp(tangent, batch)` and `vjp(cotangent, batch)` take a node whose first `batch` axes are of a seed and keep them.
    `multiplications` is the price of one application without batch axes (equal both ways).
    """

    name: str
    out_shape: Shape
    in_shape: Shape
    jvp: Callable[[Node, int], Node]
    vjp: Callable[[Node, int], Node]
    multiplications: Size

    @property
    def transposed(self) -> Opaque:
        return Opaque(self.name, self.in_shape, self.out_shape, self.vjp, self.jvp, self.multiplications)


LinMap = tuple[Term | Opaque, ...]
ZERO: LinMap = ()
