"""Floating-point arithmetic of one width on `Lanes`, in the form that the vector functions are written in.

A value is a string as in `Lanes`; wherever an operand may be a constant, a Python number is one too.  `Pair` is an
unevaluated sum high + low with |low| at most half a unit of high: about twice the precision.
"""

from __future__ import annotations

from collections.abc import Sequence
import struct
from typing import NamedTuple

from ..vectors import Lanes
from . import avx512

Operand = str | float


class Pair(NamedTuple):
    """high + low, not added."""

    high: str
    low: str


class Real:
    """Arithmetic on float (bits=32) or double (bits=64)."""

    def __init__(self, lanes: Lanes, bits: int) -> None:
        self.lanes = lanes
        self.bits = bits
        self.kind = "float" if bits == 32 else "double"
        self.integer = f"i{bits}"
        self.mantissa = 23 if bits == 32 else 52
        self.bias = 127 if bits == 32 else 1023
        self.smallest_normal = 2.0 ** (1 - self.bias)
        self.largest = (2.0 - 2.0**-self.mantissa) * 2.0**self.bias
        self.magic = 1.5 * 2.0**self.mantissa  # adding it leaves a small integer in the low bits

    def choose(self, single: float, double: float) -> float:
        return single if self.bits == 32 else double

    # -- operands --
    def real(self, value: Operand) -> str:
        return value if isinstance(value, str) else self.lanes.literal(self.kind, value)

    def whole(self, value: str | int) -> str:
        return value if isinstance(value, str) else self.lanes.literal(self.integer, value)

    # -- arithmetic --
    def add(self, a: Operand, b: Operand) -> str:
        return self.lanes.binary("fadd", self.kind, self.real(a), self.real(b))

    def sub(self, a: Operand, b: Operand) -> str:
        return self.lanes.binary("fsub", self.kind, self.real(a), self.real(b))

    def mul(self, a: Operand, b: Operand) -> str:
        return self.lanes.binary("fmul", self.kind, self.real(a), self.real(b))

    def div(self, a: Operand, b: Operand) -> str:
        return self.lanes.binary("fdiv", self.kind, self.real(a), self.real(b))

    def fma(self, a: Operand, b: Operand, c: Operand) -> str:
        return self.lanes.fma(self.kind, self.real(a), self.real(b), self.real(c))

    def neg(self, a: str) -> str:
        return self.lanes.value(f"fneg {self.lanes.vector(self.kind)} {a}")

    def nfma(self, a: str, b: Operand, c: Operand) -> str:
        """c - a*b."""
        return self.fma(a, -b, c) if isinstance(b, float) else self.fma(self.neg(a), b, c)

    def intrinsic(self, name: str, *operands: Operand) -> str:
        return self.lanes.intrinsic(name, self.kind, *map(self.real, operands))

    def abs(self, a: str) -> str:
        return self.intrinsic("fabs", a)

    def sqrt(self, a: str) -> str:
        return self.intrinsic("sqrt", a)

    def copysign(self, magnitude: Operand, sign: Operand) -> str:
        return self.intrinsic("copysign", magnitude, sign)

    def round_even(self, a: str) -> str:
        return self.intrinsic("roundeven", a)

    # -- choice --
    def compare(self, predicate: str, a: Operand, b: Operand) -> str:
        """`predicate` as LLVM spells it: olt, ult, uno ..."""
        return self.lanes.value(f"fcmp {predicate} {self.lanes.vector(self.kind)} {self.real(a)}, {self.real(b)}")

    def select(self, mask: str, yes: Operand, no: Operand) -> str:
        return self.lanes.pick(self.kind, mask, self.real(yes), self.real(no))

    def at_most(self, a: str, bound: float) -> str:
        """The lesser of the two; NaN stays."""
        return self.select(self.compare("ogt", a, bound), bound, a)

    def at_least(self, a: str, bound: float) -> str:
        return self.select(self.compare("olt", a, bound), bound, a)

    def is_nan(self, a: str) -> str:
        return self.compare("uno", a, a)

    def both(self, a: str, b: str) -> str:
        return self.lanes.binary("and", "i1", a, b)

    def either(self, a: str, b: str) -> str:
        return self.lanes.binary("or", "i1", a, b)

    # -- bits --
    def to_bits(self, a: str) -> str:
        return self.lanes.convert("bitcast", self.kind, a, self.integer)

    def from_bits(self, a: str) -> str:
        return self.lanes.convert("bitcast", self.integer, a, self.kind)

    def bit(self, instruction: str, a: str | int, b: str | int) -> str:
        """An integer instruction on values of the width of this float."""
        return self.lanes.binary(instruction, self.integer, self.whole(a), self.whole(b))

    def bit_compare(self, predicate: str, a: str, b: str | int) -> str:
        return self.lanes.value(f"icmp {predicate} {self.lanes.vector(self.integer)} {a}, {self.whole(b)}")

    def bit_select(self, mask: str, a: str | int, b: str | int) -> str:
        return self.lanes.pick(self.integer, mask, self.whole(a), self.whole(b))

    def from_integer(self, a: str) -> str:
        """The float of an integer of at most `mantissa - 1` bits, by placing it in the bits of `magic`."""
        return self.sub(self.from_bits(self.bit("add", a, self.magic_bits)), self.magic)

    @property
    def magic_bits(self) -> int:
        return bits_of(self.magic, self.bits)

    def nearest(self, a: str, scale: float = 1.0) -> tuple[str, str]:
        """rint(a*scale) as a float, and a value whose low bits are that integer; |a*scale| < 2^(mantissa - 1)."""
        shifted = self.add(a, self.magic) if scale == 1.0 else self.fma(a, scale, self.magic)
        return self.sub(shifted, self.magic), self.to_bits(shifted)

    def power_of_two(self, low_bits: str) -> str:
        """2^n for n in the normal range, n given in the low bits as `nearest` leaves it."""
        return self.from_bits(self.bit("add", self.bit("shl", low_bits, self.mantissa), self.bias << self.mantissa))

    def scale(self, a: str, n: str, low_bits: str) -> str:
        """a * 2^n rounded once, for |n| below twice the exponent range; n as `nearest` gives it."""
        if self.has_avx512:
            return avx512.scale(self.lanes, self.kind, a, n)
        whole = self.bit("sub", low_bits, self.magic_bits)
        half = self.bit("ashr", whole, 1)
        return self.mul(self.mul(a, self.power_of_two(half)), self.power_of_two(self.bit("sub", whole, half)))

    @property
    def has_avx512(self) -> bool:
        return self.lanes.target.has_avx512

    # -- division and roots, where no operand is zero, subnormal or infinite --
    def inverse(self, a: str) -> str:
        """1/a to within 2^-24 in single precision and 2^-40 in double, by AVX-512's estimate."""
        estimate = avx512.reciprocal(self.lanes, self.kind, a)
        error = self.nfma(a, estimate, 1.0)
        if self.bits == 64:
            error = self.fma(error, error, error)
        return self.fma(estimate, error, estimate)

    def ratio(self, a: Operand, b: Operand, low: str | None = None) -> str:
        """a/b, or a/(b + low), to within little more than half a unit."""
        a, b = self.real(a), self.real(b)
        if not self.has_avx512 or self.bits == 32:
            quotient = self.div(a, b)
            if low is None:
                return quotient
            return self.sub(quotient, self.div(self.fma(quotient, low, self.residual(a, quotient, b)), b))
        inverse = self.inverse(b)
        quotient = self.mul(a, inverse)
        rest = self.nfma(quotient, b, a)
        if low is not None:
            rest = self.nfma(quotient, low, rest)
        return self.fma(rest, inverse, quotient)

    def pair_ratio(self, a: Pair, b: Pair) -> Pair:
        """a/b, the low part to 14 bits in single precision and to 28 in double."""
        if not self.has_avx512:
            return self.pair_quotient(a, b)
        inverse = avx512.reciprocal(self.lanes, self.kind, b.high)
        if self.bits == 64:
            inverse = self.fma(inverse, self.nfma(b.high, inverse, 1.0), inverse)
        quotient = self.div(a.high, b.high)
        rest = self.add(self.nfma(quotient, b.high, a.high), self.nfma(quotient, b.low, a.low))
        return Pair(quotient, self.mul(rest, inverse))

    def root(self, a: str, low: str | None = None) -> Pair:
        """The square root of a >= 0 (zero is allowed), or of a + low, as a pair."""
        if self.has_avx512:
            return self._root_by_estimate(a, low)
        root = self.sqrt(a)
        safe = self.select(self.compare("ogt", root, 0.0), root, 1.0)
        rest = self.neg(self.residual(a, root, root))
        rest = self.add(rest, low) if low is not None else rest
        return Pair(root, self.div(rest, self.add(safe, safe)))

    def _root_by_estimate(self, a: str, low: str | None) -> Pair:
        """Goldschmidt's iteration for the root s and h = 1/(2s); the estimate is bounded, so that 0 gives 0."""
        estimate = self.at_most(avx512.inverse_root(self.lanes, self.kind, a), 2.0**(self.bias // 2))
        root, half = self.mul(a, estimate), self.mul(estimate, 0.5)
        for last in (True,) if self.bits == 32 else (False, True):
            error = self.nfma(half, root, 0.5)
            root = self.fma(root, error, root)
            if not last:
                half = self.fma(half, error, half)
        rest = self.nfma(root, root, a)
        if low is not None:
            rest = self.add(rest, low)
        return Pair(root, self.mul(rest, half))

    # -- polynomials --
    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """Sum of coefficients[k] * x^k: Horner in single precision, Estrin (shorter chains) in double."""
        return self.horner(x, coefficients) if self.bits == 32 else self.estrin(x, coefficients)

    def horner(self, x: str, coefficients: Sequence[float]) -> str:
        total = self.real(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = self.fma(total, x, coefficient)
        return total

    def estrin(self, x: str, coefficients: Sequence[float]) -> str:
        level, power = [self.real(c) for c in coefficients], x
        while len(level) > 1:
            odd = level[-1:] if len(level) % 2 else []
            level = [self.fma(high, power, low) for low, high in zip(level[::2], level[1::2], strict=False)] + odd
            if len(level) > 1:
                power = self.mul(power, power)
        return level[0]

    # -- twice the precision --
    def two_sum(self, a: Operand, b: Operand) -> Pair:
        """a + b exactly."""
        total = self.add(a, b)
        part = self.sub(total, a)
        return Pair(total, self.add(self.sub(a, self.sub(total, part)), self.sub(b, part)))

    def fast_two_sum(self, a: Operand, b: Operand) -> Pair:
        """a + b exactly, where |a| >= |b| or a is 0."""
        total = self.add(a, b)
        return Pair(total, self.sub(b, self.sub(total, a)))

    def two_product(self, a: Operand, b: Operand) -> Pair:
        """a * b exactly, short of overflow and underflow."""
        product = self.mul(a, b)
        return Pair(product, self.residual(product, a, b))

    def residual(self, product: str, a: Operand, b: Operand) -> str:
        """a*b - product exactly, where product is near a*b."""
        if self.lanes.target.has_fma:
            return self.fma(a, b, self.neg(product))
        (a1, a2), (b1, b2) = self.halves(self.real(a)), self.halves(self.real(b))
        error = self.add(self.sub(self.mul(a1, b1), product), self.mul(a1, b2))
        return self.add(self.add(error, self.mul(a2, b1)), self.mul(a2, b2))

    def halves(self, a: str) -> Pair:
        """Splits the digits, the low half signed: every product of halves is exact."""
        cut = 12 if self.bits == 32 else 27
        high = self.from_bits(self.bit("and", self.bit("add", self.to_bits(a), 1 << (cut - 1)), -(1 << cut)))
        return Pair(high, self.sub(a, high))

    def pair_product(self, a: Pair, b: Pair) -> Pair:
        product, error = self.two_product(a.high, b.high)
        return self.fast_two_sum(product, self.fma(a.high, b.low, self.fma(a.low, b.high, error)))

    def pair_sum(self, a: Pair, b: Pair) -> Pair:
        """The sum to about twice the precision, where the operands do not cancel."""
        total, error = self.two_sum(a.high, b.high)
        return self.fast_two_sum(total, self.add(error, self.add(a.low, b.low)))

    def pair_quotient(self, a: Pair, b: Pair) -> Pair:
        quotient = self.div(a.high, b.high)
        rest = self.sub(self.add(self.neg(self.residual(a.high, quotient, b.high)), a.low), self.mul(quotient, b.low))
        return self.fast_two_sum(quotient, self.div(rest, b.high))

    def pair_constant(self, high: float, low: float) -> Pair:
        return Pair(self.real(high), self.real(low))


def bits_of(value: float, bits: int) -> int:
    """The bits of a float as a signed integer."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0] if bits == 32
               else struct.unpack("<q", struct.pack("<d", value))[0])
