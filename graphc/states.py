"""What is wrong with a file of a library's variables, in words: native code only says that it is another one.

    fault_of("old.safetensors", "digits", variables)
    "has 'layer/w' as F32[64, 10], expected F32[64, 16]"
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import Any, NoReturn

from codegen.state import layout

from .io.strict_json import parsed
from .ir.errors import GraphError
from .ir.plan import Array

OURS = ("__metadata__", "__padding__")  # names in the header that are no variables
MOST_SHOWN = 1 << 20  # bytes of a header that are read


def fault_of(path: str | bytes | os.PathLike[str], library: str, variables: Sequence[Array]) -> str:
    """Why the file is not of these variables of the library."""
    if other := other_kind(path):
        return other
    try:
        nbytes, start = beginning(path)
    except OSError as fault:
        return f"{fault.strerror}"
    places = layout(library, variables)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or 8 + length > min(nbytes, MOST_SHOWN):
        return f"it has {nbytes} bytes and does not begin with the header of a safetensors file, or is cut off in it"
    try:
        theirs, ours = header(start[8:8 + length]), header(places.header[8:])
        return difference(theirs, ours) or extent(nbytes, places.total) or "its data are damaged: the sums differ"
    except GraphError as fault:
        return f"its header is {fault}"


def reason_of(path: bytes, number: int) -> str:
    """Why a file could not be opened, read or written, by the number of the error that the system gave."""
    return other_kind(path) or os.strerror(number)


def other_kind(path: str | bytes | os.PathLike[str]) -> str:
    """What is there, where it is no file and not nothing either."""
    if not os.path.exists(path) or os.path.isfile(path):
        return ""
    return "it is a folder" if os.path.isdir(path) else "it is a device or a pipe"


def beginning(path: str | bytes | os.PathLike[str]) -> tuple[int, bytes]:
    """Length of the file, and its first bytes."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size, file.read(MOST_SHOWN)


def header(text: bytes) -> dict[str, Any]:
    def refuse(fault: str) -> NoReturn:
        raise GraphError(fault)
    found = parsed(text, refuse)
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        refuse("not a JSON object of objects")
    return found


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What the headers differ in; empty where it is nothing but the sums."""
    library, expected = (rows.get("__metadata__", {}).get("library") for rows in (theirs, ours))
    if library != expected:
        return f"it is of {f'the library {library!r}' if library else 'no library'}, expected {expected!r}"
    shown, wanted = ({name: variable_text(row) for name, row in rows.items() if name not in OURS}
                     for rows in (theirs, ours))
    for name, text in wanted.items():
        if shown.get(name) != text:
            return f"has {f'{name!r} as {shown[name]}' if name in shown else f'no variable {name!r}'}, expected {text}"
    if more := [name for name in shown if name not in wanted]:
        return f"has a variable {more[0]!r}, which this library does not have"
    return "" if list(shown) == list(wanted) else "has the variables in another order"


def variable_text(row: dict[str, Any]) -> str:
    return f"{row.get('dtype')}{row.get('shape')}"


def extent(nbytes: int, expected: int) -> str:
    return "" if nbytes == expected else f"has {nbytes} bytes, expected {expected}"
