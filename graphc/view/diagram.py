"""A picture of a graph as plain data: boxes, the arrows between them, a title.

    Diagram("mlp", boxes=(Box("n3", "matmul", ("float32[batch, 64]",), "contraction"), ...),
            arrows=(Arrow("n1", "n3"), ...))

Keys name boxes inside one diagram and are never shown; every other text may hold anything a user can type.
Invariants, checked when a diagram is made:
1. keys are distinct;  2. both ends of every arrow are keys of boxes;  3. no arrow starts where it ends.
That arrows form no cycle is checked by the layering, which needs the order anyway.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from graphc.ir.errors import GraphError

LEAF_KINDS = frozenset({"constant", "variable"})


@dataclass(frozen=True)
class Box:
    """One node of the picture.  `group` is its name scope; `tooltip` is shown on hovering."""

    key: str
    title: str
    lines: tuple[str, ...] = ()
    kind: str = "elementwise"
    tooltip: str = ""
    group: str | None = None


@dataclass(frozen=True)
class Arrow:
    """A value that flows from the box `source` to the box `target`, by their keys."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True)
class Diagram:
    """What every format of this package draws or writes."""

    title: str
    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()

    def __post_init__(self) -> None:
        keys = Counter(box.key for box in self.boxes)
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise GraphError(f"diagram {self.title!r}: the key {twice[0]!r} names {keys[twice[0]]} boxes")
        for arrow in self.arrows:
            for end in (arrow.source, arrow.target):
                if end not in keys:
                    raise GraphError(f"diagram {self.title!r}: {arrow} ends at {end!r}, which is no box")
            if arrow.source == arrow.target:
                raise GraphError(f"diagram {self.title!r}: {arrow} starts where it ends")

    @property
    def index_of_key(self) -> dict[str, int]:
        return {box.key: index for index, box in enumerate(self.boxes)}


def fold_leaves(diagram: Diagram, *, most_users: int = 1) -> Diagram:
    """Turn constants and variables that at most `most_users` boxes read into a line of each box that reads them.

    before:  w1 (variable, float32[784, 64]) -> matmul        after:  matmul, with the line "w1: float32[784, 64]"
    """
    users: dict[str, dict[str, None]] = {}
    for arrow in diagram.arrows:
        users.setdefault(arrow.source, {})[arrow.target] = None
    computed = {arrow.target for arrow in diagram.arrows}
    folded = {box.key: box for box in diagram.boxes
              if box.kind in LEAF_KINDS and box.key not in computed and 0 < len(users.get(box.key, ())) <= most_users}
    extra: dict[str, dict[str, None]] = {}
    for arrow in diagram.arrows:
        if arrow.source in folded:
            extra.setdefault(arrow.target, {})[_leaf_line(folded[arrow.source], arrow)] = None
    boxes = tuple(replace(box, lines=box.lines + tuple(extra.get(box.key, ())))
                  for box in diagram.boxes if box.key not in folded)
    return Diagram(diagram.title, boxes, tuple(arrow for arrow in diagram.arrows if arrow.source not in folded))


def _leaf_line(leaf: Box, arrow: Arrow) -> str:
    name = f"{arrow.label} = {leaf.title}" if arrow.label else leaf.title
    return f"{name}: {', '.join(leaf.lines)}" if leaf.lines else name
