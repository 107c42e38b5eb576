"""The three kinds of error, and the user's source line that every one of them carries."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Loc(NamedTuple):
    """A line of the user's program."""

    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class GraphError(ValueError):
    """The user's mistake: what was expected, what came, where, and how to mend it."""


class ShapeError(GraphError):
    """Shapes that do not fit together, when a node is built or when arrays are bound."""


class DTypeError(GraphError, TypeError):
    """An operand or an array of a dtype that the op or the placeholder cannot take."""


class FeedError(GraphError):
    """A feed that is missing, unknown or does not fit its placeholder."""


class SessionError(GraphError):
    """A closed session, a variable without a value or of another graph."""


class Unsupported(NotImplementedError):
    """Valid, but not built yet: names the op and the stage."""


class VerifyError(AssertionError):
    """A fault of the compiler itself: the pass, and the graph or plan with the faults beside the nodes."""


PROGRAM_FOLDERS = tuple(
    os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), name) + os.sep
    for name in ("graphc", "passes", "codegen"))


def user_line() -> Loc:
    """The innermost frame outside this program."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(PROGRAM_FOLDERS) and not file.startswith("<frozen"):
            return Loc(file, frame.f_lineno)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return Loc("<unknown>", 0)
