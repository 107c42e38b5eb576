"""Random numbers: Philox against its known answers and a version in Python's integers; then what its words become."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gc
from graphc import random
from tests.elf_programs import runs_here

MASK = 2**32 - 1


def philox(counter, key):
    """The published algorithm, in plain integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK, (a >> 32) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def words(seed, used, count):
    """The first words of a state."""
    found = []
    for block in range(used, used + -(-count // 4)):
        block %= 2**64
        found += philox([block & MASK, block >> 32, 0, 0], [seed & MASK, seed >> 32])
    return found[:count]


def wide(seed, used, count):
    low_high = words(seed, used, 2 * count)
    return [a + (b << 32) for a, b in zip(low_high[::2], low_high[1::2])]


@pytest.fixture
def run():
    """Draws from a state that is fed; the numbers and the state after."""
    with gc.Graph() as graph, gc.Session(graph) as sess:
        state = gc.placeholder("uint64", (2,), name="state")

        def call(draw, seed=7, used=0):
            values, after = draw(state)
            return sess.run([values, after], {state: np.array([seed, used], "uint64")})
        yield call


# -- words --
@pytest.mark.parametrize("counter, key, expected", [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1])])
def test_known_answers(counter, key, expected):
    """Those that the authors publish with the algorithm."""
    assert philox(counter, key) == expected
    with gc.Graph():
        parts = [gc.constant(np.uint32(v), "uint32") for v in (*counter, *key)]
        assert [int(w) for w in gc.Session().run(list(random.philox(parts[:4], parts[4:])))] == expected


@pytest.mark.parametrize("count", range(10))
@pytest.mark.parametrize("seed, used", [(0, 0), (2**64 - 1, 2**32 - 1), (12345678901234567890, 2**64 - 1)])
def test_words_in_the_order_of_memory(run, count, seed, used):
    got, after = run(lambda s: gc.random.bits(s, (count,)), seed, used)
    assert got.dtype == np.uint32 and got.tolist() == words(seed, used, count)
    assert after.tolist() == [seed, (used + -(-count // 4)) % 2**64]
    got, after = run(lambda s: gc.random.bits(s, (count,), "uint64"), seed, used)
    assert got.dtype == np.uint64 and got.tolist() == wide(seed, used, count)
    assert after.tolist() == [seed, (used + -(-count // 2)) % 2**64]


def test_shapes(run):
    for shape in ((), (1,), (3, 0, 2), (2, 3, 5), 4):
        got, _ = run(lambda s, shape=shape: gc.random.bits(s, shape))
        assert got.shape == np.empty(shape).shape and got.ravel().tolist() == words(7, 0, got.size)


def test_symbolic_shapes():
    with gc.Graph() as graph, gc.Session(graph) as sess:
        x = gc.placeholder("float32", ("n", 3), name="x")
        state = gc.random.state(seed=7)
        u, after = gc.random.uniform(state, x.shape)
        draw = sess.function([x], x + u, updates={state: after})
        used = 0
        for n in (2, 0, 5, 1):
            expected = np.array(words(7, used, 3 * n), "u4") >> 8
            np.testing.assert_array_equal(draw(np.zeros((n, 3), "f")), expected.reshape(n, 3) * np.float32(2**-24))
            used += -(-3 * n // 4)
        assert sess.value(state).tolist() == [7, used]


# -- numbers --
@pytest.mark.parametrize("dtype, p, size", [("float16", 11, 1), ("bfloat16", 8, 1), ("float32", 24, 1),
                                            ("float64", 53, 2)])
def test_uniform_takes_the_high_bits(run, dtype, p, size):
    got, _ = run(lambda s: gc.random.uniform(s, (7,), dtype=dtype))
    source = words(7, 0, 7) if size == 1 else wide(7, 0, 7)
    assert got.astype("float64").tolist() == [(w >> (32 * size - p)) * 2.0**-p for w in source]
    low, _ = run(lambda s: gc.random.uniform(s, (7,), -3.0, 5.0, dtype=dtype))
    np.testing.assert_allclose(low.astype("float64"), got.astype("float64") * 8 - 3, atol=8 * 2.0**-p)


@pytest.mark.parametrize("dtype, p", [("float32", 24), ("float64", 53)])
def test_normal_by_pairs(run, dtype, p):
    got, after = run(lambda s: gc.random.normal(s, (9,), dtype=dtype))
    source = words(7, 0, 12) if dtype == "float32" else wide(7, 0, 10)
    shift = (32 if dtype == "float32" else 64) - p
    expected = []
    for a, b in zip(source[::2], source[1::2]):
        radius = math.sqrt(-2 * math.log(((a >> shift) + 1) * 2.0**-p))
        angle = 2 * math.pi * ((b >> shift) * 2.0**-p)
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    np.testing.assert_allclose(got, expected[:9], rtol=0, atol=3e-6 if dtype == "float32" else 5e-15)
    shifted, _ = run(lambda s: gc.random.normal(s, (9,), 2.0, 0.5, dtype=dtype))
    np.testing.assert_allclose(shifted, got * 0.5 + 2, rtol=1e-6)


def test_moments():
    """A hundred thousand numbers: means and higher moments within five standard errors."""
    n = 100_000
    with gc.Graph():
        state = gc.random.state(seed=3)
        z, after = gc.random.normal(state, (n,), dtype="float64")
        u, after = gc.random.uniform(after, (n,), dtype="float64")
        e, _ = gc.random.integers(after, (n,), -3, 4)
        z, u, e = gc.Session().run([z, u, e])
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - expected) < 5 * math.sqrt(variance / n)
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n) and 0 <= u.min() and u.max() < 1
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5 / math.sqrt(n) and abs(np.corrcoef(z, u)[0, 1]) < 5 / math.sqrt(n)
    counts = np.bincount(e + 3)
    assert len(counts) == 7 and ((counts - n / 7)**2 / (n / 7)).sum() < 30  # chi squared of 6 degrees: 1 in 25,000


def test_extreme_words_stay_finite():
    """All bits 0 and all bits 1 are words like others."""
    with gc.Graph():
        for kind in ("uint32", "uint64"):
            ends = [gc.constant(np.array([v], kind), kind) for v in (0, np.iinfo(kind).max)]
            dtype = "float64" if kind == "uint64" else "float32"
            pairs = gc.Session().run([list(random.normal_pair(a, b, dtype)) for a in ends for b in ends])
            assert np.isfinite(np.array(pairs)).all()


@pytest.mark.parametrize("low, high, dtype", [
    (0, 1, "int8"), (-128, 128, "int8"), (1, 7, "int64"), (0, 2**32, "uint32"), (-2**63, 2**63, "int64"),
    (0, 2**64, "uint64"), (5, 2**63 + 6, "uint64"), (-2**63, 2**62 + 12345, "int64"), (0, 2**32 + 1, "int64")])
def test_integers_are_the_high_word_of_a_product(run, low, high, dtype):
    got, after = run(lambda s: gc.random.integers(s, (9,), low, high, dtype))
    assert got.dtype == dtype and got.tolist() == [low + (w * (high - low) >> 64) for w in wide(7, 0, 9)]
    assert after.tolist() == [7, 5]


def test_bernoulli(run):
    u, _ = run(lambda s: gc.random.uniform(s, (3, 5)))
    for p in (0.0, 0.3, 1.0):
        got, _ = run(lambda s, p=p: gc.random.bernoulli(s, p, (3, 5)))
        np.testing.assert_array_equal(got, u < np.float32(p))
    with gc.Graph():
        state = gc.constant(np.array([7, 0], "u8"))
        rows = gc.constant(np.array([[0.1], [0.5], [float("nan")]], "f"))
        got = gc.Session().run(gc.random.bernoulli(state, rows, (3, 5))[0])
        assert gc.random.bernoulli(state, rows)[0].shape == (3, 1)
    np.testing.assert_array_equal(got, u < np.array([[0.1], [0.5], [float("nan")]], "f"))


# -- the state --
def test_the_next_numbers_come_from_the_state_after(run):
    whole, _ = run(lambda s: gc.random.normal(s, (16,)))

    def twice(state):
        a, after = gc.random.normal(state, (8,))
        b, after = gc.random.normal(after, (8,))
        return gc.concatenate([a, b]), after
    np.testing.assert_array_equal(run(twice)[0], whole)


def test_sessions_keep_and_save_the_state(tmp_path):
    with gc.Graph() as graph:
        state = gc.random.state(seed=11, name="noise")
        value, after = gc.random.normal(state)
        with gc.Session(graph) as sess:
            draw = sess.function([], value, updates={state: after})
            draw()
            sess.save(tmp_path / "checkpoint")
            later = [float(draw()) for _ in range(3)]
            sess.restore(tmp_path / "checkpoint")
            assert [float(draw()) for _ in range(3)] == later and len(set(later)) == 3


def test_the_same_numbers_for_any_number_of_threads():
    found = []
    for threads in (1, 2, 3):
        with gc.Graph() as graph, gc.Session(graph, threads=threads) as sess:
            x, after = gc.random.normal(gc.random.state(seed=1), (300_000,))
            mask, _ = gc.random.bernoulli(after, 0.5, (300_000,))
            found.append(sess.run(gc.where(mask, x, 0.0)))
    np.testing.assert_array_equal(found[0][:8] != 0, np.array(words(1, 75_000, 8)) < 2**31)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


@runs_here
def test_a_training_step_with_dropout_in_a_library(tmp_path):
    """The state of random numbers is a member of the library's state, and goes on as in the session."""
    with gc.Graph() as graph:
        x = gc.placeholder("float32", ("batch", 8), name="x")
        w = gc.variable(gc.init.he_normal((8, 4), seed=0), name="w")
        noise = gc.random.state(seed=5, name="noise")
        hidden, after = gc.nn.dropout(gc.tanh(x @ w), 0.25, noise)
        loss = gc.mean(hidden**2)
        updates = {**gc.optim.SGD(0.1).minimize(loss, [w]), noise: after}
        xs = np.random.default_rng(0).standard_normal((5, 8)).astype("f")
        with gc.Session(graph, threads=1) as sess:
            path = gc.compile_library(tmp_path, "noisy", {"step": gc.signature([x], [loss], updates=updates)},
                                      session=sess)
            step = sess.function([x], loss, updates=updates)
            expected = [float(step(xs)) for _ in range(20)]
            end = {v.name: sess.value(v) for v in (w, noise)}
    lib = gc.load_library(path)
    assert [float(lib.step(xs)) for _ in range(20)] == expected and len(set(expected)) == 20
    assert {name: value.tobytes() for name, value in lib.state.items()} == {k: v.tobytes() for k, v in end.items()}
    assert "uint64_t *noise" in path.with_name("noisy.h").read_text()


# -- dropout --
def test_dropout_scales_what_is_kept(run):
    x = np.linspace(1, 2, 1000, dtype="f")

    got, _ = run(lambda s: gc.nn.dropout(gc.constant(x), 0.2, s))
    kept = got != 0
    np.testing.assert_allclose(got[kept], x[kept] * 1.25, rtol=1e-6)
    assert 740 < kept.sum() < 860


def test_the_gradient_passes_where_the_value_did():
    with gc.Graph() as graph, gc.Session(graph) as sess:
        x = gc.placeholder("float64", (50,), name="x")
        state = gc.random.state(seed=2)
        y, _ = gc.nn.dropout(x, 0.5, state)
        value, slope = sess.run([y, gc.gradients(gc.sum(y), [x])[0]], {x: np.ones(50)})
    np.testing.assert_array_equal(value, slope)
    assert set(slope.tolist()) == {0.0, 2.0}


# -- mistakes --
@pytest.mark.parametrize("wrong, text", [
    (lambda s: gc.random.state(-1), "from 0 to 2\\*\\*64 - 1, got -1"),
    (lambda s: gc.random.state(1.5), "got 1.5"),
    (lambda s: gc.random.bits(s, 3, "int32"), "uint32 or uint64, got int32"),
    (lambda s: gc.random.uniform(gc.constant([1.0, 2.0]), 3), "uint64 of shape \\(2,\\).* got float64\\[2\\]"),
    (lambda s: gc.random.uniform(7, 3), "gc.random.state\\(seed\\), got int 7"),
    (lambda s: gc.random.normal(s, 3, dtype="int32"), "one of floats, got int32"),
    (lambda s: gc.random.uniform(s, -1), "-1"),
    (lambda s: gc.random.integers(s, 3, 5, 5), "low < high"),
    (lambda s: gc.random.integers(s, 3, 0, 300, "uint8"), "high <= 256 for uint8"),
    (lambda s: gc.random.integers(s, 3, 0.0, 2), "low and high are integers"),
    (lambda s: gc.random.integers(s, 3, 0, 2, "float32"), "one of integers"),
    (lambda s: gc.random.bernoulli(s, gc.constant([1, 2]), 2), "p is a float"),
    (lambda s: gc.random.bernoulli(s, gc.constant([0.1, 0.2]), (3,)), "bernoulli|broadcast"),
    (lambda s: gc.random.bernoulli(s, gc.constant([[0.1], [0.2]]), (2,)), "does not broadcast to the shape"),
    (lambda s: gc.nn.dropout(gc.constant([1.0]), 1.0, s), "from 0 to below 1, got 1.0"),
    (lambda s: gc.nn.dropout(gc.constant([1]), 0.5, s), "x is a float"),
])
def test_mistakes_are_explained(wrong, text):
    with gc.Graph():
        state = gc.random.state(0)
        with pytest.raises(gc.GraphError, match=text) as caught:
            wrong(state)
        assert "test_random.py" in str(caught.value)
