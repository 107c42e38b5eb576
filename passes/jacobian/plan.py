"""The plan of a Jacobian: of all candidates the one that costs least, its finish included.

    plan = plan_of(linearised([y], [x]))         plan.order is all that execution needs
    executed(plan, linearised([y], [x]))         the same walk as the pricing, on real maps; written out

Candidates are compared on forms first.  Those that come near the best, and forward and reverse unless they are far off,
are then priced exactly on ghosts, and the least of them wins, so that a plan is never dearer than forward or reverse.
What is left over is priced when somebody asks for `rejected`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

from graphc.ir.build import choose
from graphc.ir.dims import Dim
from graphc.ir.errors import GraphError, user_line
from graphc.ir.linmap import LinMap, dense_node
from graphc.ir.linmap.contract import estimate
from graphc.ir.linmap.term import Size
from graphc.ir.node import Node
from graphc.ir.plan import Condition

from .candidates import EXACT, STEPS_A_SECOND, Candidate, candidates, is_cheap, sweeps
from .elimination import jacobian_maps
from .engines import SCALAR, Engine, Results, arithmetic, built, coloured, scalar_code, sides, tensor_arithmetic
from .explain import explained, formula_of, latex_of
from .forms import Form, Forms, form_graph, forms_for, structure_key
from .orders import form_price, improved
from .guards import Alternative, alternatives, built_alternatives
from .pricing import Price, exact_price
from .tensor import Edge, Linear, Pair, ghosted, has_opaque

CONTENDERS = 4  # candidates near the best that are priced exactly
NEAR = 1.5  # times the best price on forms: farther ones are not
FAR = 4.0  # times the best price: a sweep that is farther off cannot win by what forms do not see
AHEAD = 0.8  # times the arithmetic of the better sweep: where scalar code takes less, nothing else is searched
SEARCHED = 200  # inner vertices up to which a local search follows


class Rival(NamedTuple):
    """A candidate that was not chosen."""

    name: str
    multiplications: Size
    bytes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The order in which a Jacobian is multiplied, what that costs, and what it was chosen from."""

    name: str
    order: tuple[int, ...] = field(repr=False)
    products: Size  # multiplications of the maps
    finish: Size  # multiplications of writing them out
    bytes: int  # the most that is held at a time
    proven: str
    linear: Linear[Any] = field(repr=False)
    rivals: tuple[Candidate, ...] = field(repr=False)
    pricing: Callable[[Candidate], Price] = field(repr=False)
    structure: Hashable = field(repr=False)
    notes: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = field(repr=False, default=())  # all that can win, where sizes decide
    executed: int | None = None
    engine: str = ""  # where it is no elimination of the tensor graph: the name of the engine that builds it
    others: tuple[Rival, ...] = field(repr=False, default=())  # rivals of other engines

    @property
    def multiplications(self) -> Size:
        return self.products + self.finish

    @cached_property
    def rejected(self) -> tuple[Rival, ...]:
        """Every other candidate with its exact price."""
        prices = [(c.name, self.pricing(c)) for c in self.rivals]
        return (*(Rival(name, price.total, price.nbytes) for name, price in prices), *self.others)

    @cached_property
    def bracketing(self) -> str:
        """The products as a formula."""
        if self.engine:
            return self.engine
        return formula_of(self.linear, self.order)

    def explain(self) -> str:
        """The choice, its rivals, and why."""
        return explained(self)

    def latex(self) -> str:
        """The bracketing as LaTeX."""
        if self.engine:
            return rf"\text{{{self.engine}}}"
        return latex_of(self.linear, self.order)

    def at(self, **sizes: int) -> Plan:
        """The plan that is the cheapest where the symbolic sizes have these values."""
        if not self.alternatives:
            return self
        best = min(self.alternatives, key=lambda a: a.cost(sizes)).candidate
        price = self.pricing(best)
        rivals = tuple(c for c in (Candidate(self.name, self.order), *self.rivals) if c.order != best.order)
        return replace(self, name=best.name, order=best.order, products=price.products, finish=price.finish,
                       bytes=price.nbytes, rivals=rivals, alternatives=())

    def measured(self, multiplications: int) -> Plan:
        """The plan with what was counted in a run, for `explain`."""
        return replace(self, executed=multiplications)

    def __str__(self) -> str:
        return self.explain()


PLANS: dict[Hashable, Plan] = {}  # by structure and options; the oldest go first
MOST_PLANS = 64
NEXT_TO_EQUAL = 1.005


def plan_of(linear: Linear[LinMap], *, memory: int | None = None, budget: float = 1.0, threads: int = 1) -> Plan:
    """The plan for all wanted pairs together; remembered by structure."""
    return planned(linear, Limits(memory, budget, threads))[0]


def jacobians(linear: Linear[LinMap], budget: float) -> tuple[Plan, dict[Pair, Node | None]]:
    """The plan, and the dense Jacobian of every wanted pair; what a search has built is not built again."""
    plan, results = planned(linear, Limits(None, budget, 1))
    if results is None:
        return plan, executed(plan, linear)
    return plan, {pair: results.get(pair) for pair, _ in linear.pairs()}


def planned(linear: Linear[LinMap], limits: Limits) -> tuple[Plan, Results | None]:
    """The plan, and what its engine made where it was searched just now."""
    forms = forms_for(linear)
    shapes = form_graph(forms, linear)
    structure = structure_key(forms, shapes)
    key = structure, limits
    if has_opaque(linear):  # its plan is of this graph alone
        return search(forms, shapes, linear, limits, structure)
    if key not in PLANS:
        found, results = search(forms, shapes, linear, limits, structure)
        if len(PLANS) >= MOST_PLANS:
            del PLANS[next(iter(PLANS))]
        PLANS[key] = found
        return found, results
    plan = PLANS[key]
    if tuple(n.name for n in plan.linear.nodes) == tuple(n.name for n in linear.nodes):
        return plan, None
    return replace(plan, linear=ghosted(linear)[0]), None  # texts name the nodes of this graph


class Limits(NamedTuple):
    """What the user allows: bytes, seconds of search, threads."""

    memory: int | None
    budget: float
    threads: int


def search(forms: Forms, shapes: Linear[Form], linear: Linear[LinMap], limits: Limits, structure: Hashable
           ) -> tuple[Plan, Results | None]:
    ghosts_of, ghosts = ghosted(linear)
    known: dict[tuple[int, ...], Price] = {}

    def pricing(c: Candidate) -> Price:
        if c.order not in known:
            known[c.order] = exact_price(ghosts_of, ghosts, c.order, limits.threads)
        return known[c.order]

    scalar = cache(lambda: scalar_code(linear, limits.budget))
    if limits.threads == 1 and limits.memory is None and not is_cheap(forms, shapes):
        e = scalar()
        if e is not None and (why := far_ahead(e, forms, shapes, linear)):
            return Plan(e.name, e.order, e.multiplications, 0, e.nbytes, UNPROVEN, ghosts_of, tuple(sweeps(shapes)),
                        pricing, structure, (why, e.note), engine=e.name), e.results
    rivals = list(candidates(forms, shapes, *limits))
    exact = next((c for c in rivals if c.name == EXACT), None)  # another may have found its order before
    found = [(form_price(forms, shapes, c.order), c) for c in unique(rivals)]
    if exact is None:
        found += locally(forms, shapes, found, limits.budget)
    few = [c for _, c in found] if limits.threads > 1 else contenders(found)
    chosen = least(few, pricing, limits.memory) or least([c for _, c in found], pricing, limits.memory)
    if chosen is None:
        raise no_room(limits.memory, min(pricing(c).nbytes for _, c in found))
    price, others = pricing(chosen), tuple(c for _, c in found if c is not chosen)
    notes = () if limits.threads == 1 else (f"done after {price.span} multiplications on {limits.threads} threads",)
    plan = Plan(chosen.name, chosen.order, price.products, price.finish, price.nbytes,
                proof(chosen, exact, limits, pricing), ghosts_of, others, pricing, structure, notes,
                choices(found, pricing, limits.memory))
    if plan.proven == FREE or limits.threads > 1:
        return plan, None
    return with_engines(plan, linear, limits, scalar())


def far_ahead(e: Engine, forms: Forms, shapes: Linear[Form], linear: Linear[LinMap]) -> str:
    """Why nothing else is searched: scalar code takes so much less than both sweeps that little is left to save.

    It does where values and products of either sweep take more already; additions need not be counted then.
    """
    least = e.arithmetic - arithmetic(sides(linear)[0])
    if all(form_price(forms, shapes, c.order, least) > least for c in sweeps(shapes)):
        return (f"{e.arithmetic} operations of arithmetic, values and Jacobian together; either sweep of the tensor "
                "graph takes more, its additions left out")
    name, other = min(((c.name, tensor_arithmetic(linear, c.order)) for c in sweeps(shapes)), key=lambda pair: pair[1])
    return comparison(e, name, other) if e.arithmetic <= AHEAD * other else ""


def with_engines(plan: Plan, linear: Linear[LinMap], limits: Limits, scalar: Engine | None
                 ) -> tuple[Plan, Results | None]:
    """The plan, or that of another engine where this is better, with what this made."""
    engines = [e for e in (scalar, *coloured(linear)) if e is not None]
    own, results = Candidate(plan.name, plan.order), None
    for e in engines:
        if (limits.memory is None or e.nbytes <= limits.memory) and (why := advantage(e, plan, linear)):
            plan = replace(plan, name=e.name, engine=e.name, order=e.order, products=e.multiplications, finish=0,
                           bytes=e.nbytes, rivals=(own, *plan.rivals) if not plan.engine else plan.rivals,
                           proven=UNPROVEN, notes=(why, e.note), alternatives=())
            results = e.results
    others = [Rival(e.name, e.multiplications, e.nbytes) for e in engines if e.name != plan.engine]
    return replace(plan, others=tuple(others)), results


def comparison(e: Engine, name: str, other: int) -> str:
    return (f"{e.arithmetic} operations of arithmetic, values and Jacobian together; {name} of the tensor graph takes "
            f"{other}")


def advantage(e: Engine, plan: Plan, linear: Linear[LinMap]) -> str:
    """Why an engine is better: scalar code by the arithmetic of values and Jacobians, sweeps by multiplications."""
    if e.name == SCALAR:
        other = tensor_arithmetic(linear, plan.order)
        return "" if e.arithmetic >= other else comparison(e, plan.name, other)
    if plan.engine == SCALAR or e.multiplications >= estimate(plan.multiplications):
        return ""
    return f"{e.multiplications} multiplications; {plan.name} takes {plan.multiplications}"


def choices(found: Sequence[tuple[float, Candidate]], pricing: Callable[[Candidate], Price],
            memory: int | None) -> tuple[Alternative, ...]:
    """The candidates within the memory between which symbolic sizes decide; none where one is the least for all."""
    if not isinstance(pricing(found[0][1]).total, Dim):
        return ()
    left = alternatives([(pricing(c).total, c) for _, c in found
                         if memory is None or pricing(c).nbytes <= memory])
    return left if len(left) > 1 else ()


def unique(rivals: Iterable[Candidate]) -> list[Candidate]:
    """The candidates without those whose order another has already."""
    found: dict[tuple[int, ...], Candidate] = {}
    for c in rivals:
        found.setdefault(c.order, c)
    return list(found.values())


def locally(forms: Forms, shapes: Linear[Form], found: Sequence[tuple[float, Candidate]],
            budget: float) -> list[tuple[float, Candidate]]:
    """The best so far improved by local search."""
    if budget <= 0 or len(found) < 3 or len(shapes.inner) > SEARCHED:
        return []
    _, best = min(found, key=lambda pair: pair[0])
    order = improved(forms, shapes, best.order, 0, int(budget * STEPS_A_SECOND))
    return [] if order == best.order else [(form_price(forms, shapes, order), Candidate("local search", order))]


FREE = "proven: it costs nothing"
UNPROVEN = "not proven; the best of the candidates, and never worse than forward or reverse"


def contenders(found: Sequence[tuple[float, Candidate]]) -> list[Candidate]:
    """The candidates near the best, and the sweeps that are not far off, in the order of preference."""
    best = min(cost for cost, _ in found)
    near = sorted((cost, k) for k, (cost, _) in enumerate(found) if cost <= NEAR * best)[:CONTENDERS]
    chosen = {k for _, k in near} | {k for k in (0, 1) if k < len(found) and found[k][0] <= FAR * best}
    return [found[k][1] for k in sorted(chosen)]


def least(rivals: Sequence[Candidate], pricing: Callable[[Candidate], Price], memory: int | None) -> Candidate | None:
    """The cheapest of those that fit the memory; of those next to equal, that which holds the fewest bytes.

    Next to equal is within half a percent, and not dearer than a sweep.
    """
    fitting = [c for c in rivals if memory is None or pricing(c).nbytes <= memory]
    if not fitting:
        return None
    costs = {c.order: (pricing(c).span, estimate(pricing(c).total)) for c in fitting}
    span, total = min(costs.values())
    sweeps = [costs[c.order][1] for c in fitting if c.name in ("forward", "reverse")]
    most = min([NEXT_TO_EQUAL * total, *sweeps])
    near = [c for c in fitting if costs[c.order][0] <= NEXT_TO_EQUAL * span and costs[c.order][1] <= max(total, most)]
    return min(near, key=lambda c: (pricing(c).nbytes, costs[c.order]))


def no_room(memory: int | None, needed: int) -> GraphError:
    return GraphError(f"plan_jacobian: no plan fits memory={memory} bytes; the least that would do is {needed}\n"
                      f"  at {user_line()}")


def proof(chosen: Candidate, exact: Candidate | None, limits: Limits,
          pricing: Callable[[Candidate], Price]) -> str:
    """What is known of the choice; the dynamic programme counts products, not how they are written out."""
    if limits.threads > 1 or limits.memory is not None:
        return "not proven under these limits; the best of the candidates"
    price = pricing(chosen)
    if estimate(price.total) == 0:
        return FREE
    if exact is not None and estimate(price.products) <= estimate(pricing(exact).products):
        return ("proven for the products, over all elimination orders of the folded graph, by dynamic programming over "
                "sets of vertices")
    return UNPROVEN


def executed(plan: Plan, linear: Linear[LinMap]) -> dict[Pair, Node | None]:
    """The dense Jacobian of every wanted pair as the plan says; None where it is structurally zero."""
    if skeleton(plan.linear) != skeleton(linear):
        raise GraphError(f"jacobian: the plan {plan.name!r} was made for another graph: it has "
                         f"{len(plan.linear.nodes)} vertices and {len(plan.linear.edges)} local maps, this one "
                         f"{len(linear.nodes)} and {len(linear.edges)}\n  at {user_line()}")
    return chosen_at_run_time(plan, linear) if plan.alternatives else carried_out(linear, plan.engine, plan.order)


def carried_out(linear: Linear[LinMap], engine: str, order: tuple[int, ...]) -> dict[Pair, Node | None]:
    """The dense Jacobian of every wanted pair by an engine, or else by products of maps, in this order."""
    if not engine:
        return multiplied(linear, order)
    found = built(engine, order, linear)
    return {pair: found.get(pair) for pair, _ in linear.pairs()}


def chosen_at_run_time(plan: Plan, linear: Linear[LinMap]) -> dict[Pair, Node | None]:
    """Every pair by each of the alternatives, of which the sizes choose one when they are known."""
    kept, conditions = built_alternatives(plan.alternatives)
    found = [multiplied(linear, a.candidate.order) for a in kept]
    return {pair: joined([f[pair] for f in found], conditions) for pair, _ in linear.pairs()}


def joined(nodes: Sequence[Node | None], conditions: Sequence[Condition]) -> Node | None:
    present = [node for node in nodes if node is not None]  # a pair is zero in all orders or in none
    return choose(present, conditions) if present else None


def multiplied(linear: Linear[LinMap], order: Iterable[int]) -> dict[Pair, Node | None]:
    """The same in an elimination order."""
    maps = jacobian_maps(linear, order)
    return {pair: written(linear, edge, maps[pair]) for pair, edge in linear.pairs()}


def written(linear: Linear[LinMap], edge: Edge | None, m: LinMap) -> Node | None:
    if edge is None or not m:
        return None
    y, x = linear.nodes[edge[0]].type, linear.nodes[edge[1]].type
    return dense_node(m, y.shape, x.shape, y.dtype)


def skeleton(linear: Linear[Any]) -> tuple[Any, ...]:
    """What a plan needs to be the same in a graph that it is carried out on."""
    return (tuple(sorted(linear.edges)), linear.sources, linear.sinks, linear.skipped, linear.symmetric,
            tuple(node.type for node in linear.nodes))
