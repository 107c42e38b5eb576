"""A choice by run-time sizes: the value of the first operand whose conditions hold, else of the last.

    choose(a, b, conditions=(((n, 8),),))      a where n >= 8, else b

`conditions` are one tuple per operand but the last, of pairs of sizes (p, q): p >= q, and all of them must hold.  Sizes
are known before the first kernel runs, so compiled code computes the chosen operand alone.  What the operands require
of sizes (`Node.checks`) is required whichever is chosen.
"""

from __future__ import annotations

from ..errors import GraphError, ShapeError
from ..node import Attrs, Need
from ..plan import Case, taken
from ..types import Type
from . import maps
from .declare import Array, declare, require_equal_dtypes


def choose_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    conditions = attrs["conditions"]
    if len(types) < 2 or len(conditions) != len(types) - 1:
        raise ShapeError(f"{len(types)} operands and {len(conditions)} conditions: needs two operands or more, and a "
                         "condition for each but the last")
    if any(len(pair) != 2 for condition in conditions for pair in condition):
        raise ShapeError(f"conditions {conditions} are no tuples of pairs of sizes")
    shape = types[0].shape
    for other in types[1:]:
        shape = need.same_shape(shape, other.shape, "operands")
    return Type(require_equal_dtypes(types), shape)


def choose_values(attrs: Attrs, type: Type, *xs: Array) -> Array:
    for number, x in enumerate(xs):
        holds = taken((Case(attrs["conditions"], number),))
        if not isinstance(holds, int):
            raise GraphError(f"the sizes in the conditions {attrs['conditions']} are not known")
        if holds:
            return x
    raise AssertionError("one case always holds")


declare("choose", "structural", choose_type, choose_values,
        maps=maps.choose, doc="the first operand whose conditions on sizes hold, else the last")
