"""The harness measures, finds wrong results, and survives peers that are missing or die.  No times are asserted."""

from __future__ import annotations

from importlib import import_module
from dataclasses import replace
import json
from pathlib import Path
import shutil
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command, formulas, kernels, report, small, small_formulas, threads
from benchmarks.harness import Bench, Died, Figure, Worker
from benchmarks.native import Peaks, peaks
from benchmarks.workloads import WORKLOADS, Workload, chosen, error, reference

SHORT = ["--rounds", "2", "--seconds", "0.001"]


def test_two_workloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    found = command.main(["--peers", "numpy", "--only", "W10,W12_rosenbrock", *SHORT, "--json", str(file)])
    assert list(found) == ["W10_jacobian", "W12_rosenbrock"]
    for figures in found.values():
        assert {f.name for f in figures} == {"graphc", "graphc:out", "numpy"}  # the yardsticks know neither
        for f in figures:
            assert not f.failure and 0 < f.low <= f.seconds <= f.high < 10 and f.compile_seconds > 0
            assert len(f.samples) >= 2
    written = json.loads(file.read_text())
    run = written["threads"]["1"]
    assert run["versions"]["numpy"] == np.__version__
    assert run["workloads"]["W10_jacobian"]["ratio"] == report.ratio(found["W10_jacobian"])
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
        Worker("nothing", "false", 1)
    worker = Worker("nothing", sys.executable, 1)
    assert "No module named" in worker.greeting["missing"]
    worker.close()


@pytest.mark.parametrize("names, expected", [
    (["W1"], ["W1_f32", "W1_f64"]), (["W10", "W12_arm"], ["W10_jacobian", "W12_arm"]),
    ([], [w.name for w in WORKLOADS]), (["hourglass"], ["hourglass_float32", "hourglass_float64"]),
])
def test_choice_of_workloads(names: list[str], expected: list[str]) -> None:
    assert [w.name for w in chosen(names)] == expected


@pytest.mark.parametrize("given", [["--only", "W99"], ["--peers", "abacus"], ["--rounds", "0"], ["--seconds", "0"],
                                   ["--python", "abacus=python"], ["--python", "numpy"], ["--threads", "0"]])
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


def test_yardsticks_are_no_peers() -> None:
    row = chosen(["W1_f32"])[0]
    figures = [Figure("graphc", "", seconds=2.0), Figure("limit", "", seconds=0.5), Figure("numpy", "", seconds=4.0)]
    assert report.ratio(figures) == 0.5
    assert report.of_limit(row, figures, None, 1) == 4.0
    assert report.of_limit(row, figures, None, 2) is None  # it runs on one thread
    assert "0.50   4.00" in report.summary([row], {row.name: figures})


def test_limits_follow_from_the_peaks() -> None:
    peaks = Peaks(float32=2e11, float64=1e11, bandwidth=2e10)
    single, double, product = chosen(["W4_gemm1024", "W4_f64_1024", "W13"])
    assert report.limit(single, [], peaks, 1) == pytest.approx(2 * 1024 ** 3 / 2e11)
    assert report.limit(single, [], peaks, 2) == pytest.approx(1024 ** 3 / 2e11)
    assert report.limit(double, [], peaks, 1) == pytest.approx(2 * 1024 ** 3 / 1e11)
    assert report.limit(product, [], peaks, 1) == pytest.approx(16e6 / 2e10)


def test_the_machine_has_peaks() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    found = peaks()
    assert 1e8 < found.float64 <= found.float32 * 1.1 < 1e13 and 1e8 < found.bandwidth < 1e13


@pytest.mark.parametrize("kind", ["scale", "chain", "softmax", "layernorm", "logsumexp"])
def test_yardsticks_compute_what_they_stand_for(kind: str) -> None:
    if shutil.which("cc") is None or " avx512f " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("written for AVX-512")
    row = next(w for w in WORKLOADS if w.kind == kind)
    small = {name: np.ascontiguousarray(a[:1000, :333] if a.ndim == 2 else a[:333]) if a.ndim else a
             for name, a in row.inputs().items()}
    expected = reference(Workload(row.name, kind, "", lambda: small, row.reference, row.tolerance), small)
    for build in import_module("benchmarks.peers.limit_").CASES[kind].values():
        assert error(list(build(small).results()), expected) <= row.tolerance


def test_disturbed_samples_do_not_count() -> None:
    figure = Figure("graphc", "")
    figure.take([(1.0, 0.0)] * 5 + [(9.0, 0.5)] * 20)
    assert (figure.seconds, figure.disturbed) == (1.0, False)
    busy = Figure("graphc", "")
    busy.take([(float(k), 0.5) for k in range(1, 21)])
    assert (busy.seconds, busy.disturbed) == (3.0, True)


def test_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    found = kernels.main(["--only", "softmax_short", "--rounds", "1", "--seconds", "0.001"])
    assert {"ours", "ours, run-time rows", "numpy"} <= found["softmax_short"].keys()
    assert all(0 < t < 10 for t in found["softmax_short"].values())
    assert capsys.readouterr().out.splitlines()[-1].startswith("softmax_short")


def test_a_wrong_kernel_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    row = kernels.ROWS["sum_short"]
    monkeypatch.setitem(kernels.ROWS, "sum_short", replace(row, numpy=lambda x: x.sum(1) + 1))
    with pytest.raises(SystemExit, match="something else than NumPy"):
        kernels.main(["--only", "sum_short"])


def test_small_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = small.main(["--only", "rotation,pendulum_J", *SHORT])
    assert list(found) == ["pendulum_J", "rotation"]
    for figures in found.values():
        assert {"graphc", "out", "native", "loops", "graphc compile"} <= set(figures)
        assert all(0 < seconds < 60 for seconds in figures.values())
    assert capsys.readouterr().out.splitlines()[-1].startswith("rotation ")


def test_formulas_of_small_programs() -> None:
    table = {name: getattr(np, name) for name in ("sin", "cos", "tanh", "sqrt")}
    x = np.random.default_rng(3).standard_normal(16)
    inverse = np.array(small_formulas.inverse(list(x), table)).reshape(4, 4)
    np.testing.assert_allclose(inverse, np.linalg.inv(x.reshape(4, 4)), rtol=1e-9)
    np.testing.assert_allclose(small_formulas.cross(list(x[:6]), table), np.cross(x[:3], x[3:6]))
    np.testing.assert_allclose(small_formulas.rosenbrock(list(x), table), formulas.rosenbrock_gradient(x)[0])
    turned = np.array(small_formulas.rotation(list(x[:7]), table))
    np.testing.assert_allclose(np.linalg.norm(turned), np.linalg.norm(x[4:7]))
    tool = formulas.arm_and_jacobian(x[:6])[0]
    np.testing.assert_allclose(small_formulas.arm(list(x[:6]), table), tool[:, 3])


def test_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_THREADS", "1")  # what the benchmark sets is undone
    workload = next(w for w in WORKLOADS if w.name == "W4_gemm64")
    found = threads.measure(workload, (1, 2), 0.01)
    assert list(found) == [1, 2] and all(t.every and min(t.every) > 0 for t in found.values())
    slow, fast = threads.Times([4.0, 3.0], [4.0]), threads.Times([2.0, 1.5], [2.0])
    assert threads.gains({1: slow, 2: fast}).split() == ["2.00", "2.00"]
    assert threads.gains({1: slow, 2: threads.Times([1.0])}).split() == ["3.00", "-"]
