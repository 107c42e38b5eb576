"""Compiling and the cache on disk: by content, shared by processes, limited in size."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

from codegen.jit import Cache, compile_text, content_key, load
from codegen.target import KNOWN, target
import graphc as gc
import numpy as np
import pytest

TEXT = "define i64 @f(i64 %x) {\n  %y = mul i64 %x, 3\n  ret i64 %y\n}\n"
PROGRAM = """
import sys, numpy as np, graphc as gc
from codegen import jit
x = gc.placeholder("float32", ("n", 8), name="x")
w = gc.variable(np.ones((8, 40), "float32"), name="w")
compiled = []
real = jit.compile_text
jit.compile_text = lambda *a: compiled.append(1) or real(*a)
with gc.Session() as sess:
    print(float(sess.run(gc.sum(gc.tanh(x @ w)), {x: np.ones((3, 8))})), len(compiled))
"""


def test_load_and_call() -> None:
    import ctypes

    chosen = target()
    loaded = load(compile_text(TEXT, chosen), ["f"], chosen)
    assert loaded.function("f", ctypes.c_int64, ctypes.c_int64)(14) == 42


def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        environment = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": str(seed)}
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
                              env=environment)
        runs.append(done.stdout.split())
    assert runs[0][0] == runs[1][0]
    assert int(runs[0][1]) > 0 and runs[1][1] == "0"


def test_cache_drops_the_oldest(tmp_path: Path) -> None:
    texts = [TEXT.replace("3", str(k)) for k in range(1, 6)]
    cache = Cache(tmp_path, 1 << 30)
    for k, text in enumerate(texts):
        cache.object_of(text, target())
        os.utime(tmp_path / f"{content_key(text, target())}.o", (k, k))
    size = max(nbytes for _, nbytes, _ in cache.files())
    cache.limit = 3 * size
    cache.object_of(TEXT.replace("3", "77"), target())
    left = {path.stem for _, _, path in cache.files()}
    assert len(left) == 3 and content_key(texts[0], target()) not in left
    assert cache.clear() == 3 and cache.files() == []


def test_unwritable_cache_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = Cache(blocked / "inside", 1 << 20)
    assert cache.object_of(TEXT, target()) == compile_text(TEXT, target())


def test_target_and_text_decide_the_name() -> None:
    names = {content_key(t, KNOWN[k]) for t in (TEXT, TEXT + "\n") for k in KNOWN}
    assert len(names) == 2 * len(KNOWN)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(gc.GraphError, match="no target 'z80'; there are native, x86-64-v2"):
        target("z80")


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
def test_older_targets_give_the_same_answers(name: str) -> None:
    with gc.Graph():
        x = gc.placeholder("float32", ("n", 20), name="x")
        y = gc.nn.softmax(gc.tanh(x @ gc.constant(np.ones((20, 30), "float32") / 20)))
        data = np.random.default_rng(0).standard_normal((7, 20))
        with gc.Session(target=name) as old, gc.Session(mode="reference") as reference:
            np.testing.assert_allclose(old.run(y, {x: data}), reference.run(y, {x: data}), rtol=2e-6)
