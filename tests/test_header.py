"""The C header: golden text, compilers with all warnings as errors, and names that C cannot have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import re
import shutil
import subprocess

import pytest

from codegen.header import C_TYPES, STATUS, CArgument, CFunction, CLibrary, c_argument, header_text
from graphc.ir.errors import GraphError

W = c_argument("w", "float32", (4, 2), "state", "weights")
STEP = c_argument("step", "int64", (), "state", "number of updates")
X = c_argument("x", "float32", ("n", 4), "in", "images, 0 to 1")
Y = c_argument("y", "float32", ("n", 2), "out")
PREDICT = CFunction("predict", ("n",), (X, Y, W), "Class scores of n images.")
VERSION = CFunction("count", (), (c_argument("value", "int64", (), "out"),))
TINY = CLibrary("tiny", (PREDICT, VERSION), (W, STEP), "A tiny classifier.")

GOLDEN = """\
/*
 * A tiny classifier.
 * All arrays belong to the caller, are contiguous and row-major, and must be aligned for their
 * elements. Outputs and the arrays of a state must not overlap inputs or one another. The
 * functions keep nothing between calls: different threads may call them at the same time with
 * different outputs, states and workspaces.
 */

#ifndef TINY_H
#define TINY_H

#include <stdint.h>

#define TINY_ABI_VERSION 2
#define TINY_INTERFACE 2098472553

#ifdef __cplusplus
extern "C" {
#endif

/* What the functions return. */
enum tiny_status {
    TINY_OK = 0, /* success */
    TINY_NULL_POINTER = 1, /* a pointer that is needed is NULL */
    TINY_BAD_SIZE = 2, /* a size is negative, too large, or does not fit the others */
    TINY_MISALIGNED = 3, /* a pointer is not aligned for its elements, or the workspace not to 64 bytes */
    TINY_OUT_OF_RANGE = 4, /* an index in an array lies outside the array that it selects from */
    TINY_CPU = 5, /* the library was made for a processor with more instructions than this one has */
    TINY_NO_MEMORY = 6, /* there is not enough memory */
    TINY_FILE = 7, /* a file cannot be opened, read or written */
    TINY_BAD_FILE = 8 /* a file is damaged, cut off, or not of this library's variables */
};

/* The meaning of a status, in English; never NULL. */
const char *tiny_strerror(int32_t status);

/*
 * The ABI version that the library was made with: compare with TINY_ABI_VERSION.
 */
int32_t tiny_abi_version(void);

/*
 * A number of all that this header declares, its arrays with their shapes included: compare with
 * TINY_INTERFACE. Where they differ, the library is of another header.
 */
int32_t tiny_interface(void);

/*
 * Whether this processor can run the library: TINY_OK or TINY_CPU.
 */
int32_t tiny_check_cpu(void);

/*
 * The variables: each member points to an array of the caller, of tiny_new or tiny_map. Entries
 * that take the state read these arrays, and update those that they say they update.
 */
struct tiny_state {
    /* float32, [4, 2] row-major; weights; 32 bytes */
    float *w;
    /* int64, one element; number of updates; 8 bytes */
    int64_t *step;
};

/*
 * A new state with the variables' first values, zeros where there are none; all of it is one
 * block of memory.
 */
int32_t tiny_new(struct tiny_state **state);

/*
 * Gives up what tiny_new or tiny_map made; NULL is allowed.
 */
void tiny_free(struct tiny_state *state);

/*
 * Copies the values of all variables.
 */
int32_t tiny_copy(const struct tiny_state *to, const struct tiny_state *from);

/*
 * Writes all variables to a file in the safetensors format. It is written under a name of its own
 * first, the path with 16 digits and .part after it, so the path has the old file or the new one
 * and nothing between. A symbolic link is replaced; a device or a pipe is refused.
 */
int32_t tiny_save(const struct tiny_state *state, const char *path);

/*
 * Reads what tiny_save wrote, of this library or another one with the same name and variables. A
 * file that is damaged, cut off or of other variables is refused before any variable changes.
 */
int32_t tiny_load(const struct tiny_state *state, const char *path);

/*
 * A new state whose arrays are the pages of a file that tiny_save wrote: nothing is copied. What
 * is changed in it stays in memory; the file must not change while the state is in use.
 */
int32_t tiny_map(struct tiny_state **state, const char *path);

/*
 * Bytes of workspace that tiny_predict needs for these sizes; -1 where a size is not valid.
 */
int64_t tiny_predict_workspace_size(int64_t n);

/*
 * Class scores of n images.
 * - n: size, at least 0
 * - x (in): float32, [n, 4] row-major; images, 0 to 1
 * - y (out): float32, [n, 2] row-major
 * - state: the variables, of which it uses w
 * - workspace: tiny_predict_workspace_size(n) bytes, aligned to 64; may be NULL where that is 0
 * Returns TINY_OK (0), or the reason why nothing was computed.
 */
int32_t tiny_predict(int64_t n, const float *x, float *y, const struct tiny_state *state,
                     void *workspace);

/*
 * Bytes of workspace that tiny_count needs for these sizes; -1 where a size is not valid.
 */
int64_t tiny_count_workspace_size(void);

/*
 * Computes count.
 * - value (out): int64, one element
 * - workspace: tiny_count_workspace_size() bytes, aligned to 64; may be NULL where that is 0
 * Returns TINY_OK (0), or the reason why nothing was computed.
 */
int32_t tiny_count(int64_t *value, void *workspace);

#ifdef __cplusplus
}
#endif

#endif /* TINY_H */
"""

NASTY = "*/ int bad; /* ??/ \\ // \u202e \x07 %s \n #error " + "long " * 60
EVERYTHING = CLibrary("all_of_it", (
    CFunction("every", ("rows", "cols"), tuple(
        c_argument(f"{direction}_{dtype}", dtype, ("rows", "2*cols+1", 3), direction, NASTY)
        for dtype in C_TYPES for direction in ("in", "out")), NASTY),
    CFunction("nothing", (), ())), tuple(c_argument(f"v_{dtype}", dtype, (0, 5), "state", NASTY) for dtype in C_TYPES),
    NASTY, 7, has_files=False)
STATELESS = CLibrary("plain", (VERSION,))


def test_golden_text() -> None:
    assert header_text(TINY) == GOLDEN


C_USE = """
#include "{name}.h"
#include "{name}.h"
{use}
int main(void) {{ return 0; }}
"""
TINY_USE = """
int64_t use(const float *x, float *y);
int64_t use(const float *x, float *y)
{
    float w[8] = {0};
    int64_t step = 0;
    struct tiny_state state;
    state.w = w;
    state.step = &step;
    if (tiny_abi_version() != TINY_ABI_VERSION || tiny_strerror(TINY_CPU) == 0)
        return -1;
    if (tiny_predict(3, x, y, &state, 0) != TINY_OK)
        return TINY_BAD_SIZE;
    return tiny_predict_workspace_size(3) + tiny_count_workspace_size() + tiny_count(&step, 0);
}
"""
COMPILERS = [("gcc", "c", "c99"), ("gcc", "c", "c11"), ("g++", "cc", "c++11"), ("g++", "cc", "c++20"),
             ("clang", "c", "c99"), ("clang++", "cc", "c++11")]


@pytest.mark.parametrize(("compiler", "suffix", "standard"), COMPILERS)
@pytest.mark.parametrize(("library", "use"), [(TINY, TINY_USE), (EVERYTHING, ""), (STATELESS, "")],
                         ids=["tiny", "everything", "stateless"])
def test_compilers_accept_it(tmp_path: Path, library: CLibrary, use: str, compiler: str, suffix: str,
                             standard: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    (tmp_path / f"{library.name}.h").write_text(header_text(library))
    source = tmp_path / f"main.{suffix}"
    source.write_text(C_USE.format(name=library.name, use=use))
    done = subprocess.run([compiler, f"-std={standard}", "-Wall", "-Wextra", "-pedantic", "-Werror", "-Wconversion",
                           "-fsyntax-only", str(source)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_layout_of_the_text() -> None:
    text = header_text(EVERYTHING)
    assert text.isascii() and "\t" not in text
    prototypes = re.findall(r"^int(?:32|64)_t .*?;", text, re.S | re.M)
    assert len(prototypes) == 7 and max(len(line) for p in prototypes for line in p.splitlines()) <= 100
    assert "const uint16_t *in_float16" in text and "uint8_t *out_bool" in text
    assert "struct " not in header_text(STATELESS)
    assert max(len(line) for line in text.splitlines()) <= 120


def test_inputs_are_const_and_outputs_are_not() -> None:
    text = header_text(EVERYTHING).replace("\n", " ")
    for name, ctype in C_TYPES.items():
        assert re.search(rf"const {ctype} \*in_{name}\b", text)
        assert re.search(rf"(?<!const ){ctype} \*out_{name}\b", text)


def test_status_codes_are_dense() -> None:
    assert [value for _, value, _ in STATUS] == list(range(len(STATUS)))


def changed(**fields: object) -> CLibrary:
    """TINY with its argument `x` changed."""
    item = replace(X, **fields)  # type: ignore[arg-type]
    return replace(TINY, functions=(replace(PREDICT, arguments=(item, Y, W)), VERSION))


REFUSED = [
    *((changed(name=name), re.escape(repr(name))) for name in (
        "", "1x", "a-b", "a b", "x;", "é", "x\n", "for", "class", "restrict", "constexpr", "bool", "int32_t", "NULL",
        "INT64_MAX", "_x", "a__b", "workspace", "state", "n", "y", "TINY_H", "TINY_ABI_VERSION")),
    *((replace(TINY, name=name), repr(name)) for name in ("int", "my lib", "_lib", "lib_", "")),
    *((replace(TINY, functions=(replace(PREDICT, name=name), VERSION)), name) for name in (
        "strerror", "abi_version", "status", "state", "count", "count_workspace_size", "a.b", "new")),
    (replace(TINY, functions=(replace(PREDICT, dims=("n", "n")), VERSION)), "'n'"),
    (replace(TINY, functions=(replace(PREDICT, dims=("n", "union")), VERSION)), "'union'"),
    (replace(TINY, state=(W, W)), "'w'"),
    (replace(TINY, state=(W, replace(STEP, shape=("n",)))), "'n'"),
    (replace(TINY, state=(W, replace(STEP, direction="in"))), "'step' has direction 'in'"),
    (replace(TINY, state=(STEP,)), "uses state 'w' of float32.*no such variable"),
    (replace(TINY, state=(replace(W, shape=(4, 3)),)), re.escape("float32[4, 3]")),
    (changed(ctype="double"), "'float32' is 'float' in C, not 'double'"),
    (changed(dtype="complex64"), "'complex64'"), (changed(direction="inout"), "'inout'"),
    (changed(shape=(-1,)), "-1"), (changed(shape=("m", 4)), "'m'"), (changed(shape=("n*/",)), re.escape("'n*/'")),
    (changed(shape=("n**9",)), "9"), (changed(shape=("f(n)",)), "f")]


@pytest.mark.parametrize(("library", "why"), REFUSED)
def test_refused(library: CLibrary, why: str) -> None:
    with pytest.raises(GraphError, match=why):
        header_text(library)


def test_argument_without_a_c_type() -> None:
    with pytest.raises(GraphError, match="no C type for dtype 'complex64'"):
        c_argument("x", "complex64", (), "in")
    assert c_argument("x", "bfloat16", [2], "in") == CArgument("x", "uint16_t", (2,), "in", "bfloat16")
