"""A diagram as JSON, for other programs.  The keys below are a promise; FORMAT changes when one of them does.

    {"format": "graphc-diagram-1", "title": "mlp",
     "boxes": [{"key": "n3", "title": "matmul", "kind": "contraction", "group": null, "lines": [..], "tooltip": ""}],
     "arrows": [{"source": "n1", "target": "n3", "label": ""}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json

from .diagram import Diagram

FORMAT = "graphc-diagram-1"


def json_text(diagram: Diagram) -> str:
    """`diagram` as JSON of plain ASCII, a box or an arrow a line."""
    boxes = [{"key": box.key, "title": box.title, "kind": box.kind, "group": box.group, "lines": list(box.lines),
              "tooltip": box.tooltip} for box in diagram.boxes]
    arrows = [{"source": arrow.source, "target": arrow.target, "label": arrow.label} for arrow in diagram.arrows]
    return (f'{{"format": {json.dumps(FORMAT)},\n "title": {json.dumps(diagram.title)},\n'
            f' "boxes": {_rows(boxes)},\n "arrows": {_rows(arrows)}}}\n')


def _rows(items: Sequence[Mapping[str, object]]) -> str:
    return "[" + ",\n  ".join(json.dumps(item) for item in items) + "]"
