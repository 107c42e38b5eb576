"""Pictures of graphs: nodes, updates of variables, or the steps of a compiled function, as a diagram or as text.

    gc.dump(loss, "loss.svg")          nodes: a box per node, its name scope as group
    gc.dump(updates, "step.svg")       updates: a box "update w" per variable beside
    gc.dump(step, "step.svg")          a function: a box per kernel

What says little is not drawn: numbers stand in the boxes that read them, weights are folded into their users, and a
broadcast is the arrow from what it repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
import linecache
import os
from string import ascii_letters
import sys
from typing import Any

import numpy as np

from ..ir.errors import GraphError, user_line
from ..ir.files import write_whole
from ..ir.node import Node
from ..ir.plan import Program
from ..ir.plan_text import program_text
from ..ir.text import attr_text, is_inline, is_leaf, line_of, names_of, postorder, text
from .diagram import Arrow, Box, Diagram, fold_leaves
from .files import FORMATS, TEXT
from .programs import program_diagram

MOST_USERS = 4  # boxes that read a weight, up to which it is folded into them
KIND_OF_LEAF = {"placeholder": "input", "variable": "variable", "constant": "constant", "iota": "constant"}
REDUCTIONS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin", "linear_scan")
HIDDEN = ("name", "dtype", "shape", "value", "labels", "out", "expression", "arity")  # attributes that boxes leave out

Updates = Sequence[tuple[Node, Node]]


def dump(target: Any, path: str | os.PathLike[str] | None = None) -> str | None:
    """Writes a picture or the text of a node, a list of nodes, a dict of updates, a signature or a compiled function.

    The suffix of `path` picks the form: .svg, .dot, .json or .txt.  Without a path the text is returned.

    Example::

        >>> import graphc as gc
        >>> with gc.Graph():
        ...     x = gc.placeholder("float32", (3,), name="x")
        ...     print(gc.dump(gc.exp(x) + 1).partition("#")[0].rstrip())
        x = placeholder()   float32[3]
    """
    if path is None:
        return target_text(target)
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix != TEXT and suffix not in FORMATS:
        raise GraphError(f"dump: {name!r} ends in {suffix!r}; known are {', '.join([*FORMATS, TEXT])}")
    content = target_text(target) if suffix == TEXT else FORMATS[suffix](target_diagram(target))
    write_whole(name, [content.encode("utf-8", errors="backslashreplace")])
    return None


def target_text(target: Any) -> str:
    """The graph or program of a target as text."""
    program = program_of(target)
    if program is not None:
        return program_text(program)
    fetches, updates = parts_of(target)
    lines = text([*fetches, *(value for _, value in updates)])
    return lines + "".join(f"update {variable.name}\n" for variable, _ in updates)


def target_diagram(target: Any) -> Diagram:
    """The graph or program of a target as a diagram."""
    program = program_of(target)
    if program is not None:
        return program_diagram(program)
    fetches, updates = parts_of(target)
    return graph_diagram(fetches, updates)


def program_of(target: Any) -> Program | None:
    """The program of a compiled function."""
    program = target if isinstance(target, Program) else getattr(target, "program", None)
    return program if isinstance(program, Program) else None


def parts_of(target: Any) -> tuple[list[Node], list[tuple[Node, Node]]]:
    """Fetches and updates of a target."""
    if isinstance(target, Node):
        return [target], []
    target = getattr(target, "request", target)  # a function that is run by the NumPy meaning of its nodes
    if hasattr(target, "outputs") and hasattr(target, "updates"):
        return [target.outputs] if isinstance(target.outputs, Node) else list(target.outputs), list(target.updates)
    parts = list(target.items()) if isinstance(target, Mapping) else target
    if isinstance(parts, (list, tuple)) and parts:
        if all(isinstance(part, Node) for part in parts):
            return list(parts), []
        if all(_is_update(part) for part in parts):
            return [], [(variable, value) for variable, value in parts]
    raise GraphError(f"dump: expected a node, a list of nodes, updates, a signature or a function, got {target!r:.100}"
                     f"\n  at {user_line()}")


def _is_update(part: Any) -> bool:
    return (isinstance(part, tuple) and len(part) == 2 and all(isinstance(node, Node) for node in part)
            and part[0].op.name == "variable")


# -- nodes as boxes --
def graph_diagram(fetches: Sequence[Node], updates: Updates = ()) -> Diagram:
    """What the fetches and the new values of variables are computed from."""
    targets = [*fetches, *(value for _, value in updates)]
    order = postorder(targets)
    names = names_of(order, targets)
    number = {node: f"n{k}" for k, node in enumerate(order)}
    kept = set(targets)
    drawn = [node for node in order if node in kept or not (is_inline(node) or node.op.name == "broadcast")]
    sources = source_files()
    boxes = [node_box(node, number[node], _operand_line(node, kept),
                      f"{line_of(node, names)}\n{place_text(node, sources)}") for node in drawn]
    arrows = [Arrow(number[source], number[node]) for node in drawn for operand in node.operands
              if not _is_number(source := _source(operand, kept), kept)]
    for k, (variable, value) in enumerate(updates):
        place = place_text(variable, sources)
        boxes.append(Box(f"u{k}", f"update {variable.name}", (str(variable.type),), "update", place))
        arrows.append(Arrow(number[value], f"u{k}"))
    for k, fetch in enumerate(fetches):
        title = "result" if len(fetches) == 1 else f"result {k}"
        boxes.append(Box(f"f{k}", title, (), "output", place_text(fetch, sources)))
        arrows.append(Arrow(number[fetch], f"f{k}"))
    title = ", ".join([*(fetch.name for fetch in fetches[:3]), *(["updates"] if updates else [])])
    return fold_leaves(Diagram(title, tuple(boxes), tuple(dict.fromkeys(arrows))), most_users=MOST_USERS)


def _source(operand: Node, kept: Set[Node]) -> Node:
    """What an arrow comes from: the operand, through broadcasts that are not drawn."""
    while operand.op.name == "broadcast" and operand not in kept:
        operand = operand.operands[0]
    return operand


def _is_number(source: Node, kept: Set[Node]) -> bool:
    """Whether what an arrow would come from is written in the boxes that read it."""
    return source not in kept and is_inline(source)


def node_box(node: Node, key: str, operands: str, tooltip: str) -> Box:
    """A node with its type, the numbers among its operands, and its static parameters."""
    attrs = [attr_text(name, value) for name, value in node.attrs.items() if name not in HIDDEN]
    spec = spec_text(node) if node.op.name == "einsum" else ""
    lines = tuple(line for line in (str(node.type), spec, operands, ", ".join(attrs)) if line)
    title = node.attrs["name"] if is_leaf(node) or node.op.name == "user" else node.op.name
    return Box(key, title, lines, kind_of(node), tooltip, node.scope.rstrip("/") or None)


def _operand_line(node: Node, kept: Set[Node]) -> str:
    """The numbers among the operands, with dots for the arrows; empty where there are none."""
    entries = [number_text(node, operand) if _is_number(_source(operand, kept), kept) else "·"
               for operand in node.operands]
    return f"({', '.join(entries)})" if any(entry != "·" for entry in entries) else ""


def number_text(user: Node, operand: Node) -> str:
    """A small constant with as many digits as its dtype holds; a repeated one with its shape, if that says anything."""
    is_told = user.op.kind == "elementwise" or operand.op.name != "broadcast"
    shape = "" if is_told else f"[{', '.join(map(str, operand.shape))}]"
    while operand.op.name == "broadcast":
        operand = operand.operands[0]
    array = operand.attrs["value"].array
    return (str(array[()]) if array.ndim == 0 else np.array2string(array, separator=", ").replace("\n", "")) + shape


def spec_text(node: Node) -> str:
    """The labels of an einsum as NumPy writes them."""
    def letters(group: Sequence[int]) -> str:
        return "".join(ascii_letters[label] if label < len(ascii_letters) else f"({label})" for label in group)

    return ",".join(map(letters, node.attrs["labels"])) + "->" + letters(node.attrs["out"])


def kind_of(node: Node) -> str:
    if node.op.kind == "leaf":
        return KIND_OF_LEAF[node.op.name]
    if node.op.kind == "elementwise":
        return "elementwise"
    return "contraction" if node.op.name == "einsum" else "reduction" if node.op.name in REDUCTIONS else "movement"


def place_text(node: Node, sources: Set[str]) -> str:
    """The user's line that made a node: where it is and, in code that this process runs, how it reads.

    Other files are not opened: the graph may come from a file, and that must not say what is read.
    """
    known = node.loc.file in linecache.cache or os.path.abspath(node.loc.file) in sources
    line = linecache.getline(node.loc.file, node.loc.line).strip() if known else ""
    return f"{node.loc}\n{line}" if line else str(node.loc)


def source_files() -> Set[str]:
    """The files of the modules that are loaded."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {os.path.abspath(file) for file in files if file}
