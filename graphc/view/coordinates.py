"""Where the vertices of ordered layers stand from left to right, after Brandes and Koepf (2001).

Vertices are strung into vertical blocks with their median neighbours, so that long arrows are straight; blocks are
then packed by longest paths.  That is done four times, from above and below, to the left and to the right, and every
vertex takes the mean of its two middle positions, which keeps the distances that all four keep.
Two refinements.  A bend's edge to another bend wins over edges that cross it, so that trunks never wiggle.  And a
vertex whose way on is much longer through one neighbour stands in line with that one (the spine), not with the
median: otherwise a deep graph with a side branch at every step drifts sideways without end.
"""

from __future__ import annotations

from collections.abc import Sequence

from .crossings import Order
from .layers import Layered, Role
from .settle import Spine, settle

TAGS = (Role.TAIL, Role.HEAD)
DRIFT = 2.0  # times the widest row: a wider picture has drifted
SPINE_LEAD = 2  # rows by which one way must be longer than every other to be the spine


def place(graph: Layered, order: Order, widths: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The middle of every vertex.  Two neighbours keep the mean of their `gaps` between their sides."""
    if not order:
        return []
    position = [0] * len(graph.layer_of)
    for row in order:
        for index, vertex in enumerate(row):
            position[vertex] = index
    crossed = _crossed_edges(graph, order, position)
    spine = _spine(graph, order)
    packed = [_one_way(graph, order, position, crossed, spine, widths, gaps, from_above=above, to_left=left)
              for above in (True, False) for left in (True, False)]
    middles = _means(packed, widths)
    width = _extent(middles, widths)
    if width > DRIFT * max(sum(widths[vertex] + gaps[vertex] for vertex in row) for row in order):
        settled = settle(graph, order, spine, widths, gaps)
        return settled if _extent(settled, widths) < width else middles
    return middles


def _extent(middles: Sequence[float], widths: Sequence[float]) -> float:
    sides = list(zip(middles, widths, strict=True))
    return max(x + w / 2 for x, w in sides) - min(x - w / 2 for x, w in sides)


def _crossed_edges(graph: Layered, order: Order, position: list[int]) -> set[tuple[int, int]]:
    """Edges (upper, lower) that cross an edge between two bends (type 1 conflicts)."""
    roles = graph.roles
    crossed = set()
    for upper, lower in zip(order, order[1:], strict=False):
        low, start = 0, 0
        for index, vertex in enumerate(lower):
            inner = roles[vertex] is Role.BEND and roles[graph.above[vertex][0]] is Role.BEND
            if not inner and index < len(lower) - 1:
                continue
            high = position[graph.above[vertex][0]] if inner else len(upper)
            for other in lower[start:index + 1]:
                for operand in graph.above[other]:
                    is_inner = roles[operand] is Role.BEND and roles[other] is Role.BEND
                    if not is_inner and not low <= position[operand] <= high:
                        crossed.add((operand, other))
            low, start = (high, index + 1) if inner else (low, start)
    return crossed


def _spine(graph: Layered, order: Order) -> Spine:
    parents, depths = _longest_ways(graph.above, order)
    heirs, _ = _longest_ways(graph.below, order[::-1])
    upper = [parent if parent >= 0 and heirs[parent] == vertex else -1 for vertex, parent in enumerate(parents)]
    lower = [heir if heir >= 0 and parents[heir] == vertex else -1 for vertex, heir in enumerate(heirs)]
    return Spine(upper, lower, _line_lengths(order, upper), _feeders(graph, order, depths))


def _line_lengths(order: Order, above: list[int]) -> list[int]:
    """How many vertices the straight line through each vertex has."""
    lengths = [1] * len(above)
    for row in order:
        for vertex in row:
            if above[vertex] >= 0:
                lengths[vertex] = lengths[above[vertex]] + 1
    for row in reversed(order):
        for vertex in row:
            if above[vertex] >= 0:
                lengths[above[vertex]] = lengths[vertex]
    return lengths


def _feeders(graph: Layered, order: Order, depths: list[int]) -> list[bool]:
    """Vertices that only prepare something for longer ways: they hang from their users, not from their operands."""
    feeds = [False] * len(depths)
    for row in reversed(order):
        for vertex in row:
            users = graph.below[vertex]
            feeds[vertex] = graph.roles[vertex] is Role.HEAD or (bool(users) and all(
                feeds[user] or depths[user] > depths[vertex] + 1 for user in users))
    for row in order:
        for vertex in row:
            feeds[vertex] = feeds[vertex] and all(feeds[operand] for operand in graph.above[vertex])
    return feeds


def _longest_ways(neighbours: list[list[int]], rows: Order) -> tuple[list[int], list[int]]:
    """The neighbour by which the longest way leads, where it leads every other by SPINE_LEAD, and that way's length."""
    length = [0] * len(neighbours)
    first = [-1] * len(neighbours)
    for row in rows:
        for vertex in row:
            ways = sorted([(length[other], other) for other in neighbours[vertex]])
            if ways:
                length[vertex] = ways[-1][0] + 1
                if len(ways) == 1 or ways[-1][0] >= ways[-2][0] + SPINE_LEAD:
                    first[vertex] = ways[-1][1]
    return first, length


def _one_way(graph: Layered, order: Order, position: list[int], crossed: set[tuple[int, int]],
             spine: Spine, widths: Sequence[float], gaps: Sequence[float], *,
             from_above: bool, to_left: bool) -> list[float]:
    rows = order if from_above else order[::-1]
    if not to_left:
        rows = [row[::-1] for row in rows]
        position = [-index for index in position]
    root = _blocks(graph, rows, position, crossed, spine, from_above=from_above)
    packed = _pack(rows, root, widths, gaps)
    return packed if to_left else [-x for x in packed]


def _blocks(graph: Layered, rows: Order, position: list[int], crossed: set[tuple[int, int]],
            spine: Spine, *, from_above: bool) -> list[int]:
    """The top of every vertex's block: each vertex joins a median neighbour that is free."""
    neighbours = graph.above if from_above else graph.below
    behind, onward = (spine.above, spine.below) if from_above else (spine.below, spine.above)
    roles = graph.roles
    root = list(range(len(position)))
    taken = [False] * len(position)
    for row in rows[1:]:
        reach = -(1 << 62)
        for vertex in row:
            others = neighbours[vertex]
            if behind[vertex] >= 0:
                others = [behind[vertex]]
            elif len(others) > 1:
                if roles[vertex] is Role.BOX:
                    others = [other for other in others if roles[other] not in TAGS] or others
                others = sorted(others, key=position.__getitem__)
                others = others[(len(others) - 1) // 2:len(others) // 2 + 1]
            for other in others:
                if onward[other] not in (-1, vertex):
                    continue
                edge = (other, vertex) if from_above else (vertex, other)
                if position[other] > reach and not taken[other] and edge not in crossed:
                    taken[other], root[vertex], reach = True, root[other], position[other]
                    break
    return root


def _pack(rows: Order, root: list[int], widths: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Every block as far left as its neighbours let it, then as far right as its right neighbours let it."""
    right_of: list[dict[int, float]] = [{} for _ in root]
    waiting = [0] * len(root)
    for row in rows:
        for left, right in zip(row, row[1:], strict=False):
            apart = (widths[left] + widths[right] + gaps[left] + gaps[right]) / 2
            beside = right_of[root[left]]
            block = root[right]
            if block not in beside:
                waiting[block] += 1
            beside[block] = max(apart, beside.get(block, 0.0))
    x = [0.0] * len(root)
    order = [block for block, top in enumerate(root) if block == top and not waiting[block]]
    for block in order:  # grows while it is read
        for beside_block, apart in right_of[block].items():
            x[beside_block] = max(x[beside_block], x[block] + apart)
            waiting[beside_block] -= 1
            if not waiting[beside_block]:
                order.append(beside_block)
    for block in reversed(order):
        if right_of[block]:
            x[block] = max(x[block], min(x[other] - apart for other, apart in right_of[block].items()))
    return [x[top] for top in root]


def _means(packed: list[list[float]], widths: Sequence[float]) -> list[float]:
    """The mean of the two middle positions, once all four ways are set against the narrowest."""
    lows = [min(x - w / 2 for x, w in zip(xs, widths, strict=True)) for xs in packed]
    highs = [max(x + w / 2 for x, w in zip(xs, widths, strict=True)) for xs in packed]
    narrowest = min(range(4), key=lambda way: highs[way] - lows[way])
    shifts = [lows[narrowest] - lows[way] if way % 2 == 0 else highs[narrowest] - highs[way] for way in range(4)]
    means = []
    for four in zip(*packed, strict=True):
        middle = sorted(x + shift for x, shift in zip(four, shifts, strict=True))
        means.append((middle[1] + middle[2]) / 2)
    return means
