"""The choice of an elimination order: exact where the graph is small, else rules, then a seeded local search.

    best(dag, budget=1.0)    ->    Plan(order, cost, proven, ...)

The search changes one order by moves (a vertex elsewhere, two vertices swapped, a block elsewhere), and takes what is
better, or worse by no more than a temperature that falls allows.  What was eliminated decides the graph, not in which
order: so a move is priced on the stretch of the order that it changes, from a stored state at its begin, and graphs
after its end stay as they were.

Time is counted in eliminations at a fixed rate, not on the clock: equal calls give equal plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
import math
import random

from .graph import MODELS, Dag, Order, State, cost_of
from .heuristics import RULES, greedy, with_fill
from .reductions import chain_vertices, twin_groups
from .subset_dp import best_order, fits

RATE = 250_000  # eliminations that count as a second, in graphs of few edges
DENSE = 4.0  # edges per vertex that make eliminations twice as long
LARGE = 600  # vertices above which only quick rules are tried
QUICK_RULES = ("forward", "reverse", "once_first", "markowitz")
GREEDY_SHARE = 0.05  # of the budget, for greedy orders with noise
HOT, COLD = 2.0, 0.12  # temperatures, in operations
RESTARTS = 2
BLOCK = 6
STORED = 1_000_000  # vertices of graphs that a walk stores


@dataclass(frozen=True)
class Plan:
    """An order of all free vertices.  `rule` is what found it; `proven` says that no order costs less."""

    order: Order
    cost: int
    model: str
    rule: str
    proven: bool = False


def plans(dag: Dag, budget: float, model: str = "products", seed: int = 0) -> list[Plan]:
    """All plans that were found, the cheapest first; forward and reverse are among them."""
    if not dag.free:
        return [Plan((), 0, model, "none", True)]
    chains, rest, ruled = by_rules(dag)
    found = [Plan(order, cost_of(dag, order, model), model, name) for name, order in ruled]
    exact = exact_plan(dag, chains, rest) if model == "products" else None
    if exact is not None:
        found.insert(0, exact)
    elif rest.free:
        starts = [plan.order for plan in sorted(found, key=lambda plan: plan.cost)]
        known = set(chains)
        inner = [tuple(v for v in order if v not in known) for order in starts]
        offset = cost_of(dag, (*chains, *rest.free), model) - cost_of(rest, rest.free, model)
        found += [Plan((*chains, *order), offset + cost, model, "search")
                  for order, cost in searched(rest, inner, budget, model, seed)]
    found.sort(key=lambda plan: plan.cost)
    unique: dict[Order, Plan] = {}
    for plan in found:
        unique.setdefault(plan.order, plan)
    return list(unique.values())


@lru_cache(maxsize=4)
def by_rules(dag: Dag) -> tuple[Order, Dag, tuple[tuple[str, Order], ...]]:
    """The vertices of chains, the graph without them, and the orders by rules, which are the same for all models."""
    chains = chain_vertices(dag)
    rest = dag.after(chains)
    names = RULES if len(dag.free) <= LARGE else QUICK_RULES
    return chains, rest, tuple((name, order) for name in names
                               for order in (RULES[name](dag), (*chains, *RULES[name](rest))))


def best(dag: Dag, budget: float = 1.0, model: str = "products", seed: int = 0) -> Plan:
    """The cheapest plan; never dearer than forward or reverse."""
    return plans(dag, budget, model, seed)[0]


def exact_plan(dag: Dag, chains: Order, rest: Dag) -> Plan | None:
    """The best plan of all, where the table for it is not too large."""
    groups = twin_groups(rest)
    if not fits(rest, groups):
        return None
    _, order = best_order(rest, groups)
    whole = (*chains, *order)
    return Plan(whole, cost_of(dag, whole), "products", "subset DP", True)


# -- local search --
def searched(dag: Dag, starts: Sequence[Order], budget: float, model: str, seed: int) -> list[tuple[Order, int]]:
    """Orders found from the best start and from noisy greedy ones, with their costs."""
    random_ = random.Random(seed)
    edges = sum(mask.bit_count() for mask in dag.preds)
    allowance = int(budget * RATE / (1 + edges / (DENSE * len(dag.free))))
    pool = {order: cost_of(dag, order, model) for order in starts}
    for _ in range(int(GREEDY_SHARE * allowance / (4 * len(dag.free)))):
        order = greedy(dag, with_fill, random_, 0.4)
        pool.setdefault(order, cost_of(dag, order, model))
    ranked = sorted(pool.items(), key=lambda item: item[1])
    found = []
    for order, _ in ranked[:RESTARTS]:
        walk = Walk(dag, order, MODELS[model])
        walk.anneal(allowance // RESTARTS, random_)
        found.append((tuple(walk.best), walk.best_cost))
    return found


class Walk:
    """One walk through orders.  `costs[k]` is what position k costs, `states[j]` the graph before position j*stride."""

    def __init__(self, dag: Dag, order: Order, eliminate: Callable[[State, int, int], int]) -> None:
        self.outputs = dag.outputs
        self.eliminate = eliminate
        self.order = list(order)
        self.stride = 1 + dag.count * len(order) // STORED
        self.states = [dag.state()]
        self.costs: list[int] = []
        state = dag.state()
        for k, v in enumerate(order, 1):
            self.costs.append(eliminate(state, v, self.outputs))
            if k % self.stride == 0:
                self.states.append(copied(state))
        self.cost = sum(self.costs)
        self.best, self.best_cost = list(order), self.cost

    def anneal(self, allowance: int, noise: random.Random) -> None:
        """Moves until so many eliminations are spent, at a temperature that falls geometrically."""
        if len(self.order) < 2:
            return
        left = allowance
        while left > 0:
            heat = HOT * (COLD / HOT) ** (1 - left / allowance)
            low, new = moved(self.order, noise)
            limit = -heat * math.log(1.0 - noise.random())
            left -= self.try_stretch(low, new, limit) + 1

    def try_stretch(self, low: int, new: list[int], limit: float) -> int:
        """Takes the new order of the stretch at `low` if it costs at most `limit` more; returns the eliminations."""
        high = low + len(new)
        allowed = sum(self.costs[low:high]) + limit
        state, work = self.state_at(low)
        eliminate, outputs = self.eliminate, self.outputs
        costs, total = [], 0
        for v in new:
            cost = eliminate(state, v, outputs)
            costs.append(cost)
            total += cost
            if total > allowed:
                return work + len(costs)
        self.take(low, new, costs)
        return work + 2 * len(costs)

    def state_at(self, position: int) -> tuple[State, int]:
        """A copy of the graph before a position, and what it took to get there."""
        near = position // self.stride
        state = copied(self.states[near])
        for v in self.order[near * self.stride:position]:
            self.eliminate(state, v, self.outputs)
        return state, position - near * self.stride

    def take(self, low: int, new: list[int], costs: list[int]) -> None:
        high = low + len(new)
        self.cost += sum(costs) - sum(self.costs[low:high])
        self.order[low:high], self.costs[low:high] = new, costs
        for near in range(low // self.stride + 1, (high - 1) // self.stride + 1):
            state = copied(self.states[near - 1])
            for v in self.order[(near - 1) * self.stride:near * self.stride]:
                self.eliminate(state, v, self.outputs)
            self.states[near] = state
        if self.cost < self.best_cost:
            self.best, self.best_cost = list(self.order), self.cost


def copied(state: State) -> State:
    preds, succs, units, constants = state
    return preds[:], succs[:], units[:], constants[:]


def moved(order: Sequence[int], noise: random.Random) -> tuple[int, list[int]]:
    """Where a random move begins to change the order, and the stretch as it becomes."""
    count = len(order)
    kind = noise.random()
    i = noise.randrange(count)
    j = nearby(i, count, noise)
    low, high = min(i, j), max(i, j)
    stretch = list(order[low:high + 1])
    if kind < 0.25:
        stretch[0], stretch[-1] = stretch[-1], stretch[0]
        return low, stretch
    size = 1 if kind < 0.85 else 1 + noise.randrange(min(BLOCK, len(stretch) - 1))
    return low, stretch[size:] + stretch[:size] if i < j else stretch[-size:] + stretch[:-size]


def nearby(i: int, count: int, noise: random.Random) -> int:
    """Another position: half of the time one close by."""
    while True:
        reach = count if noise.random() < 0.5 else max(2, count // 8)
        j = i + noise.randint(-reach, reach)
        if j != i and 0 <= j < count:
            return j
