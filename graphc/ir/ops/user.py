"""The elementwise op that users make: a traced scalar expression, stored as data, so that a saved graph needs no code.

    expression   ((name, places, parameter), ..)   in SSA order: places 0 .. arity-1 are the operands, then each entry
    names        elementwise ops of the table, and "const" with the number as parameter

All operands and constants are of one float dtype; inside, comparisons give bool.  The last entry is the result.  The
reference interprets the entries; partials are the derivatives that sympy finds, turned back into nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..build import elementwise, full_like
from ..errors import DTypeError, GraphError
from ..node import OPS, Attrs, Need, Node
from ..types import Type, as_dtype
from .declare import Array, declare
from .elementwise import all_float, common_shape, type_rule
from .symbolic import nodes_of

Entry = tuple[str, tuple[int, ...], Any]
MOST_OPERANDS = 16


def user_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    expression, arity = attrs["expression"], attrs["arity"]
    if len(types) != arity or not 1 <= arity <= MOST_OPERANDS:
        raise DTypeError(f"{attrs['name']}: has {arity} operands of 1 to {MOST_OPERANDS}, got {len(types)}")
    check_expression(expression, arity)
    type_rule(all_float)(need, types, attrs)
    dtype = dtypes_of(expression, (types[0].dtype,) * arity)[-1]
    return Type(dtype, common_shape(need, types))


def check_expression(expression: tuple[Entry, ...], arity: int) -> None:
    """That entries name elementwise ops and read only what comes before."""
    if not expression:
        raise GraphError("an expression needs an entry")
    for k, (name, places, _) in enumerate(expression):
        if name != "const" and (name not in OPS or OPS[name].kind != "elementwise" or name in ("user", "cast")):
            raise GraphError(f"{name!r} is not an elementwise op that an expression may use")
        if any(not 0 <= place < arity + k for place in places):
            raise GraphError(f"entry {k} {name!r} reads places {places} beyond its own")


def dtypes_of(expression: tuple[Entry, ...], operands: tuple[str, ...]) -> list[str]:
    """dtype of every place: the operands, then each entry."""
    found = list(operands)
    for name, places, parameter in expression:
        if name == "const":
            found.append("bool" if isinstance(parameter, bool) else operands[0])
            continue
        given = tuple(found[place] for place in places)
        rule = OPS[name].rule
        assert rule is not None
        try:
            wanted, result = rule(given)
        except TypeError as fault:
            raise DTypeError(f"{name} of {', '.join(given)}: {fault}") from None
        if wanted != given:
            raise DTypeError(f"{name} needs {', '.join(wanted)}, got {', '.join(given)}")
        found.append(result)
    return found


def attrs_of(name: str, parameter: Any) -> dict[str, Any]:
    return {"order": parameter} if name == "polygamma" else {}


def user_values(attrs: Attrs, type: Type, *operands: Array) -> Array:
    expression = attrs["expression"]
    dtype = type.dtype if type.dtype != "bool" else operands[0].dtype.name
    dtypes = dtypes_of(expression, (dtype,) * len(operands))
    values: list[Array] = list(operands)
    for (name, places, parameter), kind in zip(expression, dtypes[len(operands):]):
        if name == "const":
            values.append(as_dtype(parameter, kind))
        else:
            row = OPS[name]
            values.append(row.reference(attrs_of(name, parameter), Type(kind, ()), *(values[p] for p in places)))
    return np.broadcast_to(values[-1], operands[0].shape)


# -- derivatives --
def number(sympy: Any, parameter: Any) -> Any:
    """A constant of the expression, whole numbers exactly."""
    if isinstance(parameter, bool):
        return sympy.true if parameter else sympy.false
    return sympy.Integer(int(parameter)) if float(parameter).is_integer() else sympy.Float(parameter, 17)


def to_sympy(expression: tuple[Entry, ...], operands: tuple[Any, ...]) -> Any:
    """The expression of sympy expressions."""
    import sympy
    values = list(operands)
    for name, places, parameter in expression:
        if name == "const":
            values.append(number(sympy, parameter))
        else:
            form = OPS[name].sympy
            assert form is not None, name
            values.append(form(*(values[p] for p in places), **attrs_of(name, parameter)))
    return values[-1]


@lru_cache(256)
def derivative(expression: tuple[Entry, ...], arity: int, k: int) -> tuple[Any, tuple[Any, ...]]:
    """The partial by operand k as a sympy expression, and its symbols."""
    import sympy
    symbols = tuple(sympy.Symbol(f"x{i}", real=True) for i in range(arity))
    return sympy.diff(to_sympy(expression, symbols), symbols[k]), symbols


def user_partial(k: int, y: Node, *operands: Node) -> Node:
    found, symbols = derivative(y.attrs["expression"], y.attrs["arity"], k)
    node = nodes_of(found, dict(zip(symbols, operands)))
    return node if isinstance(node, Node) else full_like(y, node)


PARTIALS: tuple[Callable[..., Node], ...] = tuple(partial(user_partial, k) for k in range(MOST_OPERANDS))


def user_sympy(*operands: Any, name: str, expression: tuple[Entry, ...], arity: int) -> Any:
    return to_sympy(expression, operands)


declare("user", "elementwise", user_type, user_values, partials=PARTIALS, rule=all_float, sympy=user_sympy,
        doc="an expression traced by gc.elementwise")


# -- tracing --
class Recorded:
    """A place of the expression that is being recorded; has the arithmetic operators."""

    __slots__ = ("place", "recorder")

    def __init__(self, recorder: Recorder, place: int) -> None:
        self.recorder, self.place = recorder, place

    def __bool__(self) -> bool:
        raise GraphError("a traced value has no truth before run time; use m.where(condition, a, b)")


class Recorder:
    """What a traced function gets as `m`: a method per elementwise op, each of which adds an entry."""

    def __init__(self, arity: int) -> None:
        self.arity = arity
        self.entries: list[Entry] = []
        self.place_of: dict[tuple[Any, ...], int] = {}

    def add_entry(self, name: str, places: tuple[int, ...], parameter: Any = None) -> Recorded:
        entry = (name, places, parameter)
        key = (name, places, repr(parameter))  # 0.0 and -0.0 are different constants
        if key not in self.place_of:
            self.place_of[key] = self.arity + len(self.entries)
            self.entries.append(entry)
        return Recorded(self, self.place_of[key])

    def place(self, value: Any) -> int:
        if isinstance(value, Recorded):
            return value.place
        if not isinstance(value, (int, float, bool)):
            raise GraphError(f"an elementwise function works on its operands and Python numbers, got {value!r:.60}")
        return self.add_entry("const", (), value if isinstance(value, bool) else float(value)).place

    def __getattr__(self, name: str) -> Callable[..., Recorded]:
        name = ALIASES.get(name, name)
        if name not in OPS or OPS[name].kind != "elementwise" or name in ("user", "cast", "stop_gradient"):
            raise AttributeError(f"no elementwise op {name!r}; there are "
                                 f"{', '.join(sorted(n for n, op in OPS.items() if op.kind == 'elementwise'))}")

        def record(*operands: Any, order: int | None = None) -> Recorded:
            return self.add_entry(name, tuple(self.place(o) for o in operands), order)
        return record


ALIASES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh",
           "arccosh": "acosh", "arctanh": "atanh", "absolute": "abs", "divide": "div", "multiply": "mul",
           "subtract": "sub", "negative": "neg", "power": "pow", "less": "lt", "greater": "gt", "less_equal": "le",
           "greater_equal": "ge", "equal": "eq", "not_equal": "ne"}
OPERATORS = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "mod",
             "pow": "pow", "and": "bitwise_and", "or": "bitwise_or"}
COMPARISONS = ("lt", "le", "gt", "ge")


def _method(name: str, *, reflected: bool = False) -> Callable[..., Recorded]:
    def method(self: Recorded, *other: Any) -> Recorded:
        operands = (*other, self) if reflected else (self, *other)
        found: Recorded = getattr(self.recorder, name)(*operands)
        return found
    return method


for _name, _op in OPERATORS.items():
    setattr(Recorded, f"__{_name}__", _method(_op))
    setattr(Recorded, f"__r{_name}__", _method(_op, reflected=True))
for _name in COMPARISONS:
    setattr(Recorded, f"__{_name}__", _method(_name))
for _name, _op in {"neg": "neg", "abs": "abs", "invert": "bitwise_not"}.items():
    setattr(Recorded, f"__{_name}__", _method(_op))


def trace(function: Callable[..., Any], arity: int) -> tuple[Entry, ...]:
    """The expression that `function(m, *operands)` computes."""
    recorder = Recorder(arity)
    result = function(recorder, *(Recorded(recorder, k) for k in range(arity)))
    last = recorder.place(result)
    if last != arity + len(recorder.entries) - 1:  # the result comes last: an operand itself, or an earlier entry
        recorder.entries.append(("copysign", (last, last), None))
    return tuple(recorder.entries)


def call(name: str, expression: tuple[Entry, ...], operands: tuple[Any, ...]) -> Node:
    """The user's op on these operands, which are promoted and broadcast like those of any elementwise op."""
    return elementwise("user", *operands, name=name, expression=expression, arity=len(operands))
