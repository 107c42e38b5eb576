"""Libraries for WebAssembly and Windows, run by node and wine, and for macOS, where only the file is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import hashlib
from pathlib import Path
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

from codegen import formats
from codegen.blobs import blob_object
from codegen.cache import Cache
from codegen.header import STATUS, CFunction, CLibrary
from codegen.jit import compile_text
from codegen.library import build_library, program_name
from codegen.runtime import runtime_object
from codegen.target import KNOWN, target
import graphc as gc
from graphc.binding import bind_sizes
from graphc.cli import main
from graphc.compiler import planned
from graphc.config import Options
from graphc.ir.node import Graph, Node, ancestors
from graphc.ir.plan import Program
from graphc.ir.reference import evaluate
from graphc.ir.types import FLOATS, from_storage, storage_dtype, to_storage
from passes.lower import Request
from tests.foreign_images import commands, flat, number_at, text_at
from tests.foreign_programs import (
    NULL, Job, Place, Run, in_wine, mapping_host, needs_ziglang, run_mapped, run_wasm, run_windows, windows_host,
    wine, zig)
from tests.elf_programs import ROOT
from tests.samples import all_samples, values_of
from tests.straight_programs import random_program
from tests.test_consumers import EXAMPLES, STEPS, module, trained_here
from tests.test_docs import blocks
from tests.test_fuzz import random_graph
from tests.test_library import TS, XS, model
from tests.test_native_elementwise import ROWS, assert_close, built, values

CODE = {name: value for name, value, _ in STATUS}
WINDOWS = ["x86-64-v4-windows", "x86-64-v3-windows", "x86-64-v2-windows"]
MACHINES = {  # what a library is made for
    "wasm32": ["wasm32"], "windows": WINDOWS, "windows-arm": ["aarch64-windows"],
    "macos": ["x86-64-v3-macos", "x86-64-v2-macos"], "macos-arm": ["aarch64-macos"], "wine": WINDOWS}
SELDOM = ("windows-arm", "macos", "wine")  # much as others: their larger tests are slow ones
RUNNABLE = [pytest.param(name, marks=[pytest.mark.slow] * (name == "wine")) for name in MACHINES]
pytestmark = needs_ziglang


def shipped(folder: Path, targets: Sequence[str], **options: object) -> Path:
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            return gc.compile_library(folder, "tiny", entries, session=sess, targets=targets,
                                      **{"freestanding": True, **options})


@dataclass(frozen=True)
class Machine:
    """A library, and what runs it."""

    path: Path
    pointer_bytes: int
    run: Run


def runner(name: str, folder: Path) -> Run:
    if name == "wasm32":
        if shutil.which("node") is None:
            pytest.skip("no node here")
        return run_wasm
    if name == "wine":
        wine()
        host = windows_host(folder)
        return lambda path, job: run_windows(path, job, host)
    chosen = target(MACHINES[name][0])
    abi = "__attribute__((ms_abi))" if name == "windows" else ""
    command = mapping_host(folder, chosen.architecture, abi)
    return lambda path, job: run_mapped(path, job, command)


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("host")


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


# -- all ops --
@dataclass(frozen=True)
class Case:
    """A function, and arrays to call it with."""

    label: str
    leaves: tuple[Node, ...]
    nodes: tuple[Node, ...]
    feeds: Mapping[Node, np.ndarray]
    compare: Callable[[np.ndarray, np.ndarray, str, str], None]  # result, expected, dtype, label


def close(got: np.ndarray, wanted: np.ndarray, dtype: str, label: str) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13, err_msg=label)


def near(got: np.ndarray, wanted: np.ndarray, dtype: str, label: str) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-9, err_msg=label)


def structural() -> Iterator[Case]:
    for name, k, sample in all_samples():
        with Graph():
            node = sample()
            leaves = tuple(n for n in ancestors([node]) if n.op.name == "placeholder")
            yield Case(f"{name} {k}", leaves, (node,), values_of([node]),
                       close if node.dtype == "float64" else assert_close)


def elementwise(dtypes: Sequence[str], size: int = 67) -> Iterator[Case]:
    for op in ROWS:
        for dtype in dtypes:
            case = built(op.name, dtype, (size,))
            if case is None:
                continue
            rng = np.random.default_rng(sum(map(ord, op.name + dtype)))
            columns = values(dtype, size, rng, len(case[0]))
            if op.name == "where":
                columns[0] = rng.integers(0, 2, size).astype(bool)
            yield Case(f"{op.name} {dtype}", tuple(case[0]), (case[1],), dict(zip(case[0], columns)), assert_close)


def random_graphs(seeds: Iterable[int]) -> Iterator[Case]:
    """Loops of all kinds, with a size that is known at run time, and small programs without loops."""
    for seed in seeds:
        with Graph():
            leaves, fetches, feeds = random_graph(seed, 25)
            yield Case(f"graph {seed}", tuple(leaves), tuple(fetches), feeds, near)
        with Graph():
            inputs, outputs = random_program(seed)
            feeds = values_of(outputs)
            yield Case(f"program {seed}", tuple(n for n in inputs if n in feeds), tuple(outputs), feeds, near)


def library_of(folder: Path, cases: Sequence[Case], targets: Sequence[str]) -> tuple[Path, list[Program]]:
    """One library with an entry for each."""
    programs = []
    for k, case in enumerate(cases):
        with case.nodes[0].graph:
            programs.append(planned(Request(program_name("ops", f"f{k}"), case.leaves, case.nodes, ()),
                                    Options.of(threads=1, exact=True))[1])
    functions = tuple(CFunction(f"f{k}", (), ()) for k in range(len(cases)))
    linked = build_library(CLibrary("ops", functions), programs, "{}", (), (), [target(t) for t in targets],
                           Cache(Path(), 0))
    shared, *_ = files = linked.files("ops")
    (folder / shared).write_bytes(files[shared])
    return folder / shared, programs


def check_cases(folder: Path, cases: Sequence[Case], name: str, run: Run) -> None:
    chosen = MACHINES[name][-2 if name in ("windows", "wine") else 0]  # of several one without AVX-512
    path, programs = library_of(folder, cases, [chosen])
    stored = [[np.asarray(to_storage(np.asarray(case.feeds[n]), n.dtype)) for n in case.leaves] for case in cases]
    sizes = [bind_sizes(p.inputs, [a.shape for a in arrays], p.checks) for p, arrays in zip(programs, stored)]
    dims = [[found[symbol] for symbol in p.symbols] for p, found in zip(programs, sizes)]
    ask = Job(target(chosen).pointer_bytes)
    for k, given in enumerate(dims):
        ask.call(f"ops_f{k}_workspace_size", *given)
    rooms = run(path, ask).results
    job, results = Job(target(chosen).pointer_bytes), []
    for k, (case, arrays) in enumerate(zip(cases, stored)):
        wanted = evaluate(list(case.nodes), case.feeds, {})
        outputs = [job.room(np.dtype(storage_dtype(n.dtype)).itemsize * np.size(value))
                   for n, value in zip(case.nodes, wanted)]
        job.call(f"ops_f{k}", *dims[k], *map(job.array, arrays), *outputs, job.room(rooms[k]))
        results.append((case, wanted, outputs))
    done = run(path, job)
    assert done.statuses == [0] * len(cases)
    for case, wanted, outputs in results:
        for node, value, place in zip(case.nodes, wanted, outputs):
            got = from_storage(done.array(place, storage_dtype(node.dtype), np.shape(value)), node.dtype)
            case.compare(got, value, node.dtype, case.label)


SETS = {"structural": lambda: list(structural()), "floats": lambda: list(elementwise(FLOATS)),
        "integers": lambda: list(elementwise(["int8", "int64", "uint16", "uint64", "bool"])),
        "random": lambda: list(random_graphs(range(60)))}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wasm32", "windows", "macos-arm"])
@pytest.mark.parametrize("cases", list(SETS))
def test_every_op(tmp_path, host_folder, name, cases):
    run = runner(name, host_folder)
    listed = SETS[cases]()
    for k in range(0, len(listed), 100):
        check_cases(tmp_path, listed[k:k + 100], name, run)


@pytest.mark.parametrize("name", [name if name == "wasm32" else pytest.param(name, marks=pytest.mark.slow)
                                  for name in MACHINES])
def test_some_of_every_kind(tmp_path, host_folder, name):
    run = runner(name, host_folder)
    maps = list(elementwise(["float64", "float16", "int32"], 19))[::7]
    check_cases(tmp_path, [*list(structural())[::9], *maps, *random_graphs([3])], name, run)


# -- what files hold --
FILES = {"wasm32": ("tiny.wasm",), "x86-64-v3-windows": ("tiny.dll", "tiny.lib"),
         "aarch64-windows": ("tiny.dll", "tiny.lib"), "x86-64-v3-macos": ("libtiny.dylib",),
         "aarch64-macos": ("libtiny.dylib",)}
PUBLIC = {f"tiny_{end}" for end in ("predict", "predict_workspace_size", "step", "step_workspace_size", "strerror",
                                    "abi_version", "interface", "check_cpu", "metadata", "initial")}


@pytest.fixture(scope="module", params=list(FILES))
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    shipped(folder, [request.param])
    return request.param, folder


def test_the_files_are_those_of_the_system(files):
    name, folder = files
    beside = {"tiny.h"} | (set() if name == "wasm32" else {"tiny.pc", "tiny-config.cmake"})
    assert {p.name for p in folder.iterdir()} == {*FILES[name], *beside}
    if name != "wasm32":
        cmake = (folder / "tiny-config.cmake").read_text()
        assert all(f"/{file}" in cmake for file in FILES[name])
        assert ("@rpath/libtiny.dylib" in cmake) == name.endswith("macos")


CMAKE = """cmake_minimum_required(VERSION 3.10)
set(CMAKE_SYSTEM_NAME {system})
project(consumer NONE)
find_package(tiny REQUIRED CONFIG PATHS "{folder}" NO_DEFAULT_PATH)
foreach(what LOCATION IMPLIB SONAME)
  get_target_property(found tiny::tiny IMPORTED_${{what}})
  message(STATUS "${{what}}=${{found}}")
endforeach()
"""


def test_cmake_finds_them(files, tmp_path):
    name, folder = files
    if shutil.which("cmake") is None or name == "wasm32":
        pytest.skip("no cmake here, or no shared library")
    system = "Windows" if name.endswith("windows") else "Darwin"
    (tmp_path / "CMakeLists.txt").write_text(CMAKE.format(system=system, folder=folder))
    done = subprocess.run(["cmake", "-S", ".", "-B", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"-- (\w+)=(.*)", done.stdout))
    shared, *imports = (str(folder / file) for file in FILES[name])
    assert told == {"LOCATION": shared, "IMPLIB": imports[0] if imports else "found-NOTFOUND",
                    "SONAME": "@rpath/libtiny.dylib" if system == "Darwin" else "found-NOTFOUND"}


CONSUMER = """
__declspec(dllimport) void ExitProcess(unsigned);
int tiny_abi_version(void);
void start(void) { ExitProcess(100 + (unsigned)tiny_abi_version()); }
"""


@pytest.mark.slow
def test_a_windows_program_links_with_the_import_library(tmp_path, host_folder):
    host = windows_host(host_folder) if wine() else Path()
    path = shipped(tmp_path, WINDOWS)
    (tmp_path / "main.c").write_text(CONSUMER)
    zig(tmp_path, "cc", "-c", "-target", "x86_64-windows-gnu", "-O1", "-ffreestanding", "main.c", "-o", "main.obj")
    zig(tmp_path, "lld-link", "/subsystem:console", "/entry:start", "/nodefaultlib", "/out:main.exe", "main.obj",
        "tiny.lib", str(host.parent / "kernel32.lib"))
    done = in_wine(path.parent / "main.exe", tmp_path, host.parent)
    assert done.returncode == 100 + CLibrary("tiny", ()).abi_version, done.stderr


def test_the_same_input_gives_the_same_bytes(files, tmp_path):
    name, folder = files
    shipped(tmp_path / "again", [name], linker="ziglang")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_only_public_names_can_be_seen(files):
    name, folder = files
    data = (folder / FILES[name][0]).read_bytes()
    exports, imports = {"coff": pe_names, "macho": macho_names, "wasm": wasm_names}[target(name).object_format](data)
    more = {"wasm": {"memory", "__heap_base"}, "macho": {"_mh_dylib_header", "__dso_handle"}}  # every image's own
    more = more.get(target(name).object_format, set())
    assert exports == PUBLIC | more
    assert imports <= {"dyld_stub_binder"}  # which every library for macOS asks of the system, and ours never call


def pe_names(data: bytes) -> tuple[set[str], set[str]]:
    """The exported names of a DLL, and whether it imports any; its own name and entry point are looked at."""
    header = struct.unpack_from("<I", data, 0x3C)[0] + 24
    assert data[header - 24:header - 20] == b"PE\0\0"
    assert struct.unpack_from("<I", data, header + 16)[0] == 0, "a library without an entry point"
    export, imports = (struct.unpack_from("<I", data, header + 112 + 8 * k)[0] for k in (0, 1))
    image = flat(data)
    assert text_at(image.memory, struct.unpack_from("<I", image.memory, export + 12)[0]) == "tiny.dll"
    return set(image.exports), set() if imports == 0 else {"some"}


def macho_names(data: bytes) -> tuple[set[str], set[str]]:
    """What an image exports and leaves open; its install name, its libraries and its signature are looked at."""
    undefined, libraries, is_signed = set(), [], False
    for command, at in commands(data):
        if command in (0xD, 0xC):  # its own name, and those of libraries that it needs
            libraries.append(text_at(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif command == 2:
            symbols, n, strings, _ = struct.unpack_from("<4I", data, at + 8)
            for k in range(n):
                name, what = struct.unpack_from("<IB", data, symbols + 16 * k)
                if what & 0xE == 0 and what & 1 and not what & 0xE0:
                    undefined.add(text_at(data, strings + name))
        elif command == 0x1D:
            check_signature(data, *struct.unpack_from("<2I", data, at + 8))
            is_signed = True
    is_arm = struct.unpack_from("<I", data, 4)[0] == 0x0100000C
    assert is_signed or not is_arm, "macOS starts nothing for arm64 that is not signed"
    assert libraries == ["@rpath/libtiny.dylib", "/usr/lib/libSystem.B.dylib"]
    return set(flat(data).exports), undefined


def check_signature(data: bytes, at: int, size: int) -> None:
    """An ad-hoc signature is the SHA-256 of every page (big-endian; cs_blobs.h of XNU)."""
    assert struct.unpack_from(">I", data, at)[0] == 0xFADE0CC0
    start = at + struct.unpack_from(">I", data, at + 16)[0]
    _, _, _, flags, hashes, _, _, pages, limit = struct.unpack_from(">9I", data, start)
    assert flags & 2 and limit == at  # ad hoc, and all that lies before it
    page = 1 << data[start + 39]
    for k in range(pages):
        found = hashlib.sha256(data[k * page:min(limit, (k + 1) * page)]).digest()
        assert data[start + hashes + 32 * k:start + hashes + 32 * (k + 1)] == found, k


def wasm_names(data: bytes) -> tuple[set[str], set[str]]:
    """Sections are a number, a length and contents; 2 has imports, 7 exports: name, kind, index."""
    assert data[:8] == b"\0asm\1\0\0\0"
    at, exports, imports = 8, set(), set()
    while at < len(data):
        kind, (size, start) = data[at], number_at(data, at + 1)
        if kind == 2:
            imports.add("some")
        if kind == 7:
            count, place = number_at(data, start)
            for _ in range(count):
                length, place = number_at(data, place)
                exports.add(data[place:place + length].decode())
                _, place = number_at(data, place + length + 1)
        at = start + size
    return exports, imports


def test_files_tell_what_they_hold(files):
    name, folder = files
    path = folder / FILES[name][0]
    told = gc.inspect_library(path)
    assert [entry.name for entry in told.entries] == ["predict", "step"] and told.targets[0]["name"] == name
    assert [a.name for a in told.state] == ["layer/w", "layer/b"]
    assert f"target     {name}" in str(told) and "step(x: float32[batch, 4]" in str(told)
    system = {"coff": "Windows", "macho": "macOS", "wasm": "WebAssembly"}[target(name).object_format]
    for refused in (gc.load_library, lambda path: gc.update_weights(path, {})):
        with pytest.raises(gc.GraphError, match=f"is for {system}: inspect_library tells"):
            refused(path)
    data = path.read_bytes()
    for damaged in (data[:64], data.replace(b"layer/w", b"layer/v")):
        (folder.parent / "damaged").write_bytes(damaged)
        with pytest.raises(gc.GraphError, match=r"no description|its sum differs"):
            gc.inspect_library(folder.parent / "damaged")


def test_parts_for_who_links_themselves(tmp_path):
    for name in FILES:
        folder = tmp_path / name
        shipped(folder, [name], emit=["a", "o", "ll", "s"], weights="data")
        end = "obj" if name.endswith("windows") else "o"
        there = {p.name for p in folder.iterdir()}
        assert {"libtiny.a", "tiny_entries.ll", "tiny_code0.s", f"tiny_code0.{end}", f"tiny_data.{end}"} <= there
        assert (folder / "libtiny.a").read_bytes().startswith(b"!<arch>\n")
        assert np.full(4, 0.5, "f").tobytes() in (folder / f"tiny_data.{end}").read_bytes()


@pytest.mark.parametrize("name", ["wasm32", "windows"])
def test_static_libraries_link(tmp_path, host_folder, name):
    """An archive, and what a compiler has of its own, make the library again."""
    run, targets = runner(name, host_folder), MACHINES[name]
    chosen = target(targets[0])
    path = shipped(tmp_path, targets, emit=["a"], weights="data")
    (tmp_path / "again").mkdir()
    objects = [("libtiny.a", (tmp_path / "libtiny.a").read_bytes()), ("runtime.o", runtime_object(chosen))]
    functions = [f"tiny_{end}" for end in ("predict", "predict_workspace_size")]
    again = tmp_path / "again" / path.name
    again.write_bytes(formats.linked(chosen, "tiny", objects, functions, [])[path.name])
    found = []
    for library in (path, again):
        job = Job(chosen.pointer_bytes)
        x, scores, room = job.array(XS), job.room(4 * len(XS) * 3), job.room(4096)
        state = job.pointers(job.array(np.ones((4, 3), "f")), job.array(np.ones(3, "f")))
        job.call("tiny_predict_workspace_size", len(XS))
        job.call("tiny_predict", len(XS), x, scores, state, room)
        done = run(library, job)
        assert done.results[0] <= 4096 and done.statuses[1] == 0
        found.append(done.bytes_of(scores))
    assert found[0] == found[1] != bytes([0x5A]) * len(found[0])


# -- what is brought along --
def linked(folder: Path, name: str, text: str, functions: Sequence[str], blobs: Mapping[str, bytes]) -> Path:
    chosen = target(name)
    objects = [("a.o", compile_text(text, chosen)), ("runtime.o", runtime_object(chosen)),
               ("data.o", blob_object({k: memoryview(v) for k, v in blobs.items()}, chosen))]
    shared, *_ = files = formats.linked(chosen, "x", objects, functions, [])
    (folder / shared).write_bytes(files[shared])
    return folder / shared


def test_blobs_of_any_length_are_where_they_belong(tmp_path, host_folder):
    rng = np.random.default_rng(0)
    blobs = {f"blob{n}": rng.bytes(n) for n in (0, 1, 15, 16, 17, 64, 1000, 100_000)}
    text = "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n"
    for name, data in blobs.items():
        text += (f"@{name} = external hidden constant i8, align 64\ndefine i64 @{name}_to(ptr %to) {{\n"
                 f"  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr @{name}, i64 {len(data)}, i1 false)\n"
                 f"  %low = ptrtoint ptr @{name} to i64\n  %rest = and i64 %low, 63\n  ret i64 %rest\n}}\n")
    run = runner("wasm32", host_folder)
    path = linked(tmp_path, "wasm32", text, [f"{name}_to" for name in blobs], blobs)
    job = Job(4)
    rooms = {name: job.room(len(data)) for name, data in blobs.items()}
    for name, room in rooms.items():
        job.call(f"{name}_to", room)
    done = run(path, job)
    assert done.results == (0,) * len(blobs)
    assert {name: done.bytes_of(room) for name, room in rooms.items()} == blobs
    for other in FILES:
        image = linked(tmp_path, other, text, [f"{name}_to" for name in blobs], blobs).read_bytes()
        assert all(data in image for data in blobs.values()), other


def test_wide_products_on_wasm(tmp_path, host_folder):
    run = runner("wasm32", host_folder)
    text = """define void @wide(ptr %to, ptr %a, ptr %b) {
  %x = load i128, ptr %a, align 8
  %y = load i128, ptr %b, align 8
  %z = mul i128 %x, %y
  store i128 %z, ptr %to, align 8
  ret void
}
define i32 @times(ptr %to, ptr %a, ptr %b) {
  call void @wide(ptr %to, ptr %a, ptr %b)
  ret i32 0
}
"""
    path = linked(tmp_path, "wasm32", text, ["times"], {})
    edges = [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 2**64, 2**127, 2**128 - 1, 0x0123456789ABCDEFFEDCBA9876543210]
    pairs = [(a, b) for a in edges for b in edges]
    job = Job(4)
    rooms = [job.room(16) for _ in pairs]
    for room, (a, b) in zip(rooms, pairs):
        job.call("times", room, job.put(a.to_bytes(16, "little")), job.put(b.to_bytes(16, "little")))
    done = run(path, job)
    for room, (a, b) in zip(rooms, pairs):
        assert int.from_bytes(done.bytes_of(room), "little") == a * b % 2**128


LARGE_FRAME = """
define i32 @deep(ptr %out, i64 %n) {
  %room = alloca [300000 x i8], align 64
  %more = alloca i8, i64 %n, align 16
  store volatile i8 1, ptr %room
  store volatile i8 2, ptr %more
  %a = load volatile i8, ptr %room
  %b = load volatile i8, ptr %more
  %c = add i8 %a, %b
  store i8 %c, ptr %out
  ret i32 0
}
"""


@pytest.mark.slow
def test_large_frames_on_windows(tmp_path, host_folder):
    run = runner("windows", host_folder)
    path = linked(tmp_path, "x86-64-v2-windows", LARGE_FRAME, ["deep"], {})
    job = Job(8)
    rooms = [job.room(1) for _ in range(6)]
    for room, n in zip(rooms, (1, 4095, 4096, 4097, 8192, 400_000)):
        job.call("deep", room, n)
    done = run(path, job)
    assert [done.bytes_of(room) for room in rooms] == [b"\3"] * 6


def test_the_probe_for_arm_is_what_it_says(tmp_path):
    if shutil.which("llvm-objdump") is None:
        pytest.skip("no llvm-objdump here")
    (tmp_path / "a.obj").write_bytes(runtime_object(target("aarch64-windows")))
    said = subprocess.run(["llvm-objdump", "-d", "--no-show-raw-insn", "--disassemble-symbols=__chkstk",
                           str(tmp_path / "a.obj")], capture_output=True, text=True, check=True).stdout
    lines = [" ".join(line.split("//")[0].split()[1:]) for line in said.splitlines() if re.match(r" +[0-9a-f]+:", line)]
    assert [re.sub(r"0x[0-9a-f]+ <__chkstk\+(0x[0-9a-f]+)>", r"\1", line) for line in lines[:9]] == [
        "sub x16, sp, x15, lsl #4", "mov x17, sp", "sub x17, x17, #1, lsl #12", "cmp x17, x16", "b.ls 0x1c",
        "ldr xzr, [x17]", "b 0x8", "ldr xzr, [x16]", "ret"]


def test_what_cannot_be_linked_is_named(tmp_path):
    text = "declare i32 @elsewhere(i32)\ndefine i32 @f(i32 %x) {\n  %y = call i32 @elsewhere(i32 %x)\n  ret i32 %y\n}\n"
    for name in FILES:
        with pytest.raises(gc.Unsupported, match=r"calls elsewhere, which libraries .* \(stage: linking\)"):
            linked(tmp_path, name, text, ["f"], {})
    assert list(tmp_path.iterdir()) == []


# -- the command line --
def test_from_a_saved_graph(tmp_path, capsys):
    with gc.Graph():
        x = gc.placeholder("float64", ("n",), name="x")
        y = x * x
        gc.save_graph(tmp_path / "model.gcm", y, entries={"square": gc.signature([x], y, names=["y"])})
    assert main(["compile", str(tmp_path / "model.gcm"), "-o", str(tmp_path / "build"), "--target", "wasm32"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'build' / 'model.wasm'}\n"
    assert main(["inspect", str(tmp_path / "build" / "model.wasm")]) == 0
    assert "square(x: float64[n]) -> y: float64[n]" in capsys.readouterr().out


# -- what is refused --
@pytest.mark.parametrize("options, text", [
    ({"freestanding": False}, "freestanding=True leaves them out, and the caller keeps .* layer_w, layer_b"),
    ({"threads": 2}, "threads=2"),
    ({"weights": "file", "freestanding": False}, "weights='file' needs functions that read files"),
    ({"debug": True}, "have no lines for debuggers"),
    ({"linker": "cc"}, "linker='cc' makes ELF; files for wasm32 are linked by 'ziglang'")])
def test_what_these_systems_do_not_have(tmp_path, options, text):
    with pytest.raises(gc.GraphError, match=text):
        shipped(tmp_path, ["wasm32"], **options)
    assert list(tmp_path.iterdir()) == []


def test_one_file_is_for_one_system(tmp_path):
    with pytest.raises(gc.GraphError, match="of one architecture and system"):
        shipped(tmp_path, ["x86-64-v3", "x86-64-v2-windows"])


def test_without_ziglang_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(gc.GraphError, match=r"'aarch64-macos' needs the package ziglang: pip install graphc\[aot\]"):
        shipped(tmp_path, ["aarch64-macos"])


@pytest.mark.parametrize("name", ["wasm32", "x86-64-v2-windows", "x86-64-v2-macos"])
def test_a_session_does_not_run_such_code(name):
    with gc.Graph():
        x = gc.placeholder("float32", (3,), name="x")
        with gc.Session(target=name) as sess, pytest.raises(gc.GraphError, match=f"code for {name} cannot run here"):
            sess.function([x], x + 1)(np.ones(3, "f"))


def test_every_target_has_a_name_of_its_own():
    assert all(name == chosen.name for name, chosen in KNOWN.items())
    assert {chosen.object_format for chosen in KNOWN.values()} == set(formats.FORMATS)
