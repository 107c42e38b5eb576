"""How large a text is drawn, without a font at hand, and which characters may be drawn at all.

Widths are those of the widest face that the pictures ask for, so a text never overflows its box with another face.
Titles are bold and proportional, details are monospaced.  Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import unicodedata

from .diagram import Box

TITLE_SIZE = 13.0
DETAIL_SIZE = 11.0
SMALL_SIZE = 10.0
MONO_EM = 0.605
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# Characters by the width of their bold glyph, in hundredths of the font size, rounded up.
BOLD_GLYPHS = {
    32: "'", 36: "ijl ", 40: "/\\|IJ,.:;", 44: "-f", 48: "!()[]t", 52: "r_`", 56: "\"*", 60: "?zcs", 64: "L",
    68: "xvykae", 72: "TEFo$0123456789hnu{}bdgpqS", 76: "YZPC", 80: "BRXAVK", 84: "UGDHN#+<=>^~", 88: "OQ&",
    96: "w", 100: "M@", 104: "%", 108: "m", 112: "W"}
BOLD_EM = {glyph: width / 100 for width, glyphs in BOLD_GLYPHS.items() for glyph in glyphs}
WIDE_EM = 1.3  # East Asian wide characters and emoji
OTHER_EM = 0.85
UNSEEN = ("Mn", "Me", "Cf")  # combining marks and joiners


def title_width(text: str, size: float = TITLE_SIZE) -> float:
    """Of `text` in the bold face."""
    return size * sum(BOLD_EM.get(char) or _rare_em(char, OTHER_EM) for char in text)


def mono_width(text: str, size: float = DETAIL_SIZE) -> float:
    """Of `text` in the monospaced face."""
    return size * (MONO_EM * len(text) if text.isascii() else sum(_rare_em(char, MONO_EM) for char in text))


def _rare_em(char: str, usual: float) -> float:
    if char.isascii():
        return usual
    if unicodedata.category(char) in UNSEEN:
        return 0.0
    return WIDE_EM if unicodedata.east_asian_width(char) in "WF" else usual


def shorten(text: str, limit: float, width: Callable[[str], float]) -> str:
    """The longest beginning of `text` that fits into `limit`, with an ellipsis where something was left out."""
    if width(text) <= limit:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle] + ELLIPSIS) <= limit:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS


def printable(text: str) -> str:
    """`text` on one line, with a visible stand-in for each character that XML forbids or that reorders its line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_stand_in, text))


def _stand_in(char: str) -> str:
    code = ord(char)
    if char in "\t\n\r":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    reorders = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x200E, 0x200F, 0x061C)
    forbidden = 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE
    breaks = code in (0x2028, 0x2029)
    return "\N{REPLACEMENT CHARACTER}" if reorders or forbidden or breaks else char


TITLE_LINE = 18.0
DETAIL_LINE = 15.0
CAPTION_LINE = 13.0
PADDING = 12.0
TOP = 7.0
BOTTOM = 8.0
WIDEST = 330.0
NARROWEST = 64.0
TAG_HEIGHT = 18.0


@dataclass(frozen=True)
class Lettering:
    """The texts of a box as drawn, shortened to fit, and the size of the box around them."""

    caption: str
    title: str
    lines: tuple[str, ...]
    width: float
    height: float


def letter(box: Box) -> Lettering:
    """Set the texts of `box`: its scope small, its title bold, its details in a monospaced face."""
    caption = shorten(printable(box.group or ""), WIDEST, caption_width)
    title = shorten(printable(box.title), WIDEST, title_width)
    lines = tuple(shorten(printable(line), WIDEST, mono_width) for line in box.lines)
    text_width = max([caption_width(caption), title_width(title), *map(mono_width, lines)])
    height = TOP + TITLE_LINE + DETAIL_LINE * len(lines) + BOTTOM + (CAPTION_LINE if caption else 0.0)
    return Lettering(caption, title, lines, max(NARROWEST, text_width + 2 * PADDING), height)


def caption_width(text: str) -> float:
    """Of the name scope above a title."""
    return mono_width(text, SMALL_SIZE)
