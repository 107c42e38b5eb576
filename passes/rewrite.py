"""Rewriting by rules: the engine.  A rule is an equation, or a function of a node; the tables are in `passes.rules`.

    rule("log_of_one_plus", lambda x: log(1.0 + x), lambda x: log1p(x), ...)      an equation between terms
    step("commute", ("add", "mul"), canonical_order, example=...)                 a function Node -> Node | None

What every row must hold, and `tests/test_rules.py` tests by reading the tables:
1. Both sides have the same type; where the right side comes out of another type the rule declines.
2. (cost, number of ops, depth of signs, canonical order) strictly decreases, so rewriting ends.  Stability rules may
   cost more; for them the test is that their own result is a fixed point.
3. Each rule is correct alone; the order of a table is preference.
4. A rule is bit-identical for ±0, ±1, subnormals, huge numbers, ±inf and NaN (whose payload is not looked at), or says
   that it is not: `reorders=True` changes the order in which a sum is taken, which no op promises, and is bit-identical
   where nothing is rounded; `exact=False` is true of real numbers only, and runs under `fast_math`; `stability` gives
   ranges of the variables on which the error of the right side is the smaller one.
5. Each rule fires on its own left side, or on its example.

The driver goes bottom-up and rewrites the result of a rule again until nothing fires.  Every node is settled once, so
the time is linear in the nodes that come to exist.  A rule that makes its own operand again, and a table that makes
nodes without end, are faults of the compiler and raise VerifyError with the names of the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import graphc.ir.ops  # noqa: F401  (fills the op table)
from graphc.ir import build
from graphc.ir.errors import VerifyError
from graphc.ir.node import Node, ancestors, located, make
from graphc.ir.types import is_float, is_integer

from .pattern import Apply, Bindings, Term, instantiate, matches, needs_number, operand_ops, side

Range: TypeAlias = "tuple[float, float]"
FIRED: ContextVar[Counter[str] | None] = ContextVar("FIRED", default=None)
DTYPES: dict[str, Callable[[str], bool]] = {
    "float": is_float, "int": is_integer, "bool": lambda d: d == "bool",
    "discrete": lambda d: not is_float(d), "any": lambda d: True}
UNIFORM = frozenset({"constant", "broadcast", "reshape"})  # ops of which `uniform_value` may find a number
MAX_ROUNDS = 4
FIRINGS_PER_NODE = 64  # a table that needs more than this on average is making nodes without end


@dataclass(frozen=True, eq=False)
class Rule:
    """A row of a table; made by `rule` or `step`."""

    name: str
    ops: tuple[str, ...]  # of the nodes that it looks at
    dtypes: str  # a key of DTYPES: what the last operand must be
    exact: bool
    reorders: bool
    stability: Mapping[str, Range]  # variable -> range on which the right side is more accurate
    left: Term | None = None
    right: Term | None = None
    when: Callable[..., bool] | None = None
    function: Callable[[Node], Node | None] | None = None
    operand_ops: frozenset[str] = frozenset()  # ops that must be among the operands
    needs_number: bool = False  # whether an operand must be a uniform constant
    lonely: bool = False  # only where the first operand has no other user: it would be computed twice
    example: Callable[..., Node] | None = None  # builds a node on which the rule fires, from leaves

    def may_fire(self, operand_ops: set[str], has_number: bool) -> bool:
        """A quick test, by the ops of a node's operands; never False where `applied` would find something."""
        return self.operand_ops <= operand_ops and (has_number or not self.needs_number)

    def applied(self, node: Node, barrier: Collection[int] = ()) -> Node | None:
        """What the node becomes, or None where the rule does not fire."""
        if node.operands and not DTYPES[self.dtypes](node.operands[-1].type.dtype):
            return None
        result = self.function(node) if self.function else self.by_equation(node, barrier)
        return None if result is None or result is node or result.type != node.type else result

    def by_equation(self, node: Node, barrier: Collection[int]) -> Node | None:
        assert self.left is not None and self.right is not None
        for bound in matches(self.left, node, {}, barrier):
            if self.when is None or self.holds(bound):
                return instantiate(self.right, bound, node)
        return None

    def holds(self, bound: Bindings) -> bool:
        """The condition, given the bound nodes and attributes that its parameters name."""
        assert self.when is not None
        return self.when(**{name: bound[name] for name in parameters(self.when)})


def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__
    return code.co_varnames[:code.co_argcount]


def rule(name: str, left: Callable[..., Any], right: Callable[..., Any], *, exact: bool = True, reorders: bool = False,
         stability: Mapping[str, Range] | None = None, when: Callable[..., bool] | None = None, dtypes: str = "float",
         example: Callable[..., Node] | None = None) -> Rule:
    """An equation: the left side is replaced by the right one."""
    pattern = side(left)
    assert isinstance(pattern, Apply), name
    return Rule(name, (pattern.op,), dtypes, exact, reorders, stability or {}, pattern, side(right), when,
                example=example, operand_ops=operand_ops(pattern), needs_number=needs_number(pattern))


def step(name: str, ops: Sequence[str], function: Callable[[Node], Node | None], *, example: Callable[..., Node],
         exact: bool = True, reorders: bool = False, stability: Mapping[str, Range] | None = None,
         dtypes: str = "any", lonely: bool = False) -> Rule:
    """A rewrite that no term can write, for nodes of these ops.  `example(dtype)` builds a node on which it fires."""
    return Rule(name, tuple(ops), dtypes, exact, reorders, stability or {}, function=function,
                example=example, lonely=lonely)


Table: TypeAlias = "Mapping[str, Sequence[Rule]]"  # op -> its rules, in order of preference


def table(*groups: Iterable[Rule]) -> Table:
    """The rules by the op at which they look."""
    found: dict[str, list[Rule]] = {}
    for one in (one for group in groups for one in group):
        for op in one.ops:
            found.setdefault(op, []).append(one)
    return found


@contextmanager
def counting(counts: Counter[str]) -> Iterator[None]:
    """Counts in `counts` how often each rule fires inside."""
    token = FIRED.set(counts)
    try:
        yield
    finally:
        FIRED.reset(token)


# -- nodes with other operands --
# What an op is rebuilt with, so that it comes out in canonical form; `make` where a row is missing.
REBUILD: dict[str, Callable[[Node, Sequence[Node]], Node]] = {
    "broadcast": lambda n, o: build.broadcast(o[0], n.attrs["shape"], n.attrs["axes"]),
    "reshape": lambda n, o: build.reshape(o[0], n.attrs["shape"]),
    "transpose": lambda n, o: build.transpose(o[0], n.attrs["axes"]),
    "slice": lambda n, o: build.slice_(o[0], n.attrs["starts"], n.attrs["steps"], n.attrs["shape"]),
    "cast": lambda n, o: build.cast(o[0], n.attrs["dtype"]),
}


def with_operands(node: Node, operands: Sequence[Node]) -> Node:
    """The node on these operands, which have the types of its own."""
    if all(new is old for new, old in zip(operands, node.operands)):
        return node
    with located(node):
        if node.op.name in REBUILD:
            found = REBUILD[node.op.name](node, operands)
        elif node.op.kind == "elementwise" and any(o.op.name == "broadcast" for o in operands):
            found = build.broadcasting(node.op.name, operands, dict(node.attrs))
        else:
            found = make(node.op.name, operands, graph=node.graph, **node.attrs)
    return found if found.type == node.type else make(node.op.name, operands, graph=node.graph, **node.attrs)


# -- the driver --
@dataclass
class Rewriting:
    """One run of the driver: what is settled, and what is being settled (in the order of the stack)."""

    rules: Table
    barrier: Collection[int]
    uses: Mapping[int, int]  # how often each node is read, for those that were there before
    final: dict[int, Node] = field(default_factory=dict)
    becomes: dict[int, tuple[Node, str]] = field(default_factory=dict)  # id -> what a rule made of it, and which rule
    alive: list[Node] = field(default_factory=list)  # ids are of living nodes only while these are held
    firings: int = 0
    uncertain: bool = False  # a rule did not fire because the users of a new node are not known

    def settle(self, root: Node, budget: int) -> None:
        stack = [root]
        open_ids: set[int] = set()
        while stack:
            node = stack[-1]
            if node.id not in self.final:
                open_ids.add(node.id)
                waiting = self.step(node)
                if waiting:
                    self.check(stack, waiting, open_ids, budget)
                    stack.extend(waiting)
                    continue
            open_ids.discard(node.id)
            stack.pop()

    def step(self, node: Node) -> list[Node]:
        """Settles the node, or says which nodes must be settled first."""
        final = self.final
        if node.id in self.barrier:
            final[node.id] = node
            return []
        if node.id not in self.becomes:
            missing = [o for o in node.operands if o.id not in final]
            if missing:
                return missing[::-1]
            fresh = with_operands(node, [final[o.id] for o in node.operands])
            found = (fresh, "") if fresh is not node else self.fire(node)
            if found is None:
                final[node.id] = node
                return []
            self.alive += (node, found[0])
            self.becomes[node.id] = found
        result = self.becomes[node.id][0]
        if result.id not in final:
            return [result]
        final[node.id] = final[result.id]
        return []

    def fire(self, node: Node) -> tuple[Node, str] | None:
        """The first rule that applies, and its result."""
        ops = {o.op.name for o in node.operands}
        has_number = not UNIFORM.isdisjoint(ops)
        rows = [one for one in self.rules.get(node.op.name, ()) if one.may_fire(ops, has_number)]
        if not rows:
            return None
        with located(node):
            for one in rows:
                if one.lonely and not self.is_lonely(node.operands[0]):
                    continue
                result = one.applied(node, self.barrier)
                if result is not None:
                    self.firings += 1
                    counts = FIRED.get()
                    if counts is not None:
                        counts[one.name] += 1
                    return result, one.name
        return None

    def is_lonely(self, node: Node) -> bool:
        """Whether the node had one user; of new nodes that is known in the next round."""
        self.uncertain |= node.id not in self.uses
        return self.uses.get(node.id) == 1

    def check(self, stack: Sequence[Node], waiting: Sequence[Node], open_ids: set[int], budget: int) -> None:
        again = next((n for n in waiting if n.id in open_ids), None)
        if again is None and self.firings <= budget:
            return
        recent = [self.becomes[n.id][1] or "rebuild" for n in stack if n.id in self.becomes][-8:]
        what = f"{again!r} comes from itself" if again is not None else f"more than {budget} rules fired"
        raise VerifyError(f"rewrite: {what}; the last rules: {', '.join(recent)}\n  at {stack[0].loc}")


def rewrite(fetches: Sequence[Node], rules: Table, keep: Iterable[Node] = ()) -> list[Node]:
    """The fetches, each rewritten until no rule fires.  Nodes of `keep` are leaves: neither changed nor looked into."""
    barrier = frozenset(node.id for node in keep)
    found = list(fetches)
    for _ in range(MAX_ROUNDS):
        run = Rewriting(rules, barrier, count_uses(found))
        budget = FIRINGS_PER_NODE * (len(run.uses) + 16)
        for fetch in found:
            run.settle(fetch, budget)
        found = [run.final[fetch.id] for fetch in found]
        if not run.uncertain:
            break
    return found


def count_uses(fetches: Sequence[Node]) -> dict[int, int]:
    """How often each node is read; being fetched counts as well."""
    counts = Counter(operand.id for node in ancestors(fetches) for operand in node.operands)
    counts.update(fetch.id for fetch in fetches)
    return counts
