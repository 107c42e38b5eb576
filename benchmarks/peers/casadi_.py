"""CasADi: scalar expressions (SX), the same compiled from generated C (the variants `C`), and matrix expressions (MX).

Functions are evaluated on memory that is bound once, its fastest way to be called.  Arrays are in column order there.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import subprocess
from tempfile import TemporaryDirectory
from typing import Any

import casadi as ca
import numpy as np

from . import Case, Inputs, Table
from .. import formulas

LARGEST = 60_000  # instructions that a C compiler takes in seconds
MOST_SCALARS = 20_000
Shown = Callable[[list[formulas.Array]], list[formulas.Array]]

version = lambda: ca.__version__


def bound(function: Any, arguments: list[formulas.Array], shown: Shown | None = None) -> Case:
    """A case that evaluates the function in memory of its own, all of the arguments in float64."""
    buffer, call = function.buffer()
    kept = [np.array(a, "float64").ravel(order="F") for a in arguments]
    outputs = [np.zeros(function.nnz_out(k)) for k in range(function.n_out())]
    for k, array in enumerate(kept):
        buffer.set_arg(k, array.data)
    for k, array in enumerate(outputs):
        buffer.set_res(k, array.data)

    def results(held: Any = (buffer, kept)) -> list[formulas.Array]:  # the default keeps what the call uses alive
        call()
        if shown is not None:
            return shown(outputs)
        shapes = [function.size_out(k) for k in range(function.n_out())]
        found = [o.reshape(shape, order="F") for o, shape in zip(outputs, shapes)]
        return [a[:, 0] if a.shape[1] == 1 else a for a in found]
    return Case(call, results)


def in_c(function: Any) -> Any:
    """The function compiled from its C, by the system's compiler."""
    count = function.n_instructions()
    if count > LARGEST:
        raise RuntimeError(f"{count} instructions: C code of more than {LARGEST} takes minutes to compile")
    level = "-O3" if count < 4000 else "-O1"
    here = os.getcwd()
    with TemporaryDirectory() as folder:
        try:
            os.chdir(folder)  # `generate` writes to the current folder only
            function.generate("f.c")
        finally:
            os.chdir(here)
        library = Path(folder) / "f.so"
        subprocess.run(["cc", level, "-march=native", "-fPIC", "-shared", f"{folder}/f.c", "-o", str(library), "-lm"],
                       check=True, capture_output=True, timeout=200)
        return ca.external(function.name(), str(library))


def cases(build: Callable[..., list[Any]], variants: tuple[str, ...], shown: Shown | None = None,
          ) -> dict[str, Callable[[Inputs], Case]]:
    """A builder per variant for the outputs that `build` makes of symbols by the names of the inputs."""
    def of(variant: str) -> Callable[[Inputs], Case]:
        def made(inputs: Inputs) -> Case:
            kind, count = ca.MX if variant == "MX" else ca.SX, sum(a.size for a in inputs.values())
            if kind is ca.SX and count > MOST_SCALARS:
                raise RuntimeError(f"{count} inputs: expressions of more than {MOST_SCALARS} scalars take minutes")
            symbols = {name: kind.sym(name, *(a.shape or (1,))) for name, a in inputs.items()}
            options = {} if variant == "MX" else {"cse": True}
            function = ca.Function("f", list(symbols.values()), build(**symbols), options)
            return bound(in_c(function) if variant == "C" else function, list(inputs.values()), shown)
        return made
    return {variant: of(variant) for variant in variants}


def network(x: Any, W0: Any, W1: Any, W2: Any, W3: Any) -> list[Any]:
    h = x
    for W in (W0, W1, W2):
        h = ca.tanh(W @ h)
    return [ca.densify(ca.jacobian(W3 @ h, x))]


def loss(X: Any, y: Any, p: Any) -> Any:
    split = formulas.FEATURES * formulas.HIDDEN
    W = ca.reshape(p[:split], formulas.HIDDEN, formulas.FEATURES).T
    h = ca.tanh(X @ W + ca.repmat(p[split:-formulas.HIDDEN].T, X.shape[0], 1))
    residual = h @ p[-formulas.HIDDEN:] - y
    return ca.dot(residual, residual) / X.shape[0]


def hvp(X: Any, y: Any, p: Any, v: Any) -> list[Any]:
    return [ca.jtimes(ca.gradient(loss(X, y, p), p), p, v)]


def rosenbrock(x: Any) -> list[Any]:
    return [ca.gradient(ca.sum1(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), x)]


def arm(q: Any) -> list[Any]:
    tool = formulas.arm_frames([q[k] for k in range(6)], ca.sin, ca.cos)[-1]
    pose = ca.vertcat(*(ca.horzcat(*row) for row in tool))
    return [ca.densify(pose), ca.densify(ca.jacobian(pose[:, 3], q))]


def reaction(state: Any) -> list[Any]:
    """With cells in column order the square is transposed, which changes nothing: its neighbours stay neighbours."""
    n = formulas.CELLS
    u, v = (ca.reshape(state[k * n * n:(k + 1) * n * n], n, n) for k in (0, 1))

    def spread(w: Any) -> Any:
        around = (ca.vertcat(w[-1, :], w[:-1, :]) + ca.vertcat(w[1:, :], w[0, :])
                  + ca.horzcat(w[:, -1], w[:, :-1]) + ca.horzcat(w[:, 1:], w[:, 0]))
        return formulas.DIFFUSION * (around - 4 * w)
    rate = ca.vertcat(ca.vec(1 + u * u * v - 4.4 * u + spread(u)), ca.vec(3.4 * u - u * u * v + spread(v)))
    return [ca.jacobian(rate, state)]


def by_rows(outputs: list[formulas.Array]) -> list[formulas.Array]:
    """The entries, which CasADi orders by column."""
    rows, columns = formulas.reaction_pattern()[0]
    by_column, by_row = np.lexsort((rows, columns)), formulas.reaction_pattern()[1]
    found = np.empty_like(outputs[0])
    found[by_column] = outputs[0]
    return [found[by_row]]


SCALAR = ("", "C")
CASES: Table = {
    "scale": cases(lambda x: [x * 2 + 1], SCALAR),
    "jacobian": cases(network, ("", "C", "MX")),
    "hessian": cases(lambda X, y, p: [ca.densify(ca.hessian(loss(X, y, p), p)[0])], ("", "C", "MX")),
    "hvp": cases(hvp, ("", "C", "MX")),
    "rosenbrock": cases(rosenbrock, SCALAR),
    "arm": cases(arm, SCALAR),
    "reaction": cases(reaction, SCALAR, by_rows),
}
