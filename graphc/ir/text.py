"""Text form of a graph: one line per node, operands first, numbered in topological order from the fetches.

    x = placeholder()                      float32[batch, 64]   # model.py:3
    w = variable()                         float32[64, 10]      # model.py:4
    %0 = einsum(x, w, labels=.., out=..)   float32[batch, 10]   # model.py:6
    %1 = mul(%0, 2.0)                      float32[batch, 10]   # model.py:7
    fetch %1

Placeholders and variables go by their names.  Small constants, and broadcasts of a number, are written where they are
read.  The text depends on the fetches alone, not on what else the graph holds or when its nodes were built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import os
from typing import Any

from .node import Bits, Node
from .types import storage_dtype, to_storage

MOST_INLINE = 8  # elements of a constant that is written out


def postorder(fetches: Sequence[Node]) -> list[Node]:
    """The nodes that the fetches depend on, operands before users, in the order in which a reader meets them."""
    done: set[int] = set()
    order: list[Node] = []
    for fetch in fetches:
        pending = [(fetch, False)]
        while pending:
            node, operands_done = pending.pop()
            if node.id in done:
                continue
            if operands_done:
                done.add(node.id)
                order.append(node)
            else:
                pending.append((node, True))
                pending.extend((operand, False) for operand in reversed(node.operands))
    return order


def is_leaf(node: Node) -> bool:
    return node.op.name in ("placeholder", "variable")


def is_inline(node: Node) -> bool:
    """Whether the node is written where it is read: a small constant, or a broadcast number."""
    if node.op.name == "constant":
        return bool(node.attrs["value"].array.size <= MOST_INLINE)
    return node.op.name == "broadcast" and node.operands[0].op.name == "constant" and node.operands[0].ndim == 0


def inline_text(node: Node) -> str:
    while node.op.name == "broadcast":
        node = node.operands[0]
    return str(node.attrs["value"].array.tolist())


def attr_text(name: str, value: Any) -> str:
    if isinstance(value, Bits):
        flat = ", ".join(str(v) for v in value.array.flat[:MOST_INLINE].tolist())
        return f"[{flat}, ..]" if value.array.size > MOST_INLINE else str(value.array.tolist())
    return f"{name}={compact(value)}"


def compact(value: Any) -> str:
    return "(" + " ".join(map(compact, value)) + ")" if isinstance(value, tuple) else str(value)


def names_of(order: Sequence[Node], fetches: Sequence[Node]) -> dict[Node, str]:
    """What each node is called: its own name, its value, or a number."""
    names: dict[Node, str] = {}
    number = 0
    fetched = set(fetches)
    for node in order:
        if is_leaf(node):
            names[node] = node.name
        elif is_inline(node) and node not in fetched:
            names[node] = inline_text(node)
        else:
            names[node] = f"%{number}"
            number += 1
    return names


def line_of(node: Node, names: Mapping[Node, str]) -> str:
    """`%3 = mul(%1, 2.0)`."""
    attrs = [] if is_leaf(node) else [attr_text(name, value) for name, value in node.attrs.items()]
    operands = [operand_text(node, o, names[o]) for o in node.operands]
    return f"{names[node]} = {node.op.name}({', '.join(operands + attrs)})"


def operand_text(user: Node, operand: Node, name: str) -> str:
    """The operand's name; a broadcast number shows its shape unless that is the user's own."""
    if name.startswith("%") or operand.op.name != "broadcast" or user.op.kind == "elementwise":
        return name
    return f"{name}[{', '.join(map(str, operand.shape))}]"


def line_comment(node: Node) -> str:
    return f"# {os.path.basename(node.loc.file)}:{node.loc.line}"


def text(fetches: Sequence[Node], notes: Mapping[Node, Sequence[str]] | None = None) -> str:
    """The graph of the fetches as text; `notes` are written under the lines of their nodes."""
    notes = notes or {}
    order = postorder(fetches)
    names = names_of(order, fetches)
    shown = [node for node in order if names[node].startswith("%") or is_leaf(node) or node in notes]
    rows = [(line_of(node, names), str(node.type), line_comment(node)) for node in shown]
    left, middle = (min(max((len(row[k]) for row in rows), default=0), limit) for k, limit in ((0, 72), (1, 32)))
    lines = []
    for node, (first, second, third) in zip(shown, rows):
        lines.append(f"{first:{left}}   {second:{middle}}   {third}")
        lines += [f"    ^ {note}" for note in notes.get(node, ())]
    lines.append("fetch " + ", ".join(names[f] for f in fetches))
    return "\n".join(lines) + "\n"


def canonical_key(fetches: Sequence[Node], *, named: bool = True) -> str:
    """A hash of what the fetches mean, for caches: equal for equal graphs, wherever and whenever they were built.

    Without `named`, placeholders and variables count by their order instead of their names.
    """
    digest = hashlib.sha256()
    number: dict[Node, int] = {}
    for node in postorder(fetches):
        number[node] = len(number)
        attrs = {k: encoded(v) for k, v in node.attrs.items() if named or k != "name" or not is_leaf(node)}
        operands = [number[o] for o in node.operands]
        digest.update(repr((node.op.name, operands, attrs, node.dtype, str(node.shape))).encode())
    digest.update(repr([number[f] for f in fetches]).encode())
    return digest.hexdigest()


def encoded(value: Any) -> Any:
    """An attribute as something whose repr holds all of it."""
    if not isinstance(value, Bits):
        return value
    stored = to_storage(value.array, value.dtype).astype(storage_dtype(value.dtype).newbyteorder("<"))
    return value.dtype, value.array.shape, hashlib.sha256(stored.tobytes()).hexdigest()
