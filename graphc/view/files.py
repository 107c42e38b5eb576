"""Writing a picture: the suffix of the path picks the format, and a file is never seen half-written."""

from __future__ import annotations

from collections.abc import Callable
import os
import secrets

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
    """Write a file so that a reader, or a crash, sees the old one or the new one."""
    place = os.path.realpath(path)  # a link keeps pointing to the file
    folder, name = os.path.split(place)
    partial = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.tmp")
    # Not the tempfile module: its files are readable by their owner alone, and so the picture would be.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", errors="backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, place)
    except BaseException:
        os.unlink(partial)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the new name last too, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
