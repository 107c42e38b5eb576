"""The emission table: every op against NumPy on integers, bools and floats, casts between all dtypes, memory forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from codegen import scalars
from codegen.target import target
from codegen.vectors import DTYPES, FLOATS, SIGNED, UNSIGNED, Lanes
from graphc.ir.costs import WEIGHTS, weight
from graphc.ir.errors import Unsupported

from native import NUMPY, compile_map

BINARY = ("add", "sub", "bitwise_and")
INTEGERS = (*SIGNED, *UNSIGNED)
COMPARISONS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
               "ge": np.greater_equal}
ON_INTEGERS = COMPARISONS | {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mod": np.mod, "floor_divide": np.floor_divide,
    "maximum": np.maximum, "minimum": np.minimum, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "left_shift": np.left_shift, "right_shift": np.right_shift, "pow": np.power}
ON_ONE_INTEGER = {"neg": np.negative, "abs": np.abs, "sign": np.sign, "bitwise_not": np.invert, "identity": np.positive,
                  "floor": np.floor, "round": np.round, "relu": lambda x: np.maximum(x, x.dtype.type(0)),
                  "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite}
PREDICATES = {*COMPARISONS, "isnan", "isinf", "isfinite"}
MACHINES = [("native", True), ("native", False), ("x86-64-v2", True)]


def bits_of(dtype: str) -> int:
    return 8 * np.dtype(NUMPY[dtype]).itemsize


def run(name: str, dtype: str, *arrays: np.ndarray, machine: str = "native", wide: bool = True) -> np.ndarray:
    chosen = target(machine)
    result = "bool" if name in PREDICATES else dtype
    return compile_map(lambda lanes, *x: scalars.emit(lanes, name, dtype, x, result), [dtype] * len(arrays), result,
                       chosen, chosen.lanes(bits_of(dtype)) if wide else 1)(*arrays)


def pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of 8 bits; else the limits with each other, and random ones."""
    limits = np.iinfo(dtype)
    if limits.bits == 8:
        some = np.arange(limits.min, limits.max + 1).astype(dtype)
    else:
        some = np.array([limits.min, limits.min + 1, -1 if limits.min else 5, 0, 1, 2, 7, limits.bits - 1, limits.bits,
                         limits.max - 1, limits.max], dtype)
    a, b = (x.ravel() for x in np.meshgrid(some, some))
    random = np.random.default_rng(11)
    more = [random.integers(limits.min, limits.max, 1000, dtype=dtype, endpoint=True) for _ in range(2)]
    small = (random.integers(-60 if limits.min else 0, 60, 1000)).astype(dtype)
    return np.concatenate([a, *more]), np.concatenate([b, small, more[0]])


@pytest.mark.parametrize("name", ON_INTEGERS)
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("machine, wide", MACHINES)
def test_integers_are_numpys(name: str, dtype: str, machine: str, wide: bool) -> None:
    a, b = pairs(dtype)
    if name == "pow":
        b = np.where(b < 0, ~b, b)
    with np.errstate(all="ignore"):
        want = ON_INTEGERS[name](a, b)
    np.testing.assert_array_equal(run(name, dtype, a, b, machine=machine, wide=wide), want)


@pytest.mark.parametrize("name", ON_ONE_INTEGER)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_one_operand_are_numpys(name: str, dtype: str) -> None:
    a, _ = pairs(dtype)
    np.testing.assert_array_equal(run(name, dtype, a), ON_ONE_INTEGER[name](a))


@pytest.mark.parametrize("name, function", [
    *COMPARISONS.items(), ("add", np.add), ("mul", np.multiply), ("maximum", np.maximum), ("minimum", np.minimum),
    ("bitwise_and", np.bitwise_and), ("bitwise_or", np.bitwise_or), ("bitwise_xor", np.bitwise_xor)])
def test_bools_are_numpys(name: str, function: Callable[..., np.ndarray]) -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    np.testing.assert_array_equal(run(name, "bool", a, b), function(a, b))
    np.testing.assert_array_equal(run("bitwise_not", "bool", a), ~a)


def float_pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    limits = np.finfo(dtype)
    sizes = [0.0, float(limits.smallest_subnormal), float(limits.tiny), 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 7.25, 1e10,
             float(limits.max), np.inf]
    some = np.array([*sizes, *(-v for v in sizes), np.nan], dtype)
    a, b = (x.ravel() for x in np.meshgrid(some, some))
    random = np.random.default_rng(5)
    more = [np.exp2(random.uniform(-100, 100, 2000)) * random.choice([-1, 1], 2000) for _ in range(2)]
    near = random.uniform(-50, 50, 2000), random.uniform(-5, 5, 2000)
    return np.concatenate([a, more[0], near[0]]).astype(dtype), np.concatenate([b, more[1], near[1]]).astype(dtype)


@pytest.mark.parametrize("name, function", [
    ("mod", np.mod), ("floor_divide", np.floor_divide), ("add", np.add), ("sub", np.subtract), ("mul", np.multiply),
    ("div", np.divide), ("copysign", np.copysign), *COMPARISONS.items()])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("machine, wide", MACHINES)
def test_floats_are_numpys_to_the_bit(name: str, function: Callable[..., np.ndarray], dtype: str, machine: str,
                                      wide: bool) -> None:
    a, b = float_pairs(dtype)
    got = run(name, dtype, a, b, machine=machine, wide=wide)
    with np.errstate(all="ignore"):
        want = function(a, b)
    if name in ("mod", "floor_divide"):  # NumPy's float quotients go through float division: ours may be the nearer
        want = exact_division(name, a, b, want)
    same = (got == want) & (np.signbit(got) == np.signbit(want)) | (np.isnan(got) & np.isnan(want))
    assert same.all(), [(a[i], b[i], got[i], want[i]) for i in np.flatnonzero(~same)[:5]]


def exact_division(name: str, a: np.ndarray, b: np.ndarray, want: np.ndarray) -> np.ndarray:
    """In single precision the quotient is computed in double, which is nearer than NumPy's where it does not fit."""
    if name == "mod" or a.dtype == np.float64:
        return want
    with np.errstate(all="ignore"):
        wide = np.floor_divide(a.astype("float64"), b.astype("float64")).astype("float32")
    return np.where(np.abs(want) > 2.0**23, wide, want)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("machine, wide", MACHINES)
def test_extremes_pass_on_nan_and_order_zeros(dtype: str, machine: str, wide: bool) -> None:
    a, b = float_pairs(dtype)
    zeros = np.signbit(a) & (a == 0) & (b == 0)
    for name, function in (("maximum", np.maximum), ("minimum", np.minimum)):
        got, want = run(name, dtype, a, b, machine=machine, wide=wide), function(a, b)
        np.testing.assert_array_equal(got, want)
        assert (np.signbit(got) == (np.signbit(b) if name == "maximum" else True))[zeros].all()


@pytest.mark.parametrize("name, function", [
    ("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc), ("round", np.round), ("neg", np.negative),
    ("abs", np.abs),     ("isnan", np.isnan), ("isinf", np.isinf), ("isfinite", np.isfinite)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("machine, wide", MACHINES)
def test_floats_of_one_operand_are_numpys(name: str, function: Callable[..., np.ndarray], dtype: str, machine: str,
                                          wide: bool) -> None:
    more = np.array([2.5, -2.5, 3.5, -0.5, 2.0**23 + 0.5, 2.0**52 + 1]).astype(dtype)
    a = np.concatenate([float_pairs(dtype)[0], more])
    got, want = run(name, dtype, a, machine=machine, wide=wide), function(a)
    np.testing.assert_array_equal(got, want)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(a)].all()


# -- casts and memory --

def cast(source: str, result: str, x: np.ndarray, machine: str, count: int) -> np.ndarray:
    return compile_map(lambda lanes, v: scalars.emit(lanes, "cast", source, [v], result), [source], result,
                       target(machine), count)(x)


def cast_values(source: str) -> np.ndarray:
    random = np.random.default_rng(2)
    if source == "bool":
        return np.array([False, True])
    if source in INTEGERS:
        return pairs(source)[0]
    values = np.concatenate([[0.0, -0.0, 0.3, -0.7, 1.0, 2.5, -2.5, 100.0, 127.0], random.uniform(-120, 120, 200)])
    # Ties that two roundings get wrong.
    halfway = 1 + np.arange(32) * 2.0**-12 + 2.0**-40 * random.choice([-1, 0, 1], 32)
    return np.concatenate([values, halfway, np.exp2(random.uniform(-26, 6, 300))]).astype(NUMPY[source])


@pytest.mark.parametrize("source", [d for d in DTYPES if d != "bfloat16"])
@pytest.mark.parametrize("machine, wide", MACHINES)
def test_casts_are_numpys(source: str, machine: str, wide: bool) -> None:
    values = cast_values(source)
    for result in DTYPES:
        if result == "bfloat16":
            continue
        x = np.abs(values) if source in FLOATS and result in UNSIGNED else values
        if source in FLOATS and result in INTEGERS:
            x = x[x.astype("float64") <= np.iinfo(result).max]
        got = cast(source, result, x, machine, 16 if wide else 1)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(got, x.astype(NUMPY[result]), err_msg=f"{source} -> {result}")


@pytest.mark.parametrize("source", ["float64", "float32"])
@pytest.mark.parametrize("machine", ["native", "x86-64-v2"])
def test_casts_to_integers_saturate(source: str, machine: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], source)
    for result in INTEGERS:
        limits = np.iinfo(result)
        got = cast(source, result, x, machine, 4)
        assert got.tolist() == [0, limits.max, limits.min, limits.max, limits.min]


@pytest.mark.parametrize("machine, wide", MACHINES)
def test_every_half_goes_through_memory_unchanged(machine: str, wide: bool) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in ("float16", "bfloat16"):
        x = bits.view(np.float16) if dtype == "float16" else bits
        back = compile_map(lambda lanes, v: v, [dtype], dtype, target(machine), 16 if wide else 1)(x).view(np.uint16)
        exponent = 0x7C00 if dtype == "float16" else 0x7F80
        is_nan = ((bits & exponent) == exponent) & ((bits & ~np.uint16(exponent | 0x8000)) != 0)
        np.testing.assert_array_equal(back[~is_nan], bits[~is_nan])
        assert ((back & 0x7FFF) > exponent)[is_nan].all()


@pytest.mark.parametrize("machine, wide", MACHINES)
def test_floats_round_to_halves_by_ties_to_even(machine: str, wide: bool) -> None:
    random = np.random.default_rng(9)
    bits = random.integers(0, 2**32, 200_000, dtype=np.uint32)
    bits[::2] &= 0xFFFFF000  # many ties
    limits = np.array([65519.9, 65520, 6e-8, 3e-8, 2.98e-8, 6.1e-5, np.inf, 0, -0.0], np.float32)
    x = np.concatenate([bits.view(np.float32), limits])
    x = x[~np.isnan(x)]
    count = 16 if wide else 1
    with np.errstate(over="ignore"):
        want = x.astype(np.float16)
    got = compile_map(lambda lanes, v: v, ["float32"], "float16", target(machine), count)(x)
    np.testing.assert_array_equal(got.view(np.uint16), want.view(np.uint16))
    got = compile_map(lambda lanes, v: v, ["float32"], "bfloat16", target(machine), count)(x)
    whole = x.view(np.uint32).astype(np.uint64)
    np.testing.assert_array_equal(got, ((whole + 0x7FFF + (whole >> 16 & 1)) >> 16).astype(np.uint16))


def test_a_cast_from_double_to_bfloat16_rounds_once() -> None:
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 3 * 2.0**-8 - 2.0**-40])
    got = cast("float64", "bfloat16", x, "native", 8)
    assert got.tolist() == [0x3F81, 0x3F80, 0x3F82, 0x3F81]


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_takes_each_lane(dtype: str) -> None:
    mask, size = np.arange(16) % 3 == 0, np.dtype(NUMPY[dtype])
    a, b = (np.arange(16) % 2).astype(size), (np.arange(16) % 5 > 2).astype(size)
    got = compile_map(lambda lanes, *x: scalars.emit(lanes, "where", dtype, x, dtype), ["bool", dtype, dtype], dtype,
                      target(), 16)(mask, a, b)
    np.testing.assert_array_equal(got, np.where(mask, a, b))


def test_short_floats_compute_in_single() -> None:
    x = np.linspace(-3, 3, 64).astype(np.float16)
    np.testing.assert_array_equal(run("exp", "float16", x), np.exp(x.astype(np.float64)).astype(np.float16))


def test_constants_and_splats_of_scalars() -> None:
    def emit(lanes: Lanes, x: str) -> str:
        half = lanes.splat("float64", lanes.function.value("fadd double 0.25, 0.25"))
        return lanes.binary("fadd", "double", lanes.binary("fmul", "double", x, half), lanes.constant("float64", 3.0))
    for count in (1, 8):
        assert compile_map(emit, ["float64"], "float64", target(), count)(np.array([4.0])).tolist() == [5.0]


# -- the table --

@pytest.mark.parametrize("name, dtype, message", [
    ("sin", "int32", "sin: no code for operands of int32"),
    ("bitwise_and", "float32", "bitwise_and: no code for operands of float32"),
    ("sub", "bool", "sub: no code for operands of bool"),
    ("frob", "float32", "frob: code generation has no elementwise op"),
    ("add", "complex64", "add: code generation has no element type 'complex64'"),
    ("polygamma", "float32", "polygamma: order None")])
def test_what_is_missing_is_named(name: str, dtype: str, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        compile_map(lambda lanes, x: scalars.emit(lanes, name, dtype, [x] * (1 + (name in BINARY)), dtype), ["float32"],
                    "float32", target(), 16)


def test_weights_order_the_ops() -> None:
    names = ["identity", "add", "div", "exp", "tanh", "log", "pow"]
    assert [weight(n) for n in names] == sorted(weight(n) for n in names)


def test_every_op_that_can_be_written_has_a_cost() -> None:
    assert [name for name in (*scalars.ROWS, "where", "cast", "polygamma") if name not in WEIGHTS] == []
