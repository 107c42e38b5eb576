"""Reduction of large doubles by pi/2, after Payne and Hanek: x * 2/pi with only those digits of 2/pi that matter.

x = M 2^e with M a whole number of 53 bits.  The first e - 2 binary digits of 2/pi contribute multiples of 4 to
x * 2/pi and are skipped; the 192 digits after them give the quadrant and at least 137 bits of the fraction, and no
double comes closer than 2^-62 to a multiple of pi/2.
"""

from __future__ import annotations

from .real import Pair, Real

# The binary digits of 2/pi after the point, 32 at a time.
DIGITS = (
    2734261102, 1313084713, 4230436817, 4113882560, 3680671129, 1011060801, 4266746795, 3736847713, 3072618042,
    1112396512, 105459434, 164729372, 4263373596, 2972297022, 3900847605, 784024708, 3919343654, 3026157121,
    965858873, 2203269620, 2625920907, 3187222587, 536385535, 3724908559, 4012839307, 1510632735, 1832287951,
    667617719, 1330003814, 2657085997, 1965537991, 3957715323, 1023883767, 2320667370, 1811636145, 529358088,
    1443049542, 4235946923, 4040145952, 2599695901,
)
WORDS = 6  # of 32 bits in the window
LOW_WORD = 0xFFFFFFFF
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
TABLE = "two_over_pi"


def reduce_large(m: Real, x: str) -> tuple[str, Pair]:
    """Quadrant (low two bits) and rest of doubles of at least 1; what comes for infinity and NaN is arbitrary."""
    bits = m.to_bits(m.abs(x))
    exponent = m.bit("sub", m.bit("lshr", bits, 52), 1023)
    fraction = m.bit("or", m.bit("and", bits, (1 << 52) - 1), 1 << 52)
    skipped = m.bit("sub", exponent, 52 + 2)  # negative ones are zeros before the first digit
    window = _window(m, skipped)
    product = _multiply(m, fraction, window)
    return _quadrant_and_rest(m, x, product)


def _window(m: Real, skipped: str) -> list[str]:
    """WORDS words of 32 bits of 2/pi, first the most significant, starting after `skipped` digits."""
    table = "[{} x i32] [{}]".format(len(DIGITS) + 4, ", ".join(f"i32 {d}" for d in (0, 0, *DIGITS, 0, 0)))
    m.lanes.function.module.add_global(TABLE, f"@{TABLE} = internal unnamed_addr constant {table}")
    place = m.bit("add", skipped, 64)  # the table starts with 64 zeros
    first = m.bit("and", m.bit("lshr", place, 5), 63)
    first = m.bit_select(m.bit_compare("ugt", first, len(DIGITS) + 4 - WORDS - 1), 0, first)  # infinity and NaN
    shift = m.bit("and", place, 31)
    words = [_gather(m, m.bit("add", first, k)) for k in range(WORDS + 1)]
    joined = (m.bit("or", m.bit("shl", a, 32), b) for a, b in zip(words[:-1], words[1:], strict=True))
    return [m.bit("lshr", m.bit("shl", both, shift), 32) for both in joined]


def _gather(m: Real, index: str) -> str:
    """Words of the table at `index`, zero-extended."""
    lanes = m.lanes
    if lanes.count == 1:
        address = lanes.value(f"getelementptr i32, ptr @{TABLE}, i64 {index}")
        word = lanes.value(f"load i32, ptr {address}, align 4")
    else:
        pointers = lanes.value(f"getelementptr i32, ptr @{TABLE}, {lanes.vector('i64')} {index}")
        narrow, n = lanes.vector("i32"), lanes.count
        word = lanes.function.call(narrow, f"llvm.masked.gather.v{n}i32.v{n}p0", (f"<{n} x ptr> align 4", pointers),
                                   (lanes.vector("i1"), lanes.literal("i1", 1)), (narrow, "poison"))
    return lanes.convert("zext", "i32", word, "i64")


def _multiply(m: Real, fraction: str, window: list[str]) -> list[str]:
    """fraction * window modulo 2^192, in words of 32 bits, first the most significant."""
    low, high = m.bit("and", fraction, LOW_WORD), m.bit("lshr", fraction, 32)
    result: list[str] = []
    carry: str | int = 0
    backwards = window[::-1]
    for k, word in enumerate(backwards):
        # Two products of 64 and 53 bits would overflow the column: their high halves go to the next one.
        first = m.bit("mul", low, word)
        column = m.bit("add", m.bit("and", first, LOW_WORD), carry)
        upper = m.bit("lshr", first, 32)
        if k:
            second = m.bit("mul", high, backwards[k - 1])
            column = m.bit("add", column, m.bit("and", second, LOW_WORD))
            upper = m.bit("add", upper, m.bit("lshr", second, 32))
        result.append(m.bit("and", column, LOW_WORD))
        carry = m.bit("add", upper, m.bit("lshr", column, 32))
    return result[::-1]


def _quadrant_and_rest(m: Real, x: str, words: list[str]) -> tuple[str, Pair]:
    """The top two bits are the quadrant; the fraction after them is rounded to the nearest quadrant and made a pair."""
    top = m.bit("or", m.bit("shl", words[0], 32), words[1])
    middle = m.bit("or", m.bit("shl", words[2], 32), words[3])
    rounded = m.bit("add", top, 1 << 61)
    quadrant = m.bit("lshr", rounded, 62)
    # The fraction as a signed number of 62 bits in the top word, in units of 2^-62; the middle word adds 2^-126 each.
    signed = m.bit("sub", m.bit("and", rounded, (1 << 62) - 1), 1 << 61)
    lanes = m.lanes
    head = lanes.convert("sitofp", "i64", m.bit("and", signed, -(1 << 32)), "double")
    tail = lanes.convert("sitofp", "i64", m.bit("and", signed, LOW_WORD), "double")
    last = m.mul(lanes.convert("uitofp", "i64", middle, "double"), 2.0**-64)
    number = m.two_sum(head, tail)
    number = m.fast_two_sum(number.high, m.add(number.low, last))
    scaled = Pair(m.mul(number.high, 2.0**-62), m.mul(number.low, 2.0**-62))
    rest = m.pair_product(scaled, m.pair_constant(*HALF_PI))
    negative = m.bit_compare("slt", m.to_bits(x), 0)
    high, low = (m.select(negative, m.neg(part), part) for part in rest)
    return m.bit_select(negative, m.bit("sub", 0, quadrant), quadrant), Pair(high, low)
