"""Programs that use libraries without Python: built with the tools that are here, and compared with a session."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import re
import shutil
import subprocess
import sys

import graphc as gc
import numpy as np
import pytest

from tests.elf_programs import runs_here

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STEPS, BATCH = 200, 64
pytestmark = runs_here


def module(path: Path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=300, cwd=cwd)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder with the library and the data of the C++ example."""
    folder = tmp_path_factory.mktemp("digits")
    sys.path.insert(0, str(EXAMPLES))
    with gc.Graph():
        module(EXAMPLES / "cpp" / "export.py").main(str(folder))
    return folder


def trained_here() -> tuple[list[float], dict[str, bytes]]:
    """Losses and variables after the same steps in a session."""
    example = module(EXAMPLES / "digits.py")
    pixels, labels, _, _ = example.data()
    with gc.Graph() as graph:
        x, t, _, loss = example.network()
        updates = gc.optim.Adam(2e-3).minimize(loss)
        with gc.Session() as sess:
            step = sess.function([x, t], loss, updates=updates)
            starts = [k % (len(labels) // BATCH) * BATCH for k in range(STEPS)]
            losses = [float(step(pixels[a:a + BATCH], labels[a:a + BATCH])) for a in starts]
            return losses, {name: sess.value(v).tobytes() for name, v in graph.variables.items()}


def test_training_from_cpp_alone_ends_in_the_same_bits(digits):
    """The library's step and the session's are compiled from the same plan for the same processor."""
    needs("cmake", "c++")
    build = digits / "cpp"
    run("cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={digits}",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -pedantic -Werror")
    run("cmake", "--build", build)
    shown = run(build / "train", digits / "digits.bin", STEPS, digits / "trained.safetensors").splitlines()
    losses, variables = trained_here()
    np.testing.assert_allclose([float(line.split()[-1]) for line in shown], losses[49::50], rtol=1e-8)
    lib = gc.load_library(digits / "libdigits.so")
    lib.load_state(digits / "trained.safetensors")
    assert {name: value.tobytes() for name, value in lib.state.items()} == {
        name: variables[name] for name in lib.state}
    assert len(lib.state) > 8


def test_the_cpp_example_refuses_what_is_wrong(digits):
    needs("cmake", "c++")
    program = digits / "cpp" / "train"
    if not program.exists():
        pytest.skip("built by the test before")
    (digits / "short.bin").write_bytes(np.int32(1000).tobytes() + bytes(100))
    for arguments, text in (([digits / "short.bin", "1", "x"], "is cut off"),
                            ([digits / "none", "1", "x"], "no digits"),
                            ([digits / "digits.bin", "1", "/nowhere/x"], "a file cannot be opened")):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and text in done.stderr
    assert subprocess.run([program], capture_output=True, check=False).returncode == 2


def test_classifying_from_c_maps_the_trained_weights(digits, tmp_path):
    needs("cc", "pkg-config")
    flags = run("pkg-config", "--cflags", "--libs", digits / "digits.pc").split()
    run("cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror",
        EXAMPLES / "c" / "classify.c", *flags, f"-Wl,-rpath,{digits}", "-o", tmp_path / "classify")
    lib = gc.load_library(digits / "libdigits.so")
    pixels, labels, _, _ = module(EXAMPLES / "digits.py").data()
    for _ in range(3):
        for a in range(0, 1024, BATCH):
            lib.train_step(pixels[a:a + BATCH], labels[a:a + BATCH])
    lib.save_state(tmp_path / "trained.safetensors")
    right = int((lib.predict(pixels).argmax(axis=1) == labels).sum())
    assert right > 0.9 * len(labels)
    shown = run(tmp_path / "classify", digits / "digits.bin", tmp_path / "trained.safetensors")
    assert shown == f"{right} of {len(labels)} digits\n"
    for arguments, text in (([digits / "digits.bin", digits / "digits.h"], "damaged"), ([], "usage"),
                            (["none", "none"], "cannot open"), ([digits / "digits.h", "none"], "cut off")):
        done = subprocess.run([tmp_path / "classify", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == (1 if arguments else 2) and text in done.stderr


TRAIN = r"""
#include "digits.h"
#include <stdio.h>
#include <string.h>

/* The struct is this program's own, and so are all arrays, which lie one behind the other in the file `state`. */
static float images[1797 * 64];
static int32_t labels[1797];
static char room[1 << 22], arrays[1 << 22];

int main(int argc, char **argv)
{
    struct digits_state state;
    char *members[sizeof state / sizeof(char *)], *next = arrays + (64 - (size_t)arrays % 64);
    void *workspace = room + (64 - (size_t)room % 64);
    int32_t count;
    float loss = 0;
    FILE *file = fopen(argv[1], "rb"), *sizes = fopen(argv[2], "rb"), *out;
    if (argc != 4 || !file || !sizes || fread(&count, 4, 1, file) != 1) return 1;
    if (fread(images, 256, (size_t)count, file) != (size_t)count) return 1;
    if (fread(labels, 4, (size_t)count, file) != (size_t)count) return 1;
    for (size_t k = 0; k < sizeof state / sizeof(char *); k++) {
        int64_t nbytes;
        if (fread(&nbytes, 8, 1, sizes) != 1 || fread(next, 1, (size_t)nbytes, sizes) != (size_t)nbytes) return 2;
        members[k] = next;
        next += (nbytes + 63) / 64 * 64;
    }
    memcpy(&state, members, sizeof state);
    if (digits_train_step_workspace_size(64) > (int64_t)sizeof room - 64) return 3;
    for (int64_t step = 0; step < 200; step++) {
        const int64_t first = step % (count / 64) * 64;
        const int32_t status = digits_train_step(64, images + first * 64, labels + first, &loss, &state, workspace);
        if (status != DIGITS_OK) return 4;
    }
    out = fopen(argv[3], "wb");
    if (!out || fwrite(arrays, 1, sizeof arrays, out) != sizeof arrays || fclose(out)) return 5;
    printf("%.9g %d\n", (double)loss, (int)((char *)members[0] - arrays));
    return 0;
}
"""


def test_two_threads_train_arrays_of_a_c_program_to_the_bits_of_a_session(digits, tmp_path):
    """A program in C99 that has the struct and every array itself; the library brings a pool of two threads."""
    needs("cc")
    example = module(EXAMPLES / "digits.py")
    pixels, labels, _, _ = example.data()
    with gc.Graph() as graph:
        x, t, _, loss = example.network()
        updates = gc.optim.Adam(2e-3).minimize(loss)
        entries = {"train_step": gc.signature([x, t], [loss], updates=updates)}
        with gc.Session(threads=2) as sess:
            path = gc.compile_library(tmp_path, "digits", entries, session=sess, threads=2)
            first = gc.load_library(path).new_state()
            step = sess.function([x, t], loss, updates=updates)
            starts = [k % (len(labels) // BATCH) * BATCH for k in range(STEPS)]
            losses = [float(step(pixels[a:a + BATCH], labels[a:a + BATCH])) for a in starts]
            wanted = {name: sess.value(graph.variables[name]).tobytes() for name in first}
    (tmp_path / "first").write_bytes(b"".join(
        np.int64(value.nbytes).tobytes() + value.tobytes() for value in first.values()))
    (tmp_path / "train.c").write_text(TRAIN)
    run("cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror", "train.c", "-L.",
        "-ldigits", "-Wl,-rpath,.", "-o", "train", cwd=tmp_path)
    last, at = run(tmp_path / "train", digits / "digits.bin", "first", "last", cwd=tmp_path).split()
    data, place = (tmp_path / "last").read_bytes(), int(at)
    assert float(last) == pytest.approx(losses[-1], rel=1e-8)
    for name, value in first.items():
        assert data[place:place + value.nbytes] == wanted[name], name
        place += -(-value.nbytes // 64) * 64


def documented(language: str, word: str) -> str:
    """The block of the page on libraries that is in this language and has the word in it."""
    text = (EXAMPLES.parent / "docs" / "libraries.md").read_text()
    found = [body for body in re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M) if word in body]
    return found[0]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder in which the first block of the page on libraries was run, and what its library predicts."""
    folder = tmp_path_factory.mktemp("shown")
    run(sys.executable, "-c", documented("python", "compile_library"), cwd=folder)
    return folder, gc.load_library(folder / "build" / "libmodel.so").predict(np.ones((2, 4), "f")).ravel()


def test_the_documented_use_by_cffi(shown):
    pytest.importorskip("cffi")
    folder, wanted = shown
    out = run(sys.executable, "-c", documented("text", "import cffi"), cwd=folder)
    np.testing.assert_allclose([float(word) for word in out.split()], wanted, rtol=1e-6)


def test_the_documented_use_by_rust(shown):
    folder, wanted = shown
    rustc = shutil.which("rustc") or shutil.which("rustc", path=str(Path.home() / ".cargo" / "bin"))
    if rustc is None:
        pytest.skip("no rustc here")
    (folder / "main.rs").write_text(documented("rust", "model_predict"))
    run(rustc, "-D", "warnings", "-L", "build", "main.rs", "-C", "link-arg=-Wl,-rpath,build", cwd=folder)
    out = run(folder / "main", cwd=folder)
    np.testing.assert_allclose([float(word) for word in out.strip("[]\n").split(",")], wanted, rtol=1e-6)


PATTERN = r"""
#include "sparse.h"
#include <stdio.h>

int main(void)
{
    double x[5] = {1, 2, 3, 4, 5}, entries[SPARSE_JACOBIAN_J_ENTRIES];
    static char room[1 << 14];
    if (sparse_jacobian(x, entries, room + (64 - (unsigned long)room % 64))) return 1;
    for (int r = 0; r < SPARSE_JACOBIAN_J_ROWS; r++)
        for (int k = sparse_jacobian_J_indptr[r]; k < sparse_jacobian_J_indptr[r + 1]; k++)
            printf("%d %d %g\n", r, (int)sparse_jacobian_J_indices[k], entries[k]);
    return 0;
}
"""


def test_the_pattern_of_a_sparse_jacobian_is_in_the_header(tmp_path):
    needs("cc")
    with gc.Graph():
        x = gc.placeholder("float64", (5,), name="x")
        found = gc.sparse_jacobian(x[1:] * x[:-1], x)
        path = gc.compile_library(tmp_path, "sparse", {"jacobian": gc.signature([x], found, names=["J"])})
    (tmp_path / "main.c").write_text(PATTERN)
    run("cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "main.c", "-L.", "-lsparse", "-Wl,-rpath,.", "-o",
        "main", cwd=tmp_path)
    dense = np.zeros((4, 5))
    for line in run(tmp_path / "main", cwd=tmp_path).splitlines():
        r, c, value = line.split()
        dense[int(r), int(c)] = float(value)
    values = np.arange(1.0, 6.0)
    wanted = np.zeros((4, 5))
    wanted[np.arange(4), np.arange(4)], wanted[np.arange(4), np.arange(1, 5)] = values[1:], values[:-1]
    np.testing.assert_allclose(dense, wanted)
    np.testing.assert_allclose(found.to_scipy(gc.load_library(path).jacobian(values)).toarray(), wanted)


def test_pkg_config_builds_a_program(digits, tmp_path):
    needs("cc", "pkg-config")
    (tmp_path / "main.c").write_text('#include <digits.h>\nint main(void) { return digits_abi_version() - '
                                     'DIGITS_ABI_VERSION; }\n')
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", str(digits / "digits.pc")], capture_output=True,
                           text=True, check=True).stdout.split()
    run("cc", "main.c", *flags, f"-Wl,-rpath,{digits}", "-o", "main", cwd=tmp_path)
    run(tmp_path / "main")
