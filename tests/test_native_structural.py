"""Native code of every structural op against its reference, over the samples of `samples.py`."""

from __future__ import annotations

from graphc.ir.node import OPS, Graph
from graphc.ir.reference import evaluate
from graphc.ir.types import is_float
import numpy as np
import pytest

from compiled import native
from samples import SAMPLES, values_of

ROWS = [name for name, op in OPS.items() if op.kind == "structural"]


@pytest.mark.parametrize("name", ROWS)
def test_native_is_reference(name: str) -> None:
    for k, build in enumerate(SAMPLES[name]):
        with Graph():
            node = build()
            feeds = values_of([node])
            wanted = evaluate([node], feeds, {})[0]
            got = native([node], feeds)[0]
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            if is_float(node.dtype):
                np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14, err_msg=f"{name} sample {k}")
            else:
                np.testing.assert_array_equal(got, wanted, f"{name} sample {k}")
