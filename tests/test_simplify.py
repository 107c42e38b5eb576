"""Graphs through simplify, stabilise and decompose: what they become, that values stay, that time is linear."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

import graphc as gc
from graphc.ir import build, text as text_form
from graphc.ir.node import Graph, ancestors, constant, make
from graphc.ir.reference import evaluate
from passes.decompose import decompose
from passes.pairing import best_pairs, greedy_pairs
from passes.simplify import simplify
from passes.stabilise import stabilise


def text(fetches):
    """The text form without the source lines, which move with every edit of this file."""
    return re.sub(r" +# .*", "", text_form.text(fetches))


@pytest.fixture(autouse=True)
def graph():
    with Graph() as graph:
        yield graph


def ops(*fetches):
    return sorted(n.op.name for n in ancestors(fetches) if n.operands)


def leaf(name="x", shape=(3, 4), dtype="float32"):
    return gc.placeholder(dtype, shape, name=name)


# -- simplify --
def test_identities_vanish(golden):
    x, y = leaf("x"), leaf("y")
    z = ((x * 1.0 + -(-y)) / 1.0 - -x) + (-y) * 2.0  # noqa: B002
    golden(text(simplify([z])))


def test_fast_math_is_asked_for():
    x = leaf()
    exact, = simplify([(x + 0.0) * 3.0 / 3.0 - x * 0.0])
    fast, = simplify([(x + 0.0) * 3.0 - x * 0.0], fast_math=True)
    assert ops(exact) == ["add", "broadcast", "broadcast", "div", "mul", "mul", "sub"]
    assert ops(fast) == ["broadcast", "mul"]


def test_a_node_on_constants_is_folded_and_one_that_fails_is_not():
    a, b = constant([1.0, 2.0]), constant([3.0, 4.0])
    folded, = simplify([gc.exp(a * b).sum()])
    assert folded.op.name == "constant" and folded.attrs["value"].array == np.exp([3.0, 8.0]).sum()
    bad = build.gather(a, [constant(5, "int64")], (("index", 0),), ((),), ())
    kept, = simplify([bad])
    assert kept.op.name == "gather"


def test_large_results_are_not_folded():
    row = constant(np.arange(300.0))
    wide, = simplify([row[:, None] * row[None, :]])
    assert "mul" in ops(wide)
    uniform, = simplify([gc.ones((1000, 1000)) * 2.0 + 1.0])
    assert ops(uniform) == ["broadcast"]


def test_sums_and_movement_meet(golden):
    x = leaf("x", (3, 4, 5))
    fetches = [x.transpose(2, 0, 1).sum(0).sum(0), gc.sum(gc.ones((8, 4)), axis=0),
               gc.max(gc.broadcast_to(x, (7, 3, 4, 5)), axis=0), x.reshape(12, 5).reshape(60).sum()]
    golden(text(simplify(fetches)))


def test_a_shared_contraction_is_not_done_twice():
    a, b = leaf("a", (8, 8)), leaf("b", (8, 8))
    product = a @ b
    alone, = simplify([product.T])
    assert ops(alone) == ["einsum"]
    shared = simplify([product, product.T])
    assert ops(*shared) == ["einsum", "transpose"]


def test_commuted_operands_are_one_node():
    x, y = leaf("x"), leaf("y")
    a, b = simplify([x * y + 1.0, 1.0 + y * x])
    assert a is b


def test_simplify_is_idempotent_and_leaves_its_input():
    x = leaf()
    y = gc.log(1.0 + gc.exp(x)) * 1.0 - -x
    before = text([y])
    once = simplify([y])
    assert simplify(once)[0] is once[0]
    assert text([y]) == before


@pytest.mark.parametrize("run", [simplify, stabilise, decompose])
def test_no_recursion_and_linear_time(run):
    """30,000 nodes, half to be rewritten: a chain that any recursion, or a square of its length, would choke on."""
    x = leaf("x", (4,))
    y = x
    for k in range(20_000):
        y = gc.sin(y) * 1.0 if k % 2 else y * x
    start = time.process_time()
    result, = run([y])
    seconds = time.process_time() - start
    assert result.type == y.type
    assert seconds < 15 * slowness(), f"{seconds:.1f} s"  # linear, it takes one


def slowness():
    """How much slower this machine is just now than one that does this loop in 0.05 s; at least 1."""
    start = time.process_time()
    sum(k * k for k in range(600_000))
    return max(1.0, (time.process_time() - start) / 0.05)


# -- stabilise --
def test_forms_of_logistic_loss_and_softmax(golden):
    x = leaf("x")
    e = gc.exp(x)
    golden(text(stabilise([gc.log(1.0 + e), gc.log(1.0 / (1.0 + gc.exp(-x))), gc.log(gc.sum(e, axis=1)),
                           gc.log(e / gc.sum(e, axis=1, keepdims=True))])))


def test_our_own_stable_functions_stay():
    x = leaf("x")
    for y in (gc.logsumexp(x, axis=1), gc.nn.softmax(x), gc.nn.log_softmax(x)):
        assert evaluate(stabilise([y]), {x: np.full((3, 4), 5000.0)}, {})[0].ravel()[0] == pytest.approx(
            float(evaluate([y], {x: np.full((3, 4), 5000.0)}, {})[0].ravel()[0]))
        assert ops(stabilise([y])[0]).count("max") == 1


def test_gradients_through_the_untaken_branch_are_no_nan():
    x = leaf("x")
    y = gc.where(x > 0.0, gc.log(x), 0.0) + gc.where(x > 0.0, gc.sqrt(x), 0.0)
    gradient, = gc.gradients(gc.sum(y), [x])
    value, = evaluate(stabilise([gradient]), {x: np.array([[0.0, -1.0, 1.0, 4.0]] * 3)}, {})
    np.testing.assert_allclose(value[0], [0.0, 0.0, 1.5, 0.5])


def test_the_derivative_of_a_stabilised_loss_is_stable_too():
    x = leaf("x")
    e = gc.exp(x)
    loss, = stabilise([gc.sum(gc.log(e / gc.sum(e, axis=1, keepdims=True))[:, 0])], keep=[x])
    gradient, = gc.gradients(loss, [x])
    value, = evaluate([gradient], {x: np.array([[1000.0, 0.0, 0.0, -1000.0]] * 3)}, {})
    np.testing.assert_array_equal(value, np.zeros((3, 4)))


# -- decompose --
def test_chains_are_paired_in_the_cheap_order(golden):
    a, b, v = leaf("a", (50, 60)), leaf("b", (60, 70)), leaf("v", (70,))
    golden(text(decompose([gc.einsum("ij,jk,k->i", a, b, v)])))


def test_labels_are_merged_without_copies_where_they_lie_side_by_side(golden):
    a, b = leaf("a", ("n", 3, 4)), leaf("b", (3, 4, 5))
    golden(text(decompose([gc.einsum("npq,pqc->nc", a, b), gc.einsum("npq,qpc->cn", a, leaf("c", (4, 3, 5)))])))


CASES = ["ij,jk->ik", "ij,jk,kl->il", "bij,bjk->bik", "ijk,ijl->kl", "ikj,jil->lk", "abc,cbd->ad", "abc,cbd->dba",
         "ii,ij->j", "ij,kl->", "ij,kj->ki", "i,j->ij", "bi,b->bi", "ijk,k->ji", "abij,acjk->bcik", "iij,jk->ik",
         "ab,bc,cd,de->ae", "a,a,a->", "ab,ab,bc->c"]


@pytest.mark.parametrize("form", CASES)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_contractions_keep_their_values_and_have_one_label_each(form, dtype):
    sizes = dict(zip("abcdeijkl", (2, 3, 4, 5, 6, 3, 4, 5, 2)))
    names = form.split("->")[0].split(",")
    operands = [leaf(f"x{k}", tuple(sizes[c] for c in labels), dtype) for k, labels in enumerate(names)]
    node = gc.einsum(form, *operands)
    result, = decompose([node])
    assert result.type == node.type
    feeds = {x: np.random.default_rng(0).integers(-2, 3, x.shape) for x in operands}
    np.testing.assert_array_equal(*evaluate([node, result], feeds, {}))
    for n in ancestors([result]):
        if n.op.name == "einsum" and len(n.operands) == 2:
            assert_canonical(n)


def assert_canonical(n):
    (a, b), out = n.attrs["labels"], n.attrs["out"]
    assert len(set(a)) == len(a) and len(set(b)) == len(b)
    assert set(a) ^ set(b) <= set(out), "a label of one operand only is summed first"
    groups = ([k for k in a if k not in b], [k for k in b if k not in a], [k for k in a if k in b and k not in out])
    assert groups[2], "without depth it is a product"
    assert not all(groups) or all(len(g) == 1 for g in groups)


def test_sizes_of_one_and_symbols():
    a, b = leaf("a", ("n", 1, 4)), leaf("b", ("m", 4, 1))
    node = make("einsum", (a, b), labels=((0, 1, 2), (3, 2, 4)), out=(0, 1, 3, 4))
    result, = decompose([node])
    assert result.type == node.type
    assert "einsum" in ops(result)
    feeds = {a: np.arange(20.0).reshape(5, 1, 4), b: np.arange(24.0).reshape(6, 4, 1)}
    np.testing.assert_allclose(*evaluate([node, result], feeds, {}))


@pytest.mark.parametrize("order", [best_pairs, greedy_pairs])
def test_pairs_name_every_operand_and_every_result_once(order):
    labels = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    pairs = order(labels, (0, 5), dict.fromkeys(range(6), 3))
    assert sorted(k for pair in pairs for k in pair) == list(range(8))


def test_the_best_order_of_a_chain_is_that_of_the_textbook():
    sizes = dict(enumerate((30, 35, 15, 5, 10, 20, 25)))
    labels = [(k, k + 1) for k in range(6)]
    total, live = 0, dict(enumerate(map(set, labels)))
    for number, (i, j) in enumerate(best_pairs(labels, (0, 6), sizes), 6):
        both = live.pop(i) | live.pop(j)
        total += int(np.prod([sizes[k] for k in both]))
        live[number] = {k for k in both if k in (0, 6) or any(k in other for other in live.values())}
    assert total == 15125
