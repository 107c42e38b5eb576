"""A choice by run-time sizes: one compiled function that computes the chosen alternative and nothing of the others."""

from pathlib import Path

import graphc as gc
from graphc.counting import count_operations
from graphc.ir import build
from graphc.ir.dims import Dim, evaluate as size_at
from graphc.ir.errors import ShapeError
from graphc.ir.node import Graph, Node, ancestors, make
from graphc.ir.plan import Case, KernelStep, Program, taken
from graphc.ir.plan_text import program_text
from graphc.ir.reference import evaluate
from graphc.ir.verify import program_faults
from passes.lower import Request, lower
import numpy as np
import pytest

from tests.elf_programs import runs_here

N = Dim.symbol("n")
SIZES = (0, 1, 7, 8, 9, 40)


@pytest.fixture(autouse=True)
def graph():
    with Graph():
        yield


def leaf(name: str, *shape: int | str, dtype: str = "float64") -> Node:
    return gc.placeholder(dtype, shape, name=name)


def values(x: Node, n: int) -> np.ndarray:
    return np.random.default_rng(n).uniform(0.1, 0.9, tuple(size_at(s, {"n": n}) for s in x.shape))


def program(*outputs: Node) -> Program:
    inputs = tuple(n for n in ancestors(outputs) if n.op.name == "placeholder")
    return lower(Request("main", inputs, outputs))


def check(nodes: list[Node], x: Node, sizes: tuple[int, ...] = SIZES) -> None:
    """Native values of one function against the reference."""
    with gc.Session() as session:
        for n in sizes:
            feeds = {x: values(x, n)}
            for found, wanted in zip(session.run(nodes, feeds), evaluate(nodes, feeds, {})):
                np.testing.assert_allclose(found, wanted, rtol=1e-12)
        assert len(session.functions) == 1, "compiled once for all sizes"


def test_cases_are_exclusive_and_one_always_holds():
    conditions = (((N, 8), (20, N)), ((N, 16),))
    for n in range(40):
        hold = [size_at(taken((Case(conditions, k),)), {"n": n}) for k in range(3)]
        assert hold == [int(8 <= n <= 20), int(n > 20), int(n < 8)]


def test_values_on_both_sides():
    x = leaf("x", "n", 4)
    w = gc.constant(np.arange(16.0).reshape(4, 4))
    dear, cheap = gc.tanh(x @ w) @ w, gc.exp(x) + gc.sum(x @ w)
    one = build.choose([dear, cheap], [((N, 8),)])
    three = build.choose([one, x, dear], [((N, 9),), ((7, N),)])
    check([one, gc.sin(three) + 1, three], x)


def test_nested_choices_and_what_alternatives_share():
    x = leaf("x", "n", 4)
    total = gc.cumsum(x, 0)
    inner = build.choose([gc.cumsum(total * 2, 0), gc.cumsum(gc.exp(total), 0)], [((N, 20),)])
    outer = build.choose([inner, gc.cumsum(total - 1, 0)], [((N, 8),)])
    check([outer], x)
    steps = [s for s in program(outer).steps if isinstance(s, KernelStep)]
    assert sorted(len(s.when) for s in steps) == [0, 1, 1, 1, 2, 2, 2, 2]
    assert "when n >= 8, not (n >= 20)" in program_text(program(outer))


def test_kernels_of_different_alternatives_are_not_joined():
    x = leaf("x", "n")
    a, b = gc.sum(gc.exp(x)), gc.sum(gc.sin(x))
    y = build.choose([a * gc.ones((4,), "float64"), b * gc.ones((4,), "float64")], [((N, 8),)])
    kinds = [{op.kind for op in s.kernel.ops} for s in program(y).steps if isinstance(s, KernelStep)]
    assert not [k for k in kinds if {"exp", "sin"} <= k]
    outside = program(y, a)
    assert next(s for s in outside.steps if isinstance(s, KernelStep)).when == ()  # an output is always computed
    check([y], x)


def test_the_range_check_of_the_other_alternative_does_not_refuse():
    x, i = leaf("x", "n"), gc.placeholder("int64", (3,), name="i")
    y = build.choose([gc.take(x, i, 0), gc.zeros((3,), "float64")], [((N, 8),)])
    with gc.Session() as session:
        picked = session.run(y, {x: np.arange(10.0), i: np.array([9, 0, 5])})
        assert picked.tolist() == [9.0, 0.0, 5.0]
        assert session.run(y, {x: np.arange(4.0), i: np.array([9, 0, 5])}).tolist() == [0.0, 0.0, 0.0]
        with pytest.raises(gc.GraphError, match="index"):
            session.run(y, {x: np.arange(8.0), i: np.array([9, 0, 5])})


def test_operations_are_counted_where_they_run():
    x = leaf("x", "n")
    counts = count_operations(build.choose([gc.cumsum(x, 0), gc.exp(x)], [((N, 8),)]))
    assert [size_at(counts["exp"], {"n": n}) for n in SIZES] == [0, 1, 7, 0, 0, 0]
    assert [size_at(counts["mul"], {"n": n}) for n in SIZES] == [0, 0, 0, 8, 9, 40]


def test_gradients_go_through_the_chosen_operand():
    x = leaf("x", "n", 2)
    y = build.choose([gc.exp(x), x * x, gc.sin(x)], [((N, 9),), ((N, 8),)])
    slope = gc.gradients(gc.sum(y), x)
    check([slope, gc.jvp(y, x, x), gc.jacobian(y, x, "forward")], x)
    at = values(x, 8)
    np.testing.assert_allclose(evaluate([slope], {x: at}, {})[0], 2 * at)


def test_a_choice_that_is_known_needs_no_node():
    a, b = leaf("a", 3), leaf("b", 3)
    assert build.choose([a, b], [((N + 1, 1),)]) is a
    assert build.choose([a, b], [((1, 2),)]) is b
    assert build.choose([a, a], [((N, 2),)]) is a
    assert build.choose([a, b, a], [((1, 2),), ((N, 2),)]).operands == (b, a)


def test_bad_choices_are_refused():
    a, b = leaf("a", 3), leaf("b", 4)
    with pytest.raises(ShapeError, match="1 operands"):
        make("choose", (a,), conditions=())
    with pytest.raises(ShapeError, match="2 operands and 0 conditions"):
        make("choose", (a, a), conditions=())
    with pytest.raises(ShapeError, match=r"3.*4"):
        make("choose", (a, b), conditions=(((N, 1),),))


def test_a_plan_whose_case_does_not_exist_is_faulty():
    x = leaf("x", "n")
    made = program(build.choose([gc.cumsum(x, 0), x], [((N, 8),)]))
    assert not program_faults(made)
    object.__setattr__(made.steps[0], "when", (Case((((N, 8),),), 2),))
    assert any("case 2 of 2" in fault for fault in program_faults(made))


def test_an_unknown_size_in_a_condition_is_refused():
    x = leaf("x", 3)
    with pytest.raises(gc.GraphError, match="'n'"):
        program(build.choose([gc.exp(x), x], [((N, 8),)]))


# -- Jacobians --
def has_choice(node: Node) -> bool:
    return any(n.op.name == "choose" for n in ancestors([node]))


def wide_and_narrow() -> tuple[Node, Node, dict[str, Node]]:
    """From n to 30 to 20 to 10 elements: forward from few, reverse from many."""
    x, a, b, c = leaf("x", "n"), leaf("a", 30, "n"), leaf("b", 20, 30), leaf("c", 10, 20)
    return gc.tanh(c @ gc.tanh(b @ gc.tanh(a @ x))), x, {"a": a, "b": b, "c": c}


def test_the_order_of_a_jacobian_is_chosen_at_run_time():
    y, x, weights = wide_and_narrow()
    plan = gc.plan_jacobian(y, x)
    assert len(plan.alternatives) > 1 and "at run time" in plan.explain()
    found = gc.jacobian(y, x)
    assert has_choice(found) and not has_choice(gc.jacobian(y, x, plan.at(n=2)))
    forward, reverse = gc.jacobian(y, x, "forward"), gc.jacobian(y, x, "reverse")
    counted = [count_operations(node)["mul"] for node in (found, forward, reverse)]
    rng = np.random.default_rng(0)
    with gc.Session() as session:
        for n in (1, 3, 10, 40, 300):
            own, one, other = (size_at(count, {"n": n}) for count in counted)
            assert own <= min(one, other), f"{own} products for n = {n}, {one} forward, {other} in reverse"
            feeds = {w: rng.normal(size=tuple(size_at(s, {"n": n}) for s in w.shape)) for w in (x, *weights.values())}
            got, wanted = session.run([found, reverse], feeds)
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)
    few, many = (size_at(counted[1] - counted[2], {"n": n}) for n in (1, 300))
    assert few < 0 < many, "each sweep must win somewhere"


# -- files --
def three_ways() -> tuple[Node, Node]:
    x = leaf("x", "n")
    return build.choose([gc.exp(x), gc.sin(x), x * x], [((N, 9), (20, N)), ((N, 8),)]), x


def test_choices_are_saved_and_loaded(tmp_path: Path):
    y, _ = three_ways()
    gc.save_graph(tmp_path / "choice.gcm", y)
    saved = gc.load_graph(tmp_path / "choice.gcm")
    assert saved.fetches.attrs == y.attrs
    with saved.fetches.graph:
        check([saved.fetches], saved.placeholders["x"])


@runs_here
def test_a_library_chooses(tmp_path: Path):
    y, x = three_ways()
    lib = gc.load_library(gc.compile_library(tmp_path, "choice", {"main": gc.signature([x], y, names=["y"])}))
    for n in SIZES:
        at = values(x, n)
        np.testing.assert_allclose(lib.main(at), evaluate([y], {x: at}, {})[0], rtol=1e-12)
