"""Conversion between any two dtypes with NumPy's meaning where it has one.

Floats outside an integer's range saturate and NaN becomes 0, where NumPy leaves it to the machine.  A cast to float16
or bfloat16 rounds at once, although the register keeps 32 bits.
"""

from __future__ import annotations

from ..vectors import FLOATS, REGISTER, SIGNED, Lanes

SHORT = ("float16", "bfloat16")


def cast(lanes: Lanes, source: str, value: str, destination: str) -> str:
    if source == destination:
        return value
    if destination == "bool":
        return lanes.compare(source, "ne", value, lanes.constant(source, 0))
    if destination in FLOATS:
        return _to_float(lanes, source, value, destination)
    kind = REGISTER[destination]
    if source in FLOATS:
        letter = "s" if destination in SIGNED else "u"
        name = f"llvm.fpto{letter}i.sat.{lanes.mangled(kind)}.{lanes.mangled(REGISTER[source])}"
        return lanes.function.call(lanes.vector(kind), name, (lanes.type(source), value))
    return _resize(lanes, source, value, kind)


def _resize(lanes: Lanes, source: str, value: str, kind: str) -> str:
    before, after = int(REGISTER[source][1:]), int(kind[1:])
    if before > after:
        return lanes.convert("trunc", REGISTER[source], value, kind)
    return lanes.convert("sext" if source in SIGNED else "zext", REGISTER[source], value, kind)


def _to_float(lanes: Lanes, source: str, value: str, destination: str) -> str:
    if source == "float64":
        if destination == "float32":
            return lanes.convert("fptrunc", "double", value, "float")
        value = _narrow_to_odd(lanes, value)
    elif source not in FLOATS:
        letter = "s" if source in SIGNED else "u"
        value = lanes.convert(letter + "itofp", REGISTER[source], value, REGISTER[destination])
    elif destination == "float64":
        return lanes.convert("fpext", "float", value, "double")
    if destination in SHORT and source != destination:
        return round_to(lanes, destination, value)
    return value


def round_to(lanes: Lanes, dtype: str, value: str) -> str:
    """A float rounded to float16 or bfloat16."""
    return lanes.load_convert(dtype, lanes.store_convert(dtype, value))


def _narrow_to_odd(lanes: Lanes, value: str) -> str:
    """A double as a float whose last bit is set when it is not exact, so that rounding it once more is right."""
    near = lanes.convert("fptrunc", "double", value, "float")
    back = lanes.convert("fpext", "float", near, "double")
    bits = lanes.convert("bitcast", "float", near, "i32")
    vector = lanes.vector("double")
    sizes = [lanes.intrinsic("fabs", "double", x) for x in (back, value)]
    beyond = lanes.value(f"fcmp ogt {vector} {sizes[0]}, {sizes[1]}")
    toward_zero = lanes.binary("add", "i32", bits, lanes.convert("sext", "i1", beyond, "i32"))
    inexact = lanes.value(f"fcmp one {vector} {back}, {value}")
    odd = lanes.binary("or", "i32", toward_zero, lanes.convert("zext", "i1", inexact, "i32"))
    return lanes.convert("bitcast", "i32", odd, "float")
