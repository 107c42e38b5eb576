"""The harness measures, finds wrong results, and survives peers that are missing or die.  No times are asserted."""

from __future__ import annotations

import json
from pathlib import Path
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command, report
from benchmarks.harness import Bench, Died, Figure, Worker
from benchmarks.workloads import WORKLOADS, Workload, chosen, error, reference

SHORT = ["--rounds", "2", "--seconds", "0.001"]


def test_two_workloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    found = command.main(["--peers", "numpy", "--only", "W10,W12_rosenbrock", *SHORT, "--json", str(file)])
    assert list(found) == ["W10_jacobian", "W12_rosenbrock"]
    for figures in found.values():
        assert {f.name for f in figures} == {"graphc", "graphc:out", "numpy"}
        for f in figures:
            assert not f.failure and 0 < f.low <= f.seconds <= f.high < 10 and f.compile_seconds > 0
            assert len(f.samples) >= 2
    written = json.loads(file.read_text())
    assert written["versions"]["numpy"] == np.__version__
    assert written["workloads"]["W10_jacobian"]["ratio"] == report.ratio(found["W10_jacobian"])
    assert "W12_rosenbrock" in capsys.readouterr().out.splitlines()[-1]


def test_training_starts_anew_for_every_round() -> None:
    with Bench.of(["numpy"], {}) as bench:
        (figure,) = bench.measure(chosen(["W6_mlp64"])[0], 2, 0.001)
    assert not figure.failure and figure.error < 1e-4


def test_wrong_results_are_no_figures() -> None:
    right = chosen(["W1_f32"])[0]
    wrong = Workload(right.name, right.kind, right.title, right.inputs, lambda x: [x * 2], right.tolerance)
    with Bench.of(["numpy"], {}) as bench:
        figures = bench.measure(wrong, 1, 0.001)
    assert len(figures) == 2 and all(f.failure.startswith("wrong: error") and not f.samples for f in figures)


def test_a_peer_without_a_python_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = command.main(["--peers", "casadi", "--python", "casadi=/nowhere", "--only", "W12_rosenbrock", *SHORT])
    assert {f.peer for f in found["W12_rosenbrock"]} == {"graphc"}
    assert "casadi is left out: [Errno 2]" in capsys.readouterr().out


def test_a_peer_that_dies_starts_again_for_the_next_workload() -> None:
    with Bench.of(["graphc", "numpy"], {}) as bench:
        bench.workers["numpy"].process.kill()
        figures = bench.measure(chosen(["W1_f64"])[0], 1, 0.001)
        assert [(f.name, f.failure) for f in figures if f.failure] == [("numpy", "numpy: its process ended with -9")]
        assert list(bench.workers) == ["graphc"]
        figures = bench.measure(chosen(["W12_rosenbrock"])[0], 1, 0.001)
    assert {f.peer for f in figures if not f.failure} == {"graphc", "numpy"}


def test_what_a_peer_prints_is_no_answer() -> None:
    with pytest.raises(Died, match="its process ended with 1"):
        Worker("nothing", "false", 0)
    worker = Worker("nothing", sys.executable, 0)
    assert "No module named" in worker.greeting["missing"]
    worker.close()


@pytest.mark.parametrize("names, expected", [
    (["W1"], ["W1_f32", "W1_f64"]), (["W10", "W12_arm"], ["W10_jacobian", "W12_arm"]),
    ([], [w.name for w in WORKLOADS]), (["hourglass"], ["hourglass_float32", "hourglass_float64"]),
])
def test_choice_of_workloads(names: list[str], expected: list[str]) -> None:
    assert [w.name for w in chosen(names)] == expected


@pytest.mark.parametrize("given", [["--only", "W99"], ["--peers", "abacus"], ["--rounds", "0"], ["--seconds", "0"],
                                   ["--python", "abacus=python"], ["--python", "numpy"]])
def test_what_cannot_be_measured_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(given)


def test_error_is_relative_to_the_largest_value() -> None:
    expected = [np.array([1.0, 1000.0])]
    assert error([np.array([2.0, 1000.0])], expected) == pytest.approx(1e-3)
    assert error([np.array([1.0])], expected) == error([], expected) == float("inf")
    assert error([np.array([np.nan, 1000.0])], expected) == float("inf")


def test_references_of_derivatives_against_differences() -> None:
    for name, value in (("W10_jacobian", network), ("W12_rosenbrock", rosenbrock)):
        (workload,) = chosen([name])
        inputs = {key: a.astype("float64") for key, a in workload.inputs().items()}
        (exact,) = reference(workload, inputs)
        direction, step = np.random.default_rng(0).normal(size=inputs["x"].shape), 1e-6
        ends = [value(**inputs | {"x": inputs["x"] + sign * step * direction}) for sign in (1, -1)]
        np.testing.assert_allclose(exact @ direction, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def network(x: np.ndarray, W0: np.ndarray, W1: np.ndarray, W2: np.ndarray, W3: np.ndarray) -> np.ndarray:
    return W3 @ np.tanh(W2 @ np.tanh(W1 @ np.tanh(W0 @ x)))


def rosenbrock(x: np.ndarray) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def test_ratio_needs_both_sides() -> None:
    figures = [Figure("graphc", "", seconds=2.0), Figure("graphc", "out", seconds=1.0), Figure("numpy", "", "wrong")]
    assert report.ratio(figures) is None
    assert report.ratio([*figures, Figure("jax", "", seconds=4.0)]) == 0.25
