"""What may be decided before an order is searched, at no loss in products.

    chains    a vertex with one predecessor and one successor is eliminated first, unless it is an output: that stays
              a successor, so nothing is gained, and what comes before it gets one successor more
    twins     vertices with equal predecessors and equal successors are eliminated one after the other

Vertices that lie on no path from an input to an output are gone before (`graph.dag_of`).
"""

from __future__ import annotations

from .graph import Dag, Order, count_products


def chain_vertices(dag: Dag) -> Order:
    """The vertices with one predecessor and one successor, those included that become so on the way."""
    state = dag.state()
    preds, succs = state[0], state[1]
    found: list[int] = []
    waiting = [v for v in reversed(dag.free) if not dag.outputs >> v & 1]
    while waiting:
        later = []
        for v in waiting:
            if preds[v].bit_count() == 1 and succs[v].bit_count() == 1:
                count_products(state, v, dag.outputs)
                found.append(v)
            else:
                later.append(v)
        if len(later) == len(waiting):
            break
        waiting = later
    return tuple(found)


def twin_groups(dag: Dag) -> list[Order]:
    """The free vertices, false twins together.  Outputs stand alone: they keep their predecessors."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for v in dag.free:
        alone = v + 1 if dag.outputs >> v & 1 else 0
        groups.setdefault((dag.preds[v], dag.succs[v], alone), []).append(v)
    return [tuple(group) for group in groups.values()]
