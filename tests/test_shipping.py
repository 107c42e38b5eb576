"""What a library does where it is shipped to: states of its own, their files, processors that fit and that do not."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
import shutil
import subprocess

import numpy as np
import pytest

from codegen.cpu import BITS, LEVELS, needed_features
from codegen.header import STATUS
from codegen.state import header_of, layout, sums_of
from codegen.target import target
import graphc as gc
from graphc.ir.plan import Array
from tests.elf_programs import child, runs_here
from tests.test_library import model

CODE = {name: value for name, value, _ in STATUS}
pytestmark = runs_here


def library(folder: Path, name: str = "tiny", **options: object) -> Path:
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            return gc.compile_library(folder, name, entries, session=sess, **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return library(tmp_path_factory.mktemp("shipping"), targets=["x86-64-v4", "x86-64-v3"])


@pytest.fixture
def compiled(built, tmp_path):
    """Compiles a C program against the library; the result runs in its folder."""
    def build(source: str, *flags: str) -> Path:
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        (tmp_path / "main.c").write_text(source)
        done = subprocess.run(["cc", "-std=c99", "-D_POSIX_C_SOURCE=200112L", "-Wall", "-Wextra", "-pedantic",
                               "-Werror", "-g", *flags, "-I", str(built.parent), str(tmp_path / "main.c"), "-o",
                               str(tmp_path / "main"), "-L", str(built.parent), "-ltiny", "-lpthread",
                               f"-Wl,-rpath,{built.parent}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return tmp_path / "main"
    return build


def run(program: Path, *before: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    if before and shutil.which(before[0]) is None:
        pytest.skip(f"no {before[0]} here")
    return subprocess.run([*before, str(program)], capture_output=True, text=True, check=False, timeout=120,
                          cwd=program.parent, env=env)


# -- states --
STATES = r"""
#include "tiny.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { int32_t status = (call); if (status) { \
    printf("%s: %s\n", #call, tiny_strerror(status)); return 1; } } while (0)

int main(void)
{
    struct tiny_state *a, *b;
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, t[6] = {0}, first, again;
    void *workspace = NULL;
    int64_t size = tiny_step_workspace_size(2);
    if (size < 0 || posix_memalign(&workspace, 64, (size_t)size + 64)) return 2;
    TRY(tiny_new(&a));
    TRY(tiny_new(&b));
    if (((size_t)a->layer_w & 63) || ((size_t)a->layer_b & 63)) return 3;
    for (int k = 0; k < 5; k++) TRY(tiny_step(2, x, t, &first, a, workspace));
    TRY(tiny_save(a, "state.safetensors"));
    TRY(tiny_load(b, "state.safetensors"));
    TRY(tiny_step(2, x, t, &first, a, workspace));
    TRY(tiny_step(2, x, t, &again, b, workspace));
    if (memcmp(&first, &again, sizeof first)) return 4;
    TRY(tiny_copy(b, a));
    TRY(tiny_copy(b, b));
    if (memcmp(a->layer_w, b->layer_w, 48)) return 5;
    tiny_free(b);
    TRY(tiny_save(a, "state.safetensors"));
    TRY(tiny_map(&b, "state.safetensors"));
    TRY(tiny_step(2, x, t, &first, a, workspace));
    TRY(tiny_step(2, x, t, &again, b, workspace));
    if (memcmp(&first, &again, sizeof first) || memcmp(a->layer_w, b->layer_w, 48)) return 9;
    if (tiny_map(&b, "main.c") != TINY_BAD_FILE || tiny_map(&b, "nowhere/x") != TINY_FILE) return 10;
    if (tiny_load(b, "nowhere/x") != TINY_FILE || tiny_save(b, "nowhere/x") != TINY_FILE) return 6;
    if (tiny_load(b, "main.c") != TINY_BAD_FILE || tiny_load(b, ".") == TINY_OK) return 7;
    if (tiny_new(NULL) != TINY_NULL_POINTER || tiny_load(NULL, "x") != TINY_NULL_POINTER
        || tiny_save(a, NULL) != TINY_NULL_POINTER) return 8;
    tiny_free(a);
    tiny_free(b);
    tiny_free(NULL);
    free(workspace);
    printf("%.9g\n", (double)again);
    return 0;
}
"""


def test_states_from_c(compiled):
    done = run(compiled(STATES))
    assert done.returncode == 0, (done.returncode, done.stdout)
    assert not (compiled(STATES).parent / "state.safetensors.part").exists()


def test_states_under_valgrind(compiled):
    """Valgrind's processor has no AVX-512: the second target of the library runs."""
    done = run(compiled(STATES), "valgrind", "-q", "--error-exitcode=99", "--leak-check=full")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_states_under_the_address_sanitizer(compiled):
    program = compiled(STATES, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    done = run(program)
    assert done.returncode == 0 and not done.stderr, done.stderr


THREADS = r"""
#include "tiny.h"
#include <pthread.h>
#include <stdlib.h>

static void *train(void *unused)
{
    struct tiny_state *state;
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, t[6] = {0}, loss;
    void *workspace = NULL;
    (void)unused;
    if (tiny_new(&state) || posix_memalign(&workspace, 64, (size_t)tiny_step_workspace_size(2) + 64)) abort();
    for (int k = 0; k < 200; k++) if (tiny_step(2, x, t, &loss, state, workspace)) abort();
    tiny_free(state);
    free(workspace);
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    for (int k = 0; k < 2; k++) if (pthread_create(&threads[k], NULL, train, NULL)) return 1;
    for (int k = 0; k < 2; k++) pthread_join(threads[k], NULL);
    return 0;
}
"""


@pytest.mark.slow
def test_two_states_in_two_threads_under_helgrind(compiled):
    done = run(compiled(THREADS), "valgrind", "--tool=helgrind", "-q", "--error-exitcode=99")
    assert done.returncode == 0, done.stderr


# -- files of states --
def test_files_are_safetensors(built, tmp_path):
    lib = gc.load_library(built)
    lib.save_state(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    assert (8 + length) % 64 == 0
    body = data[8 + length:]
    assert header["__metadata__"]["sums"] == "".join(f"{s:016x}" for s in sums_of(body))
    for name, value in lib.state.items():
        begin, end = header[name]["data_offsets"]
        assert header[name] == {"dtype": "F32", "shape": list(value.shape), "data_offsets": [begin, end]}
        assert body[begin:end] == value.tobytes()


def test_a_state_comes_back(built, tmp_path):
    lib, other = gc.load_library(built), gc.load_library(built)
    x, t = np.ones((3, 4), "f"), np.zeros((3, 3), "f")
    for _ in range(3):
        lib.step(x, t)
    lib.save_state(tmp_path / "s")
    other.load_state(tmp_path / "s")
    assert {k: v.tobytes() for k, v in lib.state.items()} == {k: v.tobytes() for k, v in other.state.items()}
    with pytest.raises(gc.GraphError, match="cannot be opened"):
        lib.load_state(tmp_path / "nowhere")
    (tmp_path / "s").write_bytes(b"no state")
    with pytest.raises(gc.GraphError, match="damaged, cut off"):
        lib.load_state(tmp_path / "s")


MUTATED = """
import random
import numpy as np
lib = CDLL(sys.argv[1])
random.seed(int(sys.argv[3]))
state = c_void_p()
assert lib.tiny_new(byref(state)) == 0
path = os.path.join(sys.argv[4], "s")
assert lib.tiny_save(state, path.encode()) == 0
right = open(path, "rb").read()
members = cast(state, POINTER(c_void_p))
held = lambda: string_at(members[0], 48) + string_at(members[1], 12)
before = held()
refused = 0
for k in range(int(sys.argv[2])):
    data = bytearray(right)
    kind = random.randrange(5)
    if kind == 0:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif kind == 1:
        del data[random.randrange(len(data)):]
    elif kind == 2:
        data += bytes(random.randrange(1, 100))
    elif kind == 3:
        at = random.randrange(len(data) - 8)
        data[at:at + 8] = random.randbytes(8)
    else:
        at, other = random.randrange(len(data)), random.randrange(len(data))
        data[at], data[other] = data[other], data[at]
    with open(path, "wb") as file:
        file.write(data)
    status = lib.tiny_load(state, path.encode())
    assert status == (0 if data == right else 8), (status, k)
    assert held() == before, k
    refused += status != 0
print(refused > int(sys.argv[2]) // 2)
"""


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_refused(built, tmp_path, count):
    assert child(MUTATED, built, count, 1, tmp_path) == "True\n"


def test_files_of_other_variables_are_refused(built, tmp_path):
    other = library(tmp_path, "other")
    gc.load_library(other).save_state(tmp_path / "s")
    with pytest.raises(gc.GraphError, match="not of this library's variables"):
        gc.load_library(built).load_state(tmp_path / "s")


def test_every_dtype_has_a_place_in_files():
    dtypes = ("bool", "float64", "bfloat16", "uint8", "int32")
    places = layout("p", [Array(f"v{k}", dtype, (k + 1, 3)) for k, dtype in enumerate(dtypes)])
    assert places.in_file == (126, 0, 108, 129, 48)  # widest first
    assert places.data == 144 and places.block % 64 == 0 and len(places.header) % 64 == 0
    text = json.loads(places.header[8:])
    assert text["v0"] == {"dtype": "BOOL", "shape": [1, 3], "data_offsets": [126, 129]}
    assert text["__padding__"]["data_offsets"] == [141, 144]


def test_a_name_that_files_use_is_refused():
    with pytest.raises(gc.GraphError, match="cannot be named '__metadata__'"):
        header_of("p", [Array("__metadata__", "float32", ())], [0], [4], 4)


# -- processors --
ASK = r"""
#include "tiny.h"
#include <stdio.h>

int main(void)
{
    float x[4] = {0}, y[3], w[12] = {0}, b[3] = {0};
    struct tiny_state state = {w, b};
    static char room[1 << 16];
    void *workspace = room + (64 - (size_t)room % 64);
    printf("%d %d %lld\n", (int)tiny_check_cpu(), (int)tiny_predict(1, x, y, &state, workspace),
           (long long)tiny_predict_workspace_size(1));
    return 0;
}
"""


def test_a_processor_that_does_not_fit_gets_a_status(tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    library(tmp_path, target="x86-64-v4")
    (tmp_path / "main.c").write_text(ASK)
    subprocess.run(["cc", "main.c", "-L.", "-ltiny", "-Wl,-rpath,.", "-o", "main"], check=True, cwd=tmp_path)
    done = run(tmp_path / "main", "valgrind", "-q")
    assert done.stdout == f"{CODE['CPU']} {CODE['CPU']} -1\n" and done.returncode == 0


MANY = r"""
#include "many.h"

int main(void)
{
    double x[5][8], y[5][8];
    for (int i = 0; i < 5; i++) for (int k = 0; k < 8; k++) x[i][k] = k + 0.5 * i;
    if (many_all_workspace_size(1, 2, 3, 4, 5) != 0 || many_all_workspace_size(1, 2, 3, 4, -5) != -1) return 2;
    if (many_all(1, 2, 3, 4, 5, x[0], x[1], x[2], x[3], x[4], y[0], y[1], y[2], y[3], y[4], 0)) return 3;
    for (int i = 0; i < 5; i++) for (int k = 0; k <= i; k++) if (y[i][k] != x[i][k] * (i + 1)) return 4;
    return 0;
}
"""


@pytest.mark.parametrize("before", [(), ("valgrind", "-q"), ("qemu-x86_64-static", "-cpu", "Nehalem")],
                         ids=["first", "second", "third"])
def test_more_arguments_than_registers_go_on_to_the_variant_that_fits(tmp_path, before):
    """Here the first is chosen where the processor is new; valgrind's has no AVX-512, and a Nehalem no AVX."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with gc.Graph():
        inputs = [gc.placeholder("float64", (f"n{k}",), name=f"x{k}") for k in range(5)]
        entry = gc.signature(inputs, [x * (k + 1) for k, x in enumerate(inputs)])
        gc.compile_library(tmp_path, "many", {"all": entry}, targets=["x86-64-v4", "x86-64-v3", "x86-64-v2"])
    (tmp_path / "main.c").write_text(MANY)
    subprocess.run(["cc", "main.c", "-L.", "-lmany", "-Wl,-rpath,.", "-o", "main"], check=True, cwd=tmp_path)
    assert run(tmp_path / "main", *before).returncode == 0


def test_targets_are_said_and_checked(built, tmp_path):
    dll = ctypes.CDLL(str(built))
    about = json.loads(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(dll, "tiny_metadata"))))["targets"]
    assert [t["name"] for t in about] == ["x86-64-v4", "x86-64-v3"] and about[1]["needs"] == sorted(LEVELS["x86-64-v3"])
    for wrong, text in ((["x86-64-v3", "aarch64"], "of one architecture"), (["x86-64-v3"] * 2, "expected different"),
                        ("x86-64-v3", "a list of names"), (["x86-64-v9"], "no target 'x86-64-v9'")):
        with pytest.raises(gc.GraphError, match=text):
            library(tmp_path, targets=wrong)
    assert not list(tmp_path.iterdir())


def test_every_feature_of_the_levels_is_asked_for():
    assert {name for level in LEVELS.values() for name in level} <= set(BITS)
    assert set(LEVELS["x86-64-v3"]) <= set(needed_features(target("x86-64-v4")))
    assert needed_features(target("aarch64")) == ("neon",)


def test_both_variants_give_the_same_kind_of_answer(built):
    lib = gc.load_library(built)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("f")
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            expected = sess.run(entries["predict"].outputs[0], {entries["predict"].inputs[0]: x})
    np.testing.assert_allclose(lib.predict(x), expected, rtol=1e-5, atol=1e-6)


# -- another architecture --
def test_the_build_for_arm_gives_the_same_digits(tmp_path):
    """Five training steps and a file of the state, on an emulated processor: the digits of this one."""
    for program in ("aarch64-linux-gnu-gcc", "qemu-aarch64-static"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    library(tmp_path, target="aarch64")
    (tmp_path / "main.c").write_text(STATES)
    subprocess.run(["aarch64-linux-gnu-gcc", "-std=c99", "-D_POSIX_C_SOURCE=200112L", "main.c", "-L.", "-ltiny",
                    "-Wl,-rpath,.", "-o", "main"], check=True, cwd=tmp_path)
    emulated = run(tmp_path / "main", "qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu")
    assert emulated.returncode == 0, (emulated.returncode, emulated.stdout, emulated.stderr)
    here = library(tmp_path / "here")
    lib = gc.load_library(here)
    x, t = np.arange(1, 9, dtype="f").reshape(2, 4), np.zeros((2, 3), "f")
    losses = [float(lib.step(x, t)) for _ in range(7)]  # the program prints that of the seventh step
    assert float(emulated.stdout) == pytest.approx(losses[-1], rel=1e-5)
