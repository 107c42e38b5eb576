"""Straight-line code of small programs: against the reference, in pieces, in place, at the ends of buffers."""

from functools import partial
import math
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc
from graphc.ir.node import OPS, Graph, ancestors
from graphc.ir.plan import CopyStep, Kernel, KernelStep, is_straight
from graphc.ir.plan_text import program_text
from graphc.ir.reference import evaluate
from graphc.ir.verify import program_faults
from passes import lower as lowering
from passes import straight
from passes.elements import SMOOTH
from passes.lower import Request, lower
from passes.straight_cost import LEAF_ROWS, Floor, straight_cost, worth

from compiled import Native
from native import executable_targets
from samples import SAMPLES, values_of
from straight_programs import PROGRAMS, SPECIAL, random_program

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def fresh_graph():
    with Graph():
        yield


@pytest.fixture
def forced(monkeypatch):
    """Straight-line code wherever it can be had."""
    monkeypatch.setattr(lowering, "straight_drafts", lambda *a: straight.straight_drafts(*a, force=True))


def is_all_straight(program):
    return bool(program.steps) and all(isinstance(s, KernelStep) and isinstance(s.kernel, Kernel)
                                       and is_straight(s.kernel) for s in program.steps)


def leaf(name, *shape, dtype="float64"):
    return gc.placeholder(dtype, shape, name=name)


def check(made, fetches, feeds, rtol=1e-13):
    with np.errstate(all="ignore"):
        expected = evaluate(fetches, feeds, {})
    for result, wanted in zip(made(feeds), expected, strict=True):
        tolerance = 3e-6 if wanted.dtype == np.float32 else rtol
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * 1e-2)


# -- what comes out --
def test_program_text(forced, golden):
    x, w = leaf("x", 3), leaf("w", 2, 3)
    y = gc.sin(x) * gc.cos(x)
    golden(program_text(lower(Request("main", (x, w), (w @ y, gc.concatenate([x[:1], y[1:]]))))))


def test_equal_elements_meet_and_known_ones_fold(forced):
    x = leaf("x", 2)
    ones = gc.constant([1.0, 2.0])
    program = lower(Request("main", (x,), (gc.stack([x[0] * x[1], x[1] * x[0]]), x * ones, gc.sum(ones * 3.0))))
    kinds = [op.kind for op in program.steps[0].kernel.ops]
    assert kinds.count("mul") == 2  # x0*x1 once, x1*2; x0*1 is x0
    assert kinds.count("add") == 0


def test_dear_functions_of_one_level_stand_side_by_side(forced):
    x = leaf("x", 4)
    program = lower(Request("main", (x,), (gc.exp(gc.sin(x) * 2.0 + gc.cos(x)),)))
    kinds = [op.kind for op in program.steps[0].kernel.ops]
    assert "".join(k[0] for k in kinds if k in ("sin", "cos", "exp")) == "sssscccceeee"
    at = [k for k, kind in enumerate(kinds) if kind in ("sin", "cos")]
    assert at == list(range(at[0], at[0] + 8))
    at = [k for k, kind in enumerate(kinds) if kind == "exp"]
    assert at == list(range(at[0], at[0] + 4))


@pytest.mark.parametrize("name", ["pendulum", "rotation"])
def test_scalars_are_written_straight(name):
    inputs, fetches = PROGRAMS[name]()
    assert is_all_straight(lower(Request("main", tuple(inputs), tuple(fetches))))


@pytest.mark.parametrize(("build", "size"), [(gc.tanh, 4), (lambda x: x * 2.0 + x[::-1], 100), (gc.nn.softmax, 32)],
                         ids=["tanh", "reverse", "softmax"])
def test_vectors_run_in_loops(build, size):
    x = leaf("x", size)
    assert not is_all_straight(lower(Request("main", (x,), (build(x),))))


def test_what_cannot_be_taken_apart_runs_in_loops(forced):
    n, i = leaf("n", "rows", 3), leaf("i", 3, dtype="int64")
    x, h, e = leaf("x", 3), leaf("h", 3, dtype="float16"), leaf("e", 0, 2)
    for inputs, node in [((n,), gc.sin(n)), ((x, i), gc.take(x, i)), ((h,), h + h), ((e,), e + 1.0)]:
        assert not is_all_straight(lower(Request("main", inputs, (node,))))


def floor_and_price(fetches):
    """What the cost is known to be at least when all rows are there; what it is without leaves; whether rows count."""
    nodes, code = ancestors(fetches), straight.Code()
    stores = straight.stores_of(code, fetches, nodes, math.inf)
    floor = Floor(fetches, nodes)
    calls = [call for call in straight.calls(code, stores) if call.kind not in LEAF_ROWS]
    return floor.after(code.kinds), straight_cost(calls), floor.counts


def test_the_search_stops_only_where_the_price_is_too_high():
    counted = 0
    for build in (*PROGRAMS.values(), *(partial(random_program, seed) for seed in range(100))):
        with Graph():
            fetches = [node for node in dict.fromkeys(build()[1]) if node.op.kind != "leaf"]
            floor, price, counts = floor_and_price(fetches)
        assert floor <= price * (1 + 1e-12)
        counted += counts
    assert counted >= 5


def test_the_floor_of_light_code_is_its_price():
    x = leaf("x", 8)
    fetches = [gc.sum((x[1:] - x[:-1] ** 2) ** 2), gc.reshape(x * 3.0, (2, 4)) @ leaf("w", 4)]
    floor, price, counts = floor_and_price(fetches)
    assert counts
    assert floor == pytest.approx(price, rel=1e-12)


def test_code_that_costs_too_much_is_not_finished():
    x = leaf("x", 300)
    y = x
    for k in range(10):
        y = y * x + float(k)
    code, nodes = straight.Code(), ancestors([y])
    assert straight.stores_of(code, [y], nodes, worth(nodes)) is None
    assert len(code.kinds) < 3000  # of 6310


# -- values --
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("target", executable_targets())
def test_programs_are_their_reference(forced, name, target):
    inputs, fetches = PROGRAMS[name]()
    made = Native(fetches, inputs, target_name=target)
    assert is_all_straight(made.program) and not program_faults(made.program)
    rng = np.random.default_rng(5)
    for _ in range(3):
        check(made, fetches, {n: rng.standard_normal(n.shape).astype(n.dtype) for n in inputs})


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.kind == "structural"])
def test_structural_ops(forced, name):
    for build in SAMPLES[name]:
        with Graph():
            node = build()
            feeds = values_of([node])
            made = Native([node], list(feeds))
            copies = all(isinstance(step, CopyStep) for step in made.program.steps)
            assert is_all_straight(made.program) or name not in SMOOTH or not node.size or copies
            check(made, [node], feeds)


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(forced, seed):
    inputs, fetches = random_program(seed)
    made = Native(fetches, inputs)
    assert is_all_straight(made.program) and not program_faults(made.program)
    rng = np.random.default_rng(seed)
    feeds = {n: rng.standard_normal(n.shape).astype(n.dtype) for n in inputs}
    check(made, fetches, feeds, rtol=1e-11)
    feeds[inputs[0]] = rng.choice(SPECIAL, inputs[0].shape)
    check(made, fetches, feeds, rtol=1e-11)


@pytest.mark.parametrize("op", ["sin", "cos", "exp", "tanh", "log", "sigmoid", "expm1", "erf", "tan"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lanes_have_the_bits_of_scalars(forced, op, dtype):
    with np.errstate(over="ignore"):
        values = np.resize(np.array([*SPECIAL, 1e300, 3e7, -1e22, 0.7, 5e-324]), 19).astype(dtype)
    x = leaf("x", 19, dtype=dtype)
    together = Native([getattr(gc, op)(x)], [x])({x: values})[0]
    one = leaf("one", 1, dtype=dtype)
    alone = Native([getattr(gc, op)(one)], [one])
    for value, result in zip(values, together):
        np.testing.assert_array_equal(alone({one: np.array([value])})[0], result)


def test_sine_and_cosine_in_one_have_the_bits_of_each(forced):
    x = leaf("x", 5)
    for values in (np.array([0.3, -2.0, 1e22, 3e9, -0.0]), np.array([np.inf, np.nan, 5e-324, -1e-9, 7.0])):
        both = Native([gc.sin(x), gc.cos(x)], [x])({x: values})
        each = [Native([f(x)], [x])({x: values})[0] for f in (gc.sin, gc.cos)]
        np.testing.assert_array_equal(both, each)


# -- pieces and places --
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_pieces_of_any_size(forced, monkeypatch, size):
    monkeypatch.setattr(straight, "PIECE", size)
    for seed in (3, 11):
        with Graph():
            inputs, fetches = random_program(seed)
            made = Native(fetches, inputs)
            assert not program_faults(made.program)
            assert (len(made.program.steps) > 1) is (size < 40)
            rng = np.random.default_rng(seed)
            check(made, fetches, {n: rng.standard_normal(n.shape) for n in inputs}, rtol=1e-11)


@pytest.mark.parametrize("size", [2, 500])
def test_variables_change_when_all_has_been_read(forced, monkeypatch, size):
    monkeypatch.setattr(straight, "PIECE", size)
    a, b = gc.variable(np.array([1.0, 2.0, 3.0]), name="a"), gc.variable(np.array([5.0, 7.0, 9.0]), name="b")
    sess = gc.Session(cache="off")
    step = sess.function([], [a * b, gc.sum(a)], updates={a: b[::-1] * 1.0, b: a + b})
    assert is_all_straight(step.program)
    product, total = step()
    np.testing.assert_array_equal(product, [5.0, 14.0, 27.0])
    assert total == 6.0
    np.testing.assert_array_equal(sess.value(a), [9.0, 7.0, 5.0])
    np.testing.assert_array_equal(sess.value(b), [6.0, 9.0, 12.0])


def test_nothing_outside_the_buffers_is_touched():
    done = subprocess.run([sys.executable, HERE / "straight_guards.py"], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")


def test_in_a_library(tmp_path):
    inputs, fetches = PROGRAMS["pendulum"]()
    gc.compile_library(tmp_path, "small", {"rate": gc.signature(inputs, fetches)})
    x = np.array([0.1, -0.4, 1.0, 2.0])
    expected = evaluate(fetches, {inputs[0]: x}, {})
    for result, wanted in zip(gc.load_library(tmp_path / "libsmall.so").rate(x), expected):
        np.testing.assert_allclose(result, wanted, rtol=1e-13)
