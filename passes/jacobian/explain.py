"""Plans in words and formulas, as a database shows a query plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .elimination import Walk
from .tensor import Edge, Linear

if TYPE_CHECKING:
    from .plan import Plan

LONGEST = 2000  # letters of a formula; longer ones are told by their order


class Formulas:
    """The algebra of texts: products in parentheses, sums, and a name for what is used again."""

    def __init__(self) -> None:
        self.definitions: list[str] = []
        self.length = 0

    def multiply(self, left: str, right: str, at: int) -> str:
        return f"({left} * {right})"

    def merge(self, pieces: list[str], edge: Edge, at: int, *, settle: bool) -> str:
        text = pieces[0] if len(pieces) == 1 else f"({' + '.join(pieces)})"
        if not settle or "(" not in text:
            return text
        name = f"T{len(self.definitions) + 1}"
        self.definitions.append(f"{name} = {bare(text)}")
        self.length += len(text)
        return name


def bare(text: str) -> str:
    """Without the parentheses around all of it."""
    depth = 0
    for k, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if k == len(text) - 1 and k else text
    return text


def edge_names(linear: Linear[Any]) -> dict[Edge, str]:
    """Every local map by the node that it is the derivative of, and where it has several, the operand."""
    into: dict[int, int] = {}
    for j, _ in linear.edges:
        into[j] = into.get(j, 0) + 1
    return {(j, i): linear.nodes[j].name + (f"[{linear.nodes[i].name}]" if into[j] > 1 else "")
            for j, i in linear.edges}


def formula_of(linear: Linear[Any], order: Iterable[int]) -> str:
    """The products of an elimination order as a formula, what is used twice named first."""
    order = tuple(order)
    if len(order) > 60:
        return in_words(linear, order)
    algebra = Formulas()
    names = edge_names(linear)
    texts: Linear[str] = Linear(linear.nodes, names, linear.sources, linear.sinks, linear.skipped)
    walk: Walk[str] = Walk(texts, algebra)
    for v in order:
        walk.eliminate(v)
        if algebra.length > LONGEST:
            return in_words(linear, order)
    results = [bare(text) for _, edge in linear.pairs() if edge is not None and (text := walk.edge(edge)) is not None]
    text = "; ".join([*algebra.definitions, *results])
    return text if len(text) <= LONGEST else in_words(linear, order)


def in_words(linear: Linear[Any], order: tuple[int, ...]) -> str:
    """The order as runs of names."""
    runs: list[list[int]] = []
    step = 0
    place = {v: k for k, v in enumerate(linear.inner)}
    for v in order:
        gap = place[v] - place[runs[-1][-1]] if runs else 0
        if runs and abs(gap) == 1 and (len(runs[-1]) == 1 or gap == step):
            runs[-1].append(v)
            step = gap
        else:
            runs.append([v])
    texts = [linear.nodes[r[0]].name + (f" .. {linear.nodes[r[-1]].name}" if len(r) > 1 else "") for r in runs]
    shown = texts if len(texts) <= 40 else [*texts[:40], f".. {len(texts) - 40} more runs"]
    return "eliminate " + ", ".join(shown)


def latex_of(linear: Linear[Any], order: Iterable[int]) -> str:
    return ""


def explained(plan: Plan) -> str:
    lines = [f"Jacobian plan: {plan.name}",
             f"  multiplications  {plan.multiplications}"
             + (f" ({plan.products} in products, {plan.finish} in writing out)" if not is_zero(plan.finish) else ""),
             f"  bytes            {plan.bytes}",
             f"  bracketing       {plan.bracketing}",
             f"  optimality       {plan.proven}"]
    lines += [f"  note             {note}" for note in plan.notes]
    if plan.executed is not None:
        lines.append(f"  measured         {plan.executed} multiplications executed, {plan.multiplications} predicted")
    if plan.rejected:
        width = max(len(r.name) for r in plan.rejected)
        lines.append("  rejected:")
        lines += [f"    {r.name:{width}}  {r.multiplications} multiplications"
                  + (f", {r.bytes} bytes" if r.bytes >= 0 else ", estimated") for r in plan.rejected]
    return "\n".join(lines)


def is_zero(size: object) -> bool:
    return isinstance(size, int) and size == 0
