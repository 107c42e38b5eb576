"""Positions row by row, for graphs whose straight blocks would drift sideways without end.

Where every step of a long chain has a side branch, straight branches push each other along like a staircase.  Here
each row in turn is set as near as possible to the row before it (least squares under the order of the row, solved
exactly by pooling adjacent violators), so lines bend where they must and the width stays near that of the widest
row.  The spine weighs most, then trunks, then boxes in line with a neighbour, then all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .crossings import Order
from .layers import Layered, Role

SPINE_POWER = 4  # of the length of the line: a long chain stays straight, a short one yields to it
TRUNK_WEIGHT = 1e2
ALONE_WEIGHT = 1e-3
STAY_WEIGHT = 1e9
ROUNDS = 2

@dataclass(frozen=True)
class Spine:
    """Of every vertex its neighbours above and below in one straight line, or -1, and the vertices of that line."""

    above: list[int]
    below: list[int]
    length: list[int]
    is_feeder: list[bool]


Goal = tuple[float, float]  # the place a vertex would like, and how much


def settle(graph: Layered, order: Order, spine: Spine, widths: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The middle of every vertex, its row kept in order and apart."""
    x = [0.0] * len(widths)
    offsets = [_offsets(row, widths, gaps) for row in order]
    for row, places in zip(order, offsets, strict=True):
        for vertex, place in zip(row, places, strict=True):
            x[vertex] = place - places[-1] / 2
    for _ in range(ROUNDS):
        for row, places in zip(order, offsets, strict=True):
            _set_row(row, _pooled(places, [_goal_from_above(graph, x, vertex, spine) for vertex in row]), x)
        for row, places in zip(reversed(order), reversed(offsets), strict=True):
            _set_row(row, _pooled(places, [_goal_from_below(graph, x, vertex, spine) for vertex in row]), x)
    return x


def _set_row(row: list[int], places: list[float], x: list[float]) -> None:
    for vertex, place in zip(row, places, strict=True):
        x[vertex] = place


def _goal_from_above(graph: Layered, x: list[float], vertex: int, spine: Spine) -> Goal:
    """The line of the spine, else the median operand; what only feeders lead to stays as far as it may."""
    operands = [operand for operand in graph.above[vertex] if not spine.is_feeder[operand]]
    if not operands:
        return x[vertex], ALONE_WEIGHT
    if spine.above[vertex] in operands:
        return x[spine.above[vertex]], float(2 + spine.length[vertex]) ** SPINE_POWER
    return _median(x, operands), TRUNK_WEIGHT if graph.roles[vertex] is Role.BEND else 1.0


def _goal_from_below(graph: Layered, x: list[float], vertex: int, spine: Spine) -> Goal:
    """Feeders go to their median user; all others stay, for rows that follow those below would drift again."""
    return (_median(x, graph.below[vertex]), 1.0) if spine.is_feeder[vertex] else (x[vertex], STAY_WEIGHT)


def _median(x: list[float], vertices: list[int]) -> float:
    places = sorted([x[vertex] for vertex in vertices])
    return (places[(len(places) - 1) // 2] + places[len(places) // 2]) / 2


def _offsets(row: list[int], widths: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Where the vertices of a row stand when it is packed from its first one on."""
    offsets = [0.0]
    for left, right in zip(row, row[1:], strict=False):
        offsets.append(offsets[-1] + (widths[left] + widths[right] + gaps[left] + gaps[right]) / 2)
    return offsets


def _pooled(offsets: list[float], goals: list[Goal]) -> list[float]:
    """The ascending places, at least the offsets' distances apart, with the least weighted squares from the goals."""
    pools: list[tuple[float, float, int]] = []  # mean goal less offset, weight, vertices
    for offset, (goal, weight) in zip(offsets, goals, strict=True):
        mean, size = goal - offset, 1
        while pools and pools[-1][0] > mean:
            other, other_weight, other_size = pools.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight, size = weight + other_weight, size + other_size
        pools.append((mean, weight, size))
    shifts = [mean for mean, _, size in pools for _ in range(size)]
    return [offset + shift for offset, shift in zip(offsets, shifts, strict=True)]
