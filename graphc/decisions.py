"""In which order a Jacobian is multiplied, on disk: a process that asks for the same one again searches nothing.

The key is a hash of all nodes that the ys depend on, of the linearised graph's numbering, and of this library's own
files; so an order that is found fits, and is the one that a search would find.

    {"engine": "scalar code", "order": [..]}
"""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import NamedTuple

from codegen.cache import Cache
from codegen.fingerprint import environment
from passes.jacobian.plan import skeleton
from passes.jacobian.tensor import Linear

from .config import Options
from .ir.linmap import LinMap
from .ir.node import ancestors
from .plans import hashed, rows_of

LONG = 16  # inner vertices from which a search takes longer than a look at the disk


class Decision(NamedTuple):
    """What carries a Jacobian out: an engine, or "" for products of maps, and its order."""

    engine: str
    order: tuple[int, ...]


def decided(linear: Linear[LinMap], budget: float, search: Callable[[], Decision | None]) -> Decision | None:
    """The decision for a graph, from the disk where it is there; None where sizes decide at run time."""
    if len(linear.inner) < LONG:
        return search()
    options = Options.of()
    key = key_of(linear, budget) if options.cache else None
    if key is None:
        return search()
    cache = Cache(Path(options.cache_dir), options.cache)
    data = cache.get("order", key)
    if data is not None:
        kept = json.loads(data)
        return Decision(kept["engine"], tuple(kept["order"]))
    found = search()
    if found is not None:
        cache.put("order", key, json.dumps(found._asdict()).encode())
    return found


def key_of(linear: Linear[LinMap], budget: float) -> str | None:
    """The name of a graph's decision; None where an attribute is of an unknown kind."""
    nodes = ancestors(linear.nodes)
    number = {node: k for k, node in enumerate(nodes)}
    try:
        rows = rows_of(nodes, number)
    except TypeError:
        return None
    edges, sources, sinks, skipped, symmetric, types = skeleton(linear)
    ends = edges, sources, sinks, sorted(skipped), symmetric, [str(kind) for kind in types]
    return hashed((environment(), budget, ends, [number[node] for node in linear.nodes], rows))
