"""Which nodes are needed only where a choice falls on one alternative.

    c = choose(a, b, conditions=((n >= 8),))        a: case 0 of the conditions      b: case 1

What only `a` needs is computed in case 0 alone; what `a` and somebody else need, wherever the cases hold that both have
in common.  The cases of a node are a subset of those of each of its users, so whatever is computed finds its operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphc.ir.node import Node, ancestors
from graphc.ir.plan import Case

When = tuple[Case, ...]
Cases = Mapping[Node, When]


def cases_of(targets: Iterable[Node]) -> Cases:
    """For every node that the targets depend on, the cases that all hold where it is needed."""
    targets = list(targets)
    found: dict[Node, When] = dict.fromkeys(targets, ())
    for node in reversed(ancestors(targets)):
        for number, operand in enumerate(node.operands):
            through = in_alternative(node, number, found[node])
            found[operand] = shared(found[operand], through) if operand in found else through
    return found


def in_alternative(node: Node, number: int, own: When) -> When:
    """The cases in which operand `number` is needed by a node that is needed in its `own` cases."""
    if node.op.name != "choose":
        return own
    return tuple(dict.fromkeys((*own, Case(node.attrs["conditions"], number))))


def shared(a: When, b: When) -> When:
    return tuple(case for case in a if case in b)
