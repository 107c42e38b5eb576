"""Plans in words and formulas, as a database shows a query plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from graphc.ir.dims import to_sympy
from graphc.ir.linmap.term import Size

from .elimination import Walk
from .tensor import Edge, Linear
from .guards import Alternative

LONGEST = 2000  # letters of a formula; longer ones are told by their order
MOST_VERTICES = 60  # of a formula


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

    def close(self, m: str, edge: Edge) -> str:
        return m


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
    if len(order) > MOST_VERTICES:
        return in_words(linear, order)
    algebra = Formulas()
    names = edge_names(linear)
    walk: Walk[str] = Walk(replace(linear, edges=names), algebra)
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


class Symbols:
    """The algebra of sympy's matrix expressions; what is used again is a symbol with an equation of its own."""

    def __init__(self, linear: Linear[Any]) -> None:
        self.linear = linear
        self.equations: list[tuple[Any, Any]] = []

    def matrix(self, name: str, edge: Edge) -> Any:
        import sympy
        rows, columns = (to_sympy(self.linear.size(v)) for v in edge)
        return sympy.MatrixSymbol(name, rows, columns)

    def multiply(self, left: Any, right: Any, at: int) -> Any:
        import sympy
        return sympy.MatMul(left, right, evaluate=False)

    def merge(self, pieces: list[Any], edge: Edge, at: int, *, settle: bool) -> Any:
        import sympy
        found = pieces[0] if len(pieces) == 1 else sympy.MatAdd(*pieces, evaluate=False)
        if not settle or isinstance(found, sympy.MatrixSymbol):
            return found
        name = self.matrix(f"T_{len(self.equations) + 1}", edge)
        self.equations.append((name, found))
        return name

    def close(self, m: Any, edge: Edge) -> Any:
        return m


def latex_of(linear: Linear[Any], order: Iterable[int]) -> str:
    """The products of an order as equations, one per line; long orders in words."""
    import sympy

    order = tuple(order)
    if len(order) > MOST_VERTICES:
        return rf"\text{{{in_words(linear, order)}}}".replace("_", r"\_")
    algebra = Symbols(linear)
    names = {edge: algebra.matrix(latex_name(name), edge) for edge, name in edge_names(linear).items()}
    walk: Walk[Any] = Walk(replace(linear, edges=names), algebra)
    walk.run(order)
    lines = [rf"{sympy.latex(name)} &= {sympy.latex(value)}" for name, value in algebra.equations]
    for _, edge in linear.pairs():
        value = None if edge is None else walk.edge(edge)
        if value is not None and edge is not None:
            y, x = (latex_name(linear.nodes[v].name) for v in edge)
            lines.append(rf"\frac{{\partial {y}}}{{\partial {x}}} &= {sympy.latex(value)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def latex_name(name: str) -> str:
    """A node's name as one upright symbol."""
    return rf"\mathrm{{{name}}}".replace("_", r"\_").replace("#", r"\#").replace("%", r"\%").replace("&", r"\&")


class Rejected(Protocol):
    """A rival of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def multiplications(self) -> Size: ...
    @property
    def bytes(self) -> int: ...


class Explained(Protocol):
    """What is told of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def multiplications(self) -> Size: ...
    @property
    def products(self) -> Size: ...
    @property
    def finish(self) -> Size: ...
    @property
    def bytes(self) -> int: ...
    @property
    def bracketing(self) -> str: ...
    @property
    def proven(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def executed(self) -> int | None: ...
    @property
    def rejected(self) -> Sequence[Rejected]: ...
    @property
    def alternatives(self) -> Sequence[Alternative]: ...


def explained(plan: Explained) -> str:
    lines = [f"Jacobian plan: {plan.name}",
             f"  multiplications  {plan.multiplications}"
             + (f" ({plan.products} in products, {plan.finish} in writing out)" if not is_zero(plan.finish) else ""),
             f"  bytes            {plan.bytes}",
             f"  bracketing       {plan.bracketing}",
             f"  optimality       {plan.proven}"]
    lines += [f"  note             {note}" for note in plan.notes]
    lines += guard_lines(plan)
    if plan.executed is not None:
        lines.append(f"  measured         {plan.executed} multiplications executed, {plan.multiplications} predicted")
    if plan.rejected:
        width = max(len(r.name) for r in plan.rejected)
        lines.append("  rejected:")
        lines += [f"    {r.name:{width}}  {r.multiplications} multiplications"
                  + f", {r.bytes} bytes" for r in plan.rejected]
    return "\n".join(lines)


def guard_lines(plan: Explained) -> list[str]:
    """The plans between which the symbolic sizes decide."""
    if len(plan.alternatives) < 2:
        return []
    lines = ["  the sizes decide, at run time (what is told above is for typical ones; plan.at(sizes) fixes one):"]
    return lines + [f"    {a.candidate.name}: {a.multiplications} multiplications, least where {a.guard}"
                    for a in plan.alternatives]


def is_zero(size: object) -> bool:
    return isinstance(size, int) and size == 0
