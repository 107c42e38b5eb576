"""Instructions of AVX-512 that shorten the vector functions, on values of any number of lanes.

    exponent, significand   x = significand 2^exponent, subnormal numbers too; infinities and 0 have such an exponent
    scale                   a 2^floor(n), rounded once
    fraction                x less a multiple of a power of two
    lookup                  16 doubles or 32 floats by the low bits of an index: two registers are the table
    reciprocal, inverse_root   estimates of 14 bits

A value that fills no register is padded to one; a longer one is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..text import float_literal
from ..vectors import Lanes

FULL = 512
NEAREST = ("i32", 4)  # rounding as the mode says
FROM_ONE, AROUND_ONE = 0, 3  # significands in [1, 2) and in [3/4, 3/2)
WITHOUT_SIGN, NAN_IF_NEGATIVE = 4, 8  # what a significand does with the sign

Argument = tuple[str, str | int]
Write = Callable[..., str]  # (vector type, bits of a register, pieces of the operands...) -> piece of the result


def in_registers(lanes: Lanes, kinds: Sequence[str], result: str, operands: Sequence[str], write: Write,
                 least: int = 128) -> str:
    """`write` on operands of these kinds, each in registers of `least` to 512 bits; all kinds have one width."""
    bits = 64 if result in ("double", "i64") else 32
    width = min(max(lanes.count * bits, least), FULL)
    count = width // bits
    if lanes.count > count:
        pieces = lanes.count // count
        cut = [lanes.parts(kind, operand, pieces) for kind, operand in zip(kinds, operands, strict=True)]
        return lanes.join(result, [write(width, *piece) for piece in zip(*cut, strict=True)])
    if lanes.count == count:
        return write(width, *operands)
    padded = [_pad(lanes, kind, operand, count) for kind, operand in zip(kinds, operands, strict=True)]
    return _narrow(lanes, result, write(width, *padded), count)


def _pad(lanes: Lanes, kind: str, operand: str, count: int) -> str:
    if lanes.count == 1:
        return lanes.value(f"insertelement <{count} x {kind}> poison, {kind} {operand}, i64 0")
    places = ", ".join(f"i32 {i}" if i < lanes.count else "i32 poison" for i in range(count))
    vector = lanes.vector(kind)
    return lanes.value(f"shufflevector {vector} {operand}, {vector} poison, <{count} x i32> <{places}>")


def _narrow(lanes: Lanes, kind: str, value: str, count: int) -> str:
    if lanes.count == 1:
        return lanes.value(f"extractelement <{count} x {kind}> {value}, i64 0")
    places = ", ".join(f"i32 {i}" for i in range(lanes.count))
    vector = f"<{count} x {kind}>"
    return lanes.value(f"shufflevector {vector} {value}, {vector} poison, <{lanes.count} x i32> <{places}>")


def _masked(lanes: Lanes, kind: str, name: str, operands: Sequence[str], *, control: int | None = None,
            rounds: bool = True) -> str:
    """An instruction of the form (operands, [control], value where the mask is off, mask, [rounding])."""
    letter, bits = ("d", 64) if kind == "double" else ("s", 32)

    def write(width: int, *pieces: str) -> str:
        vector, count = f"<{width // bits} x {kind}>", width // bits
        arguments: list[Argument] = [(vector, piece) for piece in pieces]
        if control is not None:
            arguments.append(("i32", control))
        arguments += [(vector, "zeroinitializer"), (f"i{max(count, 8)}", -1)]
        if rounds and width == FULL:
            arguments.append(NEAREST)
        return lanes.function.call(vector, f"llvm.x86.avx512.{name}.p{letter}.{width}", *arguments)
    return in_registers(lanes, [kind] * len(operands), kind, operands, write)


def exponent(lanes: Lanes, kind: str, x: str) -> str:
    """floor(log2 |x|) as a float: -inf of 0, inf of infinities."""
    return _masked(lanes, kind, "mask.getexp", [x])


def significand(lanes: Lanes, kind: str, x: str, interval: int, sign: int) -> str:
    """In the interval, and 1 of 0 and of infinity; `sign` says what becomes of negative numbers."""
    return _masked(lanes, kind, "mask.getmant", [x], control=interval | sign)


def fraction(lanes: Lanes, kind: str, x: str, places: int) -> str:
    """x less the nearest multiple of 2^-places; 0 of infinities."""
    return _masked(lanes, kind, "mask.reduce", [x], control=places << 4)


def scale(lanes: Lanes, kind: str, a: str, n: str) -> str:
    return _masked(lanes, kind, "mask.scalef", [a, n])


def reciprocal(lanes: Lanes, kind: str, x: str) -> str:
    return _masked(lanes, kind, "rcp14", [x], rounds=False)


def inverse_root(lanes: Lanes, kind: str, x: str) -> str:
    return _masked(lanes, kind, "rsqrt14", [x], rounds=False)


def lookup(lanes: Lanes, kind: str, table: Sequence[float], index: str) -> str:
    """Element `index` modulo its length of a table of 16 doubles or 32 floats."""
    bits = 64 if kind == "double" else 32
    half, letter, integer = FULL // bits, "d" if bits == 64 else "s", f"i{bits}"
    vector = f"<{half} x {kind}>"
    low, high = ("<" + ", ".join(f"{kind} {float_literal(v, bits)}" for v in part) + ">"
                 for part in (table[:half], table[half:]))

    def write(width: int, places: str) -> str:
        return lanes.function.call(vector, f"llvm.x86.avx512.vpermi2var.p{letter}.512", (vector, low),
                                   (f"<{half} x {integer}>", places), (vector, high))
    return in_registers(lanes, [integer], kind, [index], write, least=FULL)
