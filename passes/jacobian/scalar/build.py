"""Values of expressions -> nodes of the graph.

A row becomes one node; which sign that node has is free, because products and sums pass a sign on to their readers.
Only a result that is wanted with the other sign costs a negation.  Differences, and products with a constant, are
written the way round that leaves fewest of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphc.ir import build
from graphc.ir.node import Graph, Node
from graphc.ir.types import Type

from .expressions import COUNTED, Expressions
from .graph import members

Signs = dict[int, int]  # row -> 1 where its node computes the negative
Step = tuple[int, str, int, int]  # a row, "fixed" and its sign, or its op and the values that it reads
MOST_ROWS = 1000  # above that, differences stay the way round they are
MOST_TURNED = 8  # rows for one result


def cost_of_nodes(expressions: Expressions, wanted: Sequence[int], fixed: Sequence[int]) -> int:
    """The operations that `nodes_of` writes, with those of `fixed`."""
    rows = sorted(expressions.reachable(wanted))
    _, negations = Emission(expressions, expressions.reachable(fixed), rows).turned(wanted)
    return expressions.count([*fixed, *wanted]) + negations


def nodes_of(expressions: Expressions, wanted: Sequence[int], fixed: Sequence[int], kind: Type, graph: Graph
             ) -> list[Node]:
    """Nodes of these values; what `fixed` is computed from is in the graph already and is used as it is."""
    given = expressions.reachable(fixed)
    rows = sorted(expressions.reachable(wanted))
    emission = Emission(expressions, given, rows)
    turned, _ = emission.turned(wanted)
    emission.follow(dict.fromkeys(turned, 1))
    writer = Writer(emission, kind, graph)
    for row in rows:
        writer.made[row] = writer.node(row, row in turned)
    return [writer.result(value) for value in wanted]


@dataclass
class Emission:
    """The sign that the node of each of the rows has; they come operands first."""

    expressions: Expressions
    given: set[int]
    rows: Sequence[int]
    steps: list[Step] = field(init=False)
    signs: Signs = field(default_factory=dict)
    fixed: dict[int, tuple[Node, int] | None] = field(default_factory=dict)  # what `known` said

    def __post_init__(self) -> None:
        self.steps = [self.step(row) for row in self.rows]

    def turned(self, wanted: Sequence[int]) -> tuple[frozenset[int], int]:
        """The rows that are written the other way round (single ones, then all of one result, as that saves signs), and
        the negations that are left."""
        chosen: frozenset[int] = frozenset()
        fewest = self.negations(wanted, chosen)
        if not fewest or len(self.rows) > MOST_ROWS:
            return chosen, fewest
        ways = self.ways()
        tried = [*(frozenset((row,)) for row in reversed(self.rows) if self.may_turn(row)),
                 *(ways[value >> 1] for value in dict.fromkeys(wanted) if value >> 1 in ways)]
        while fewest and tried:
            counts = self.negations_by_way(wanted, chosen, tried)
            at = next((k for k, count in enumerate(counts) if count < fewest), None)
            if at is None:
                break
            chosen, fewest, tried = chosen ^ tried[at], counts[at], tried[at + 1:]
        return chosen, fewest

    def negations_by_way(self, wanted: Sequence[int], chosen: frozenset[int], ways: Sequence[frozenset[int]]
                         ) -> list[int]:
        """The negations that each way to turn more rows leaves.  All ways are followed at once: bit k of a sign is that
        under way k."""
        every = (1 << len(ways)) - 1
        flips = dict.fromkeys(chosen, every)
        for k, way in enumerate(ways):
            for row in way:
                flips[row] = flips.get(row, 0) ^ 1 << k
        self.follow(flips, every)
        counts = [0] * len(ways)
        for value in set(wanted):
            for k in members(self.negated(value, every)):
                counts[k] += 1
        return counts

    def may_turn(self, row: int) -> bool:
        op, operands = self.expressions.rows[row]
        if self.known(row) is not None:
            return False
        return op == "sub" or (op in ("mul", "div") and operands[0] >> 1 in self.expressions.numbers)

    def ways(self) -> dict[int, frozenset[int]]:
        """The rows that are to be turned to change the sign of a row, where that can be."""
        found: dict[int, frozenset[int]] = {}
        for row in self.rows:
            op, operands = self.expressions.rows[row]
            if self.may_turn(row):
                found[row] = frozenset((row,))
            if row in found or self.known(row) is not None:
                continue
            inside = [found[value >> 1] for value in operands if value >> 1 in found]
            if op == "add" and len(inside) == 2 and len(inside[0] ^ inside[1]) <= MOST_TURNED:
                found[row] = inside[0] ^ inside[1]
            elif op in ("mul", "div", "select") and inside:
                found[row] = min(inside, key=len)
        return found

    def negations(self, wanted: Sequence[int], turned: frozenset[int]) -> int:
        self.follow(dict.fromkeys(turned, 1))
        return sum(self.negated(value) for value in set(wanted))

    def negated(self, value: int, every: int = 1) -> int:
        """Under which of the ways a result has to be negated."""
        row, nodes = value >> 1, self.expressions.nodes
        if row in self.expressions.numbers or (row in self.given and value in nodes):
            return 0
        return self.signs[row] ^ every if value & 1 else self.signs[row]

    def known(self, row: int) -> tuple[Node, int] | None:
        """The node that computes the row, and its sign, where it is not to be built: it is there, or no arithmetic."""
        if row not in self.fixed:
            self.fixed[row] = self.found(row)
        return self.fixed[row]

    def found(self, row: int) -> tuple[Node, int] | None:
        if row not in self.given and self.expressions.rows[row][0] in COUNTED:
            return None
        nodes = self.expressions.nodes
        for sign in (0, 1):
            node = nodes.get(2 * row + sign)
            if node is not None and node.op.name != "neg":
                return node, sign
        return None

    def step(self, row: int) -> Step:
        found = self.known(row)
        if found is not None:
            return row, "fixed", found[1], 0
        op, operands = self.expressions.rows[row]
        if op == "constant":
            return row, "fixed", 0, 0
        first, second = operands
        return row, op, first, second ^ (op == "sub")

    def follow(self, turned: Mapping[int, int], every: int = 1) -> None:
        """The signs of all rows: a bit for each way that `every` has, and `turned` the ways that turn a row."""
        signs = self.signs
        for row, op, first, second in self.steps:
            if op == "fixed":
                signs[row] = every * first
                continue
            a = signs[first >> 1] ^ every if first & 1 else signs[first >> 1]
            b = signs[second >> 1] ^ every if second & 1 else signs[second >> 1]
            if op == "select":
                signs[row] = b
            elif op in ("mul", "div"):
                signs[row] = a ^ b ^ turned.get(row, 0)
            else:
                signs[row] = a & b | turned.get(row, 0) & (a ^ b)


@dataclass
class Writer:
    """The nodes made so far."""

    emission: Emission
    kind: Type
    graph: Graph
    made: dict[int, Node] = field(default_factory=dict)

    def node(self, row: int, is_turned: bool) -> Node:
        emission, expressions = self.emission, self.emission.expressions
        found = emission.known(row)
        if found is not None:
            return found[0]
        op, operands = expressions.rows[row]
        if op == "constant":
            return self.constant(expressions.numbers[row])
        a, b = (self.made[value >> 1] for value in operands)
        if op == "select":
            return build.elementwise("where", a.operands[0], b, build.zeros(b.dtype, b.shape, self.graph))
        if op in ("mul", "div"):
            return build.elementwise(op, self.constant(-expressions.numbers[operands[0] >> 1]) if is_turned else a, b)
        first, second = [(value & 1) ^ emission.signs[value >> 1] for value in operands]
        second ^= op == "sub"
        if first == second:
            return build.elementwise("add", a, b)
        return build.elementwise("sub", b, a) if first ^ is_turned else build.elementwise("sub", a, b)

    def constant(self, number: float) -> Node:
        return build.full(number, self.kind.dtype, self.kind.shape, self.graph)

    def result(self, value: int) -> Node:
        emission, expressions = self.emission, self.emission.expressions
        number = expressions.number(value)
        if number is not None:
            return self.constant(number)
        if emission.negated(value):
            return build.elementwise("neg", self.made[value >> 1])
        matches = not (value & 1) ^ emission.signs[value >> 1]
        return self.made[value >> 1] if matches else expressions.nodes[value]
