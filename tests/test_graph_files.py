"""Graphs as files: every op, constant and structure comes back; documents that are wrong are refused."""

import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from mutations import read_mutations, same, values
import samples

import graphc as gc
from graphc.io import archive, attributes, tensors
from graphc.io.tensors import MEMBER, read_tensors
from graphc.ir.dims import Dim
from graphc.ir.node import OPS, Bits, make
from graphc.ir.reference import evaluate
from graphc.ir.text import postorder, text
from graphc.ir.types import DTYPES


# -- round trips --
def round_trip(tmp_path, fetches, **options):
    path = tmp_path / "g.gcm"
    gc.save_graph(path, fetches, **options)
    return gc.load_graph(path)


def registered(nodes):
    """Enters the placeholders that samples make without a declaration."""
    for node in postorder(nodes):
        if node.op.name == "placeholder":
            node.graph.placeholders[node.name] = node
    return nodes


def op_samples():
    return [pytest.param(build, id=f"{name}-{k}") for name in sorted(OPS)
            for k, build in enumerate(samples.SAMPLES.get(name, ()))]


@pytest.mark.parametrize("build", op_samples())
def test_a_node_of_every_op_comes_back(tmp_path, build):
    with gc.Graph():
        node = build()
        registered([node])
        saved = round_trip(tmp_path, node)
        assert text([saved.fetches]) == text([node])
        assert saved.fetches.attrs == node.attrs and list(saved.fetches.attrs) == list(node.attrs)
        feeds = samples.values_of([node])
        if all(isinstance(size, int) for leaf in feeds for size in leaf.shape):
            twins = {saved.placeholders[leaf.name]: value for leaf, value in feeds.items()}
            assert same(evaluate([node], feeds, {})[0], evaluate([saved.fetches], twins, {})[0])


def test_every_op_has_a_row_of_attributes():
    assert {name for name, op in OPS.items() if op.kind != "elementwise"} <= set(attributes.ATTRIBUTES)
    assert set(attributes.ATTRIBUTES) <= set(OPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [3, 300])
def test_constants_come_back_by_bits(tmp_path, dtype, count):
    with gc.Graph():
        node = make("constant", value=Bits(values(dtype, (count,)), dtype))
        saved = round_trip(tmp_path, node)
        assert saved.fetches.attrs["value"] == node.attrs["value"]


def test_special_numbers_stay_apart(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float64", (), name="x")
        fetches = [x + gc.constant(value) for value in (0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 0.1)]
        saved = round_trip(tmp_path, fetches)
        assert text(saved.fetches) == text(fetches)
        found = [float(node.operands[1].attrs["value"].array) for node in saved.fetches]
        assert [struct.pack("d", v) for v in found] == [struct.pack("d", float(n.operands[1].attrs["value"].array))
                                                        for n in fetches]


def test_user_ops_need_no_code_to_come_back(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float64", ("n",), name="x")
        swish = gc.elementwise(lambda m, a, b: m.where(a > 0.5, a * m.sigmoid(b) + float("inf"), m.polygamma(b, order=1)
                                                       - -0.0), name="swish")
        y = swish(x, x * 2)
        saved = round_trip(tmp_path, [y, gc.gradients(y.sum(), [x])[0]])
        assert saved.fetches[0].attrs == y.attrs
        constants = [entry[2] for entry in saved.fetches[0].attrs["expression"] if entry[0] == "const"]
        assert [str(value) for value in constants] == [str(e[2]) for e in y.attrs["expression"] if e[0] == "const"]
        feed = np.linspace(0.1, 1.0, 5)
        with gc.Session(mode="reference") as old, gc.Session(saved.graph, mode="reference") as new:
            for a, b in zip(old.run([y], {x: feed}), new.run([saved.fetches[0]], {"x": feed}), strict=True):
                assert same(a, b)


def test_symbolic_sizes_and_checks_come_back(tmp_path):
    with gc.Graph():
        x, y = gc.placeholder("float32", ("n", 6), name="x"), gc.placeholder("float32", (None, 6), name="y")
        z = gc.concat([x, y], axis=0)[1:-1:2].reshape(-1, 3)
        saved = round_trip(tmp_path, z)
        assert saved.fetches.type == z.type and any(isinstance(size, Dim) for size in z.shape)
        pairs = zip(postorder([z]), postorder([saved.fetches]), strict=True)
        checks = [[[(c.relation, c.a, c.b) for c in node.checks] for node in pair] for pair in pairs]
        assert any(old for old, _ in checks) and all(old == new for old, new in checks)


def model():
    """A graph with all kinds of leaves, scopes, updates."""
    x = gc.placeholder("float32", ("batch", 4), name="x")
    w = gc.variable(gc.init.he_normal((4, 3), seed=0), name="w")
    with gc.name_scope("scope"):
        b = gc.variable(np.array([0.0, -0.0, 1.5], "float32"), name="b")
        h = gc.exp(x @ w + b)
    loss = (h * gc.constant(np.arange(60, dtype="float32").reshape(20, 3))[:3].sum()).mean()
    return x, w, b, h, loss


def test_variables_carry_the_sessions_values(tmp_path):
    with gc.Graph(), gc.Session(mode="reference") as session:
        _, w, b, h, loss = model()
        session.assign(w, np.full((4, 3), 7.0))
        saved = round_trip(tmp_path, {"loss": loss, "all": (h, [loss])}, session=session)
        assert list(saved.fetches) == ["loss", "all"] and isinstance(saved.fetches["all"], tuple)
        assert saved.fetches["all"][1][0] is saved.fetches["loss"]
        assert list(saved.variables) == ["w", "scope/b"] and list(saved.placeholders) == ["x"]
        assert saved.fetches["all"][0].scope == "scope/" and saved.fetches["loss"].loc.line == loss.loc.line
        feed = np.ones((2, 4), "float32")
        with gc.Session(saved.graph, mode="reference") as new:
            assert new.value(saved.variables["w"]).tolist() == np.full((4, 3), 7.0).tolist()
            assert same(new.value(saved.variables["scope/b"]), session.value(b))
            assert new.run(saved.fetches["loss"], {"x": feed}) == session.run(loss, {"x": feed})


def test_without_a_session_variables_keep_their_first_values(tmp_path):
    with gc.Graph() as graph:
        _, w, _, _, loss = model()
        saved = round_trip(tmp_path, loss)
        assert same(saved.graph.initial["w"], graph.initial["w"]())
        graph.initial[w.name] = None
        assert "w" not in round_trip(tmp_path, loss).graph.initial


def test_entries_carry_signatures(tmp_path):
    with gc.Graph():
        x, _, _, h, loss = model()
        updates = gc.optim.SGD(0.1).minimize(loss)
        entries = {"predict": gc.signature([x], h), "step": gc.signature([x], [loss], updates, names=["loss"])}
        saved = round_trip(tmp_path, loss, entries=entries)
        step = saved.entries["step"]
        assert list(saved.entries) == ["predict", "step"] and isinstance(saved.entries["predict"].outputs, gc.Node)
        assert step.inputs == (saved.placeholders["x"],) and step.outputs is saved.fetches
        assert step.names == ("loss",) and [v.name for v, _ in step.updates] == [v.name for v in updates]
        assert all(v is saved.variables[v.name] for v, _ in step.updates)
        with pytest.raises(gc.GraphError, match=r"gc\.signature"):
            gc.save_graph(tmp_path / "x", loss, entries={"step": [x]})


def test_without_entries_there_is_one_named_run(tmp_path):
    with gc.Graph():
        x, _, _, h, loss = model()
        run = round_trip(tmp_path, {"h": h, "loss": loss}).entries["run"]
        assert [n.name for n in run.inputs] == [x.name] and run.names == ("h", "loss") and run.updates == ()
        assert isinstance(round_trip(tmp_path, h).entries["run"].outputs, gc.Node)


def test_saving_what_was_loaded_gives_the_same_file(tmp_path):
    with gc.Graph():
        *_, loss = model()
        gc.save_graph(tmp_path / "a", {"y": loss})
    saved = gc.load_graph(tmp_path / "a")
    gc.save_graph(tmp_path / "b", saved.fetches)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_ten_thousand_nodes(tmp_path):
    with gc.Graph():
        x = y = gc.placeholder("float32", ("n",), name="x")
        for k in range(5000):
            y = gc.sin(y) * x if k % 2 else gc.cos(y) + x
        saved = round_trip(tmp_path, y)
        assert len(postorder([saved.fetches])) == 10_001
        assert text([saved.fetches]) == text([y])


def test_what_cannot_be_saved_says_why(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", (), name="x")
        with gc.Graph():
            other = gc.placeholder("float32", (), name="x")
            foreign = gc.Session()
        undeclared = make("placeholder", name="y", dtype="float32", shape=())
        for fetches, options, fault in (
                ([x, other], {}, "another graph"), (x, {"session": foreign}, "another graph"),
                ([], {}, "nothing to save"), (undeclared, {}, "not the placeholder"),
                ({1: x}, {}, "keys of dicts"), (1.0, {}, "expected a node")):
            with pytest.raises(gc.GraphError, match=fault):
                gc.save_graph(tmp_path / "a", fetches, **options)
    assert not os.listdir(tmp_path)


# -- files that are not what they should be --
def saved_document(path):
    with gc.Graph():
        x, _, _, _, loss = model()
        swish = gc.elementwise(lambda m, a: a * m.sigmoid(a), name="swish")
        index = gc.placeholder("int64", ("k",), name="i")
        rest = swish(gc.take(x, index, axis=0)).reshape(-1)
        gc.save_graph(path, {"loss": loss, "rest": [rest]})
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("graph.json")), file.read(MEMBER)


def write_document(path, document, data):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    archive.write_archive(path, {"graph.json": [content], MEMBER: [data]})


def node_of(document, op):
    return next(node for node in document["nodes"] if node["op"] == op)


def edit(path, value):
    def change(document):
        *parents, last = path
        target = document
        for key in parents:
            target = node_of(document, key) if target is document["nodes"] and isinstance(key, str) else target[key]
        target[last] = value
    return change


WRONG_DOCUMENTS = {
    "format": (edit(["format"], "other"), "not a graph in the format"),
    "version": (edit(["version"], 2), "of version 2; this program reads version 1"),
    "more keys": (edit(["code"], "x"), "has the keys"),
    "source in a folder": (edit(["files", 0], "/etc/passwd"), "named with a folder"),
    "op": (edit(["nodes", "exp", "op"], "system"), "unknown op 'system'"),
    "operand ahead": (edit(["nodes", "exp", "operands"], [10_000]), "is the number of none"),
    "operand before": (edit(["nodes", "exp", "operands"], [-1]), "is the number of none"),
    "no operand": (edit(["nodes", "exp", "operands"], []), "has 1 operands, got 0"),
    "operand of a leaf": (edit(["nodes", "variable", "operands"], [0]), "has at least|has 0|operands"),
    "attribute": (edit(["nodes", "sum", "attrs", "keepdims"], True), "has attributes axes"),
    "no attribute": (edit(["nodes", "sum", "attrs"], {}), "has attributes axes"),
    "attribute type": (edit(["nodes", "sum", "attrs", "axes"], ["0"]), "expected an integer"),
    "attribute truth": (edit(["nodes", "sum", "attrs", "axes"], [True]), "expected an integer"),
    "axis": (edit(["nodes", "sum", "attrs", "axes"], [9]), "not sorted axes"),
    "dtype": (edit(["nodes", "exp", "dtype"], "float64"), "and the file says"),
    "shape": (edit(["nodes", "exp", "shape"], [3]), "and the file says"),
    "no dtype": (edit(["nodes", "exp", "dtype"], "complex64"), "no dtype"),
    "size": (edit(["nodes", "placeholder", "attrs", "shape"], [[[1, [["eval", 1, 1]]]], 4]), "unknown function"),
    "long size": (edit(["nodes", "placeholder", "attrs", "shape"], [[[1, ["a"]]] * 200, 4]), "more than"),
    "long product": (edit(["nodes", "placeholder", "attrs", "shape"],
                          [[[1, [name]] for name in "abcdefgh"]] * 10), "terms"),
    "negative size": (edit(["nodes", "variable", "attrs", "shape"], [-4, 3]), "less than 0"),
    "tensor": (edit(["nodes", "constant", "attrs", "value"], {"tensor": "no"}), "no tensor 'no'"),
    "constant": (edit(["nodes", "constant", "attrs", "value"], {"dtype": "int8", "shape": [9], "hex": "00"}),
                 "1 bytes for"),
    "user op": (edit(["nodes", "user", "attrs", "expression"], [["os", [0], None]]), "not an elementwise op"),
    "user operands": (edit(["nodes", "user", "attrs", "expression"], [["mul", [0], None]]), "mul of 1 operands"),
    "user parameter": (edit(["nodes", "user", "attrs", "expression"], [["exp", [0], 3.5]]), "parameter 3.5"),
    "file number": (edit(["nodes", "exp", "loc"], [7, 1]), "number of none"),
    "placeholders": (edit(["placeholders"], []), "is not among the placeholders"),
    "placeholders twice": (edit(["placeholders"], [0, 0]), "the name is taken"),
    "variables": (edit(["variables"], [0]), "among the variables is a"),
    "fetches": (edit(["fetches"], {"set": []}), "structure of numbers"),
    "entry": (edit(["entries", "run", "updates"], [[0]]), "no pair"),
}


@pytest.mark.parametrize("name", WRONG_DOCUMENTS)
def test_a_wrong_graph_is_refused(tmp_path, name):
    change, fault = WRONG_DOCUMENTS[name]
    document, data = saved_document(tmp_path / "g.gcm")
    change(document)
    write_document(tmp_path / "g.gcm", document, data)
    with pytest.raises(gc.GraphError, match=fault) as error:
        gc.load_graph(tmp_path / "g.gcm")
    assert "g.gcm" in str(error.value)


def test_tensors_that_do_not_fit_the_graph_are_refused(tmp_path):
    document, _ = saved_document(tmp_path / "g.gcm")
    found = read_tensors(tmp_path / "g.gcm")
    for changes, fault in (({"variable/w": ("float64", np.zeros((4, 3)))}, "its value float64"),
                           ({"variable/w": ("float32", np.zeros((3, 4), "float32"))}, "its value"),
                           ({"more": ("int8", np.zeros(1, "int8"))}, "no node uses the tensor 'more'")):
        data = b"".join(bytes(chunk) for chunk in tensors.tensor_chunks({**found, **changes}))
        write_document(tmp_path / "g.gcm", document, data)
        with pytest.raises(gc.GraphError, match=fault):
            gc.load_graph(tmp_path / "g.gcm")


STRANGE = (None, True, -1, 0, 1, 3, 2**63, 10**30, 1.5, "", "x", "float32", [], [[]], {}, [0], [-1], [2**62, 2**62],
           ["index", 0], {"tensor": "constant/0"}, {"list": [0]}, [[1, ["n"]]], [[1, [["floordiv", 1, 0]]]],
           "user", "einsum", "constant")


def places_in(document):
    """Every (container, key) of a JSON document."""
    found, pending = [], [document]
    while pending:
        part = pending.pop()
        if isinstance(part, (list, dict)):
            for key in range(len(part)) if isinstance(part, list) else list(part):
                found.append((part, key))
                pending.append(part[key])
    return found


def test_mutated_graphs_are_refused_or_read(tmp_path):
    path = tmp_path / "g.gcm"
    document, data = saved_document(path)
    source = json.dumps(document)

    def damaged(rng):
        changed = json.loads(source)
        for _ in range(rng.choice([1, 1, 2])):
            part, key = rng.choice(places_in(changed))
            match rng.randrange(3):
                case 0:
                    part[key] = rng.choice(STRANGE)
                case 1:
                    del part[key]
                case _:
                    part[key] = json.loads(json.dumps(rng.choice(places_in(changed))[0]))
        write_document(path, changed, data)
        return path.read_bytes()

    for _, saved in read_mutations(path, damaged, gc.load_graph, 1200):
        assert isinstance(saved.graph, gc.Graph)


def test_loading_opens_one_file_and_runs_no_code(tmp_path):
    saved_document(tmp_path / "g.gcm")
    program = """
        import sys, graphc
        from graphc.io.graphs import load_graph
        graphc.io.graphs.load_graph
        events = []
        load_graph(sys.argv[1])  # what is imported late is imported now
        sys.addaudithook(lambda name, args: events.append((name, str(args[0]) if args else "")))
        load_graph(sys.argv[1])
        seen = list(events)
        print([a for n, a in seen if n == "open"], {n for n, _ in seen} & {"exec", "compile", "import", "os.system",
              "subprocess.Popen", "pickle.find_class", "socket.connect", "marshal.loads", "ctypes.dlopen"})
        """
    lines = [line.strip() for line in program.splitlines()]
    head = "\n".join(lines[:-3]) + "\n" + " ".join(lines[-3:])
    done = subprocess.run([sys.executable, "-c", head, str(tmp_path / "g.gcm")], capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.stdout.strip() == f"['{tmp_path / 'g.gcm'}'] set()", done.stdout + done.stderr
