"""Optimisers against their papers, step by step in NumPy."""

from __future__ import annotations

from math import erf

import graphc as gc
import numpy as np
import pytest


def run(optimiser: gc.optim.Optimiser, steps: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The variable after some steps on sum((w - target)^2 * scale), and the gradients that it met."""
    start, target, scale = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.0, -1.0]), np.array([1.0, 10.0, 0.1])
    with gc.Graph(), gc.Session() as sess:
        w = gc.variable(start, name="w")
        loss = gc.sum(gc.square(w - target) * scale)
        step = sess.function([], gc.gradients(loss, w), updates=optimiser.minimize(loss))
        gradients = [step() for _ in range(steps)]
        return sess.value(w), gradients


def test_adam_is_algorithm_1() -> None:
    found, gradients = run(gc.optim.Adam(0.1, epsilon=1e-3), 7)
    w, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - 0.1 * (m / (1 - 0.9 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-3)
    np.testing.assert_allclose(found, w, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(nesterov: bool) -> None:
    found, gradients = run(gc.optim.SGD(0.01, momentum=0.9, nesterov=nesterov), 6)
    w, v = np.array([1.0, -2.0, 3.0]), np.zeros(3)
    for g in gradients:
        v = 0.9 * v + g
        w = w - 0.01 * (g + 0.9 * v if nesterov else v)
    np.testing.assert_allclose(found, w, rtol=1e-12)


def test_the_rate_may_be_a_node() -> None:
    with gc.Graph(), gc.Session() as sess:
        rate = gc.placeholder("float32", (), name="rate")
        w = gc.variable([1.0, 2.0], name="w")
        step = sess.function([rate], [], updates=gc.optim.SGD(rate).minimize((w * w).sum()))
        step(0.25)
        assert sess.value(w).tolist() == [0.5, 1.0]


def test_nothing_to_train_is_refused() -> None:
    with gc.Graph(), pytest.raises(gc.GraphError, match="depends on no float variable"):
        gc.optim.Adam().minimize(gc.sum(gc.placeholder("float32", (2,), name="x")))


def test_initialisers_keep_their_promise() -> None:
    for make, deviation in ((gc.init.he_normal, np.sqrt(2 / 400)), (gc.init.he_uniform, np.sqrt(2 / 400)),
                            (gc.init.glorot_normal, np.sqrt(2 / 700)), (gc.init.glorot_uniform, np.sqrt(2 / 700))):
        values = make((400, 300), seed=1)()
        assert values.dtype == np.float32 and values.shape == (400, 300)
        assert abs(values.std() / deviation - 1) < 0.01 and abs(values.mean()) < deviation / 50
        np.testing.assert_array_equal(values, make((400, 300), seed=1)())
        assert (values != make((400, 300), seed=2)()).any()
    assert np.abs(gc.init.truncated_normal((1000,))()).max() <= 2
    with pytest.raises(gc.GraphError, match="known sizes"):
        gc.init.normal(("n", 3))


def test_gelu_in_both_forms() -> None:
    points = np.linspace(-4, 4, 33)
    wanted = np.array([0.5 * x * (1 + erf(x / np.sqrt(2))) for x in points])
    with gc.Graph(), gc.Session() as sess:
        x = gc.placeholder("float64", (33,), name="x")
        exact, close = sess.run([gc.nn.gelu(x, approximate=False), gc.nn.gelu(x)], {x: points})
    np.testing.assert_allclose(exact, wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(close, wanted, atol=1e-3)
