"""Libraries: the same numbers as a session, from Python, ctypes and C; what they export; and what they refuse."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from codegen.header import STATUS
from codegen.jit import compile_text, load
from codegen.elf.read import FUNC, read_object
from codegen.runtime import emit_memory
from codegen.state import IMPORTS
from codegen.target import target
from codegen.text import Module
import graphc as gc
import graphc.loaded
import graphc.packaging
from graphc.packaging import file_names
from tests.elf_programs import child, runs_here, tool

CODE = {name: value for name, value, _ in STATUS}
pytestmark = runs_here

XS = np.random.default_rng(1).standard_normal((7, 4)).astype("f")
TS = np.random.default_rng(2).standard_normal((7, 3)).astype("f")


def model(seed=0):
    """A small classifier with a training step, as the entries of a library."""
    rng = np.random.default_rng(seed)
    x = gc.placeholder("float32", ("batch", 4), name="x")
    t = gc.placeholder("float32", ("batch", 3), name="t")
    w = gc.variable(rng.standard_normal((4, 3)).astype("f"), name="layer/w")
    b = gc.variable(np.zeros(3, "f"), name="layer/b")
    scale = gc.variable(np.full(4, 0.5, "f"), name="scale")
    y = gc.tanh((x * scale) @ w + b)
    loss = gc.mean((y - t) ** 2)
    dw, db = gc.gradients(loss, [w, b])
    updates = {w: w - 0.1 * dw, b: b - 0.1 * db}
    return {"predict": gc.signature([x], y, names=["scores"]), "step": gc.signature([x, t], [loss], updates=updates)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A library of the model and what a session gives for the same."""
    folder = tmp_path_factory.mktemp("library")
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            path = gc.compile_library(folder, "tiny", entries, session=sess)
            predict, step = entries["predict"], entries["step"]
            f = sess.function(predict.inputs, predict.outputs[0])
            g = sess.function(step.inputs, list(step.outputs), updates=step.updates)
            wanted = [f(XS)] + [g(XS, TS)[0] for _ in range(3)] + [f(XS)]
            state = {v.name: sess.value(v) for v, _ in step.updates}
    return path, wanted, state


@pytest.fixture
def lib(built):
    return gc.load_library(built[0])


# -- the same numbers --
def trained(lib):
    return [lib.predict(XS)] + [lib.step(XS, TS) for _ in range(3)] + [lib.predict(XS)]


def test_agrees_with_the_session(built, lib):
    for got, wanted in zip(trained(lib), built[1], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)
    for name, value in built[2].items():
        np.testing.assert_allclose(lib.state[name], value, rtol=1e-6, atol=1e-7)


def test_weights_that_nobody_updates_are_inside(built, lib):
    assert list(lib.state) == ["layer/w", "layer/b"]
    header = built[0].with_name("tiny.h").read_text()
    assert "scale" not in header and "layer_w" in header


def test_two_states_are_independent(built, lib):
    other = gc.load_library(built[0])
    trained(lib)
    np.testing.assert_array_equal(other.predict(XS), gc.load_library(built[0]).predict(XS))
    assert not np.array_equal(lib.state["layer/w"], other.state["layer/w"])
    lib.state = lib.new_state()
    np.testing.assert_array_equal(lib.predict(XS), other.predict(XS))


def test_pickles_with_its_state(lib):
    lib.step(XS, TS)
    copy = pickle.loads(pickle.dumps(lib))
    np.testing.assert_array_equal(copy.predict(XS), lib.predict(XS))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lib.predict))(XS), lib.predict(XS))


def test_text_shows_the_signatures(lib):
    for part in ("predict(x: float32[batch, 4]) -> scores: float32[batch, 3]", "state layer/w: float32[4, 3]", "step("):
        assert part in repr(lib)
    assert "predict(x" in repr(lib.predict) and {"predict", "step"} <= set(dir(lib))
    with pytest.raises(AttributeError, match="no entry 'guess'; there are predict, step"):
        _ = lib.guess


def test_arguments_are_converted_or_explained(lib):
    wanted = lib.predict(XS)
    for given in (XS.tolist(), XS.astype("d"), np.repeat(XS, 2, axis=0)[::2], np.asfortranarray(XS)):
        np.testing.assert_array_equal(lib.predict(given), wanted)
    out = np.empty((7, 3), "f")
    assert lib.predict(XS, out=out) is out and np.array_equal(out, wanted)
    refusals = [((XS, XS), gc.FeedError), ((XS[:, :3],), gc.ShapeError), ((XS.astype(complex),), gc.DTypeError)]
    for arguments, kind in refusals:
        with pytest.raises(kind):
            lib.predict(*arguments)
    with pytest.raises(gc.ShapeError, match="batch"):
        lib.step(XS, TS[:6])
    assert lib.predict(np.empty((0, 4), "f")).shape == (0, 3)


def test_the_state_is_checked(lib):
    lib.state["layer/b"] = np.zeros(3)
    with pytest.raises(gc.FeedError, match="layer/b"):
        lib.predict(XS)
    del lib.state["layer/b"]
    with pytest.raises(gc.SessionError, match="layer/b"):
        lib.predict(XS)
    for wrong in ("layer/B", "", None):
        with pytest.raises(gc.GraphError, match=r"no variable .*; there are layer/w, layer/b"):
            lib.state[wrong] = np.zeros(3, "f")
    lib.state = lib.new_state()
    with pytest.raises(gc.GraphError, match="no variable 'w'"):
        lib.state = {"layer/w": np.zeros((4, 3), "f"), "w": 1}
    assert lib.predict(XS).any() and set(lib.state) == {"layer/w", "layer/b"}
    lib.state["layer/w"].flags.writeable = False
    with pytest.raises(gc.FeedError, match="state for 'layer/w': read-only"):
        lib.predict(XS)


def test_threads(lib):
    wanted, failures = lib.predict(XS), []

    def work():
        for _ in range(200):
            if not np.array_equal(lib.predict(XS), wanted):
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def many(sess=None):
    """Entries with dtypes, composite sizes, scalars, indices and no arguments at all."""
    x = gc.placeholder("float32", ("n",), name="double")  # a word of C
    i = gc.placeholder("int64", ("k",), name="index/of 1")
    h = gc.placeholder("bfloat16", ("n", 2), name="h")
    m = gc.placeholder("bool", (None,), name="mask")
    count = gc.variable(np.zeros((), "int64"), name="count")
    return {
        "take": gc.signature([x, i], [gc.take(x, i)]),
        "twice": gc.signature([x], gc.concat([x, x * 2])),
        "brain": gc.signature([h], [h * 2, gc.sum(h)]),
        "all_of": gc.signature([m], gc.all(m)),
        "tick": gc.signature([], [count], updates={count: count + 1}),
        "tock": gc.signature([], [], updates={count: count - 1}),
        "same": gc.signature([x], [x, x]),
        "table": gc.signature([], gc.constant(np.arange(5.0)) * 2),
    }


@pytest.fixture(scope="module", params=["native", "x86-64-v2"])
def odd(request, tmp_path_factory):
    with gc.Graph():
        path = gc.compile_library(tmp_path_factory.mktemp("odd"), "odd", many(), target=request.param)
    return gc.load_library(path)


def test_kinds_of_entries(odd):
    x = np.array([1, 2, 3], "f")
    np.testing.assert_array_equal(odd.take(x, [0, -1]), [1, 3])
    np.testing.assert_array_equal(odd.twice(x), [1, 2, 3, 2, 4, 6])
    doubled, total = odd.brain(np.array([[1, 2.5]], "f"))
    assert doubled.tolist() == [[2, 5]] and total == 3.5 and doubled.dtype == np.float32
    assert odd.all_of([True, True]) and not odd.all_of([True, False]) and odd.all_of([])
    assert [odd.tick() for _ in range(3)] == [0, 1, 2]
    for n in (0, 1, 15, 16, 17, 1000):
        first, second = odd.same(np.arange(n))
        assert first.tolist() == second.tolist() == list(range(n))
    assert odd.tock() == [] and odd.tick() == [2]
    assert odd.table().tolist() == [0, 2, 4, 6, 8]


def test_a_refused_index(odd):
    with pytest.raises(gc.GraphError, match="outside"):
        odd.take(np.ones(3, "f"), [3])


def test_a_variable_without_a_session_is_state(tmp_path):
    with gc.Graph():
        lib = gc.load_library(gc.compile_library(tmp_path, "tiny", model()))
    assert list(lib.state) == ["layer/w", "layer/b", "scale"]
    assert lib.state["scale"].tolist() == [0.5] * 4


def test_inner_nodes_and_variables_as_inputs(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        v, u = gc.variable(np.full(3, 2.0, "f"), name="v"), gc.variable(np.ones(3, "f"), name="u")
        h = x * u.sum()
        y = gc.sum(h) * v
        lib = gc.load_library(gc.compile_library(tmp_path, "cut", {
            "inner": gc.signature([h, v], y), "own": gc.signature([h], y)}))
    assert list(lib.state) == ["v"]
    assert lib.inner([1, 2], [1, 2, 3]).tolist() == [3, 6, 9] and lib.own([1, 2]).tolist() == [6, 6, 6]


def test_options_of_the_session(tmp_path):
    with gc.Graph(), gc.Session(target="x86-64-v2") as sess:
        x = gc.placeholder("float32", ("n",), name="x")
        entries = {"run": gc.signature([x], x * 2)}
        for options, wanted in (({}, "x86-64-v2"), ({"target": "x86-64-v3"}, "x86-64-v3")):
            dll = ctypes.CDLL(str(gc.compile_library(tmp_path / wanted, "opt", entries, session=sess, **options)))
            text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(dll, "opt_metadata")))
            assert [about["name"] for about in json.loads(text)["targets"]] == [wanted]


# -- the C interface --
def test_exports_and_needs(built):
    names = [line.split()[-1] for line in tool("nm", "-D", "--defined-only", built[0]).splitlines()]
    ends = "abi_version check_cpu copy free initial interface load map metadata new predict predict_workspace_size " \
           "save step step_workspace_size strerror"
    assert sorted(names) == [f"tiny_{end}" for end in ends.split()]
    assert [line.split()[-1] for line in tool("readelf", "-d", built[0]).splitlines() if "NEEDED" in line] == [
        "[libc.so.6]"]
    assert {line.split()[-1] for line in tool("nm", "-D", "--undefined-only", built[0]).splitlines()} == set(IMPORTS)


def test_a_freestanding_library_needs_nothing(tmp_path):
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            path = gc.compile_library(tmp_path, "tiny", entries, session=sess, freestanding=True)
    assert "NEEDED" not in tool("readelf", "-d", path)
    assert not tool("nm", "-D", "--undefined-only", path)
    assert "tiny_new" not in path.with_name("tiny.h").read_text()
    assert np.isfinite(gc.load_library(path).step(XS, TS))


def test_small_programs_are_part_of_their_entries(tmp_path):
    """No call is left inside: neither of the kernel nor of the check of sizes."""
    with gc.Graph():
        x, n = gc.placeholder("float32", (10,), name="x"), gc.placeholder("float32", ("n",), name="any")
        entries = {"run": gc.signature([x], x * 2 + 1), "sized": gc.signature([n], n * 2 + 1)}
        gc.compile_library(tmp_path, "small", entries, emit=["o"], target="x86-64-v3")
    symbols = read_object((tmp_path / "small_code0.o").read_bytes(), "code").symbols
    functions = {s.name for s in symbols if s.kind == FUNC}
    assert functions == {f"small__{entry}__0{end}" for entry in ("run", "sized")
                         for end in ("", "_workspace_size")}


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_other_targets(tmp_path, name):
    with gc.Graph():
        path = gc.compile_library(tmp_path, "odd", many(), target=name)
    assert path.read_bytes()[18] == (183 if name == "aarch64" else 62)
    if name == "aarch64":
        with pytest.raises(gc.GraphError):
            gc.load_library(path)


GUARDED = """
import json, mmap, numpy as np
libc = CDLL(None)
libc.mprotect.argtypes = [c_void_p, c_size_t, c_int]
rooms = []
def guarded(nbytes, align=1):
    # Bytes that end where a page begins that nobody may touch.
    pages = -(-nbytes // 4096) + 1
    room = mmap.mmap(-1, (pages + 1) * 4096)
    rooms.append(room)
    start = addressof(c_char.from_buffer(room))
    assert libc.mprotect(start + pages * 4096, 4096, 0) == 0
    return (start + pages * 4096 - nbytes) // align * align
def put(address, array):
    memmove(address, array.ctypes.data, array.nbytes)
lib = CDLL(sys.argv[1])
lib.tiny_predict_workspace_size.restype = lib.tiny_step_workspace_size.restype = c_int64
rng = np.random.default_rng(1)
w, b = rng.standard_normal((4, 3)).astype("f"), np.zeros(3, "f")
for n in (0, 1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 64, 100):
    xs, ts = rng.standard_normal((n, 4)).astype("f"), rng.standard_normal((n, 3)).astype("f")
    x, t, y, loss, pw, pb = (guarded(k * 4) for k in (n * 4, n * 3, n * 3, 1, 12, 3))
    for address, array in ((x, xs), (t, ts), (pw, w), (pb, b)):
        put(address, array)
    state = (c_void_p * 2)(pw, pb)
    room = lib.tiny_predict_workspace_size(c_int64(n))
    code = lib.tiny_predict(c_int64(n), c_void_p(x), c_void_p(y), state, c_void_p(guarded(room, 64)))
    assert code == 0, code
    got = np.frombuffer(string_at(y, n * 12), "f").reshape(n, 3)
    assert np.allclose(got, np.tanh(xs * 0.5 @ w), atol=1e-5)
    room = lib.tiny_step_workspace_size(c_int64(n))
    code = lib.tiny_step(c_int64(n), c_void_p(x), c_void_p(t), c_void_p(loss), state, c_void_p(guarded(room, 64)))
    assert code == 0, code
    if n:
        value = np.frombuffer(string_at(loss, 4), "f")[0]
        assert abs(value - ((np.tanh(xs * 0.5 @ w) - ts) ** 2).mean()) < 1e-5
        assert string_at(pw, 48) != w.tobytes()
print("good")
"""


def test_nothing_outside_the_buffers_is_touched(built):
    assert child(GUARDED, built[0]) == "good\n"


class Raw:
    """The C function `predict` with arguments that can be spoilt one by one."""

    def __init__(self, path: Path) -> None:
        self.dll = ctypes.CDLL(str(path))
        self.x, self.y = np.ones((2, 4), "f"), np.zeros((2, 3), "f")
        self.w, self.b = np.ones((4, 3), "f"), np.ones(3, "f")
        self.size = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(("tiny_predict_workspace_size", self.dll))
        self.room = np.zeros(self.size(2) + 128, np.uint8)
        self.workspace = self.room.ctypes.data + -self.room.ctypes.data % 64

    def __call__(self, **spoilt) -> int:
        given = {name: getattr(self, name).ctypes.data for name in "xywb"} | {"n": 2, "workspace": self.workspace}
        given |= spoilt
        struct = (ctypes.c_void_p * 2)(given["w"], given["b"])
        state = given.get("state", ctypes.addressof(struct))
        f = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, *[ctypes.c_void_p] * 4)(("tiny_predict", self.dll))
        return f(given["n"], given["x"], given["y"], state, given["workspace"])


@pytest.mark.parametrize(("spoilt", "status"), [
    ({}, "OK"), ({"x": None}, "NULL_POINTER"), ({"y": None}, "NULL_POINTER"), ({"w": None}, "NULL_POINTER"),
    ({"state": None}, "NULL_POINTER"), ({"n": -1}, "BAD_SIZE"), ({"n": -(2**63)}, "BAD_SIZE"),
    ({"n": 2**63 - 1}, "BAD_SIZE"), ({"n": 2**60}, "BAD_SIZE"),
    ({"n": 0, "x": None, "y": None, "workspace": None}, "OK")])
def test_statuses(built, spoilt, status):
    raw = Raw(built[0])
    assert raw(**spoilt) == CODE[status]
    assert raw.y.any() == (not spoilt)
    assert raw.size(spoilt.get("n", 0)) >= 0 or status == "BAD_SIZE"


def test_pointers_must_be_aligned(built):
    raw = Raw(built[0])
    for name in "xywb":
        assert raw(**{name: getattr(raw, name).ctypes.data + 2}) == CODE["MISALIGNED"]
    assert not raw.y.any()


def test_workspaces_are_checked(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", ("n", "n"), name="x")
        y = gc.transpose(gc.tanh(x @ x)) @ x
        path = gc.compile_library(tmp_path, "work", {"run": gc.signature([x], y)})
    dll = ctypes.CDLL(str(path))
    size = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(("work_run_workspace_size", dll))
    f = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, *[ctypes.c_void_p] * 3)(("work_run", dll))
    assert size(3) > 0 and size(-1) == -1 and size(2**40) == -1
    room, x, y = np.zeros(size(3) + 128, np.uint8), np.eye(3, dtype="f"), np.zeros((3, 3), "f")
    start = room.ctypes.data + -room.ctypes.data % 64
    for workspace, status in ((None, "NULL_POINTER"), (start + 8, "MISALIGNED"), (start, "OK")):
        assert f(3, x.ctypes.data, y.ctypes.data, workspace) == CODE[status]
    np.testing.assert_allclose(y, np.tanh(np.eye(3)), rtol=1e-6)


def test_status_texts_and_version(built):
    dll = ctypes.CDLL(str(built[0]))
    dll.tiny_strerror.restype = ctypes.c_char_p
    for _, value, text in STATUS:
        assert dll.tiny_strerror(value).decode() == text
    assert dll.tiny_strerror(99) == b"no such status" and dll.tiny_abi_version() == 2


MAIN = r"""
#include "tiny.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    float x[2 * 4] = {1, 2, 3, 4, 5, 6, 7, 8}, y[2 * 3], w[4 * 3], b[3] = {0, 0, 0.5f};
    struct tiny_state state = {w, b};
    int64_t size = tiny_predict_workspace_size(2);
    void *workspace = size ? aligned_alloc(64, (size_t)(size + 63) / 64 * 64) : NULL;
    for (int i = 0; i < 12; i++) w[i] = 0.01f * (float)i;
    int32_t status = tiny_predict(2, x, y, &state, workspace);
    if (status != TINY_OK || tiny_abi_version() != TINY_ABI_VERSION) {
        fprintf(stderr, "%s\n", tiny_strerror(status));
        return 1;
    }
    for (int i = 0; i < 6; i++) printf("%.6f\n", (double)y[i]);
    puts(tiny_strerror(tiny_predict(-1, x, y, &state, workspace)));
    free(workspace);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_c_program(built, tmp_path):
    (tmp_path / "main.c").write_text(MAIN)
    folder = built[0].parent
    tool("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", folder, "-o", tmp_path / "main", tmp_path / "main.c",
         "-L", folder, "-ltiny", f"-Wl,-rpath,{folder}")
    lines = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.splitlines()
    x, w = np.arange(1, 9, dtype="f").reshape(2, 4), (0.01 * np.arange(12, dtype="f")).reshape(4, 3)
    wanted = np.tanh(x * 0.5 @ w + np.array([0, 0, 0.5], "f"))
    np.testing.assert_allclose(np.array(lines[:6], float), wanted.ravel(), atol=2e-6)
    assert lines[6] == "a size is negative, too large, or does not fit the others"


def test_pkg_config_file_moves_with_the_folder(built):
    text = built[0].with_name("tiny.pc").read_text()
    assert "prefix=${pcfiledir}" in text and "-ltiny" in text and str(built[0].parent) not in text


NO_PROGRAM = """
import sys
import numpy as np, graphc as gc
from graphc.cli import main
from tests.test_library import TS, XS, model
with gc.Graph():
    entries = model()
    with gc.Session() as sess:
        for weights in ("constant", "data", "file"):
            folder = f"{sys.argv[1]}/{weights}"
            path = gc.compile_library(folder, "bare", entries, session=sess, weights=weights, debug=True,
                                      emit=["a", "o", "ll", "s"])
            lib = gc.load_library(path)
            if weights == "data":
                gc.update_weights(path, sess)
            if weights == "file":
                lib.load_state(f"{folder}/bare.safetensors")
            lib.save_state(f"{folder}/state")
            assert main(["inspect", str(path)]) == 0 and np.isfinite(lib.step(XS, TS))
        gc.save_graph(f"{sys.argv[1]}/m.gcm", [s.outputs[0] for s in entries.values()], sess, entries=entries)
assert main(["compile", f"{sys.argv[1]}/m.gcm", "-o", sys.argv[1], "--target", "aarch64"]) == 0
print("done")
"""


def test_no_program_is_needed(tmp_path):
    """All that makes, reads and changes libraries, with no compiler, linker or assembler to be found."""
    environment = {**os.environ, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", NO_PROGRAM, str(tmp_path)], capture_output=True, text=True,
                          env=environment, check=False)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr


def test_the_same_bytes_every_time(tmp_path):
    code = """
import sys
import graphc as gc
from tests.test_library import many, model
with gc.Graph():
    gc.compile_library(sys.argv[1], "same", {**model(), **many()}, cache="off")
"""
    root = Path(__file__).parents[1]
    for name, seed in (("a", "0"), ("b", "7")):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], env=environment, cwd=root, check=True)
    for file in file_names("same", target("x86-64-v3")):
        data = (tmp_path / "a" / file).read_bytes()
        assert data == (tmp_path / "b" / file).read_bytes() and str(tmp_path).encode() not in data
        assert b"test_library" not in data


@pytest.mark.parametrize("name", ["memcpy", "memmove", "memset"])
def test_the_functions_of_string_h(name):
    module = Module()
    emit_memory(module, name)
    chosen = target("x86-64-v2")
    text = module.text().replace(f"define hidden ptr @{name}", "define ptr @tried")
    loaded = load(compile_text(text, chosen), ["tried"], chosen)
    second = ctypes.c_int if name == "memset" else ctypes.c_void_p
    f = loaded.function("tried", ctypes.c_void_p, ctypes.c_void_p, second, ctypes.c_size_t)
    data = np.random.default_rng(0).integers(0, 256, 400).astype(np.uint8)
    moves = [(200, 0), (0, 200)] + ([(3, 0), (0, 3), (0, 40), (40, 0), (7, 7)] if name == "memmove" else [])
    for n in (0, 1, 31, 32, 33, 64, 100, 150):
        for to, source in moves:
            got, wanted = data.copy(), data.copy()
            wanted[to:to + n] = 77 if name == "memset" else data[source:source + n]
            start = got.ctypes.data
            assert f(start + to, 256 + 77 if name == "memset" else start + source, n) == start + to
            np.testing.assert_array_equal(got, wanted)


# -- loading --
def test_a_library_that_was_made_anew(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        old = gc.load_library(gc.compile_library(tmp_path, "again", {"run": gc.signature([x], x * 2)}))
        new = gc.load_library(gc.compile_library(tmp_path, "again", {"run": gc.signature([x], x * 3)}))
    assert (old.run([1.0]), new.run([1.0])) == (2, 3)


def test_every_loading_has_a_name_of_its_own(built):
    names = {graphc.loaded.another_name(built[0], k) for k in range(300)}
    assert len(names) == 300 and all(os.path.samefile(name, built[0]) for name in names)
    assert max(map(len, names)) < len(str(built[0])) + 20


def test_a_library_for_a_better_processor(built, monkeypatch):
    assert graphc.loaded.runs_here(ctypes.CDLL(str(built[0])), "tiny")
    monkeypatch.setattr(graphc.loaded, "runs_here", lambda dll, name: False)
    with pytest.raises(gc.GraphError, match="this processor lacks"):
        gc.load_library(built[0])


def test_metadata_is_a_c_string(built):
    dll = ctypes.CDLL(str(built[0]))
    data = json.loads(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(dll, "tiny_metadata"))))
    assert list(data["entries"]) == ["predict", "step"] and data["entries"]["step"]["symbols"] == ["batch"]


# -- what is refused --
def refused(folder, name, entries, match, **options):
    before = sorted(folder.iterdir()) if folder.is_dir() else None
    with pytest.raises(gc.GraphError, match=match):
        gc.compile_library(folder, name, entries, **options)
    assert (sorted(folder.iterdir()) if folder.is_dir() else None) == before


def test_bad_requests(tmp_path):
    with gc.Graph():
        x, y = gc.placeholder("float32", ("n",), name="x"), gc.placeholder("float32", ("n",), name="y")
        good = {"run": gc.signature([x], x * 2)}
        for name in ("", "a-b", "1a", "int", "a__b", "lib.so", "../x"):
            refused(tmp_path, name, good, "header")
        refused(tmp_path, "ok", {}, "no entries")
        refused(tmp_path, "ok", {"run": x}, r"expected gc\.signature")
        refused(tmp_path, "ok", {"run it": good["run"]}, "no C identifier")
        refused(tmp_path, "ok", {"run": good["run"], "run_workspace_size": good["run"]}, "used twice")
        for taken in ("strerror", "metadata", "initial", "weights"):
            refused(tmp_path, "ok", {taken: good["run"]}, "used twice")
        refused(tmp_path, "ok", {"run": gc.signature([x], x + y)}, "entry 'run': .*'y'")
        refused(tmp_path, "ok", {"run": gc.signature([x, x], x)}, "twice")
        refused(tmp_path, "ok", {"run": gc.signature([x], [x, x + 1], names=["a", "a"])}, "two outputs named 'a'")
        refused(tmp_path, "ok", good, "no target", target="pdp11")
        refused(tmp_path, "ok", good, "no option", linkers="cc")
        with gc.Graph(), gc.Session() as other:
            refused(tmp_path, "ok", good, "2 graphs", session=other)
        with pytest.raises(gc.GraphError, match="nothing to compute"):
            gc.signature([x], [])
        with pytest.raises(gc.GraphError, match="expected a node"):
            gc.signature([x], [1.0])
        with pytest.raises(gc.GraphError, match="2 names for 1 outputs"):
            gc.signature([x], x, names=["a", "b"])
    assert not list(tmp_path.iterdir())


def test_bad_folders(tmp_path):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        good = {"run": gc.signature([x], x * 2)}
        (tmp_path / "file").write_text("")
        refused(tmp_path / "file", "ok", good, "no folder")
        (tmp_path / "ok.h").mkdir()
        refused(tmp_path, "ok", good, "is a folder")
        path = gc.compile_library(tmp_path / "new" / "deep", "ok", good)
        assert sorted(p.name for p in path.parent.iterdir()) == ["libok.so", "ok-config.cmake", "ok.h", "ok.pc"]
        if os.geteuid():
            (tmp_path / "closed").mkdir(mode=0o555)
            refused(tmp_path / "closed", "ok", good, "cannot be written")


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    with gc.Graph():
        x = gc.placeholder("float32", ("n",), name="x")
        gc.compile_library(tmp_path, "ok", {"run": gc.signature([x], x * 2)})
        old = {p: p.read_bytes() for p in tmp_path.iterdir()}

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(graphc.packaging, "write_whole", full)
        with pytest.raises(gc.GraphError, match="No space left"):
            gc.compile_library(tmp_path, "ok", {"run": gc.signature([x], x * 3)})
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == old
