"""gc.dump: pictures and texts of nodes, updates and compiled functions."""

import json
from pathlib import Path
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import graphc as gc
from graphc.io.graphs import load_graph, save_graph
from graphc.ir.plan_text import program_text
from graphc.ir.text import text
from graphc.view.graphs import target_diagram


def step():
    """x, loss, updates of one layer with momentum."""
    x = gc.placeholder("float32", ("batch", 4), name="x")
    w = gc.variable(np.zeros((4, 3), "float32"), name="w")
    with gc.name_scope("layer"):
        h = gc.tanh(x @ w + gc.constant(np.arange(3, dtype="float32")))
    loss = (h * h).mean()
    return x, w, loss, gc.optim.SGD(0.1, momentum=0.9).minimize(loss)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph() as found:
        yield found


def boxes_of(target):
    return {box.title: box for box in target_diagram(target).boxes}


def test_without_a_path_the_text_is_returned():
    _, _, loss, updates = step()
    assert gc.dump(loss) == text([loss])
    assert gc.dump([loss, loss * 2]) == text([loss, loss * 2])
    lines = gc.dump(updates)
    assert lines == text(list(updates.values())) + "update momentum/w\nupdate w\n"


def test_updates_as_json(golden, tmp_path):
    x = gc.placeholder("float32", ("batch", 4), name="x")
    w = gc.variable(np.zeros((4, 3), "float32"), name="w")
    with gc.name_scope("layer"):
        h = gc.tanh(x @ w + gc.constant(np.arange(3, dtype="float32")))
    gc.dump({w: w - 0.1 * (x.T @ h)}, tmp_path / "step.json")  # no derivatives: the rules of passes are not told here
    found = json.loads((tmp_path / "step.json").read_text("utf-8"))
    for box in found["boxes"]:
        box["tooltip"] = box["tooltip"].replace(str(Path(__file__)), "test_dump.py")
    assert any("test_dump.py:" in box["tooltip"] and "tanh" in box["tooltip"] for box in found["boxes"])
    arrows = [f"{arrow['source']} -> {arrow['target']}" for arrow in found["arrows"]]
    golden("\n".join([*(f"{box['key']} {box['kind']} {box['group']}: {box['title']} | {' | '.join(box['lines'])}"
                        for box in found["boxes"]), *arrows]))


def test_every_format_is_written(tmp_path):
    _, _, loss, updates = step()
    for suffix in (".svg", ".dot", ".json", ".txt", ".SVG"):
        assert gc.dump(updates, tmp_path / f"step{suffix}") is None
    root = ElementTree.parse(tmp_path / "step.svg").getroot()
    shown = "".join(root.itertext())
    assert all(word in shown for word in ("update w", "tanh", "layer", "float32[batch, 3]", "momentum/w"))
    assert (tmp_path / "step.dot").read_text("utf-8").startswith("digraph")
    assert (tmp_path / "step.txt").read_text("utf-8") == gc.dump(updates)
    gc.dump(loss, str(tmp_path / "loss.svg"))
    ElementTree.parse(tmp_path / "loss.svg")


def test_an_unknown_suffix_names_the_known_ones(tmp_path):
    _, _, loss, _ = step()
    with pytest.raises(gc.GraphError, match=r"'\.png'; known are \.svg, \.dot, \.json, \.txt"):
        gc.dump(loss, tmp_path / "loss.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", [None, 3, [], [1, 2], "loss", {"w": 1}, [("a", "b")]])
def test_what_is_no_graph_is_refused(target):
    with pytest.raises(gc.GraphError, match="expected a node"):
        gc.dump(target)


def test_weights_and_numbers_stand_in_their_users():
    _, _, loss, _ = step()
    found = boxes_of(loss)
    assert "w" not in found and "x" in found and "broadcast" not in found
    assert "w: float32[4, 3]" in found["einsum"].lines and "ab,bc->ac" in found["einsum"].lines
    assert "(·, [0., 1., 2.])" in found["add"].lines
    assert found["tanh"].group == "layer" and found["result"].kind == "output"


def test_numbers_have_the_digits_of_their_dtype():
    x = gc.placeholder("float32", (3,), name="x")
    assert "(0.1, ·)" in boxes_of(0.1 * x)["mul"].lines
    assert "(·, nan)" in boxes_of(x + np.nan)["add"].lines


def test_a_fetch_that_is_a_leaf_or_a_broadcast_is_drawn():
    x = gc.placeholder("float32", (3,), name="x")
    wide = gc.broadcast_to(x, (2, 3))
    assert {"x", "broadcast", "result 0", "result 1"} == set(boxes_of([x, wide]))
    assert boxes_of(gc.constant([1.0, 2.0]))["result"].lines == ("constant: float64[2]",)


def test_a_signature_is_drawn_with_its_updates():
    x, _, loss, updates = step()
    found = boxes_of(gc.signature([x], loss, updates))
    assert {"result", "update w", "update momentum/w"} <= set(found)


def test_a_compiled_function_shows_its_steps(tmp_path):
    x, _, loss, updates = step()
    with gc.Session() as session:
        function = session.function([x], loss, updates=updates, name="train")
        lines = gc.dump(function)
        program = function.program
        gc.dump(function, tmp_path / "train.svg")
    assert lines == program_text(program) and lines.startswith("program train(batch)")
    found = target_diagram(function)
    kinds = {box.kind for box in found.boxes}
    assert kinds >= {"input", "update", "output"} and kinds & {"kernel", "contraction"}
    assert {box.title for box in found.boxes if box.kind == "update"} == {"update w", "update momentum/w"}
    starts = {arrow.source for arrow in found.arrows}
    assert all(box.key in starts or box.kind in ("update", "output") for box in found.boxes)
    ElementTree.parse(tmp_path / "train.svg")


def test_every_buffer_that_is_read_was_written_or_comes_from_outside():
    x, _, loss, updates = step()
    with gc.Session() as session:
        program = session.function([x], [loss], updates=updates).program
    diagram = target_diagram(program)
    inner = [arrow for arrow in diagram.arrows if arrow.source.startswith("s") and arrow.target.startswith("s")]
    assert all(int(arrow.source[1:]) < int(arrow.target[1:]) for arrow in inner) and inner
    assert not [box for box in diagram.boxes if box.kind == "other"]


def test_a_reference_function_is_drawn_as_its_graph():
    x, _, loss, updates = step()
    with gc.Session(mode="reference") as session:
        function = session.function([x], loss, updates=updates)
        assert gc.dump(function).endswith("update momentum/w\nupdate w\n")


def test_names_of_users_are_escaped(tmp_path):
    x = gc.placeholder("float32", (), name='<script>"&\ud800')
    for suffix in (".svg", ".dot", ".json", ".txt"):
        gc.dump(gc.exp(x), tmp_path / f"a{suffix}")
    assert "<script>" not in (tmp_path / "a.svg").read_text("utf-8")
    ElementTree.parse(tmp_path / "a.svg")


def test_a_loaded_graph_does_not_say_which_files_are_read(tmp_path, monkeypatch):
    """A saved graph names source files; the file of that name in the working folder is none of its business."""
    monkeypatch.chdir(tmp_path)
    with gc.Graph():
        x = gc.placeholder("float32", (), name="x")
        save_graph("a.gcm", gc.exp(x))
    Path(tmp_path, Path(__file__).name).write_text("secret\n" * 1000)
    diagram = target_diagram(load_graph("a.gcm").fetches)
    assert all("test_dump.py:" in box.tooltip and "secret" not in box.tooltip for box in diagram.boxes)


def test_a_large_graph_is_drawn_in_seconds(tmp_path):
    y = x = gc.placeholder("float32", ("n",), name="x")
    for k in range(2000):
        y = gc.sin(y) * x if k % 2 else gc.cos(y) + 1.0
    gc.dump(y, tmp_path / "a.svg")
    ElementTree.parse(tmp_path / "a.svg")
