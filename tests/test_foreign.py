"""Libraries for WebAssembly, Windows and macOS are called: the numbers of a session, and a status for what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import shutil
import subprocess

import numpy as np
import pytest

from codegen.header import STATUS, CLibrary
from codegen.target import target
import graphc as gc
from tests.foreign import MACHINES, RUNNABLE, SELDOM, runner, shipped
from tests.foreign_programs import NULL, Job, Place, Run, needs_ziglang
from tests.elf_programs import ROOT
from tests.test_consumers import EXAMPLES, STEPS, module, trained_here
from tests.test_docs import blocks
from tests.test_library import TS, XS, model

CODE = {name: value for name, value, _ in STATUS}
pytestmark = needs_ziglang


@dataclass(frozen=True)
class Machine:
    """A library, and what runs it."""

    path: Path
    pointer_bytes: int
    run: Run


@pytest.fixture(scope="module", params=RUNNABLE)
def machine(request, host_folder, tmp_path_factory):
    run = runner(request.param, host_folder)
    path = shipped(tmp_path_factory.mktemp(request.param), MACHINES[request.param], weights="data")
    return Machine(path, target(MACHINES[request.param][0]).pointer_bytes, run)


def workspace_of(machine: Machine, entry: str, *sizes: int) -> int:
    job = Job(machine.pointer_bytes)
    job.call(f"tiny_{entry}_workspace_size", *sizes)
    return machine.run(machine.path, job).results[0]


# -- the same numbers --
def test_a_training_step_is_the_sessions(machine):
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            predict, step = entries["predict"], entries["step"]
            f = sess.function(predict.inputs, predict.outputs[0])
            g = sess.function(step.inputs, list(step.outputs), updates=step.updates)
            first = [sess.value(v) for v, _ in step.updates]
            wanted = [f(XS), *(g(XS, TS)[0] for _ in range(3)), f(XS)]
            last = [sess.value(v) for v, _ in step.updates]
    job = Job(machine.pointer_bytes)
    n = len(XS)
    room = job.room(max(workspace_of(machine, entry, n) for entry in ("predict", "step")))
    x, t, variables = job.array(XS), job.array(TS), [job.array(v) for v in first]
    state = job.pointers(*variables)
    scores, losses = [job.room(4 * n * 3) for _ in range(2)], [job.room(4) for _ in range(3)]
    job.call("tiny_predict", n, x, scores[0], state, room)
    for loss in losses:
        job.call("tiny_step", n, x, t, loss, state, room)
    job.call("tiny_predict", n, x, scores[1], state, room)
    done = machine.run(machine.path, job)
    assert done.statuses == [0] * 5
    got = [done.array(scores[0], "f", (n, 3)), *(done.array(loss, "f", ()) for loss in losses),
           done.array(scores[1], "f", (n, 3))]
    for a, b in zip([*got, *(done.array(v, "f", w.shape) for v, w in zip(variables, last))], [*wanted, *last]):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)
    assert done.bytes_of(x) == XS.tobytes() and done.bytes_of(t) == TS.tobytes()


def products() -> dict[str, gc.Signature]:
    """Functions of sizes that are known at run time: products of all shapes, derivatives, indices from the caller."""
    a, b = gc.placeholder("float32", ("m", "k"), name="a"), gc.placeholder("float32", ("k", "n"), name="b")
    c, q = gc.placeholder("float64", ("k",), name="c"), gc.placeholder("float64", (6,), name="q")
    table = gc.placeholder("float64", ("rows", 3), name="table")
    which = gc.placeholder("int32", ("many",), name="which")
    w = gc.constant(np.random.default_rng(3).standard_normal((6, 6)))
    softmax = gc.nn.softmax(a @ b)
    return {"product": gc.signature([a, b], [softmax, gc.sum(softmax * softmax, axis=1)]),
            "transposed": gc.signature([a, c], [gc.transpose(a) @ a, gc.cast(a, "float64") @ c]),
            "jacobian": gc.signature([q], [gc.jacobian(gc.tanh(w @ gc.sin(w @ q)), q),
                                           gc.hessian(gc.sum(gc.exp(w @ q * 0.1)), q)]),
            "sparse": gc.signature([q], [gc.sparse_jacobian(q[1:] * gc.cos(q[:-1]), q)]),
            "pick": gc.signature([table, which], [table[which] * 2.0])}


def feeds_of(rng: np.random.Generator, sizes: dict[str, int], what: gc.Signature) -> list[np.ndarray]:
    found = []
    for node in what.inputs:
        shape = [sizes.get(str(size), 0) if not isinstance(size, int) else size for size in node.shape]
        values = rng.integers(-sizes["rows"], sizes["rows"], shape) if node.dtype == "int32" else (
            rng.standard_normal(shape))
        found.append(values.astype(node.dtype))
    return found


SIZES = ("m", "k", "n", "rows", "many")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SELDOM)) for name in MACHINES])
def test_sizes_are_arguments(tmp_path, host_folder, name):
    run, pointer_bytes = runner(name, host_folder), target(MACHINES[name][0]).pointer_bytes
    rng = np.random.default_rng(0)
    with gc.Graph(), gc.Session() as sess:
        entries = products()
        path = gc.compile_library(tmp_path, "some", entries, session=sess, targets=MACHINES[name])
        trials = [(entry, dict(zip(SIZES, sizes)), what) for entry, what in entries.items()
                  for sizes in [(1, 1, 1, 1, 1), (3, 5, 7, 4, 9), (17, 33, 18, 2, 0), (8, 64, 40, 50, 70)]]
        symbols = {entry.name: entry.symbols for entry in gc.inspect_library(path).entries}
        taken = [tuple(sizes[s] for s in symbols[entry]) for entry, sizes, _ in trials]
        ask = Job(pointer_bytes)
        for (entry, _, _), dims in zip(trials, taken):
            ask.call(f"some_{entry}_workspace_size", *dims)
        rooms, job, results = run(path, ask).results, Job(pointer_bytes), []
        for (entry, sizes, what), dims, nbytes in zip(trials, taken, rooms):
            given = feeds_of(rng, sizes, what)
            wanted = sess.run(list(what.outputs), dict(zip(what.inputs, given)))
            outputs = [job.room(value.nbytes) for value in wanted]
            results.append((entry, wanted, outputs))
            job.call(f"some_{entry}", *dims, *map(job.array, given), *outputs, job.room(nbytes))
        table, out = job.array(np.ones((4, 3))), job.room(24)
        for index in (3, -4, 4, -5):
            job.call("some_pick", 1, 4, table, job.array(np.array([index], "int32")), out, job.room(64))
        done = run(path, job)
    assert done.statuses == [0] * len(trials) + [0, 0, CODE["OUT_OF_RANGE"], CODE["OUT_OF_RANGE"]]
    for entry, wanted, outputs in results:
        for value, place in zip(wanted, outputs):
            tolerance = 1e-5 if value.dtype == np.float32 else 1e-11
            np.testing.assert_allclose(done.array(place, value.dtype, value.shape), value, rtol=tolerance,
                                       atol=tolerance, err_msg=entry)


def test_what_is_wrong_is_a_status_and_nothing_is_written(machine):
    job = Job(machine.pointer_bytes)
    x, t, w, b = job.array(XS[:2], 0), job.array(TS[:2]), job.array(np.ones((4, 3), "f")), job.array(np.ones(3, "f"))
    loss, room, state = job.room(4), job.room(1 << 14), job.pointers(w, b)
    halves = [job.pointers(w, b), job.pointers(w, Place(b.at + 2, 0))]
    job.fixups.remove((halves[0].at + machine.pointer_bytes, b.at))  # its second member is null
    skewed = job.room(4, skew=2), job.room(1 << 14, skew=8), job.put(bytes(2 * machine.pointer_bytes), skew=2)
    right = [2, x, t, loss, state, room]
    wanted = []
    for place, value, status in [
            (1, NULL, "NULL_POINTER"), (2, NULL, "NULL_POINTER"), (3, NULL, "NULL_POINTER"), (4, NULL, "NULL_POINTER"),
            (4, halves[0], "NULL_POINTER"), (0, -1, "BAD_SIZE"), (0, 1 << 62, "BAD_SIZE"), (0, 1 << 59, "BAD_SIZE"),
            (3, skewed[0], "MISALIGNED"), (5, skewed[1], "MISALIGNED"), (4, skewed[2], "MISALIGNED"),
            (4, halves[1], "MISALIGNED")]:
        job.call("tiny_step", *right[:place], value, *right[place + 1:])
        wanted.append(CODE[status])
    job.call("tiny_check_cpu")
    job.call("tiny_abi_version")
    done = machine.run(machine.path, job)
    assert done.statuses == [*wanted, 0, CLibrary("tiny", ()).abi_version]
    kept = bytearray(job.image)
    for at, _ in job.fixups:
        kept[at:at + machine.pointer_bytes] = done.image[at:at + machine.pointer_bytes]
    assert bytes(kept) == done.image


def test_sizes_that_memory_cannot_have(tmp_path, host_folder):
    run = runner("wasm32", host_folder)
    machine = Machine(shipped(tmp_path, ["wasm32"]), 4, run)
    job = Job(4)
    x, y, room = job.room(16), job.room(16), job.room(64)
    state = job.pointers(x, y)
    for n in (1 << 28, (1 << 28) - 1, 1 << 32):  # 4 GiB, 16 bytes less, and what 32 bits cannot tell from nothing
        job.call("tiny_predict_workspace_size", n)
    job.call("tiny_predict", 1 << 32, x, y, state, room)
    done = machine.run(machine.path, job)
    assert done.results[0] == done.results[2] == -1 and done.results[1] >= 0
    assert done.statuses[3] == CODE["BAD_SIZE"]
    with gc.Graph():
        x = gc.placeholder("float32", (1 << 30,), name="x")
        with pytest.raises(gc.GraphError, match="x has 4294967296 bytes, wasm32 reaches 4294967295"):
            gc.compile_library(tmp_path, "much", {"f": gc.signature([x], gc.sum(x))}, target="wasm32")


def test_the_page_shows_what_runs(tmp_path, monkeypatch):
    if shutil.which("node") is None:
        pytest.skip("no node here")
    page = (ROOT / "docs" / "libraries.md").read_text()
    section = page[page.index("## WebAssembly"):]
    make, run = ("\n".join(next(body for language, _, body in blocks(section) if language == wanted))
                 for wanted in ("text", "js"))
    monkeypatch.chdir(tmp_path)
    with gc.Graph():
        names: dict[str, object] = {}
        exec("\n".join(next(body for language, _, body in blocks(page) if language == "python")), names)
        exec(make, names)
        wanted = names["sess"].run(names["logits"], {names["x"]: np.ones((2, 4), "f")})
        names["sess"].close()
    said = subprocess.run(["node", "-e", run], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    np.testing.assert_allclose(np.array(said.stdout.split(), "f").reshape(2, 3), wanted, rtol=1e-6, atol=1e-7)


def test_training_in_javascript_alone(tmp_path):
    """The digits network, as examples/cpp trains it: the same losses but for the last digits."""
    if shutil.which("node") is None:
        pytest.skip("no node here")
    with gc.Graph():
        module(EXAMPLES / "wasm" / "export.py").main(str(tmp_path))
    said = subprocess.run(["node", str(EXAMPLES / "wasm" / "train.mjs"), str(tmp_path), str(STEPS)],
                          capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    *losses, last = said.stdout.splitlines()
    np.testing.assert_allclose([float(line.split()[-1]) for line in losses], trained_here()[0][49::50], rtol=1e-4)
    assert int(last.split()[1]) > 55
    (tmp_path / "digits.bin").write_bytes((tmp_path / "digits.bin").read_bytes()[:1000])
    assert subprocess.run(["node", str(EXAMPLES / "wasm" / "train.mjs"), str(tmp_path)], capture_output=True,
                          check=False).returncode == 1
