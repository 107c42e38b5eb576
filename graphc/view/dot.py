"""A diagram in the DOT language, for those who have Graphviz.

Nodes are named n0, n1, .. by their place in the diagram, so no text of the user is ever an identifier; name scopes
become clusters (with `newrank`, so that ranks run through all of them).
"""

from __future__ import annotations

from .diagram import Box, Diagram
from .measure import printable
from .svg import KINDS, OTHER

HEAD = """\
  graph [rankdir=TB, newrank=true, fontname="Helvetica", labelloc=t, ranksep=0.45, nodesep=0.25];
  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];
  edge [color="#69758a", arrowsize=0.7, fontname="Helvetica", fontsize=9];
"""


def dot_text(diagram: Diagram) -> str:
    """`diagram` as a digraph."""
    index = diagram.index_of_key
    members: dict[str, list[int]] = {}
    for number, box in enumerate(diagram.boxes):
        if box.group:
            members.setdefault(box.group, []).append(number)
    lines = [f"digraph {quoted(diagram.title)} {{\n{HEAD}  label={quoted(diagram.title)};"]
    lines += [f"  n{number} [{_attributes(box)}];" for number, box in enumerate(diagram.boxes)]
    for cluster, (group, numbers) in enumerate(members.items()):
        names = " ".join(f"n{number};" for number in numbers)
        lines.append(f'  subgraph cluster_{cluster} {{ label={quoted(group)}; color="#c3cad4"; {names} }}')
    for arrow in diagram.arrows:
        label = f" [label={quoted(arrow.label)}]" if arrow.label else ""
        lines.append(f"  n{index[arrow.source]} -> n{index[arrow.target]}{label};")
    return "\n".join([*lines, "}", ""])


def quoted(*lines: str) -> str:
    """A DOT string that shows `lines`: backslashes and ampersands would otherwise begin escapes."""
    shown = [printable(line).replace("\\", "\\\\").replace("&", "&amp;").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(shown) + '"'


def _attributes(box: Box) -> str:
    ink = KINDS[box.kind if box.kind in KINDS else OTHER]
    style = ', style="rounded,filled,dashed"' if ink.dashed else ""
    tooltip = quoted(*box.tooltip.split("\n")) if box.tooltip else quoted(box.title)
    return (f'label={quoted(box.title, *box.lines)}, tooltip={tooltip}, fillcolor="{ink.fill}", '
            f'color="{ink.edge}", fontcolor="{ink.text}"{style}')
