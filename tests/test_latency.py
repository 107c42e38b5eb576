"""Compile time grows with the graph and not faster; repeated parts are compiled once."""

from __future__ import annotations

from collections.abc import Callable
import re
from time import process_time
from typing import Any

from codegen.program import emit_program
from codegen.target import target
import graphc as gc
from graphc.compiler import planned
from graphc.config import Options
import numpy as np
from passes.lower import Request
import pytest

Build = Callable[[int], tuple[list[gc.Node], Any]]


# -- long graphs --
def chain(count: int) -> tuple[list[gc.Node], Any]:
    x = y = gc.placeholder("float64", (100,), name="x")
    for k in range(count):
        y = y * 0.99 + x if k % 2 else gc.maximum(y * y, x)
    return [x], y


def gradient(count: int) -> tuple[list[gc.Node], Any]:
    (x,), y = chain(count // 4)
    return [x], gc.gradients(gc.sum(y), x)


def scalars(count: int) -> tuple[list[gc.Node], Any]:
    """Straight-line code of scalars, all of it needed."""
    x = gc.placeholder("float64", (8,), name="x")
    values = [x[k] for k in range(8)]
    for k in range(count):
        a, b = values[-1 - k % 7], values[-1 - (k * k) % 5]
        values.append(a * b if k % 2 else a - b * 0.5)
    return [x], gc.stack(values[-8:])


def seconds(build: Build, count: int) -> float:
    """CPU time from the first line of a graph to its first result."""
    start = process_time()
    with gc.Graph():
        inputs, outputs = build(count)
        with gc.Session(cache="off") as session:
            result = session.function(inputs, outputs)(np.linspace(0.1, 0.9, inputs[0].shape[0]))
    assert result.shape == (inputs[0].shape[0],)
    return process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("build", [chain, gradient, scalars])
def test_time_to_compile_grows_with_the_graph(build: Build) -> None:
    """Four times the nodes take four times as long, with room for a busy machine; not sixteen times."""
    seconds(build, 100)
    few, many = (min(seconds(build, count) for _ in range(2)) for count in (1500, 6000))
    assert many < 4 * 2.5 * few, f"{few:.2f} s, then {many:.2f} s"


@pytest.mark.slow
def test_a_hundred_thousand_scalar_operations() -> None:
    assert seconds(scalars, 70_000) < 120  # half of them are two operations; some 20 s on an idle machine


# -- repeated parts --
def functions(count: int) -> list[str]:
    """The functions that are emitted for so many equal layers and their gradients."""
    with gc.Graph():
        x = y = gc.placeholder("float32", (32, 64), name="x")
        for k in range(count):
            y = gc.nn.dense(y, 64, gc.nn.relu, name=f"layer{k}")
        loss = gc.mean(y * y)
        updates = gc.optim.Adam(1e-3).minimize(loss)
        request = Request("main", (x,), (loss,), tuple(updates.items() if isinstance(updates, dict) else updates))
        _, program = planned(request, Options.of())
        return re.findall(r"^define .*?@([\w.]+)\(", emit_program(program, target()).text, re.MULTILINE)


def test_equal_layers_are_emitted_once() -> None:
    few, many = functions(5), functions(50)
    assert len(many) <= len(few) + 2, set(many) - set(few)
