"""The same library by other linkers, and its parts for those who link themselves."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys

import graphc as gc
import numpy as np
import pytest

from codegen.elf.archive import archive, header
from codegen.elf.shared import read_shared
from codegen.linkers import COMMANDS, LINKERS
from tests.elf_programs import runs_here, tool
from tests.test_library import TS, XS, model

pytestmark = runs_here


def shipped(folder: Path, **options: object) -> Path:
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            return gc.compile_library(folder, "tiny", entries, session=sess, **options)


def results(path: Path) -> list[np.ndarray]:
    lib = gc.load_library(path)
    return [lib.predict(XS), lib.step(XS, TS), lib.predict(XS), *lib.state.values()]


@pytest.mark.parametrize("linker", [name for name in LINKERS if name != "own"])
@pytest.mark.parametrize("weights", ["constant", "data"])
def test_other_linkers_give_the_same_library(tmp_path, linker, weights):
    if shutil.which(COMMANDS[linker][0]) is None:
        pytest.skip(f"no {linker} here")
    if linker == "ziglang":
        pytest.importorskip("ziglang")
    own, other = (shipped(tmp_path / name, linker=name, weights=weights) for name in ("own", linker))
    for a, b in zip(results(own), results(other), strict=True):
        assert a.tobytes() == b.tobytes()
    mine, theirs = read_shared(own.read_bytes()), read_shared(other.read_bytes())
    assert set(mine.exports) == set(theirs.exports) - {""} and mine.needed == theirs.needed
    assert mine.soname == theirs.soname and set(mine.imports) == set(theirs.imports)
    if weights == "data":
        for path in (own, other):
            gc.update_weights(path, {"scale": np.arange(4, dtype="f")})
        before, *after = (results(path)[0].tobytes() for path in (shipped(tmp_path / "new"), own, other))
        assert after[0] == after[1] != before
    assert str(gc.inspect_library(own)).split("\n")[-6:] == str(gc.inspect_library(other)).split("\n")[-6:]


def test_libc_is_found_beside_files_whose_names_are_no_text(tmp_path):
    if shutil.which("ld") is None:
        pytest.skip("no ld here")
    path = shipped(tmp_path)
    odd = os.path.join(os.fsencode(tmp_path), b"\xff.so")
    shutil.copy(path, odd)
    gc.load_library(odd)  # it is mapped from now on
    assert results(shipped(tmp_path / "ld", linker="ld"))[0].shape == (7, 3)


def test_what_does_not_link_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(gc.GraphError, match="own, cc, ld, lld, ziglang"):
        shipped(tmp_path, linker="gold")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(gc.GraphError, match="no program 'cc' on this machine"):
        shipped(tmp_path, linker="cc")
    monkeypatch.setitem(COMMANDS, "cc", (sys.executable, "-c", "raise SystemExit('no room')"))
    with pytest.raises(gc.GraphError, match="cc failed with 1: no room"):
        shipped(tmp_path / "new", linker="cc")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


MAIN = """
#include "tiny.h"
#include <stdio.h>
#include <string.h>
int main(void)
{
    struct tiny_state *state;
    float x[4] = {1, 2, 3, 4}, y[3], copy[3];
    static char room[1 << 14];
    if (tiny_new(&state) || tiny_predict(1, x, y, state, room + (64 - (unsigned long)room % 64))) return 1;
    memcpy(copy, y, sizeof y);
    for (int k = 0; k < 3; k++) printf("%.9g\\n", (double)copy[k]);
    tiny_free(state);
    return 0;
}
"""


def test_a_static_library_links(tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    path = shipped(tmp_path, emit=["a", "o", "ll", "s"], weights="data", targets=["x86-64-v3", "x86-64-v2"])
    names = {p.name for p in tmp_path.iterdir()}
    assert {"libtiny.a", "tiny_entries.o", "tiny_code0.o", "tiny_code1.o", "tiny_data.o", "tiny_entries.ll",
            "tiny_code1.s"} <= names
    (tmp_path / "main.c").write_text(MAIN)
    wanted = gc.load_library(path).predict(np.array([[1, 2, 3, 4]], "f")).ravel()
    for inputs in (["libtiny.a"], sorted(name for name in names if name.endswith(".o")), ["libtiny.a", "-static"]):
        subprocess.run(["cc", "main.c", *inputs, "-o", "main"], check=True, cwd=tmp_path, capture_output=True)
        out = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
        np.testing.assert_array_equal(np.array(out, "f"), wanted)
    assert "tiny_predict" in tool("nm", "-s", tmp_path / "libtiny.a")
    assert tool("ar", "t", tmp_path / "libtiny.a").split() == ["entries.o", "code0.o", "code1.o", "data.o"]
    tool("readelf", "-a", "-W", tmp_path / "tiny_data.o")


def test_archives_need_short_names():
    with pytest.raises(ValueError, match="more than 15"):
        header("a" * 16, 0)
    assert archive([]).startswith(b"!<arch>\n/ ")


def test_bad_kinds_of_files(tmp_path):
    for emit in ("a", ["so"]):
        with pytest.raises(gc.GraphError, match="expected a list of a, o, ll, s"):
            shipped(tmp_path, emit=emit)
