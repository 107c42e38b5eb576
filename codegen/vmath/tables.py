"""Makes the tables that AVX-512 holds in registers: of logarithms and of powers of two.

    logarithms   r = m c - 1 is small for a significand m in interval k and c = c_k, and log(m) = log(1 + r) - log(c).
                 c is searched for near the middle's inverse until -log(c) is a multiple of `grid` but for an error far
                 below the format; n log(2) + T then is exact.  In the intervals beside 1, c is 1.
    powers       2^(k/16), and what rounding it lost, as a part of it
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
import math
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

Wide = np.longdouble
Table = tuple[float, ...]
GRID = {32: 2.0**-16, 64: 2.0**-42}
INTERVALS = {32: 32, 64: 16}
TRIES = {32: 1 << 16, 64: 1 << 20}
AWAY = 1.0 + 1e-4 / math.pi  # a start whose neighbours' logarithms are no multiples of one another


def ends(k: int, bits: int) -> tuple[float, float]:
    """Significands in [3/4, 3/2) whose leading bits are k: the upper half of them lies below 1."""
    count = INTERVALS[bits]
    scale = 1.0 if k < count // 2 else 0.5
    return (1 + k / count) * scale, (1 + (k + 1) / count) * scale


def searched(middle: float, base: int, bits: int) -> tuple[float, float]:
    """(c, -log(c)) with the logarithm on the grid."""
    kind = np.float32 if bits == 32 else np.float64
    start = kind(AWAY / middle)
    candidates = (start + np.spacing(start) * np.arange(-TRIES[bits], TRIES[bits] + 1).astype(kind)).astype(kind)
    values = -np.log(candidates.astype(Wide))
    if base:
        values /= np.log(Wide(base))
    places = np.rint(values / Wide(GRID[bits]))
    best = int(np.argmin(np.abs(values - places * Wide(GRID[bits]))))
    return float(candidates[best]), float(places[best] * Wide(GRID[bits]))


def logarithms(base: int, bits: int) -> tuple[Table, Table]:
    """The numbers c and the logarithms T; base 0 is e."""
    count = INTERVALS[bits]
    pairs = []
    for k in range(count):
        low, high = ends(k, bits)
        pairs.append((1.0, 0.0) if k in (0, count - 1) else searched((low + high) / 2, base, bits))
    return tuple(c for c, _ in pairs), tuple(t for _, t in pairs)


class Centred(NamedTuple):
    """Where the intervals of `pow` begin: 1 is in the middle of one of them."""

    start: int  # the bits of the least significand
    c: Table
    high: Table
    low: Table


STEP = 1 << 48  # sixteen intervals to a power of two
BITS_OF_ONE = 0x3FF << 52


def number(bits: int) -> float:
    """The double in [1/2, 2) of these bits."""
    below = bits < BITS_OF_ONE
    base, unit = (Fraction(1, 2), Fraction(1, 1 << 53)) if below else (Fraction(1), Fraction(1, 1 << 52))
    return float(base + unit * (bits - (BITS_OF_ONE - (1 << 52) if below else BITS_OF_ONE)))


def centred() -> Centred:
    """The interval of 1 reaches as far below it as above: two thirds of its doubles are the smaller ones."""
    start = BITS_OF_ONE - 9 * STEP - 2 * STEP // 3
    rows = []
    for k in range(16):
        first = start + k * STEP
        middle = (number(first) + number(first + STEP)) / 2
        c = 1.0 if first <= BITS_OF_ONE < first + STEP else 1.0 / middle
        exact = -mp.log(mp.mpf(c))
        high = round(float(exact) / GRID[64]) * GRID[64]
        rows.append((c, high, float(exact - mp.mpf(high))))
    return Centred(start, *(tuple(column) for column in zip(*rows, strict=True)))


def powers() -> tuple[Table, Table]:
    exact = [mp.mpf(2) ** (mp.mpf(k) / 16) for k in range(16)]
    return tuple(map(float, exact)), tuple(float((value - mp.mpf(float(value))) / value) for value in exact)


def lines() -> list[str]:
    """The tables as Python text."""
    def row(values: Any, show: Callable[[Any], str] = repr) -> str:
        return "(" + ",\n    ".join(map(show, values)) + ",)"
    text = ["# (base, bits) -> (numbers c, logarithms -log(c)); base 0 is e.",
            "LOGARITHMS: dict[tuple[int, int], tuple[tuple[float, ...], tuple[float, ...]]] = {"]
    for base in (0, 2, 10):
        for bits in (32, 64):
            text.append(f"    ({base}, {bits}): ({', '.join(row(part) for part in logarithms(base, bits))}),")
    table, errors = powers()
    found = centred()
    return [*text, "}", "", f"SIXTEENTHS = {row(table)}", f"SIXTEENTHS_ERROR = {row(errors)}",
            f"CENTRED_START = {found.start:#x}", f"CENTRED_C = {row(found.c)}", f"CENTRED_HIGH = {row(found.high)}",
            f"CENTRED_LOW = {row(found.low)}"]
