"""NumPy, with derivatives that were worked out by hand; the variant `out` allocates nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import Case, Inputs, Table, calling, training, updating
from .. import formulas

version = lambda: np.__version__


def by_hand(function: Callable[..., Any]) -> dict[str, Callable[[Inputs], Case]]:
    return {"": lambda inputs: calling(partial(function, **inputs))}


def scale_into(x: formulas.Array, out: formulas.Array) -> formulas.Array:
    np.multiply(x, 2, out=out)
    return np.add(out, 1, out=out)


def product(a: formulas.Array, b: formulas.Array) -> Case:
    return calling(partial(np.matmul, out=a @ b), a, b)


def step(inputs: Inputs) -> Case:
    state: dict[str, Any] = {}

    def reset() -> None:
        parameters = [inputs[name].copy() for name in formulas.PARAMETERS]
        means, squares = ([np.zeros_like(p) for p in parameters] for _ in range(2))
        state.update(parameters=parameters, means=means, squares=squares, count=0)

    def call() -> Any:
        state["count"] += 1
        loss, gradients = formulas.loss_and_gradients(state["parameters"], inputs["x"], inputs["y"])
        formulas.adam(state["parameters"], state["means"], state["squares"], gradients, state["count"])
        return loss
    return training(call, reset, lambda: state["parameters"])


def reaction(inputs: Inputs) -> Case:
    """The pattern's order is found once."""
    n = formulas.CELLS
    order = formulas.reaction_pattern(n)[1]

    def entries(state: formulas.Array) -> formulas.Array:
        u, v = state[:n * n], state[n * n:]
        uv, uu = 2 * u * v, u * u
        found = np.full(12 * n * n, formulas.DIFFUSION)
        found[:n * n] = uv - (4.4 + 4 * formulas.DIFFUSION)
        found[n * n:2 * n * n] = uu
        found[2 * n * n:3 * n * n] = 3.4 - uv
        found[3 * n * n:4 * n * n] = -uu - 4 * formulas.DIFFUSION
        return found[order]
    return calling(entries, inputs["state"])


def adam(inputs: Inputs) -> Case:
    p, m, v, count = inputs["p"].copy(), np.zeros_like(inputs["p"]), np.zeros_like(inputs["p"]), [0]

    def call() -> None:
        count[0] += 1
        formulas.adam([p], [m], [v], [inputs["g"]], count[0])
    return updating(call, lambda: p)


CASES: Table = {
    "scale": {"": lambda i: calling(lambda x: x * 2 + 1, i["x"]),
              "out": lambda i: calling(scale_into, i["x"], np.empty_like(i["x"]))},
    "chain": by_hand(formulas.chain),
    "softmax": by_hand(formulas.softmax),
    "layernorm": by_hand(formulas.layernorm),
    "logsumexp": by_hand(formulas.logsumexp),
    "gemm": {"": lambda i: calling(np.matmul, i["a"], i["b"]), "out": lambda i: product(**i)},
    "dense": by_hand(formulas.dense),
    "training": {"": step},
    "jacobian": by_hand(formulas.network_jacobian),
    "hessian": by_hand(formulas.regression_hessian),
    "hvp": by_hand(lambda v, **others: formulas.regression_hessian(**others)[0] @ v),
    "rosenbrock": by_hand(formulas.rosenbrock_gradient),
    "arm": by_hand(formulas.arm_and_jacobian),
    "sum0": by_hand(lambda x: x.sum(0)),
    "sum1": by_hand(lambda x: x.sum(1)),
    "sum": by_hand(lambda x: x.sum()),
    "transpose": by_hand(lambda x: np.ascontiguousarray(x.T)),
    "adam": {"": adam},
    "cross_entropy": by_hand(formulas.cross_entropy),
    "product": by_hand(lambda A, B, C, D, x: A @ B @ C @ D @ x)
               | {"multi_dot": lambda i: calling(np.linalg.multi_dot, list(i.values()))},
    "reaction": {"": reaction},
}
