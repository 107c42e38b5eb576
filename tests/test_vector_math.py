"""The benchmark of the vector functions: its rows agree with NumPy, and it measures.  No times are asserted."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import vector_math


def test_a_function_is_measured_and_written_as_a_table() -> None:
    line = vector_math.measured("exp", "float32", 1, ["numpy"])
    assert set(line.nanoseconds) == {"graphc", "graphc v3", "numpy"}
    assert all(time > 0 for time in line.nanoseconds.values())
    assert 0 < line.lines < 100
    assert vector_math.table([line]).count("\n") == 3


@pytest.mark.parametrize("name", vector_math.ROWS)
def test_rows_agree_with_numpy(name: str) -> None:
    row = vector_math.ROWS[name]
    arrays = vector_math.operands(row, row.dtypes[0])
    got = vector_math.ours(name, row, row.dtypes[0], "native", arrays)()
    want = vector_math.by_numpy(row, row.dtypes[0], arrays)()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
