"""The benchmark of products: its table of shapes is well formed, and a run prints a row for each."""

from __future__ import annotations

import pytest

from benchmarks import products


@pytest.mark.parametrize("text", products.SHAPES)
def test_shapes_are_well_formed(text: str) -> None:
    case = products.Case.of(text)
    assert set(case.kinds) <= set("nt") and case.flops > 0
    assert case.dtype in ("float32", "float64") and set(case.unknown) <= set("mnk")


def test_a_row_for_each_product(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SAMPLE", 1e-5)
    products.main(["--only", "tn:3x2x5x4:float64:mk,nt:6x7x8", "--peers", "", "--rounds", "1"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| tn:3x2x5x4:float64:mk", "| nt:6x7x8"]
