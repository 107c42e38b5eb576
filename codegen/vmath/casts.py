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
        return _to_integer(lanes, REGISTER[source], value, destination)
    return _resize(lanes, source, value, kind)


def _to_integer(lanes: Lanes, real: str, value: str, destination: str) -> str:
    """Converts what fits, 0 elsewhere, and puts the nearest integer where it does not; up to 32 bits by way of 32."""
    kind, signed = REGISTER[destination], destination in SIGNED
    bits, vector = int(kind[1:]), lanes.vector(real)
    if bits < (24 if real == "float" else 53):
        return _clamped(lanes, real, value, destination)
    least, beyond = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1)) if signed else (0.0, 2.0**bits)
    big = lanes.value(f"fcmp oge {vector} {value}, {lanes.literal(real, beyond)}")
    fits = lanes.value(f"fcmp ogt {vector} {value}, {lanes.literal(real, least)}")
    inside = lanes.pick(real, big, lanes.literal(real, 0.0), value)
    inside = lanes.pick(real, fits, inside, lanes.literal(real, 0.0))
    middle = kind if bits > 32 else "i32"
    number = lanes.convert("fptosi" if signed or bits < 32 else "fptoui", real, inside, middle)
    number = lanes.convert("trunc", middle, number, kind)
    number = lanes.pick(kind, big, lanes.literal(kind, int(beyond) - 1), number)
    if not signed:
        return number
    small = lanes.value(f"fcmp ole {vector} {value}, {lanes.literal(real, least)}")
    return lanes.pick(kind, small, lanes.literal(kind, int(least)), number)


def _clamped(lanes: Lanes, real: str, value: str, destination: str) -> str:
    """To integers that are floats too: the float is cut off at the least and the greatest."""
    kind, signed = REGISTER[destination], destination in SIGNED
    bits, vector = int(kind[1:]), lanes.vector(real)
    least, most = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    for predicate, bound in (("olt", least), ("ogt", most)):
        beyond = lanes.value(f"fcmp {predicate} {vector} {value}, {lanes.literal(real, bound)}")
        value = lanes.pick(real, beyond, lanes.literal(real, bound), value)
    number = lanes.value(f"fcmp ord {vector} {value}, {value}")
    middle = "i32" if signed or bits < 32 else "i64"
    value = lanes.pick(real, number, value, lanes.literal(real, 0.0))
    return lanes.convert("trunc", middle, lanes.convert("fptosi", real, value, middle), kind)


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
