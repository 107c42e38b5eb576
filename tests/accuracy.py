"""Accuracy of the vector functions: one table of arguments, oracles and bounds, and the measuring of errors in ulp.

`python -m tests.accuracy` writes the table of docs/vector_math.md, with `--exhaustive` the one of every float32.  An
ulp is the spacing of the dtype at the exact value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
import sys

import mpmath as mp
import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from codegen import scalars
from codegen.target import Target, target

from exhaustive import worst_of_all
from native import compile_map

Wide = np.longdouble
Oracle = Callable[..., np.ndarray]


class Accuracy(NamedTuple):
    """A row is of an op, with what follows a space naming a part of its domain.

    `ranges` of (single, double) arguments: (low, high, way); "log" has both signs if low < 0, "minus" is negative only.
    `bounds` are the largest errors allowed in (single, double); `floor` is an absolute error that is always allowed,
    as a multiple of epsilon: for functions with zeros that only cancellation reaches.
    """

    oracle: Oracle
    ranges: tuple[tuple[tuple[float, float, str], ...], tuple[tuple[float, float, str], ...]]
    bounds: tuple[float, float]
    floor: float = 0.0
    param: int | None = None
    slow: bool = False  # the oracle is mpmath


def both(*ranges: tuple[float, float, str]) -> tuple[tuple[tuple[float, float, str], ...], ...]:
    return ranges, ranges


def by_mpmath(function: Callable[..., object]) -> Oracle:
    """An oracle of 40 digits, rounded to long double by way of two doubles."""
    def one(*values: np.ndarray) -> Wide:
        with mp.workprec(140):
            try:
                exact = mp.re(function(*(mp.mpf(float(v)) for v in values)))
            except (ValueError, ZeroDivisionError):
                return Wide(np.nan)
            if not mp.isfinite(exact):
                return Wide(float(exact))
            mantissa, exponent = mp.frexp(exact)
            high = float(mantissa)
            return np.ldexp(Wide(high) + Wide(float(mantissa - high)), int(exponent))

    return lambda *arrays: np.array([one(*values) for values in zip(*arrays, strict=True)], Wide)


def log_sum(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def lgamma_oracle(x: object) -> object:
    return mp.log(abs(mp.gamma(x))) if abs(x) < 100 else mp.re(mp.loggamma(x))


def sigmoid_oracle(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


S_MAX, D_MAX = 3.4e38, 1.79e308
S_MIN, D_MIN = 1e-44, 1e-322
WHOLE = (((-S_MAX, S_MAX, "log"),), ((-D_MAX, D_MAX, "log"),))
POSITIVE = (((S_MIN, S_MAX, "log"), (0.5, 2.0, "linear")), ((D_MIN, D_MAX, "log"), (0.5, 2.0, "linear")))
ANGLES = (((-S_MAX, S_MAX, "log"), (-100.0, 100.0, "linear"), (-7e4, 7e4, "linear")),
          ((-D_MAX, D_MAX, "log"), (-100.0, 100.0, "linear"), (-2e9, 2e9, "linear")))
SMALL = ((-1e-20, 1e-20, "log"),)


def growing(single: float, double: float) -> tuple[tuple[tuple[float, float, str], ...], ...]:
    return (((-single, single, "linear"), (-2.0, 2.0, "linear"), (-single, single, "log")),
            ((-double, double, "linear"), (-2.0, 2.0, "linear"), (-double, double, "log")))


UNIT = both((-1.0, 1.0, "linear"), (-1.0, 1.0, "log"), (0.999, 1.0, "linear"))
GAMMA = both((1e-30, 1e34, "log"), (1e-3, 12.0, "linear"), (0.9, 2.1, "linear"))
BELOW_ZERO = both((-20.0, 0.0, "linear"), (-1e-3, -1e-30, "minus"))
PLUS = both((1e-3, 1e3, "log"), (0.01, 12.0, "linear"))
MINUS = both((-6.0, 0.0, "linear"))

TABLE = {
    "exp": Accuracy(np.exp, growing(103.0, 744.0), (3, 2)),
    "exp2": Accuracy(np.exp2, growing(149.0, 1073.0), (3, 2)),
    "expm1": Accuracy(np.expm1, growing(88.7, 709.7), (3, 2)),
    "log": Accuracy(np.log, POSITIVE, (3, 2)),
    "log2": Accuracy(np.log2, POSITIVE, (3, 2)),
    "log10": Accuracy(np.log10, POSITIVE, (3, 2)),
    "log1p": Accuracy(np.log1p, (((-0.9999, 3.0, "linear"), *WHOLE[0]), ((-0.9999, 3.0, "linear"), *WHOLE[1])), (3, 2)),
    "sigmoid": Accuracy(sigmoid_oracle, growing(100.0, 740.0), (3, 2)),
    "softplus": Accuracy(log_sum, growing(100.0, 740.0), (3, 2)),
    "sqrt": Accuracy(np.sqrt, POSITIVE, (0.5, 0.5)),
    "rsqrt": Accuracy(lambda x: 1 / np.sqrt(x), POSITIVE, (3, 2)),
    "cbrt": Accuracy(np.cbrt, WHOLE, (3, 2)),
    "sin": Accuracy(np.sin, ANGLES, (3, 2)),
    "cos": Accuracy(np.cos, ANGLES, (3, 2)),
    "tan": Accuracy(np.tan, ANGLES, (3, 2)),
    "asin": Accuracy(np.arcsin, UNIT, (3, 2)),
    "acos": Accuracy(np.arccos, UNIT, (3, 2)),
    "atan": Accuracy(np.arctan, (WHOLE[0] + ((-4.0, 4.0, "linear"),), WHOLE[1] + ((-4.0, 4.0, "linear"),)), (3, 2)),
    "sinh": Accuracy(np.sinh, growing(89.4, 710.4), (3, 2)),
    "cosh": Accuracy(np.cosh, growing(89.4, 710.4), (3, 2)),
    "tanh": Accuracy(np.tanh, growing(12.0, 25.0), (3, 2)),
    "asinh": Accuracy(np.arcsinh, (WHOLE[0] + ((-4.0, 4.0, "linear"),), WHOLE[1] + ((-4.0, 4.0, "linear"),)), (3, 2)),
    "acosh": Accuracy(np.arccosh, (((1.0, S_MAX, "log"), (1.0, 3.0, "linear")),
                                   ((1.0, D_MAX, "log"), (1.0, 3.0, "linear"), (1.0, 1.000001, "linear"))), (3, 2)),
    "atanh": Accuracy(np.arctanh, UNIT, (3, 2)),
    "erf": Accuracy(by_mpmath(mp.erf), both((-7.0, 7.0, "linear"), (-2.0, 2.0, "linear"), (-7.0, 7.0, "log")), (3, 2),
                    slow=True),
    "erfc": Accuracy(by_mpmath(mp.erfc), (((-6.0, 10.05, "linear"), (-2.0, 2.0, "log")),
                                          ((-6.0, 27.2, "linear"), (-2.0, 2.0, "log"))), (3, 2), slow=True),
    "lgamma": Accuracy(by_mpmath(lgamma_oracle), GAMMA, (1, 2), slow=True),
    "lgamma x<0": Accuracy(by_mpmath(lgamma_oracle), BELOW_ZERO, (1, 2), floor=8, slow=True),
    "digamma": Accuracy(by_mpmath(mp.digamma), GAMMA, (1, 3), slow=True),
    "digamma x<0": Accuracy(by_mpmath(mp.digamma), BELOW_ZERO, (1, 3), floor=16, slow=True),
    "polygamma 1": Accuracy(by_mpmath(partial(mp.polygamma, 1)), PLUS, (1, 3), param=1, slow=True),
    "polygamma 1, x<0": Accuracy(by_mpmath(partial(mp.polygamma, 1)), MINUS, (1, 4), param=1, slow=True),
    "polygamma 2": Accuracy(by_mpmath(partial(mp.polygamma, 2)), PLUS, (1, 3), param=2, slow=True),
    "polygamma 2, x<0": Accuracy(by_mpmath(partial(mp.polygamma, 2)), MINUS, (1, 5), floor=256, param=2, slow=True),
    "polygamma 5": Accuracy(by_mpmath(partial(mp.polygamma, 5)), PLUS, (1, 5), param=5, slow=True),
    "hypot": Accuracy(np.hypot, WHOLE, (3, 2)),
    "atan2": Accuracy(np.arctan2, WHOLE, (3, 2)),
    "pow": Accuracy(np.power, POSITIVE, (3, 2)),
}
BINARY = ("hypot", "atan2", "pow")


def arguments(row: Accuracy, dtype: str, samples: int, random: np.random.Generator) -> np.ndarray:
    """Samples of every range, as an array of `dtype`."""
    parts = []
    for low, high, way in row.ranges[dtype == "float64"]:
        if way == "minus":
            parts.append(-np.exp2(random.uniform(np.log2(-high), np.log2(-low), samples)))
            continue
        if way == "linear":
            parts.append(random.uniform(low, high, samples))
            continue
        least = np.log2(low) if low > 0 else np.log2(S_MIN if dtype == "float32" else D_MIN)
        values = np.exp2(random.uniform(least, np.log2(high), samples))
        parts.append(values * random.choice([-1.0, 1.0], samples) if low < 0 else values)
    with np.errstate(over="ignore"):
        return np.concatenate(parts).astype(dtype)


def operands(name: str, dtype: str, samples: int, random: np.random.Generator) -> list[np.ndarray]:
    x = arguments(TABLE[name], dtype, samples, random)
    if name not in BINARY:
        return [x]
    if name == "hypot":  # both of like size
        with np.errstate(over="ignore"):
            return [x, np.clip(x * random.uniform(0.1, 1.0, x.size), -3e38 if dtype == "float32" else -D_MAX,
                               3e38 if dtype == "float32" else D_MAX).astype(dtype)]
    if name == "pow":  # powers that neither overflow nor vanish
        with np.errstate(divide="ignore"):
            limit = (800.0 if dtype == "float64" else 110.0) / np.abs(np.log(x.astype("float64")))
        y = np.clip(random.uniform(-1.0, 1.0, x.size) * limit, -1e300, 1e300)
        return [x, np.clip(y, -3e38, 3e38).astype(dtype) if dtype == "float32" else y]
    return [x, random.permutation(x)]


def errors(row: Accuracy, dtype: str, arrays: Sequence[np.ndarray], got: np.ndarray) -> np.ndarray:
    """Errors in ulp, less the absolute error that the row allows; NaN where exactly one of the two is NaN."""
    with np.errstate(all="ignore"):
        exact = row.oracle(*(a.astype(Wide) for a in arrays))
        near = exact.astype(dtype)
        finite = np.isfinite(near)
        limits = np.finfo(dtype)
        spacing = np.maximum(np.spacing(np.abs(np.where(finite, near, 1)).astype(dtype)), limits.smallest_subnormal)
        error = np.abs(got.astype(Wide) - exact)
        error = np.maximum(error - Wide(row.floor) * limits.eps, 0) / spacing if row.floor else error / spacing
        # At the edge of overflow both the largest number and infinity are within an ulp.
        edge = ~finite | ~np.isfinite(got)
        same = (got == near) | (np.isnan(got) & np.isnan(near))
        largest = (np.abs(got) == limits.max) | (np.abs(near) == limits.max)
        return np.where(edge, np.where(same, 0.0, np.where(largest, 1.0, np.inf)), error).astype(np.float64)


def compiled(name: str, dtype: str, chosen: Target, count: int) -> Callable[..., np.ndarray]:
    op, param, arity = name.split()[0], TABLE[name].param, 1 + (name in BINARY)
    return compile_map(lambda lanes, *x: scalars.emit(lanes, op, dtype, x, dtype, param), [dtype] * arity, dtype,
                       chosen, count)


def worst(name: str, dtype: str, chosen: Target, count: int, samples: int) -> tuple[float, list[float]]:
    """The largest error and the operands where it is."""
    arrays = operands(name, dtype, samples, np.random.default_rng(7))
    with np.errstate(all="ignore"):
        error = errors(TABLE[name], dtype, arrays, compiled(name, dtype, chosen, count)(*arrays))
    place = int(np.argmax(error))
    return float(error[place]), [float(a[place]) for a in arrays]


def measured(name: str, samples: int, targets: Sequence[str]) -> list[float]:
    """Worst errors, single on every target and then double."""
    return [worst(name, dtype, target(machine), target(machine).lanes(bits), samples)[0]
            for dtype, bits in (("float32", 32), ("float64", 64)) for machine in targets]


HEADER = "| function | float32 bound | {singles} | float64 bound | {doubles} |\n|---|---|{dashes}---|{dashes}\n"

DOCUMENT = Path(__file__).parents[1] / "docs" / "vector_math.md"
SAMPLED, EVERY = "errors of samples", "errors at every float"


def every_float() -> list[str]:
    """The functions of one operand that are not computed in double anyway."""
    return [name for name in TABLE if name not in BINARY and " " not in name and not scalars.ROWS[name].wide]


def document(targets: Sequence[str]) -> str:
    columns = [" | ".join(f"float{bits} {name}" for name in targets) for bits in (32, 64)]
    text = HEADER.format(singles=columns[0], doubles=columns[1], dashes="---|" * len(targets))
    for name, row in TABLE.items():
        found = measured(name, 3000 if row.slow else 100_000, targets)
        cells = [f"{row.bounds[0]:g}", *(f"{e:.2f}" for e in found[:len(targets)]),
                 f"{row.bounds[1]:g}", *(f"{e:.2f}" for e in found[len(targets):])]
        text += f"| {name} | {' | '.join(cells)} |\n"
    return text


def document_of_all(targets: dict[str, int]) -> str:
    """`targets` are machines and strides: 1 for every float."""
    text = f"| function | {' | '.join(f'{t} | at' for t in targets)} |\n|---|{'---|---|' * len(targets)}\n"
    for name in every_float():
        found = [worst_of_all(name, target(machine), stride) for machine, stride in targets.items()]
        text += f"| {name} | {' | '.join(f'{error:.2f} | {place:.9g}' for error, place in found)} |\n"
        print(text.splitlines()[-1], flush=True)
    return text


def write(section: str, text: str) -> None:
    """Puts the text between the marks of its section."""
    start, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    before, _, rest = DOCUMENT.read_text().partition(start)
    DOCUMENT.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    if "--exhaustive" in sys.argv[1:]:
        write(EVERY, document_of_all({"x86-64-v4": 1, "x86-64-v3": 16}))
    else:
        write(SAMPLED, document(["x86-64-v4", "x86-64-v3", "x86-64-v2"]))
