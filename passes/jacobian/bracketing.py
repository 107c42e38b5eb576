"""A bracketing of a chain of linear maps, as a tree: which products are made, and which elements are only applied.

    F'[3] * F'[2] * F'[1] * F'[0]                                      elements are numbered from the right
    Multiply(Leaf(3, "given"), Tangent(1, 2, Leaf(0, "given")))        F3 * (F2 applied to (F1 applied to F0))
    its formula: "(F3 * tan(F2 F1)(F0))"

A chain may be hundreds long and its tree as deep, so nothing here is recursive; trees are compared by their formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Bracketing:
    """A tree of products; its text is the formula."""

    def __str__(self) -> str:
        return formula(self)


@dataclass(frozen=True, eq=False)
class Leaf(Bracketing):
    """The matrix of one element."""

    element: int
    mode: str
    __repr__ = Bracketing.__str__


@dataclass(frozen=True, eq=False)
class Multiply(Bracketing):
    """A product of two matrices; `threads` are those of the halves if they are computed at the same time."""

    left: Bracketing
    right: Bracketing
    threads: tuple[int, int] | None = None
    __repr__ = Bracketing.__str__


@dataclass(frozen=True, eq=False)
class Tangent(Bracketing):
    """Elements first..last applied to `right`, `first` before the others."""

    first: int
    last: int
    right: Bracketing
    __repr__ = Bracketing.__str__


@dataclass(frozen=True, eq=False)
class Adjoint(Bracketing):
    """Elements last..first applied transposed to `left`, `last` before the others."""

    first: int
    last: int
    left: Bracketing
    __repr__ = Bracketing.__str__


def operands(node: Bracketing) -> tuple[Bracketing, ...]:
    """The parts of a product, left to right."""
    match node:
        case Multiply(left, right):
            return left, right
        case Tangent(right=part) | Adjoint(left=part):
            return (part,)
    return ()


def postorder(tree: Bracketing) -> list[Bracketing]:
    """Parts before what they are part of, right before left: the order in which one thread computes."""
    found, pending = [], [tree]
    while pending:
        node = pending.pop()
        found.append(node)
        pending += reversed(operands(node))
    return found[::-1]


def formula(tree: Bracketing, name: Callable[[int], str] = "F{}".format) -> str:
    """As mathematics: "tan(F3 F2)(X)" applies elements to X, "(X)adj(F1 F0)" transposed ones; "||" at the same time."""
    values: list[str] = []
    for node in postorder(tree):
        match node:
            case Leaf(element, mode):
                values.append(name(element) if mode == "given" else f"{SHORT.get(mode, mode)}({name(element)})")
            case Multiply(threads=threads):
                left, right = values.pop(), values.pop()
                values.append(f"({left} {'||' if threads else '*'} {right})")
            case Tangent(first, last):
                values.append(f"tan({run_text(first, last, name)})({bare(values.pop())})")
            case Adjoint(first, last):
                values.append(f"({bare(values.pop())})adj({run_text(first, last, name)})")
    return values[0]


SHORT = {"tangent": "tan", "adjoint": "adj"}


def run_text(first: int, last: int, name: Callable[[int], str]) -> str:
    if last - first > 3:
        return f"{name(last)}..{name(first)}"
    return " ".join(name(element) for element in range(last, first - 1, -1))


def bare(text: str) -> str:
    """Without the parentheses around all of a product."""
    depth = 0
    for k, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[1:-1] if k == len(text) - 1 and letter == ")" and text[0] == "(" else text
    return text


def tangent_sweep(length: int, mode: str = "tangent") -> Bracketing:
    """All elements one after the other from the right: forward mode."""
    return Tangent(1, length - 1, Leaf(0, mode)) if length > 1 else Leaf(0, mode)


def adjoint_sweep(length: int, mode: str = "adjoint") -> Bracketing:
    """All elements transposed from the left: reverse mode."""
    return Adjoint(0, length - 2, Leaf(length - 1, mode)) if length > 1 else Leaf(0, mode)
