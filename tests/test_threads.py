"""Threads: the pool's promises, the same bits for any number of threads, and what happens at the edges of a process."""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from codegen import regions
from codegen.cache import Cache
from codegen.gemm import ranges
from codegen.jit import compile_text, load
from codegen.pool import RUN, process_pool
from codegen.regions import Axis, Call, Regions
from codegen.target import target
from codegen.text import Function, Module
import graphc as gc
from graphc import function
from graphc.ir.node import Graph, Node
from tests.elf_programs import runs_here, tool
from tests.products import Product
from tests.test_contraction import flat_arrays, random_case
from tests.test_lower import CASES

HERE = Path(__file__).parent
CHUNKS, SLOTS = 64, 8
pytestmark = runs_here


# -- the pool --
BODIES = f"""
declare void @graphc_pool_run(ptr, ptr, i64, i64)
define void @count(ptr %words, i64 %chunk, i64 %slot) {{
  %place = getelementptr i64, ptr %words, i64 %chunk
  %once = atomicrmw add ptr %place, i64 1 monotonic
  %slots = getelementptr i64, ptr %words, i64 {CHUNKS}
  %mine = getelementptr i64, ptr %slots, i64 %slot
  %inside = atomicrmw add ptr %mine, i64 1 seq_cst
  br label %loop
loop:
  %i = phi i64 [0, %0], [%next, %loop]
  %next = add i64 %i, 1
  %spent = load volatile i64, ptr %place
  %more = icmp ult i64 %next, 300
  br i1 %more, label %loop, label %done
done:
  %left = atomicrmw sub ptr %mine, i64 1 seq_cst
  %alone = icmp eq i64 %inside, 0
  %clash = select i1 %alone, i64 0, i64 1
  %clashes = getelementptr i64, ptr %slots, i64 {SLOTS}
  %counted = atomicrmw add ptr %clashes, i64 %clash monotonic
  ret void
}}
define void @nested(ptr %words, i64 %chunk, i64 %slot) {{
  call void @graphc_pool_run(ptr @count, ptr %words, i64 {CHUNKS}, i64 3)
  ret void
}}
"""


class Pool:
    """The pool of this process, with bodies that count what is done; two in one slot at a time are a clash."""

    def __init__(self) -> None:
        chosen = target("native")
        pool = process_pool(Cache(HERE, 0))
        self.bodies = load(compile_text(BODIES, chosen), ["count", "nested"], chosen, pool.addresses, pool)
        self.run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
            pool.addresses[RUN])

    def counts(self, threads: int, body: str = "count", chunks: int = CHUNKS, times: int = 1) -> np.ndarray:
        words = np.zeros(CHUNKS + SLOTS + 1, np.int64)
        for _ in range(times):
            self.run(self.bodies.addresses[body], words.ctypes.data, chunks, threads)
        assert body == "nested" or not words[CHUNKS:].any()  # a region inside has slots of its own
        return words[:chunks]


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool()


def tasks() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 2])
def test_every_chunk_is_done_once(pool: Pool, threads: int) -> None:
    assert (pool.counts(threads, times=200) == 200).all()


@pytest.mark.parametrize("chunks", [0, 1, 2, 3])
def test_few_chunks(pool: Pool, chunks: int) -> None:
    assert (pool.counts(4, chunks=chunks, times=50) == 50).all()


def test_a_region_inside_a_region_is_done_in_line(pool: Pool) -> None:
    assert (pool.counts(3, "nested", times=5) == 5 * CHUNKS).all()


def test_callers_at_once_are_counted_exactly(pool: Pool) -> None:
    results: list[np.ndarray] = []
    run_at_once(lambda _: results.append(pool.counts(3, times=100)), 8)
    assert len(results) == 8 and all((r == 100).all() for r in results)


def run_at_once(work: Callable[[int], object], count: int) -> None:
    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a fork that does the work, within ten seconds."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process")  # Python warns of forks with threads
def test_a_fork_goes_on_and_so_does_its_parent(pool: Pool) -> None:
    def work() -> None:
        before = tasks()
        assert (pool.counts(3, times=50) == 50).all()
        assert tasks() == before + 2
    for _ in range(3):
        pool.counts(3)
        assert in_child(work) == 0
        assert (pool.counts(3, times=50) == 50).all()


@pytest.mark.filterwarnings("ignore:This process")
def test_a_fork_while_others_are_inside_regions(pool: Pool) -> None:
    stop = threading.Event()

    def busy(_: int) -> None:
        while not stop.is_set():
            pool.counts(3)
    others = [threading.Thread(target=busy, args=(0,)) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        codes = [in_child(lambda: pool.counts(3, times=20)) for _ in range(20)]
    finally:
        stop.set()
        for thread in others:
            thread.join()
    assert codes == [0] * 20


PROCESS = """
import os
import numpy as np
import graphc as gc
def tasks(): return len(os.listdir("/proc/self/task"))
before = tasks()
x = gc.placeholder("float32", ("n",), name="x")
with gc.Session(threads=3) as sess:
    f = sess.function([x], gc.exp(gc.tanh(x)))
    f(np.zeros(8, "f")), f(np.zeros(8, "f"))
    assert tasks() == before, "a small call starts no thread"
    f(np.zeros(1 << 20, "f"))
    assert tasks() == before + 2, "a region starts what is missing"
    f(np.zeros(1 << 20, "f"))
    assert tasks() == before + 2
with gc.Session(threads=1) as sess:
    sess.run(gc.tanh(x), {x: np.zeros(1 << 20, "f")})
print("done")
"""


def test_threads_start_with_the_first_region_and_end_with_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


# -- the same bits --
@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the smallest steps are cut into pieces."""
    monkeypatch.setattr(regions, "REGION", 0)
    monkeypatch.setattr(regions, "PIECE", 1)
    monkeypatch.setattr(ranges, "REGION", 0)


def results(build: Callable[[], tuple[list[Node], list[Node], dict[Node, Node]]], arrays: list[np.ndarray],
            threads: int, times: int = 1) -> list[np.ndarray]:
    """What a function returns and leaves in the variables after so many calls."""
    with Graph():
        inputs, outputs, updates = build()
        with gc.Session(threads=threads, cache=False) as sess:  # plans do not know of the fixture `shared`
            f = sess.function(inputs, outputs, updates=updates)
            for _ in range(times):
                found = f(*arrays)
            return [*found, *(sess.value(v) for v in updates)]


def assert_same_bits(build: Callable[[], tuple[list[Node], list[Node], dict[Node, Node]]], arrays: list[np.ndarray],
                     times: int = 1) -> None:
    one, *others = (results(build, arrays, threads, times) for threads in (1, 2, 3))
    for more in others:
        for a, b in zip(one, more, strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def training_step(batch: int | str, width: int) -> tuple[list[Node], list[Node], dict[Node, Node]]:
    x = gc.placeholder("float32", (batch, 64), name="x")
    t = gc.placeholder("int32", (batch,), name="t")
    hidden = gc.nn.dense(x, width, gc.nn.relu, name="a")
    loss = gc.nn.softmax_cross_entropy(gc.nn.dense(hidden, 10, name="b"), t).mean()
    return [x, t], [loss], dict(gc.optim.Adam(1e-2).minimize(loss))


@pytest.mark.parametrize("batch, width", [("n", 128), (67, 256), (256, 517)])
def test_a_training_step(batch: int | str, width: int) -> None:
    rng = np.random.default_rng(0)
    count = batch if isinstance(batch, int) else 301
    arrays = [rng.standard_normal((count, 64)).astype("f"), rng.integers(0, 10, count).astype("int32")]
    assert_same_bits(lambda: training_step(batch, width), arrays, times=5)


@pytest.mark.usefixtures("shared")
def test_a_small_training_step_in_pieces() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((33, 64)).astype("f"), rng.integers(0, 10, 33).astype("int32")]
    assert_same_bits(lambda: training_step("n", 37), arrays, times=3)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", CASES)
def test_programs_in_pieces(name: str) -> None:
    def build() -> tuple[list[Node], list[Node], dict[Node, Node]]:
        n = gc.placeholder("float64", ("batch", 16), name="n")
        return [n], CASES[name](n), {}
    for batch in (1, 2, 7, 130):
        assert_same_bits(build, [np.random.default_rng(batch).standard_normal((batch, 16))])


@pytest.mark.usefixtures("shared")
def test_products_in_pieces() -> None:
    """Any cuts of any product give the bits of the whole."""
    cut = 0
    for seed in range(16):
        contraction, sizes = random_case(seed)
        product = Product(contraction)
        arrays = flat_arrays(contraction, sizes, np.random.default_rng(seed))
        found = []
        for pieces in (1, 2, 3, 7):
            copies = [a.copy() for a in arrays]
            product(sizes, *copies, pieces=pieces)
            found.append([c.tobytes() for c in copies])
        cut += bool(product.ranges)
        assert found[1:] == found[:-1], seed
    assert cut > 12


@pytest.mark.parametrize("shape", [(1, 700, 900), (900, 700, 1), (3, 1000, 333), (33, 129, 4000), (257, 300, 301),
                                   (1000, 1200, 17), (64, 10, 3000)])
def test_products_of_odd_sizes(shape: tuple[int, int, int]) -> None:
    m, k, n = shape

    def build() -> tuple[list[Node], list[Node], dict[Node, Node]]:
        a, b = gc.placeholder("float32", (m, k), name="a"), gc.placeholder("float32", (k, n), name="b")
        return [a, b], [gc.tanh(a @ b)], {}
    rng = np.random.default_rng(m)
    assert_same_bits(build, [rng.standard_normal((m, k)).astype("f"), rng.standard_normal((k, n)).astype("f")])


@pytest.mark.parametrize("shape", [(7, 40, 50, 60), (2, 100, 90, 200), (50, 9, 200, 31)])
def test_batched_products(shape: tuple[int, int, int, int]) -> None:
    h, m, k, n = shape

    def build() -> tuple[list[Node], list[Node], dict[Node, Node]]:
        a, b = gc.placeholder("float64", ("h", m, k), name="a"), gc.placeholder("float64", ("h", k, n), name="b")
        return [a, b], [a @ b], {}
    rng = np.random.default_rng(m)
    arrays = [rng.standard_normal((h, m, k)), rng.standard_normal((h, k, n))]
    assert_same_bits(build, arrays)
    np.testing.assert_allclose(results(build, arrays, 3)[0], arrays[0] @ arrays[1], rtol=1e-12, atol=1e-12)


def test_chunks_touch_nothing_outside_the_buffers() -> None:
    script = HERE / "program_guards.py"
    done = subprocess.run([sys.executable, str(script), "3"], cwd=HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"after {done.stdout[-300:]}\n{done.stderr[-3000:]}"


# -- how work is cut --
def grid(extents: list[int], multiples: list[int], block: int, wanted: int) -> list[int]:
    """Length along each axis of at least so many pieces, as the emitted code finds it."""
    module = Module()
    f = Function(module, "define void @cut(ptr %out) #0")
    writer = Regions(f)
    axes = tuple(Axis(e, m, block if k == len(extents) - 1 else m) for k, (e, m) in enumerate(zip(extents, multiples)))
    call = Call("step", (), axes, len(axes) > 1)
    for k, length in enumerate(writer.lengths(call, wanted)):
        f.emit(f"store i64 {length}, ptr {f.element('i64', '%out', k)}, align 8")
    f.emit("ret void")
    module.add("cut", f.text())
    for signature in ("i64 @llvm.umin.i64(i64, i64)", "i64 @llvm.umax.i64(i64, i64)"):
        module.declare(signature)
    loaded = load(compile_text(module.text(), target("native")), ["cut"], target("native"))
    out = (ctypes.c_int64 * len(extents))()
    loaded.function("cut", None, ctypes.c_void_p)(ctypes.addressof(out))  # type: ignore[operator]
    return list(out)


def test_pieces_are_square_and_not_too_small() -> None:
    assert grid([1024, 1024], [14, 32], 512, 8) == [266, 512]
    assert grid([64, 10000], [14, 32], 512, 8)[0] == 70, "few rows are not cut"
    assert grid([10000, 64], [14, 32], 512, 8)[1] == 64, "few columns are not cut"
    assert grid([5, 1000, 1000], [1, 14, 32], 512, 8)[0] == 1, "batches first"
    assert grid([1000], [16], 16, 8) == [128]
    assert grid([1000], [16], 16, 0) == [1008]
    assert grid([3], [1], 1, 8) == [1]


# -- functions --
def test_python_threads_call_one_function() -> None:
    with Graph():
        x = gc.placeholder("float64", ("n",), name="x")
        w = gc.variable(np.zeros(()), name="w")
        with gc.Session(threads=3) as sess:
            f = sess.function([x], gc.exp(gc.tanh(x)) * gc.sigmoid(x))
            count = sess.function([x], gc.tanh(x) + w, updates={w: w + 1})
            wrong: list[int] = []

            def work(k: int) -> None:
                data = np.linspace(-k, k, 20000 + 7000 * k)
                wanted = f(data).tobytes()
                for _ in range(25):
                    if f(data).tobytes() != wanted or count(data).shape != data.shape:
                        wrong.append(k)
            run_at_once(work, 8)
            assert not wrong and sess.value(w) == 200


@pytest.mark.filterwarnings("ignore:This process")
def test_a_function_after_a_fork() -> None:
    with Graph():
        x = gc.placeholder("float64", (300, 400), name="x")
        with gc.Session(threads=2) as sess:
            f = sess.function([x], gc.tanh(x @ x.T))
            data = np.random.default_rng(0).standard_normal((300, 400))
            wanted = f(data).tobytes()

            def work() -> None:
                assert all(f(data).tobytes() == wanted for _ in range(5))
            for _ in range(2):
                assert in_child(work) == 0
                work()


def test_a_range_check_comes_before_any_work() -> None:
    with Graph():
        i = gc.placeholder("int64", ("n",), name="i")
        table = gc.variable(np.ones((5, 30000)), name="table")
        with gc.Session(threads=2) as sess:
            f = sess.function([i], [], updates={table: gc.tanh(table) * gc.take(table, i, 0).sum()})
            with pytest.raises(gc.GraphError, match="index"):
                f(np.array([1, 7]))
            assert (sess.value(table) == 1).all()


def test_the_code_is_the_same_for_any_number() -> None:
    keys = set()
    with Graph():
        x = gc.placeholder("float32", ("n", 300), name="x")
        y = gc.tanh(x @ gc.variable(np.ones((300, 200), "f"), name="w"))
        for threads in (1, 2, 7):
            with gc.Session(threads=threads) as sess:
                f = sess.function([x], y)
                assert isinstance(f, function.Function) and f.compiled.key is not None
                keys.add(f.compiled.key.name)
    assert len(keys) == 1


# -- libraries --
def big_entries() -> dict[str, gc.Signature]:
    x = gc.placeholder("float32", ("n", 300), name="x")
    w = gc.variable(np.random.default_rng(0).standard_normal((300, 200)).astype("f"), name="w")
    return {"layer": gc.signature([x], gc.tanh(x @ w))}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of threads, the same library."""
    found = {}
    for threads in (1, 2):
        with Graph():
            entries = big_entries()
            with gc.Session() as sess:
                found[threads] = gc.compile_library(tmp_path_factory.mktemp(f"t{threads}"), "big", entries, sess,
                                                    threads=threads)
    return found


XS = np.random.default_rng(1).standard_normal((500, 300)).astype("f")


def test_a_library_with_two_threads(libraries: dict[int, Path]) -> None:
    one, two = (gc.load_library(libraries[threads]) for threads in (1, 2))
    wanted = one.layer(XS)
    before = tasks()
    assert two.layer(XS[:2]).tobytes() == one.layer(XS[:2]).tobytes() and tasks() == before
    assert two.layer(XS).tobytes() == wanted.tobytes() and tasks() == before + 1
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(30):
            if two.layer(XS[:300 + k]).tobytes() != wanted[:300 + k].tobytes():
                wrong.append(k)
    run_at_once(work, 2)
    assert not wrong
    for _ in range(200):  # a thread that was joined may be there for a moment longer
        if tasks() == before + 1:
            return
        time.sleep(0.01)
    raise AssertionError(f"{tasks()} tasks, {before} before")


@pytest.mark.filterwarnings("ignore:This process")
def test_a_library_after_a_fork(libraries: dict[int, Path]) -> None:
    lib = gc.load_library(libraries[2])
    wanted = lib.layer(XS).tobytes()

    def work() -> None:
        assert all(lib.layer(XS).tobytes() == wanted for _ in range(5))
    assert in_child(work) == 0
    work()


def test_only_a_library_with_threads_needs_libc(libraries: dict[int, Path]) -> None:
    assert "NEEDED" not in tool("readelf", "-d", libraries[1])
    text = tool("readelf", "-d", libraries[2])
    assert "libc.so.6" in text and "NODELETE" in text
    with Graph(), gc.Session(threads=2) as sess:
        entries = big_entries()
        path = gc.compile_library(libraries[1].with_name("plain"), "big", entries, sess)
        assert path.read_bytes() == libraries[1].read_bytes(), "a session's threads are its own"
        with pytest.raises(gc.GraphError, match="freestanding"):
            gc.compile_library(path.parent, "big", entries, sess, threads=2, freestanding=True)


C_MAIN = """
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include "big.h"
static float x[500 * 300];
static float results[2][500 * 200];
static void *work(void *p) {
    float *y = p;
    int64_t nbytes = big_layer_workspace_size(500);
    void *workspace = aligned_alloc(64, (nbytes + 63) / 64 * 64);
    for (int i = 0; i < 50; i++)
        if (big_layer(500, x, y, workspace) != BIG_OK) exit(3);
    free(workspace);
    return 0;
}
int main(void) {
    pthread_t other;
    for (int i = 0; i < 500 * 300; i++) x[i] = (float)(i % 17) / 17;
    pthread_create(&other, 0, work, results[0]);
    work(results[1]);
    pthread_join(other, 0);
    for (int i = 0; i < 500 * 200; i++)
        if (results[0][i] != results[1][i]) return 4;
    printf("%.9g\\n", results[0][777]);
    return 0;
}
"""


def test_a_library_from_two_threads_in_c(libraries: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(C_MAIN)
    folder = libraries[2].parent
    tool("cc", tmp_path / "main.c", f"-I{folder}", libraries[2], "-lpthread", f"-Wl,-rpath,{folder}", "-o",
         tmp_path / "main")
    shown = tool(str(tmp_path / "main"))
    inputs = (np.arange(500 * 300) % 17).astype("f") / np.float32(17)
    wanted = gc.load_library(libraries[1]).layer(inputs.reshape(500, 300))
    assert float(shown) == float(f"{wanted.flat[777]:.9g}")


C_STATIC = """
#include <stdlib.h>
#include <stdio.h>
#include "one.h"
#include "two.h"
static float x[500 * 300], y[500 * 200], z[500 * 200];
int main(void) {
    void *first = aligned_alloc(64, (one_layer_workspace_size(500) + 63) / 64 * 64);
    void *second = aligned_alloc(64, (two_layer_workspace_size(500) + 63) / 64 * 64);
    for (int i = 0; i < 500 * 300; i++) x[i] = (float)(i % 17) / 17;
    if (one_layer(500, x, y, first) || two_layer(500, x, z, second)) return 3;
    for (int i = 0; i < 500 * 200; i++)
        if (y[i] != z[i]) return 4;
    return 0;
}
"""


def test_two_static_libraries_share_a_pool(tmp_path: Path) -> None:
    with Graph(), gc.Session() as sess:
        entries = big_entries()
        for name, threads in (("one", 2), ("two", 3)):
            gc.compile_library(tmp_path, name, entries, sess, threads=threads, emit=["a"])
    (tmp_path / "main.c").write_text(C_STATIC)
    tool("cc", tmp_path / "main.c", tmp_path / "libone.a", tmp_path / "libtwo.a", "-lpthread", "-o", tmp_path / "main")
    tool(str(tmp_path / "main"))
