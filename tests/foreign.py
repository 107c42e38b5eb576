"""What the tests of libraries for other systems share: the systems, a library for them, and what runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import shutil

import pytest

from codegen import formats
from codegen.blobs import blob_object
from codegen.jit import compile_text
from codegen.runtime import runtime_object
from codegen.target import target
import graphc as gc
from tests.foreign_programs import Run, mapping_host, run_mapped, run_wasm, run_windows, windows_host, wine
from tests.test_library import model

WINDOWS = ["x86-64-v4-windows", "x86-64-v3-windows", "x86-64-v2-windows"]
MACHINES = {  # what a library is made for
    "wasm32": ["wasm32"], "windows": WINDOWS, "windows-arm": ["aarch64-windows"],
    "macos": ["x86-64-v3-macos", "x86-64-v2-macos"], "macos-arm": ["aarch64-macos"], "wine": WINDOWS}
SELDOM = ("windows-arm", "macos", "wine")  # much as others: their larger tests are slow ones
RUNNABLE = [pytest.param(name, marks=[pytest.mark.slow] * (name == "wine")) for name in MACHINES]


def shipped(folder: Path, targets: Sequence[str], **options: object) -> Path:
    with gc.Graph():
        entries = model()
        with gc.Session() as sess:
            return gc.compile_library(folder, "tiny", entries, session=sess, targets=targets,
                                      **{"freestanding": True, **options})


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


def linked(folder: Path, name: str, text: str, functions: Sequence[str], blobs: Mapping[str, bytes]) -> Path:
    chosen = target(name)
    objects = [("a.o", compile_text(text, chosen)), ("runtime.o", runtime_object(chosen)),
               ("data.o", blob_object({k: memoryview(v) for k, v in blobs.items()}, chosen))]
    shared, *_ = files = formats.linked(chosen, "x", objects, functions, [])
    (folder / shared).write_bytes(files[shared])
    return folder / shared
