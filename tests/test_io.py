"""Files: what is written is read back bit by bit, by other readers too, and nothing that is read is trusted."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import samples

import graphc as gc
from graphc.io import archive, attributes, tensors
from graphc.io.tensors import MEMBER, read_tensors, write_tensors
from graphc.ir.dims import Dim
from graphc.ir.node import OPS, Bits, constant, make
from graphc.ir.reference import evaluate
from graphc.ir.text import postorder, text
from graphc.ir.types import DTYPES, as_dtype, is_float, numpy_dtype

SHAPES = [(), (0,), (1,), (7,), (0, 3), (3, 5), (2, 1, 4)]
PEAK = 2_000_000  # bytes that a reader may use for a file of a few kilobytes


def values(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if is_float(dtype):
        array = rng.standard_normal(shape) * 100
        array = np.where(rng.uniform(size=shape) < 0.2, rng.choice([np.nan, np.inf, -np.inf, -0.0], shape), array)
        return as_dtype(array, dtype)
    return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(numpy_dtype(dtype))


def all_tensors():
    return {f"{dtype}{list(shape)}": (dtype, values(dtype, shape, k))
            for dtype in DTYPES for k, shape in enumerate(SHAPES)}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# -- tensors --
def test_tensors_of_every_dtype_come_back_bit_by_bit(tmp_path):
    path, given = tmp_path / "a.ckpt", all_tensors()
    write_tensors(path, given)
    found = read_tensors(path)
    assert list(found) == list(given)
    for name, (dtype, array) in given.items():
        assert found[name][0] == dtype and same(found[name][1], array), name
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_names_may_hold_anything_but_the_formats_own(tmp_path):
    names = ["", "a/b", "../x", "ä \n\0\"", "\ud800", "x" * 1000]
    write_tensors(tmp_path / "a", {name: ("int8", np.zeros(2, "int8")) for name in names})
    assert list(read_tensors(tmp_path / "a")) == names
    with pytest.raises(gc.GraphError, match="__metadata__"):
        write_tensors(tmp_path / "a", {"__metadata__": ("int8", np.zeros(2, "int8"))})


def test_arrays_of_any_layout_are_written_in_c_order(tmp_path):
    base = np.arange(24, dtype="float64").reshape(4, 6)
    given = {"t": base.T, "s": base[::2, ::-3], "b": base.astype(">f8"), "r": np.broadcast_to(base[0], (3, 6))}
    write_tensors(tmp_path / "a", {name: ("float64", array) for name, array in given.items()})
    for name, (_, array) in read_tensors(tmp_path / "a").items():
        np.testing.assert_array_equal(array, given[name])
        assert array.dtype == np.dtype("float64") and array.flags.writeable


def test_a_nan_keeps_its_bits(tmp_path):
    patterns = {"float64": np.array([0x7FF8000000000001, 0xFFF0000000000123], "uint64").view("float64"),
                "float32": np.array([0x7FC00001, 0xFF800123], "uint32").view("float32"),
                "float16": np.array([0x7E01, 0xFC12], "uint16").view("float16"),
                "bfloat16": np.array([0x7FC10000, 0xFF810000], "uint32").view("float32")}
    write_tensors(tmp_path / "a", {dtype: (dtype, array) for dtype, array in patterns.items()})
    for dtype, (_, array) in read_tensors(tmp_path / "a").items():
        assert same(array, patterns[dtype]), dtype


def test_other_programs_can_read_the_file(tmp_path):
    """The zip by zipfile, and the member by the rules of the safetensors format."""
    write_tensors(tmp_path / "a.zip", all_tensors())
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.testzip() is None and file.namelist() == [MEMBER]
        assert file.getinfo(MEMBER).compress_type == zipfile.ZIP_STORED
        data = file.read(MEMBER)
    (length,) = struct.unpack("<Q", data[:8])
    header, payload = json.loads(data[8:8 + length]), data[8 + length:]
    codes = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
             **{f"{kind.upper()}{8 * n}": f"<{kind}{n}" for kind in "iu" for n in (1, 2, 4, 8)}}
    assert length % 8 == 0 and data[8:9] == b"{"
    for name, (dtype, array) in all_tensors().items():
        entry = header[name]
        begin, end = entry["data_offsets"]
        kind = np.dtype(codes[entry["dtype"]])
        assert begin % kind.itemsize == 0
        found = np.frombuffer(payload[begin:end], kind).reshape(entry["shape"])
        if dtype == "bfloat16":
            found = (found.astype("uint32") << 16).view("float32")
        np.testing.assert_array_equal(found, array)


def test_a_zip_by_another_program_can_be_read(tmp_path):
    write_tensors(tmp_path / "a", all_tensors())
    with zipfile.ZipFile(tmp_path / "a") as old, zipfile.ZipFile(tmp_path / "b", "w") as new:
        new.writestr(MEMBER, old.read(MEMBER))
    assert list(read_tensors(tmp_path / "b")) == list(all_tensors())


def test_equal_tensors_give_equal_files(tmp_path):
    for name in ("a", "b"):
        write_tensors(tmp_path / name, all_tensors())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_tensors(tmp_path / "a", {"x": ("int8", np.ones(3, "int8"))})

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_tensors(tmp_path / "a", {"x": ("int8", np.zeros(3, "int8"))})
    assert os.listdir(tmp_path) == ["a"] and read_tensors(tmp_path / "a")["x"][1].tolist() == [1, 1, 1]


# -- files that are not what they should be --
def zipped(members, **options):
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w", **options) as file:
        for name, data in members:
            file.writestr(name, data)
    return room.getvalue()


def member_data(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def tensor(begin, end, dtype="U8", shape=None):
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


WRONG_MEMBERS = {
    "empty": (b"", "too few"),
    "header beyond the file": ((2**63).to_bytes(8, "little"), "does not fit"),
    "no JSON": (member_data(b"{"), "not the JSON"),
    "no UTF-8": (member_data(b"\xff"), "not the JSON"),
    "a list": (member_data([]), "no JSON object"),
    "nested": (member_data(b"[" * 100_000), "nested too deeply"),
    "NaN": (member_data(b'{"a": NaN}'), "no JSON number"),
    "thousands of digits": (member_data(b'{"a": ' + b"1" * 10_000 + b"}"), "not the JSON"),
    "the same key twice": (member_data(b'{"a": 1, "a": 1}'), "comes twice"),
    "entry": (member_data({"a": 1}), "needs dtype, shape"),
    "more keys": (member_data({"a": {**tensor(0, 1), "x": 1}}, b"1"), "needs dtype, shape"),
    "dtype": (member_data({"a": tensor(0, 1, "F8")}, b"1"), "known are"),
    "dtype list": (member_data({"a": tensor(0, 1, ["U8"])}, b"1"), "known are"),
    "shape": (member_data({"a": tensor(0, 1, shape=[-1, -1])}, b"1"), "of shape"),
    "shape of truths": (member_data({"a": tensor(0, 1, shape=[True])}, b"1"), "of shape"),
    "axes": (member_data({"a": tensor(0, 1, shape=[1] * 65)}, b"1"), "of shape"),
    "huge shape": (member_data({"a": tensor(0, 1, shape=[2**40, 2**40])}, b"1"), "beyond any memory"),
    "huge empty shape": (member_data({"a": tensor(0, 0, shape=[0, 2**62, 4])}), "beyond any memory"),
    "offsets": (member_data({"a": {**tensor(0, 1), "data_offsets": [0]}}, b"1"), "offsets"),
    "backwards": (member_data({"a": tensor(1, 0, shape=[1])}, b"1"), "offsets"),
    "size": (member_data({"a": tensor(0, 3, "F32", [1])}, b"123"), "is 4 bytes"),
    "hole": (member_data({"a": tensor(1, 2)}, b"12"), "begins at byte 1"),
    "overlap": (member_data({"a": tensor(0, 2), "b": tensor(1, 3)}, b"123"), "begins at byte 1"),
    "rest": (member_data({"a": tensor(0, 1)}, b"12"), "end at byte 1"),
    "beyond": (member_data({"a": tensor(0, 2**50)}, b"12"), "end at byte"),
    "bool": (member_data({"a": tensor(0, 2, "BOOL")}, b"\1\2"), "bool"),
}


@pytest.mark.parametrize("name", WRONG_MEMBERS)
def test_a_wrong_member_is_refused(tmp_path, name):
    data, fault = WRONG_MEMBERS[name]
    (tmp_path / "a.ckpt").write_bytes(zipped([(MEMBER, data)]))
    with pytest.raises(gc.GraphError, match=fault) as error:
        read_tensors(tmp_path / "a.ckpt")
    assert "a.ckpt" in str(error.value) and len(str(error.value)) < 1000


GOOD = member_data({"a": tensor(0, 2)}, b"12")
WRONG_FILES = {
    "empty": (b"", "too few"),
    "text": (b"hello " * 20, "no zip file"),
    "cut": (zipped([(MEMBER, GOOD)])[:-1], "no zip file"),
    "more": (zipped([(MEMBER, GOOD)]) + b"x", "no zip file"),
    "before": (b"x" + zipped([(MEMBER, GOOD)]), "does not end|begins at"),
    "compressed": (zipped([(MEMBER, GOOD * 100)], compression=zipfile.ZIP_DEFLATED), "compressed"),
    "bzip2": (zipped([(MEMBER, GOOD)], compression=zipfile.ZIP_BZIP2), "compressed"),
    "absolute": (zipped([("/etc/passwd", GOOD)]), "names are plain"),
    "folder": (zipped([("../a", GOOD)]), "names are plain"),
    "hidden": (zipped([(".a", GOOD)]), "names are plain"),
    "other": (zipped([("other", GOOD)]), "no member"),
    "many": (zipped([(f"m{k}", b"") for k in range(65)]), "65 members"),
    "none": (zipped([]), "no member"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_refused(tmp_path, name):
    data, fault = WRONG_FILES[name]
    (tmp_path / "a.ckpt").write_bytes(data)
    with pytest.raises(gc.GraphError, match=fault) as error:
        read_tensors(tmp_path / "a.ckpt")
    assert "a.ckpt" in str(error.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_a_name_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(zipped([(MEMBER, GOOD), (MEMBER, GOOD)]))
    with pytest.raises(gc.GraphError, match="two members"):
        read_tensors(tmp_path / "a")


def test_two_entries_for_the_same_bytes_are_refused(tmp_path):
    """The trick of a zip bomb: many members, all of the same data."""
    data = zipped([(MEMBER, GOOD)])
    end, start = len(data) - 22, struct.unpack_from("<I", data, len(data) - 6)[0]
    directory = data[start:end]
    twin = directory.replace(MEMBER.encode(), b"x" * len(MEMBER))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, 2 * len(directory), start, 0)
    (tmp_path / "a").write_bytes(data[:start] + directory + twin + tail)
    with pytest.raises(gc.GraphError, match="begins at byte 0, not at"):
        read_tensors(tmp_path / "a")


def test_only_ordinary_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, fault in ((tmp_path / "pipe", "ordinary"), (tmp_path, "ordinary"), ("/dev/zero", "ordinary"),
                        (tmp_path / "none", "No such file"), ("a\0b", "null byte")):
        with pytest.raises(gc.GraphError, match=fault):
            read_tensors(path)


def test_a_sparse_file_of_terabytes_costs_nothing(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(2**41)
    with pytest.raises(gc.GraphError, match="no zip file"):
        read_tensors(tmp_path / "a")


# -- mutations --
def mutated(data, rng):
    """The bytes with a few of them changed, cut, doubled or set to what breaks sizes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[place:place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place:place + rng.choice([1, 2, 8, 100])]
            case 2:
                data[place:place] = rng.randbytes(rng.choice([1, 2, 8]))
            case 3:
                data[place:place + 8] = rng.choice([b"\xff" * 8, b"\xff" * 4, b"\0" * 8, b"\xff" * 7 + b"\x7f"])
            case 4:
                data[place:place] = data[place:place + rng.choice([4, 30, 60])]
            case _:
                del data[place:]
        data = data or bytearray(b"x")
    return bytes(data)


def small_tensors():
    return {"w": ("float32", values("float32", (3, 4))), "b": ("bool", values("bool", (5,))),
            "s": ("bfloat16", values("bfloat16", ())), "e": ("int64", values("int64", (0, 3)))}


def read_mutations(path, make_data, read, count):
    """Reads `count` mutated files; what is not refused is given to `accept`.  Nothing else may happen."""
    refused = 0
    tracemalloc.start()
    try:
        for seed in range(count):
            path.write_bytes(make_data(random.Random(seed)))
            tracemalloc.reset_peak()
            try:
                yield seed, read(path)
            except gc.GraphError as error:
                refused += 1
                assert path.name in str(error), f"seed {seed}: {error}"
            assert tracemalloc.get_traced_memory()[1] < PEAK, f"seed {seed}"
    finally:
        tracemalloc.stop()
    assert refused > count // 2


def test_mutated_files_are_refused_or_mean_the_same(tmp_path):
    """Checksums and comparisons find whatever changes: what is still read is what was written."""
    path, given = tmp_path / "a.ckpt", small_tensors()
    write_tensors(path, given)
    whole = path.read_bytes()
    for seed, found in read_mutations(path, lambda rng: mutated(whole, rng), read_tensors, 3000):
        assert list(found) == list(given), seed
        assert all(same(found[name][1], array) for name, (_, array) in given.items()), seed


def test_mutated_members_with_right_checksums_are_refused_or_read(tmp_path):
    path = tmp_path / "a.ckpt"
    whole = b"".join(bytes(chunk) for chunk in tensors.tensor_chunks(small_tensors()))

    def damaged(rng):
        archive.write_archive(path, {MEMBER: [mutated(whole, rng)]})
        return path.read_bytes()

    for seed, found in read_mutations(path, damaged, read_tensors, 1500):
        assert sum(array.size for _, array in found.values()) <= len(whole), seed


# -- graphs: round trips --
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
        assert step.inputs == (saved.placeholders["x"],) and step.outputs[0] is saved.fetches
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


# -- graphs: files that are not what they should be --
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


def test_a_session_saves_and_restores_all_dtypes(tmp_path):
    with gc.Graph():
        given = {dtype: gc.variable(values(dtype, (3, 2)), name=dtype, dtype=dtype) for dtype in DTYPES}
        with gc.Session() as session:
            before = {dtype: session.value(node) for dtype, node in given.items()}
            session.save(tmp_path / "run.ckpt")
            for node in given.values():
                session.assign(node, np.zeros((3, 2), numpy_dtype(node.dtype)))
            session.restore(tmp_path / "run.ckpt")
            assert all(same(session.value(node), before[dtype]) for dtype, node in given.items())
            assert same(constant(before["float32"]).attrs["value"].array, before["float32"])
