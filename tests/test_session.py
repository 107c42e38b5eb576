"""Sessions: fetches, feeds, variables, modes, and every mistake a user can make with them."""

from __future__ import annotations

import threading

import graphc as gc
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def graph() -> gc.Graph:
    with gc.Graph() as own:
        yield own


def test_fetches_keep_their_structure() -> None:
    x = gc.placeholder("float32", ("n",), name="x")
    with gc.Session() as sess:
        got = sess.run({"a": x + 1, "b": [x * 2, (x.sum(),)]}, {x: [1, 2]})
    assert got["a"].tolist() == [2, 3] and got["b"][0].tolist() == [2, 4] and got["b"][1] == (3,)
    assert isinstance(got["b"][1][0], np.float32)


def test_feed_by_name_and_of_an_inner_node() -> None:
    x = gc.placeholder("float32", (2,), name="x")
    y = gc.exp(x)
    z = y * 10
    with gc.Session() as sess:
        assert sess.run(z, {"x": [0, 0]}).tolist() == [10, 10]
        assert sess.run(z, {y: [1, 2]}).tolist() == [10, 20]
        with pytest.raises(gc.FeedError, match="no such placeholder; did you mean 'x'"):
            sess.run(z, {"xx": [0, 0]})


def test_placeholder_variable_and_constant_are_fetched_as_they_are() -> None:
    x = gc.placeholder("int64", (), name="x")
    w = gc.variable([1.5, 2.5], name="w")
    with gc.Session() as sess:
        a, b, c = sess.run([x, w, gc.constant([1, 2])], {x: 7})
    assert a == 7 and b.tolist() == [1.5, 2.5] and c.tolist() == [1, 2]


def test_new_sizes_need_no_compilation() -> None:
    x = gc.placeholder("float64", ("n", 3), name="x")
    with gc.Session() as sess:
        f = sess.function([x], x.sum(axis=0))
        for n in (4, 0, 1, 1000):
            np.testing.assert_allclose(f(np.ones((n, 3))), [n] * 3)
        assert len(sess.functions) == 0


def test_missing_feed_names_the_path() -> None:
    x = gc.placeholder("float32", ("batch", 4), name="pixels")
    y = gc.exp(x) * 2
    with gc.Session() as sess, pytest.raises(gc.FeedError) as fault:
        sess.run(y)
    message = str(fault.value)
    assert "'pixels'" in message and "exp" in message and "mul" in message and __file__.rsplit("/", 1)[-1] in message


def test_shape_mismatch_names_dimension_and_both_shapes() -> None:
    x = gc.placeholder("float32", ("batch", 4), name="x")
    t = gc.placeholder("int32", ("batch",), name="t")
    y = x.sum(axis=1) + t
    with gc.Session() as sess:
        with pytest.raises(gc.ShapeError, match=r"'batch'.*3 along axis 0 of 'x'.*2 along axis 0 of 't'"):
            sess.run(y, {x: np.zeros((3, 4)), t: [1, 2]})
        with pytest.raises(gc.ShapeError, match="expected 4 along axis 1, got an array of shape"):
            sess.run(y, {x: np.zeros((3, 5)), t: [1, 2, 3]})
        with pytest.raises(gc.ShapeError, match="expected rank 2"):
            sess.run(y, {x: np.zeros(3), t: [1, 2, 3]})


def test_sizes_that_must_agree_are_checked_when_bound() -> None:
    x, y = gc.placeholder("float32", ("m",), name="x"), gc.placeholder("float32", ("n",), name="y")
    z = x + y
    with gc.Session() as sess:
        assert sess.run(z, {x: [1, 2], y: [3, 4]}).tolist() == [4, 6]
        with pytest.raises(gc.ShapeError, match=r"expected m == n, got 2 and 3 with m = 2, n = 3"):
            sess.run(z, {x: [1, 2], y: [3, 4, 5]})


FEEDS = {
    "strided": np.arange(12.0)[::2].reshape(2, 3), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(6).reshape(2, 3).astype(">f8"), "integers": np.arange(6, dtype="uint8").reshape(2, 3),
    "bool": np.array([[True, False, True]] * 2), "float16": np.arange(6, dtype="float16").reshape(2, 3),
    "list": [[1, 2, 3], [4, 5, 6]], "reversed": np.arange(6.0).reshape(2, 3)[::-1, ::-1],
    "broadcast": np.broadcast_to(np.arange(3.0), (2, 3)),
    "unaligned": np.frombuffer(b"x" + bytes(48), "f8", offset=1).reshape(2, 3),
}


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_feeds_of_every_kind_are_computed_right(kind: str, dtype: str) -> None:
    x = gc.placeholder(dtype, (2, 3), name="x")
    with gc.Session() as sess:
        got = sess.run(x * 2, {x: FEEDS[kind]})
    np.testing.assert_array_equal(got, 2 * np.asarray(FEEDS[kind], dtype="float64"))


def test_read_only_and_empty_and_scalar_feeds() -> None:
    x = gc.placeholder("float32", ("n",), name="x")
    s = gc.placeholder("float32", (), name="s")
    data = np.arange(3, dtype="float32")
    data.flags.writeable = False
    with gc.Session() as sess:
        f = sess.function([x, s], x * s)
        assert f(data, 2).tolist() == [0, 2, 4] and f([], np.float64(3)).shape == (0,)
        assert f(data, np.array(2.0)).tolist() == [0, 2, 4]


@pytest.mark.parametrize("value, reason", [
    ([1.5], "would be cut"), ([1j], "complex"), ([300], "do not fit int8"), (["a"], "expected int8"),
    (np.ma.masked_array([1], [True]), "masked"), ([None], "numbers"), ([[1], [2, 3]], "does not make an array")])
def test_feeds_that_would_lose_something_are_refused(value: object, reason: str) -> None:
    x = gc.placeholder("int8", ("n",), name="x")
    with gc.Session() as sess, pytest.raises(gc.GraphError, match=reason) as fault:
        sess.run(x + 1, {x: value})
    assert "'x'" in str(fault.value)


def test_out_takes_the_result_and_bad_buffers_are_refused() -> None:
    x = gc.placeholder("float32", ("n",), name="x")
    with gc.Session() as sess:
        f = sess.function([x], x * 2)
        buffer = np.empty(3, "float32")
        assert f([1, 2, 3], out=buffer) is buffer and buffer.tolist() == [2, 4, 6]
        assert f(buffer, out=buffer).tolist() == [4, 8, 12], "an aliasing input is copied"
        wide = np.arange(4, dtype="float32")
        assert f(wide[:3], out=wide[1:]).tolist() == [0, 2, 4]
        frozen = np.empty(3, "float32")
        frozen.flags.writeable = False
        for bad in (np.empty(3), np.empty(2, "float32"), np.empty(6, "float32")[::2], frozen, [0, 0, 0]):
            with pytest.raises(gc.FeedError, match="out"):
                f([1, 2, 3], out=bad)


def test_variables_live_in_the_session() -> None:
    w = gc.variable([1.0, 2.0], name="w")
    with gc.Session() as a, gc.Session() as b:
        step = a.function([], w.sum(), updates={w: w * 2})
        assert step() == 3 and step() == 6
        assert a.value(w).tolist() == [4, 8] and b.value(w).tolist() == [1, 2]
        a.assign(w, [5, 6])
        assert a.run(w).tolist() == [5, 6]
        with pytest.raises(gc.SessionError, match="expected shape"):
            a.assign(w, [1, 2, 3])


def test_save_and_restore(tmp_path) -> None:
    w = gc.variable(np.arange(6, dtype="float32").reshape(2, 3), name="w")
    h = gc.variable(np.array([1.5, -0.0]), name="h", dtype="bfloat16")
    with gc.Session() as sess:
        sess.assign(w, np.ones((2, 3)))
        sess.save(tmp_path / "run.ckpt")
        sess.assign(w, np.zeros((2, 3)))
        sess.restore(tmp_path / "run.ckpt")
        assert sess.value(w).tolist() == [[1, 1, 1]] * 2 and sess.value(h).tolist() == [1.5, 0.0]
    with gc.Graph():
        gc.variable(np.ones(2, "float32"), name="w")
        with gc.Session() as other, pytest.raises(gc.SessionError, match="the file has"):
            other.restore(tmp_path / "run.ckpt")


def test_closed_session_is_refused() -> None:
    w = gc.variable([1.0], name="w")
    with gc.Session() as sess:
        f = sess.function([], w * 2)
    for use in (lambda: sess.run(w), f, lambda: sess.value(w), lambda: sess.function([], w)):
        with pytest.raises(gc.SessionError, match="closed"):
            use()


def test_another_graph_is_refused(graph: gc.Graph) -> None:
    x = gc.constant(1.0)
    w = gc.variable([1.0], name="w")
    with gc.Graph(), gc.Session() as sess:
        y = gc.constant(2.0)
        with pytest.raises(gc.GraphError, match="another graph"):
            sess.run(x)
        with pytest.raises(gc.GraphError, match="another graph"):
            sess.value(w)
        with pytest.raises(gc.GraphError, match="two graphs"):
            x + y


def test_bad_updates_are_refused() -> None:
    w = gc.variable([1.0, 2.0], name="w")
    x = gc.placeholder("float64", (2,), name="x")
    with gc.Session() as sess:
        with pytest.raises(gc.GraphError, match="no variable"):
            sess.function([x], x, updates={x: w})
        with pytest.raises(gc.GraphError, match="its new value"):
            sess.function([x], x, updates={w: x.sum()})
        with pytest.raises(gc.GraphError, match="two new values"):
            sess.function([x], x, updates=[(w, x), (w, x * 2)])
        with pytest.raises(gc.GraphError, match="given twice"):
            sess.function([x, x], x)
        with pytest.raises(gc.FeedError, match="cannot be fed"):
            sess.run(w, {w: [1, 2]})
        with pytest.raises(gc.GraphError, match="expected a node"):
            sess.run([3.0])
        with pytest.raises(gc.FeedError, match="expected 1 arguments"):
            sess.function([x], x)()


def test_taken_names_are_refused() -> None:
    gc.placeholder("float32", (), name="a")
    with pytest.raises(gc.GraphError, match="'a' is taken"):
        gc.variable([1.0], name="a")
    with gc.name_scope("deep"):
        assert gc.variable([1.0], name="a").name == "deep/a"


def test_indices_out_of_range_name_the_line() -> None:
    x = gc.placeholder("float32", (5,), name="x")
    i = gc.placeholder("int64", ("n",), name="i")
    with gc.Session() as sess:
        f = sess.function([x, i], gc.take(x, i))
        assert f(np.arange(5), [-5, 4]).tolist() == [0, 4]
        with pytest.raises(gc.GraphError, match=r"index lies outside.*\n.*test_session.py"):
            f(np.arange(5), [5])


@pytest.mark.parametrize("mode", ["native", "reference", "check"])
def test_modes_agree(mode: str) -> None:
    x = gc.placeholder("float64", ("n", 3), name="x")
    w = gc.variable(np.arange(6.0).reshape(3, 2), name="w")
    loss = gc.nn.softmax(x @ w).sum()
    with gc.Session(mode=mode) as sess:
        step = sess.function([x], [loss, w], updates={w: w - 0.1 * gc.gradients((x @ w).sum(), [w])[0]})
        value, old = step(np.ones((4, 3)))
        assert abs(value - 4) < 1e-12 and old[1, 1] == 3 and abs(sess.value(w)[1, 1] - 2.6) < 1e-12


def test_check_mode_finds_a_wrong_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from graphc.ir.node import OPS

    monkeypatch.setitem(OPS, "tanh", replace(OPS["tanh"], reference=lambda attrs, type, x: np.tanh(x) * 1.01))
    x = gc.placeholder("float64", (3,), name="x")
    y = gc.exp(gc.tanh(x)) + 1
    with gc.Session(mode="check") as sess, pytest.raises(gc.VerifyError, match="tanh") as fault:
        sess.run(y, {x: [0.1, 0.2, 0.3]})
    assert "test_session.py" in str(fault.value)


def test_threads_may_call_one_function() -> None:
    x = gc.placeholder("float64", ("n",), name="x")
    w = gc.variable(np.zeros(()), name="w")
    with gc.Session() as sess:
        f = sess.function([x], gc.sum(gc.tanh(x) * 2))
        count = sess.function([], [], updates={w: w + 1})
        wrong: list[int] = []

        def work(k: int) -> None:
            data = np.full(k + 1, 0.5)
            for _ in range(300):
                if abs(f(data) - 2 * (k + 1) * np.tanh(0.5)) > 1e-12:
                    wrong.append(k)
                count()

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong and sess.value(w) == 1800


def test_options_are_checked() -> None:
    with pytest.raises(gc.GraphError):
        gc.Session(mode="fast")
    with pytest.raises(gc.GraphError, match="target"):
        gc.Session(target="pdp-11").run(gc.constant(1.0) + 1)


def test_check_numerics_names_the_first_bad_node() -> None:
    x = gc.placeholder("float64", (3,), name="x")
    w = gc.variable(np.ones(3), name="w")
    y = gc.exp(gc.log(x) * w)
    with gc.Session(check_numerics=True) as sess:
        step = sess.function([x], y.sum(), updates={w: w / x})
        assert step([1.0, 2.0, 3.0]) == 6
        with pytest.raises(gc.GraphError, match=r"log of float64\[3\] is nan at \(1,\)"):
            step([1.0, -1.0, 1.0])
        with pytest.raises(gc.GraphError, match="check_numerics"):
            step([1.0, 0.0, 1.0])


def test_what_is_the_same_for_all_elements_serves_both_ways_of_writing() -> None:
    x, s = gc.placeholder("float32", ("n",), name="x"), gc.placeholder("float32", (), name="s")
    with gc.Session() as sess:  # outputs of unknown size are written past the caches where they are large
        f = sess.function([x, s], x * s)
        for n in (3, 10**7):
            assert (f(np.ones(n, "float32"), 2.0) == 2).all()
