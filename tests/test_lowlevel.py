"""Functions that C code calls: by address, and as scipy.LowLevelCallable."""

from __future__ import annotations

import ctypes
import gc as collector
import math
import threading
import time
import weakref

import numpy as np
import pytest
from scipy.integrate import nquad, quad
from scipy.ndimage import generic_filter

import graphc as gc

pytestmark = pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")  # of integrals that are NaN


@pytest.fixture
def sess():
    with gc.Graph(), gc.Session() as session:
        yield session


def number(name, dtype="float64"):
    return gc.placeholder(dtype, (), name=name)


def bell(sess):
    x = number("x")
    return sess.function([x], gc.exp(-x * x))


def test_the_address_is_a_c_function(sess):
    x = gc.placeholder("float32", ("n",), name="x")
    f = sess.function([x], [x * 2, gc.sum(x)])
    native = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4, ctypes.c_int64)(f.address)
    a, twice, total = np.arange(5, dtype="f"), np.zeros(5, "f"), np.zeros((), "f")
    inputs, outputs = (ctypes.c_void_p * 1)(a.ctypes.data), (ctypes.c_void_p * 2)(twice.ctypes.data, total.ctypes.data)
    assert native(inputs, outputs, None, None, 5) == 0
    assert twice.tolist() == [0, 2, 4, 6, 8] and total == 10


def test_an_integral(sess):
    f = bell(sess)
    assert quad(f.as_low_level_callable(), 0, 1) == quad(f, 0, 1)
    assert quad(f.as_low_level_callable(), 0, 1)[0] == pytest.approx(math.sqrt(math.pi) / 2 * math.erf(1), rel=1e-14)


def test_an_integral_of_several_numbers(sess):
    x, y, z = map(number, "xyz")
    f = sess.function([x, y, z], gc.exp(-x * y) + z)
    low = f.as_low_level_callable()
    assert quad(low, 0, 2, args=(1.5, 0.25)) == quad(f, 0, 2, args=(1.5, 0.25))
    ranges = [[0, 1], [0, 2], [1, 2]]
    assert nquad(low, ranges)[0] == nquad(f, ranges)[0]
    assert math.isnan(quad(low, 0, 2, args=(1.5,))[0])  # another number of values


def test_a_row_of_numbers(sess):
    v = gc.placeholder("float64", ("n",), name="v")
    w = gc.placeholder("float64", (2,), name="w")
    f, g = sess.function([v], gc.sum(v * v)), sess.function([w], w[0] * w[1])
    assert quad(f.as_low_level_callable(), 0, 3)[0] == pytest.approx(9)
    assert quad(f.as_low_level_callable(), 0, 3, args=(2.0,))[0] == pytest.approx(21)
    assert quad(g.as_low_level_callable(), 0, 3, args=(2.0,))[0] == pytest.approx(9)
    assert math.isnan(quad(g.as_low_level_callable(), 0, 3)[0])


def test_bound_arrays_are_read_when_they_are_used(sess):
    x, k = number("x"), gc.placeholder("int32", (), name="k")
    c = gc.placeholder("float64", ("n",), name="c")
    f = sess.function([x, c, k], gc.sum(c * x) + k)
    coefficients = np.arange(4.0)
    low = f.as_low_level_callable(coefficients, 3)
    assert quad(low, 0, 1)[0] == pytest.approx(6)
    coefficients[:] = 1
    assert quad(low, 0, 1)[0] == pytest.approx(5)
    assert quad(f.as_low_level_callable([5.0], 0), 0, 1)[0] == pytest.approx(2.5)
    v = gc.placeholder("float64", ("n",), name="v")
    g = sess.function([v, c], gc.sum(v * c)).as_low_level_callable(np.array([1.0, 10.0]))
    assert quad(g, 0, 1, args=(2.0,))[0] == pytest.approx(20.5)
    assert math.isnan(quad(g, 0, 1)[0])  # of another length than what is bound


def test_filters_of_images(sess):
    v = gc.placeholder("float64", ("n",), name="v")
    c = gc.placeholder("float64", (), name="c")
    image = np.random.default_rng(0).standard_normal((20, 30))
    spread = sess.function([v], gc.max(v) - gc.min(v)).as_low_level_callable(kind="filter")
    np.testing.assert_array_equal(generic_filter(image, spread, size=3), generic_filter(image, np.ptp, size=3))
    scaled = sess.function([v, c], gc.sum(v) * c).as_low_level_callable(0.5, kind="filter")
    np.testing.assert_allclose(generic_filter(image, scaled, size=(2, 4)),
                               generic_filter(image, lambda a: a.sum() / 2, size=(2, 4)), atol=1e-14)
    i = gc.placeholder("int64", (1,), name="i")
    refusing = sess.function([v, i], gc.sum(gc.take(v, i))).as_low_level_callable(np.array([99]), kind="filter")
    with pytest.raises((RuntimeError, SystemError)):
        generic_filter(image, refusing, size=3)


def test_variables_and_memory_of_its_own(sess):
    v = gc.placeholder("float64", ("n",), name="v")
    w = gc.variable(np.full((700, 1), 2.0), name="w")  # the product is 700 numbers, more than fit the stack
    f = sess.function([v], gc.sum(gc.cumsum(w * v, axis=0)[-1]))
    low = f.as_low_level_callable()
    assert quad(low, 0, 1)[0] == pytest.approx(700)
    sess.assign(w, np.full((700, 1), 4.0))
    assert quad(low, 0, 1)[0] == pytest.approx(1400)


@pytest.mark.parametrize("kind, bound, match", [
    ("update", (), "changes variables"), ("two", (), "one output"), ("vector", (), "one output"),
    ("single", (), "float64"), ("single output", (), "one output"), ("matrix", (), "rank 0 or one of rank 1"),
    ("mixed", (), "rank 0 or one of rank 1"), ("none", (), "0 were bound"), ("mixed", (1, 2), "2 were bound"),
    ("mixed", (1, 2, 3), "3 were bound")])
def test_what_does_not_fit_is_refused(sess, kind, bound, match):
    x, y = number("x"), number("y", "float32")
    v, m = gc.placeholder("float64", ("n",), name="v"), gc.placeholder("float64", ("n", 2), name="m")
    w = gc.variable(np.zeros(()), name="w")
    inputs, outputs, updates = {
        "update": ([x], x + w, {w: x}), "two": ([x], [x, x + 1], None), "vector": ([v], v * 2, None),
        "single": ([y], y.astype("float64"), None), "single output": ([x], x.astype("float32"), None),
        "matrix": ([m], gc.sum(m), None), "mixed": ([x, v], gc.sum(v * x), None), "none": ([], w + 1, None)}[kind]
    with pytest.raises(gc.GraphError, match=match):
        sess.function(inputs, outputs, updates).as_low_level_callable(*bound)


def test_kinds_that_do_not_fit(sess):
    f = bell(sess)
    for kind in ("vector", "filter", "other"):
        with pytest.raises(gc.GraphError, match=kind):
            f.as_low_level_callable(kind=kind)
    with pytest.raises(gc.DTypeError):
        x, i = number("y"), gc.placeholder("int32", ("n",), name="i")
        sess.function([x, i], x + gc.sum(i)).as_low_level_callable(np.array([0.5]))


def test_the_code_lives_as_long_as_the_callable(sess):
    f = bell(sess)
    low, code = f.as_low_level_callable(), weakref.ref(f.compiled.loaded)
    del f
    sess.close()
    collector.collect()
    assert code() is not None and quad(low, 0, 1)[0] == pytest.approx(0.7468241328124271)
    del low
    collector.collect()
    assert code() is None


def test_calls_at_the_same_time(sess):
    v = gc.placeholder("float64", ("n",), name="v")
    native = sess.function([v], gc.sum(gc.cumsum(gc.cumsum(v)))).as_low_level_callable().function
    wrong = []

    def work(k):
        values = (ctypes.c_double * 2000)(*[k] * 2000)
        wrong.extend(k for _ in range(200) if native(2000, values) != k * 2000 * 2001 * 2002 / 6)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_call_that_threads_share():
    with gc.Graph(), gc.Session(threads=3) as session:
        v, w = gc.placeholder("float64", ("n",), name="v"), gc.placeholder("float64", ("k", 700), name="w")
        f = session.function([v, w], gc.sum(gc.max(w @ w.T, axis=1)) * gc.sum(v))
        matrix = np.random.default_rng(0).standard_normal((400, 700))
        assert f.border.slot != 0
        wanted = f(np.ones(3), matrix)
        native = f.as_low_level_callable(matrix)
        for _ in range(20):
            assert native.function(3, (ctypes.c_double * 3)(1, 1, 1), native.user_data) == wanted


def test_it_is_faster_than_a_function_of_python(sess):
    low, of_python = bell(sess).as_low_level_callable(), lambda x: math.exp(-x * x)

    def seconds(f):
        start = time.process_time()
        for _ in range(200):
            quad(f, 0, 1)
        return time.process_time() - start

    pairs = [(seconds(low), seconds(of_python)) for _ in range(5)]
    assert min(a for a, _ in pairs) < min(b for _, b in pairs)
