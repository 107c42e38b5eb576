"""The emitter of iteration-space kernels against NumPy: sizes 0 to 67, static and symbolic, all dtypes and targets."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from kernel_cases import (
    CASES,
    Builder,
    D,
    N,
    arguments_of,
    bias,
    differences,
    elementwise,
    folded,
    histogram,
    pad,
    reference,
    scatter_rows,
    softmax,
    straight_line,
    transpose,
    windows,
)
from kernel_fuzz import random_kernel
from native import executable_targets
from native_kernel import Native

from codegen.kernel import emit_kernel, kernel_symbols, split_extent
from codegen.target import machine
from codegen.target import target as known_target
from codegen.text import Module
from graphc.ir.dims import Dim, maximum, minimum
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Kernel, Schedule

TARGETS = executable_targets()
LENGTHS = (*range(0, 20), 31, 32, 33, 47, 48, 63, 64, 65, 67)
SIZES = [(n, d) for d in LENGTHS for n in (0, 1, 3)] + [(20, 20), (67, 5), (35, 17), (2, 300)]


def check(native: Native, kernel: Kernel, sizes: dict[str, int], ranges: dict[int, int], tolerance: float,
          rng: np.random.Generator, **how: Any) -> None:
    arrays = arguments_of(kernel, sizes, ranges, rng, special=how.pop("special", False))
    wanted = [array.copy() for array in arrays]
    reference(kernel, sizes, wanted)
    native(sizes, *arrays, **how)
    for i, (a, b) in enumerate(zip(arrays, wanted, strict=True)):
        fault = differences(a, b, kernel.arguments[i], tolerance)
        assert not fault, f"argument {i} at {sizes}: {fault}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_symbolic(name, target):
    build, ranges, tolerance = CASES[name]
    kernel = build(Dim.symbol("n"), Dim.symbol("d"))
    native = Native(kernel, target)
    rng = np.random.default_rng(1)
    for n, d in SIZES:
        check(native, kernel, {"n": n, "d": d}, ranges, tolerance, rng)


@pytest.mark.parametrize("name", CASES)
def test_static(name):
    build, ranges, tolerance = CASES[name]
    rng = np.random.default_rng(2)
    for n, d in [(0, 3), (3, 0), (1, 1), (2, 3), (4, 16), (3, 37), (5, 64), (33, 67), (40, 1), (3, 1000)]:
        kernel = build(n, d)
        check(Native(kernel), kernel, {}, ranges, tolerance, rng)


@pytest.mark.parametrize("name", CASES)
def test_pieces_give_the_same_bits(name):
    build, ranges, _ = CASES[name]
    kernel = build(Dim.symbol("n"), Dim.symbol("d"))
    native = Native(kernel)
    for sizes in ({"n": 13, "d": 29}, {"n": 40, "d": 5}):
        same_in_pieces(native, kernel, sizes, ranges)


def same_in_pieces(native: Native, kernel: Kernel, sizes: dict[str, int], ranges: dict[int, int]) -> None:
    arrays = arguments_of(kernel, sizes, ranges, np.random.default_rng(3))
    whole = [array.copy() for array in arrays]
    native(sizes, *whole)
    native(sizes, *arrays, pieces=3)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays, whole, strict=True))


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES = ["float64", "float32", "float16", "bfloat16", *INTEGERS]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, target):
    rng = np.random.default_rng(4)
    kernels = [elementwise((N,), dtype, kind) for kind in ("add", "mul", "lt")]
    kernels += [transpose(N, D, dtype), pad(N, D, 2, dtype)]
    for kernel in kernels:
        native = Native(kernel, target)
        for n in (0, 1, 5, 16, 31, 67, 130):
            check(native, kernel, {"n": n, "d": 21}, {}, 0, rng)


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("axis", [0, 1])
def test_reductions_of_every_dtype(dtype, axis):
    rng = np.random.default_rng(5)
    monoids = ["max", "min"] + (["any", "all"] if dtype == "bool" else ["argmax", "argmin"])
    for monoid in monoids:
        kernel = folded((N, D), (axis,), monoid, dtype)
        native = Native(kernel)
        for n, d in [(1, 1), (3, 17), (67, 5), (20, 70)]:
            check(native, kernel, {"n": n, "d": d}, {}, 0, rng)
    exact = "float" not in dtype
    made = "int64" if exact else "float64" if dtype == "float64" else "float32"
    kernel = folded((N, D), (axis,), "add", dtype, made)
    native = Native(kernel)
    for n, d in [(0, 3), (3, 0), (3, 17), (67, 5), (20, 70)]:
        check(native, kernel, {"n": n, "d": d}, {}, 0 if exact else 1e-6, rng)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_round_after_each_operation(dtype):
    b = Builder((N,), (dtype,) * 3)
    x, y = b.load(0), b.load(1)
    b.store(2, b.f("add", b.f("mul", b.f("add", x, y), b.f("sub", x, y)), b.const(0.1, dtype)))
    native = Native(b.kernel())
    check(native, b.kernel(), {"n": 1000}, {}, 0, np.random.default_rng(6))


SPECIAL = ([0, 1], [np.nan, 1, 2], [-np.inf, np.inf, 0], [-np.inf], [np.inf], [np.nan], [np.nan, -np.inf])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("monoid", ["max", "min", "argmax", "argmin", "add"])
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_infinities_and_ties(monoid, axis, target):
    for dtype in ("float32", "float64"):
        kernel = folded((N, D), (axis,), monoid, dtype)
        native = Native(kernel, target)
        rng = np.random.default_rng(7)
        for n, d in [(3, 1), (3, 17), (2, 64), (5, 129), (67, 2), (1, 1)]:
            for values in SPECIAL:
                arrays = arguments_of(kernel, {"n": n, "d": d}, {}, rng)
                arrays[0][:] = rng.choice(values, arrays[0].size)
                wanted = [a.copy() for a in arrays]
                with np.errstate(all="ignore"):
                    reference(kernel, {"n": n, "d": d}, wanted)
                native({"n": n, "d": d}, *arrays)
                for i, (a, w) in enumerate(zip(arrays, wanted, strict=True)):
                    assert not differences(a, w, kernel.arguments[i], 0), (i, n, d, values)


def test_sums_of_zeros_keep_their_sign():
    kernel = folded((N, D), (1,), "add", "float32")
    native = Native(kernel)
    for d in (0, 1, 16, 67, 300):
        x, out = np.full((2, d), -0.0, np.float32), np.ones(2, np.float32)
        native({"n": 2, "d": d}, x, out)
        assert not out.any() and np.signbit(out).all() == (d > 0)


def test_precision_of_a_long_sum():
    x = np.random.default_rng(8).random(4_000_000, np.float32)
    exact = x.astype(np.float64).sum()
    for shape, axis in (((1, x.size), 1), ((x.size // 4, 4), 0)):
        kernel = folded((N, D), (axis,), "add", "float32")
        out = np.zeros(4, np.float32)
        Native(kernel)({"n": shape[0], "d": shape[1]}, x, out)
        wanted = exact if axis else x.reshape(shape).astype(np.float64).sum(0)
        assert np.max(np.abs(out[:1] - wanted if axis else out - wanted) / wanted) < 1e-6


def test_straight_line_without_axes():
    for count in (1, 40, 400):
        kernel = straight_line(count)
        check(Native(kernel), kernel, {}, {}, 0, np.random.default_rng(9))
        assert split_extent(kernel) == 1


@pytest.mark.parametrize("schedule", [{"lanes": 0}, {"lanes": 1}, {"lanes": 0, "factor": 1}, {"lanes": 1, "factor": 8},
                                      {"lanes": 1, "unroll": 0, "factor": 4}, {"lanes": 0, "unroll": 1, "factor": 16}])
def test_schedules(schedule):
    rng = np.random.default_rng(10)
    for kernel in (softmax(N, D), bias(N, D), transpose(N, D), folded((N, D), (1,), "argmax", "float32")):
        kernel = replace(kernel, schedule=Schedule(**schedule))
        native = Native(kernel)
        for n, d in [(1, 1), (5, 40), (40, 5), (33, 67), (20, 300)]:
            check(native, kernel, {"n": n, "d": d}, {}, 2e-6, rng)


def test_sizes_are_polynomials_with_atoms():
    n = Dim.symbol("n")
    half = n // 2
    extent = minimum(half + 3, maximum(n - 4, half))
    b = Builder((extent, half), ("float32", "float32"))
    b.store(1, b.load(0, (1, half), offset=half), (half + 1, 1))
    native = Native(b.kernel())
    assert kernel_symbols(b.kernel()) == ("n",)
    for size in (0, 1, 2, 7, 20, 41):
        check(native, b.kernel(), {"n": size}, {}, 0, np.random.default_rng(11))


def test_where_accumulating_kernels_may_be_split():
    assert split_extent(scatter_rows(N, D, 9)) == D  # columns never meet
    assert split_extent(windows(N, D)) == N  # rows never meet, columns do
    assert split_extent(histogram(N, 9)) == 1


def test_odd_names_of_symbols():
    n = Dim.symbol("batch size")
    kernel = bias(n, 5)
    check(Native(kernel), kernel, {"batch size": 7}, {}, 0, np.random.default_rng(12))


def test_large_integers_and_constants():
    for dtype, value in (("uint64", 2**64 - 1), ("int64", -(2**63)), ("uint8", 255), ("int8", -128), ("bool", True)):
        b = Builder((7,), (dtype,))
        b.store(0, b.const(value, dtype))
        out = np.zeros(7, dtype)
        Native(b.kernel())({}, out)
        assert (out == np.array(value, dtype)).all()


def test_two_scans_of_different_direction_are_refused():
    b = Builder((N,), ("float32",) * 3)
    x = b.load(0)
    b.store(1, b.put("scan", b.const(1.0), x, value=(0, False)))
    b.store(2, b.put("scan", b.const(1.0), x, value=(0, True)))
    with pytest.raises(Unsupported, match="scan"):
        Native(b.kernel())


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_no_library_calls(target):
    """Every kernel compiles for every target, and calls nothing: objects need no library."""
    chosen = known_target(target)
    for name, (build, _, _) in CASES.items():
        module = Module()
        emit_kernel(module, build(N, D), chosen, "kernel")
        parsed = llvm.parse_assembly(module.text().replace("define internal", "define", 1))
        parsed.triple, parsed.data_layout = chosen.triple, str(machine(chosen).target_data)
        calls = re.findall(r"^\s+(?:call\w*|bl|jmp)\s+[a-zA-Z]\w*", machine(chosen).emit_assembly(parsed), re.M)
        assert not calls, (name, calls)


def test_guard_pages():
    """In a child process: every kernel, every buffer between two pages that must not be touched."""
    child = Path(__file__).with_name("kernel_guards.py")
    done = subprocess.run([sys.executable, str(child)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    assert done.stdout.strip().endswith("done")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("block", range(4))
def test_random_kernels(block, target):
    rng = np.random.default_rng(13)
    for seed in range(block * 25, block * 25 + 25):
        kernel, ranges = random_kernel(seed)
        native = Native(kernel, target)
        for sizes in ({"p": 4, "q": 40}, {"p": 21, "q": 3}, {"p": 1, "q": 16}):
            check(native, kernel, sizes, ranges, 1e-5, rng)
        same_in_pieces(native, kernel, {"p": 21, "q": 16}, ranges)


def test_argmin_where_lanes_do_not_follow_the_order_of_the_indices():
    b = Builder((40, 17), ("int64", "int64"))
    smallest = b.reduce("argmin", b.load(0, (1, 40)), 0, 1)
    b.store(1, b.put("second", smallest, dtype="int64"), (0, 0))
    x, out = np.ones((17, 40), np.int64), np.zeros(1, np.int64)
    x[13, 3] = x[3, 6] = 0
    Native(b.kernel())({}, x, out)
    assert out[0] == 3 * 17 + 13
