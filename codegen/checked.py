"""Sizes from outside, as code that cannot be fooled: what overflows, divides by zero or comes out negative is noticed.

`codegen.sizes` computes sizes that are known to be right; a caller's sizes go through here first.  The values are
defined in every case, so the code may look at `faults` once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.dims import Atom, Dim
from graphc.ir.plan import DimCheck

from .text import Function, Int

MOST = (1 << 63) - 1


class CheckedSizes:
    """Evaluates sizes where `function` is being written; `symbols` are the registers of the symbols' values."""

    def __init__(self, function: Function, symbols: Mapping[str, Int]) -> None:
        self.function = function
        self.known: dict[object, Int] = {}
        self.known.update(symbols)
        self.faults: list[str] = []  # each an i1 that is true where something is wrong

    # -- values --
    def value(self, size: int | Dim) -> Int:
        if isinstance(size, int):
            return size
        if size not in self.known:
            total: Int = 0
            for monomial, factor in size.terms:
                term: Int = 1
                for atom in monomial:
                    term = self.arithmetic("smul", term, self.atom(atom))
                total = self.arithmetic("sadd", total, self.arithmetic("smul", term, factor))
            self.known[size] = total
        return self.known[size]

    def atom(self, atom: Atom) -> Int:
        if atom not in self.known:
            name, a, b = atom
            x, y = self.value(a), self.value(b)
            if name == "floordiv":
                self.known[atom] = self.function.floordiv(x, self.divisor(y))
            else:
                self.known[atom] = (self.function.minimum if name == "min" else self.function.maximum)(x, y)
        return self.known[atom]

    def divisor(self, b: Int) -> Int:
        """A divisor that must be positive; 1 where it is not."""
        if isinstance(b, int):
            return b
        wrong = self.fault(f"icmp slt i64 {b}, 1")
        return self.function.value(f"select i1 {wrong}, i64 1, i64 {b}")

    def arithmetic(self, name: str, a: Int, b: Int) -> Int:
        fold = self.function.mul if name == "smul" else self.function.add
        neutral = 1 if name == "smul" else 0
        if (isinstance(a, int) and isinstance(b, int)) or neutral in (a, b) or (name == "smul" and 0 in (a, b)):
            return fold(a, b)
        pair = self.function.call("{i64, i1}", f"llvm.{name}.with.overflow.i64", ("i64", a), ("i64", b))
        self.fault(f"extractvalue {{i64, i1}} {pair}, 1")
        return self.function.value(f"extractvalue {{i64, i1}} {pair}, 0")

    # -- requirements --
    def fault(self, condition: str) -> str:
        """Notes an i1 instruction whose truth means that a size is wrong; returns its register."""
        self.faults.append(self.function.value(condition))
        return self.faults[-1]

    def nonnegative(self, size: int | Dim) -> None:
        value = self.value(size)
        if isinstance(value, str):
            self.fault(f"icmp slt i64 {value}, 0")

    def at_most(self, size: int | Dim, most: int) -> None:
        """Requires a size that is no more than this, which 64-bit arithmetic always ensures of 2^63 - 1."""
        value = self.value(size)
        if most < MOST:
            self.fault(f"icmp sgt i64 {value}, {most}")

    def equal(self, value: Int, size: int | Dim) -> None:
        self.fault(f"icmp ne i64 {value}, {self.value(size)}")

    def check(self, check: DimCheck) -> None:
        """What the graph requires of the sizes."""
        relation = "ne" if check.relation == "==" else "slt"
        self.fault(f"icmp {relation} i64 {self.value(check.a)}, {self.value(check.b)}")

    def any_fault(self) -> str:
        """An i1: whether anything so far was wrong."""
        result = "false"
        for fault in self.faults:
            result = fault if result == "false" else self.function.value(f"or i1 {result}, {fault}")
        return result
