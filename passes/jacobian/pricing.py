"""What a plan costs: its products built on ghosts, written out, and counted.

    products   multiplications of the maps
    finish     multiplications of writing them out as dense tensors
    bytes      the most that is held at a time, dense results included
    span       multiplications until the last of several threads is done, every product on one thread

Bytes follow the order of execution: a local partial exists once its vertex is evaluated, and a product is made as soon
as its factors exist.  So forward mode holds little, and what reverse mode holds until the last vertex is evaluated, its
tape, is counted.  Leaves are in memory anyway; views take none; symbolic sizes count with a typical length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from graphc.ir.linmap import LinMap, dense_node
from graphc.ir.linmap.contract import estimate
from graphc.ir.linmap.cost import factor_nodes, multiplications, price
from graphc.ir.linmap.term import Size
from graphc.ir.node import Node, ancestors, users

from .elimination import jacobian_maps
from .tensor import Ghosts, Linear

VIEWS = frozenset({"reshape", "transpose", "broadcast", "slice"})


class Price(NamedTuple):
    products: Size
    finish: Size
    nbytes: int
    span: int

    @property
    def total(self) -> Size:
        return self.products + self.finish


def exact_price(linear: Linear[LinMap], ghosts: Ghosts, order: Iterable[int], threads: int = 1) -> Price:
    """The price of eliminating a ghosted graph in this order and writing the Jacobians out."""
    with ghosts.graph:
        maps = jacobian_maps(linear, order)
        results = dense_results(linear, maps)
        given = ghosts.given
        products = price([node for m in maps.values() for node in factor_nodes(m)], given)
        total = price(results, given)
        span = estimate(total) if threads == 1 else scheduled(results, set(given), threads)
        return Price(products, total - products, peak_bytes(results, ghosts), span)


def dense_results(linear: Linear[LinMap], maps: dict[tuple[int, int], LinMap]) -> list[Node]:
    """The Jacobians written out; those of unreachable pairs are constants and cost nothing."""
    found: list[Node] = []
    for pair, edge in linear.pairs():
        if edge is not None and maps[pair]:
            y, x = linear.nodes[edge[0]], linear.nodes[edge[1]]
            found.append(dense_node(maps[pair], y.type.shape, x.type.shape, y.type.dtype))
    return found


def scheduled(results: Sequence[Node], given: set[Node], threads: int) -> int:
    """When list scheduling is done: of the products that can start, the one with most work behind it goes first."""
    nodes = [node for node in ancestors(results) if node not in given]
    cost = {node: estimate(multiplications(node)) for node in nodes}
    readers = users(nodes)
    behind: dict[Node, int] = {}
    for node in reversed(nodes):
        behind[node] = cost[node] + max((behind[user] for user in readers[node]), default=0)
    waiting = {node: len({o for o in node.operands if o in cost}) for node in nodes}
    ready = [(-behind[node], node.id, node) for node in nodes if not waiting[node]]
    heapify(ready)
    running: list[tuple[int, int, Node]] = []
    now = 0
    while ready or running:
        while ready and len(running) < threads:
            _, number, node = heappop(ready)
            heappush(running, (now + cost[node], number, node))
        now, _, done = heappop(running)
        for user in dict.fromkeys(readers[done]):
            waiting[user] -= 1
            if not waiting[user]:
                heappush(ready, (-behind[user], user.id, user))
    return now


def peak_bytes(results: Sequence[Node], ghosts: Ghosts) -> int:
    """The most bytes that are live at once; see the module's text."""
    time: dict[Node, int] = {}
    base: dict[Node, Node] = {}
    for node in ancestors(results):
        time[node] = ghosts.time.get(node, max((time[o] for o in node.operands), default=0))
        base[node] = base[node.operands[0]] if node.op.name in VIEWS else node
    order = sorted(time, key=lambda node: (time[node], node.id))
    last = {base[node]: len(order) for node in results}
    for step in range(len(order) - 1, -1, -1):
        for operand in order[step].operands:
            last.setdefault(base[operand], step)
    freed: dict[int, list[Node]] = {}
    for node, step in last.items():
        freed.setdefault(step, []).append(node)
    live = most = 0
    for step, node in enumerate(order):
        if base[node] is node:
            live += held_bytes(node, ghosts)
            most = max(most, live)
        live -= sum(held_bytes(done, ghosts) for done in freed.get(step, ()))
    return most


def held_bytes(node: Node, ghosts: Ghosts) -> int:
    return 0 if node in ghosts.leaves or node.op.name == "constant" else estimate(node.type.nbytes)
