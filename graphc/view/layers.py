"""From boxes and arrows to layers: which row every box is in, and what stands in for arrows that span rows.

The method is the layered one of Sugiyama, Tagawa and Toda.  A vertex is a box, a bend (an arrow passes through a
row), a label (the text of an arrow, in the row above its head) or a tag (an arrow that spans more than LONG_SPAN
rows is cut: one tag below its tail, one above each head, all of one number).  Arrows of one source share their
bends: a value has one trunk, from which its users branch off.

Invariants of `Layered`:
1. vertices 0 .. boxes-1 are the boxes, in the order of the diagram;
2. an edge leads from some layer to the next, and no layer is empty;
3. `chains[a]` leads from the source to the target of arrow a: one tuple of vertices, or two if the arrow is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import sqrt

from graphc.ir.errors import GraphError

LONG_SPAN = 6
TIGHTEN_PASSES = 4
LEAST_FULL_ROW = 100  # boxes
FULL_ROW = 3.0  # times the square root of all boxes


class Role(Enum):
    """What a vertex stands for."""

    BOX = "box"
    BEND = "bend"
    LABEL = "label"
    TAIL = "tail"
    HEAD = "head"


@dataclass(frozen=True)
class Link:
    """An arrow between boxes by number; `is_labelled` arrows need a row for their text."""

    source: int
    target: int
    is_labelled: bool = False

    @property
    def least_span(self) -> int:
        return 2 if self.is_labelled else 1


@dataclass(frozen=True)
class Layered:
    """The vertices by layer, and the edges between neighbouring layers, each once."""

    layer_of: list[int]
    roles: list[Role]
    link_of: list[int]  # the arrow of a label or a head tag; -1 for other vertices
    above: list[list[int]]
    below: list[list[int]]
    chains: list[tuple[tuple[int, ...], ...]]
    tag_of_box: dict[int, int]  # sources of cut arrows -> tag number, from 1

    @property
    def layers(self) -> list[list[int]]:
        rows: list[list[int]] = [[] for _ in range(1 + max(self.layer_of, default=-1))]
        for vertex, layer in enumerate(self.layer_of):
            rows[layer].append(vertex)
        return rows


def layered(count: int, links: Sequence[Link]) -> Layered:
    """Put `count` boxes into layers and cut `links` into edges between neighbouring layers."""
    layer_of = _without_empty_layers(_tightened(count, links, _longest_paths(count, links)), links)
    layer_of = _without_endless_rows(layer_of, links)
    growing = _Growing(layer_of, links)
    is_long = [layer_of[link.target] - layer_of[link.source] > LONG_SPAN for link in links]
    cut_off = {link.source for link, long in zip(links, is_long, strict=True) if long}
    for source in sorted(cut_off, key=lambda box: (layer_of[box], box)):  # so that tags count up down the page
        growing.tag_of_box[source] = len(growing.tag_of_box) + 1
    for number in range(len(links)):
        if is_long[number]:
            growing.cut(number)
        else:
            growing.thread(number)
    return Layered(growing.layer_of, growing.roles, growing.link_of, growing.above, growing.below, growing.chains,
                   growing.tag_of_box)


def topological(count: int, links: Sequence[Link]) -> list[int]:
    """The boxes, sources before targets, otherwise in the order of their numbers."""
    users: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for link in links:
        users[link.source].append(link.target)
        waiting[link.target] += 1
    order = [box for box in range(count) if not waiting[box]]
    for box in order:  # grows while it is read
        for user in users[box]:
            waiting[user] -= 1
            if not waiting[user]:
                order.append(user)
    if len(order) < count:
        stuck = [box for box in range(count) if waiting[box]]
        raise GraphError(f"the arrows form a cycle among {len(stuck)} boxes, numbers {stuck[:8]}")
    return order


def _longest_paths(count: int, links: Sequence[Link]) -> list[int]:
    leaving: list[list[Link]] = [[] for _ in range(count)]
    for link in links:
        leaving[link.source].append(link)
    layer_of = [0] * count
    for box in topological(count, links):
        for link in leaving[box]:
            layer_of[link.target] = max(layer_of[link.target], layer_of[box] + link.least_span)
    return layer_of


def _tightened(count: int, links: Sequence[Link], layer_of: list[int]) -> list[int]:
    """Shorten arrows: a box with more users than operands goes down to its users, the opposite goes up.

    Two kinds go down though nothing gets shorter: a floating box, all of whose operands float and feed only it, and
    an idle one, whose operands are all read elsewhere too.  So the preparation of a weight, or the transpose of a
    saved value, stands where it is used.
    """
    order = topological(count, links)
    entering: list[dict[int, int]] = [{} for _ in range(count)]
    leaving: list[dict[int, int]] = [{} for _ in range(count)]
    for link in links:
        entering[link.target][link.source] = max(link.least_span, entering[link.target].get(link.source, 0))
        leaving[link.source][link.target] = max(link.least_span, leaving[link.source].get(link.target, 0))
    floating = [False] * count
    for box in order:
        floating[box] = len(leaving[box]) > 0 and all(floating[o] and len(leaving[o]) == 1 for o in entering[box])
    idle = {box for box in order if len(leaving[box]) == len(entering[box])
            and all(len(leaving[operand]) > 1 for operand in entering[box])}
    for _ in range(TIGHTEN_PASSES):
        before = list(layer_of)
        for box in reversed(order):
            if leaving[box] and (floating[box] or len(leaving[box]) > len(entering[box]) or box in idle):
                layer_of[box] = min(layer_of[user] - span for user, span in leaving[box].items())
        for box in order:
            if not floating[box] and len(entering[box]) > len(leaving[box]):
                layer_of[box] = max(layer_of[operand] + span for operand, span in entering[box].items())
        if layer_of == before:
            break
    return layer_of


def _without_empty_layers(layer_of: list[int], links: Sequence[Link]) -> list[int]:
    """Close the gaps; the row above the head of a labelled arrow counts as taken."""
    used = set(layer_of) | {layer_of[link.target] - 1 for link in links if link.is_labelled}
    rank = {layer: index for index, layer in enumerate(sorted(used))}
    return [rank[layer] for layer in layer_of]


def _without_endless_rows(layer_of: list[int], links: Sequence[Link]) -> list[int]:
    """Break rows that no page could hold into several; boxes of a row are never joined, so any break is allowed.

    Sources stay together in the last of these rows: spread out they would need as many tags in the row below.
    """
    most = max(LEAST_FULL_ROW, int(FULL_ROW * sqrt(len(layer_of))))
    computed = {link.target for link in links}
    counts = Counter(layer_of[box] for box in computed)
    last = []
    rows = -1
    for layer in range(1 + max(layer_of)):
        rows += max(1, -(-counts[layer] // most))  # a row may hold sources or labels only
        last.append(rows)
    placed: Counter[int] = Counter()
    broken = []
    for box, layer in enumerate(layer_of):
        broken.append(last[layer] - placed[layer] // most if box in computed else last[layer])
        placed[layer] += box in computed
    return broken


@dataclass
class _Growing:
    """The vertices and edges while arrows are threaded through the layers."""

    layer_of: list[int]
    links: Sequence[Link]
    roles: list[Role] = field(default_factory=list)
    link_of: list[int] = field(default_factory=list)
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)
    chains: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)
    tag_of_box: dict[int, int] = field(default_factory=dict)
    trunks: dict[int, list[int]] = field(default_factory=dict)  # by source: itself and its bends, a row each
    tails: dict[int, int] = field(default_factory=dict)
    edges: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        count = len(self.layer_of)
        self.roles = [Role.BOX] * count
        self.link_of = [-1] * count
        self.above = [[] for _ in range(count)]
        self.below = [[] for _ in range(count)]

    def vertex(self, role: Role, layer: int, link: int = -1) -> int:
        self.layer_of.append(layer)
        self.roles.append(role)
        self.link_of.append(link)
        self.above.append([])
        self.below.append([])
        return len(self.layer_of) - 1

    def edge(self, upper: int, lower: int) -> None:
        if (upper, lower) not in self.edges:
            self.edges.add((upper, lower))
            self.below[upper].append(lower)
            self.above[lower].append(upper)

    def thread(self, number: int) -> None:
        """Lead an arrow down its source's trunk, through its label if it has one, to its target."""
        link = self.links[number]
        trunk = self.trunks.setdefault(link.source, [link.source])
        bends = self.layer_of[link.target] - self.layer_of[link.source] - link.least_span
        while len(trunk) <= bends:
            trunk.append(self.vertex(Role.BEND, self.layer_of[trunk[-1]] + 1))
            self.edge(trunk[-2], trunk[-1])
        chain = trunk[:bends + 1]
        if link.is_labelled:
            chain.append(self.vertex(Role.LABEL, self.layer_of[link.target] - 1, number))
            self.edge(chain[-2], chain[-1])
        self.edge(chain[-1], link.target)
        self.chains.append((tuple(chain) + (link.target,),))

    def cut(self, number: int) -> None:
        """Give the source its tail tag, once, and the target a head tag."""
        link = self.links[number]
        if link.source not in self.tails:
            tail = self.vertex(Role.TAIL, self.layer_of[link.source] + 1)
            self.edge(link.source, tail)
            self.tails[link.source] = tail
        head = self.vertex(Role.HEAD, self.layer_of[link.target] - 1, number)
        self.edge(head, link.target)
        self.chains.append(((link.source, self.tails[link.source]), (head, link.target)))
