"""Fewer operations in expressions that are there: common factors of sums, and reciprocals that are used once.

    p*q + p*r - s*p    ->    p*(q + r - s)            q * (1/r)    ->    q / r

Only what nobody else reads is taken apart, so no shared value is computed twice.  Rows of `fixed` are computed in any
case (by the function itself) and stay as they are.  Values are equal for real numbers; the order of sums changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from .expressions import ONE, Expressions

ROUNDS = 4
MOST_OPERATIONS = 6000  # above that, expressions stay as they are


def factored(expressions: Expressions, wanted: Sequence[int], fixed: Sequence[int]) -> list[int]:
    """The wanted values, computed with as few operations as was found; those of `fixed` are computed as well."""
    best = list(wanted)
    cost = expressions.count([*fixed, *best])
    for _ in range(ROUNDS if cost <= MOST_OPERATIONS else 0):
        found = Factoring(expressions, best, fixed).result()
        new = expressions.count([*fixed, *found])
        if new >= cost:
            break
        best, cost = found, new
    return best


@dataclass
class Factoring:
    """One round.  `uses` counts the readers of a row, `becomes` has the new value of rows that are done."""

    expressions: Expressions
    wanted: Sequence[int]
    given: Sequence[int]
    fixed: Set[int] = field(init=False)
    uses: Counter[int] = field(init=False)
    becomes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.expressions.rows
        self.fixed = self.expressions.reachable(self.given)
        self.uses = Counter(value >> 1 for value in {*self.wanted, *self.given})
        for row in self.expressions.reachable([*self.wanted, *self.given]):
            self.uses.update(operand >> 1 for operand in rows[row][1])

    def result(self) -> list[int]:
        for row in sorted(self.expressions.reachable(self.wanted)):
            self.becomes[row] = 2 * row if row in self.fixed else self.rebuilt(row)
        return [self.new(value) for value in self.wanted]

    def new(self, value: int) -> int:
        return self.becomes[value >> 1] ^ (value & 1)

    def rebuilt(self, row: int) -> int:
        op, operands = self.expressions.rows[row]
        if op in ("add", "sub"):
            return self.total([(self.new(term), self.is_single(term)) for term in self.terms(row)])
        if op == "mul":
            return self.quotient(*operands)
        if op == "div":
            return self.expressions.div(*map(self.new, operands))
        if op == "select":
            return self.expressions.mul(*map(self.new, operands))
        return 2 * row

    def is_single(self, value: int) -> bool:
        """Whether nobody else reads the row of this value, so that it may be taken apart."""
        return self.uses[value >> 1] == 1 and value >> 1 not in self.fixed

    def terms(self, row: int) -> list[int]:
        """The terms of a sum, through sums that only it reads, from left to right."""
        found: list[int] = []
        pending = [2 * row]
        while pending:
            value = pending.pop()
            op, operands = self.expressions.rows[value >> 1]
            if op in ("add", "sub") and (value >> 1 == row or self.is_single(value)):
                first, second = operands[0] ^ (value & 1), operands[1] ^ (value & 1) ^ (op == "sub")
                pending += (second, first)
            else:
                found.append(value)
        return found

    def total(self, terms: list[tuple[int, bool]]) -> int:
        """The sum, the factor that most products share taken out first."""
        expressions = self.expressions
        while True:
            shared = Counter(f for value, single in terms if single for f in dict.fromkeys(self.factors_of(value)))
            factor, count = max(shared.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))
            if count < 2:
                break
            inside = [(self.without(value, factor), False) for value, single in terms
                      if single and factor in self.factors_of(value)]
            rest = [term for term in terms if not (term[1] and factor in self.factors_of(term[0]))]
            terms = [*rest, (expressions.mul(factor, self.total(inside)), True)]
        total = 0
        for value, _ in terms:
            total = expressions.add(total, value)
        return total

    def factors_of(self, value: int) -> tuple[int, ...]:
        op, operands = self.expressions.rows[value >> 1]
        return operands if op == "mul" else ()

    def without(self, value: int, factor: int) -> int:
        a, b = self.factors_of(value)
        return (b if a == factor else a) ^ (value & 1)

    def quotient(self, a: int, b: int) -> int:
        """A product; with a reciprocal that nobody else reads it is a quotient."""
        rows, expressions = self.expressions.rows, self.expressions
        for s, t in ((a, b), (b, a)):
            op, operands = rows[t >> 1]
            if op == "div" and operands[0] == ONE and self.is_single(t):
                return expressions.div(self.new(s), self.new(operands[1])) ^ (t & 1)
        return expressions.mul(self.new(a), self.new(b))
