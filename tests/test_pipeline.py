"""The pipeline: order, switches, and what is done around each pass."""

from __future__ import annotations

from dataclasses import replace
import re

import numpy as np
import pytest

import graphc as gc
from graphc.config import Options
from graphc.ir.errors import VerifyError
from graphc.ir.node import Graph, ancestors
from graphc.ir.reference import evaluate
from graphc.ir.text import text
from passes import pipeline
from passes.pipeline import PIPELINE, optimise

OPTIONS = Options.of()


@pytest.fixture(autouse=True)
def graph():
    with Graph() as graph:
        yield graph


def model():
    x, t = gc.placeholder("float32", ("n", 4), name="x"), gc.placeholder("float32", ("n", 3), name="t")
    w = gc.variable(np.zeros((4, 3), "float32"), name="w")
    e = gc.exp(x @ w)
    loss = -gc.mean(gc.sum(t * gc.log(e / gc.sum(e, axis=1, keepdims=True)), axis=1))
    return x, t, w, loss


def test_a_loss_and_its_gradient(golden):
    _, _, w, loss = model()
    golden(re.sub(r" +# .*", "", text(optimise([loss, *gc.gradients(loss, [w])], OPTIONS))))  # without source lines


def test_values_stay_and_types_too():
    x, t, w, loss = model()
    fetches = [loss, *gc.gradients(loss, [w])]
    random = np.random.default_rng(0)
    feeds = {x: random.normal(size=(5, 4)), t: np.eye(3)[[0, 1, 2, 1, 0]], w: random.normal(size=(4, 3))}
    results = optimise(fetches, OPTIONS)
    assert [r.type for r in results] == [f.type for f in fetches]
    for before, after in zip(evaluate(fetches, feeds, {}), evaluate(results, feeds, {})):
        np.testing.assert_allclose(after, before, rtol=2e-5, atol=1e-6)


def test_fetches_keep_their_positions():
    x = gc.placeholder("float32", (3,), name="x")
    assert optimise([x, x * 1.0, -x, x], OPTIONS)[1] is x
    assert optimise([], OPTIONS) == []


def test_the_order_is_written_with_a_reason_each():
    assert [name for name, _, _ in PIPELINE] == ["stabilise", "simplify", "decompose"]
    assert all(reason for _, _, reason in PIPELINE)


def test_it_stops_after_a_pass():
    x = gc.placeholder("float32", (3,), name="x")
    y = gc.stop_gradient(x)
    assert optimise([y], replace(OPTIONS, stop_after="stabilise"))[0] is y
    assert optimise([y], OPTIONS)[0] is x


def test_it_tells_time_rules_and_text(capsys, tmp_path):
    x = gc.placeholder("float32", (3,), name="x")
    optimise([gc.log(1.0 + x)], replace(OPTIONS, time=True, rules=True, dump=("simplify",)))
    told = capsys.readouterr().err
    assert "stabilise: log1p 1\n" in told and "-- 02-simplify.txt\n" in told and " ms, 2 nodes" in told
    optimise([gc.log(1.0 + x)], replace(OPTIONS, dump_dir=str(tmp_path)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01-stabilise.txt", "02-simplify.txt", "03-decompose.txt"]
    assert "log1p" in (tmp_path / "01-stabilise.txt").read_text()


def test_an_observer_sees_every_pass():
    x = gc.placeholder("float32", (3,), name="x")
    seen = []
    optimise([gc.log(1.0 + x)], OPTIONS, lambda name, fetches, seconds, counts: seen.append((name, dict(counts))))
    assert seen == [("stabilise", {"log1p": 1, "commute": 1}), ("simplify", {}), ("decompose", {})]


def test_a_pass_that_changes_a_type_is_caught(monkeypatch):
    monkeypatch.setattr(pipeline, "PIPELINE", [("broken", lambda fetches, options: [gc.exp(fetches[0])[:2]], "")])
    x = gc.placeholder("float32", (3,), name="x")
    with pytest.raises(VerifyError, match=r"broken: the fetches were float32\[3\] and are float32\[2\]"):
        optimise([x], OPTIONS)


def test_the_same_program_gives_the_same_text():
    texts = []
    for noise in (0, 17):
        with Graph():
            for k in range(noise):
                gc.constant(float(k))
            _, _, w, loss = model()
            texts.append(text(optimise([loss, *gc.gradients(loss, [w])], OPTIONS)))
    assert texts[0] == texts[1]


def test_rewritten_nodes_name_the_line_of_the_user():
    x = gc.placeholder("float32", (3,), name="x")
    y = gc.log(1.0 + gc.exp(x))
    assert all(n.loc.file == __file__ for n in ancestors(optimise([y], OPTIONS)))
