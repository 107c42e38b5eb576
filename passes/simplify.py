"""Simplify: rules that keep every bit (or only reorder a sum), and constant folding, to a fixed point.

    n3 = mul(n2, 1.0)                  n4 = sub(x, y)
    n4 = add(n3, neg(y))       ->

    simplify([n4], fast_math=True)     also what is true of real numbers only: x + 0.0 becomes x
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.node import Node

from .rewrite import Table, rewrite, table
from .rules import arithmetic, choices, constants, contractions, identities, movement, reals, reductions

EXACT = (constants.RULES, identities.RULES, arithmetic.RULES, choices.RULES, movement.RULES, reductions.RULES,
         contractions.RULES)
RULES: Table = table(*EXACT, identities.DERIVED)
FAST_RULES: Table = table(*EXACT, identities.DERIVED, reals.RULES)


def simplify(fetches: Sequence[Node], fast_math: bool = False) -> list[Node]:
    """The fetches in their simplest form; types stay."""
    return rewrite(fetches, FAST_RULES if fast_math else RULES)
