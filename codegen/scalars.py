"""The emission table of the elementwise ops: a row says which functions write an op.

A row has a column per class of operand dtype; an empty column means that NumPy has no such op there.  `add` on bools
is `or`, `multiply` is `and`, as NumPy has them.  Single and half precision go through a function's float form, or in
double where the row says `wide`.  Accuracy is stated in docs/vector_math.md, what an op costs in graphc/ir/costs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.ir.errors import Unsupported

from .vectors import FLOATS, REGISTER, Lanes, check_dtype
from .vmath import basic, error_function, exponential, gamma, hyperbolic, integers, logarithm, power, trig
from .vmath.casts import cast
from .vmath.real import Real

OnFloat = Callable[..., str]  # (Real, operands...) -> value
OnInteger = Callable[..., str]  # (Lanes, dtype, operands...) -> value


class Row(NamedTuple):
    """What writes the op, by class of operands."""

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
    return Row(on_float, on_any, on_any)


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
    "add": Row(Real.add, instruction("add"), OR),
    "sub": Row(Real.sub, instruction("sub")),
    "mul": Row(Real.mul, instruction("mul"), AND),
    "div": Row(Real.div),
    "fma": Row(Real.fma, multiply_add),
    "neg": Row(Real.neg, integers.negative),
    "abs": Row(Real.abs, integers.absolute, itself),
    "sign": Row(basic.sign, integers.sign),
    "pow": Row(power.pow, integers.power),
    "mod": Row(basic.mod, integers.mod, wide=True),
    "floor_divide": Row(basic.floor_divide, integers.floor_divide, wide=True),
    "maximum": Row(intrinsic("maximum"), integers.maximum, OR),
    "minimum": Row(intrinsic("minimum"), integers.minimum, AND),
    "copysign": Row(Real.copysign),
    "hypot": Row(basic.hypot),
    "atan2": Row(trig.atan2),
    "relu": Row(basic.relu, integers.relu, itself),
    "identity": Row(lambda m, a: a, itself, itself),
    # -- comparison and bits --
    **{name: comparison(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "bitwise_and": Row(None, AND, AND),
    "bitwise_or": Row(None, OR, OR),
    "bitwise_xor": Row(None, XOR, XOR),
    "bitwise_not": Row(None, integers.invert, logical_not),
    "left_shift": Row(None, integers.left_shift),
    "right_shift": Row(None, integers.right_shift),
    "isnan": Row(Real.is_nan, always(False), always(False)),
    "isinf": Row(basic.is_infinite, always(False), always(False)),
    "isfinite": Row(basic.is_finite, always(True), always(True)),
    # -- rounding --
    "floor": Row(intrinsic("floor"), itself, itself),
    "ceil": Row(intrinsic("ceil"), itself, itself),
    "trunc": Row(intrinsic("trunc"), itself, itself),
    "round": Row(Real.round_even, itself, itself),
    # -- exponentials, logarithms, roots --
    "sqrt": Row(Real.sqrt),
    "rsqrt": Row(basic.rsqrt),
    "cbrt": Row(hyperbolic.cbrt),
    "exp": Row(exponential.exp),
    "exp2": Row(exponential.exp2),
    "expm1": Row(exponential.expm1),
    "log": Row(logarithm.log),
    "log2": Row(logarithm.log2),
    "log10": Row(logarithm.log10),
    "log1p": Row(logarithm.log1p),
    "sigmoid": Row(exponential.sigmoid),
    "softplus": Row(logarithm.softplus),
    # -- trigonometric and hyperbolic --
    "sin": Row(trig.sin),
    "cos": Row(trig.cos),
    "tan": Row(trig.tan),
    "asin": Row(trig.asin),
    "acos": Row(trig.acos),
    "atan": Row(trig.atan),
    "sinh": Row(hyperbolic.sinh),
    "cosh": Row(hyperbolic.cosh),
    "tanh": Row(hyperbolic.tanh),
    "asinh": Row(hyperbolic.asinh),
    "acosh": Row(hyperbolic.acosh),
    "atanh": Row(hyperbolic.atanh),
    # -- special functions --
    "erf": Row(error_function.erf),
    "erfc": Row(error_function.erfc),
    "lgamma": Row(gamma.lgamma, wide=True),
    "digamma": Row(gamma.digamma, wide=True),
}


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
        return _on_floats(lanes, Row(lambda m, x: gamma.polygamma(m, x, param), wide=True), name, dtype, operands)
    if name not in ROWS:
        raise Unsupported(f"{name}: code generation has no elementwise op of that name")
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
