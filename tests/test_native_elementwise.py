"""Native code of every elementwise op of the table against its reference: dtypes, shapes and special values."""

from __future__ import annotations

import itertools

from graphc.ir import build
import graphc.ir.ops  # noqa: F401
from graphc.ir.dims import Dim
from graphc.ir.node import OPS, Graph, Node, make
from graphc.ir.reference import evaluate
from graphc.ir.types import FLOATS, as_dtype, is_float, is_integer, numpy_dtype
import numpy as np
import pytest

from compiled import Native

ROWS = [op for op in OPS.values() if op.kind == "elementwise" and op.name not in ("cast", "stop_gradient", "user")]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-40, 3.0, 700.0, -700.0, float("inf"), float("-inf"), float("nan"), 1e-3,
           88.0, 1e10]
SIZES = (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 67)
NEAR_ZEROS = {"lgamma": 1e-14, "digamma": 1e-13, "polygamma": 1e-12}  # absolute: their zeros come from cancellation
ULPS = {"float64": 4e-15, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}


def values(dtype: str, size: int, rng: np.random.Generator, arity: int) -> list[np.ndarray]:
    """Random operands that begin with every pair of special values."""
    if dtype == "bool":
        return [rng.integers(0, 2, size).astype(bool) for _ in range(arity)]
    if is_integer(dtype):
        limits = np.iinfo(dtype)
        edge = [0, 1, 2, 3, limits.max, limits.min, limits.max - 1, 7]
        return [np.array([edge[i] for i in rng.integers(0, len(edge), size)], dtype) for _ in range(arity)]
    pairs = list(itertools.product(SPECIAL, repeat=min(arity, 2)))
    rng.shuffle(pairs)
    columns = []
    for k in range(arity):
        column = rng.standard_normal(size) * np.where(rng.random(size) < 0.3, 20, 1)
        special = [p[min(k, len(p) - 1)] for p in pairs][:size // 2 + 1]
        column[:len(special)] = special[:size]
        columns.append(as_dtype(column, dtype))
    return columns


def arity(name: str) -> int:
    return 3 if name == "where" else len(OPS[name].partials) if OPS[name].partials is not None else 1


def built(name: str, dtype: str, shape: tuple) -> tuple[list[Node], Node] | None:
    """Placeholders of one dtype and the op on them, where the op has a meaning for that dtype."""
    with Graph():
        kinds = ["bool" if name == "where" and k == 0 else dtype for k in range(arity(name))]
        leaves = [make("placeholder", name=f"x{k}", dtype=kind, shape=shape) for k, kind in enumerate(kinds)]
        attrs = {"order": 1} if name == "polygamma" else {}
        try:
            return leaves, build.elementwise(name, *leaves, **attrs)
        except (TypeError, ValueError):
            return None


def assert_close(got: np.ndarray, wanted: np.ndarray, dtype: str, what: str) -> None:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype, what
    if not is_float(dtype):
        np.testing.assert_array_equal(got, wanted, what)
        return
    with np.errstate(all="ignore"):
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted), what)
        near_zero = NEAR_ZEROS.get(what.split()[0], np.finfo(numpy_dtype(dtype)).tiny * 4)
        np.testing.assert_allclose(got[finite].astype(np.float64), wanted[finite].astype(np.float64), rtol=ULPS[dtype],
                                   atol=near_zero, err_msg=what)
        np.testing.assert_array_equal(got[np.isinf(wanted)], wanted[np.isinf(wanted)], what)


@pytest.mark.parametrize("dtype", [*FLOATS, "int8", "int32", "int64", "uint8", "uint16", "uint64", "bool"])
@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
def test_native_is_reference(op, dtype) -> None:
    case = built(op.name, dtype, (Dim.symbol("n"),))
    if case is None:
        pytest.skip(f"{op.name} has no meaning for {dtype}")
    leaves, node = case
    function = Native([node], leaves)
    rng = np.random.default_rng(sum(map(ord, op.name + dtype)))
    for size in SIZES:
        columns = values(dtype, size, rng, len(leaves))
        if op.name == "where":
            columns[0] = rng.integers(0, 2, size).astype(bool)
        feeds = dict(zip(leaves, columns))
        wanted = evaluate([node], feeds, {})[0]
        assert_close(function(feeds)[0], wanted, node.dtype, f"{op.name} {dtype} {size} {columns!r:.300}")


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
def test_scalars_and_matrices(op) -> None:
    for shape in ((), (1,), (3, 5), (2, 1, 3), (0, 4)):
        case = built(op.name, "float64", shape) or built(op.name, "int64", shape) or built(op.name, "bool", shape)
        assert case is not None
        leaves, node = case
        rng = np.random.default_rng(1)
        feeds = {n: np.asarray(values(n.dtype, int(np.prod(shape)), rng, 1)[0]).reshape(shape) for n in leaves}
        wanted = evaluate([node], feeds, {})[0]
        assert_close(Native([node], leaves)(feeds)[0], wanted, node.dtype, f"{op.name} {shape} {feeds}")


@pytest.mark.parametrize("source", [*FLOATS, "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool"])
@pytest.mark.parametrize("result", [*FLOATS, "int8", "int16", "int64", "uint8", "uint64", "bool"])
def test_casts(source, result) -> None:
    with Graph():
        x = make("placeholder", name="x", dtype=source, shape=(37,))
        y = build.cast(x, result)
        given = as_dtype(np.random.default_rng(0).integers(0, 100, 37), source)
        if is_float(source) and is_float(result):
            given[:8] = [0.0, -0.0, 1.5, -2.25, float("inf"), float("-inf"), float("nan"), 3.0]
        elif source == "int8" and result not in ("uint8", "uint64", "bool"):
            given[:3] = [-1, -128, 127]
        np.testing.assert_array_equal(Native([y], [x])({x: given})[0], evaluate([y], {x: given}, {})[0])
