"""Integer arithmetic with NumPy's meaning: it wraps, division by zero gives 0, too wide shifts give 0 or -1."""

from __future__ import annotations

from ..vectors import SIGNED, Lanes, REGISTER, kind_bits


def _compare(lanes: Lanes, dtype: str, predicate: str, a: str, value: int) -> str:
    return lanes.compare(dtype, predicate, a, lanes.constant(dtype, value))


def negative(lanes: Lanes, dtype: str, a: str) -> str:
    return lanes.binary("sub", REGISTER[dtype], lanes.constant(dtype, 0), a)


def absolute(lanes: Lanes, dtype: str, a: str) -> str:
    if dtype not in SIGNED:
        return a
    return lanes.select(dtype, _compare(lanes, dtype, "lt", a, 0), negative(lanes, dtype, a), a)


def sign(lanes: Lanes, dtype: str, a: str) -> str:
    result = lanes.convert("zext", "i1", _compare(lanes, dtype, "gt", a, 0), REGISTER[dtype])
    if dtype not in SIGNED:
        return result
    return lanes.select(dtype, _compare(lanes, dtype, "lt", a, 0), lanes.constant(dtype, -1), result)


def maximum(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    return lanes.intrinsic("smax" if dtype in SIGNED else "umax", REGISTER[dtype], a, b)


def minimum(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    return lanes.intrinsic("smin" if dtype in SIGNED else "umin", REGISTER[dtype], a, b)


def invert(lanes: Lanes, dtype: str, a: str) -> str:
    return lanes.binary("xor", REGISTER[dtype], a, lanes.constant(dtype, -1))


def relu(lanes: Lanes, dtype: str, a: str) -> str:
    return maximum(lanes, dtype, a, lanes.constant(dtype, 0))


def left_shift(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    return _shift(lanes, dtype, "shl", a, b, lanes.constant(dtype, 0))


def right_shift(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    kind = REGISTER[dtype]
    if dtype not in SIGNED:
        return _shift(lanes, dtype, "lshr", a, b, lanes.constant(dtype, 0))
    filled = lanes.binary("ashr", kind, a, lanes.constant(dtype, kind_bits(kind) - 1))
    return _shift(lanes, dtype, "ashr", a, b, filled)


def _shift(lanes: Lanes, dtype: str, instruction: str, a: str, b: str, beyond: str) -> str:
    """Counts outside 0..bits-1 (negative ones too) give `beyond`; LLVM leaves them undefined."""
    kind = REGISTER[dtype]
    width = kind_bits(kind)
    inside = lanes.value(f"icmp ult {lanes.vector(kind)} {b}, {lanes.literal(kind, width)}")
    count = lanes.pick(kind, inside, b, lanes.literal(kind, 0))
    return lanes.pick(kind, inside, lanes.binary(instruction, kind, a, count), beyond)


def floor_divide(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    return _divide(lanes, dtype, a, b)[0]


def mod(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    return _divide(lanes, dtype, a, b)[1]


def _divide(lanes: Lanes, dtype: str, a: str, b: str) -> tuple[str, str]:
    """Quotient rounded down, and remainder with the sign of b; both 0 where b is 0."""
    kind = REGISTER[dtype]
    zero = _compare(lanes, dtype, "eq", b, 0)
    trapping = zero
    if dtype in SIGNED:  # the least number by -1 overflows, which is a trap in hardware
        trapping = lanes.binary("or", "i1", zero, _compare(lanes, dtype, "eq", b, -1))
    quotient = _truncated(lanes, dtype, a, lanes.select(dtype, trapping, lanes.constant(dtype, 1), b))
    if dtype in SIGNED:
        minus_one = _compare(lanes, dtype, "eq", b, -1)
        quotient = lanes.select(dtype, minus_one, negative(lanes, dtype, a), quotient)
    rest = lanes.binary("sub", kind, a, lanes.binary("mul", kind, quotient, b))
    if dtype in SIGNED:
        opposite = _compare(lanes, dtype, "lt", lanes.binary("xor", kind, rest, b), 0)
        moved = lanes.binary("and", "i1", opposite, _compare(lanes, dtype, "ne", rest, 0))
        quotient = lanes.binary("add", kind, quotient, lanes.convert("sext", "i1", moved, kind))
        rest = lanes.binary("add", kind, rest, lanes.select(dtype, moved, b, lanes.constant(dtype, 0)))
    nothing = lanes.constant(dtype, 0)
    return lanes.select(dtype, zero, nothing, quotient), lanes.select(dtype, zero, nothing, rest)


def _truncated(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    """a/b rounded to zero.  Vectors of up to 32 bits divide as floats, which is exact: 2^bits is below 1/epsilon."""
    kind, letter = REGISTER[dtype], "s" if dtype in SIGNED else "u"
    width = kind_bits(kind)
    if lanes.count == 1 or width == 64:
        return lanes.binary(letter + "div", kind, a, b)
    real = "float" if width < 32 else "double"
    x, y = (lanes.convert(letter + "itofp", kind, value, real) for value in (a, b))
    quotient = lanes.convert(f"fpto{letter}i", real, lanes.binary("fdiv", real, x, y), "i32")
    return lanes.convert("trunc", "i32", quotient, kind)


def power(lanes: Lanes, dtype: str, a: str, b: str) -> str:
    """a^b by squaring, wrapping.  A negative b gives 1/a^-b cut towards 0: 0 but for a = 1 and a = -1."""
    kind = REGISTER[dtype]
    vector = lanes.vector(kind)
    signed = not dtype.startswith("uint")
    zero, one = lanes.literal(kind, 0), lanes.literal(kind, 1)
    if signed:
        negative = lanes.value(f"icmp slt {vector} {b}, {zero}")
        b = lanes.pick(kind, negative, lanes.binary("and", kind, b, one), b)  # all that 1 and -1 depend on

    def square(values: list[str]) -> tuple[list[str], str]:
        total, base, exponent = values
        odd = lanes.convert("trunc", kind, exponent, "i1")
        total = lanes.pick(kind, odd, lanes.binary("mul", kind, total, base), total)
        rest = lanes.binary("lshr", kind, exponent, lanes.literal(kind, 1))
        more = lanes.value(f"icmp ne {vector} {rest}, {lanes.literal(kind, 0)}")
        return [total, lanes.binary("mul", kind, base, base), rest], more

    result = lanes.repeat([(vector, one), (vector, a), (vector, b)], square)[0]
    if not signed:
        return result
    unit = lanes.value(f"icmp ult {vector} {lanes.binary('add', kind, a, one)}, {lanes.literal(kind, 3)}")
    cut = lanes.pick(kind, unit, result, zero)  # a = -1, 0, 1: 0 to the power 1 or 0 needs care below
    zero_base = lanes.value(f"icmp eq {vector} {a}, {zero}")
    return lanes.pick(kind, negative, lanes.pick(kind, zero_base, zero, cut), result)
