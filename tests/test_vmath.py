"""The vector functions: errors in ulp against wider arithmetic, special values, and what the objects refer to."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest

from codegen import scalars
from codegen.jit import compile_text
from codegen.target import target
from codegen.vmath.gamma import cotangent_derivative, euler_maclaurin
import graphc as gc

from accuracy import BINARY, TABLE, compiled, errors, worst
from exhaustive import worst_of_all
from native import compile_map, map_module

DTYPES = (("float32", 32), ("float64", 64))
WIDTHS = [("native", True), ("native", False), ("x86-64-v3", True), ("x86-64-v2", True)]
NOTHING = float("nan")


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("machine, wide", WIDTHS)
@pytest.mark.parametrize("dtype, bits", DTYPES)
def test_errors_stay_within_their_bounds(name: str, machine: str, wide: bool, dtype: str, bits: int) -> None:
    chosen = target(machine)
    count = chosen.lanes(bits) if wide else 1
    error, where = worst(name, dtype, chosen, count, 100 if TABLE[name].slow else 8000)
    assert error <= TABLE[name].bounds[bits == 64], f"{name}{tuple(where)}: {error:.2f} ulp"


def test_the_measure_sees_an_error_of_a_few_units() -> None:
    x = np.array([0.3, 7.0])
    wrong = np.exp(x) + 4 * np.spacing(np.exp(x))
    assert (errors(TABLE["exp"], "float64", [x], wrong) > 3).all()
    assert (errors(TABLE["exp"], "float64", [x], np.array([np.nan, np.inf])) == np.inf).all()


def special_arguments(dtype: str) -> np.ndarray:
    limits = np.finfo(dtype)
    least, tiny, most = float(limits.smallest_subnormal), float(limits.tiny), float(limits.max)
    values = [0.0, math.inf, least, tiny, tiny / 4, most, 1.0, 0.5, 1.5, 2.0, 3.0, 1e-5, float(limits.eps), 100.0, 1e30]
    return np.array([*values, *(-v for v in values), NOTHING], dtype)


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if not row.slow])
@pytest.mark.parametrize("dtype, bits", DTYPES)
@pytest.mark.parametrize("machine", ["native", "x86-64-v2"])
def test_special_values_agree_with_numpy(name: str, dtype: str, bits: int, machine: str) -> None:
    """Zeros with their signs, infinities, NaN and subnormals; pairs of them for functions of two operands."""
    x = special_arguments(dtype)
    arrays = [a.ravel() for a in np.meshgrid(x, x)] if name in BINARY else [x]
    chosen = target(machine)
    got = compiled(name, dtype, chosen, chosen.lanes(bits))(*arrays)
    with np.errstate(all="ignore"):
        exact = TABLE[name].oracle(*(a.astype(np.longdouble) for a in arrays)).astype(dtype)
        near = np.abs(got - exact) <= 3 * np.maximum(np.spacing(np.abs(exact)), np.finfo(dtype).smallest_subnormal)
    same = (got == exact) | (np.isnan(got) & np.isnan(exact)) | near
    same &= (np.signbit(got) == np.signbit(exact)) | np.isnan(exact)
    assert same.all(), [(*(a[i] for a in arrays), got[i], exact[i]) for i in np.flatnonzero(~same)]


INF = math.inf
SPECIAL = {
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (NOTHING, NOTHING), (5e-324, 5e-324), (1e300, 1.0)],
    "erfc": [(0.0, 1.0), (INF, 0.0), (-INF, 2.0), (NOTHING, NOTHING), (30.0, 0.0), (-30.0, 2.0), (1e300, 0.0)],
    "lgamma": [(0.0, INF), (-0.0, INF), (1.0, 0.0), (2.0, 0.0), (-1.0, INF), (-1e300, INF), (INF, INF), (-INF, INF),
               (NOTHING, NOTHING), (5e-324, 744.4400719213812), (-5e-324, 744.4400719213812)],
    "digamma": [(0.0, -INF), (-0.0, INF), (-1.0, NOTHING), (INF, INF), (NOTHING, NOTHING), (5e-324, -INF),
                (-5e-324, INF), (2.0**-990, -(2.0**990))],
    "relu": [(NOTHING, NOTHING), (-1.0, 0.0), (2.0, 2.0), (INF, INF), (-INF, 0.0)],
    "sign": [(NOTHING, NOTHING), (-0.0, 0.0), (0.0, 0.0), (-5e-324, -1.0), (INF, 1.0)],
    "round": [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, -0.0), (-1.5, -2.0), (1e300, 1e300), (NOTHING, NOTHING),
              (-INF, -INF)],
    "rsqrt": [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-1.0, NOTHING), (4.0, 0.5)],
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("machine, count", [("native", 8), ("native", 1), ("x86-64-v2", 2)])
def test_special_values_without_a_numpy_function(name: str, machine: str, count: int) -> None:
    x, want = (np.array(column) for column in zip(*SPECIAL[name], strict=True))
    got = compile_map(lambda lanes, a: scalars.emit(lanes, name, "float64", [a], "float64"), ["float64"], "float64",
                      target(machine), count)(x)
    np.testing.assert_array_equal(got, want)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


@pytest.mark.parametrize("order, at_zero, at_minus_zero, pole", [(1, INF, INF, INF), (2, -INF, INF, NOTHING)])
def test_polygamma_at_its_poles(order: int, at_zero: float, at_minus_zero: float, pole: float) -> None:
    x = np.array([0.0, -0.0, -1.0, INF, NOTHING])
    got = compile_map(lambda lanes, a: scalars.emit(lanes, "polygamma", "float64", [a], "float64", order),
                      ["float64"], "float64", target(), 8)(x)
    np.testing.assert_array_equal(np.abs(got[3]), 0.0)
    np.testing.assert_array_equal(got[[0, 1, 2, 4]], [at_zero, at_minus_zero, pole, NOTHING])


@pytest.mark.parametrize("values", [[0.0], [1e22], [1e22, 0.5, -3e300, math.inf, NOTHING, 1e9, 2e9, -0.0]])
def test_lanes_of_large_angles_do_not_disturb_the_others(values: list[float]) -> None:
    x = np.array(values)
    for name, oracle in (("sin", np.sin), ("cos", np.cos), ("tan", np.tan)):
        got = compiled(name, "float64", target(), 8)(x)
        with np.errstate(invalid="ignore"):
            want = oracle(x.astype(np.longdouble)).astype("float64")
        np.testing.assert_allclose(got, want, rtol=4e-16, atol=0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_makes_sine_and_cosine_of_an_angle_from_one_reduction(dtype: str) -> None:
    x = gc.placeholder(dtype, (1003,))
    session = gc.Session()
    both, sine, cosine = (session.function([x], f) for f in ([gc.sin(x), gc.cos(x)], gc.sin(x), gc.cos(x)))
    angles = np.random.default_rng(5).uniform(-30, 30, 1003).astype(dtype)
    angles[::100] *= 1e30
    angles[::77] = np.nan
    angles[::91] = np.inf
    first, second = both(angles)
    np.testing.assert_array_equal(first, sine(angles))
    np.testing.assert_array_equal(second, cosine(angles))


def test_doubles_nearest_to_multiples_of_half_pi() -> None:
    """The hardest arguments for the reduction, on both sides of its bound."""
    x = np.array([6381956970095103.0 * 2.0**797, 5.319372648326541e255, 1.5707963267948966, 355.0, 2.0**30,
                  2.0**30 - 1])
    for name in ("sin", "cos"):
        got = compiled(name, "float64", target(), 2)(x)
        assert errors(TABLE[name], "float64", [x], got).max() <= 2


DTYPES_OF_CASTS = ("float64", "float32", "float16", "bfloat16", "int64", "uint64", "int32", "uint32", "int8", "bool")
EVERY_SIZE = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "uint8": 8}
ALL = [(name, dtype) for name, row in scalars.ROWS.items() for dtype in EVERY_SIZE
       if (row.on_float if "float" in dtype else row.on_integer)]
BOOLEAN = {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"}
TWO = ("add sub mul div pow mod floor_divide maximum minimum copysign hypot atan2 eq ne lt le gt ge "
       "bitwise_and bitwise_or bitwise_xor left_shift right_shift")
ARITY = dict.fromkeys(TWO.split(), 2) | {"fma": 3}


@pytest.mark.parametrize("machine", ["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_objects_refer_to_nothing_outside(machine: str) -> None:
    """No op becomes a call to libm or to the compiler's run-time library."""
    chosen = target(machine)
    for name, dtype in ALL:
        result = "bool" if name in BOOLEAN else dtype
        for count in (1, chosen.lanes(EVERY_SIZE[dtype])):
            module = map_module(lambda lanes, *x, name=name, dtype=dtype, result=result: scalars.emit(
                lanes, name, dtype, x, result), [dtype] * ARITY.get(name, 1), result, chosen, count)
            assert undefined(compile_text(module.text(), chosen)) == [], (name, dtype, count)


@pytest.mark.parametrize("machine", ["x86-64-v2", "aarch64", "x86-64-v4"])
def test_casts_refer_to_nothing_outside(machine: str) -> None:
    for source in DTYPES_OF_CASTS:
        for result in DTYPES_OF_CASTS:
            for count in (1, 8):
                module = map_module(lambda lanes, x, source=source, result=result: scalars.emit(
                    lanes, "cast", source, [x], result), [source], result, target(machine), count)
                assert undefined(compile_text(module.text(), target(machine))) == [], (source, result, count)


def undefined(code: bytes) -> list[str]:
    """Names of the undefined symbols of an ELF object of 64 bits."""
    def number(at: int, size: int) -> int:
        return int.from_bytes(code[at:at + size], "little")
    sections = [number(40, 8) + i * number(58, 2) for i in range(number(60, 2))]
    table = next(s for s in sections if number(s + 4, 4) == 2)
    strings = number(sections[number(table + 40, 4)] + 24, 8)
    first, size = number(table + 24, 8), number(table + 32, 8)
    names = []
    for symbol in range(first + 24, first + size, 24):
        if number(symbol + 6, 2) == 0:
            start = strings + number(symbol, 4)
            names.append(code[start:code.index(b"\0", start)].decode())
    return names


def test_undefined_symbols_are_seen() -> None:
    chosen = target("x86-64-v2")
    module = map_module(lambda lanes, x: lanes.intrinsic("sin", "double", x), ["float64"], "float64", chosen, 1)
    assert undefined(compile_text(module.text(), chosen)) == ["sin"]


def test_coefficients_of_the_cotangents_derivatives() -> None:
    # pi d/dx cot(pi x) = -pi^2 (1 + c^2); the second derivative is 2 pi^3 (c + c^3)
    assert cotangent_derivative(1) == [-math.pi**2, 0.0, -math.pi**2]
    assert cotangent_derivative(2) == [0.0, 2 * math.pi**3, 0.0, 2 * math.pi**3]


def test_coefficients_of_euler_and_maclaurin() -> None:
    # B2/2! s, B4/4! s(s+1)(s+2) with B2 = 1/6 and B4 = -1/30, at s = 2
    assert euler_maclaurin(2)[:2] == [1 / 6, -24 / 720]


@pytest.mark.parametrize("name", ["exp", "log", "sinh"])
def test_the_loop_over_floats_finds_errors_within_the_bounds(name: str) -> None:
    error, _ = worst_of_all(name, target(), 1 << 14)
    assert 0.4 < error <= TABLE[name].bounds[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if not row.slow and n not in BINARY])
def test_every_float(name: str) -> None:
    """Every 251st of the 2^32 floats (all with GRAPHC_FLOAT_STRIDE=1), against double precision."""
    stride = int(os.environ.get("GRAPHC_FLOAT_STRIDE", "251"))
    function = compiled(name, "float32", target(), 16)
    row = TABLE[name]._replace(oracle=lambda x: TABLE[name].oracle(x.astype(np.float64)))
    block = stride << 20
    for start in range(0, 2**32, block):
        x = np.arange(start, min(start + block, 2**32), stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
        x = np.resize(x, -(-x.size // 16) * 16)
        with np.errstate(all="ignore"):
            error = errors(row, "float32", [x], function(x))
        assert error.max() <= TABLE[name].bounds[0], (name, x[np.argmax(error)], error.max())


def test_the_coefficients_are_those_that_fit_writes() -> None:
    """One row is fitted again; all of them take half a minute."""
    script = ("from codegen.vmath import fit\nfrom codegen.vmath.coefficients import POLYNOMIALS\n"
              "row = next(f for f in fit.FITS if f.name == 'sin')\n"
              "assert tuple(fit.coefficients(row, 64)[0]) == POLYNOMIALS['sin'][1]\n")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_llvm_is_the_one_that_the_names_were_checked_with() -> None:
    """`llvm.x86.avx512.mask.scalef` and its like are LLVM's own and may change with it."""
    assert llvm.llvm_version_info[0] >= 22
