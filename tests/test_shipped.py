"""Libraries as files: what is told of them, weights outside the code, and files that are damaged."""

from __future__ import annotations

import ctypes
from pathlib import Path
import random
import shutil
import subprocess
import time

import graphc as gc
import graphc.library
import numpy as np
import pytest

from codegen.elf.shared import read_shared
from graphc.cli import main
from tests.elf_programs import runs_here, tool
from tests.test_library import TS, XS, model

pytestmark = runs_here


def shipped(folder: Path, **options: object) -> tuple[Path, np.ndarray]:
    """A library of the model, and what its session predicts."""
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            path = gc.compile_library(folder, "tiny", entries, session=sess, **options)
            predict = entries["predict"]
            return path, sess.run(predict.outputs[0], {predict.inputs[0]: XS})


# -- what a library holds --
def test_inspect_tells_without_running(tmp_path):
    path, _ = shipped(tmp_path, target="aarch64", weights="data")
    info = gc.inspect_library(path)
    assert (info.name, info.machine, info.needed) == ("tiny", "aarch64", ("libc.so.6",))
    assert [e.name for e in info.entries] == ["predict", "step"] and [a.name for a in info.weights] == ["scale"]
    assert [a.name for a in info.state] == ["layer/w", "layer/b"]
    text = str(info)
    assert "entry      predict(x: float32[batch, 4]) -> scores: float32[batch, 3]" in text
    assert "weight     scale: float32[4], 16 B" in text and "tiny_predict" in text and info.build_id in text


def test_a_stripped_library_tells_the_same(tmp_path):
    path, wanted = shipped(tmp_path, weights="data")
    before = gc.inspect_library(path)
    tool("strip", path)
    after = gc.inspect_library(path)
    assert str(after).split("\n")[1:] == str(before).split("\n")[1:] and after.nbytes < before.nbytes
    gc.update_weights(path, {"scale": np.full(4, 0.5, "f")})
    np.testing.assert_allclose(gc.load_library(path).predict(XS), wanted, rtol=1e-6)


def test_the_system_tools_agree(tmp_path):
    path, _ = shipped(tmp_path)
    shared = read_shared(path.read_bytes())
    rows = [line.split() for line in tool("nm", "-D", "--defined-only", path).splitlines()]
    assert {row[2]: int(row[0], 16) for row in rows} == {name: at for name, (at, _) in shared.exports.items()}
    assert set(shared.imports) == {line.split()[-1] for line in tool("nm", "-D", "-u", path).splitlines()}


def test_command_line(tmp_path, capsys):
    path, _ = shipped(tmp_path)
    assert main(["inspect", str(path)]) == 0
    assert "library tiny" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "tiny.h")]) == 2
    assert "begins with" in capsys.readouterr().err
    with gc.Graph():
        x = gc.placeholder("float32", ("n", 3), name="x")
        gc.save_graph(tmp_path / "m.gcm", x * 2)
    assert main(["compile", str(tmp_path / "m.gcm"), "-o", str(tmp_path), "--name", "two", "--target", "x86-64-v3",
                 "--target", "x86-64-v2", "--freestanding"]) == 0
    assert [t.name for t in gc.inspect_library(tmp_path / "libtwo.so").targets] == ["x86-64-v3", "x86-64-v2"]
    (tmp_path / "m.gcm").rename(tmp_path / "my model-2.gcm")
    assert main(["compile", str(tmp_path / "my model-2.gcm"), "-o", str(tmp_path), "--threads", "2"]) == 0
    assert "ABI 2, 2 threads" in str(gc.inspect_library(tmp_path / "libmy_model_2.so"))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_told_or_refused(tmp_path, seed):
    path, _ = shipped(tmp_path, weights="data")
    right = path.read_bytes()
    random.seed(seed)
    for _ in range(300):
        data = bytearray(right)
        if random.random() < 0.3:
            del data[random.randrange(len(data)):]
        else:
            at = random.choice((random.randrange(min(2000, len(data))), random.randrange(len(data))))
            data[at:at + 8] = random.randbytes(min(8, len(data) - at))
        path.write_bytes(data)
        try:
            gc.inspect_library(path)
        except gc.GraphError:
            continue


# -- weights outside the code --
def test_weights_as_data_can_be_changed(tmp_path):
    path, wanted = shipped(tmp_path, weights="data")
    lib = gc.load_library(path)
    np.testing.assert_allclose(lib.predict(XS), wanted, rtol=1e-6)
    with gc.Graph() as graph:
        entries = model()
        with gc.Session() as sess:
            sess.assign(graph.variables["scale"], [1.0, 2.0, 3.0, 4.0])
            gc.update_weights(path, sess)
            predict = entries["predict"]
            changed = sess.run(predict.outputs[0], {predict.inputs[0]: XS})
    np.testing.assert_allclose(lib.predict(XS), wanted, rtol=1e-6)  # it has the old file
    again = gc.load_library(path)
    np.testing.assert_allclose(again.predict(XS), changed, rtol=1e-5)
    assert np.isfinite(again.step(XS, TS))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_bad_weights_change_nothing(tmp_path):
    path, _ = shipped(tmp_path, weights="data")
    before = path.read_bytes()
    for values, text in (({"scala": [1] * 4}, "it has no weight 'scala'"), ({"scale": [1.0] * 3}, "is float32\\[4\\]"),
                         ({"scale": ["x"] * 4}, "expected float32")):
        with pytest.raises(gc.GraphError, match=text):
            gc.update_weights(path, values)
    assert path.read_bytes() == before
    plain, _ = shipped(tmp_path / "plain")
    with pytest.raises(gc.GraphError, match="weights='data'"):
        gc.update_weights(plain, {})


def test_weights_in_a_file(tmp_path):
    path, wanted = shipped(tmp_path, weights="file")
    lib = gc.load_library(path)
    assert set(lib.state) == {"layer/w", "layer/b"}  # the others wait for the file
    with pytest.raises(gc.SessionError, match="scale"):
        lib.predict(XS)
    with pytest.raises(gc.GraphError, match="damaged"):
        lib.load_state(tmp_path / "tiny.h")
    assert "scale" not in lib.state
    lib.load_state(tmp_path / "tiny.safetensors")
    np.testing.assert_allclose(lib.predict(XS), wanted, rtol=1e-6)
    before = (tmp_path / "tiny.safetensors").read_bytes()
    state = ctypes.c_void_p()
    dll = ctypes.CDLL(str(path))
    assert dll.tiny_map(ctypes.byref(state), str(tmp_path / "tiny.safetensors").encode()) == 0
    members = ctypes.cast(state, ctypes.POINTER(ctypes.c_void_p))
    assert all(members[k] % 4 == 0 for k in range(3))
    ctypes.memset(members[0], 0, 48)  # a change of the memory is none of the file
    dll.tiny_free(state)
    assert (tmp_path / "tiny.safetensors").read_bytes() == before


def test_bad_requests(tmp_path):
    for options, text in (({"weights": "nowhere"}, "constant, data, file"),
                          ({"weights": "file", "freestanding": True}, "functions that read files")):
        with pytest.raises(gc.GraphError, match=text):
            shipped(tmp_path, **options)
    with gc.Graph(), pytest.raises(gc.GraphError, match="needs session="):
        gc.compile_library(tmp_path, "tiny", model(), weights="data")
    assert list(tmp_path.iterdir()) == []


def test_too_much_data(tmp_path, monkeypatch):
    monkeypatch.setattr(graphc.library, "MOST_DATA", 10)
    with pytest.raises(gc.GraphError, match="weights='file' keeps the weights"):
        shipped(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_hundred_megabytes_of_weights(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", (5000,), name="x")
        w = gc.variable(np.ones((5000, 5000), "f"), name="w")
        with gc.Session() as sess:
            sess.value(w)
            start = time.perf_counter()
            path = gc.compile_library(tmp_path, "big", {"run": gc.signature([x], w @ x)}, session=sess, weights="data")
            seconds = time.perf_counter() - start
    assert path.stat().st_size > 100_000_000
    np.testing.assert_allclose(gc.load_library(path).run(np.ones(5000, "f")), np.full(5000, 5000.0), rtol=1e-5)
    print(f"{seconds:.2f} s")


def test_mapped_state_under_valgrind(tmp_path):
    if shutil.which("cc") is None or shutil.which("valgrind") is None:
        pytest.skip("no cc or valgrind")
    shipped(tmp_path, weights="file", target="x86-64-v3")
    (tmp_path / "main.c").write_text("""
#include "tiny.h"
int main(void)
{
    struct tiny_state *state;
    float x[4] = {1, 2, 3, 4}, y[3];
    static char room[1 << 14];
    int32_t status = tiny_map(&state, "tiny.safetensors");
    if (status) return status;
    status = tiny_predict(1, x, y, state, room + (64 - (unsigned long)room % 64));
    tiny_free(state);
    return status;
}
""")
    subprocess.run(["cc", "-g", "main.c", "-L.", "-ltiny", "-Wl,-rpath,.", "-o", "main"], check=True, cwd=tmp_path)
    done = subprocess.run(["valgrind", "-q", "--leak-check=full", "--error-exitcode=99", "./main"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
