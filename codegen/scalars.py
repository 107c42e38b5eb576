"""The emission table of the elementwise ops: a row says what an op costs and which functions write it.

A row has a column per class of operand dtype; an empty column means that NumPy has no such op there.  `add` on bools
is `or`, `multiply` is `and`, as NumPy has them.  Single and half precision go through a function's float form, or in
double where the row says `wide`.  Accuracy is stated in docs/vector_math.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.ir.errors import Unsupported

from .vectors import FLOATS, REGISTER, Lanes, check_dtype
from .vmath import basic, error_function, exp_log, gamma, hyperbolic, integers, trig
from .vmath.casts import cast
from .vmath.real import Real

OnFloat = Callable[..., str]  # (Real, operands...) -> value
OnInteger = Callable[..., str]  # (Lanes, dtype, operands...) -> value


class Row(NamedTuple):
    """`weight` is the cost in vector operations of one register of float32."""

    weight: float
    on_float: OnFloat | None = None
    on_integer: OnInteger | None = None
    on_bool: OnInteger | None = None
    wide: bool = False  # float32 is computed in double


# -- makers of columns --

def instruction(name: str) -> OnInteger:
    return lambda lanes, dtype, *operands: lanes.binary(name, REGISTER[dtype], *operands)


def comparison(predicate: str) -> Row:
    def on_any(lanes: Lanes, dtype: str, a: str, b: str) -> str:
        return lanes.compare(dtype, predicate, a, b)

    def on_float(m: Real, a: str, b: str) -> str:
        return m.lanes.compare("float32" if m.bits == 32 else "float64", predicate, a, b)
    return Row(1, on_float, on_any, on_any)


def intrinsic(name: str) -> OnFloat:
    return lambda m, *operands: m.intrinsic(name, *operands)


def itself(lanes: Lanes, dtype: str, a: str) -> str:
    return a


def always(answer: bool) -> OnInteger:
    return lambda lanes, dtype, a: lanes.literal("i1", answer)


def logical_not(lanes: Lanes, dtype: str, a: str) -> str:
    return lanes.binary("xor", "i1", a, lanes.literal("i1", 1))


def multiply_add(lanes: Lanes, dtype: str, a: str, b: str, c: str) -> str:
    return lanes.binary("add", REGISTER[dtype], lanes.binary("mul", REGISTER[dtype], a, b), c)


AND, OR, XOR = instruction("and"), instruction("or"), instruction("xor")

ROWS = {
    # -- arithmetic --
    "add": Row(1, Real.add, instruction("add"), OR),
    "sub": Row(1, Real.sub, instruction("sub")),
    "mul": Row(1, Real.mul, instruction("mul"), AND),
    "div": Row(4, Real.div),
    "fma": Row(1, Real.fma, multiply_add),
    "neg": Row(1, Real.neg, integers.negative),
    "abs": Row(1, Real.abs, integers.absolute, itself),
    "sign": Row(4, basic.sign, integers.sign),
    "pow": Row(80, exp_log.pow, integers.power),
    "mod": Row(50, basic.mod, integers.mod, wide=True),
    "floor_divide": Row(60, basic.floor_divide, integers.floor_divide, wide=True),
    "maximum": Row(2, intrinsic("maximum"), integers.maximum, OR),
    "minimum": Row(2, intrinsic("minimum"), integers.minimum, AND),
    "copysign": Row(1, Real.copysign),
    "hypot": Row(20, basic.hypot),
    "atan2": Row(34, trig.atan2),
    "relu": Row(1, basic.relu, integers.relu, itself),
    "identity": Row(0, lambda m, a: a, itself, itself),
    # -- comparison and bits --
    **{name: comparison(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "bitwise_and": Row(1, None, AND, AND),
    "bitwise_or": Row(1, None, OR, OR),
    "bitwise_xor": Row(1, None, XOR, XOR),
    "bitwise_not": Row(1, None, integers.invert, logical_not),
    "left_shift": Row(3, None, integers.left_shift),
    "right_shift": Row(3, None, integers.right_shift),
    "isnan": Row(1, Real.is_nan, always(False), always(False)),
    "isinf": Row(2, basic.is_infinite, always(False), always(False)),
    "isfinite": Row(2, basic.is_finite, always(True), always(True)),
    # -- rounding --
    "floor": Row(1, intrinsic("floor"), itself, itself),
    "ceil": Row(1, intrinsic("ceil"), itself, itself),
    "trunc": Row(1, intrinsic("trunc"), itself, itself),
    "round": Row(1, Real.round_even, itself, itself),
    # -- exponentials, logarithms, roots --
    "sqrt": Row(5, Real.sqrt),
    "rsqrt": Row(9, basic.rsqrt),
    "cbrt": Row(30, hyperbolic.cbrt),
    "exp": Row(12, exp_log.exp),
    "exp2": Row(12, exp_log.exp2),
    "expm1": Row(18, exp_log.expm1),
    "log": Row(22, exp_log.log),
    "log2": Row(32, exp_log.log2),
    "log10": Row(33, exp_log.log10),
    "log1p": Row(32, exp_log.log1p),
    "sigmoid": Row(20, exp_log.sigmoid),
    "softplus": Row(40, exp_log.softplus),
    # -- trigonometric and hyperbolic --
    "sin": Row(22, trig.sin),
    "cos": Row(22, trig.cos),
    "tan": Row(36, trig.tan),
    "asin": Row(24, trig.asin),
    "acos": Row(26, trig.acos),
    "atan": Row(24, trig.atan),
    "sinh": Row(28, hyperbolic.sinh),
    "cosh": Row(20, hyperbolic.cosh),
    "tanh": Row(20, hyperbolic.tanh),
    "asinh": Row(55, hyperbolic.asinh),
    "acosh": Row(55, hyperbolic.acosh),
    "atanh": Row(55, hyperbolic.atanh),
    # -- special functions --
    "erf": Row(25, error_function.erf),
    "erfc": Row(45, error_function.erfc),
    "lgamma": Row(220, gamma.lgamma, wide=True),
    "digamma": Row(170, gamma.digamma, wide=True),
}

# Ops that do not fit the columns: their operands or parameters are of another kind.
OTHER_WEIGHTS = {"where": 1.0, "cast": 1.0, "polygamma": 300.0}


def weight(name: str) -> float:
    """The cost of an op in vector operations."""
    if name in OTHER_WEIGHTS:
        return OTHER_WEIGHTS[name]
    if name not in ROWS:
        raise Unsupported(f"{name}: code generation has no elementwise op of that name")
    return ROWS[name].weight


def emit(lanes: Lanes, name: str, dtype: str, operands: Sequence[str], result_dtype: str,
         param: int | None = None) -> str:
    """Writes the op on operands of `dtype` (for `where`: of the two values) and returns the value, of `result_dtype`.

    `param` is the order of `polygamma`.
    """
    check_dtype(dtype, name)
    check_dtype(result_dtype, name)
    if name == "cast":
        return cast(lanes, dtype, operands[0], result_dtype)
    if name == "where":
        condition, yes, no = operands
        return lanes.select(dtype, condition, yes, no)
    if name == "polygamma":
        return _on_floats(lanes, Row(0, lambda m, x: gamma.polygamma(m, x, param), wide=True), name, dtype, operands)
    weight(name)  # raises for an unknown name
    row = ROWS[name]
    if dtype in FLOATS:
        return _on_floats(lanes, row, name, dtype, operands)
    column = row.on_bool if dtype == "bool" else row.on_integer
    if column is None:
        raise Unsupported(f"{name}: no code for operands of {dtype}")
    return column(lanes, dtype, *operands)


def _on_floats(lanes: Lanes, row: Row, name: str, dtype: str, operands: Sequence[str]) -> str:
    if row.on_float is None:
        raise Unsupported(f"{name}: no code for operands of {dtype}")
    if dtype == "float64":
        return row.on_float(Real(lanes, 64), *operands)
    if not row.wide:
        return row.on_float(Real(lanes, 32), *operands)
    widened = [lanes.convert("fpext", "float", operand, "double") for operand in operands]
    return lanes.convert("fptrunc", "double", row.on_float(Real(lanes, 64), *widened), "float")
