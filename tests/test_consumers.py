"""Programs that use libraries without Python: built with the tools that are here, and compared with a session."""

from __future__ import annotations

import importlib.util
from pathlib import Path
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


def trained_here(path: Path) -> tuple[list[float], dict[str, bytes]]:
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
    losses, variables = trained_here(digits)
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
