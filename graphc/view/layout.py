"""Where everything of a diagram stands: boxes, arrows, tags and labels, top to bottom, in pixels.

    Diagram -> components (parts that no arrow joins) -> layers -> order -> coordinates -> Layout
                                                                    each component apart, then set side by side

Invariants of `Layout`:
1. rectangles of boxes, tags and labels never overlap, and everything lies inside (0, 0, width, height);
2. the y of a route never decreases, from the bottom of its source to the top of its target;
3. inside a row routes are vertical, so only the gaps between rows have slanted lines, which meet no box;
4. the same diagram gives the same layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

from .coordinates import place
from .crossings import Order, order_layers
from .diagram import Arrow, Diagram
from .layers import Layered, Link, Role, layered
from .measure import TAG_HEIGHT, Lettering, letter, mono_width, printable, shorten

Point = tuple[float, float]
MARGIN = 24.0
BOX_GAP = 26.0
BEND_GAP = 14.0
ROW_GAP = 34.0
SLANT_GAP = 0.06  # of the widest slant between two rows, added to their gap
MOST_SLANT_GAP = 70.0
PART_GAP = 48.0
PORT_GAP = 12.0
PORT_MARGIN = 14.0
PAGE_SHAPE = 1.5  # width by height that loose parts are packed to
LABEL_WIDTH = 220.0
LABEL_HEIGHT = 16.0
LABEL_SIZE = 10.0


@dataclass(frozen=True)
class Rect:
    """An upright rectangle by its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def moved(self, dx: float, dy: float) -> Rect:
        return replace(self, x=self.x + dx, y=self.y + dy)


@dataclass(frozen=True)
class Tag:
    """One end of an arrow that was cut.  `arrow` is -1 at the tail, which all cut arrows of `source` share."""

    number: int
    text: str
    rect: Rect
    source: int
    arrow: int = -1


@dataclass(frozen=True)
class Label:
    """The text of an arrow, on its line."""

    text: str
    rect: Rect
    arrow: int


@dataclass(frozen=True)
class Layout:
    """Rectangles in the order of the boxes, routes in the order of the arrows: one polyline each, or two if cut."""

    width: float
    height: float
    letterings: tuple[Lettering, ...]
    boxes: tuple[Rect, ...]
    routes: tuple[tuple[tuple[Point, ...], ...], ...]
    tags: tuple[Tag, ...] = ()
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class _Part:
    """A component with its own corner as origin; `boxes` and `arrows` are numbers in the diagram."""

    boxes: list[int]
    arrows: list[int]
    rects: list[Rect]
    routes: list[tuple[tuple[Point, ...], ...]]
    tags: list[Tag]
    labels: list[Label]
    width: float
    height: float


def layout(diagram: Diagram) -> Layout:
    """Draw `diagram` in layers; every arrow points downwards."""
    letterings = tuple(letter(box) for box in diagram.boxes)
    index = diagram.index_of_key
    links = [Link(index[arrow.source], index[arrow.target], bool(arrow.label)) for arrow in diagram.arrows]
    parts: list[_Part] = []
    tags = 0
    for boxes, arrows in _components(len(diagram.boxes), links):
        part = _draw(diagram, letterings, links, boxes, arrows, tags)
        tags = max([tags, *(tag.number for tag in part.tags)])
        parts.append(part)
    return _assembled(letterings, len(links), parts)


def _components(count: int, links: Sequence[Link]) -> list[tuple[list[int], list[int]]]:
    """Boxes and arrows of each connected part, parts in the order of their first box."""
    joined: list[list[int]] = [[] for _ in range(count)]
    for link in links:
        joined[link.source].append(link.target)
        joined[link.target].append(link.source)
    part_of = [-1] * count
    parts: list[tuple[list[int], list[int]]] = []
    for start in range(count):
        if part_of[start] < 0:
            part_of[start] = len(parts)
            reached = [start]
            for box in reached:  # grows while it is read
                for other in joined[box]:
                    if part_of[other] < 0:
                        part_of[other] = len(parts)
                        reached.append(other)
            parts.append((sorted(reached), []))
    for number, link in enumerate(links):
        parts[part_of[link.source]][1].append(number)
    return parts


def _draw(diagram: Diagram, letterings: Sequence[Lettering], links: Sequence[Link], boxes: list[int],
          arrows: list[int], tags_before: int) -> _Part:
    local = {box: number for number, box in enumerate(boxes)}
    inner = [replace(links[a], source=local[links[a].source], target=local[links[a].target]) for a in arrows]
    graph = layered(len(boxes), inner)
    texts = _vertex_texts(diagram, graph, boxes, arrows, tags_before)
    sizes = _sizes(graph, [letterings[box] for box in boxes], texts)
    order = order_layers(graph)
    gaps = [BEND_GAP if role is Role.BEND else BOX_GAP for role in graph.roles]
    middles = place(graph, order, [width for width, _ in sizes], gaps)
    left = min(x - width / 2 for x, (width, _) in zip(middles, sizes, strict=True))
    middles = [x - left for x in middles]
    rows = _rows(graph, order, middles, sizes)
    rects = [Rect(x - width / 2, (rows[layer][0] + rows[layer][1] - height) / 2, width, height)
             for x, (width, height), layer in zip(middles, sizes, graph.layer_of, strict=True)]
    tags = [Tag(graph.tag_of_box[box] + tags_before, text, rects[vertex], boxes[box], arrow)
            for vertex, text, box, arrow in _tag_vertices(graph, inner, arrows, texts)]
    labels = [Label(texts[vertex], rects[vertex], arrows[graph.link_of[vertex]])
              for vertex, role in enumerate(graph.roles) if role is Role.LABEL]
    return _Part(boxes, arrows, rects[:len(boxes)], _routes(graph, rects, rows), tags, labels,
                 max(rect.x + rect.width for rect in rects), rows[-1][1])


def _tag_vertices(graph: Layered, inner: Sequence[Link], arrows: Sequence[int],
                  texts: dict[int, str]) -> list[tuple[int, str, int, int]]:
    """Of every tag: vertex, text, source box in the part, arrow in the diagram or -1 at the tail."""
    found = []
    for vertex, role in enumerate(graph.roles):
        if role is Role.TAIL:
            found.append((vertex, texts[vertex], graph.above[vertex][0], -1))
        elif role is Role.HEAD:
            link = graph.link_of[vertex]
            found.append((vertex, texts[vertex], inner[link].source, arrows[link]))
    return found


def _vertex_texts(diagram: Diagram, graph: Layered, boxes: list[int], arrows: list[int],
                  tags_before: int) -> dict[int, str]:
    """What labels and tags say; a head tag says where its value comes from."""
    texts = {}
    for vertex, role in enumerate(graph.roles):
        if role is Role.TAIL:
            texts[vertex] = str(graph.tag_of_box[graph.above[vertex][0]] + tags_before)
        elif role in (Role.LABEL, Role.HEAD):
            arrow = diagram.arrows[arrows[graph.link_of[vertex]]]
            text = arrow.label if role is Role.LABEL else _head_text(diagram, boxes, graph, vertex, arrow, tags_before)
            texts[vertex] = shorten(printable(text), LABEL_WIDTH, _label_text_width)
    return texts


def _head_text(diagram: Diagram, boxes: list[int], graph: Layered, vertex: int, arrow: Arrow,
               tags_before: int) -> str:
    source = graph.chains[graph.link_of[vertex]][0][0]
    title = diagram.boxes[boxes[source]].title
    text = f"{graph.tag_of_box[source] + tags_before} {title}"
    return f"{text}: {arrow.label}" if arrow.label else text


def _label_text_width(text: str) -> float:
    return mono_width(text, LABEL_SIZE)


def _sizes(graph: Layered, letterings: Sequence[Lettering], texts: dict[int, str]) -> list[tuple[float, float]]:
    sizes = [(lettering.width, lettering.height) for lettering in letterings]
    for vertex in range(len(letterings), len(graph.roles)):
        if graph.roles[vertex] is Role.BEND:
            sizes.append((0.0, 0.0))
        elif graph.roles[vertex] is Role.LABEL:
            sizes.append((_label_text_width(texts[vertex]) + 8.0, LABEL_HEIGHT))
        else:
            sizes.append((max(TAG_HEIGHT, _label_text_width(texts[vertex]) + 14.0), TAG_HEIGHT))
    return sizes


def _rows(graph: Layered, order: Order, middles: Sequence[float],
          sizes: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Top and bottom of every layer; the gap below grows with its widest slant."""
    rows = []
    top = 0.0
    for row in order:
        bottom = top + max(sizes[vertex][1] for vertex in row)
        rows.append((top, bottom))
        slant = max((abs(middles[user] - middles[vertex]) for vertex in row for user in graph.below[vertex]),
                    default=0.0)
        top = bottom + ROW_GAP + round(min(MOST_SLANT_GAP, SLANT_GAP * slant))  # whole pixels, so that sums are exact
    return rows


def _routes(graph: Layered, rects: Sequence[Rect],
            rows: Sequence[tuple[float, float]]) -> list[tuple[tuple[Point, ...], ...]]:
    ports = _ports(graph, rects)
    routes = []
    for arrow, chains in enumerate(graph.chains):
        pieces = []
        for piece, chain in enumerate(chains):
            port = ports.get((arrow, piece), rects[chain[-1]].middle)
            pieces.append(_polyline(graph, rects, rows, chain, port))
        routes.append(tuple(pieces))
    return routes


def _ports(graph: Layered, rects: Sequence[Rect]) -> dict[tuple[int, int], float]:
    """Where each last piece of an arrow meets the top of its box: as near to its own x as the others let it."""
    arriving: dict[int, list[tuple[float, int, int]]] = {}
    for arrow, chains in enumerate(graph.chains):
        chain = chains[-1]
        arriving.setdefault(chain[-1], []).append((rects[chain[-2]].middle, arrow, len(chains) - 1))
    ports = {}
    for box, ends in arriving.items():
        ends.sort()
        for (_, arrow, piece), x in zip(ends, _spread([x for x, _, _ in ends], rects[box]), strict=True):
            ports[arrow, piece] = x
    return ports


def _spread(wanted: list[float], rect: Rect) -> list[float]:
    """Ascending positions on the top of `rect`, near those wanted, a port's gap apart if there is room."""
    if len(wanted) == 1:
        return [rect.middle]
    low, high = rect.x + PORT_MARGIN, rect.x + rect.width - PORT_MARGIN
    gap = min(PORT_GAP, (high - low) / (len(wanted) - 1))
    ports: list[float] = []
    for number, x in enumerate(wanted):
        ports.append(max(x, low + number * gap, ports[-1] + gap if ports else low))
    limit = high
    for number in range(len(ports) - 1, -1, -1):
        ports[number] = min(ports[number], limit)
        limit = ports[number] - gap
    return ports


def _polyline(graph: Layered, rects: Sequence[Rect], rows: Sequence[tuple[float, float]], chain: tuple[int, ...],
              port: float) -> tuple[Point, ...]:
    """From the bottom of the first vertex to the top of the last, vertical inside every row."""
    points: list[Point] = [(rects[chain[0]].middle, rects[chain[0]].bottom)]
    for vertex in chain[:-1]:
        x, (top, bottom) = rects[vertex].middle, rows[graph.layer_of[vertex]]
        points += [(x, top), (x, bottom)] if vertex != chain[0] else [(x, bottom)]
    points += [(port, rows[graph.layer_of[chain[-1]]][0]), (port, rects[chain[-1]].y)]
    return tuple(point for point, before in zip(points, [None, *points], strict=False) if point != before)


def _assembled(letterings: tuple[Lettering, ...], arrow_count: int, parts: list[_Part]) -> Layout:
    """The parts in rows, left to right, as on a page of about PAGE_SHAPE."""
    boxes = [Rect(0.0, 0.0, 0.0, 0.0)] * len(letterings)
    routes: list[tuple[tuple[Point, ...], ...]] = [()] * arrow_count
    tags: list[Tag] = []
    labels: list[Label] = []
    width = height = 0.0
    for part, (x, y) in zip(parts, _corners(parts), strict=True):
        for box, rect in zip(part.boxes, part.rects, strict=True):
            boxes[box] = rect.moved(x, y)
        for arrow, pieces in zip(part.arrows, part.routes, strict=True):
            routes[arrow] = tuple(tuple((px + x, py + y) for px, py in piece) for piece in pieces)
        tags += [replace(tag, rect=tag.rect.moved(x, y)) for tag in part.tags]
        labels += [replace(label, rect=label.rect.moved(x, y)) for label in part.labels]
        width, height = max(width, x + part.width), max(height, y + part.height)
    return Layout(width + MARGIN, height + MARGIN, letterings, tuple(boxes), tuple(routes), tuple(tags), tuple(labels))


def _corners(parts: list[_Part]) -> list[Point]:
    area = sum((part.width + PART_GAP) * (part.height + PART_GAP) for part in parts)
    page = max([sqrt(area * PAGE_SHAPE), *(part.width for part in parts)])
    corners: list[Point] = []
    x = y = MARGIN
    tallest = 0.0
    for part in parts:
        if x > MARGIN and x + part.width > page + MARGIN:
            x, y, tallest = MARGIN, y + tallest + PART_GAP, 0.0
        corners.append((x, y))
        x += part.width + PART_GAP
        tallest = max(tallest, part.height)
    return corners
