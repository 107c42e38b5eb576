"""Constants that meet, and casts: rows that hold bit by bit."""

from __future__ import annotations

from graphc.ir import build
from graphc.ir.node import Node
from graphc.ir.types import FLOATS, SIGNED, UNSIGNED, is_float, itemsize

from ..pattern import bitwise_and, bitwise_not, bitwise_or, bitwise_xor, eq, ge, gt, le, lt, ne
from ..rewrite import Rule, rule, step
from .identities import leaves

MANTISSA = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
EXPONENT = {"float64": 11, "float32": 8, "float16": 5, "bfloat16": 8}


def is_lossless(source: str, target: str) -> bool:
    """Every value of one dtype is a value of the other."""
    if source == target or source == "bool":
        return True
    if target == "bool":
        return False
    if source in FLOATS:
        return target in FLOATS and MANTISSA[target] >= MANTISSA[source] and EXPONENT[target] >= EXPONENT[source]
    bits = 8 * itemsize(source) - (source in SIGNED)
    if target in FLOATS:
        return bits <= MANTISSA[target] and target != "float16"
    if target in UNSIGNED:
        return source in UNSIGNED and itemsize(target) >= itemsize(source)
    return itemsize(target) * 8 - 1 >= bits


def cast_of_cast(node: Node) -> Node | None:
    """Two casts as one, where the first loses nothing and the second means the same from either dtype."""
    middle = node.operands[0]
    if middle.op.name != "cast":
        return None
    x = middle.operands[0]
    if not is_lossless(x.dtype, middle.dtype):
        return None
    if is_float(middle.dtype) and node.dtype not in FLOATS and node.dtype != "bool":
        return None  # out of range, a float becomes an integer in another way than an integer does
    return build.cast(x, node.dtype)


def two_casts(dtype: str) -> Node:
    x, = leaves("bool" if dtype == "float16" else "float16" if is_float(dtype) else "int8", 1)
    wide = "float64" if is_float(dtype) else "int32"
    return build.cast(build.cast(x, wide), "float32" if is_float(dtype) else "int16")


RULES: list[Rule] = [
    step("cast_of_cast", ("cast",), cast_of_cast, example=two_casts),
    # -- comparisons: one form each, so that equal ones meet --
    rule("gt_to_lt", lambda x, y: gt(x, y), lambda x, y: lt(y, x), dtypes="any"),
    rule("ge_to_le", lambda x, y: ge(x, y), lambda x, y: le(y, x), dtypes="any"),
    rule("lt_self", lambda x: lt(x, x), lambda x: False, dtypes="any"),
    rule("eq_self", lambda x: eq(x, x), lambda x: True, dtypes="discrete"),
    rule("ne_self", lambda x: ne(x, x), lambda x: False, dtypes="discrete"),
    rule("le_self", lambda x: le(x, x), lambda x: True, dtypes="discrete"),
    rule("lt_neg_neg", lambda x, y: lt(-x, -y), lambda x, y: lt(y, x)),
    rule("le_neg_neg", lambda x, y: le(-x, -y), lambda x, y: le(y, x)),
    rule("not_eq", lambda x, y: bitwise_not(eq(x, y)), lambda x, y: ne(x, y), dtypes="any"),
    rule("not_ne", lambda x, y: bitwise_not(ne(x, y)), lambda x, y: eq(x, y), dtypes="any"),
    # -- bits --
    rule("not_not", lambda x: bitwise_not(bitwise_not(x)), lambda x: x, dtypes="discrete"),
    rule("and_self", lambda x: bitwise_and(x, x), lambda x: x, dtypes="discrete"),
    rule("or_self", lambda x: bitwise_or(x, x), lambda x: x, dtypes="discrete"),
    rule("and_true", lambda x: bitwise_and(x, True), lambda x: x, dtypes="bool"),
    rule("and_false", lambda x: bitwise_and(x, False), lambda x: False, dtypes="bool"),
    rule("or_true", lambda x: bitwise_or(x, True), lambda x: True, dtypes="bool"),
    rule("or_false", lambda x: bitwise_or(x, False), lambda x: x, dtypes="bool"),
    rule("xor_false", lambda x: bitwise_xor(x, False), lambda x: x, dtypes="bool"),
    rule("xor_true", lambda x: bitwise_xor(x, True), lambda x: bitwise_not(x), dtypes="bool"),
    rule("xor_self", lambda x: bitwise_xor(x, x), lambda x: False, dtypes="bool"),
    rule("absorb_and", lambda x, y: bitwise_and(x, bitwise_or(x, y)), lambda x, y: x, dtypes="discrete"),
    rule("absorb_or", lambda x, y: bitwise_or(x, bitwise_and(x, y)), lambda x, y: x, dtypes="discrete"),
]
