"""What is known of a compiled function, on disk: a process that asks for it again runs no pass and emits no text.

The key is a hash of the request (every node that it reaches, with attributes and constants to the bit), of the options
that change code, and of what turns a graph into code (`codegen.fingerprint`).  Lines of the user's program are not part
of it, as they move with every edit: a plan that quotes some holds a hash of them, and is good for no others.

    {"code": key of the image, "locs": hash or "", "border": .., "constants": ..}\\n bytes of the constants
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
import hashlib
import json
import struct
from typing import Any

from codegen.cache import Cache
from codegen.fingerprint import environment
from codegen.target import identity
from passes.lower import Request

from .config import Options
from .ir.dims import Dim, decode, encode
from .ir.node import Bits, Node, ancestors
from .ir.plan import Array, Border, Constant, DimCheck
from .ir.types import to_storage

# Options that change no code.
SILENT = {"threads", "check_numerics", "mode", "verify", "dump", "dump_dir", "time", "rules", "cache_dir", "cache"}


@dataclass(frozen=True)
class Plan:
    """A compiled function without its graph and its kernels.  `code` is the key of its image."""

    code: str
    border: Border
    constants: tuple[Constant, ...]


# -- keys --
@dataclass(frozen=True)
class Key:
    """The name of a request's plan, and what the plan may depend on beside."""

    name: str
    locs: str
    constants: tuple[Bits, ...]  # of the graph, by number


def key_of(request: Request, options: Options) -> Key | None:
    """The key of a request; None where somebody wants to watch the passes, or an attribute is of an unknown kind."""
    if options.dump or options.dump_dir or options.time or options.rules or options.stop_after:
        return None
    targets = [*request.outputs, *(node for pair in request.updates for node in pair)]
    nodes = ancestors([*request.inputs, *targets, *request.state])
    number = {node: k for k, node in enumerate(nodes)}
    try:
        rows = rows_of(nodes, number)
    except TypeError:
        return None
    ends = [[number[n] for n in group] for group in (request.inputs, targets, request.state)]
    about = [(f.name, getattr(options, f.name)) for f in fields(options) if f.name not in SILENT]
    # The request's own checks are none before the passes.
    parts = (environment(), identity(options.target), about, request.name, len(request.outputs), ends, rows)
    return Key(hashed(parts), hashed([(n.id, n.loc) for n in nodes]),  # messages show numbers of nodes too
               tuple(n.attrs["value"] for n in nodes if n.op.name == "constant"))


def rows_of(nodes: Iterable[Node], number: Mapping[Node, int]) -> list[Any]:
    """Nodes as something whose repr tells them from all others; TypeError where an attribute cannot be."""
    return [(n.op.name, [number[o] for o in n.operands], [(a, exact(v)) for a, v in n.attrs.items()]) for n in nodes]


def hashed(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()


def exact(value: Any) -> Any:
    """An attribute as something whose repr tells it from all others; TypeError for kinds that are not known here."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return "float", struct.pack("<d", value)  # tells NaNs apart
    if type(value) in (tuple, list):
        return type(value).__name__, [exact(item) for item in value]
    if isinstance(value, Dim):
        return "size", encode(value)
    if isinstance(value, Bits):
        return "bits", value.key
    raise TypeError(f"an attribute of type {type(value).__name__}")


# -- files --
def stored(cache: Cache, key: Key) -> Plan | None:
    """The plan of a request, where one is kept that fits."""
    data = cache.get("plan", key.name)
    if data is None:
        return None
    head, _, rest = data.partition(b"\n")
    found = json.loads(head)
    if found["locs"] not in ("", key.locs):
        return None
    return Plan(found["code"], border_of(found["border"]), tuple(read_constants(found["constants"], rest, key)))


def store(cache: Cache, key: Key, plan: Plan) -> None:
    border = plan.border
    rows, blobs = write_constants(plan.constants, key)
    quotes = any(check.message for check in border.checks) or any(border.messages)
    head = {"locs": key.locs if quotes else "", "code": plan.code, "border": border_data(border), "constants": rows}
    cache.put("plan", key.name, b"".join([json.dumps(head).encode(), b"\n", *blobs]))


def write_constants(constants: Sequence[Constant], key: Key) -> tuple[list[Any], list[bytes]]:
    """Rows of the constants, and the bytes of those that are none of the user's own."""
    own = {bits.key: k for k, bits in enumerate(key.constants)}
    rows = [[c.key, c.dtype, c.shape, own.get(c.key, -1), len(c.data)] for c in constants]
    return rows, [c.data for c in constants if c.key not in own]


def read_constants(rows: Sequence[Any], data: bytes, key: Key) -> Iterator[Constant]:
    at = 0
    for name, dtype, shape, number, nbytes in rows:
        if number >= 0:
            bits = key.constants[number]
            yield Constant(name, dtype, tuple(shape), to_storage(bits.array, bits.dtype).tobytes())
        else:
            yield Constant(name, dtype, tuple(shape), data[at:at + nbytes])
            at += nbytes


def border_data(border: Border) -> dict[str, Any]:
    arrays = {name: [[a.name, a.dtype, [encode(size) for size in a.shape]] for a in getattr(border, name)]
              for name in ("inputs", "outputs", "state")}
    checks = [[c.relation, encode(c.a), encode(c.b), c.message] for c in border.checks]
    return {"name": border.name, "symbols": border.symbols, **arrays, "arena": encode(border.arena),
            "slot": encode(border.slot), "checks": checks, "messages": border.messages}


def border_of(data: Mapping[str, Any]) -> Border:
    def arrays(name: str) -> tuple[Array, ...]:
        return tuple(Array(own, dtype, tuple(map(decode, shape))) for own, dtype, shape in data[name])

    checks = tuple(DimCheck(relation, decode(a), decode(b), message) for relation, a, b, message in data["checks"])
    return Border(data["name"], tuple(data["symbols"]), arrays("inputs"), arrays("outputs"), arrays("state"),
                  decode(data["arena"]), decode(data["slot"]), checks, tuple(data["messages"]))
