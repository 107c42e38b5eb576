"""Writing a picture: the suffix of the path picks the format, and a file is never seen half-written."""

from __future__ import annotations

from collections.abc import Callable
import os

from graphc.ir import files
from graphc.ir.errors import GraphError

from .diagram import Diagram
from .dot import dot_text
from .json_ import json_text
from .svg import svg_text

FORMATS: dict[str, Callable[[Diagram], str]] = {".svg": svg_text, ".dot": dot_text, ".json": json_text}
TEXT = ".txt"


def dump(diagram: Diagram, path: str | os.PathLike[str], *, text: str | None = None) -> None:
    """Write `diagram` to `path`; a .txt file gets `text`, which the caller has printed."""
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix == TEXT:
        if text is None:
            raise GraphError(f"dump: {name!r} needs the graph as text, and none was given")
        write_whole(name, text)
    elif suffix in FORMATS:
        write_whole(name, FORMATS[suffix](diagram))
    else:
        raise GraphError(f"dump: {name!r} ends in {suffix!r}; known are {', '.join([*FORMATS, TEXT])}")


def write_whole(path: str, text: str) -> None:
    """Write a text so that a reader, or a crash, sees the old file or the new one."""
    files.write_whole(path, [text.encode("utf-8", errors="backslashreplace")])
