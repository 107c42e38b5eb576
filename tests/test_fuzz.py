"""Random graphs: native code, with and without graph passes, against the reference; a failure is cut to one node."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.config import Options
from graphc.ir.node import Graph, Node, ancestors
from graphc.ir.reference import evaluate
from graphc.ir.text import text
from passes.pipeline import optimise
import numpy as np
import pytest

from compiled import Native

Step = Callable[[np.random.Generator, list[Node]], Node]
UNARY = ("tanh", "sin", "exp", "abs", "negative", "square", "sigmoid", "relu", "floor", "sign", "arctan", "softplus",
         "log1p")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "arctan2", "hypot")
REDUCTIONS = ("sum", "max", "min", "mean", "prod", "logsumexp", "var")


def pick(rng: np.random.Generator, nodes: list[Node], wanted: Callable[[Node], bool] = lambda n: True) -> Node:
    found = [n for n in nodes if wanted(n)]
    return found[int(rng.integers(max(0, len(found) - 8), len(found)))]


def unary(rng: np.random.Generator, nodes: list[Node]) -> Node:
    x = pick(rng, nodes)
    name = str(rng.choice(UNARY))
    return getattr(gc, name)(gc.abs(x) if name == "log1p" else gc.tanh(x) if name == "exp" else x)


def binary(rng: np.random.Generator, nodes: list[Node]) -> Node:
    x = pick(rng, nodes)
    y = pick(rng, nodes, lambda n: n.shape == x.shape or n.ndim == 0)
    return getattr(gc, str(rng.choice(BINARY)))(x, y)


def choice(rng: np.random.Generator, nodes: list[Node]) -> Node:
    x = pick(rng, nodes)
    y = pick(rng, nodes, lambda n: n.shape == x.shape)
    return gc.where(x > y * 0.5, x, y)


def reduction(rng: np.random.Generator, nodes: list[Node]) -> Node:
    x = pick(rng, nodes, lambda n: n.ndim > 0)
    axis = int(rng.integers(0, x.ndim))
    result = getattr(gc, str(rng.choice(REDUCTIONS)))(gc.tanh(x), axis=axis, keepdims=True)
    return gc.broadcast_to(result, x.shape) if rng.random() < 0.7 else gc.squeeze(result, axis)


def movement(rng: np.random.Generator, nodes: list[Node]) -> Node:
    x = pick(rng, nodes, lambda n: n.ndim == 2)
    rows, columns = x.shape
    return [lambda: x.T, lambda: x[:, ::-1], lambda: gc.concatenate([x, x * 0.5], axis=1), lambda: x[:, 1:],
            lambda: gc.pad(x, ((0, 0), (1, 2))), lambda: gc.expand_dims(x, 1).reshape((rows, columns)),
            lambda: gc.reshape(x, (-1,)), lambda: gc.roll(x, 1, axis=1), lambda: gc.cumsum(x, axis=1),
            lambda: gc.take(x, gc.constant([0, -1, 0]), axis=1)][int(rng.integers(0, 10))]()


def product(rng: np.random.Generator, nodes: list[Node]) -> Node:
    x = pick(rng, nodes, lambda n: n.ndim == 2)
    if rng.random() < 0.3:
        return gc.tanh(x.T @ x)
    y = pick(rng, nodes, lambda n: n.ndim == 2 and isinstance(n.shape[1], int))
    weights = gc.constant(rng.standard_normal((3, 4)) / 4)
    return gc.tanh(gc.einsum("ij,kj->ik", x, x)) if x is y else gc.tanh(gc.sum(y, axis=1, keepdims=True) * weights[:1])


STEPS: list[Step] = [unary, unary, unary, binary, binary, binary, choice, reduction, reduction, movement, product]


def random_graph(seed: int, length: int, columns: int = 5) -> tuple[list[Node], list[Node], dict[Node, np.ndarray]]:
    """Placeholders, fetches and feeds; rows of more than some 16 columns do not stay in registers."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([1, 2, 7, 19]))
    leaves = [*(gc.placeholder("float64", ("n", columns), name=name) for name in ("x", "y")),
              gc.placeholder("float64", (), name="s")]
    nodes = list(leaves)
    while len(nodes) < length:
        made = STEPS[int(rng.integers(0, len(STEPS)))](rng, nodes)
        is_wide = made.ndim == 2 and isinstance(made.shape[1], int) and made.shape[1] > 12 * columns
        if made.dtype == "float64" and not is_wide:
            nodes.append(made)
    feeds = {leaf: rng.standard_normal((n, columns) if leaf.ndim else ()) for leaf in leaves}
    fetches = [nodes[i] for i in sorted({len(nodes) - 1, *map(int, rng.integers(3, len(nodes), 3))})]
    return leaves, fetches, feeds


def differences(fetches: list[Node], leaves: list[Node], feeds: dict[Node, np.ndarray], optimised: bool) -> list[int]:
    """Positions of the fetches whose native value is not the reference's."""
    wanted = evaluate(fetches, feeds, {})
    built = optimise(fetches, Options.of()) if optimised else fetches
    got = Native(built, leaves)(feeds)
    return [k for k, (a, b) in enumerate(zip(got, wanted))
            if not np.allclose(a, b, rtol=1e-8, atol=1e-9, equal_nan=True)]


def shrunk(fetch: Node, leaves: list[Node], feeds: dict[Node, np.ndarray], optimised: bool) -> str:
    """The first ancestor that is wrong as the only fetch, as text."""
    for node in ancestors([fetch]):
        if node.operands and node.dtype == "float64" and differences([node], leaves, feeds, optimised):
            return text([node])
    return "wrong only together with the other fetches:\n" + text([fetch])


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(s, marks=pytest.mark.slow) for s in range(12, 300))])
def test_random_graph(seed: int, optimised: bool) -> None:
    with Graph():
        leaves, fetches, feeds = random_graph(seed, 25)
        wrong = differences(fetches, leaves, feeds, optimised)
        assert not wrong, f"seed {seed}\n" + shrunk(fetches[wrong[0]], leaves, feeds, optimised)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 60))])
def test_random_graph_of_long_rows(seed: int) -> None:
    with Graph():
        leaves, fetches, feeds = random_graph(2000 + seed, 25, columns=37)
        wrong = differences(fetches, leaves, feeds, True)
        assert not wrong, f"seed {seed}\n" + shrunk(fetches[wrong[0]], leaves, feeds, True)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 60))])
def test_gradient_of_random_graph(seed: int) -> None:
    """Native gradients against the reference's, and those against a directional difference."""
    with Graph():
        leaves, fetches, feeds = random_graph(1000 + seed, 15)
        loss = gc.mean(gc.tanh(fetches[-1]))
        gradients = gc.gradients(loss, leaves)
        wrong = differences(gradients, leaves, feeds, True)
        assert not wrong, f"seed {seed}\n" + shrunk(gradients[wrong[0]], leaves, feeds, True)
