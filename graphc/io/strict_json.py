"""JSON from files that nobody vouches for: a key twice, NaN, and nesting beyond reason are faults, not surprises."""

from __future__ import annotations

from collections.abc import Callable
import json
from typing import Any, NoReturn


def parsed(text: bytes, refuse: Callable[[str], NoReturn]) -> Any:
    """The value of a JSON text in UTF-8; `refuse` is called with the fault of anything else."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except RecursionError:
        refuse("nested too deeply")
    except ValueError as fault:  # of decoding, of JSON, of the hooks below, of numbers with thousands of digits
        refuse(f"not the JSON it should be: {fault!s:.200}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
