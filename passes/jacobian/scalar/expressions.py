"""Scalar expressions as numbers: equal ones meet, signs and constants cost nothing.

A **value** is 2*row + sign, so that `value ^ 1` is its negative.  A row is an op with values as operands: products and
sums in canonical order and without signs, `a - b` and `b - a` in one row.  Rows of other ops stand for nodes of the
graph as they are; `operands` then has what such a node reads, so that operations can be counted.

    select    (mask, x)    x where the mask holds, else zero, whatever x is: how a derivative passes a choice
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphc.ir.node import Node, ancestors, uniform_value

ZERO, ONE, MINUS_ONE = 0, 2, 3
ARITHMETIC = ("add", "sub", "mul", "div")
COUNTED = frozenset((*ARITHMETIC, "select"))
Row = tuple[str, tuple[int, ...]]


@dataclass
class Expressions:
    """The rows that were made so far.  `nodes[value]` is a node that computes a value; `numbers[row]` is a constant's.

    `negated[row]` are operands that other ops, which pass no sign on, read with a minus.
    """

    rows: list[Row] = field(default_factory=list)
    table: dict[tuple[object, ...], int] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    values: dict[Node, int] = field(default_factory=dict)
    numbers: dict[int, float] = field(default_factory=dict)
    negated: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constant(0.0)
        self.constant(1.0)

    def copy(self) -> Expressions:
        """The same rows, to which others can be added apart from these: numbers of rows decide between equal forms."""
        return Expressions(list(self.rows), dict(self.table), dict(self.nodes), dict(self.values), dict(self.numbers),
                           dict(self.negated))

    # -- rows --
    def row(self, key: tuple[object, ...], op: str, operands: tuple[int, ...]) -> int:
        found = self.table.get(key)
        if found is None:
            found = self.table[key] = 2 * len(self.rows)
            self.rows.append((op, operands))
        return found

    def constant(self, number: float) -> int:
        size = abs(number)
        value = self.row(("constant", size), "constant", ())
        self.numbers[value >> 1] = size
        return value ^ (number < 0)

    def number(self, value: int) -> float | None:
        """What a constant is, else None."""
        size = self.numbers.get(value >> 1)
        return size if size is None or not value & 1 else -size

    def mul(self, s: int, t: int) -> int:
        sign = (s ^ t) & 1
        a, b = (s & -2, t & -2) if s < t else (t & -2, s & -2)
        if a == ZERO:
            return ZERO
        if a == ONE:
            return b ^ sign
        if b == ONE:
            return a ^ sign
        numbers = self.numbers
        if b >> 1 in numbers:
            a, b = b, a
        if a >> 1 in numbers:
            if b >> 1 in numbers:
                return self.constant(numbers[a >> 1] * numbers[b >> 1]) ^ sign
            op, inner = self.rows[b >> 1]
            if op == "mul" and inner[0] >> 1 in numbers:
                return self.mul(self.constant(numbers[a >> 1] * numbers[inner[0] >> 1]), inner[1]) ^ sign
        elif self.rows[a >> 1][0] == "mask":
            return self.row(("select", a, b), "select", (a, b)) ^ sign
        elif self.rows[b >> 1][0] == "mask":
            return self.row(("select", b, a), "select", (b, a)) ^ sign
        return self.row(("mul", a, b), "mul", (a, b)) ^ sign

    def add(self, s: int, t: int) -> int:
        if s == ZERO:
            return t
        if t == ZERO:
            return s
        if s > t:
            s, t = t, s
        if s >> 1 in self.numbers and t >> 1 in self.numbers:
            return self.constant((self.number(s) or 0.0) + (self.number(t) or 0.0))
        if s == t and ("add", s & -2, s & -2) not in self.table:  # a constant meets others
            return self.mul(self.constant(2.0), s)
        if s ^ t == 1:
            return ZERO
        sign, s, t = s & 1, s & -2, t ^ (s & 1)
        if t & 1:
            return self.row(("sub", s, t ^ 1), "sub", (s, t ^ 1)) ^ sign
        return self.row(("add", s, t), "add", (s, t)) ^ sign

    def div(self, s: int, t: int) -> int:
        sign = (s ^ t) & 1
        a, b = s & -2, t & -2
        if b == ONE or (a == ZERO and b != ZERO):
            return a ^ sign
        reciprocal = self.table.get(("div", ONE, b))
        if reciprocal is not None and a != ONE and ("div", a, b) not in self.table:
            return self.mul(a, reciprocal) ^ sign  # a product takes a quarter of the time
        return self.row(("div", a, b), "div", (a, b)) ^ sign

    # -- nodes --
    def of_nodes(self, nodes: Sequence[Node]) -> list[int]:
        """The values of nodes, which are taken apart as far as they are arithmetic."""
        for node in ancestors([node for node in nodes if node not in self.values]):
            if node not in self.values:
                value = self.values[node] = self.of_node(node)
                self.nodes.setdefault(value, node)
        return [self.values[node] for node in nodes]

    def of_node(self, node: Node) -> int:
        number = uniform_value(node)
        if number is not None and not isinstance(number, bool) and number == number:
            return self.constant(number)
        op, operands = node.op.name, [self.values[o] for o in node.operands]
        if op == "neg":
            return operands[0] ^ 1
        if op in ARITHMETIC:
            a, b = operands
            return self.add(a, b ^ 1) if op == "sub" else {"add": self.add, "mul": self.mul, "div": self.div}[op](a, b)
        is_mask = op == "cast" and node.operands[0].dtype == "bool"
        found = self.row(("node", node.id), "mask" if is_mask else op, tuple(operands))
        signed = [value for o, value in zip(node.operands, operands) if value & 1 and o.op.name == "neg"]
        if signed:
            self.negated[found >> 1] = signed
        return found

    # -- counting --
    def reachable(self, values: Iterable[int]) -> set[int]:
        """The rows that values are computed from."""
        rows = self.rows
        pending = [value >> 1 for value in values]
        seen = set(pending)
        while pending:
            for operand in rows[pending.pop()][1]:
                row = operand >> 1
                if row not in seen:
                    seen.add(row)
                    pending.append(row)
        return seen

    def count(self, values: Iterable[int]) -> int:
        """The operations of arithmetic that values take together, without the changes of sign of the values."""
        rows, negated = self.rows, self.negated
        found = self.reachable(values)
        inside = {value for row in found if row in negated for value in negated[row]} if negated else ()
        return sum([rows[row][0] in COUNTED for row in found]) + len(inside)

    def signs(self, values: Iterable[int]) -> int:
        """About how many changes of sign results take: those of products, for a difference is written either way."""
        rows, nodes = self.rows, self.nodes
        return sum(value & 1 and value >> 1 not in self.numbers and value not in nodes
                   and rows[value >> 1][0] != "sub" for value in set(values))
