"""The order of the vertices inside every layer, so that few edges cross.

Start from a depth-first walk, then sweep down and up, sorting each layer by the mean position of its neighbours in
the layer before (the barycentre); small graphs then exchange neighbours as long as that removes crossings.  The best
order met is kept.  The number of sweeps shrinks as the graph grows, so the work stays near-linear.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence

from .layers import Layered

Order = list[list[int]]
# (vertices up to, sweeps, sweeps without gain before giving up)
EFFORTS = ((1_000, 24, 6), (6_000, 10, 3), (20_000, 6, 2), (1 << 62, 4, 2))
EXCHANGE_VERTICES = 2_000
EXCHANGE_PASSES = 8
EXCHANGE_ROW = 200


def order_layers(graph: Layered) -> Order:
    """Every layer from left to right."""
    order = _depth_first(graph)
    position = [0] * len(graph.layer_of)
    _number(order, position)
    sweeps, patience = next((s, p) for most, s, p in EFFORTS if len(position) <= most)
    best, fewest, idle = [list(row) for row in order], crossings(graph, order, position), 0
    for sweep in range(sweeps):
        if not fewest or idle >= patience:
            break
        _sweep(graph, order, position, downwards=sweep % 2 == 0)
        if len(position) <= EXCHANGE_VERTICES:
            _exchange(graph, order, position)
        count = crossings(graph, order, position)
        idle = 0 if count < fewest else idle + 1
        if count < fewest:
            best, fewest = [list(row) for row in order], count
    return best


def crossings(graph: Layered, order: Order, position: Sequence[int]) -> int:
    """How many pairs of edges cross."""
    count = 0
    for row in order[:-1]:
        seen: list[int] = []
        for vertex in row:
            ends = sorted([position[user] for user in graph.below[vertex]])
            if seen and ends and ends[0] < seen[-1]:
                count += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


def _number(order: Order, position: list[int]) -> None:
    for row in order:
        for index, vertex in enumerate(row):
            position[vertex] = index


def _depth_first(graph: Layered) -> Order:
    """The layers filled in the order in which a walk from the top meets the vertices, neighbours below first."""
    rows: Order = [[] for _ in graph.layers]
    seen = [False] * len(graph.layer_of)
    for row in graph.layers:
        for start in row:
            stack = [start]
            while stack:
                vertex = stack.pop()
                if seen[vertex]:
                    continue
                seen[vertex] = True
                rows[graph.layer_of[vertex]].append(vertex)
                stack.extend(reversed(graph.above[vertex]))
                stack.extend(reversed(graph.below[vertex]))
    return rows


def _sweep(graph: Layered, order: Order, position: list[int], *, downwards: bool) -> None:
    neighbours = graph.above if downwards else graph.below
    rows = range(1, len(order)) if downwards else range(len(order) - 2, -1, -1)
    for index in rows:
        row = order[index]
        if len(row) > 1:
            order[index] = _by_barycentre(row, neighbours, position)
            for place, vertex in enumerate(order[index]):
                position[vertex] = place


def _by_barycentre(row: list[int], neighbours: list[list[int]], position: list[int]) -> list[int]:
    """`row` sorted by the mean position of its neighbours; vertices without any keep their place."""
    mean = {}
    for vertex in row:
        others = neighbours[vertex]
        if others:
            mean[vertex] = sum([position[other] for other in others]) / len(others)
    if len(mean) == len(row):
        return sorted(row, key=mean.__getitem__)
    ranked = iter(sorted(mean, key=mean.__getitem__))
    return [next(ranked) if vertex in mean else vertex for vertex in row]


def _exchange(graph: Layered, order: Order, position: list[int]) -> None:
    """Swap neighbours in a layer where that lowers the crossings with the layers above and below."""
    for _ in range(EXCHANGE_PASSES):
        gained = False
        for row in order:
            for place in range(len(row) - 1 if len(row) <= EXCHANGE_ROW else 0):
                left, right = row[place], row[place + 1]
                if _gain(graph, position, left, right) > 0:
                    row[place], row[place + 1] = right, left
                    position[left], position[right] = place + 1, place
                    gained = True
        if not gained:
            break


def _gain(graph: Layered, position: list[int], left: int, right: int) -> int:
    gain = 0
    for neighbours in (graph.above, graph.below):
        lefts = [position[other] for other in neighbours[left]]
        rights = [position[other] for other in neighbours[right]]
        gain += sum((a > b) - (a < b) for a in lefts for b in rights)
    return gain
