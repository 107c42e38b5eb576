"""Products of large matrices and vectors: how they are planned, their numbers, and that no access leaves a buffer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from native import executable_targets
from products import Product, plain
import pytest
from test_contraction import check, epilogue, flat_arrays, guarded

import graphc as gc
from codegen.gemm import axpy
from graphc.ir.dims import Dim, evaluate
from graphc.ir.node import ancestors
from graphc.ir.plan import Contraction, KernelStep
from passes.lower import Request, lower

TARGETS = executable_targets()
SHAPES = [(1, 5000, 70), (1, 4097, 67), (1, 700, 601), (3000, 1, 131), (1, 4096, 64), (1, 300000, 1), (1, 10, 30000)]


def products_of(*outputs: gc.Node) -> list[Contraction]:
    nodes = tuple(node for node in ancestors(list(outputs)) if node.op.name == "placeholder")
    steps = lower(Request("main", nodes, outputs)).steps
    return [step.kernel for step in steps if isinstance(step, KernelStep) and isinstance(step.kernel, Contraction)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
def test_a_large_matrix_times_a_vector(dtype: str) -> None:
    rng, (m, k) = np.random.default_rng(0), (701, 603)
    values = [(rng.standard_normal(shape) * 4).astype(dtype) for shape in ((m, k), (k,), (m,))]
    with gc.Graph():
        a, x, y = (gc.placeholder(dtype, v.shape) for v in values)
        outputs = [a @ x + y, x @ a.T, y @ a, a @ x.reshape(k, 1), y.reshape(1, m) @ a]
        function = gc.Session().function([a, x, y], outputs)
        results = function(*values)
    A, X, Y = (v.astype("float64" if "float" in dtype else dtype) for v in values)
    expected = [A @ X + Y, X @ A.T, Y @ A, A @ X.reshape(k, 1), Y.reshape(1, m) @ A]
    scale = {"float32": 1e-5, "float64": 1e-13, "float16": 2e-3, "int32": 0}[dtype]
    for result, exact in zip(results, expected, strict=True):
        assert result.shape == exact.shape and result.dtype == dtype
        assert np.abs(result.astype("float64") - exact).max() <= scale * np.abs(exact).max()


def test_small_and_unknown_sizes_stay_loops() -> None:
    with gc.Graph():
        x = gc.placeholder("float32", (300,))
        small, unknown = gc.placeholder("float32", (300, 300)), gc.placeholder("float32", ("rows", 300))
        large, row = gc.placeholder("float32", (3000, 300)), gc.placeholder("float32", (1, 300000))
        assert not products_of(small @ x) and not products_of(unknown @ x)
        assert not products_of(row @ row.T)
        (product,) = products_of(gc.relu(large @ x))
        assert product.extents == (1, 3000) and len(product.ops) > 2


def forms(dtype: str, kind: str, shape: tuple[int, int, int], symbolic: str = "") -> Contraction:
    m, n, k = (Dim.symbol(s) if s in symbolic else size for s, size in zip("mnk", shape))
    ops, more = epilogue(kind, (m, n), dtype)
    return plain(m, n, k, dtype=dtype, ops=ops, more=more[1:])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind, symbolic", [("plain", ""), ("dense", "n"), ("two stores", "nk"), ("in place", "k")])
def test_one_row(name: str, kind: str, symbolic: str) -> None:
    for shape in SHAPES:
        contraction = forms("float32", kind, shape, symbolic)
        sizes = dict(zip("mnk", shape))
        check(contraction, sizes, flat_arrays(contraction, sizes, np.random.default_rng(1)), Product(contraction, name))


@pytest.mark.parametrize("storage, dtype", [("float16", "float32"), ("bfloat16", "float32"), ("int8", "int32")])
def test_storage_of_one_row(storage: str, dtype: str) -> None:
    contraction = plain(1, Dim.symbol("n"), 77, dtype=dtype, storage=storage)
    for n in (0, 1, 33, 4100):
        sizes = {"n": n}
        check(contraction, sizes, flat_arrays(contraction, sizes, np.random.default_rng(2)), Product(contraction))


def test_bits_of_one_row_do_not_depend_on_the_number_of_columns() -> None:
    product, rng = Product(plain(1, Dim.symbol("n"), 75)), np.random.default_rng(3)
    a, b = rng.standard_normal(75).astype("float32"), rng.standard_normal((75, 4200)).astype("float32")
    whole = np.zeros(4200, "float32")
    product({"n": 4200}, a, b, whole)
    for n in (1, 15, 33, 4097):
        part = np.zeros(n, "float32")
        product({"n": n}, a, np.ascontiguousarray(b[:, :n]), part)
        np.testing.assert_array_equal(part, whole[:n])


def run_guarded(name: str) -> None:
    for shape in SHAPES:
        for symbolic in ("", "nk"):
            contraction = forms("float32", "dense", shape, symbolic)
            assert axpy.fits(contraction) or shape[0] > 1 or not symbolic
            sizes = dict(zip("mnk", shape))
            product, arrays = Product(contraction, name), flat_arrays(contraction, sizes, np.random.default_rng(4))
            size = -(-evaluate(product.workspace_size, sizes) // 64) * 64
            for at_end in (True, False):
                scratch = guarded(np.full(size, 0xFF, np.uint8), at_end=at_end)
                product.workspace = lambda _, place=scratch.ctypes.data: place  # type: ignore[method-assign]
                check(contraction, sizes, arrays, product, [guarded(array, at_end=at_end) for array in arrays])


@pytest.mark.parametrize("name", TARGETS)
def test_one_row_touches_nothing_outside_the_buffers(name: str) -> None:
    script = f"import test_matvec as t; t.run_guarded({name!r})"
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
