"""What calls share: variables and their lock, memory, and the same native call for the entries of libraries."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
import time

import numpy as np
import pytest

from codegen.pyobjects import layout_is_known
from codegen.pyruntime import GATE, LINKS
import graphc as gc
from graphc.entries import Entry
from graphc.function import Function

pytestmark = pytest.mark.skipif(not layout_is_known(), reason="Python objects of another layout")


@pytest.fixture
def sess():
    with gc.Graph(), gc.Session() as session:
        yield session


def connected(sess, inputs, outputs, updates=None):
    f = sess.function(inputs, outputs, updates)
    f.connect()
    return f


def count_slow(f, kind=Function):
    """A list that grows with every call that is left to Python."""
    calls = []
    f.slow = lambda *args, out=None: calls.append(args) or kind.slow(f, *args, out=out)
    return calls


def run_threads(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- variables --
@pytest.mark.parametrize("calls", [1500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_updates_of_eight_threads_are_all_made(sess, calls):
    v = gc.variable(np.zeros(70), name="v")
    x = gc.placeholder("float64", (), name="x")
    wide = gc.placeholder("float64", ("n",), name="wide")
    short = connected(sess, [x], [], updates={v: v + x})
    long = connected(sess, [wide], [], updates={v: v + gc.mean(wide)})
    one, many, few = 1.0, np.ones(100_000), calls // 100
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        run_threads(*[lambda: [short(one) for _ in range(calls)]] * 4, *[lambda: [long(many) for _ in range(few)]] * 2,
                    lambda: [short(np.float32(1)) for _ in range(few)], lambda: [sess.value(v) for _ in range(few)])
    finally:
        sys.setswitchinterval(old)
    assert sess.value(v).tolist() == [4 * calls + 3 * few] * 70


def test_a_call_waits_for_who_holds_the_lock(sess):
    v = gc.variable(np.zeros(3), name="v")
    f = connected(sess, [], [v], updates={v: v + 1})
    done = threading.Event()
    with sess.lock:
        thread = threading.Thread(target=lambda: (f(), done.set()))
        thread.start()
        assert not done.wait(0.05)
        assert f()[0].tolist() == [0] * 3  # who holds it may call
    thread.join()
    assert done.is_set() and sess.value(v).tolist() == [2] * 3
    calls = count_slow(f)
    f()
    assert not calls


def test_a_long_call_holds_the_lock(sess):
    v = gc.variable(np.zeros(3), name="v")
    x = gc.placeholder("float64", ("n",), name="x")
    long = connected(sess, [x], [], updates={v: v + gc.sum(gc.tanh(x) * 0 + 1)})
    short = connected(sess, [], [v])
    many = np.zeros(20_000_000)
    thread = threading.Thread(target=lambda: long(many))
    calls = count_slow(short)
    thread.start()
    while thread.is_alive() and not sess.lock.words[GATE["held"]]:
        time.sleep(1e-4)
    seen = short()[0][0]
    thread.join()
    assert calls and seen == many.size and sess.lock.words[GATE["held"]] == 0


def test_interrupted_waiting_changes_nothing(sess):
    v = gc.variable(np.zeros(3), name="v")
    x = gc.placeholder("float64", ("n",), name="x")
    long = connected(sess, [x], [v + gc.sum(x), x * 2], updates={v: v + 1})
    many = np.ones(100_000)

    def refuse():
        raise KeyboardInterrupt

    before = sys.getrefcount(many)
    from codegen.pytype import set_words
    set_words(long, acquire=id(refuse))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            long(many)
    assert sess.value(v).tolist() == [0] * 3 and sys.getrefcount(many) == before


def test_every_function_of_a_closed_session_says_so(sess):
    x = gc.placeholder("float64", (), name="x")
    v = gc.variable(np.zeros(2), name="v")
    functions = [connected(sess, [x], x * k + v) for k in range(3)]
    assert [f(1.0).tolist() for f in functions] == [[0] * 2, [1] * 2, [2] * 2]
    sess.close()
    for f in functions:
        for out in (None, np.zeros(2)):
            with pytest.raises(gc.SessionError, match="closed"):
                f(1.0, out=out)


# -- memory --
def arenas(gate):
    """The addresses of the arenas that are free."""
    found, at = [], gate.words[GATE["free"]]
    while at:
        found.append(at)
        at = ctypes.c_int64.from_address(at + 8 * LINKS["next"]).value
    return found


def hungry(sess, name, size=64):
    """A function that needs an arena in proportion to the length of its input."""
    x = gc.placeholder("float64", ("n", size), name=name)
    return connected(sess, [x], gc.sum(gc.nn.softmax(x @ x.T, axis=0) @ x, axis=0))


def test_functions_of_a_session_share_an_arena(sess):
    functions = [hungry(sess, "x"), hungry(sess, "y", 8)]
    for f, size in zip(functions * 2, (64, 8) * 2):
        for n in (3, 90, 20):
            f(np.ones((n, size)))
            (address,) = arenas(sess.lock)
            assert address % 64 == 0
    sess.close()
    assert arenas(sess.lock) == []


def test_threads_have_arenas_of_their_own(sess):
    f = hungry(sess, "x")
    inputs = [np.random.default_rng(k).standard_normal((200 + 40 * k, 64)) for k in range(4)]
    wanted = [f(a) for a in inputs]
    wrong = []

    def work(k):
        return lambda: wrong.extend(k for _ in range(40) if not np.array_equal(f(inputs[k]), wanted[k]))

    run_threads(*map(work, range(4)))
    assert not wrong and 1 <= len(arenas(sess.lock)) <= 4


def test_the_second_call_finds_its_memory_in_place(sess):
    f = hungry(sess, "x")
    a, out = np.ones((1000, 64)), np.empty(64)
    for _ in range(3):
        f(a, out=out)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        f(a, out=out)
    # An arena of 8 MB that were new would be 2,000 faults a call.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_calls_leave_nothing(sess, count):
    x, k = gc.placeholder("float64", ("n",), name="x"), gc.placeholder("float64", (), name="k")
    v = gc.variable(np.zeros(3), name="v")
    f = connected(sess, [x, k], [x * k, gc.sum(x), v], updates={v: v + k})
    a, outs = np.ones(10), [np.empty(10), np.empty(()), np.empty(3)]

    def calls(count):
        for _ in range(count // 4):
            f(a, 1.0)
            f(a, 2)
            f(a, 0.5, out=outs)
            f(a, np.float64(1), out=None)

    calls(2000)
    before = resident()
    calls(count)
    assert resident() - before <= 1 << 20


# -- libraries --
@pytest.fixture
def lib(tmp_path):
    with gc.Graph(), gc.Session() as session:
        x = gc.placeholder("float32", ("n", 3), name="x")
        k = gc.placeholder("float32", (), name="k")
        w = gc.variable(np.full(3, 2, "f"), name="w")
        i = gc.placeholder("int64", ("m",), name="i")
        gc.compile_library(str(tmp_path), "things", {
            "scaled": gc.signature([x, k], x * k),
            "step": gc.signature([x], [gc.sum(x * w, axis=1), gc.sum(w)], updates={w: w + 1}),
            "matrix": gc.signature([x], gc.nn.softmax(x @ x.T, axis=0) @ x),
            "picked": gc.signature([x, i], gc.take(x, i, axis=0)),
        }, session=session)
    library = gc.load_library(tmp_path / "libthings.so")
    for entry in library.entries.values():
        entry.connect()
    return library


X = np.arange(12, dtype="f").reshape(4, 3)


def test_entries_are_called_natively(lib):
    calls = [count_slow(entry, Entry) for entry in lib.entries.values()]
    np.testing.assert_array_equal(lib.scaled(X, 3), X * 3)
    out = np.empty_like(X)
    assert lib.scaled(X, 0.5, out=out) is out and np.array_equal(out, X / 2)
    for k in range(3):
        rows, total = lib.step(X)
        assert rows.tolist() == (X.sum(axis=1) * (2 + k)).tolist() and total == 6 + 3 * k
        assert type(total) is np.float32
    large = np.ones((500, 3), "f")
    np.testing.assert_allclose(lib.matrix(large), large, rtol=1e-5)
    np.testing.assert_array_equal(lib.picked(X, np.array([1, -1])), X[[1, 3]])
    assert calls == [[]] * 4
    with pytest.raises(gc.GraphError, match="picked"):
        lib.picked(X, np.array([9]))
    assert calls == [[]] * 4  # it was native code that refused
    with pytest.raises(gc.ShapeError):
        lib.scaled(X[:, :2], 1)


def test_variables_of_a_library_may_be_replaced(lib):
    lib.state["w"] = np.zeros(3, "f")
    assert lib.step(X)[1] == 0 and lib.state["w"].tolist() == [1] * 3
    good = lib.state["w"]
    for wrong in (np.zeros(3), np.zeros(4, "f"), [1, 2, 3], np.zeros(6, "f")[::2], None):
        lib.state["w"] = wrong
        with pytest.raises(gc.GraphError):
            lib.step(X)
    del lib.state["w"]
    with pytest.raises(gc.SessionError, match="no value"):
        lib.step(X)
    lib.state = {"w": good}
    good.flags.writeable = False
    with pytest.raises(gc.FeedError, match="read-only"):
        lib.step(X)
    good.flags.writeable = True
    assert lib.step(X)[1] == 3 and dict(lib.state) == {"w": good} and good[0] == 2
    with pytest.raises(gc.FeedError, match="shares memory"):
        lib.step(X, out=[np.empty(4, "f"), good[:1].reshape(())])


def test_threads_that_step_a_library(lib):
    run_threads(*[lambda: [lib.step(X) for _ in range(500)]] * 3, lambda: [lib.step(X.tolist()) for _ in range(50)])
    assert lib.state["w"].tolist() == [2 + 1550] * 3


def test_a_variable_that_is_replaced_while_it_is_used(lib):
    large = np.ones((300_000, 3), "f")
    stop = threading.Event()

    def replace():
        while not stop.is_set():
            lib.state["w"] = np.ones(3, "f")

    thread = threading.Thread(target=replace)
    thread.start()
    for _ in range(20):
        assert set(lib.step(large)[0].tolist()) <= {3.0, 6.0}
    stop.set()
    thread.join()


def test_entries_keep_their_library(tmp_path, lib):
    step = lib.step
    del lib
    assert step(X)[1] == 6
