"""`where`: constant conditions, equal branches, chains on one condition."""

from __future__ import annotations

from ..pattern import abs_, bitwise_not, where
from ..rewrite import Rule, rule

RULES: list[Rule] = [
    rule("where_true", lambda x, y: where(True, x, y), lambda x, y: x, dtypes="any"),
    rule("where_false", lambda x, y: where(False, x, y), lambda x, y: y, dtypes="any"),
    rule("where_equal", lambda p, x: where(p, x, x), lambda p, x: x, dtypes="any"),
    rule("where_not", lambda p, x, y: where(bitwise_not(p), x, y), lambda p, x, y: where(p, y, x), dtypes="any"),
    rule("where_where_true", lambda p, x, y, z: where(p, where(p, x, y), z), lambda p, x, y, z: where(p, x, z),
         dtypes="any"),
    rule("where_where_false", lambda p, x, y, z: where(p, x, where(p, y, z)), lambda p, x, y, z: where(p, x, z),
         dtypes="any"),
    rule("where_as_bool", lambda p: where(p, True, False), lambda p: p, dtypes="bool"),
    rule("where_as_not", lambda p: where(p, False, True), lambda p: bitwise_not(p), dtypes="bool"),
    rule("where_neg_neg", lambda p, x, y: where(p, -x, -y), lambda p, x, y: -where(p, x, y), dtypes="any"),
    rule("where_abs_abs", lambda p, x, y: where(p, abs_(x), abs_(y)), lambda p, x, y: abs_(where(p, x, y)),
         dtypes="any"),
]
