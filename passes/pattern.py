"""Terms: the two sides of a rewrite rule as data, matching them against nodes, and building nodes from them.

A side is written as a function of its variables and called once:

    lambda x: log(1.0 + exp(x))         ->  Apply("log", (Apply("add", (Literal(1.0), Apply("exp", ..))),))

    x, y, ..   a variable: any node; where it is repeated, the same node
    c, c1, ..  a variable whose name starts with c: a uniform constant
    A, D, ..   a name that starts with a capital: an attribute (axes of a reduction, dtype of a cast)
    1.0        a literal: a uniform constant of that value; 0.0 is not -0.0

Terms say nothing of dtype and shape, so a rule serves all of them.  Reductions have one attribute, their axes.
`spread(s, A, x)` is the broadcast of s along new axes A to the shape of x: it brings back what `sum(x, A)` drops.

Matching is complete: it tries both orders of a commutative op, and goes back where a later part does not fit.  It
recurses over the term, which is small, never over the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
import inspect
import math
from typing import Any, TypeAlias

from graphc.ir import build
from graphc.ir.node import OPS, Node, uniform_value

Number: TypeAlias = "int | float | bool"
Bindings: TypeAlias = "dict[str, Any]"  # variable -> node, attribute -> value
REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")


@dataclass(frozen=True, eq=False)
class Term:
    """A part of a side of a rule.  Has Python's arithmetic operators."""

    def __add__(self, other: Operand) -> Apply:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Apply:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Apply:
        return apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Apply:
        return apply("sub", other, self)

    def __mul__(self, other: Operand) -> Apply:
        return apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Apply:
        return apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Apply:
        return apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Apply:
        return apply("div", other, self)

    def __pow__(self, other: Operand) -> Apply:
        return apply("pow", self, other)

    def __neg__(self) -> Apply:
        return apply("neg", self)


@dataclass(frozen=True, eq=False)
class Variable(Term):
    name: str

    @property
    def is_constant(self) -> bool:
        return self.name.startswith("c")


@dataclass(frozen=True, eq=False)
class Literal(Term):
    value: Number


@dataclass(frozen=True, eq=False)
class Attribute:
    """A variable that stands for an attribute."""

    name: str


@dataclass(frozen=True, eq=False)
class Apply(Term):
    """An op on terms.  `attribute` is its one static parameter, if it has one: an Attribute, or the value itself."""

    op: str
    operands: tuple[Term, ...]
    attribute: Any = None


Operand: TypeAlias = "Term | Number"


def apply(op: str, *operands: Operand, attribute: Any = None) -> Apply:
    return Apply(op, tuple(o if isinstance(o, Term) else Literal(o) for o in operands), attribute)


def named(op: str) -> Callable[..., Apply]:
    """The function that applies an op to terms."""
    return lambda *operands: apply(op, *operands)


def reduction(op: str) -> Callable[[Operand, Any], Apply]:
    return lambda operand, axes: apply(op, operand, attribute=axes)


def spread(small: Operand, axes: Any, like: Operand) -> Apply:
    """`small` broadcast along new axes to the shape of `like`."""
    return apply("broadcast", small, like, attribute=axes)


def cast(x: Operand, dtype: Any) -> Apply:
    return apply("cast", x, attribute=dtype)


def side(function: Callable[..., Operand]) -> Term:
    """The term that a function of variables writes."""
    given = {name: Attribute(name) if name[0].isupper() else Variable(name)
             for name in inspect.signature(function).parameters}
    result = function(**given)
    return result if isinstance(result, Term) else Literal(result)


def subterms(term: Term) -> list[Term]:
    """The term and its parts, each once, operands first."""
    found: dict[int, Term] = {}
    pending = [term]
    while pending:
        one = pending.pop()
        found.pop(id(one), None)
        found[id(one)] = one
        pending += one.operands if isinstance(one, Apply) else ()
    return list(found.values())[::-1]


# -- matching --
def matches(term: Term, node: Node, bound: Bindings, barrier: Collection[int] = ()) -> Iterator[Bindings]:
    """The ways in which the node is an instance of the term.  Nodes of `barrier` (ids) are not looked into."""
    if isinstance(term, Variable):
        yield from matches_variable(term, node, bound)
    elif isinstance(term, Literal):
        if same_number(uniform_value(node), term.value):
            yield bound
    elif isinstance(term, Apply) and node.op.name == term.op and node.id not in barrier:
        value = attribute_of(node)
        if isinstance(term.attribute, Attribute):
            bound = {term.attribute.name: value, **bound}
            if bound[term.attribute.name] != value:
                return
        elif term.attribute is not None and term.attribute != value:
            return
        yield from matches_operands(term, node, bound, barrier)


def matches_variable(term: Variable, node: Node, bound: Bindings) -> Iterator[Bindings]:
    if term.name in bound:
        if bound[term.name] is node:
            yield bound
    elif not term.is_constant or uniform_value(node) is not None:
        yield {**bound, term.name: node}


def matches_operands(term: Apply, node: Node, bound: Bindings, barrier: Collection[int]) -> Iterator[Bindings]:
    terms = own_operands(term)
    if len(terms) == 1:
        yield from matches(terms[0], node.operands[0], bound, barrier)
        return
    for nodes in orders(node):
        yield from matches_all(terms, nodes, bound, barrier)


def orders(node: Node) -> tuple[tuple[Node, ...], ...]:
    swapped = OPS[node.op.name].commutative and node.operands[0] is not node.operands[1]
    return (node.operands, node.operands[::-1]) if swapped else (node.operands,)


def matches_all(terms: Sequence[Term], nodes: Sequence[Node], bound: Bindings,
                barrier: Collection[int]) -> Iterator[Bindings]:
    if not terms:
        yield bound
        return
    for found in matches(terms[0], nodes[0], bound, barrier):
        yield from matches_all(terms[1:], nodes[1:], found, barrier)


def attribute_of(node: Node) -> Any:
    """The static parameter in the form that terms hold it: for a broadcast its new axes."""
    if node.op.name == "broadcast":
        return tuple(k for k in range(node.ndim) if k not in node.attrs["axes"])
    return node.attrs["dtype"] if node.op.name == "cast" else node.attrs.get("axes")


def same_number(a: Any, b: Number) -> bool:
    """Equal, and of the same sign where both are zero."""
    if a is None or isinstance(a, bool) != isinstance(b, bool):
        return False
    return bool(a == b) and math.copysign(1.0, a) == math.copysign(1.0, b)


def operand_ops(term: Apply) -> frozenset[str]:
    """Ops that must be among those of a node's operands for the node to match: a quick test before `matches`."""
    return frozenset(o.op for o in own_operands(term) if isinstance(o, Apply))


def needs_number(term: Apply) -> bool:
    """Whether an operand must be a uniform constant."""
    return any(isinstance(o, Literal) or (isinstance(o, Variable) and o.is_constant) for o in own_operands(term))


def own_operands(term: Apply) -> tuple[Term, ...]:
    """The terms that match operands: the second one of `spread` only gives the shape."""
    return term.operands[:1] if term.op == "broadcast" else term.operands


# -- building --
def instantiate(term: Term, bound: Mapping[str, Any], like: Node) -> Node:
    """The nodes of a term; `like` gives dtype and shape of a term that is only a number."""
    made: dict[int, Any] = {}
    for one in subterms(term):
        if isinstance(one, Variable):
            made[id(one)] = bound[one.name]
        elif isinstance(one, Literal):
            made[id(one)] = one.value
        elif isinstance(one, Apply):
            made[id(one)] = applied(one, [made[id(o)] for o in one.operands], bound)
    result = made[id(term)]
    return result if isinstance(result, Node) else build.full(result, like.dtype, like.shape, like.graph)


def applied(term: Apply, operands: Sequence[Any], bound: Mapping[str, Any]) -> Node:
    attribute = bound[term.attribute.name] if isinstance(term.attribute, Attribute) else term.attribute
    if term.op in REDUCTIONS:
        return build.reduce(term.op, operands[0], attribute)
    if term.op == "broadcast":
        small, like = operands
        return build.broadcast(small, like.shape, tuple(k for k in range(like.ndim) if k not in attribute))
    if term.op == "cast":
        return build.cast(operands[0], attribute)
    return build.elementwise(term.op, *operands)


# -- the words that rules are written with --
exp, expm1, log, log1p = map(named, ("exp", "expm1", "log", "log1p"))
sqrt, rsqrt, abs_, sign = map(named, ("sqrt", "rsqrt", "abs", "sign"))
sin, cos, tan, sinh, cosh, tanh = map(named, ("sin", "cos", "tan", "sinh", "cosh", "tanh"))
asin, atan, asinh, atanh, cbrt = map(named, ("asin", "atan", "asinh", "atanh", "cbrt"))
erf, erfc, sigmoid, softplus, relu = map(named, ("erf", "erfc", "sigmoid", "softplus", "relu"))
floor, ceil, round_, trunc = map(named, ("floor", "ceil", "round", "trunc"))
maximum, minimum, where, hypot = map(named, ("maximum", "minimum", "where", "hypot"))
eq, ne, lt, le, gt, ge = map(named, ("eq", "ne", "lt", "le", "gt", "ge"))
isnan, isfinite, stop_gradient = map(named, ("isnan", "isfinite", "stop_gradient"))
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = map(
    named, ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"))
sum_, prod, max_, min_, any_, all_ = map(reduction, REDUCTIONS)
