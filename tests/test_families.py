"""Steps that differ in sizes only share a kernel."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.ir.node import Graph, Node
from graphc.ir.plan import KernelStep, Program
from graphc.ir.plan_text import program_text
from graphc.ir.reference import evaluate
from passes.count import program_operations
from passes.lower import Request, lower
import numpy as np
import pytest

from compiled import Native

SHAPES = [(100, 3), (50,), (8, 8), (1,), (0, 4), (33, 7)]


def decayed(shapes: list[tuple[int, ...]]) -> dict[Node, Node]:
    """w <- w - 0.1 (g + w) for variables of these shapes."""
    found = {}
    for k, shape in enumerate(shapes):
        w = gc.variable(np.zeros(shape, "float32"), name=f"w{k}")
        g = gc.placeholder("float32", shape, name=f"g{k}")
        found[w] = w - 0.1 * (g + w)
    return found


def program(updates: dict[Node, Node]) -> Program:
    gradients = [n for n in updates[next(iter(updates))].graph.placeholders.values()]
    return lower(Request("main", tuple(gradients), (), tuple(updates.items())))


def kernels(made: Program) -> set[str]:
    return {repr(step.kernel) for step in made.steps if isinstance(step, KernelStep)}


def test_updates_of_many_sizes_share_one_kernel(golden: Callable[[str], None]) -> None:
    with Graph():
        made = program(decayed(SHAPES[:3]))
        assert len(made.steps) == 3 and len(kernels(made)) == 1
        golden(program_text(made))


def test_two_sizes_keep_their_lengths() -> None:
    with Graph():
        made = program(decayed(SHAPES[:2]))
        assert len(kernels(made)) == 2 and not any(step.sizes for step in made.steps if isinstance(step, KernelStep))


def test_other_work_is_another_kernel() -> None:
    with Graph():
        updates = decayed(SHAPES[:3])
        last = gc.variable(np.zeros(9, "float32"), name="last")
        assert len(kernels(program({**updates, last: gc.sin(last)}))) == 2


def test_operations_are_counted_with_the_sizes_of_each_step() -> None:
    with Graph():
        assert program_operations(program(decayed(SHAPES[:3]))) == {"add": 414, "mul": 414, "sub": 414}


@pytest.mark.parametrize("batch", [0, 1, 5, 40])
def test_shared_kernels_compute_every_variable(batch: int) -> None:
    rng = np.random.default_rng(batch)
    with Graph():
        updates = decayed(SHAPES)
        x = gc.placeholder("float32", ("batch", 4), name="x")
        nodes = [gc.tanh(x) * 3, gc.tanh(x[:, 0]) * 3, gc.tanh(x[:, 1:]) * 3]
        inputs = [x, *(n for n in x.graph.placeholders.values() if n is not x)]
        feeds = {n: rng.standard_normal([batch if isinstance(d, gc.Dim) else d for d in n.shape]).astype("float32")
                 for n in inputs}
        state = [rng.standard_normal(w.shape).astype("float32") for w in updates]
        values = dict(zip(updates, [s.copy() for s in state]))
        made = Native(nodes, inputs, list(updates.items()))
        got = made(feeds, state)
        wanted = evaluate([*nodes, *updates.values()], feeds, values)
        for ours, theirs in zip([*got, *state], wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
