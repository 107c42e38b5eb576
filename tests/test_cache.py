"""The cache on disk: by content, shared by processes, limited in size, and never a reason to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

from codegen import fingerprint
from codegen.cache import MARK, Cache
from codegen.fingerprint import llvm_build, processor, sources
from codegen.jit import object_of
from codegen.target import identity, target
import graphc as gc
from graphc import derivatives
from graphc.config import Options
from graphc.ir.node import make
from graphc.ir.reference import evaluate
from graphc.plans import SILENT, Key, exact, key_of, stored
from graphc.session import update_pairs
import numpy as np
from passes.lower import Request
import pytest

TEXT = "define i64 @f(i64 %x) {\n  %y = mul i64 %x, 3\n  ret i64 %y\n}\n"
KEYS = [f"{k:08x}{'0' * 56}" for k in range(1, 9)]  # none that makes the cache look for room by chance
PROGRAM = """
import sys, numpy as np, graphc as gc
from codegen import jit
x = gc.placeholder("float32", ("n", 8), name="x")
w = gc.variable(np.ones((8, 40), "float32"), name="w")
c = gc.constant(np.arange(40, dtype="float32"))
y = gc.sum(gc.tanh(x @ w) * c)
compiled = []
real = jit.compile_text
jit.compile_text = lambda *a: compiled.append(1) or real(*a)
with gc.Session() as sess:
    f = sess.function([x], y, updates={w: w * 0.5})
    values = [float(f(np.ones((3, 8), "float32"))) for _ in range(3)]
slow = sorted({"llvmlite", "sympy", "networkx", "numpy.ma"} & sys.modules.keys())
print(values, len(compiled), *slow, sep=";")
"""


def run(folder: Path | str, seed: int = 0, program: str = PROGRAM, **environment: str) -> list[str]:
    """What the program prints in a process of its own."""
    env = {**os.environ, "GRAPHC_CACHE_DIR": str(folder), "PYTHONHASHSEED": str(seed), **environment}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split(";")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder that the program has filled, and what it printed."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, run(folder)


# -- warm starts --
def test_second_process_compiles_nothing_and_never_starts_llvm(first: tuple[Path, list[str]]) -> None:
    folder, cold = first
    assert int(cold[1]) >= 2 and cold[2:] == ["llvmlite"]  # the function, its call from Python, what those share
    assert run(folder, seed=1) == [cold[0], "0"]


def test_threads_start_from_the_cache_too(tmp_path: Path) -> None:
    program = PROGRAM.replace('("n", 8)', '("n", 8, 1)').replace("x @ w", "x + w").replace(
        "(3, 8)", "(4000, 8, 1)")
    cold, warm = (run(tmp_path, program=program, GRAPHC_THREADS="2") for _ in range(2))
    assert cold[2:] == ["llvmlite"] and int(cold[1]) >= 3  # with the pool
    assert warm == [cold[0], "0"]


def test_another_build_or_another_source_is_another_key(first: tuple[Path, list[str]]) -> None:
    folder, cold = first
    changed = "from codegen import fingerprint\nfingerprint.sources = lambda: 'other'\n" + PROGRAM
    assert run(folder, program=changed) == [cold[0], "1", "llvmlite"]  # the text is the same, so is its code


@pytest.mark.parametrize("damage", [
    lambda data: data[:-7], lambda data: data[:10], lambda data: b"", lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    lambda data: data[:40] + bytes([data[40] ^ 255]) + data[41:], lambda data: b"x" * len(data)])
def test_damaged_files_count_as_absent(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with gc.Graph():
        x = gc.placeholder("float32", (5,), name="x")
        results = []
        for _ in range(3):
            with gc.Session(cache_dir=str(tmp_path)) as session:
                f = session.function([x], gc.exp(x) + gc.constant(np.linspace(0, 1, 5)))
                results += [f(np.arange(5, dtype="float32")) for _ in range(2)]
            files = [path for path in tmp_path.iterdir() if path.suffix in (".o", ".plan")]
            assert len(files) in (3, 4)  # the fourth is what all calls share, if this process had none yet
            for path in files:
                path.write_bytes(damage(path.read_bytes()))
    assert len({r.tobytes() for r in results}) == 1


def test_a_plan_without_its_code_is_compiled_again(tmp_path: Path) -> None:
    with gc.Graph():
        x = gc.placeholder("float32", (5,), name="x")
        for _ in range(2):
            with gc.Session(cache_dir=str(tmp_path)) as session:
                assert session.function([x], x * 3)(np.ones(5, "float32")).tolist() == [3] * 5
            for path in tmp_path.glob("*-image.o"):
                path.unlink()


@pytest.mark.slow
def test_many_processes_at_once(tmp_path: Path) -> None:
    env = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path), "GRAPHC_CACHE": "20KB"}  # hardly room for all files
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=env)
               for _ in range(6)]
    outputs = [process.communicate()[0].split(";")[0] for process in running]
    assert [process.returncode for process in running] == [0] * 6
    assert len(set(outputs)) == 1


# -- keys of requests --
def request(outputs: Sequence[Any], inputs: Sequence[Any] = (), updates: Any = None, name: str = "main") -> Request:
    return Request(name, tuple(inputs), tuple(outputs), tuple(update_pairs(updates)))


def name_of(*outputs: Any, inputs: Sequence[Any] = (), **options: Any) -> str:
    key = key_of(request(outputs, inputs), Options.of(**options))
    assert key is not None
    return key.name


def variants() -> Iterator[Any]:
    """Graphs of which no two are the same, though some are equal numbers."""
    x = gc.placeholder("float32", (2, 3), name="x")
    y = gc.placeholder("float32", (2, 3), name="y")
    n = gc.placeholder("float32", ("n", 3), name="n")
    m = gc.placeholder("float32", ("m", 3), name="m")
    p = gc.placeholder("float32", ("nm", 3), name="p")
    q = gc.placeholder("float32", (gc.Dim.symbol("n") * gc.Dim.symbol("m"), 3), name="q")
    w = gc.variable(np.zeros((2, 3), "float32"), name="w")
    yield from ([x], [y], [w], [n], [m], [p], [q])
    yield from ([x + y], [y + x], [x - y], [y - x], [x + x], [x + y, x + y], [x, y], [y, x])
    for value in (0.0, -0.0, 1.0, np.nan, np.float32(np.inf), np.nextafter(np.float32(1), np.float32(2))):
        yield [gc.constant(value, "float32")]
    payload = np.array([0x7FC00001], "uint32").view("float32")
    yield [gc.constant(payload)]
    for dtype in ("float64", "float16", "bfloat16", "int32", "uint32", "bool", "int64", "uint8"):
        yield [gc.constant(1, dtype)]
    yield from ([gc.constant([1.0, 2.0])], [gc.constant([[1.0, 2.0]])], [gc.constant([[1.0], [2.0]])])
    yield from ([gc.sum(x, axis=0)], [gc.sum(x, axis=1)], [gc.max(x, axis=0)], [gc.argmax(x, axis=0)])
    yield from ([gc.cumsum(x, axis=1)], [gc.transpose(x)], [gc.reshape(x, (3, 2))], [x[0]], [x[1]], [x[:, ::-1]])
    yield from ([gc.pad(x, 1)], [gc.pad(x, 1, constant_values=2.0)], [gc.polygamma(1, x)], [gc.polygamma(2, x)])
    yield from ([gc.elementwise(lambda m, a: m.exp(a) * 2)(x)], [gc.elementwise(lambda m, a: m.exp(a) * 3)(x)])


def test_requests_that_differ_have_different_keys() -> None:
    with gc.Graph():
        made = list(variants())
    names = [name_of(*outputs) for outputs in made]
    assert len(set(names)) == len(names), [made[k] for k in range(len(made)) if names.count(names[k]) > 1]


def test_inputs_updates_and_names_are_part_of_the_key() -> None:
    with gc.Graph():
        x, y = (gc.placeholder("float32", (3,), name=name) for name in "xy")
        v, w = (gc.variable(np.zeros(3, "float32"), name=name) for name in "vw")
        options = Options.of()
        requests = [request([x + y], [x, y]), request([x + y], [y, x]), request([x + y], [x, y], name="other"),
                    request([x + y], [x, y], {w: x}), request([x + y], [x, y], {v: x}),
                    request([x + y], [x, y], {w: x, v: y}), request([x + y], [x, y], {v: y, w: x}),
                    request([x + y, x], [x, y]), request([x + y], [x, y], {w: x + y}),
                    replace(request([x + y], [x, y], {w: x, v: y}), state=(w, v))]
        keys = [key_of(r, options) for r in requests]
    assert len({key.name for key in keys if key is not None}) == len(requests)


def test_equal_graphs_have_equal_keys_wherever_they_stand() -> None:
    def build(extra: int) -> str:
        with gc.Graph():
            for k in range(extra):
                gc.constant(k)
            x = gc.placeholder("float32", ("n", 3), name="x")
            return name_of(gc.nn.softmax(x * 2.5), inputs=[x])

    assert build(0) == build(10)


def test_every_option_that_changes_code_is_part_of_the_key() -> None:
    with gc.Graph():
        x = gc.placeholder("float32", (3,), name="x")
        same = {name_of(x, verify=value) for value in (True, False)}
        same |= {name_of(x, check_numerics=True), name_of(x, threads=2)}
        assert len(same) == 1
        assert len({*same, name_of(x, fast_math=True), name_of(x, exact=True), name_of(x, target="x86-64-v2"),
                    name_of(x, target="x86-64-v3")}) == 5
        assert {f.name for f in fields(Options)} - SILENT >= {"target", "fast_math", "exact"}
        for watched in ({"time": True}, {"rules": True}, {"dump": "all"}, {"dump_dir": "/tmp"}, {"stop_after": "x"}):
            assert key_of(request([x]), Options.of(**watched)) is None


def test_attributes_of_an_unknown_kind_are_not_cached() -> None:
    for value in (object(), np.float32(1), {1: 2}, [1, (2, object())]):
        with pytest.raises(TypeError):
            exact(value)
    assert exact((1, 2)) != exact([1, 2]) and exact(1) != exact(1.0) and repr(exact(True)) != repr(exact(1))
    with gc.Graph():
        x = gc.placeholder("float32", (3,), name="x")
        odd = make("iota", graph=x.graph, dtype="float32", shape=(3,), axis=np.int64(0))
        assert key_of(request([odd]), Options.of()) is None
        with gc.Session() as session:
            assert session.run(x + odd, {x: np.zeros(3)}).tolist() == [0, 1, 2]


def test_messages_name_the_lines_of_this_process(tmp_path: Path) -> None:
    """The plan of a function whose errors quote the user's lines is only good where they are the same."""
    def faults(shift: int) -> list[str]:
        source = "\n" * shift + "x = gc.placeholder('float32', (4, 3), name='x')\n" \
            "k = gc.placeholder('int64', ('k',), name='k')\n\ny = x[k]\n"
        space: dict[str, Any] = {"gc": gc}
        with gc.Graph():
            exec(compile(source, "model.py", "exec"), space)
            with gc.Session(cache_dir=str(tmp_path)) as session, pytest.raises(gc.GraphError) as caught:
                session.function([space["x"], space["k"]], space["y"])(np.ones((4, 3), "float32"), np.array([9]))
        return str(caught.value).splitlines()

    for shift in (0, 5, 5, 0):
        assert f"at model.py:{4 + shift}" in faults(shift)[1]


def test_constants_of_the_user_are_not_stored_again(tmp_path: Path) -> None:
    data = np.random.default_rng(0).standard_normal(100_000)
    with gc.Graph():
        x = gc.placeholder("float64", (100_000,), name="x")
        for scale in (1.0, 2.0, 1.0):
            with gc.Session(cache_dir=str(tmp_path)) as session:
                folded = gc.flip(gc.constant(data[:20]))
                made = session.run([x * gc.constant(data * scale), folded], {x: np.ones(100_000)})
            np.testing.assert_array_equal(made[0], data * scale)
            np.testing.assert_array_equal(made[1], data[19::-1])
    assert all(path.stat().st_size < data.nbytes for path in tmp_path.glob("*.plan"))


def test_what_a_function_says_is_the_same_from_the_cache(tmp_path: Path) -> None:
    with gc.Graph():
        x = gc.placeholder("bfloat16", ("n", gc.Dim.symbol("n") // 2 + 1), name="x")
        y = gc.placeholder("bool", ("n",), name="y")
        w = gc.variable(np.ones(3, "int16"), name="w")
        made = []
        for _ in range(2):
            with gc.Session(cache_dir=str(tmp_path)) as session:
                made.append(session.function([x, y], [gc.sum(x), gc.any(y)], updates={w: w + 1}))
        assert made[0].border == made[1].border
        assert gc.dump(made[0]) == gc.dump(made[1])  # made again from the graph


def test_plans_are_read_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 20)
    assert stored(cache, Key(KEYS[0], "", ())) is None


# -- files --
def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 30)
    for k, key in enumerate(KEYS[:5]):
        cache.put("code", key, b"x" * 1000)
        os.utime(cache.path("code", key), (k, k))
    assert cache.get("code", KEYS[0]) is not None  # it is the newest now
    cache.limit = 4500
    cache.put("code", KEYS[5], b"x" * 1000)
    left = {path.stem for _, _, path in cache.files()}
    assert left == {KEYS[0], KEYS[4], KEYS[5]}
    assert cache.clear() == 3 and cache.files() == []


def test_what_would_fill_the_folder_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.put("code", KEYS[0], b"x" * 600)
    assert cache.files() == []


def test_half_written_files_of_dead_processes_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 20)
    old, new = tmp_path / ".graphc-1.tmp", tmp_path / ".graphc-2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 1e5,) * 2)
    cache.trim()
    assert not old.exists() and new.exists()


def test_unwritable_cache_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = Cache(blocked / "inside", 1 << 20)
    assert object_of(TEXT, target(), cache) == object_of(TEXT, target(), cache)
    assert cache.files() == [] and cache.counts() == (0, 0) and cache.clear() == 0
    with gc.Graph(), gc.Session(cache_dir=str(blocked / "inside")) as session:
        x = gc.placeholder("float32", (3,), name="x")
        assert session.run(x + 1, {x: np.zeros(3)}).tolist() == [1, 1, 1]


def test_a_cache_that_is_off_keeps_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 0)
    cache.put("code", KEYS[0], b"x")
    assert cache.get("code", KEYS[0]) is None and not (tmp_path / "cache").exists()


def test_counts(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 20)
    for _ in range(3):
        assert cache.made("code", KEYS[0], lambda: b"made") == b"made"
    assert cache.counts() == (2, 1)
    assert (tmp_path / (KEYS[0] + ".o")).read_bytes().startswith(MARK)


# -- what code depends on --
CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model name\t: Some CPU
cpu MHz\t\t: {clock}
flags\t\t: fpu {flags}
core id\t\t: {core}

processor\t: 1
flags\t\t: fpu other
"""


def test_the_processor_is_known_by_its_flags(tmp_path: Path) -> None:
    def told(name: str, **parts: object) -> str | None:
        path = tmp_path / name
        path.write_text(CPUINFO.format(**{"clock": 1000, "flags": "avx2", "core": 0, **parts}))
        return processor(path)

    assert told("a") == told("b", clock=2000, core=5)
    assert told("a") != told("c", flags="avx2 avx512f")
    assert processor(tmp_path / "missing") is None
    (tmp_path / "silent").write_text("processor : 0\n")
    assert processor(tmp_path / "silent") is None


def test_llvm_tells_the_processor_where_the_system_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.target.processor", lambda: None)
    assert identity("native") == str(target("native"))
    assert identity("x86-64-v3") != identity("x86-64-v2")


def test_every_source_file_counts(tmp_path: Path) -> None:
    for name in fingerprint.PACKAGES:
        (tmp_path / name / "part").mkdir(parents=True)
        (tmp_path / name / "part" / "a.py").write_text("x = 1")
    seen = {sources(tmp_path)}
    (tmp_path / "passes" / "part" / "a.py").write_text("x = 2")
    seen.add(sources(tmp_path))
    (tmp_path / "codegen" / "part" / "b.py").write_text("")
    seen.add(sources(tmp_path))
    (tmp_path / "codegen" / "part" / "a.py").rename(tmp_path / "codegen" / "a.py")
    seen.add(sources(tmp_path))
    assert len(seen) == 4
    (tmp_path / "graphc" / "__pycache__").mkdir()
    (tmp_path / "graphc" / "__pycache__" / "a.py").write_text("")
    (tmp_path / "graphc" / "notes.txt").write_text("")
    assert sources(tmp_path) in seen
    assert len(llvm_build()) > 10


# -- orders of Jacobians --
def rotated(scale: float) -> tuple[gc.Node, gc.Node]:
    """Scalar code that is long enough to be searched."""
    x = gc.placeholder("float64", (4,), name="x")
    a, b = x[0], x[1]
    for k in range(6):
        c, s = gc.cos(x[k % 4] + k), gc.sin(x[k % 4] + k)
        a, b = c * a - s * b, scale * (s * a + c * b)
    return gc.stack([a, b]), x


def test_orders_are_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    searched: list[int] = []
    real = derivatives.jacobians
    monkeypatch.setattr(derivatives, "jacobians", lambda *a, **named: searched.append(1) or real(*a, **named))

    def found(scale: float, order: str = "auto") -> tuple[Any, int]:
        searched.clear()
        with gc.Graph():
            y, x = rotated(scale)
            matrix = gc.jacobian(y, x, order)
            return evaluate([matrix], {x: np.array([0.3, -1.2, 2.0, 0.7])}, {})[0], len(searched)

    expected = found(1.5, "forward")[0]
    for scale, searches in ((1.5, 1), (1.5, 0), (2.5, 1), (1.5, 0)):
        value, count = found(scale)
        assert count == searches
        if scale == 1.5:
            np.testing.assert_allclose(value, expected, rtol=1e-12)
    files = list(tmp_path.glob("*.order"))
    assert len(files) == 2
    for path in files:
        path.write_bytes(path.read_bytes()[:-3])
    assert found(1.5)[1] == 1
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert found(1.5)[1] == 1


def test_orders_are_the_same_in_other_processes(tmp_path: Path) -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import graphc as gc
from graphc import derivatives
from test_cache import rotated
calls = []
real = derivatives.jacobians
derivatives.jacobians = lambda *a, **named: calls.append(1) or real(*a, **named)
y, x = rotated(1.5)
gc.jacobian(y, x)
print(len(calls))
"""
    counts = []
    for seed in "12":  # sets of strings come in another order
        command = [sys.executable, "-c", program, str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=True,
                              env={**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": seed})
        counts.append(int(done.stdout))
    assert counts == [1, 0]
