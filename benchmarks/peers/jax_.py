"""JAX on the processor: everything under `jit`, arrays of its own, results waited for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import Case, Inputs, Table, calling, training
from .. import formulas

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_enable_compilation_cache", False)

version = lambda: jax.__version__


def jitted(function: Callable[..., Any]) -> Callable[[Inputs], Case]:
    """A builder for a function that takes the inputs by name."""
    def build(inputs: Inputs) -> Case:
        compiled = jax.jit(lambda *values: function(**dict(zip(inputs, values))))
        arguments = [jnp.asarray(value) for value in inputs.values()]
        return calling(lambda *values: jax.block_until_ready(compiled(*values)), *arguments)
    return build


def chain(x: Any, a: Any, b: Any, c: Any) -> Any:
    return jnp.tanh(a * x + b) * jax.nn.sigmoid(c * x) - jnp.exp(-x * x) / (1 + jnp.abs(x))


def layernorm(x: Any, g: Any, b: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred ** 2).mean(-1, keepdims=True) + formulas.EPSILON) * g + b


def network(x: Any, weights: dict[str, Any]) -> Any:
    for k in range(3):
        x = jnp.tanh(weights[f"W{k}"] @ x)
    return weights["W3"] @ x


def loss(p: Any, X: Any, y: Any) -> Any:
    split = formulas.FEATURES * formulas.HIDDEN
    W, b, w = p[:split].reshape(formulas.FEATURES, -1), p[split:-formulas.HIDDEN], p[-formulas.HIDDEN:]
    return ((jnp.tanh(X @ W + b) @ w - y) ** 2).mean()


def hvp(X: Any, y: Any, p: Any, v: Any) -> Any:
    return jax.jvp(lambda at: jax.grad(loss)(at, X, y), (p,), (v,))[1]


def rosenbrock(x: Any) -> Any:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def pose(q: Any) -> Any:
    return jnp.array(formulas.arm_frames(list(q), jnp.sin, jnp.cos)[-1])


def arm(q: Any) -> Any:
    return pose(q), jax.jacfwd(lambda at: pose(at)[:, 3])(q)


def labelled(z: Any, y: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()


def cross_entropy(parameters: list[Any], x: Any, y: Any) -> Any:
    W0, b0, W1, b1, W2, b2 = parameters
    return labelled(jax.nn.relu(jax.nn.relu(x @ W0 + b0) @ W1 + b1) @ W2 + b2, y)


@partial(jax.jit, donate_argnums=0)
def adam_step(state: Any, x: Any, y: Any) -> Any:
    parameters, means, squares, count = state
    count = count + 1
    value, gradients = jax.value_and_grad(cross_entropy)(parameters, x, y)
    means = [formulas.BETA1 * m + (1 - formulas.BETA1) * g for m, g in zip(means, gradients)]
    squares = [formulas.BETA2 * v + (1 - formulas.BETA2) * g * g for v, g in zip(squares, gradients)]
    t = count.astype("float32")
    rate, scale = formulas.RATE / (1 - formulas.BETA1 ** t), 1 / jnp.sqrt(1 - formulas.BETA2 ** t)
    parameters = [p - rate * m / (jnp.sqrt(v) * scale + formulas.ADAM_EPSILON)
                  for p, m, v in zip(parameters, means, squares)]
    return (parameters, means, squares, count), value


def step(inputs: Inputs) -> Case:
    x, y = jnp.asarray(inputs["x"]), jnp.asarray(inputs["y"])
    held: dict[str, Any] = {}

    def reset() -> None:
        parameters = [jnp.array(inputs[name]) for name in formulas.PARAMETERS]
        means, squares = ([jnp.zeros_like(p) for p in parameters] for _ in range(2))
        held["state"] = (parameters, means, squares, jnp.zeros((), jnp.int32))

    def call() -> Any:
        held["state"], value = adam_step(held["state"], x, y)
        return jax.block_until_ready((value, held["state"]))[0]
    return training(call, reset, lambda: held["state"][0])


def colours() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A colour for every column of the Brusselator's Jacobian, greedily, and the entries by row."""
    (rows, columns), order = formulas.reaction_pattern()
    of_row: dict[int, list[int]] = {}
    of_column: dict[int, list[int]] = {}
    for r, c in zip(rows.tolist(), columns.tolist()):
        of_row.setdefault(r, []).append(c)
        of_column.setdefault(c, []).append(r)
    colour = np.full(2 * formulas.CELLS ** 2, -1)
    for c in sorted(of_column):
        taken = {int(colour[other]) for r in of_column[c] for other in of_row[r]}
        colour[c] = next(k for k in range(len(taken) + 1) if k not in taken)
    return colour, np.stack([rows, columns])[:, order]


def rate(state: Any) -> Any:
    u, v = state.reshape(2, formulas.CELLS, formulas.CELLS)

    def spread(w: Any) -> Any:
        around = jnp.roll(w, 1, 0) + jnp.roll(w, -1, 0) + jnp.roll(w, 1, 1) + jnp.roll(w, -1, 1)
        return formulas.DIFFUSION * (around - 4 * w)
    return jnp.stack([1 + u * u * v - 4.4 * u + spread(u), 3.4 * u - u * u * v + spread(v)]).ravel()


def reaction(inputs: Inputs) -> Case:
    """Products with a seed per colour, and the entries picked from them."""
    colour, (rows, columns) = colours()
    seeds = (colour[:, None] == np.arange(colour.max() + 1)).astype("float64").T
    places = (colour[columns], rows)

    def entries(state: Any) -> Any:
        return jax.vmap(jax.linearize(rate, state)[1])(seeds)[places]
    return jitted(entries)(inputs)


CASES: Table = {
    "scale": {"": jitted(lambda x: x * 2 + 1)},
    "chain": {"": jitted(chain)},
    "softmax": {"": jitted(lambda x: jax.nn.softmax(x, axis=-1))},
    "layernorm": {"": jitted(layernorm)},
    "logsumexp": {"": jitted(lambda x: jax.nn.logsumexp(x, axis=-1))},
    "gemm": {"": jitted(lambda a, b: a @ b)},
    "dense": {"": jitted(lambda x, W, b: jax.nn.relu(x @ W + b))},
    "training": {"": step},
    "jacobian": {name: jitted(lambda x, f=f, **weights: f(network)(x, weights))
                 for name, f in (("jacfwd", jax.jacfwd), ("jacrev", jax.jacrev))},
    "hessian": {"": jitted(lambda X, y, p: jax.hessian(loss)(p, X, y))},
    "hvp": {"": jitted(hvp)},
    "rosenbrock": {"": jitted(lambda x: jax.grad(rosenbrock)(x))},
    "arm": {"": jitted(arm)},
    "sum0": {"": jitted(lambda x: x.sum(0))},
    "sum1": {"": jitted(lambda x: x.sum(1))},
    "sum": {"": jitted(lambda x: x.sum())},
    "transpose": {"": jitted(lambda x: x.T)},
    "gelu_norm": {"": jitted(lambda x, r, g, b: layernorm(jax.nn.gelu(x, approximate=False) + r, g, b))},
    "cross_entropy": {"": jitted(lambda z, y: jax.value_and_grad(labelled)(z, y))},
    "product": {"": jitted(lambda A, B, C, D, x: A @ B @ C @ D @ x)},
    "reaction": {"": reaction},
}
