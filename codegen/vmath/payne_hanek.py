"""Reduction of large doubles by pi/2, after Payne and Hanek: x * 2/pi with only those digits of 2/pi that matter.

x = M 2^e with M a whole number of 53 bits.  The first e - 2 binary digits of 2/pi contribute multiples of 4 to
x * 2/pi and are skipped; the 192 digits after them give the quadrant and at least 137 bits of the fraction, and no
double comes closer than 2^-62 to a multiple of pi/2.

The code runs hardly ever: it is one scalar function of a module, which lanes call one after the other.
"""

from __future__ import annotations

from ..text import Function
from ..vectors import Lanes
from .real import Pair, Real

# The binary digits of 2/pi after the point, 32 at a time.
DIGITS = (
    2734261102, 1313084713, 4230436817, 4113882560, 3680671129, 1011060801, 4266746795, 3736847713, 3072618042,
    1112396512, 105459434, 164729372, 4263373596, 2972297022, 3900847605, 784024708, 3919343654, 3026157121,
    965858873, 2203269620, 2625920907, 3187222587, 536385535, 3724908559, 4012839307, 1510632735, 1832287951,
    667617719, 1330003814, 2657085997, 1965537991, 3957715323, 1023883767, 2320667370, 1811636145, 529358088,
    1443049542, 4235946923, 4040145952, 2599695901,
)
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
TABLE = "two_over_pi"
ONE = "reduce_large"
RESULT = "{ i64, double, double }"  # the quadrant, and the rest as a pair


def reduce_large(m: Real, x: str) -> tuple[str, Pair]:
    """Quadrant (low two bits) and rest of numbers of at least 1; what comes for infinity and NaN is arbitrary."""
    lanes, name = m.lanes, f"{ONE}_{m.bits}_{m.lanes.count}"
    kinds = [lanes.vector(m.integer), lanes.vector(m.kind), lanes.vector(m.kind)]
    result = f"{{ {', '.join(kinds)} }}"
    if name not in lanes.function.module.functions:
        _add_lanes(m, name, result, kinds)
    made = lanes.value(f"call {result} @{name}({lanes.vector(m.kind)} {x})")
    quadrant, high, low = (lanes.value(f"extractvalue {result} {made}, {k}") for k in range(3))
    return quadrant, Pair(high, low)


def _add_lanes(m: Real, name: str, result: str, kinds: list[str]) -> None:
    """The function of a vector: a loop over its lanes."""
    module, count = m.lanes.function.module, m.lanes.count
    if ONE not in module.functions:
        _add_one(Lanes(Function(module, f"define internal {RESULT} @{ONE}(double %x) #0"), m.lanes.target, 1))
    function = Function(module, f"define internal {result} @{name}({kinds[1]} %x) #0")
    given, *rooms = [function.value(f"alloca {kind}, align 64") for kind in (kinds[1], *kinds)]
    function.emit(f"store {kinds[1]} %x, ptr {given}, align 64")
    one = Real(Lanes(function, m.lanes.target, 1), m.bits)

    def lane(index: str | int, _: list[str]) -> list[str]:
        x = function.value(f"load {m.kind}, ptr {function.element(m.kind, given, index)}, align {m.bits // 8}")
        made = function.value(f"call {RESULT} @{ONE}(double {one.lanes.convert('fpext', m.kind, x, 'double')})")
        quadrant, high, low = (function.value(f"extractvalue {RESULT} {made}, {k}") for k in range(3))
        rest = Pair(high, low) if m.bits == 64 else narrowed(one, Pair(high, low))
        values = one.lanes.convert("trunc", "i64", quadrant, m.integer), *rest
        for kind, room, value in zip((m.integer, m.kind, m.kind), rooms, values):
            function.emit(f"store {kind} {value}, ptr {function.element(kind, room, index)}, align {m.bits // 8}")
        return []
    function.loop(0, count, 1, [], lane)
    whole = "poison"
    for k, (kind, room) in enumerate(zip(kinds, rooms)):
        value = function.value(f"load {kind}, ptr {room}, align 64")
        whole = function.value(f"insertvalue {result} {whole}, {kind} {value}, {k}")
    function.emit(f"ret {result} {whole}")
    module.add(name, function.text())


def narrowed(m: Real, rest: Pair) -> Pair:
    """A pair of doubles as one of floats."""
    high = m.lanes.convert("fptrunc", "double", rest.high, "float")
    lost = Real(m.lanes, 64).sub(rest.high, m.lanes.convert("fpext", "float", high, "double"))
    return Pair(high, m.lanes.convert("fptrunc", "double", lost, "float"))


def _add_one(lanes: Lanes) -> None:
    """The function of one double."""
    function, m = lanes.function, Real(lanes, 64)
    bits = m.to_bits(m.abs("%x"))
    skipped = m.bit("sub", m.bit("lshr", bits, 52), 1023 + 52 + 2)  # negative ones are zeros before the first digit
    factor = m.bit("or", m.bit("and", bits, (1 << 52) - 1), 1 << 52)
    top, middle = _multiplied(m, factor, _window(m, skipped))
    quadrant, rest = _quadrant_and_rest(m, "%x", top, middle)
    whole = "poison"
    for k, (kind, value) in enumerate((("i64", quadrant), ("double", rest.high), ("double", rest.low))):
        whole = function.value(f"insertvalue {RESULT} {whole}, {kind} {value}, {k}")
    function.emit(f"ret {RESULT} {whole}")
    function.module.add(ONE, function.text())


def _window(m: Real, skipped: str) -> list[str]:
    """192 digits of 2/pi after `skipped` ones, 64 at a time; 64 zeros stand before the first."""
    pairs = [high << 32 | low for high, low in zip(DIGITS[::2], DIGITS[1::2], strict=True)]
    table = ", ".join(f"i64 {word}" for word in (0, *pairs, 0))
    function = m.lanes.function
    function.module.add_global(
        TABLE, f"@{TABLE} = internal unnamed_addr constant [{len(pairs) + 2} x i64] [{table}]")
    place = m.bit("add", skipped, 64)
    first, shift = m.bit("lshr", place, 6), m.bit("and", place, 63)
    words = []
    for k in range(4):
        address = function.element("i64", f"@{TABLE}", m.bit("add", first, k))
        words.append(function.value(f"load i64, ptr {address}, align 8"))
    return [m.lanes.intrinsic("fshl", "i64", high, low, shift) for high, low in zip(words[:-1], words[1:])]


def _multiplied(m: Real, factor: str, window: list[str]) -> tuple[str, str]:
    """The upper 128 bits of factor * window modulo 2^192."""
    def wide(value: str) -> str:
        return m.lanes.convert("zext", "i64", value, "i128")

    def upper(value: str) -> str:
        return m.lanes.binary("lshr", "i128", value, "64")
    a = wide(factor)
    low = m.lanes.binary("mul", "i128", a, wide(window[2]))
    middle = m.lanes.binary("add", "i128", m.lanes.binary("mul", "i128", a, wide(window[1])), upper(low))
    carried = m.lanes.convert("trunc", "i128", upper(middle), "i64")
    return (m.bit("add", m.bit("mul", factor, window[0]), carried),
            m.lanes.convert("trunc", "i128", middle, "i64"))


def _quadrant_and_rest(m: Real, x: str, top: str, middle: str) -> tuple[str, Pair]:
    """The top two bits are the quadrant; the fraction after them is rounded to the nearest quadrant and made a pair."""
    rounded = m.bit("add", top, 1 << 61)
    quadrant = m.bit("lshr", rounded, 62)
    # The fraction as a signed number of 62 bits in the top word, in units of 2^-62; the middle word adds 2^-126 each.
    signed = m.bit("sub", m.bit("and", rounded, (1 << 62) - 1), 1 << 61)
    lanes = m.lanes
    head = lanes.convert("sitofp", "i64", m.bit("and", signed, -(1 << 32)), "double")
    tail = lanes.convert("sitofp", "i64", m.bit("and", signed, 0xFFFFFFFF), "double")
    last = m.mul(lanes.convert("uitofp", "i64", middle, "double"), 2.0**-64)
    number = m.two_sum(head, tail)
    number = m.fast_two_sum(number.high, m.add(number.low, last))
    scaled = Pair(m.mul(number.high, 2.0**-62), m.mul(number.low, 2.0**-62))
    rest = m.pair_product(scaled, m.pair_constant(*HALF_PI))
    negative = m.bit_compare("slt", m.to_bits(x), 0)
    high, low = (m.select(negative, m.neg(part), part) for part in rest)
    return m.bit_select(negative, m.bit("sub", 0, quadrant), quadrant), Pair(high, low)
