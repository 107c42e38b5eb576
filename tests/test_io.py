"""Files: what is written is read back bit by bit, by other readers too, and nothing that is read is trusted."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
from mutations import mutated, read_mutations, same, values

import graphc as gc
from graphc.io import archive, tensors
from graphc.io.tensors import MEMBER, read_tensors, write_tensors
from graphc.ir.node import constant
from graphc.ir.types import DTYPES, numpy_dtype

SHAPES = [(), (0,), (1,), (7,), (0, 3), (3, 5), (2, 1, 4)]


def all_tensors():
    return {f"{dtype}{list(shape)}": (dtype, values(dtype, shape, k))
            for dtype in DTYPES for k, shape in enumerate(SHAPES)}


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


@pytest.mark.slow
def test_sizes_beyond_four_gigabytes(tmp_path):
    """Written with a hole in the place of the zeros; zipfile reads the same places."""
    zeros = np.zeros(5 << 30, np.uint8)
    with open(tmp_path / "a.zip", "wb") as file:
        for piece in archive._pieces({"big": [zeros.data], "small": [b"hello"]}):
            if len(piece) == zeros.size:
                file.seek(zeros.size, os.SEEK_CUR)
            else:
                file.write(piece)
    with archive.open_archive(tmp_path / "a.zip") as found, zipfile.ZipFile(tmp_path / "a.zip") as other:
        assert [m.nbytes for m in found.members.values()] == [zeros.size, 5] == [m.file_size for m in other.infolist()]
        assert found.whole("small") == b"hello" == other.read("small")


# -- mutations --
def small_tensors():
    return {"w": ("float32", values("float32", (3, 4))), "b": ("bool", values("bool", (5,))),
            "s": ("bfloat16", values("bfloat16", ())), "e": ("int64", values("int64", (0, 3)))}


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


# -- sessions --
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
