"""What a function of a library takes, returns and updates, and what its header says of that.

    gc.signature([x, t], [loss, dw], names=["loss", "dw"], comments={"x": "pixels, 0 to 1"})

Outputs that are derivatives say of themselves what they are the derivatives of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .io.graphs import Pattern
from .ir.dims import symbols_of
from .ir.errors import GraphError, Loc, user_line
from .ir.node import Node, ancestors
from .origins import LEAVES, origin_text
from .session import check_updates, update_pairs
from .sparse import SparseJacobian


@dataclass(frozen=True, eq=False)
class Signature:
    """A function; `single` where one output is returned bare in Python."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    names: tuple[str, ...]  # of the outputs
    patterns: tuple[Pattern | None, ...]  # of the outputs that are the entries of a sparse matrix
    updates: tuple[tuple[Node, Node], ...]
    single: bool
    loc: Loc  # the user's line
    doc: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)  # of inputs, outputs, sizes and variables, by their names
    origins: tuple[str, ...] = ()  # of the outputs, what each is the derivative of

    @property
    def targets(self) -> list[Node]:
        return [*self.outputs, *(value for _, value in self.updates)]


Output = Node | SparseJacobian


def signature(inputs: Node | Sequence[Node], outputs: Output | Sequence[Output], updates: Any = None,
              names: Sequence[str] | None = None, *, doc: str = "",
              comments: Mapping[str, str] | None = None) -> Signature:
    """A function of the inputs that returns the outputs and then gives variables their new values.

    `names` are those of the outputs in C; by default a placeholder's or variable's own, else output0, output1 ..  An
    output that is a sparse Jacobian gives its entries, and the header has its pattern in CSR form.

    `doc` is what the header says of the function, `comments` what it says of inputs, outputs, sizes and variables, by
    their names: a meaning or a unit.  Of what an output is the derivative it says by itself.
    """
    for side, value in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(value, Node | SparseJacobian | Sequence) or isinstance(value, str):
            raise GraphError(f"signature: {side}: expected a node or a list of nodes, got {type(value).__name__} "
                             f"{value!r:.60}\n  at {user_line()}")
    listed = (inputs,) if isinstance(inputs, Node) else tuple(inputs)
    given = (outputs,) if isinstance(outputs, Node | SparseJacobian) else tuple(outputs)
    patterns = tuple(pattern_of(o) if isinstance(o, SparseJacobian) else None for o in given)
    results = tuple(o.data if isinstance(o, SparseJacobian) else o for o in given)
    pairs = tuple(update_pairs(updates))
    for node in (*listed, *results, *(n for pair in pairs for n in pair)):
        if not isinstance(node, Node):
            raise GraphError(f"signature: expected a node, got {type(node).__name__} {node!r:.60}\n  at {user_line()}")
    check_updates(pairs)
    if not results and not pairs:
        raise GraphError(f"signature: no outputs and no updates, so nothing to compute\n  at {user_line()}")
    chosen = tuple(names) if names is not None else output_names(listed, results)
    if len(chosen) != len(results) or isinstance(names, str) or not all(isinstance(name, str) for name in chosen):
        raise GraphError(f"signature: {len(chosen)} names for {len(results)} outputs, expected a string for each: "
                         f"{names!r:.200}\n  at {user_line()}")
    made = Signature(listed, results, chosen, patterns, pairs, len(results) == 1, user_line(), doc, comments or {})
    check_comments(made)
    called = {node: name for node, name in reversed(list(zip(results, chosen))) if node.op.name not in LEAVES}
    return replace(made, origins=tuple(output_text(made, node, called) for node in results))


def pattern_of(matrix: SparseJacobian) -> Pattern:
    return Pattern(matrix.shape, tuple(matrix.indptr.tolist()), tuple(matrix.indices.tolist()))


def output_names(inputs: Sequence[Node], outputs: Sequence[Node]) -> tuple[str, ...]:
    taken = {n.name for n in inputs}
    found: list[str] = []
    for k, node in enumerate(outputs):
        own = node.op.name in ("placeholder", "variable") and node.name not in taken
        found.append(node.name if own else f"output{k}")
        taken.add(found[-1])
    return tuple(found)


# -- what the header says --
def check_comments(made: Signature) -> None:
    """Refuses comments on nothing."""
    variables = [n.name for n in ancestors(made.targets) if n.op.name == "variable"]
    sizes = [s for n in made.inputs for size in n.shape for s in symbols_of(size)]
    known = dict.fromkeys([*(n.name for n in made.inputs), *made.names, *sizes, *variables,
                           *(variable.name for variable, _ in made.updates)])
    for name, text in made.comments.items():
        if name not in known or not isinstance(text, str):
            raise GraphError(f"signature: comments: {name!r}: {text!r:.60}: expected a string for one of "
                             f"{', '.join(known)}\n  at {user_line()}")


def output_text(made: Signature, node: Node, names: Mapping[Node, str]) -> str:
    if node.op.name == "variable":
        updated = any(variable is node for variable, _ in made.updates)
        return f"the variable {node.name}{', before it is updated' if updated else ''}"
    if node.op.name == "placeholder":
        return f"the same as {node.name}"
    return origin_text(node, names)
