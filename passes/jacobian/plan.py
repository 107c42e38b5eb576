"""The plan of a Jacobian: of all candidates the one that costs least, its finish included.

    plan = planned([y], [x])                     plan.order is all that execution needs
    maps = executed(plan, linearised([y], [x]))  the same walk as the pricing, on real maps

Candidates are compared on forms first; those that come near the best, and always forward and reverse, are then priced
exactly on ghosts, and the least of them wins.  So a plan is never dearer than forward or reverse.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from graphc.ir.errors import GraphError, user_line
from graphc.ir.linmap import LinMap
from graphc.ir.linmap.contract import estimate
from graphc.ir.linmap.term import Size
from graphc.ir.node import Node

from .candidates import STEPS_A_SECOND, Candidate, candidates
from .explain import explained, formula_of, latex_of
from .forms import Form, Forms, form_graph, structure_key
from .elimination import jacobian_maps
from .orders import form_price, improved
from .pricing import Price, exact_price
from .tensor import Ghosts, Linear, Pair, ghosted, linearised

CONTENDERS = 4  # candidates that are priced exactly
NEAR = 1.5  # times the best price on forms: farther ones are not
MOST_PRICED = 4000  # vertices up to which a sweep that is far off is priced exactly


class Rival(NamedTuple):
    """A candidate that was not chosen."""

    name: str
    multiplications: Size
    bytes: int


@dataclass(frozen=True)
class Plan:
    """The order in which a Jacobian is multiplied, what that costs, and what it was chosen from."""

    name: str
    order: tuple[int, ...] = field(repr=False)
    products: Size  # multiplications of the maps
    finish: Size  # multiplications of writing them out
    bytes: int
    bracketing: str = field(repr=False)
    rejected: tuple[Rival, ...] = field(repr=False)
    proven: str
    vertices: tuple[str, ...] = field(repr=False)
    formula_latex: str = field(repr=False, default="")
    structure: Hashable = field(repr=False, default=None)
    notes: tuple[str, ...] = ()
    executed: int | None = None

    @property
    def multiplications(self) -> Size:
        return self.products + self.finish

    def explain(self) -> str:
        """The choice, its rivals, and why."""
        return explained(self)

    def latex(self) -> str:
        """The bracketing as LaTeX."""
        return self.formula_latex

    def measured(self, multiplications: int) -> Plan:
        """The plan with what was counted in a run, for `explain`."""
        return replace(self, executed=multiplications)

    def __str__(self) -> str:
        return self.explain()


PLANS: dict[Hashable, Plan] = {}  # by structure and options; the oldest go first
MOST_PLANS = 256


def planned(ys: Sequence[Node], xs: Sequence[Node], *, memory: int | None = None, budget: float = 1.0,
            skipped: Iterable[Pair] = ()) -> Plan:
    """The plan for all wanted pairs together."""
    return plan_of(linearised(ys, xs, skipped), memory=memory, budget=budget)


def plan_of(linear: Linear[LinMap], *, memory: int | None = None, budget: float = 1.0) -> Plan:
    forms = Forms()
    shapes = form_graph(forms, linear)
    structure = structure_key(forms, shapes)
    key = structure, memory, budget
    if key not in PLANS:
        if len(PLANS) >= MOST_PLANS:
            del PLANS[next(iter(PLANS))]
        PLANS[key] = search(forms, shapes, linear, memory, budget, structure)
    return PLANS[key]


def search(forms: Forms, shapes: Linear[Form], linear: Linear[LinMap], memory: int | None, budget: float,
           structure: Hashable) -> Plan:
    rivals = dict.fromkeys(candidates(forms, shapes, memory, budget))
    found = [(form_price(forms, shapes, c.order), c) for c in unique(rivals)]
    if budget > 0 and len(found) > 2 and len(shapes.inner) <= 200:
        cost, best = min(found, key=lambda pair: pair[0])
        order = improved(forms, shapes, best.order, 0, int(budget * STEPS_A_SECOND))
        if order != best.order:
            found.append((form_price(forms, shapes, order), Candidate("local search", order)))
    ghosts_of, ghosts = ghosted(linear)
    priced = exactly(found, ghosts_of, ghosts)
    fitting = [(price, c) for price, c in priced if memory is None or price.nbytes <= memory]
    if not fitting:
        raise no_room(linear, memory, min(price.nbytes for price, _ in priced))
    price, chosen = min(fitting, key=lambda pair: estimate(pair[0].total))
    rejected = tuple(Rival(c.name, p.total, p.nbytes) for p, c in priced if c is not chosen)
    rejected += tuple(Rival(c.name, int(cost), -1) for cost, c in found if all(c is not d for _, d in priced))
    return Plan(chosen.name, chosen.order, price.products, price.finish, price.nbytes,
                chosen.note or formula_of(shapes, chosen.order), rejected, proof(chosen, price, rivals),
                tuple(node.name for node in linear.nodes), latex_of(shapes, chosen.order), structure)


def unique(rivals: Iterable[Candidate]) -> list[Candidate]:
    """The candidates without those whose order another has already."""
    found: dict[tuple[int, ...], Candidate] = {}
    for c in rivals:
        found.setdefault(c.order, c)
    return list(found.values())


def exactly(found: Sequence[tuple[float, Candidate]], linear: Linear[LinMap],
            ghosts: Ghosts) -> list[tuple[Price, Candidate]]:
    """The sweeps and the contenders with their exact prices, in the order of preference."""
    best = min(cost for cost, _ in found)
    near = sorted((cost, k) for k, (cost, _) in enumerate(found) if cost <= NEAR * best)[:CONTENDERS]
    chosen = {k for _, k in near} | ({0, 1} if len(linear.nodes) <= MOST_PRICED else set())
    return [(exact_price(linear, ghosts, c.order), c) for k, (_, c) in enumerate(found) if k in chosen]


def no_room(linear: Linear[LinMap], memory: int | None, least: int) -> GraphError:
    return GraphError(f"plan_jacobian: no plan fits memory={memory} bytes; the least that would do is {least} "
                      f"(of {len(linear.edges)} local maps)\n  at {user_line()}")


def proof(chosen: Candidate, price: Price, rivals: Iterable[Candidate]) -> str:
    if estimate(price.total) == 0:
        return "optimal: it costs nothing"
    names = {c.name for c in rivals}
    if "exact elimination" in names:
        return "the least over all elimination orders of the folded graph, by dynamic programming over sets of vertices"
    return "not proven: the least of the candidates, and no more than forward and reverse"


def executed(plan: Plan, linear: Linear[LinMap]) -> dict[Pair, LinMap]:
    """The maps of all wanted pairs, multiplied in the order of the plan."""
    forms = Forms()
    if structure_key(forms, form_graph(forms, linear)) != plan.structure:
        raise GraphError(f"jacobian: the plan {plan.name!r} was made for another graph: it has {len(plan.vertices)} "
                         f"vertices, this one {len(linear.nodes)}\n  at {user_line()}")
    return jacobian_maps(linear, plan.order)
