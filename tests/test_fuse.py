"""Fusion: which nodes become one kernel, what it costs, and why it was cut from its neighbours."""

from __future__ import annotations

from collections.abc import Callable
import time

import graphc as gc
from graphc.ir.costs import LEVELS, Cost, bandwidth
from graphc.ir.node import Graph, Node
from graphc.ir.reference import evaluate
from passes.branches import cases_of
from passes.fuse import Fusion, fuse, fusion_text
from passes.groups import Group
from passes.lower import Request, lower
from passes.pipeline import optimise
import numpy as np
import pytest

from compiled import Native
from graphc.config import Options


@pytest.fixture(autouse=True)
def fresh_graph():
    with Graph():
        yield


def image(rows: int = 4096, columns: int = 1024) -> Node:
    return gc.placeholder("float32", (rows, columns), name="x")


def optimised(*fetches: Node) -> list[Node]:
    return optimise(fetches, Options.of())


def fused(*fetches: Node) -> Fusion:
    targets = optimised(*fetches)
    return fuse(targets, cases_of(targets))


def domains(fusion: Fusion) -> list[tuple[object, ...]]:
    return [group.domain for group in fusion.groups]


# -- costs --
def test_time_is_the_larger_of_moving_and_computing():
    assert Cost(read=1e6).time == pytest.approx(1e6 / bandwidth(1e6) + 100)
    assert Cost(operations=1e6).time > Cost(operations=1e5).time
    assert Cost(read=8e6, operations=1e6).time == max(Cost(read=8e6).time, Cost(operations=1e6).time)
    assert [Cost(read=held).level for _, held, _ in LEVELS] == [name for name, _, _ in LEVELS]


def test_a_nearer_level_is_faster():
    speeds = [bandwidth(held) for _, held, _ in LEVELS]
    assert speeds == sorted(speeds, reverse=True)


# -- effects --
def test_cross_entropy_and_its_gradient_are_one_pass_over_the_rows(golden: Callable[[str], None]):
    x, t = image(), gc.placeholder("int32", (4096,), name="t")
    loss = gc.mean(gc.nn.softmax_cross_entropy(x, t))
    fusion = fused(loss, *gc.gradients(loss, [x]))
    assert domains(fusion) == [(4096, 1024), (4096,)]
    golden(fusion_text(fusion))


def test_a_row_that_leaves_the_cache_is_cut(golden: Callable[[str], None]):
    x = image(1 << 18, 64)
    golden(fusion_text(fused((x - x.mean(axis=0)) / gc.std(x, axis=0))))


def test_a_row_that_stays_in_cache_is_not():
    x = image(64, 1 << 14)
    assert len(fused((x - x.mean(axis=1, keepdims=True)) * 2).groups) == 1


def test_a_residual_that_two_kernels_read_is_added_in_the_epilogue(golden: Callable[[str], None]):
    x, w = image(512, 512), gc.placeholder("float32", (512, 512), name="w")
    y = x + x @ w
    golden(fusion_text(fused(gc.sum(y, axis=0), gc.max(y, axis=1))))


def test_dear_values_of_several_kernels_are_stored():
    x = image(64, 64)
    fusion = fused(gc.sum(gc.tanh(x), axis=0), gc.max(gc.tanh(x), axis=1))
    assert [n.op.name for n in fusion.stored if n.shape == (64, 64)] == ["tanh"]


def test_cheap_values_are_computed_again():
    x = image()
    assert not any(n.shape == x.shape for n in fused(gc.sum(x * 2, axis=0), gc.max(x * 2, axis=1)).stored)


def test_what_memory_hides_is_computed_again():
    x = image()
    assert not any(n.shape == x.shape for n in fused(gc.sum(gc.exp(x), axis=0), gc.max(gc.exp(x), axis=1)).stored)


def test_scalars_of_an_optimiser_are_computed_once():
    w = [gc.variable(np.zeros((100 + k, 10), "float32"), name=f"w{k}") for k in range(5)]
    loss = gc.sum(gc.stack([gc.sum(v * v) for v in w]))
    updates = gc.optim.Adam(1e-3).minimize(loss)
    fusion = fused(*updates.values())
    powers = [group for group in fusion.groups if any(n.op.name == "pow" for n in (*group.inlined, *group.roots))]
    assert len(powers) == 1 and powers[0].domain == ()


# -- invariants --
def random_fetches(seed: int) -> tuple[list[Node], list[Node]]:
    """Inputs and fetches of a random graph of maps, reductions, broadcasts and products."""
    rng = np.random.default_rng(seed)
    inputs = [gc.placeholder("float64", (6, 5), name="a"), gc.placeholder("float64", (5,), name="b"),
              gc.placeholder("float64", (6, 1), name="c")]
    full: list[Node] = [inputs[0], inputs[0] + inputs[1]]
    for _ in range(int(rng.integers(4, 14))):
        p, q = (full[int(k)] for k in rng.integers(0, len(full), 2))
        full.append([
            lambda p=p, q=q: p * q, lambda p=p, q=q: gc.tanh(p) - q, lambda p=p: p - p.mean(axis=1, keepdims=True),
            lambda p=p, q=q: p + gc.sum(q, axis=0), lambda p=p: gc.nn.softmax(p), lambda p=p: p * gc.max(p),
            lambda p=p, q=q: gc.where(p > q, p, inputs[2] + q), lambda p=p, q=q: p @ (q.T @ p) * 0.1,
            lambda p=p: gc.exp(-p * p) + inputs[2],
        ][int(rng.integers(0, 9))]())
    fetches = [full[-1], gc.sum(full[-2], axis=0), gc.max(full[-3], axis=1), gc.sum(full[-1] * full[-2])]
    return inputs, fetches


def faults(fusion: Fusion) -> list[str]:
    """Breaches of what every fusion must keep."""
    home = {root: group for group in fusion.groups for root in group.roots}
    found = [f"{r.name} is in no group" for r in fusion.roots if r not in home]
    found += [f"{r.name} twice" for r in fusion.roots if sum(r in g.roots for g in fusion.groups) != 1]
    for group in fusion.groups:
        found += [f"{n.name} is read but not stored" for n in group.reads if n in home and n not in fusion.stored]
        found += [f"group {group.number} depends on itself" for g in group.after if reaches(g, group)]
        found += [f"level of {group.number}" for g in group.after if g.level >= group.level]
        found += [f"{n.name} is not waited for" for n in group.reads if n in home and home[n] not in group.after]
    return found


def reaches(start: Group, target: Group) -> bool:
    pending, seen = [start], set()
    while pending:
        group = pending.pop()
        if group is target:
            return True
        if group not in seen:
            seen.add(group)
            pending += group.after
    return False


@pytest.mark.parametrize("block", range(4))
def test_groups_of_random_graphs_are_sound(block: int):
    for seed in range(12 * block, 12 * (block + 1)):
        with Graph():
            inputs, fetches = random_fetches(seed)
            assert faults(fused(*fetches)) == [], seed
            assert faults(fused(*gc.gradients(fetches[-1], inputs))) == [], seed


@pytest.mark.parametrize("seed", range(6))
def test_kernels_of_random_graphs_compute_the_reference(seed: int):
    inputs, fetches = random_fetches(100 + seed)
    nodes = optimised(*fetches, *gc.gradients(fetches[-1], inputs))
    feeds = {n: np.random.default_rng(seed).standard_normal(n.shape) for n in inputs}
    for got, wanted, node in zip(Native(nodes, inputs)(feeds), evaluate(nodes, feeds, {}), nodes):
        bound = 1e-9 * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=bound, err_msg=repr(node))


def test_the_text_is_the_same_every_time():
    texts = set()
    for _ in range(2):
        with Graph():
            texts.add(fusion_text(fused(*random_fetches(7)[1])).replace("\n", " "))
    assert len({t.count("kernel") for t in texts}) == 1


def layers(count: int) -> tuple[Node, dict[Node, Node]]:
    x = h = gc.placeholder("float32", (32, 64), name="x")
    for k in range(count):
        w = gc.variable(np.zeros((64, 64), "float32"), name=f"w{k}")
        b = gc.variable(np.zeros(64, "float32"), name=f"b{k}")
        h = h + gc.nn.gelu(gc.nn.layer_norm(h) @ w + b)
    return x, gc.optim.Adam(1e-3).minimize(gc.mean(h * h))


def test_time_to_lower_grows_with_the_graph_and_not_with_its_square():
    times = []
    for count in (5, 20):
        with Graph():
            x, updates = layers(count)
            values = optimised(*updates.values())
            request = Request("main", (x,), (), tuple(zip(updates, values)))
            start = time.process_time()
            lower(request)
            times.append(time.process_time() - start)
    assert times[1] < 10 * times[0] + 0.2


def test_fuse_is_a_stage_of_the_dumps(tmp_path):
    x = image(8, 8)
    gc.Session(dump="fuse", dump_dir=str(tmp_path)).function([x], gc.nn.softmax(x))
    assert [p.name for p in tmp_path.iterdir()] == ["04-fuse.txt"]
    assert "kernel 0  loops  max+exp+sum" in (tmp_path / "04-fuse.txt").read_text()
