"""This library.  The variant `out` writes into arrays that the caller keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import graphc as gc
import numpy as np

from . import Case, Inputs, Table, calling, training, updating
from .. import formulas

Build = Callable[..., Any]


def version() -> str:
    return gc.__version__


def compiled(inputs: Inputs, build: Build) -> Callable[..., Any]:
    """The function of all inputs, in their order, that computes what `build` makes of placeholders of their names."""
    with gc.Graph():
        nodes = {name: gc.placeholder(str(a.dtype), a.shape, name=name) for name, a in inputs.items()}
        function: Callable[..., Any] = gc.Session().function(list(nodes.values()), build(**nodes))
        return function


def plain(build: Build) -> Callable[[Inputs], Case]:
    return lambda inputs: calling(compiled(inputs, build), *inputs.values())


def into(build: Build) -> Callable[[Inputs], Case]:
    def made(inputs: Inputs) -> Case:
        function = compiled(inputs, build)
        found = function(*inputs.values())
        kept = [np.asarray(r) for r in found] if isinstance(found, list) else np.asarray(found)
        given = tuple(inputs.values())
        first = given[0]  # written as users write it: functools.partial spends longer on a keyword than the call itself
        return calling((lambda: function(first, out=kept)) if len(given) == 1 else
                       (lambda: function(*given, out=kept)))
    return made


def both(build: Build) -> dict[str, Callable[[Inputs], Case]]:
    return {"": plain(build), "out": into(build)}


def chain(x: gc.Node, a: gc.Node, b: gc.Node, c: gc.Node) -> gc.Node:
    return gc.tanh(a * x + b) * gc.sigmoid(c * x) - gc.exp(-x * x) / (1 + abs(x))


def network(x: gc.Node, **weights: gc.Node) -> gc.Node:
    for k in range(3):
        x = gc.tanh(weights[f"W{k}"] @ x)
    return weights["W3"] @ x


def loss(X: gc.Node, y: gc.Node, p: gc.Node) -> gc.Node:
    split = formulas.FEATURES * formulas.HIDDEN
    W, b, w = p[:split].reshape(formulas.FEATURES, formulas.HIDDEN), p[split:-formulas.HIDDEN], p[-formulas.HIDDEN:]
    return gc.mean((gc.tanh(X @ W + b) @ w - y) ** 2)


def rosenbrock(x: gc.Node) -> gc.Node:
    return gc.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def arm(q: gc.Node) -> list[gc.Node]:
    tool = formulas.arm_frames([q[k] for k in range(6)], gc.sin, gc.cos)[-1]
    rows = [gc.stack([v if isinstance(v, gc.Node) else gc.constant(float(v)) for v in row]) for row in tool]
    pose = gc.stack(rows)
    return [pose, gc.jacobian(pose[:, 3], q)]


def reaction(state: gc.Node) -> Any:
    n = formulas.CELLS
    u, v = gc.reshape(state, (2, n, n))

    def spread(w: gc.Node) -> gc.Node:
        around = gc.roll(w, 1, 0) + gc.roll(w, -1, 0) + gc.roll(w, 1, 1) + gc.roll(w, -1, 1)
        return formulas.DIFFUSION * (around - 4 * w)
    rate = gc.stack([1 + u * u * v - 4.4 * u + spread(u), 3.4 * u - u * u * v + spread(v)])
    return gc.sparse_jacobian(gc.ravel(rate), state).data


def step(inputs: Inputs) -> Case:
    """A training step with variables that stay in the session."""
    with gc.Graph():
        x = gc.placeholder("float32", inputs["x"].shape, name="x")
        y = gc.placeholder("int32", inputs["y"].shape, name="y")
        h = x
        for k in range(3):
            h = gc.nn.dense(h, formulas.MLP[k + 1], gc.nn.relu if k < 2 else None, name=f"layer{k}",
                            kernel=inputs[f"W{k}"])
        loss = gc.mean(gc.nn.softmax_cross_entropy(h, y))
        optimiser = gc.optim.Adam(formulas.RATE, formulas.BETA1, formulas.BETA2, formulas.ADAM_EPSILON)
        session = gc.Session()
        function = session.function([x, y], loss, updates=optimiser.minimize(loss))
        variables = list(gc.default_graph().variables.values())
    start = [session.value(v) for v in variables]

    def reset() -> None:
        for variable, value in zip(variables, start):
            session.assign(variable, value)
    layers = [v for v in variables if v.name.endswith(("/kernel", "/bias")) and v.name.count("/") == 1]
    return training(partial(function, inputs["x"], inputs["y"]), reset, lambda: [session.value(v) for v in layers])


def adam(inputs: Inputs) -> Case:
    with gc.Graph():
        g = gc.placeholder("float32", inputs["g"].shape, name="g")
        p = gc.variable(inputs["p"], name="p")
        optimiser = gc.optim.Adam(formulas.RATE, formulas.BETA1, formulas.BETA2, formulas.ADAM_EPSILON)
        session = gc.Session()
        function = session.function([g], [], updates=optimiser.apply([(g, p)]))
    return updating(partial(function, inputs["g"]), lambda: session.value(p))


def gelu_norm(x: gc.Node, r: gc.Node, g: gc.Node, b: gc.Node) -> gc.Node:
    return gc.nn.layer_norm(gc.nn.gelu(x, approximate=False) + r, g, b, formulas.EPSILON)


def labelled(z: gc.Node, y: gc.Node) -> list[gc.Node]:
    loss = gc.mean(gc.nn.softmax_cross_entropy(z, y))
    return [loss, gc.gradients(loss, z)]


CASES: Table = {
    "scale": both(lambda x: x * 2 + 1),
    "chain": both(chain),
    "softmax": both(gc.nn.softmax),
    "layernorm": both(lambda x, g, b: gc.nn.layer_norm(x, g, b, formulas.EPSILON)),
    "logsumexp": both(lambda x: gc.logsumexp(x, axis=-1)),
    "gemm": both(lambda a, b: a @ b),
    "dense": both(lambda x, W, b: gc.relu(x @ W + b)),
    "training": {"": step},
    "jacobian": both(lambda x, **weights: gc.jacobian(network(x, **weights), x)),
    "hessian": both(lambda p, **data: gc.hessian(loss(p=p, **data), p)),
    "hvp": both(lambda p, v, **data: gc.hvp(loss(p=p, **data), p, v)),
    "rosenbrock": both(lambda x: gc.gradients(rosenbrock(x), x)),
    "arm": both(arm),
    "sum0": both(lambda x: gc.sum(x, axis=0)),
    "sum1": both(lambda x: gc.sum(x, axis=1)),
    "sum": both(lambda x: gc.sum(x)),
    "transpose": both(lambda x: gc.transpose(x)),
    "adam": {"": adam},
    "gelu_norm": both(gelu_norm),
    "cross_entropy": both(labelled),
    "product": both(lambda A, B, C, D, x: A @ B @ C @ D @ x),
    "reaction": both(reaction),
}
