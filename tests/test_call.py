"""The native call: what it takes itself, what it leaves to the slow path, and that nothing is lost or leaks."""

from __future__ import annotations

from collections import namedtuple
from contextlib import contextmanager, suppress
from functools import partial
import gc as collector
import os
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from codegen.pyobjects import layout_is_known
import graphc as gc
from graphc.function import Function
import graphc.gate

needs_layout = pytest.mark.skipif(not layout_is_known(), reason="Python objects of another layout")


@pytest.fixture
def sess():
    with gc.Graph(), gc.Session() as session:
        yield session


def native(sess, inputs, outputs, updates=None):
    """A function that uses the native call from the first call on."""
    f = sess.function(inputs, outputs, updates)
    f.connect()
    assert layout_is_known() == (f.native is not None)
    return f


@contextmanager
def slow_calls(f):
    """A list that grows with every call that the native one leaves to Python."""
    calls = []
    f.slow = lambda *args, out=None: calls.append(args) or Function.slow(f, *args, out=out)
    try:
        yield calls
    finally:
        del f.slow


def is_native(f, *args, **keywords):
    """Whether a call is done natively; whatever it gives or raises is lost."""
    with slow_calls(f) as calls:
        with suppress(gc.GraphError, MemoryError, ValueError):
            f(*args, **keywords)
    return not calls if layout_is_known() else None


def add(sess, dtype="float32", shape=("n",)):
    x, y = gc.placeholder(dtype, shape, name="x"), gc.placeholder(dtype, shape, name="y")
    return native(sess, [x, y], x + y)


A, B = np.arange(10, dtype="f"), np.full(10, 0.5, "f")


# -- results --
@needs_layout
def test_plain_arrays_take_the_native_call(sess):
    f = add(sess)
    out = np.empty(10, "f")
    with slow_calls(f) as calls:
        np.testing.assert_array_equal(f(A, B), A + B)
        assert f(A, B, out=out) is out and np.array_equal(out, A + B)
        assert type(f(A, B)) is np.ndarray and f(A, B).dtype == np.float32
        np.testing.assert_array_equal(f(A, B, out=None), A + B)
        np.testing.assert_array_equal(f(*[A, B], **{"out": None}), A + B)
        np.testing.assert_array_equal(partial(f, A)(B), A + B)
        assert partial(f, A, out=out)(B) is out
    assert not calls


@needs_layout
def test_the_native_call_is_made_for_the_second_call(sess):
    x = gc.placeholder("float32", ("n",), name="x")
    f = sess.function([x], x * 2)
    for made in (False, True, True):
        np.testing.assert_array_equal(f(A), A * 2)
        assert (f.native is not None) == made


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bool", "int8", "int16", "int32", "int64", "uint8",
                                   "uint16", "uint32", "uint64"])
def test_every_dtype(sess, dtype):
    x = gc.placeholder(dtype, ("n", 2), name="x")
    f = native(sess, [x], [x, gc.max(x, axis=0)])
    a = np.array([[0, 1], [1, 0], [1, 1]], dtype)
    for result, wanted in zip(f(a), (a, a.max(axis=0)), strict=True):
        assert result.dtype == a.dtype
        np.testing.assert_array_equal(result, wanted)
    assert is_native(f, a) is not False


def test_bfloat16_comes_back_as_float32(sess):
    x = gc.placeholder("bfloat16", (3,), name="x")
    f, g = native(sess, [x], x * 2), native(sess, [x], [x + 1, gc.sum(x)])
    a = np.array([1, 2.5, -3], "f")
    stored = (a.view(np.uint32) >> 16).astype(np.uint16)
    for given in (a, stored):
        assert f(given).dtype == np.float32
        np.testing.assert_array_equal(f(given), a * 2)
        np.testing.assert_array_equal(g(given)[0], a + 1)
        assert g(given)[1] == 0.5 and not isinstance(g(given)[1], np.ndarray)


def test_rank_zero_results_are_scalars(sess):
    x = gc.placeholder("float64", ("n",), name="x")
    one, several = native(sess, [x], gc.sum(x)), native(sess, [x], [gc.sum(x), x, gc.max(x)])
    assert type(one([1.0, 2.0])) is np.float64 and type(one(np.ones(4))) is np.float64
    total, same, most = several(np.arange(3.0))
    assert (type(total), type(same), type(most)) == (np.float64, np.ndarray, np.float64) and (total, most) == (3, 2)
    assert isinstance(several(np.arange(3.0)), list)


# -- numbers --
NUMBERS = [0, 1, -1, 7, 255, 256, -128, 2**31, 2**53 + 1, 2**62 + 3, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -2**63,
           10**400, True, False, 1.5, -0.0, 0.1, 1e300, float("nan"), float("inf"), 1j, None, "1", [2], (), np.ones(()),
           np.ones((), "i4"), np.ones(1), np.str_("1"), *(np.dtype(d).type(1) for d in "?bhilqBHILQefd")]
DTYPES = ["float64", "float32", "float16", "bfloat16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16",
          "uint32", "uint64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_mean_what_the_slow_path_makes_of_them(sess, dtype):
    x = gc.placeholder(dtype, (), name="x")
    f = native(sess, [x], [x, gc.stack([x, x])])
    for value in NUMBERS:
        outcomes = []
        for call in (f, f.slow):
            try:
                outcomes.append([(type(r), r.dtype, np.asarray(r).tobytes()) for r in call(value)])
            except gc.GraphError as fault:
                outcomes.append(str(fault))
        assert outcomes[0] == outcomes[1], value


@needs_layout
@pytest.mark.parametrize("dtype, values", {
    "float64": (1.5, 3, True, np.float64(2), np.ones(())),
    "float32": (1.5, -3, False, np.float64(2), np.float32(2), np.ones((), "f")),
    "int64": (3, True, np.int64(4)), "uint8": (255, True, np.uint8(7)), "bool": (True, False, np.True_),
    "float16": (np.float16(1.5),)}.items())
def test_numbers_take_the_native_call(sess, dtype, values):
    x = gc.placeholder(dtype, (), name="x")
    f = native(sess, [x], x)
    for value in values:
        assert is_native(f, value) and f(value) == value and type(f(value)) is np.dtype(dtype).type
    out = np.empty((), dtype)
    assert is_native(f, values[0], out=out) and out == values[0]


@needs_layout
def test_lists_and_tuples_of_results(sess):
    x = gc.placeholder("float64", ("n",), name="x")
    f = native(sess, [x], [x * 2, gc.sum(x)])
    a = np.arange(4.0)
    for kind in (list, tuple):
        out = kind([np.zeros(4), np.zeros(())])
        assert is_native(f, a, out=out) and f(a, out=out) is out
        assert out[0].tolist() == [0, 2, 4, 6] and out[1] == 6
        assert not is_native(f, a, out=kind(out[:1])) and not is_native(f, a, out=kind([*out, a]))
    pair = namedtuple("pair", "a b")(np.zeros(4), np.zeros(()))
    assert f(a, out=pair) is pair and pair.b == 6
    nothing = native(sess, [x], [])
    assert nothing(a) == [] and nothing(a, out=[]) == [] and nothing(a, out=()) == ()


def test_unknown_keywords(sess):
    f = add(sess)
    for keywords in ({"ouch": A}, {"out": A, "more": 1}, {"x": A}):
        with pytest.raises(TypeError, match="keyword"):
            f(A, B, **keywords)
    with pytest.raises((gc.FeedError, TypeError)):
        f(A, y=B)


def test_the_slow_path_means_the_same(sess, monkeypatch):
    fast = add(sess)
    monkeypatch.setattr(graphc.gate, "layout_is_known", lambda: False)
    monkeypatch.setattr(graphc.function, "callable_type", lambda kind: kind)
    x, y = sess.graph.placeholders["x"], sess.graph.placeholders["y"]
    with gc.Session(sess.graph) as other:
        slow = other.function([x, y], x + y)
        slow.connect()
        assert slow.native is None and type(slow) is Function
        compare_slow_and_fast(slow, fast)


def compare_slow_and_fast(slow, fast):
    np.testing.assert_array_equal(slow(A, B), fast(A, B))
    out = np.empty(10, "f")
    assert slow(A, B, out=out) is out and np.array_equal(out, A + B)


# -- what is not plain --
SWAPPED = A.astype(">f4")
UNALIGNED = np.zeros(41, np.uint8)[1:].view("f")
UNALIGNED[:] = A


CONVERTED = {"list": A.tolist(), "float64": A.astype("d"), "strided": np.repeat(A, 2)[::2], "swapped": SWAPPED,
             "unaligned": UNALIGNED, "int32": A.astype("i4"), "subclass": A.view(np.recarray),
             "other dtype object": A.astype(np.dtype("f4", metadata={"unit": "m"}))}
REFUSED = {"type": np.ndarray, "None": None, "text": "text", "complex": A.astype(complex), "rank 2": A.reshape(2, 5),
           "short": A[:9], "number": 3.0, "masked": np.ma.masked_array(A), "objects": A.astype(object)}


@pytest.mark.parametrize("other", CONVERTED.values(), ids=CONVERTED)
def test_other_arguments_are_converted(sess, other):
    f = add(sess)
    for arguments in ((other, B), (B, other)):
        assert not is_native(f, *arguments)
        np.testing.assert_array_equal(f(*arguments), A + B)


@pytest.mark.parametrize("other", REFUSED.values(), ids=REFUSED)
def test_other_arguments_are_explained(sess, other):
    f = add(sess)
    for arguments in ((other, B), (B, other)):
        assert not is_native(f, *arguments)
        with pytest.raises(gc.GraphError):
            f(*arguments)


def test_wrong_numbers_of_arguments(sess):
    f = add(sess)
    out = np.empty(10, "f")
    for arguments in ((), (A,), (A, B, out), (A, B, out, out)):
        with pytest.raises(gc.FeedError, match="expected 2 arguments"):
            f(*arguments)
    with pytest.raises(gc.FeedError):
        f(A, out=[B, out])
    x = sess.graph.placeholders["x"]
    two = native(sess, [x], [x + 1, x + 2])
    for wrong in ([], [out], [out, out, out]):
        with pytest.raises(gc.FeedError, match="expected 2 arrays"):
            two(A, out=wrong)
    first, second = np.empty(10, "f"), np.empty(10, "f")
    two(A, out=iter([first, second]))
    assert np.array_equal(first, A + 1) and np.array_equal(second, A + 2)


def test_bad_buffers_for_results(sess):
    f = add(sess)
    frozen = np.empty(10, "f")
    frozen.flags.writeable = False
    for out in (frozen, np.empty(9, "f"), np.empty(10), np.empty(20, "f")[::2], [0.0] * 10, np.empty((10, 1), "f")):
        with pytest.raises(gc.FeedError):
            f(A, B, out=out)


def test_results_that_overlap(sess):
    f = add(sess)
    room = np.arange(15, dtype="f")
    for start in (0, 3, 5):
        data = room.copy()
        inside = data[start:start + 10]
        other = room.copy()
        assert not is_native(f, other[:10], B, out=other[start:start + 10])
        wanted = data[:10] + B
        np.testing.assert_array_equal(f(data[:10], B, out=inside), wanted)
    x = sess.graph.placeholders["x"]
    two = native(sess, [x], [x + 1, x + 2])
    with pytest.raises(gc.FeedError, match="shares memory"):
        two(A, out=[room[:10], room[5:]])
    apart = np.zeros(30, "f")
    two(apart[:10], out=[apart[10:20], apart[20:]])
    assert np.array_equal(apart[10:], [1] * 10 + [2] * 10)


# -- sizes --
def test_sizes_must_agree(sess):
    x = gc.placeholder("float32", ("n", 3), name="x")
    y = gc.placeholder("float32", ("n",), name="y")
    f = native(sess, [x, y], gc.sum(x, axis=1) + y)
    np.testing.assert_array_equal(f(np.ones((4, 3), "f"), np.ones(4, "f")), [4] * 4)
    for a, b in (((4, 3), 5), ((4, 2), 4), ((3, 4), 3)):
        assert not is_native(f, np.ones(a, "f"), np.ones(b, "f"))
        with pytest.raises(gc.ShapeError):
            f(np.ones(a, "f"), np.ones(b, "f"))


def test_composite_sizes_and_checks(sess):
    n = gc.Dim.symbol("n")
    x = gc.placeholder("float32", ("n",), name="x")
    y = gc.placeholder("float32", (n * 2 + 1,), name="y")
    z = gc.placeholder("float32", ("m",), name="z")
    f = native(sess, [x, y, z], gc.concat([y, x]) + z)
    parts = [np.ones(k, "f") for k in (2, 5, 7)]
    np.testing.assert_array_equal(f(*parts), [2] * 7)
    assert is_native(f, *parts) is not False
    for sizes in ((2, 6, 8), (2, 5, 8), (2, 4, 6)):
        arrays = [np.ones(k, "f") for k in sizes]
        assert not is_native(f, *arrays)
        with pytest.raises(gc.ShapeError):
            f(*arrays)


def test_empty_arrays(sess):
    f = add(sess)
    assert f(np.empty(0, "f"), np.empty(0, "f")).shape == (0,)
    x = gc.placeholder("float32", ("a", "b"), name="m")
    g = native(sess, [x], gc.sum(x, axis=0))
    np.testing.assert_array_equal(g(np.empty((0, 3), "f")), [0, 0, 0])
    assert g(np.empty((3, 0), "f")).shape == (0,)


def test_results_that_no_memory_can_hold(sess):
    x = gc.placeholder("int8", ("n",), name="x")
    f = native(sess, [x], [gc.sum(x), x[:, None] + x[None, :].astype("int64")])
    before = sys.getrefcount(np.dtype("int64"))
    for _ in range(3):
        with pytest.raises(MemoryError):
            f(np.zeros(2**26, np.int8))
    assert abs(sys.getrefcount(np.dtype("int64")) - before) < 3
    y = gc.placeholder("int8", ("a", "b"), name="y")
    total = gc.sum(y, axis=0)
    g = native(sess, [y], total[:, None] + total[None, :])
    absurd = np.empty((0, 2**40), np.int8)
    assert not is_native(g, absurd)
    with pytest.raises((MemoryError, ValueError)):
        g(absurd)


# -- memory, variables and threads --
def big(sess):
    """A function that needs an arena and runs long for long inputs."""
    x = gc.placeholder("float32", ("n", 64), name="x")
    w = gc.constant(np.eye(64, dtype="f") * 0.5)
    y = x
    for _ in range(6):
        y = gc.tanh(y @ w) + gc.max(y @ w, axis=1, keepdims=True) * 0
    return native(sess, [x], y), x


def test_the_arena_grows(sess):
    f, _ = big(sess)
    wanted = f(np.ones((3, 64), "f"))[0]
    for n in (1, 300, 2, 50, 1000, 7):
        np.testing.assert_array_equal(f(np.ones((n, 64), "f")), np.tile(wanted, (n, 1)))


def test_threads_share_a_function(sess):
    f, _ = big(sess)
    inputs = [np.full((k * 97 + 5, 64), k + 1, "f") for k in range(6)]
    wanted = [f(a) for a in inputs]
    failures = []

    def work(number):
        for k in range(60):
            i = (number * 5 + k) % len(inputs)
            if not np.array_equal(f(inputs[i]), wanted[i]):
                failures.append(i)

    run_threads(work, 4)
    assert not failures


def run_threads(work, count):
    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@needs_layout
def test_long_calls_give_up_the_gil(sess):
    f, _ = big(sess)
    long = np.ones((200_000, 64), "f")
    out = np.empty_like(long)
    f(long[:10])
    assert any(ran_meanwhile(lambda: f(long, out=out)) for _ in range(20))  # on a busy machine it may have no core


def ran_meanwhile(call):
    """Whether another thread of Python ran in the middle of the call."""
    seen, ready, done = [], threading.Event(), threading.Event()

    def work():
        ready.set()
        while not done.is_set():
            seen.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    start = time.perf_counter()
    call()
    end = time.perf_counter()
    done.set()
    thread.join()
    return any(start + 0.2 * (end - start) < t < end - 0.2 * (end - start) for t in seen)


def test_updates_from_threads_are_all_made(sess):
    v = gc.variable(np.zeros(3), name="v")
    x = gc.placeholder("float64", (), name="x")
    f = native(sess, [x], [v], updates={v: v + x})
    one = np.ones(())
    run_threads(lambda _: [f(one) for _ in range(500)], 4)
    np.testing.assert_array_equal(sess.value(v), [2000] * 3)


def test_the_result_does_not_change_later(sess):
    v = gc.variable(np.zeros(3), name="v")
    f = native(sess, [], [v], updates={v: v + 1})
    first, second = f()[0], f()[0]
    assert first.tolist() == [0] * 3 and second.tolist() == [1] * 3
    out = np.empty(3)
    f(out=[out])
    assert out.tolist() == [2] * 3


def test_a_refused_index(sess):
    x = gc.placeholder("float32", ("n",), name="x")
    i = gc.placeholder("int64", ("k",), name="i")
    f = native(sess, [x, i], gc.take(x, i))
    np.testing.assert_array_equal(f(A, np.array([1, -1])), [1, 9])
    for out in (None, np.empty(2, "f")):
        with pytest.raises(gc.GraphError, match="outside"):
            f(A, np.array([1, 10]), out=out)


def test_a_closed_session(sess):
    f = add(sess)
    sess.close()
    with pytest.raises(gc.SessionError, match="closed"):
        f(A, B)


# -- lifetimes --
@needs_layout
def test_a_function_outlives_its_session_and_goes_at_once(sess):
    x = gc.placeholder("float32", ("n",), name="x")
    v = gc.variable(np.ones(10, "f"), name="v")
    other = gc.Session(sess.graph)
    f = native(other, [x], x + v)
    assert f.home.functions and sys.getrefcount(other) == 2
    code, home = weakref.ref(f.native), weakref.ref(f.home)
    del other
    np.testing.assert_array_equal(f(A), A + 1)
    collector.disable()
    try:
        del f
        assert code() is None and home() is None
    finally:
        collector.enable()


@needs_layout
@pytest.mark.parametrize("options", [{}, {"mode": "check"}, {"mode": "reference"}, {"check_numerics": True}], ids=str)
def test_a_session_goes_without_the_collector(options):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        v = gc.variable(np.ones(10, "f"), name="v")
        session = gc.Session(**options)
        f = session.function([x], x + v, updates={v: v * 2})
        for _ in range(3):
            f(A)
            session.run([x * v], {x: A})
        gone, home = weakref.ref(session), weakref.ref(session.home)
        collector.disable()
        try:
            del session, f
            assert gone() is None and home() is None
        finally:
            collector.enable()


@needs_layout
def test_references_are_balanced(sess):
    x = sess.graph.placeholders.get("x") or gc.placeholder("float32", ("n",), name="x")
    i, k = gc.placeholder("int64", ("k",), name="i"), gc.placeholder("float32", (), name="k")
    f = native(sess, [x, i, k], [gc.take(x, i), gc.sum(x), x * k])
    good, bad = np.array([0, 1]), np.array([0, 99])
    outs = [np.empty(2, "f"), np.empty((), "f"), np.empty(10, "f")]
    numbers = [1.5, 12345, True, np.float32(3), np.float64(4), np.ones((), "f")]
    things = [A, good, bad, outs, *outs, tuple(outs), *numbers, np.ndarray, np.dtype("f"), np.dtype("i8"), None, f,
              type(f), "out", f.home.lock.acquire]

    def calls():
        for _ in range(500):
            for number in numbers:
                f(A, good, number)
            f(A, good, 1, out=None)
            f(A, good, 2, out=outs)
            f(A, good, 3, out=tuple(outs))
            for wrong in ((A, bad, 1), (A, "x", 2), (A,), (A, good, 1, outs)):
                for out in (None, outs):
                    with suppress(gc.GraphError):
                        f(*wrong, out=out)

    calls()
    before = [sys.getrefcount(thing) for thing in things]
    calls()
    assert max(abs(sys.getrefcount(thing) - old) for thing, old in zip(things, before, strict=True)) < 10


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def cycle():
    with gc.Graph(), gc.Session() as session:
        x = gc.placeholder("float32", ("n", 64), name="x")
        w = gc.variable(np.ones((64, 64), "f"), name="w")
        f = native(session, [x], gc.sum(gc.tanh(x @ w)), updates={w: w * 0.5})
        f(np.ones((500, 64), "f"))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_cycles_of_compiling_and_closing(count):
    for _ in range(20):
        cycle()
    before = resident()
    for _ in range(count):
        cycle()
    collector.collect()
    assert resident() - before <= 5 << 20  # an arena or an image that stayed each time would be far more
