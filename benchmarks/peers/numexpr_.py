"""NumExpr: one expression over arrays, block by block."""

from __future__ import annotations

import numexpr as ne
import numpy as np

from . import THREADS, Case, Inputs, Table, calling

ne.set_num_threads(THREADS)
CHAIN = "tanh(a * x + b) / (1 + exp(-c * x)) - exp(-x * x) / (1 + abs(x))"

version = lambda: ne.__version__


def evaluated(text: str, inputs: Inputs) -> Case:
    values = {name: a if a.ndim else np.float32(a) for name, a in inputs.items()}
    return calling(lambda: ne.evaluate(text, local_dict=values, optimization="aggressive"))


CASES: Table = {
    "scale": {"": lambda inputs: evaluated("x * 2 + 1", inputs)},
    "chain": {"": lambda inputs: evaluated(CHAIN, inputs)},
    "sum0": {"": lambda inputs: evaluated("sum(x, axis=0)", inputs)},
    "sum1": {"": lambda inputs: evaluated("sum(x, axis=1)", inputs)},
}
