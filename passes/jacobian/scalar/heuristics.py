"""Orders by simple rules.  Each is a function Dag -> order of the free vertices; ties go to the later vertex.

    forward, reverse    operands first, operands last
    markowitz           always the vertex of fewest products
    relative            fewest products less what accumulation in one sweep would cost: inputs above times outputs below
    fill                fewest products plus half the new edges
    vlr                 the least ratio of these two
    once_first          vertices read once in reverse order, then all others in reverse order
"""

from __future__ import annotations

from collections.abc import Callable
import random

from .graph import Dag, Order, State, count_products, members

Score = Callable[[State, int], float]
FILL_WEIGHT = 0.5


def forward(dag: Dag) -> Order:
    return dag.free


def reverse(dag: Dag) -> Order:
    return dag.free[::-1]


def once_first(dag: Dag) -> Order:
    once = [v for v in reversed(dag.free) if dag.succs[v].bit_count() == 1]
    chosen = set(once)
    return (*once, *(v for v in reversed(dag.free) if v not in chosen))


def markowitz(dag: Dag) -> Order:
    return greedy(dag, lambda state, v: state[0][v].bit_count() * state[1][v].bit_count())


def relative(dag: Dag) -> Order:
    above, below = reach(dag)
    sweep = [(a & dag.inputs).bit_count() * (b & dag.outputs).bit_count() for a, b in zip(above, below)]
    return greedy(dag, lambda state, v: state[0][v].bit_count() * state[1][v].bit_count() - sweep[v])


def vlr(dag: Dag) -> Order:
    above, below = reach(dag)
    sweep = [(a & dag.inputs).bit_count() * (b & dag.outputs).bit_count() for a, b in zip(above, below)]
    return greedy(dag, lambda state, v: state[0][v].bit_count() * state[1][v].bit_count() / max(1, sweep[v]))


def fill(dag: Dag) -> Order:
    return greedy(dag, with_fill)


def with_fill(state: State, v: int) -> float:
    """Products, plus a part of the edges that do not exist yet."""
    preds, succs = state[0], state[1]
    before, after = preds[v], succs[v]
    new = sum((before & ~preds[j]).bit_count() for j in members(after))
    return before.bit_count() * after.bit_count() + FILL_WEIGHT * new


def reach(dag: Dag) -> tuple[list[int], list[int]]:
    """What reaches each vertex and what it reaches, itself included."""
    above = [1 << v for v in range(dag.count)]
    below = [1 << v for v in range(dag.count)]
    for v in range(dag.count):
        for i in members(dag.preds[v]):
            above[v] |= above[i]
    for v in reversed(range(dag.count)):
        for j in members(dag.succs[v]):
            below[v] |= below[j]
    return above, below


def greedy(dag: Dag, score: Score, noise: random.Random | None = None, spread: float = 0.0) -> Order:
    """Always the vertex of the least score; with `noise`, scores are stretched at random by up to `spread`."""
    state, order = dag.state(), []
    scores = {v: score(state, v) for v in reversed(dag.free)}
    while scores:
        if noise is None:
            v = min(scores, key=scores.__getitem__)
        else:
            v = min(scores, key=lambda u: (1.0 + spread * noise.random()) * scores[u] + spread * noise.random())
        touched = state[0][v] | state[1][v]
        count_products(state, v, dag.outputs)
        del scores[v]
        order.append(v)
        for i in members(affected(state, touched) if score is with_fill else touched):
            if i in scores:
                scores[i] = score(state, i)
    return tuple(order)


def affected(state: State, touched: int) -> int:
    """The vertices whose neighbourhood, or whose neighbours' edges, an elimination may have changed."""
    found = touched
    for v in members(touched):
        found |= state[0][v] | state[1][v]
    return found


RULES: dict[str, Callable[[Dag], Order]] = {
    "forward": forward, "reverse": reverse, "markowitz": markowitz, "relative": relative, "fill": fill, "vlr": vlr,
    "once_first": once_first,
}
