"""Memory: what a call needs, how tight the arena is, and recomputation under a limit."""

from __future__ import annotations

from itertools import chain, combinations
import random

import graphc as gc
from graphc.ir.memory import Memory, most_live, size_text
from graphc.ir.node import Graph, Node
from graphc.ir.verify import program_faults
from passes import recompute
from passes.branches import cases_of
from passes.fuse import fuse
from passes.lower import Request, drafts_of, lower
from passes.memory import Lifetime, best_fit, nbytes_of, overlaps
from passes.recompute import Forward, Policy
from passes.schedule import schedule
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def fresh_graph():
    with Graph():
        yield


def network(layers: int, batch: int = 32, width: int = 48) -> tuple[Node, Node]:
    """The input and the loss of residual blocks with layer norms."""
    rng = np.random.default_rng(layers)
    x = h = gc.placeholder("float32", (batch, width), name="x")
    for k in range(layers):
        w = gc.variable((rng.standard_normal((width, width)) / 8).astype("float32"), name=f"w{k}")
        b = gc.variable(np.zeros(width, "float32"), name=f"b{k}")
        h = h + gc.nn.gelu(gc.nn.layer_norm(h) @ w + b)
    return x, gc.mean(h * h)


def training(layers: int, **sizes: int) -> tuple[gc.Session, object, list[Node]]:
    x, loss = network(layers, **sizes)
    return x, loss, gc.optim.Adam(1e-2).minimize(loss)


# -- the report --
def test_bytes_are_known_before_the_run():
    x = gc.placeholder("float32", ("n", 64), name="x")
    w = gc.variable(np.ones((64, 10), "float64"), name="w")
    c = gc.constant(np.arange(10.0))
    f = gc.Session().function([x], gc.nn.softmax(gc.cast(x, "float64") @ w + c))
    assert f.memory.at(n=5) == Memory(5 * 64 * 4, 5 * 10 * 8, 64 * 10 * 8, 80, f.memory.at(n=5).arena)
    assert f.memory.at(n=5).total > f.memory.at(n=5).arena > 0
    assert "n" in str(f.memory.inputs)


def test_the_report_is_that_of_the_call():
    x = gc.placeholder("float32", (100, 50), name="x")
    f = gc.Session().function([x], gc.cumsum(gc.tanh(x), axis=0)[::2])
    assert f.memory.arena == f.border.arena
    assert str(f.memory).startswith("inputs 20 kB, outputs 10 kB, state 0 B, constants 0 B, arena ")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234567, "1.23 MB"),
                                            (5 * 10**9, "5 GB"), (gc.Dim.symbol("n") * 4, "4*n B")])
def test_sizes_are_shown_with_units(size, text):
    assert size_text(size) == text


# -- the arena --
@pytest.mark.parametrize("seed", range(12))
def test_arenas_of_random_lifetimes_are_tight(seed: int):
    rng = np.random.default_rng(seed)
    found = [Lifetime(k, 64 * int(rng.integers(0, 30)), first := int(rng.integers(0, 50)),  # type: ignore[arg-type]
                      first + int(rng.integers(0, 12))) for k in range(80)]
    total = best_fit(found)
    assert overlaps(found) == [] and all(b.offset + b.nbytes <= total for b in found)
    assert total <= 1.35 * max(sum(b.nbytes for b in found if b.first <= t <= b.last) for t in range(70))


def examples() -> dict[str, tuple[list[Node], list[Node], dict[Node, Node]]]:
    x, loss, updates = training(5)
    a = gc.placeholder("float32", (40, 30), name="a")
    attention = gc.nn.softmax(a @ a.T) @ gc.tanh(a)
    return {"training": ([x], [loss], updates), "attention": ([a], [attention], {}),
            "hessian": ([a], [gc.hvp(gc.sum(gc.sin(a) * gc.tanh(a @ a.T @ a)), [a], [a])[0]], {})}


@pytest.mark.parametrize("name", ["training", "attention", "hessian"])
def test_arenas_are_near_what_is_alive_at_once(name: str):
    inputs, outputs, updates = examples()[name]
    made = gc.Session().function(inputs, outputs, updates=updates).program
    assert program_faults(made) == []
    assert most_live(made, {}) <= made.arena <= 1.1 * most_live(made, {}) + 64 * len(made.buffers)


def test_updates_follow_their_gradients():
    x, loss, updates = training(8)
    made = gc.Session().function([x], loss, updates=updates).program
    activation = 32 * 48 * 4
    assert made.arena < 5.5 * 8 * activation


# -- recomputation --
def test_a_limit_is_kept_and_changes_no_bit():
    x, loss, updates = training(6)
    data = np.random.default_rng(0).standard_normal((32, 48)).astype("float32")
    free = gc.Session()
    step = free.function([x], loss, updates=updates)
    limit = step.memory.arena * 2 // 3
    tight = gc.Session(memory_limit=limit)
    small = tight.function([x], loss, updates=updates)
    assert small.memory.arena <= limit
    assert len(small.program.steps) > len(step.program.steps)
    for _ in range(3):
        np.testing.assert_array_equal(step(data), small(data))
    for variable in x.graph.variables.values():
        np.testing.assert_array_equal(free.value(variable), tight.value(variable))


def test_the_more_memory_the_fewer_steps_run_again():
    x, loss, updates = training(6)
    step = gc.Session().function([x], loss, updates=updates)
    counts = [len(gc.Session(memory_limit=int(step.memory.arena * part)).function([x], loss, updates=updates)
                  .program.steps) for part in (0.95, 0.7)]
    assert len(step.program.steps) < counts[0] < counts[1]


@pytest.mark.slow
def test_fifty_layers_in_a_quarter_of_the_memory():
    x, loss, updates = training(50, batch=64)
    need = gc.Session().function([x], loss, updates=updates).memory.arena
    small = gc.Session(memory_limit=need // 4).function([x], loss, updates=updates)
    assert small.memory.arena <= need // 4


def test_a_limit_that_cannot_be_kept_says_what_is_needed(monkeypatch):
    x, loss, updates = training(4)
    monkeypatch.setenv("GRAPHC_MEMORY_LIMIT", "10 kB")
    message = (r"memory_limit: main needs [\d.]+ kB beside .*, 10 kB are allowed; .* of it is for packed operands, "
               r"and without .* it would be [\d.]+ kB")
    with pytest.raises(gc.GraphError, match=message):
        gc.Session().function([x], loss, updates=updates)


def test_a_loose_limit_changes_nothing():
    x, loss, updates = training(3)
    free, loose = (gc.Session(**options).function([x], loss, updates=updates)
                   for options in ({}, {"memory_limit": "1GB"}))
    assert free.memory == loose.memory and len(free.program.steps) == len(loose.program.steps)


def test_a_limit_of_symbolic_sizes_is_not_built():
    x = gc.placeholder("float32", ("n", 8), name="x")
    with pytest.raises(gc.Unsupported, match=r"memory_limit: main needs .*n.* bytes"):
        gc.Session(memory_limit=1000).function([x], gc.cumsum(gc.cumsum(x, axis=0), axis=1))


def test_libraries_keep_a_limit(tmp_path):
    x, loss, updates = training(4)
    with pytest.raises(gc.GraphError, match="memory_limit: "):
        gc.compile_library(tmp_path, "net", {"step": gc.signature([x], [loss], updates=updates)}, memory_limit=1000)


# -- the cut --
def forward_of(seed: int) -> Forward:
    """The forward steps of a small random chain with its gradient."""
    chance = random.Random(seed)
    x = h = gc.placeholder("float32", (64, 64), name="x")
    for k in range(3):
        h = chance.choice([
            lambda h=h, k=k: gc.tanh(h @ gc.placeholder("float32", (64, 64), name=f"w{k}")),
            lambda h=h: gc.nn.softmax(h) + x, lambda h=h: gc.exp(gc.sin(h)) - gc.mean(h, axis=0)])()
    targets = [gc.sum(h * h), *gc.gradients(gc.sum(h * h), [x])]
    fusion = fuse(targets, cases_of(targets))
    resident = {n for n in x.graph.placeholders.values()} | set(targets)
    steps = [d for group in fusion.groups for d in drafts_of(group, fusion.roots, fusion.stored)]
    return Forward(schedule(steps, {}, resident), resident)


def price_of(forward: Forward, kept: frozenset, policy: Policy) -> float:
    """Bytes that are kept and the time that runs again, as the cut counts them; infinite where a step may not."""
    again = forward.closure([p for p in forward.needed if p not in kept], kept, {})
    if any(not forward.runs_again[k] or (hasattr(forward.steps[k].kernel, "depth") and not policy.products)
           for k in again):
        return float("inf")
    used = set(forward.needed) | {p for k in again for p in forward.steps[k].reads()}
    return (sum(int(nbytes_of(p)) for p in kept & used) + sum(int(policy.price * forward.times[k]) for k in again))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("policy", [Policy(1, 20.0, False), Policy(1, 1.0, True), Policy(1, 0.01, True)], ids=str)
def test_the_cut_is_the_cheapest_choice_of_all(seed: int, policy: Policy):
    forward = forward_of(seed)
    values = list(forward.writer)
    assert 0 < len(values) <= 12
    subsets = chain.from_iterable(combinations(values, k) for k in range(len(values) + 1))
    best = min(price_of(forward, frozenset(s), policy) for s in subsets)
    assert price_of(forward, forward.kept(policy), policy) == best


@pytest.mark.parametrize("policy", recompute.POLICIES, ids=str)
def test_every_policy_gives_a_sound_program(policy: Policy, monkeypatch):
    x, loss, updates = training(4)
    monkeypatch.setattr(recompute, "POLICIES", [policy])
    assert program_faults(lower(Request("main", (x,), (loss,), tuple(updates.items()), arena_limit=1))) == []
