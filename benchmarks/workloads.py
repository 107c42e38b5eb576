"""What is measured: a table of workloads, each with inputs from fixed seeds and a NumPy reference in float64.

The names are those of a list of rivals' times: W7 to W9 need convolutions and loops, which do not exist yet.

A workload has a name, which users ask for by its beginning (`W4` is all sizes of matrix products), a kind, which is
what peers know how to compute, and the largest error that its results may have, relative to the largest value of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import formulas

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]
ALIGNMENT = 64  # bytes; some libraries copy what is aligned less


@dataclass(frozen=True)
class Workload:
    """A row of the table.  `reference` gets the inputs in float64."""

    name: str
    kind: str
    title: str
    inputs: Callable[[], Inputs]
    reference: Callable[..., list[Array]]
    tolerance: float
    flops: float = 0.0  # where arithmetic is what bounds it
    nbytes: float = 0.0  # where memory is: read once and written once
    dtype: str = "float32"  # of that arithmetic


def normal(shapes: Mapping[str, tuple[int, ...]], dtype: str, seed: int = 0, scale: float = 1.0) -> Inputs:
    """Normally distributed arrays of these shapes; a scale of 0 stands for 1 / sqrt(columns)."""
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * (scale or shape[-1] ** -0.5)).astype(dtype)
            for name, shape in shapes.items()}


def chain_inputs() -> Inputs:
    return normal({"x": (10_000_000,)}, "float32") | {
        name: np.array(value, "float32") for name, value in (("a", 1.3), ("b", 0.2), ("c", 0.7))}


def dense_inputs() -> Inputs:
    return normal({"x": (256, 784), "b": (512,)}, "float32") | normal({"W": (784, 512)}, "float32", 1, 0.05)


def training_inputs(batch: int) -> Inputs:
    rng = np.random.default_rng(6)
    found: Inputs = {}
    for layer, (rows, columns) in enumerate(zip(formulas.MLP, formulas.MLP[1:])):
        found[f"W{layer}"] = (rng.standard_normal((rows, columns)) * (2 / rows) ** 0.5).astype("float32")
        found[f"b{layer}"] = np.zeros(columns, "float32")
    found["x"] = rng.random((batch, formulas.MLP[0])).astype("float32")
    return found | {"y": rng.integers(0, formulas.MLP[-1], batch).astype("int32")}


def network_inputs(sizes: tuple[int, ...], dtype: str) -> Inputs:
    weights = {f"W{layer}": shape for layer, shape in enumerate(zip(sizes[1:], sizes))}
    return normal({"x": sizes[:1]}, dtype, 12, 0.5) | normal(weights, dtype, 13, 0)


def regression_inputs(direction: bool) -> Inputs:
    size = (formulas.FEATURES + 2) * formulas.HIDDEN
    found = normal({"X": (64, formulas.FEATURES), "y": (64,)}, "float64", 14)
    found |= normal({"p": (size,)}, "float64", 15, 0.4)
    return found | (normal({"v": (size,)}, "float64", 16) if direction else {})


def product_inputs() -> Inputs:
    return normal({k: (1000, 1000) for k in "ABCD"}, "float32", 17, 0) | normal({"x": (1000,)}, "float32", 18)


def angles() -> Inputs:
    return {"q": np.random.default_rng(19).uniform(-2, 2, 6)}


def reaction_inputs() -> Inputs:
    return {"state": np.random.default_rng(20).uniform(0.5, 3.0, 2 * formulas.CELLS ** 2)}


def gemm(label: str, rows: int, inner: int, columns: int, dtype: str = "float32") -> Workload:
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    shapes = {"a": (rows, inner), "b": (inner, columns)}
    return Workload(f"W4_{label}", "gemm", f"({rows},{inner}) @ ({inner},{columns}), {dtype}",
                    partial(normal, shapes, dtype), lambda a, b: [a @ b], tolerance,
                    2.0 * rows * inner * columns, dtype=dtype)


def logits() -> Inputs:
    return normal({"z": ROWS}, "float32", 22, 3.0) | {
        "y": np.random.default_rng(23).integers(0, ROWS[1], ROWS[0]).astype("int32")}


ROWS, NARROW, WAIST = (4096, 1024), (8, 512, 4, 512, 8), (512, 256, 8, 256, 512)
images = partial(normal, {"x": ROWS}, "float32", 3, 3.0)

WORKLOADS = [
    Workload("W1_f32", "scale", "x * 2 + 1, 10 elements, float32", partial(normal, {"x": (10,)}, "float32"),
             lambda x: [x * 2 + 1], 1e-6),
    Workload("W1_f64", "scale", "x * 2 + 1, 10 elements, float64", partial(normal, {"x": (10,)}, "float64"),
             lambda x: [x * 2 + 1], 1e-15),
    Workload("W2_chain", "chain", "tanh(a x + b) sigmoid(c x) - exp(-x^2) / (1 + |x|), 1e7 elements, float32",
             chain_inputs, formulas.chain, 1e-5),
    Workload("W3_softmax", "softmax", "softmax over the last axis of (4096,1024)", images, formulas.softmax, 1e-5),
    Workload("W3_layernorm", "layernorm", "layer norm of (4096,1024)",
             lambda: images() | normal({"g": (1024,), "b": (1024,)}, "float32", 4), formulas.layernorm, 1e-5),
    Workload("W3_logsumexp", "logsumexp", "logsumexp over the last axis of (4096,1024)", images,
             formulas.logsumexp, 1e-5),
    *(gemm(f"gemm{n}", n, n, n) for n in (64, 128, 256, 512, 1024, 2048)),
    gemm("skinny", 64, 1000, 100),
    *(gemm(f"f64_{n}", n, n, n, "float64") for n in (512, 1024)),
    Workload("W5_dense", "dense", "relu(x @ W + b), (256,784) @ (784,512)", dense_inputs, formulas.dense, 1e-5,
             2.0 * 256 * 784 * 512),
    # a wide tolerance, as libraries add Adam's epsilon before or after the correction of its moments
    *(Workload(f"W6_mlp{n}", "training", f"training step, 784-512-256-10, cross-entropy, Adam, batch {n}",
               partial(training_inputs, n), formulas.three_steps, 2e-4,
               2.0 * n * (2 * 784 * 512 + 3 * 512 * 256 + 3 * 256 * 10)) for n in (64, 256)),
    Workload("W10_jacobian", "jacobian", "Jacobian of a tanh network 8-512-4-512-8, float32",
             partial(network_inputs, NARROW, "float32"), formulas.network_jacobian, 1e-4),
    Workload("W11_hessian", "hessian", "Hessian of mean((tanh(X W + b) w - y)^2), 100 parameters, float64",
             partial(regression_inputs, False), formulas.regression_hessian, 1e-9),
    Workload("W11_hvp", "hvp", "the same Hessian times a vector", partial(regression_inputs, True),
             lambda v, **others: [formulas.regression_hessian(**others)[0] @ v], 1e-9),
    Workload("W12_rosenbrock", "rosenbrock", "gradient of Rosenbrock's function of 100 variables, float64",
             partial(normal, {"x": (100,)}, "float64", 21), formulas.rosenbrock_gradient, 1e-10),
    Workload("W12_arm", "arm", "pose and Jacobian of the position of an arm with six joints, float64", angles,
             formulas.arm_and_jacobian, 1e-9),
    Workload("W13_product", "product", "A @ B @ C @ D @ x as written, 1000 by 1000, float32", product_inputs,
             lambda A, B, C, D, x: [A @ (B @ (C @ (D @ x)))], 1e-4, nbytes=16e6),
    *(Workload(f"kernel_{kind}", kind, f"sum over {axis} of (4096,1024), float32", images, reference, 1e-5,
               nbytes=4.0 * ROWS[0] * ROWS[1])
      for kind, axis, reference in (("sum0", "axis 0", lambda x: [x.sum(0)]), ("sum1", "axis 1", lambda x: [x.sum(1)]),
                                    ("sum", "everything", lambda x: [x.sum()]))),
    Workload("kernel_transpose", "transpose", "transpose of (2048,2048), float32",
             partial(normal, {"x": (2048, 2048)}, "float32", 24), lambda x: [x.T], 0.0, nbytes=8.0 * 2048 ** 2),
    Workload("kernel_adam", "adam", "Adam's update of 535,818 parameters in place, float32",
             partial(normal, {"p": (535_818,), "g": (535_818,)}, "float32", 25), formulas.first_update, 1e-5),
    Workload("kernel_gelu_norm", "gelu_norm", "layer norm of gelu(x) + r, (4096,1024), float32",
             lambda: images() | normal({"r": ROWS}, "float32", 26) | normal({"g": (1024,), "b": (1024,)}, "float32", 4),
             formulas.gelu_norm, 1e-5),
    Workload("kernel_cross_entropy", "cross_entropy", "cross-entropy of (4096,1024) with its gradient, float32", logits,
             formulas.cross_entropy, 1e-5),
    *(Workload(f"hourglass_{dtype}", "jacobian", f"Jacobian of a tanh network 512-256-8-256-512, {dtype}",
               partial(network_inputs, WAIST, dtype), formulas.network_jacobian, tolerance)
      for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-11))),
    Workload("brusselator", "reaction", "the 12288 entries of the Brusselator's Jacobian on 32 by 32 cells, by rows",
             reaction_inputs, formulas.reaction_entries, 1e-12),
]


def chosen(beginnings: Iterable[str]) -> list[Workload]:
    """The workloads whose names begin with one of these, in the order of the table; W1 is not W10."""
    def begins(name: str, part: str) -> bool:
        return name == part or name.startswith(part + "_") or (part.endswith("_") and name.startswith(part))
    wanted = list(beginnings)
    for part in wanted:
        if not any(begins(w.name, part) for w in WORKLOADS):
            raise ValueError(f"no workload {part!r}; there are {', '.join(w.name for w in WORKLOADS)}")
    return [w for w in WORKLOADS if not wanted or any(begins(w.name, part) for part in wanted)]


def aligned(array: Array) -> Array:
    """A contiguous copy at a multiple of ALIGNMENT bytes."""
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def reference(workload: Workload, inputs: Inputs) -> list[Array]:
    """The expected results, in float64."""
    wide = {name: a.astype("float64") if a.dtype.kind == "f" else a for name, a in inputs.items()}
    return [np.asarray(result) for result in workload.reference(**wide)]


def error(results: list[Array], expected: list[Array]) -> float:
    """The largest difference of a result, relative to its largest value; infinite where a shape or a NaN is wrong."""
    if [np.shape(r) for r in results] != [e.shape for e in expected]:
        return float("inf")
    gaps = [float(np.abs(np.asarray(r, "float64") - e).max() / (np.abs(e).max() or 1.0))
            for r, e in zip(results, expected)]
    return max((gap if np.isfinite(gap) else float("inf") for gap in gaps), default=0.0)
