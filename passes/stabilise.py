"""Stabilise: forms that overflow, cancel or make NaN become forms that do not.

    n2 = log(add(1.0, exp(x)))    ->    n3 = softplus(x)

Runs twice: on what is to be differentiated (`keep` then holds the nodes that it is differentiated by, which stay and
are not looked into), and in the pipeline, on graphs with derivatives in them.  The rules that keep every bit run along,
because they bring nodes into the form that the stability rules look for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.node import Node

from .rewrite import Table, rewrite, table
from .rules import stability
from .simplify import EXACT

RULES: Table = table(stability.RULES, *EXACT)


def stabilise(fetches: Sequence[Node], keep: Iterable[Node] = ()) -> list[Node]:
    """The fetches in a form that loses no digits where that can be helped."""
    return rewrite(fetches, RULES, keep)
