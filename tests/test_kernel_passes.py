"""What kernels do to be fast: maxima that may drop NaN, prefetches, blocks of tiles, stores past the caches."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from kernel_cases import (
    Builder,
    D,
    N,
    adam,
    arguments_of,
    bias,
    elementwise,
    folded,
    layer_norm,
    mixed,
    reference,
    softmax,
    streamed,
    transpose,
)
from native import executable_targets
from native_kernel import Native

from codegen import streams
from codegen.kernel import emit_kernel
from codegen.nans import with_fast_maxima
from codegen.roles import BLOCK
from codegen.streams import AHEAD, LONGEST_ROW
from codegen.target import target
from codegen.text import Module
import graphc as gc
from graphc.ir.dims import Dim
from graphc.ir.plan import Kernel
from passes.lower import Request, lower


def centred(monoid_of_sum: str = "add", *, stores_maximum: bool = False, compares: bool = False) -> Kernel:
    """exp(x - max) over its sum, and what else is asked for."""
    b = Builder((N, D), ("float32",) * 3)
    x = b.load(0)
    m = b.reduce("max", x, 1)
    e = b.f("exp", b.f("sub", x, m))
    z = b.reduce(monoid_of_sum, e, 1)
    b.store(1, b.f("div", e, z))
    if stores_maximum:
        b.store(2, m, (1, 0))
    if compares:
        b.store(2, b.f("where", b.f("eq", x, m, dtype="bool"), z, b.const(0.0)))
    return b.kernel()


def logsumexp() -> Kernel:
    """With a finite shift: where(isfinite(m), m, 0)."""
    b = Builder((N, D), ("float32", "float32"))
    x = b.load(0)
    m = b.reduce("max", x, 1)
    shift = b.f("where", b.f("lt", b.f("abs", m), b.const(np.inf), dtype="bool"), m, b.const(0.0))
    z = b.reduce("add", b.f("exp", b.f("sub", x, shift)), 1)
    b.store(1, b.f("add", shift, b.f("log", z)), (1, 0))
    return b.kernel()


def guarded() -> Kernel:
    """A loss of the row where its label is one, NaN elsewhere."""
    b = Builder((N, D), ("float32", "float32", "bool"))
    x = b.load(0)
    m = b.reduce("max", x, 1)
    loss = b.f("log", b.reduce("add", b.f("exp", b.f("sub", x, m)), 1))
    b.store(1, b.f("where", b.load(2, (1, 0)), loss, b.const(float("nan"))), (1, 0))
    return b.kernel()


def two_maxima() -> Kernel:
    """Each depends on the other's operand, and there is no sum."""
    b = Builder((N, D), ("float32", "float32"))
    x = b.load(0)
    m = b.reduce("max", x, 1)
    b.store(1, b.reduce("max", b.f("sub", x, m), 1), (1, 0))
    return b.kernel()


@pytest.mark.parametrize(("kernel", "is_fast"), [
    (centred(), True), (logsumexp(), True), (guarded(), True), (centred(stores_maximum=True), False),
    (centred(compares=True), False), (centred("min"), False), (two_maxima(), False),
    (folded((N, D), (1,), "max", "float32"), False), (folded((N, D), (1,), "max", "int32"), False)])
def test_maxima_drop_nan_only_where_it_comes_back(kernel, is_fast):
    monoids = [op.value[0] for op in with_fast_maxima(kernel).ops if op.kind == "reduce"]
    assert ("fastmax" in monoids) == is_fast


@pytest.mark.parametrize("kernel", [centred(), logsumexp(), guarded(), centred(stores_maximum=True), two_maxima()])
def test_nan_wherever_it_lies(kernel):
    native, rng = Native(kernel), np.random.default_rng(0)
    for d in (1, 5, 16, 64, 130, 300):
        x = rng.normal(0, 3, (8, d)).astype(np.float32)
        x[1, 0] = x[2, d // 2] = x[3, -1] = np.nan
        x[4], x[5, 0], x[6], x[7, d // 2] = np.nan, np.inf, -np.inf, -np.inf
        shapes = {"float32": (8, d), "bool": (8,)}
        found = [x, *(np.ones(shapes[dtype], dtype) for dtype in kernel.arguments[1:])]
        wanted = [a.copy() for a in found]
        with np.errstate(all="ignore"):
            reference(kernel, {"n": 8, "d": d}, wanted)
        native({"n": 8, "d": d}, *found)
        for a, w in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, w, rtol=2e-6, atol=1e-6)


def prefetches(kernel: Kernel) -> list[str]:
    """How far ahead of the pointer each prefetch of the kernel lies."""
    text = Native(kernel).module.text()
    addresses = re.findall(r"call void @llvm.prefetch.p0\(ptr (%v\d+),", text)
    found = []
    for address in addresses:
        match = re.search(rf"{re.escape(address)} = getelementptr float, ptr %v\d+, i64 (\S+)\n", text)
        assert match
        found.append(match[1])
    return found


def test_rows_fetch_the_next_row_once():
    assert set(prefetches(softmax(4096, 1024))) == {"1024"}
    assert len(prefetches(softmax(4096, 1024))) == 4  # one for each vector of the first pass
    assert set(prefetches(layer_norm(4096, 1024))) == {"1024"}  # not the rows that are the same every time


def test_lines_fetch_a_page_ahead():
    assert set(prefetches(adam(1 << 20))) == {str(AHEAD // 4)}
    assert set(prefetches(softmax(4, 1 << 20))) == {str(AHEAD // 4)}
    (ahead,) = set(prefetches(softmax(4096, D)))  # decided when the length is known
    assert f"{ahead} = select i1" in Native(softmax(4096, D)).module.text()
    assert 1024 * 4 <= LONGEST_ROW < (1 << 20) * 4


def test_what_needs_no_prefetch():
    assert not prefetches(softmax(16, 64))  # stays in cache
    assert not prefetches(bias(4096, 1024))  # waits for memory anyhow


def sum_of_transposes(n: int | Dim, d: int | Dim) -> Kernel:
    """One operand lies along the result's rows, the other across them."""
    b = Builder((n, d), ("float32",) * 3)
    b.store(2, b.f("add", b.load(0), b.load(1, (1, n))))
    return b.kernel()


@pytest.mark.parametrize("name", executable_targets())
def test_transposes_in_blocks(name):
    """Lengths that are multiples of the blocks or not, known or not, whole and in pieces."""
    long = 2 * BLOCK
    sizes = [(long, 3 * BLOCK), (long + 16, long + 32), (long + 1, long + 77), (long + 40, 5), (0, long), (long, 0)]
    rng = np.random.default_rng(1)
    for build, (n, d) in itertools.product((transpose, sum_of_transposes), sizes):
        arrays = [rng.random(n * d, np.float32) for _ in range(len(build(1, 1).arguments))]
        wanted = [a.copy() for a in arrays]
        reference(build(n, d), {}, wanted)
        for native, values in ((Native(build(n, d), name), {}), (Native(build(N, D), name), {"n": n, "d": d})):
            for pieces in (1, 5):
                arrays[-1][:] = -1
                native(values, *arrays, pieces=pieces)
                assert (arrays[-1] == wanted[-1]).all()


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(streams, "STREAMED_BYTES", 0)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "int64"])
def test_stores_past_the_caches_wherever_the_buffer_begins(dtype):
    """Rows begin at any multiple of an element; the bits are those of ordinary stores, also in pieces."""
    rng = np.random.default_rng(2)
    for kernel in (elementwise((N,), dtype, "add"), bias(N, D, dtype), mixed(N)):
        plain, fast = Native(kernel), Native(streamed(kernel))
        assert "!nontemporal !0" in fast.module.text()
        assert "nontemporal !0" not in plain.module.text()
        for n, d in [(0, 1), (1, 1), (3, 67), (5, 64), (150, 33), (1000, 1)]:
            sizes = {"n": n, "d": d}
            arrays = arguments_of(kernel, {s: sizes[s] for s in fast.symbols}, {}, rng)
            plain(sizes, *arrays)
            for shift, pieces in itertools.product((0, 1, 5), (1, 3)):
                again = [np.zeros(a.size + 8, a.dtype)[shift:][:a.size] for a in arrays]
                for a, b in zip(arrays, again, strict=True):
                    b[:] = a
                for k in fast.kernel.schedule.streamed:
                    again[k][:] = 0
                fast(sizes, *again, pieces=pieces)
                assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays, again, strict=True))


def test_what_goes_past_the_caches():
    """Outputs of elementwise kernels that nothing else uses, where they are or may be large; a fence follows."""
    shape = (4096, 4096)
    with gc.Graph():
        x, y, z = gc.placeholder("float32", shape), gc.placeholder("float32", ("n", 64)), gc.placeholder("int32", shape)
        small, read = gc.placeholder("float32", (8,)), z * 2
        made = lower(Request("main", (x, y, z, small), (
            x + 1.0, small * 2.0, gc.transpose(read), read, y - 1.0, gc.nn.softmax(gc.transpose(y)))))
    marks = {made.buffers[step.buffers[k]].name for step in made.steps for k in step.kernel.schedule.streamed}
    assert marks == {"output0", "output2", "output4"}  # not what is small, read again, or kept for a later pass
    for step in made.steps:
        text = Native(step.kernel).module.text()
        streams_out = bool(step.kernel.schedule.streamed) and step.label != "transpose"  # whose tiles are no lines
        assert ("sfence" in text) == ("nontemporal !0" in text) == streams_out


def test_heavy_and_foreign_kernels_store_as_usual():
    b = Builder((1 << 24,), ("float32", "float32"))
    b.store(1, b.f("exp", b.f("exp", b.f("exp", b.f("exp", b.load(0))))))
    assert "nontemporal !0" not in Native(streamed(b.kernel())).module.text()
    module = Module()
    emit_kernel(module, streamed(bias(1 << 20, 64)), target("aarch64"), "kernel")
    assert "nontemporal !0" not in module.text()
