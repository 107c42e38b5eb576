"""A diagram as one SVG text: no script, no font, no other file.  Every text of the user goes through `escape`.

Colours come from KINDS; a kind that is not in it is drawn like "other".  The background is painted, so the picture
reads the same in dark and in white viewers.  Tags lead to the box at their other end when they are clicked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape as escape_markup

from .diagram import Box, Diagram
from .layout import Label, Layout, Point, Rect, Tag, layout
from .measure import (
    BOTTOM,
    CAPTION_LINE,
    DETAIL_LINE,
    DETAIL_SIZE,
    SMALL_SIZE,
    TITLE_LINE,
    TITLE_SIZE,
    TOP,
    Lettering,
    printable,
    shorten,
    title_width,
)


@dataclass(frozen=True)
class Ink:
    """How a kind is drawn: fill, border and title colour, corner radius, and whether the border is dashed."""

    fill: str
    edge: str
    text: str
    radius: float = 6.0
    dashed: bool = False


KINDS = {
    "input": Ink("#e3f2e6", "#3f9150", "#1d5a2b", radius=15.0),
    "variable": Ink("#fdf0d5", "#c98a1b", "#77500a", radius=15.0),
    "constant": Ink("#f3f4f6", "#8a94a3", "#4a5361", radius=15.0, dashed=True),
    "elementwise": Ink("#e8f0fd", "#4a7fd4", "#1f4587"),
    "reduction": Ink("#efe8fb", "#8459c9", "#4c2b86"),
    "contraction": Ink("#fde7e4", "#d1594a", "#84291d"),
    "movement": Ink("#e2f3f5", "#2f93a1", "#125a64"),
    "kernel": Ink("#e9eaf8", "#555bb8", "#2c3180"),
    "update": Ink("#fbe8f2", "#c2568e", "#79244f"),
    "output": Ink("#3b4754", "#232c36", "#ffffff", radius=15.0),
    "other": Ink("#ffffff", "#7c8794", "#333c47"),
}
OTHER = "other"
SANS = "Inter,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
MONO = "ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace"
PAGE = "#fcfcfd"
LINE = "#69758a"
TAG_INK = "#8d5b00"
MARGIN = 24.0
HEAD_SIZE = 18.0
HEAD_HEIGHT = 30.0
LEGEND_HEIGHT = 26.0
SWATCH = 14.0
SWATCH_WIDTH = 20.0
TAG_WORDS = "goes on at the tag of the same number"
ARROW_LENGTH = 7.0
ARROW_HALF = 3.6
STYLE = f"""\
text{{font-family:{SANS};font-size:{TITLE_SIZE:g}px;text-anchor:middle}}
.h{{font-size:{HEAD_SIZE:g}px;font-weight:700;text-anchor:start;fill:#1c2530}}
.k{{font-size:12px;text-anchor:start;fill:#4a5361}}
.t{{font-weight:700}}
.d{{font-family:{MONO};font-size:{DETAIL_SIZE:g}px;fill:#3c4654}}
.output .d{{fill:#dfe5ec}}
.c{{font-family:{MONO};font-size:{SMALL_SIZE:g}px;fill:#7b8696}}
.output .c{{fill:#b5c0cd}}
.g{{font-family:{MONO};font-size:{SMALL_SIZE:g}px;fill:{TAG_INK}}}
.l{{font-family:{MONO};font-size:{SMALL_SIZE:g}px;fill:#4a5361}}
.w{{fill:none;stroke:{LINE};stroke-width:1.3;stroke-linejoin:round}}
.a{{fill:{LINE};stroke:none}}
.tag{{fill:#fff7e0;stroke:#d9a63a;stroke-width:1}}
.note{{fill:{PAGE};fill-opacity:.9}}
.b rect{{stroke-width:1.3}}
.b:hover rect{{stroke-width:2.6}}
"""
INKS = "".join(
    f".{kind} rect{{fill:{ink.fill};stroke:{ink.edge}{';stroke-dasharray:4 3' if ink.dashed else ''}}}"
    f".{kind} .t{{fill:{ink.text}}}\n" for kind, ink in KINDS.items())


def svg_text(diagram: Diagram) -> str:
    """`diagram`, laid out, as a self-contained SVG document."""
    return render(diagram, layout(diagram))


def render(diagram: Diagram, drawn: Layout) -> str:
    """A layout that is already there, with its head: title and legend."""
    legend, legend_width = _legend(diagram, has_tags=bool(drawn.tags))
    title = shorten(printable(diagram.title), 900.0, _head_width)
    width = max(drawn.width, legend_width + 2 * MARGIN, _head_width(title) + 2 * MARGIN)
    head = (HEAD_HEIGHT if title else 0.0) + (LEGEND_HEIGHT if legend else 0.0)
    head += MARGIN - 8.0 if head else 0.0
    height = drawn.height + head
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
             f'viewBox="0 0 {_n(width)} {_n(height)}">',
             f"<title>{escape(diagram.title)}</title>",
             f"<style>\n{STYLE}{INKS}</style>",
             f'<rect width="{_n(width)}" height="{_n(height)}" rx="8" fill="{PAGE}"/>']
    if title:
        parts.append(f'<text class="h" x="{_n(MARGIN)}" y="{_n(MARGIN + HEAD_SIZE - 4)}">{escape(title)}</text>')
    top = MARGIN + (HEAD_HEIGHT if title else 0.0)
    parts += [f'<g transform="translate({_n(MARGIN)} {_n(top)})">', *legend, "</g>"] if legend else []
    parts.append(f'<g transform="translate({_n((width - drawn.width) / 2)} {_n(head)})">')
    parts += _arrows(drawn)
    parts += [_box(number, box, lettering, rect) for number, (box, lettering, rect)
              in enumerate(zip(diagram.boxes, drawn.letterings, drawn.boxes, strict=True))]
    parts += _tags(diagram, drawn)
    parts += [_label(label) for label in drawn.labels]
    return "\n".join([*parts, "</g>", "</svg>", ""])


def escape(text: str) -> str:
    """`text` for an SVG element or attribute, on one line, without characters that XML forbids."""
    return escape_markup(printable(text), {'"': "&quot;", "'": "&#39;"})


def _escaped_lines(text: str) -> str:
    return "&#10;".join(escape(line) for line in text.split("\n"))


def _n(number: float) -> str:
    return f"{round(number, 1):.10g}"


def _head_width(text: str) -> float:
    return title_width(text, HEAD_SIZE)


def _kind(box: Box) -> str:
    return box.kind if box.kind in KINDS else OTHER


def _legend(diagram: Diagram, *, has_tags: bool) -> tuple[list[str], float]:
    """A swatch and a name for each kind that occurs, one for tags if there are any, and the width of them all."""
    present = {_kind(box) for box in diagram.boxes}
    parts: list[str] = []
    x = 0.0
    for kind in [kind for kind in KINDS if kind in present]:
        radius = SWATCH / 2 if KINDS[kind].radius > SWATCH else 4.0
        parts.append(f'<g class="{kind}"><rect x="{_n(x)}" y="0" width="{_n(SWATCH_WIDTH)}" height="{_n(SWATCH)}" '
                     f'rx="{_n(radius)}"/></g>{_legend_text(x, kind)}')
        x += _legend_width(kind)
    if has_tags:
        parts.append(_pill(Rect(x, 0.0, SWATCH_WIDTH, SWATCH)) + _legend_text(x, TAG_WORDS))
        x += _legend_width(TAG_WORDS)
    return parts, x


def _legend_text(x: float, words: str) -> str:
    return f'<text class="k" x="{_n(x + SWATCH_WIDTH + 6)}" y="11.5">{words}</text>'


def _legend_width(words: str) -> float:
    return SWATCH_WIDTH + 6 + title_width(words, 11.0) + 18


def _box(number: int, box: Box, lettering: Lettering, rect: Rect) -> str:
    kind = _kind(box)
    parts = [f'<g class="b {kind}" id="b{number}">', f"<title>{_tooltip(box)}</title>",
             f'<rect x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}" '
             f'rx="{_n(min(KINDS[kind].radius, rect.height / 2))}"/>']
    parts += [f'<text class="{style}" x="{_n(rect.middle)}" y="{_n(y)}">{escape(text)}</text>'
              for style, text, y in _text_lines(lettering, rect)]
    return "".join([*parts, "</g>"])


def _text_lines(lettering: Lettering, rect: Rect) -> Iterator[tuple[str, str, float]]:
    """Style, text and baseline of every line in a box."""
    y = rect.y + TOP
    if lettering.caption:
        y += CAPTION_LINE
        yield "c", lettering.caption, y - 3.0
    y += TITLE_LINE
    yield "t", lettering.title, y - 4.5
    for line in lettering.lines:
        y += DETAIL_LINE
        yield "d", line, y - 3.5
    assert y + BOTTOM <= rect.bottom + 0.5, (lettering, rect)


def _tooltip(box: Box) -> str:
    lines = [f"{box.group}/{box.title}" if box.group else box.title, *box.lines]
    return _escaped_lines("\n".join([*lines, *([box.tooltip] if box.tooltip else [])]))


def _arrows(drawn: Layout) -> Iterator[str]:
    """Every line once: what an arrow shares with one drawn before it is left out."""
    begun: set[tuple[Point, Point]] = set()
    for pieces in drawn.routes:
        for piece in pieces:
            segments = list(zip(piece, piece[1:], strict=False))
            fresh = next((number for number, segment in enumerate(segments) if segment not in begun), None)
            if fresh is not None:  # else it is the way to a tag that several arrows share
                begun.update(segments)
                yield _arrow(piece[fresh:])


def _arrow(points: tuple[Point, ...]) -> str:
    """A smooth line through `points` and its head: curves across the gaps between rows, straight inside rows."""
    tip_x, tip_y = points[-1]
    before_x, before_y = points[-2]
    end = (tip_x, max(before_y, tip_y - ARROW_LENGTH + 1.0))
    path = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for (x0, y0), (x1, y1) in zip(points, (*points[1:-1], end), strict=False):
        if abs(x0 - x1) < 0.05:
            path.append(f"V{_n(y1)}")
        else:
            middle = _n((y0 + y1) / 2)
            path.append(f"C{_n(x0)} {middle} {_n(x1)} {middle} {_n(x1)} {_n(y1)}")
    head = (f"M{_n(tip_x)} {_n(tip_y)}l{_n(-ARROW_HALF)} {_n(-ARROW_LENGTH)}h{_n(2 * ARROW_HALF)}z")
    return f'<path class="w" d="{"".join(path)}"/><path class="a" d="{head}"/>'


def _tags(diagram: Diagram, drawn: Layout) -> Iterator[str]:
    """Tags are links to the box at their other end; a tail names every box it leads to when hovered."""
    index = diagram.index_of_key
    users: dict[int, list[int]] = {}
    for tag in drawn.tags:
        if tag.arrow >= 0:
            users.setdefault(tag.number, []).append(index[diagram.arrows[tag.arrow].target])
    for tag in drawn.tags:
        if tag.arrow >= 0:
            yield _tag(tag, tag.source, f"from {diagram.boxes[tag.source].title}")
        else:
            ends = users[tag.number]
            yield _tag(tag, ends[0], "to " + ", ".join(diagram.boxes[end].title for end in ends))


def _tag(tag: Tag, other: int, words: str) -> str:
    return (f'<a href="#b{other}"><title>{escape(words)}</title>{_pill(tag.rect)}'
            f'<text class="g" x="{_n(tag.rect.middle)}" y="{_n(tag.rect.y + tag.rect.height / 2 + 3.5)}">'
            f"{escape(tag.text)}</text></a>")


def _pill(rect: Rect) -> str:
    return (f'<rect class="tag" x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" '
            f'height="{_n(rect.height)}" rx="{_n(rect.height / 2)}"/>')


def _label(label: Label) -> str:
    rect = label.rect
    return (f'<rect class="note" x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" '
            f'height="{_n(rect.height)}"/>'
            f'<text class="l" x="{_n(rect.middle)}" y="{_n(rect.y + 11.5)}">{escape(label.text)}</text>')
