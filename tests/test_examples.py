"""The examples run, on real data, and do what they say."""

from __future__ import annotations

from pathlib import Path
import sys
import xml.etree.ElementTree as ElementTree

import graphc as gc
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import black_scholes  # noqa: E402  (the folder of examples is no package)
import brusselator  # noqa: E402
import digits  # noqa: E402
import hourglass  # noqa: E402
import logistic_regression  # noqa: E402
import nonlinear_fit  # noqa: E402
import robot_arm  # noqa: E402


@pytest.fixture(autouse=True)
def own_graph() -> gc.Graph:
    with gc.Graph() as graph:
        yield graph


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert digits.main(str(tmp_path)) >= 0.97
    said = capsys.readouterr().out
    assert said.count("epoch") == digits.EPOCHS and "agrees with the session" in said
    assert ElementTree.parse(tmp_path / "digits.svg").getroot().tag.endswith("svg")
    assert {"libdigits.so", "digits.h", "digits.svg"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_loss_curve_is_the_references(dtype: str, tolerance: float) -> None:
    pixels, labels, _, _ = digits.data()
    x, t, _, loss = digits.network(dtype)
    updates = gc.optim.Adam(2e-3).minimize(loss)
    curves = []
    for mode in ("native", "reference"):
        with gc.Session(mode=mode) as sess:
            step = sess.function([x, t], loss, updates=updates)
            curves.append(digits.train(step, pixels.astype(dtype), labels, digits.EPOCHS))
    np.testing.assert_allclose(curves[0], curves[1], rtol=tolerance)


def test_nonlinear_fit_is_certified() -> None:
    np.testing.assert_allclose(nonlinear_fit.main(), nonlinear_fit.CERTIFIED, rtol=1e-8)


def test_logistic_regression() -> None:
    by_products, exact = logistic_regression.main()
    np.testing.assert_allclose(by_products, exact, rtol=1e-8, atol=1e-10)


def test_black_scholes() -> None:
    found = black_scholes.main()
    for name, wanted in black_scholes.closed_form().items():
        assert abs(found[name] / wanted - 1) < 1e-12


def test_robot_arm() -> None:
    assert robot_arm.main() < 1e-9


def test_hourglass() -> None:
    assert hourglass.main().keys() == {"auto", "forward", "reverse"}


def test_brusselator() -> None:
    by_pattern, by_entries, gap = brusselator.main(8)
    assert by_entries.final.shape == by_pattern.final.shape and gap < 1e-4
