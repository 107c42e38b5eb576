"""Pictures: what every layout must hold, for many graphs; what every format must survive; files written whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import random
import re
import time
from xml.etree import ElementTree

import pytest

from graphc.ir.errors import GraphError
from graphc.view import Arrow, Box, Diagram, dot_text, dump, fold_leaves, json_text, svg_text
from graphc.view.crossings import crossings, order_layers
from graphc.view.layers import LONG_SPAN, Layered, Link, Role, layered
from graphc.view.layout import Layout, Rect, layout
from graphc.view.measure import letter, printable, shorten, title_width
from graphc.view.settle import _pooled
from graphc.view.svg import KINDS

SVG = "{http://www.w3.org/2000/svg}"
NASTY = ("<script>alert('x')</script>", "a\"b'c", "&amp; &lt; &#0;", "]]><!--", "\x00\x01\x1b[31m\x7f\x9b",
         "emoji 🦊🧪", "back\\slash\\", "two\nlines\ttab", "\ud800 lone", "\ufffe\uffff", "\u202ereversed", "漢字", "",
         " ", "%s{0}$x")


def diagram(count: int, pairs: list[tuple[int, int]], *, labels: bool = False) -> Diagram:
    kinds = list(KINDS)
    boxes = tuple(Box(f"k{i}", f"op{i}", ("float32[64]",) * (i % 3), kinds[i % len(kinds)]) for i in range(count))
    arrows = tuple(Arrow(f"k{a}", f"k{b}", f"value {n}" if labels and n % 5 == 0 else "")
                   for n, (a, b) in enumerate(pairs))
    return Diagram("picture", boxes, arrows)


def random_pairs(count: int, *, reach: float, seed: int) -> list[tuple[int, int]]:
    source = random.Random(seed)
    return [(max(0, i - 1 - int(source.expovariate(1 / reach))), i)
            for i in range(1, count) for _ in range(source.choice((0, 1, 1, 2, 3)))]


def training_step(depth: int) -> Diagram:
    """A chain forward, a chain backward that reads what the first one saved, and an update beside every step."""
    boxes: list[Box] = []
    arrows: list[Arrow] = []

    def box(title: str, *sources: str, kind: str = "elementwise") -> str:
        boxes.append(Box(f"k{len(boxes)}", title, ("float32[64, 64]",), kind, "model.py:7"))
        arrows.extend(Arrow(source, boxes[-1].key) for source in sources)
        return boxes[-1].key

    value, saved = box("x", kind="input"), []
    for step in range(depth):
        weight = box(f"w{step}", kind="variable")
        product = box("matmul", value, weight, kind="contraction")
        saved.append((value, weight, product))
        value = box("relu", product)
    slope = box("loss", value, kind="reduction")
    for before, weight, product in reversed(saved):
        slope = box("mul", slope, box("step", product))
        gradient = box("matmul", box("transpose", before, kind="movement"), slope, kind="contraction")
        update = box("div", box("adam m", gradient), box("adam v", gradient))
        box("new weight", weight, update, kind="output")
        slope = box("matmul", slope, box("transpose", weight, kind="movement"), kind="contraction")
    return Diagram("training step", tuple(boxes), tuple(arrows))


CASES: dict[str, Callable[[], Diagram]] = {
    "empty": lambda: Diagram(""),
    "single": lambda: diagram(1, []),
    "pair": lambda: diagram(2, [(0, 1)]),
    "twice the same": lambda: diagram(2, [(0, 1), (0, 1), (0, 1)], labels=True),
    "diamond": lambda: diagram(4, [(0, 1), (0, 2), (1, 3), (2, 3)]),
    "loose": lambda: diagram(200, []),
    "parts": lambda: diagram(90, [(i, i + 1) for i in range(89) if i % 3 != 2]),
    "fan out": lambda: diagram(301, [(0, i) for i in range(1, 301)]),
    "fan in": lambda: diagram(301, [(i, 300) for i in range(300)]),
    "chain": lambda: diagram(300, [(i, i + 1) for i in range(299)]),
    "chain with jumps": lambda: diagram(60, [(i, i + 1) for i in range(59)] + [(0, i) for i in range(2, 60, 3)]),
    "complete": lambda: diagram(24, [(a, b) for a in range(24) for b in range(a + 1, 24)]),
    "grid": lambda: diagram(400, [(i, i + d) for i in range(400) for d in (1, 20)
                                  if i + d < 400 and (d > 1 or i % 20 < 19)]),
    "labelled": lambda: diagram(80, random_pairs(80, reach=4, seed=3), labels=True),
    "backwards": lambda: diagram(50, [(49 - a, 49 - b) for a, b in random_pairs(50, reach=6, seed=4)]),
    "training": lambda: training_step(25),
    "random near": lambda: diagram(300, random_pairs(300, reach=3, seed=1), labels=True),
    "random far": lambda: diagram(300, random_pairs(300, reach=100, seed=2)),
    "random 3000": lambda: diagram(3000, random_pairs(3000, reach=30, seed=5)),
    "nasty": lambda: Diagram(NASTY[0], tuple(Box(n, n, (n, n), n, n, n) for n in NASTY),
                             tuple(Arrow(NASTY[0], n, n) for n in NASTY[1:])),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Diagram, Layout]:
    drawn = CASES[request.param]()
    return drawn, layout(drawn)


def rects(drawn: Layout) -> list[Rect]:
    return [*drawn.boxes, *(tag.rect for tag in drawn.tags), *(label.rect for label in drawn.labels)]


def overlaps(a: Rect, b: Rect) -> bool:
    return (a.x < b.x + b.width - 0.01 and b.x < a.x + a.width - 0.01
            and a.y < b.bottom - 0.01 and b.y < a.bottom - 0.01)


def near(bands: dict[int, list[Rect]], low: float, high: float) -> Iterator[Rect]:
    for band in range(int(low // 100), int(high // 100) + 1):
        yield from bands.get(band, ())


def in_bands(drawn: Layout) -> dict[int, list[Rect]]:
    bands: dict[int, list[Rect]] = {}
    for rect in sorted(rects(drawn), key=lambda rect: rect.x):
        for band in range(int(rect.y // 100), int(rect.bottom // 100) + 1):
            bands.setdefault(band, []).append(rect)
    return bands


def test_rectangles_never_overlap(case: tuple[Diagram, Layout]) -> None:
    for band in in_bands(case[1]).values():
        open_rects: list[Rect] = []
        for rect in band:  # by x
            open_rects = [other for other in open_rects if other.x + other.width > rect.x]
            assert not [other for other in open_rects if overlaps(rect, other)], rect
            open_rects.append(rect)


def test_arrows_lead_down_from_source_to_target(case: tuple[Diagram, Layout]) -> None:
    picture, drawn = case
    index = picture.index_of_key
    tails = {tag.source: tag.rect for tag in drawn.tags if tag.arrow < 0}
    heads = {tag.arrow: tag.rect for tag in drawn.tags if tag.arrow >= 0}
    assert len(drawn.routes) == len(picture.arrows)
    for number, (arrow, pieces) in enumerate(zip(picture.arrows, drawn.routes, strict=True)):
        source, target = index[arrow.source], index[arrow.target]
        assert drawn.boxes[source].bottom < drawn.boxes[target].y
        ends = [(drawn.boxes[source], drawn.boxes[target])]
        if number in heads:
            ends = [(drawn.boxes[source], tails[source]), (heads[number], drawn.boxes[target])]
        assert len(pieces) == len(ends)
        for piece, (upper, lower) in zip(pieces, ends, strict=True):
            ys = [y for _, y in piece]
            assert ys == sorted(ys) and len(piece) >= 2
            assert piece[0] == pytest.approx((upper.middle, upper.bottom))
            assert lower.x < piece[-1][0] < lower.x + lower.width and piece[-1][1] == pytest.approx(lower.y)


def test_arrows_pass_no_box(case: tuple[Diagram, Layout]) -> None:
    picture, drawn = case
    boxes = {(rect.x, rect.y) for rect in drawn.boxes}
    bands = in_bands(drawn)
    for pieces in drawn.routes:
        for piece in pieces:
            for (x0, y0), (x1, y1) in zip(piece, piece[1:], strict=False):
                line = Rect(min(x0, x1), y0, abs(x1 - x0), y1 - y0)
                struck = [rect for rect in near(bands, y0, y1) if overlaps(line, rect) and (rect.x, rect.y) in boxes]
                assert not struck, (piece, struck)


def test_everything_is_inside(case: tuple[Diagram, Layout]) -> None:
    drawn = case[1]
    for rect in rects(drawn):
        assert 0 <= rect.x and 0 <= rect.y and rect.x + rect.width <= drawn.width and rect.bottom <= drawn.height
    for x, y in [point for pieces in drawn.routes for piece in pieces for point in piece]:
        assert 0 <= x <= drawn.width and 0 <= y <= drawn.height


def test_tags_pair_up(case: tuple[Diagram, Layout]) -> None:
    picture, drawn = case
    tails = {tag.number: tag.source for tag in drawn.tags if tag.arrow < 0}
    assert len(tails) == len([tag for tag in drawn.tags if tag.arrow < 0]), "a number is used twice"
    heads = [tag for tag in drawn.tags if tag.arrow >= 0]
    assert {tag.number for tag in heads} == set(tails)
    for tag in heads:
        source = picture.boxes[tag.source]
        assert tails[tag.number] == tag.source and picture.arrows[tag.arrow].source == source.key
        assert tag.text.startswith(f"{tag.number} ")


def test_same_diagram_same_picture(case: tuple[Diagram, Layout]) -> None:
    picture, drawn = case
    assert layout(picture) == drawn


def test_svg_parses_and_shows_every_box(case: tuple[Diagram, Layout]) -> None:
    picture, _ = case
    root = ElementTree.fromstring(svg_text(picture))
    assert root.tag == SVG + "svg"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "style", "rect", "g", "text", "path", "a"}, "something of the user became markup"
    box_ids = {element.get("id") for element in root.iter(SVG + "g")} - {None}
    assert box_ids == {f"b{number}" for number in range(len(picture.boxes))}
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for rect in root.iter(SVG + "rect"):
        assert float(rect.get("width", "nan")) <= width and float(rect.get("height", "nan")) <= height


def test_dot_is_read_by_a_tokenizer(case: tuple[Diagram, Layout]) -> None:
    picture, _ = case
    tokens = list(dot_tokens(dot_text(picture)))
    assert tokens[0] == "digraph" and tokens[2] == "{" and tokens[-1] == "}"
    depth = 0
    for token in tokens:
        depth += (token in "{[") - (token in "}]")
        assert depth >= 0
    assert depth == 0
    assert tokens.count("->") == len(picture.arrows)
    assert len({token for token in tokens if re.fullmatch(r"n\d+", token)}) == len(picture.boxes)


def dot_tokens(text: str) -> Iterator[str]:
    place, end = 0, len(text.rstrip())
    pattern = re.compile(r'\s*("(?:[^"\\\n]|\\.)*"|->|[A-Za-z_][A-Za-z_0-9]*|-?[0-9.]+|[{}\[\];,=])', re.S)
    while place < end:
        match = pattern.match(text, place)
        assert match, f"no token at {text[place:place + 60]!r}"
        yield match[1]
        place = match.end()


def test_json_tells_the_diagram(case: tuple[Diagram, Layout]) -> None:
    picture, _ = case
    told = json.loads(json_text(picture))
    assert list(told) == ["format", "title", "boxes", "arrows"] and told["format"] == "graphc-diagram-1"
    assert told["title"] == picture.title
    assert [Box(**{**box, "lines": tuple(box["lines"])}) for box in told["boxes"]] == list(picture.boxes)
    assert [Arrow(**arrow) for arrow in told["arrows"]] == list(picture.arrows)


@pytest.mark.parametrize("seed", range(30))
def test_layers_respect_edges(seed: int) -> None:
    source = random.Random(seed)
    count = source.randrange(2, 60)
    links = [Link(a, b, source.random() < 0.2) for a, b in random_pairs(count, reach=8, seed=seed)]
    graph = layered(count, links)
    assert set(graph.layer_of) == set(range(1 + max(graph.layer_of)))
    for link in links:
        assert graph.layer_of[link.target] - graph.layer_of[link.source] >= link.least_span
    assert_edges_match(graph)
    for link, chains in zip(links, graph.chains, strict=True):
        span = graph.layer_of[link.target] - graph.layer_of[link.source]
        assert len(chains) == (2 if span > LONG_SPAN else 1)
        assert chains[0][0] == link.source and chains[-1][-1] == link.target


def assert_edges_match(graph: Layered) -> None:
    downward = {(v, user) for v, users in enumerate(graph.below) for user in users}
    upward = {(operand, v) for v, operands in enumerate(graph.above) for operand in operands}
    assert downward == upward
    assert len(downward) == sum(map(len, graph.below)) == sum(map(len, graph.above)), "an edge is there twice"
    assert all(graph.layer_of[b] == graph.layer_of[a] + 1 for a, b in downward)
    used = {edge for chains in graph.chains for chain in chains for edge in zip(chain, chain[1:], strict=False)}
    assert used == downward


@pytest.mark.parametrize("seed", range(20))
def test_crossings_are_counted_and_reduced(seed: int) -> None:
    graph = layered(40, [Link(a, b) for a, b in random_pairs(40, reach=6, seed=seed)])

    def count(order: list[list[int]]) -> tuple[int, int]:
        place = [0] * len(graph.layer_of)
        for row in order:
            for index, vertex in enumerate(row):
                place[vertex] = index
        pairs = [[(place[a], place[b]) for a in row for b in graph.below[a]] for row in order]
        slow = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for row in pairs for i, a in enumerate(row) for b in row[:i])
        return crossings(graph, order, place), slow

    plain, ordered = count(graph.layers), count(order_layers(graph))
    assert plain[0] == plain[1] and ordered[0] == ordered[1]
    assert ordered[0] <= plain[0]


def test_trees_and_grids_have_no_crossing() -> None:
    tree = layered(127, [Link((i - 1) // 2, i) for i in range(126, 0, -1)])
    order = order_layers(tree)
    place = {vertex: index for row in order for index, vertex in enumerate(row)}
    assert crossings(tree, order, [place[vertex] for vertex in range(len(place))]) == 0


def test_shared_trunk_has_one_bend_per_row() -> None:
    graph = layered(5, [Link(0, 1), Link(1, 2), Link(2, 3), Link(3, 4), Link(0, 3), Link(0, 4)])
    assert graph.roles.count(Role.BEND) == 3


def test_a_chain_is_straight_and_stays_narrow() -> None:
    chain = layout(diagram(300, [(i, i + 1) for i in range(299)]))
    assert max(rect.middle for rect in chain.boxes) - min(rect.middle for rect in chain.boxes) < 0.01
    widths = [layout(training_step(depth)).width for depth in (10, 20, 80)]
    assert max(widths) < 1.5 * min(widths) + 200, "branches drift sideways"


def test_no_row_of_computed_boxes_is_endless() -> None:
    drawn = layout(diagram(2000, [(0, i) for i in range(1, 2000)], labels=True))
    assert drawn.width < 60_000 and drawn.height < 30_000


def test_weights_stand_beside_their_first_use() -> None:
    picture = training_step(12)
    drawn = layout(picture)
    index = picture.index_of_key
    for arrow in picture.arrows:
        source = index[arrow.source]
        users = [drawn.boxes[index[a.target]].y for a in picture.arrows if a.source == arrow.source]
        if picture.boxes[source].kind == "variable":
            assert min(users) - drawn.boxes[source].bottom < 200


def test_pooling_solves_the_row_exactly() -> None:
    goals = [(3.0, 1.0), (1.0, 1.0), (8.0, 2.0), (7.0, 2.0), (20.0, 1.0)]
    assert _pooled([0.0] * 5, list(goals)) == pytest.approx([2.0, 2.0, 7.5, 7.5, 20.0])
    assert _pooled([0.0, 10.0], [(5.0, 1.0), (5.0, 1e9)]) == pytest.approx([-5.0, 5.0])


def test_a_big_graph_takes_seconds_not_minutes() -> None:
    picture = training_step(1100)
    start = time.process_time()
    layout(picture)
    assert len(picture.boxes) > 9000 and time.process_time() - start < 10.0


def test_texts_fit_their_boxes() -> None:
    for text in (*NASTY, "W" * 200, "i" * 9, "float32[batch, 64]"):
        set_text = letter(Box("k", text, (text,), "input", "", text))
        assert set_text.width <= 360 and title_width(set_text.title) <= set_text.width
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff\ufffe\uffff]", printable(text))
    assert shorten("abc", 1000.0, title_width) == "abc"
    assert shorten("abcdefghij" * 9, 60.0, title_width).endswith("…")


def test_nothing_unsafe_reaches_the_svg() -> None:
    for text in NASTY:
        drawn = svg_text(Diagram(text, (Box(text, text, (text,), text, text, text), Box("2", text)),
                                 (Arrow(text, "2", text),)))
        ElementTree.fromstring(drawn.encode())
        assert "<script" not in drawn and "\u202e" not in drawn and "\x1b" not in drawn
        assert "href=\"http" not in drawn and "url(" not in drawn and "@import" not in drawn


def test_leaves_fold_into_their_user() -> None:
    boxes = (Box("x", "x", kind="input"), Box("w", "w", ("f32[2]",), "variable"), Box("c", "2.0", (), "constant"),
             Box("m", "mul", ("f32[2]",)), Box("a", "add"), Box("u", "unused", (), "constant"))
    arrows = (Arrow("x", "m"), Arrow("w", "m", "b"), Arrow("w", "m"), Arrow("c", "m"), Arrow("c", "a"), Arrow("m", "a"))
    once = fold_leaves(Diagram("t", boxes, arrows))
    assert [box.key for box in once.boxes] == ["x", "c", "m", "a", "u"]
    assert once.boxes[2].lines == ("f32[2]", "b = w: f32[2]", "w: f32[2]")
    twice = fold_leaves(Diagram("t", boxes, arrows), most_users=2)
    assert [box.key for box in twice.boxes] == ["x", "m", "a", "u"]
    assert twice.boxes[1].lines[-1] == "2.0" and twice.boxes[2].lines == ("2.0",)
    assert [(arrow.source, arrow.target) for arrow in twice.arrows] == [("x", "m"), ("m", "a")]


def test_wrong_diagrams_are_refused() -> None:
    with pytest.raises(GraphError, match="'a' names 2 boxes"):
        Diagram("t", (Box("a", "a"), Box("a", "b")))
    with pytest.raises(GraphError, match="'z', which is no box"):
        Diagram("t", (Box("a", "a"),), (Arrow("a", "z"),))
    with pytest.raises(GraphError, match="starts where it ends"):
        Diagram("t", (Box("a", "a"),), (Arrow("a", "a"),))
    with pytest.raises(GraphError, match="cycle among 2 boxes"):
        layout(diagram(3, [(0, 1), (1, 2), (2, 1)]))


def test_dump_picks_the_format_by_suffix(tmp_path: Path) -> None:
    picture = CASES["diamond"]()
    for suffix, text in ((".svg", svg_text(picture)), (".DOT", dot_text(picture)), (".json", json_text(picture))):
        dump(picture, tmp_path / f"graph{suffix}")
        assert (tmp_path / f"graph{suffix}").read_text(encoding="utf-8") == text
    dump(picture, str(tmp_path / "graph.txt"), text="ä \ud800")
    assert (tmp_path / "graph.txt").read_bytes() == "ä \\ud800".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.DOT", "graph.json", "graph.svg", "graph.txt"]
    for name, match in (("graph.gif", r"'.gif'; known are .svg, .dot, .json, .txt"), ("graph", "known are"),
                        ("new.txt", "none was given")):
        with pytest.raises(GraphError, match=match):
            dump(picture, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_dump_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.svg"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        dump(CASES["pair"](), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_dump_keeps_links_and_ordinary_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "real.svg", tmp_path / "link.svg"
    real.write_text("old")
    link.symlink_to(real)
    dump(CASES["pair"](), link)
    assert link.is_symlink() and real.read_text().startswith("<svg")
    umask = os.umask(0)
    os.umask(umask)
    assert real.stat().st_mode & 0o777 == 0o666 & ~umask
