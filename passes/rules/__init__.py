"""The tables of rewrite rules.  A file is a subject; the tests read `ALL`, so a row in a table is a tested row."""

from __future__ import annotations

from ..rewrite import Rule
from . import arithmetic, choices, constants, contractions, identities, movement, reals, reductions, stability

TABLES: dict[str, list[Rule]] = {
    "constants": constants.RULES, "identities": identities.RULES, "arithmetic": arithmetic.RULES,
    "choices": choices.RULES, "movement": movement.RULES, "reductions": reductions.RULES,
    "contractions": contractions.RULES, "stability": stability.RULES, "reals": reals.RULES,
    "derived": identities.DERIVED,
}
ALL: list[Rule] = [rule for rules in TABLES.values() for rule in rules]
