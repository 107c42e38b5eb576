"""Pictures of graphs: a diagram as plain data, our own layered drawing of it, and the formats it is written in."""

from .diagram import Arrow, Box, Diagram, fold_leaves
from .dot import dot_text
from .files import dump, write_whole
from .json_ import json_text
from .layout import Label, Layout, Rect, Tag
from .svg import render, svg_text

__all__ = ["Arrow", "Box", "Diagram", "Label", "Layout", "Rect", "Tag", "dot_text", "dump", "fold_leaves",
           "json_text", "render", "svg_text", "write_whole"]
