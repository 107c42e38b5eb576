"""Fits the polynomials of the vector functions and writes coefficients.py: `python -m codegen.vmath.fit`.

Each row of FITS is a function on an interval with a weight; its polynomial minimises max |weight * error| by Lawson's
iteration: weighted least squares on Chebyshev nodes, each node's weight multiplied by its error until the errors are
level.  The leading coefficients are rounded to the precision of their use one by one and the others fitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
import struct
import sys

import mpmath as mp

from . import tables

mp.mp.prec = 220  # the constants below are made when this file is read

Number = Any  # an mpmath number
Scalar = Callable[[Number], Number]

ROUNDS = 12  # of Lawson's iteration for the first fit
REFITS = 4  # leading coefficients that are rounded before the others are fitted again


class Fit(NamedTuple):
    """Sum of c[k] x^k near `function` on [low, high]; `terms` are the numbers of coefficients in single and double,
    0 where a precision has another row."""

    name: str
    function: Scalar
    low: Number
    high: Number
    weight: Scalar
    terms: tuple[int, int]


def lawson(fit: Fit, count: int, fixed: Sequence[Number], nodes: Sequence[tuple[Number, Number, Number]],
           rounds: int) -> tuple[list[Number], Number]:
    """Coefficients after the `fixed` ones, and the largest weighted error; `nodes` are (x, value, weight)."""
    start = len(fixed)
    rest = [value - mp.polyval(list(reversed(fixed)), x) if fixed else value for x, value, _ in nodes]
    rows = [[x**k for k in range(start, count)] for x, _, _ in nodes]
    emphasis = [mp.mpf(1)] * len(nodes)
    best: tuple[list[Number], Number] = ([], mp.inf)
    for _ in range(rounds):
        solution = least_squares(rows, rest, [e * w * w for e, (_, _, w) in zip(emphasis, nodes, strict=True)])
        errors = [abs(w * (y - mp.fdot(row, solution))) for row, y, (_, _, w) in zip(rows, rest, nodes, strict=True)]
        if max(errors) < best[1]:
            best = (solution, max(errors))
        scale = mp.fsum(e * x for e, x in zip(emphasis, errors, strict=True))
        if scale == 0:
            break
        emphasis = [e * x / scale for e, x in zip(emphasis, errors, strict=True)]
    return best


def least_squares(rows: list[list[Number]], values: list[Number], weights: list[Number]) -> list[Number]:
    size = len(rows[0])
    scaled = [[w * x for x in row] for row, w in zip(rows, weights, strict=True)]
    columns, plain = list(zip(*scaled, strict=True)), list(zip(*rows, strict=True))
    gram = mp.matrix(size, size)
    for i in range(size):
        for j in range(i, size):
            gram[i, j] = gram[j, i] = mp.fdot(columns[i], plain[j])
    return list(mp.lu_solve(gram, mp.matrix([mp.fdot(column, values) for column in columns])))


def rounded(value: Number, bits: int) -> Number:
    return mp.mpf(struct.unpack("<f", struct.pack("<f", float(value)))[0] if bits == 32 else float(value))


def coefficients(fit: Fit, bits: int) -> tuple[list[float], Number]:
    count = fit.terms[bits == 64]
    if not count:
        return [], mp.mpf(1)
    middle, radius, size = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2, 5 * count + 20
    points = [middle - radius * mp.cos(mp.pi * (2 * k + 1) / (2 * size)) for k in range(size)]
    nodes = [(x, fit.function(x), fit.weight(x)) for x in points]
    fixed: list[Number] = []
    rest, error = lawson(fit, count, fixed, nodes, ROUNDS)
    while len(fixed) < min(REFITS, count - 1):
        fixed.append(rounded(rest[0], bits))
        rest, error = lawson(fit, count, fixed, nodes, ROUNDS)
    return [float(rounded(c, bits)) for c in [*fixed, *rest]], error


# -- what is fitted --

HALF_LOG2 = mp.log(2) / 2 * mp.mpf("1.005")
SQRT_HALF = mp.sqrt(mp.mpf(1) / 2)
EIGHTH = (mp.pi / 4 * mp.mpf("1.01")) ** 2  # the square of the largest argument of the sine and cosine kernels
ATAN_LIMIT = (mp.tan(mp.pi / 8) * mp.mpf("1.005")) ** 2
ATANH_LIMIT = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.01")
LOW_ERFCX, MIDDLE_ERFCX = mp.mpf("0.4"), 4


def odd(function: Scalar) -> Scalar:
    """P with function(x) = x + x*z*P(z), z = x^2."""
    return lambda z: (function(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def log_tail(f: Number) -> Number:
    return (mp.log1p(f) - f + f * f / 2) / f**3


def atanh_tail(z: Number) -> Number:
    """P with 2 atanh(s) = 2s + s*z*P(z)."""
    return (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z


def erfcx(x: Number) -> Number:
    return mp.erfc(x) * mp.exp(x * x)


def erfcx_centred(q: Number) -> Number:
    """(1 + 2x) erfcx(x) at q = (x - 4)/(x + 4)."""
    x = MIDDLE_ERFCX * (1 + q) / (1 - q)
    return (1 + 2 * x) * erfcx(x)


def erfcx_place(x: Number) -> Number:
    return (x - MIDDLE_ERFCX) / (x + MIDDLE_ERFCX)


def erf_log(t: Number) -> Number:
    """P with log(erfc(t)) = -t + t*P(t)."""
    return (mp.log(mp.erfc(t)) + t) / t


def of_base(base: Number) -> Scalar:
    """P with log_b(1 + r) = r/log(b) + r^2 P(r)."""
    return lambda r: (mp.log1p(r) - r) / (r * r * mp.log(base))


def log_weight(r: Number) -> Number:
    return abs(r * r / mp.log1p(r))


TABLE_SINGLE, TABLE_DOUBLE = (-mp.mpf(1) / 63, mp.mpf(1) / 31.9), (-mp.mpf(1) / 31.9, mp.mpf(1) / 15.9)
THIRTYSECOND = mp.mpf(1) / mp.mpf("31.8")
DIGAMMA_ZERO = mp.findroot(mp.digamma, mp.mpf("1.4616"))

FITS = (
    Fit("exp", lambda r: (mp.expm1(r) - r) / r**2, -HALF_LOG2, HALF_LOG2, lambda r: r**2 * mp.exp(-r), (5, 11)),
    Fit("exp2", lambda r: (2**r - 1) / r, mp.mpf("-0.501"), mp.mpf("0.501"), lambda r: abs(r) * 2**-r, (7, 13)),
    Fit("log_single", log_tail, SQRT_HALF - 1, mp.sqrt(2) - 1, lambda f: abs(f**3 / mp.log1p(f)), (8, 8)),
    Fit("log_double", atanh_tail, mp.mpf(0), ATANH_LIMIT, lambda z: z, (4, 7)),
    Fit("log_pair", lambda z: (atanh_tail(z) - mp.mpf(2) / 3) / z, mp.mpf(0), ATANH_LIMIT, lambda z: z**2, (3, 9)),
    # -- for tables in registers --
    *(Fit(f"log{base}_table", of_base(base or mp.e), *TABLE_DOUBLE, log_weight, (0, 9)) for base in (0, 2, 10)),
    *(Fit(f"log{base}_single", of_base(base or mp.e), *TABLE_SINGLE, log_weight, (3, 0)) for base in (0, 2, 10)),
    Fit("log_power", lambda r: -2 * log_tail(r), *TABLE_DOUBLE, lambda r: abs(r**3 / mp.log1p(r)), (0, 11)),
    Fit("log2_short", lambda r: mp.log(1 + r, 2) / r, *TABLE_DOUBLE, lambda r: abs(r / mp.log1p(r)), (0, 6)),
    Fit("exp_table", lambda r: (mp.expm1(r) - r) / r**2, -THIRTYSECOND * mp.log(2), THIRTYSECOND * mp.log(2),
        lambda r: r**2, (0, 5)),
    Fit("expm1_table", lambda r: (mp.expm1(r) - r) / r**2, mp.mpf("-0.0001"), THIRTYSECOND * mp.log(2) * 2,
        abs, (0, 6)),
    Fit("exp2_table", lambda r: (2**r - 1) / r, -THIRTYSECOND, THIRTYSECOND, abs, (0, 6)),
    Fit("exp2_short", lambda r: (2**r - 1) / r, -THIRTYSECOND, THIRTYSECOND, abs, (0, 3)),
    # -- hyperbolic --
    Fit("cosh", lambda z: (mp.cosh(mp.sqrt(z)) - 1) / z, mp.mpf(0), HALF_LOG2**2, lambda z: z, (3, 5)),
    Fit("sinh_reduced", odd(mp.sinh), mp.mpf(0), HALF_LOG2**2, lambda z: z, (2, 5)),
    Fit("inverse_cbrt", lambda m: 1 / mp.cbrt(m), mp.mpf(1), mp.mpf(2), mp.cbrt, (4, 6)),
    Fit("sin", odd(mp.sin), mp.mpf(0), EIGHTH, lambda z: z, (4, 6)),
    Fit("cos", lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, mp.mpf(0), EIGHTH, lambda z: z**2, (3, 6)),
    Fit("tan", odd(mp.tan), mp.mpf(0), EIGHTH, lambda z: z, (6, 15)),
    Fit("asin", odd(mp.asin), mp.mpf(0), mp.mpf("0.2505"), lambda z: z, (6, 13)),
    Fit("atan", odd(mp.atan), mp.mpf(0), ATAN_LIMIT, lambda z: z, (5, 11)),
    Fit("sinh", odd(mp.sinh), mp.mpf(0), mp.mpf("1.001"), lambda z: z, (4, 7)),
    Fit("cbrt", mp.cbrt, mp.mpf("0.3535"), mp.mpf("2.8285"), lambda m: 1 / mp.cbrt(m), (7, 7)),
    Fit("erf_small", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, mp.mpf(0), mp.mpf("1.0005"),
        lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)), (7, 15)),
    Fit("erf_log", erf_log, mp.mpf("0.92"), mp.mpf(4), lambda t: t * mp.erfc(t) / mp.erf(t), (7, 7)),
    Fit("erf_large", lambda u: erfcx(1 / u - 1), 1 / mp.mpf(7), mp.mpf("0.5005"),
        lambda u: mp.exp(-((1 / u - 1) ** 2)) + mp.mpf(10) ** -18, (8, 15)),
    Fit("erfcx", erfcx_centred, erfcx_place(LOW_ERFCX), erfcx_place(mp.mpf(28)),
        lambda q: 1 / erfcx_centred(q), (12, 24)),
    Fit("lgamma", lambda t: mp.loggamma(t + 2) / ((t + 1) * t), mp.mpf("-0.5005"), mp.mpf("0.501"),
        lambda t: abs((t + 1) * t / mp.loggamma(t + 2)), (9, 20)),
    Fit("digamma", lambda t: mp.digamma(t + 1.5) / (t + 1.5 - DIGAMMA_ZERO), mp.mpf("-0.5005"), mp.mpf("0.501"),
        lambda t: abs((t + 1.5 - DIGAMMA_ZERO) / mp.digamma(t + 1.5)), (9, 22)),
)


def split_constant(value: Number) -> tuple[float, ...]:
    """Three doubles whose sum is `value`."""
    parts: list[float] = []
    for _ in range(3):
        parts.append(float(value - mp.fsum(parts)))
    return tuple(parts)


SERIES = {
    "STIRLING": [mp.bernoulli(2 * k) / (2 * k * (2 * k - 1)) for k in range(1, 11)],
    "DIGAMMA_TAIL": [mp.bernoulli(2 * k) / (2 * k) for k in range(1, 10)],
}


def document() -> str:
    lines = ['"""Coefficients of the vector functions, lowest power first: name -> (single, double).',
             "", "Written by `python -m codegen.vmath.fit`, which says what each polynomial stands for.", '"""', ""]
    lines += ["POLYNOMIALS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {"]
    for fit in FITS:
        both = []
        for bits in (32, 64):
            values, error = coefficients(fit, bits)
            both.append(values)
            if not values:
                continue
            size = float(mp.log(error, 2))
            print(f"{fit.name} {bits}: {len(values)} terms, error 2^{size:.1f}", file=sys.stderr, flush=True)
        rows = ("        (" + ",\n         ".join(map(repr, v)) + ",)," if v else "        ()," for v in both)
        lines += [f'    "{fit.name}": (', *rows, "    ),"]
    lines += ["}", "", f"DIGAMMA_ZERO = {split_constant(DIGAMMA_ZERO)}"]
    lines += [f"{name} = (" + ",\n    ".join(repr(float(v)) for v in values) + ",)" for name, values in SERIES.items()]
    return "\n".join([*lines, "", *tables.lines()]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("coefficients.py").write_text(document())
