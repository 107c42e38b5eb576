"""One library with entries of every kind: the bits of a session, statuses for all that callers can get wrong, and a C
program that calls everything, alone, in two threads and after a fork, under the tools that watch memory."""

from __future__ import annotations

import ctypes
from itertools import product
import re
import shutil
import subprocess

import numpy as np
import pytest

from codegen.header import C_TYPES, STATUS
import graphc as gc
from graphc.entries import Entry
from graphc.ir.dims import evaluate
from graphc.ir.plan import Array
from graphc.ir.types import itemsize
from tests.elf_programs import child, runs_here

pytestmark = runs_here

NAME_OF = {value: name for name, value, _ in STATUS}
FEW = ("bfloat16", "bool", "uint64")
ALL = ("float64", "float32", "float16", *FEW, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
SIZES = (dict(n=5, m=3, batch=7), dict(n=0, m=0, batch=0), dict(n=1, m=1, batch=1), dict(n=33, m=17, batch=64))
LARGEST = 2**63 - 1


def everything(dtypes=FEW):
    """Predictions, gradients, two optimisers on one set of variables, Jacobians, all dtypes, odd shapes and names."""
    rng = np.random.default_rng(0)
    x, t = gc.placeholder("float32", ("batch", 4), name="x"), gc.placeholder("int32", ("batch",), name="t")
    w = gc.variable(rng.standard_normal((4, 3)).astype("f"), name="net/w é")
    b, scale = gc.variable(np.zeros(3, "f"), name="b"), gc.variable(np.ones(4, "f"), name="I")
    loss = gc.nn.softmax_cross_entropy((x * scale) @ w + b, t).mean()
    a, v = gc.placeholder("float64", (5,), name="a"), gc.placeholder("float64", (5,), name="v")
    f = gc.sin(a[1:] * a[:-1])
    p, q = gc.placeholder("float32", ("n", "m"), name="n"), gc.placeholder("float32", ("m", "n"), name="m")
    empty = gc.placeholder("float32", (0, "n"), name="empty")
    pairs, c = gc.placeholder("float32", ("n", 2), name="pairs"), gc.placeholder("float32", ("n",), name="class")
    many = [gc.placeholder("float32", ("n",), name=f"i{k}") for k in range(200)]
    found = {
        "predict": gc.signature([x], (x * scale) @ w + b),
        "gradients": gc.signature([x, t], [loss, *gc.gradients(loss, [w, b])]),
        "adam": gc.signature([x, t], [loss], updates=gc.optim.Adam(1e-2).minimize(loss, [w, b])),
        "sgd": gc.signature([x, t], [loss], updates=gc.optim.SGD(1e-2, momentum=0.9).minimize(loss, [w])),
        "dense": gc.signature([a], gc.jacobian(f, a)),
        "sparse": gc.signature([a], [gc.sparse_jacobian(f, a), gc.sparse_hessian(gc.sum(f ** 2), a)]),
        "hvp": gc.signature([a, v], gc.hvp(gc.sum(f ** 2), a, v)),
        "dims": gc.signature([p, q], [p @ q]), "swapped": gc.signature([q, p], [q @ p]),
        "empty": gc.signature([empty], [empty * 2, gc.sum(empty), gc.sum(empty, axis=0)]),
        "composite": gc.signature([pairs, c], [gc.concat([pairs.reshape(-1), c]), pairs.reshape(-1)[::2], c, c]),
        "many": gc.signature(many, [sum(many[1:], many[0]), *(i * 2 for i in many[:20])]),
        "variables": gc.signature([], [w, w, b]), "tick": gc.signature([], [], updates={b: b + 1})}
    for dtype in dtypes:
        y, s = gc.placeholder(dtype, ("n", 3), name=f"y_{dtype}"), gc.placeholder(dtype, (), name=f"s_{dtype}")
        found[f"of_{dtype}"] = gc.signature([y, s], [y, gc.where(y.astype("bool"), y, s), s])
    return found


def drawn(spec: Array, sizes, rng):
    shape = tuple(evaluate(size, sizes) for size in spec.shape)
    if spec.dtype in ("float16", "float32", "float64"):
        return (3 * rng.standard_normal(shape)).astype(spec.dtype)
    return rng.integers(0, 2 if spec.dtype == "bool" else 3, shape).astype(
        "float32" if spec.dtype == "bfloat16" else spec.dtype)


def made(folder, dtypes=FEW, **options):
    with gc.Graph():
        entries = everything(dtypes)
        with gc.Session(target="x86-64-v3", threads=1) as sess:
            return gc.compile_library(folder, "all", entries, session=sess, **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return made(tmp_path_factory.mktemp("all"))


@pytest.mark.parametrize("dtypes", [FEW, pytest.param(ALL, marks=pytest.mark.slow)], ids=["few", "all"])
def test_every_entry_has_the_bits_of_a_session(tmp_path, dtypes):
    rng = np.random.default_rng(1)
    with gc.Graph() as graph:
        entries = everything(dtypes)
        with gc.Session(target="x86-64-v3", threads=1) as sess:
            lib = gc.load_library(gc.compile_library(tmp_path, "all", entries, session=sess))
            for (name, what), sizes in product(entries.items(), SIZES):
                f = sess.function(what.inputs, list(what.outputs), updates=what.updates)
                arguments = [drawn(spec, sizes, rng) for spec in lib[name].spec.inputs]
                got, wanted = lib[name](*arguments), f(*arguments)
                for g, w in zip([got] if what.single else got, wanted, strict=True):
                    assert np.asarray(g).tobytes() == np.asarray(w).tobytes(), (name, sizes)
            for name, value in lib.state.items():
                assert value.tobytes() == sess.value(graph.variables[name]).tobytes(), name


# -- what callers can get wrong --
class Called:
    """An entry with arguments that are right, and can be spoilt one by one."""

    def __init__(self, entry: Entry, members: list[int]) -> None:
        self.entry, self.spec, self.members = entry, entry.spec, members
        self.arrays = [*self.spec.inputs, *self.spec.outputs]
        self.sizes = {symbol: 3 + k for k, symbol in enumerate(self.spec.symbols)}
        self.memory = [np.full(nbytes(a, self.sizes) + 128, 0xA5, np.uint8) for a in self.arrays]
        self.pointers = [m.ctypes.data + -m.ctypes.data % 64 for m in self.memory]
        for pointer, spec in zip(self.pointers, self.spec.inputs):
            ctypes.memset(pointer, 0, nbytes(spec, self.sizes))
        self.room = np.zeros(entry.workspace_size(*self.sizes.values()) + 128, np.uint8)
        self.workspace = self.room.ctypes.data + -self.room.ctypes.data % 64

    def __call__(self, *, dims=None, pointers=None, members=None, state=None, workspace=None) -> str:
        struct = (ctypes.c_void_p * max(1, len(self.members)))(*(members or self.members))
        last = [ctypes.addressof(struct) if state is None else state] if self.spec.state else []
        return NAME_OF[self.entry.entry(*(dims or self.sizes.values()), *(pointers or self.pointers), *last,
                                        self.workspace if workspace is None else workspace)]

    def spoilt(self):
        """(status, arguments) of all that can be wrong with one argument."""
        for k, spec in enumerate(self.arrays):
            if nbytes(spec, self.sizes):
                for status, pointer in wrong_pointers(self.pointers[k], itemsize(spec.dtype)):
                    yield status, {"pointers": replaced(self.pointers, k, pointer)}
        for k, value in product(range(len(self.sizes)), (-1, -3, -2**62, -2**63, 2**61 + 1, 2**62, LARGEST)):
            dims = replaced(list(self.sizes.values()), k, value)
            if value < 0 or any(nbytes(a, dict(zip(self.sizes, dims))) > LARGEST for a in self.arrays):
                yield "BAD_SIZE", {"dims": dims}
        if self.spec.state:
            yield "NULL_POINTER", {"state": 0}
            yield "MISALIGNED", {"state": self.workspace + 4}
            for k in self.spec.state:
                for status, pointer in wrong_pointers(self.members[k], 4):
                    yield status, {"members": replaced(self.members, k, pointer)}
        if self.entry.workspace_size(*self.sizes.values()):
            for status, pointer in wrong_pointers(self.workspace, 64):
                yield status, {"workspace": pointer}


def wrong_pointers(right: int, alignment: int):
    yield "NULL_POINTER", 0
    for offset in {1, alignment // 2, alignment - 1} - {0} if alignment > 1 else ():
        yield "MISALIGNED", right + offset


def replaced(items: list[int], k: int, value: int) -> list[int]:
    return [*items[:k], value, *items[k + 1:]]


def nbytes(spec: Array, sizes) -> int:
    total = itemsize(spec.dtype)
    for size in spec.shape:
        total *= evaluate(size, sizes)
    return total


def test_every_wrong_argument_of_every_entry_is_a_status(built):
    """NULL, misaligned, negative and overflowing, each alone; nothing is written then."""
    lib = gc.load_library(built)
    state = ctypes.c_void_p()
    assert lib.image.dll["all_new"](ctypes.byref(state)) == 0
    members = list(ctypes.cast(state, ctypes.POINTER(ctypes.c_void_p))[:len(lib.variables)])
    tried = 0
    for entry in lib.entries.values():
        called = Called(entry, members)
        before = [m.tobytes() for m in called.memory]
        for status, arguments in called.spoilt():
            assert called(**arguments) == status, (entry, arguments)
            tried += 1
            if "dims" in arguments:
                assert entry.workspace_size(*arguments["dims"]) == -1
        assert [m.tobytes() for m in called.memory] == before, entry
        assert called() == "OK"
    assert tried > 300


def test_sizes_that_contradict_one_another_are_a_status(tmp_path):
    """What the graph requires of symbols: equal ones, at least so much, a multiple; in outputs, updates and both."""
    with gc.Graph():
        x, y = gc.placeholder("float32", ("n",), name="x"), gc.placeholder("float32", ("m",), name="y")
        w = gc.variable(np.ones(3, "f"), name="w")
        lib = gc.load_library(gc.compile_library(tmp_path, "sizes", {
            "added": gc.signature([x, y], [x + y]), "fixed": gc.signature([x, y], [x + w, y]),
            "only": gc.signature([x, y], [], updates={w: w + x * gc.sum(y)}),
            "halves": gc.signature([x, y], [x.reshape(2, -1).sum(axis=0), gc.sum(y)]),
            "both": gc.signature([x, y], [gc.concat([x, y]) * gc.concat([y, x])], updates={w: w + gc.sum(x + y)})}))
    state = ctypes.c_void_p()
    assert lib.image.dll["sizes_new"](ctypes.byref(state)) == 0
    members = list(ctypes.cast(state, ctypes.POINTER(ctypes.c_void_p))[:1])
    good = {"added": lambda n, m: n == m, "fixed": lambda n, m: n == 3, "only": lambda n, m: n == 3,
            "halves": lambda n, m: n % 2 == 0, "both": lambda n, m: n == m}
    held = ctypes.string_at(members[0], 12)
    for (name, fits), n, m in product(good.items(), range(5), range(5)):
        called = Called(lib[name], members)
        called.memory = [np.zeros(64, np.float32) for _ in called.arrays]
        called.pointers = [a.ctypes.data for a in called.memory]
        called.room = np.zeros(1 << 14, np.uint8)  # enough for all of these sizes
        called.workspace = called.room.ctypes.data + -called.room.ctypes.data % 64
        dims = [{"n": n, "m": m}[symbol] for symbol in lib[name].spec.symbols]
        assert called(dims=dims) == ("OK" if fits(n, m) else "BAD_SIZE"), (name, n, m)
        assert (lib[name].workspace_size(*dims) >= 0) == fits(n, m)
        assert fits(n, m) or ctypes.string_at(members[0], 12) == held
        held = ctypes.string_at(members[0], 12)


# -- a C program that calls everything --
PROGRAM = r"""
#define _POSIX_C_SOURCE 200809L
#include "all.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *room(int64_t size)
{
    void *found = NULL;
    if (size < 0 || posix_memalign(&found, 64, (size_t)size + 1)) abort();
    return memset(found, 1, (size_t)size);
}

static void must(int32_t status, const char *entry)
{
    if (status == ALL_OK) return;
    fprintf(stderr, "%s: %s\n", entry, all_strerror(status));
    abort();
}

static void everything(struct all_state *state, int64_t n)
{
CALLS
}

static void *run(void *unused)
{
    struct all_state *state;
    must(all_new(&state), "new");
    for (int64_t n = 0; n < 20; n += 3) everything(state, n);
    all_free(state);
    return unused;
}

static int forked(void)
{
    int status = 1;
    const pid_t child = fork();
    if (child == 0) {
        run(NULL);
        _exit(0);
    }
    waitpid(child, &status, 0);
    return status;
}

int main(int argc, char **argv)
{
    pthread_t threads[2];
    (void)argv;
    if (argc > 1 && forked()) return 3;
    for (int k = 0; k < 2; k++) pthread_create(&threads[k], NULL, run, NULL);
    for (int k = 0; k < 2; k++) pthread_join(threads[k], NULL);
    if (argc > 1 && forked()) return 4;
    puts("good");
    return 0;
}
"""


def call_text(entry: Entry) -> str:
    """A block that calls the entry; every size is n."""
    spec, lines, names = entry.spec, [], []
    for k, array in enumerate((*spec.inputs, *spec.outputs)):
        sizes = [str(size).replace("//", "/") for size in array.shape]
        count = re.sub(r"\b[a-z]+\b", "n", " * ".join(["1", *(f"({size})" for size in sizes)]))
        lines.append(f"{C_TYPES[array.dtype]} *a{k} = room((int64_t)sizeof(*a{k}) * ({count}));")
        names.append(f"a{k}")
    if [a.name for a in spec.inputs] == ["x", "t"]:
        lines.append("for (int64_t k = 0; k < n; k++) a1[k] = (int32_t)(k % 3);")
    dims, name = ", ".join("n" for _ in spec.symbols), f"all_{spec.name}"
    lines.append(f"void *workspace = room({name}_workspace_size({dims}));")
    given = ", ".join([*("n" for _ in spec.symbols), *names, *(["state"] if spec.state else []), "workspace"])
    lines.append(f'must({name}({given}), "{spec.name}");')
    lines += [f"free({array});" for array in (*names, "workspace")]
    return "    {\n" + "".join(f"        {line}\n" for line in lines) + "    }"


def program(path, *flags):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = path.parent
    calls = "\n".join(map(call_text, gc.load_library(path).entries.values()))
    (folder / "main.c").write_text(PROGRAM.replace("CALLS", calls))
    done = subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror",
                           *flags, "main.c", "-L.", "-lall", "-lpthread", "-Wl,-rpath,.", "-o", "main"], cwd=folder,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run(folder, *command):
    if command[0] != "./main" and shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert (done.returncode, done.stdout) == (0, "good\n") and not done.stderr, (done.returncode, done.stderr)


def test_a_c_program_calls_everything(built):
    run(program(built, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"), "./main")
    run(program(built), "./main", "fork")


def test_the_header_is_cpp_without_a_warning(built):
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    source = '#include <complex>\n#include "all.h"\nint main() { return all_check_cpu(); }\n'
    (built.parent / "main.cpp").write_text(source)
    done = subprocess.run(["c++", "-std=c++17", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow",
                           "-Wold-style-cast", "-Werror", "-fsyntax-only", "main.cpp"], cwd=built.parent,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tool", [["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"],
                                  ["valgrind", "-q", "--error-exitcode=9", "--tool=helgrind"], []],
                         ids=["memcheck", "helgrind", "alone"])
def test_everything_under_the_tools(tmp_path, tool, threads):
    if threads == 2 and "--tool=helgrind" in tool:
        pytest.skip("the pool's threads meet by atomics and futexes, which helgrind does not know")
    folder = program(made(tmp_path, ALL, threads=threads))
    run(folder, *tool, "./main", *([] if tool else ["fork"]))


# -- loading and unloading --
OPENED = """
import _ctypes
path, other = sys.argv[1:]
def used():
    return int(open("/proc/self/statm").read().split()[1]), len(open("/proc/self/maps").readlines())
for k in range(1010):
    lib = CDLL(path)
    state = c_void_p()
    assert lib.all_check_cpu() == 0 and lib.all_new(byref(state)) == 0
    lib.all_free(state)
    _ctypes.dlclose(lib._handle)
    if k == 9:
        before = used()
pages, maps = (b - a for a, b in zip(before, used()))
assert pages < 256 and maps <= 2, (pages, maps)
a, b = CDLL(path, mode=RTLD_GLOBAL | os.RTLD_NOW), CDLL(other, mode=RTLD_GLOBAL | os.RTLD_NOW)
x, one, two = (c_float * 4)(1, 2, 3, 4), (c_float * 3)(), (c_float * 3)()
room = create_string_buffer(1 << 16)
start = addressof(room) + -addressof(room) % 64
for lib, name, out in ((a, "all", one), (b, "other", two)):
    state = c_void_p()
    assert lib[f"{name}_new"](byref(state)) == 0
    assert lib[f"{name}_predict"](c_int64(1), x, out, state, c_void_p(start)) == 0
print([v * 2 for v in one] == list(two) != [0] * 3)
"""


def test_a_library_is_unloaded_and_lives_beside_another(built, tmp_path):
    """A thousand times without growth; and two with equal kernels, one loaded over the other's names."""
    with gc.Graph():
        x = gc.placeholder("float32", ("batch", 4), name="x")
        w = gc.variable(2 * np.random.default_rng(0).standard_normal((4, 3)).astype("f"), name="w")
        b, scale = gc.variable(np.zeros(3, "f"), name="b"), gc.constant(np.ones(4, "f"))
        with gc.Session(target="x86-64-v3") as sess:
            other = gc.compile_library(tmp_path, "other", {
                "predict": gc.signature([x], (x * scale) @ w + b),
                "tick": gc.signature([], [], updates={w: w + 1, b: b + 1})}, session=sess)
    assert child(OPENED, built, other) == "True\n"
