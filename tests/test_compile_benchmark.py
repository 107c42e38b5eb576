"""The benchmark of compile times measures what it says.  No times are compared."""

from __future__ import annotations

import pytest

from benchmarks import compile as command


def test_cold_and_warm_processes(capsys: pytest.CaptureFixture[str]) -> None:
    found = command.main(["--only", "W12_rosenbrock", "--peers", "", "--rounds", "1"])
    rows = found["W12_rosenbrock"]
    assert rows.keys() == {"graphc", "warm"}
    for row in rows.values():
        assert row.keys() == {"cpu", "clock", "call cpu", "call clock"}
        assert all(len(seconds) == 1 for seconds in row.values())
        assert 0 < row["call clock"][0] < row["clock"][0] and 0 < row["call cpu"][0] < row["cpu"][0]
    assert capsys.readouterr().out.splitlines()[-1].startswith("W12_rosenbrock")


def test_a_process_that_fails_says_why() -> None:
    workload = command.chosen(["W12_rosenbrock"])[0]
    with pytest.raises(RuntimeError, match=r"(?s)W12_rosenbrock by nobody.*No module named"):
        command.child("nobody", workload, "")
