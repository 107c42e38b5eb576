"""sympy expressions as graphs: one elementwise node per operation, equal subexpressions one node.

Symbols stand for given nodes.  Sums and products are folded in sympy's own order, which is fixed for equal expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
import math
from typing import Any

from ..build import elementwise, scalar
from ..errors import Unsupported
from ..node import Node
from ..types import is_float

Value = Any  # Node, or a Python number


def chain(name: str) -> Callable[..., Value]:
    return lambda *values: reduce(lambda a, b: apply(name, a, b), values)


FOLDED: dict[str, Callable[..., Any]] = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "neg": lambda a: -a}


def apply(name: str, *values: Value) -> Value:
    """The op on nodes; a Python number where all are numbers."""
    if all(isinstance(v, (int, float)) for v in values) and name in FOLDED:
        return FOLDED[name](*values)
    if name == "where" and not any(isinstance(v, Node) for v in values[1:]):  # two numbers would be float64
        values = (values[0], scalar(values[1], compared_dtype(values[0]), values[0].graph), values[2])
    return elementwise(name, *values)


def compared_dtype(condition: Node) -> str:
    """The float dtype of the comparisons that a condition is made of."""
    while not is_float(condition.dtype):
        condition = condition.operands[0]
    return condition.dtype


def unary(name: str) -> Callable[..., Value]:
    return lambda *values: apply(name, *values)


ROOTS = {0.5: "sqrt", -0.5: "rsqrt"}


def power(base: Value, exponent: Value) -> Value:
    """Roots and small integer powers without pow."""
    if isinstance(exponent, (int, float)):
        if exponent == 1:
            return base
        if exponent in (2, -2):
            squared = apply("mul", base, base)
            return squared if exponent == 2 else apply("div", 1.0, squared)
        if exponent in ROOTS:
            return apply(ROOTS[exponent], base)
        if exponent == -1:
            return apply("div", 1.0, base)
    return apply("pow", base, exponent)


def logarithm(x: Value, base: Value = None) -> Value:
    return apply("log", x) if base is None else apply("div", apply("log", x), apply("log", base))


def piecewise(*branches: tuple[Value, Value]) -> Value:
    """Branches in order; the last one whose condition is True, or NaN, is the rest."""
    rest: Value = math.nan
    for value, condition in reversed(branches):
        rest = value if condition is True else rest if condition is False else apply("where", condition, value, rest)
    return rest


def polygamma(order: Value, x: Value) -> Value:
    return apply("digamma", x) if order == 0 else elementwise("polygamma", x, order=int(order))


def heaviside(x: Value, at_zero: Value = 0.5) -> Value:
    return apply("where", apply("gt", x, 0.0), 1.0, apply("where", apply("eq", x, 0.0), at_zero, 0.0))


FORMS: dict[str, Callable[..., Value]] = {
    "Add": chain("add"), "Mul": chain("mul"), "Pow": power, "exp": unary("exp"), "log": logarithm, "Abs": unary("abs"),
    "sign": unary("sign"), "floor": unary("floor"), "ceiling": unary("ceil"), "Max": chain("maximum"),
    "Min": chain("minimum"), "Mod": unary("mod"), "sin": unary("sin"), "cos": unary("cos"), "tan": unary("tan"),
    "cot": lambda x: apply("div", 1.0, apply("tan", x)), "sec": lambda x: apply("div", 1.0, apply("cos", x)),
    "csc": lambda x: apply("div", 1.0, apply("sin", x)), "asin": unary("asin"), "acos": unary("acos"),
    "atan": unary("atan"), "atan2": unary("atan2"), "sinh": unary("sinh"), "cosh": unary("cosh"), "tanh": unary("tanh"),
    "asinh": unary("asinh"), "acosh": unary("acosh"), "atanh": unary("atanh"), "erf": unary("erf"),
    "erfc": unary("erfc"), "loggamma": unary("lgamma"), "digamma": unary("digamma"), "polygamma": polygamma,
    "gamma": lambda x: apply("exp", apply("lgamma", x)), "Heaviside": heaviside, "Piecewise": piecewise,
    "ExprCondPair": lambda value, condition: (value, condition), "Equality": unary("eq"), "Unequality": unary("ne"),
    "StrictLessThan": unary("lt"), "LessThan": unary("le"), "StrictGreaterThan": unary("gt"),
    "GreaterThan": unary("ge"), "And": chain("bitwise_and"), "Or": chain("bitwise_or"), "Not": unary("bitwise_not"),
    "Xor": chain("bitwise_xor"),
    "DiracDelta": lambda x, *order: 0.0,  # of measure zero: the derivative of a step, as everywhere in the op table
}


def nodes_of(expression: Any, symbols: Mapping[Any, Value]) -> Value:
    """The node that a sympy expression stands for; a Python number if it is one."""
    import sympy
    values: dict[Any, Value] = dict(symbols)
    for part in sympy.postorder_traversal(sympy.sympify(expression)):
        if part not in values:
            values[part] = node_of_part(sympy, part, values)
    return values[sympy.sympify(expression)]


def node_of_part(sympy: Any, part: Any, values: Mapping[Any, Value]) -> Value:
    if part in (sympy.true, sympy.false):
        return bool(part)
    if part.is_Symbol:
        known = ", ".join(sorted(map(str, values)))
        raise KeyError(f"symbol {part} has no node; given are {known}")
    if not part.args:
        return int(part) if part.is_Integer else float(part)
    if part.is_Rational or (part.is_number and part.is_real and not part.has(sympy.Piecewise)):
        return float(part)
    name = part.func.__name__
    if name not in FORMS:
        raise Unsupported(f"from_sympy: {name} in {part} has no op; there are {', '.join(sorted(FORMS))}")
    return FORMS[name](*(values[argument] for argument in part.args))
