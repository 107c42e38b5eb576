"""What `compile_library` and `signature` refuse, and that a refusal leaves the folder as it was."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import tempfile
import tracemalloc

import numpy as np
import pytest

from codegen.state import SUMS, layout, sums_of
import graphc as gc
from graphc.ir.plan import Array
import graphc.library
import graphc.packaging
from tests.elf_programs import child, runs_here

pytestmark = runs_here


@pytest.fixture
def graph():
    with gc.Graph() as made:
        yield made


def double() -> dict[str, gc.library.Signature]:
    x = gc.placeholder("float32", ("n",), name="x")
    return {"run": gc.signature([x], x * 2)}


def test_folders_that_cannot_be(graph, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    entries = double()
    cases = (("a\0b", "a zero byte"), (tmp_path / ("a" * 300), "too long"), (tmp_path / "file", "is no folder"),
             (tmp_path / "file" / "x", "cannot be written"), ("/proc/x", "cannot write"),
             (tmp_path / "dangling", "cannot write"), ("/dev/null/x", "cannot be written"))
    for folder, text in cases:
        with pytest.raises(gc.GraphError, match=text):
            gc.compile_library(folder, "ok", entries)
    for folder in (None, 3):
        with pytest.raises(TypeError):
            gc.compile_library(folder, "ok", entries)
    with pytest.raises(gc.GraphError, match="too long"):
        gc.compile_library(tmp_path, "a" * 300, entries)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]
    assert gc.compile_library(os.fsencode(tmp_path / "bytes"), "ok", entries).is_file()


@pytest.mark.parametrize("file", ["ok.safetensors", "libok.a", "ok_code0.ll", "ok_entries.o"])
def test_a_file_that_cannot_be_replaced_changes_no_other(graph, tmp_path, file):
    """The header and the rest used to be there already when the last file was found to be a folder."""
    w = gc.variable(np.ones(3, "f"), name="w")
    with gc.Session() as sess:
        gc.compile_library(tmp_path, "ok", double(), session=sess)
        old = {p: p.read_bytes() for p in tmp_path.iterdir()}
        (tmp_path / file).mkdir()
        with pytest.raises(gc.GraphError, match=r"folder|directory"):
            gc.compile_library(tmp_path, "ok", {"run": gc.signature([], w * 3)}, session=sess, weights="file",
                               emit=["a", "o", "ll"])
        (tmp_path / file).rmdir()
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == old


def no_link(*_: object) -> None:
    raise OSError(95, "Operation not supported")


def test_names_of_entries_have_a_length_that_files_can_hold(graph, tmp_path):
    run = double()["run"]
    with pytest.raises(gc.GraphError, match="has 1003 characters, more than 1000"):
        gc.compile_library(tmp_path, "ok", {"e" * 1000: run})
    assert gc.load_library(gc.compile_library(tmp_path, "ok", {"e" * 900: run}))["e" * 900]([1.0]).tolist() == [2]


def test_renames_that_fail_half_way_are_undone(graph, tmp_path, monkeypatch):
    entries, replace, count = double(), os.replace, []

    def failing(source, target):
        if not str(target).endswith(".old") and ".old" not in str(source):
            count.append(target)
            if len(count) % 4 == 0:
                raise PermissionError(1, "Operation not permitted")
        replace(source, target)
    monkeypatch.setattr(graphc.packaging.os, "replace", failing)
    for _ in range(2):
        with pytest.raises(gc.GraphError, match="Operation not permitted"):
            gc.compile_library(tmp_path, "ok", entries)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(graphc.packaging.os, "replace", replace)
    gc.compile_library(tmp_path, "ok", entries)
    old = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    monkeypatch.setattr(graphc.packaging.os, "replace", failing)
    monkeypatch.setattr(graphc.packaging.os, "link", no_link)
    with pytest.raises(gc.GraphError, match="Operation not permitted"):
        gc.compile_library(tmp_path, "ok", entries)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == old


def test_what_is_no_request(graph, tmp_path):
    entries = double()
    run = entries["run"]
    for arguments, text in (({"session": "s"}, "expected a gc.Session"), ({"emit": None}, "expected a list of a, o"),
                            ({"emit": "ll"}, "expected a list of a, o"), ({"weights": None}, "one of constant, data"),
                            ({"linker": None}, "one of own, cc"), ({"target": 3}, "the name of a target"),
                            ({"threads": 0}, "from 1 to"), ({"threads": 2, "freestanding": True}, "needs libc")):
        with pytest.raises(gc.GraphError, match=text):
            gc.compile_library(tmp_path, "ok", entries, **arguments)
    for wrong, text in (([run], "expected a dict"), ("run", "expected a dict"), ({1: run}, "the name is a string"),
                        ({"run": 3}, "expected gc.signature")):
        with pytest.raises(gc.GraphError, match=text):
            gc.compile_library(tmp_path, "ok", wrong)
    for inputs, outputs in ((None, run.outputs), (run.inputs, None), (run.inputs, {"y": run.outputs[0]}), ("x", "y")):
        with pytest.raises(gc.GraphError, match="expected a node"):
            gc.signature(inputs, outputs)
    assert not list(tmp_path.iterdir())


def test_what_has_no_code_is_named_with_its_entry(graph, tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise gc.Unsupported("eig: no kernel (stage: lowering)")
    entries = double()
    monkeypatch.setattr(graphc.library, "planned", refused)
    with pytest.raises(gc.Unsupported, match="entry 'run': eig: no kernel"):
        gc.compile_library(tmp_path, "ok", entries)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_reach_are_refused_before_they_are_copied(graph, tmp_path):
    """3 GB, which nobody draws."""
    w = gc.variable(gc.init.normal((750_000_000,), seed=0), name="w")
    x = gc.placeholder("float32", (), name="x")
    with gc.Session() as sess:
        for weights in ("constant", "data"):
            tracemalloc.start()
            with pytest.raises(gc.GraphError, match=r"3000000000 bytes of weights .* weights='file' keeps"):
                gc.compile_library(tmp_path, "ok", {"run": gc.signature([x], gc.sum(w) * x)}, session=sess,
                                   weights=weights)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 100_000_000
    with pytest.raises(gc.GraphError, match="3000000000 bytes"):
        gc.compile_library(tmp_path, "ok", {"run": gc.signature([x], x, updates={w: w + x})})
    assert not list(tmp_path.iterdir())


def test_a_file_of_weights_is_written_in_pieces():
    """Arrays of all widths and odd lengths, so that words of the sums lie across their borders."""
    rng = np.random.default_rng(0)
    arrays = [Array(f"v{k}", dtype, (n,)) for k, (dtype, n) in enumerate((
        ("float32", 3), ("bool", 5), ("float64", 2_000_001), ("uint8", 0), ("int16", 7), ("float32", 1_500_001)))]
    values = [rng.integers(0, 2, a.shape).astype(a.dtype) for a in arrays]
    places = layout("p", arrays)
    largest = max(v.nbytes for v in values)
    tracemalloc.start()
    total, sums = 0, ""
    for piece in places.file(values):
        sums = sums or piece[places.sums_at:places.sums_at + len(SUMS)].decode()
        total += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == places.total and peak < largest * 2
    data = b"".join(places.file(values))[len(places.header):]
    assert sums == "".join(f"{s:016x}" for s in sums_of(data))
    for at, value in zip(places.in_file, values):
        assert data[at:at + value.nbytes] == value.tobytes()


def test_a_folder_may_be_relative_and_odd(graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = gc.compile_library("a b é/\udcff", "ok", double())
    assert not path.is_absolute() and gc.load_library(path).run([1.0, 2.0]).tolist() == [2, 4]
    assert Path("a b é").is_dir()


UNPRIVILEGED = """
import shutil, stat
from pathlib import Path
import numpy as np, graphc as gc
place = Path(sys.argv[1])
for name in gc.MODULE_OF:  # who runs the tests may read the package, others need not
    getattr(gc, name)
with gc.Graph(), gc.Session(cache="off") as sess:
    x, s = gc.placeholder("float32", ("n",), name="x"), gc.variable(np.ones((), "f"), name="s")
    w = gc.variable(np.ones(3, "f"), name="w")
    entries = {"run": gc.signature([x], x * s), "up": gc.signature([], [], updates={w: w + 1})}
    path = gc.compile_library(place / "read", "m", entries, session=sess, weights="data")
    gc.load_library(path).save_state(place / "read" / "hidden")
    shutil.copytree(place / "read", place / "shut")
    (place / "open").mkdir()
    shutil.copy(place / "read" / "hidden", place / "open" / "theirs")
    for name, mode in (("read/hidden", 0), ("read", 0o555), ("shut", 0), ("open", 0o777), ("open/theirs", 0o444)):
        os.chmod(place / name, mode)
    os.environ["GRAPHC_CACHE"] = "off"
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    lib, refused = gc.load_library(path), []
    for call in (lambda: gc.compile_library(place / "read", "m", entries, session=sess),
                 lambda: gc.compile_library(place / "read" / "new", "m", entries, session=sess),
                 lambda: gc.compile_library(place / "shut", "m", entries, session=sess),
                 lambda: gc.compile_library(place / "shut" / "new", "m", entries, session=sess),
                 lambda: gc.update_weights(path, {"s": 2.0}), lambda: gc.load_library(place / "shut" / "libm.so"),
                 lambda: gc.inspect_library(place / "shut" / "libm.so"), lambda: lib.save_state(place / "read" / "s"),
                 lambda: lib.load_state(place / "read" / "hidden"), lambda: lib.load_state(place / "shut" / "hidden"),
                 lambda: lib.save_state(place / "shut" / "s"), lambda: lib.save_state("/dev/null")):
        try:
            call()
        except gc.GraphError as fault:
            refused.append(str(fault))
    words = ("cannot be written", "Permission denied", "device or a pipe")
    assert len(refused) == 12 and all(any(word in text for word in words) for text in refused), refused
    lib.save_state(place / "open" / "theirs")
    assert os.listdir(place / "open") == ["theirs"] and stat.S_ISCHR(os.stat("/dev/null").st_mode)
print("refused")
"""


def test_folders_and_files_without_permission():
    """As a user who is not root, also where the tests are run by root."""
    folder = Path(tempfile.mkdtemp(prefix="graphc-"))
    try:
        folder.chmod(0o755)
        assert child(UNPRIVILEGED, folder) == "refused\n"
    finally:
        for name in ("read", "shut"):
            (folder / name).chmod(0o755)
        shutil.rmtree(folder)
