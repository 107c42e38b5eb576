"""Makes the tables that AVX-512 holds in registers: of logarithms and of powers of two.

    logarithms   r = m c - 1 is small for a significand m in interval k and c = c_k, and log(m) = log(1 + r) - log(c).
                 c is searched for near the middle's inverse until -log(c) is a multiple of `grid` but for an error far
                 below the format; n log(2) + T then is exact.  In the intervals beside 1, c is 1.
    powers       2^(k/16), and what rounding it lost, as a part of it
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import mpmath as mp
import numpy as np

Wide = np.longdouble
Table = tuple[float, ...]
GRID = {32: 2.0**-16, 64: 2.0**-42}
INTERVALS = {32: 32, 64: 16}
TRIES = {32: 1 << 16, 64: 1 << 20}
AWAY = 1.0 + 1e-4 / math.pi  # a start whose neighbours' logarithms are no multiples of one another


def ends(k: int, base: int, bits: int) -> tuple[float, float]:
    """Significands whose leading bits are k: in [1, 2) for base 2, else in [3/4, 3/2), the upper half below 1."""
    count = INTERVALS[bits]
    scale = 1.0 if k < count // 2 or base == 2 else 0.5
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
    beside_one = {0: (1.0, 0.0), count - 1: (0.5, 1.0) if base == 2 else (1.0, 0.0)}
    pairs = []
    for k in range(count):
        low, high = ends(k, base, bits)
        pairs.append(beside_one[k] if k in beside_one else searched((low + high) / 2, base, bits))
    return tuple(c for c, _ in pairs), tuple(t for _, t in pairs)


def lost(pairs: tuple[Table, Table]) -> Table:
    """What the logarithms on the grid lack."""
    return tuple(float(-mp.log(mp.mpf(c)) - mp.mpf(t)) for c, t in zip(*pairs, strict=True))


def powers(steps: int, numbers: range) -> tuple[Table, Table]:
    """2^(k/steps), and the parts of it that rounding lost."""
    exact = [mp.mpf(2) ** (mp.mpf(k) / steps) for k in numbers]
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
    (table, errors), (roots, lost_of_roots) = powers(16, range(16)), powers(3, range(-1, 2))
    return [*text, "}", f"LOGARITHMS_LOW = {row(lost(logarithms(0, 64)))}", "",
            f"SIXTEENTHS = {row(table)}", f"SIXTEENTHS_ERROR = {row(errors)}",
            f"CUBE_ROOTS = {roots}", f"CUBE_ROOTS_ERROR = {lost_of_roots}"]
