"""What machine code depends on beside its text, found out without starting LLVM: its build, this processor, and us.

`processor` is what the system says of the first core: maker, model, stepping and flags, from which LLVM's own answer
(the CPU's features) follows.  Where the system says nothing, LLVM is asked.
"""

from __future__ import annotations

from functools import cache
import hashlib
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import sys

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("graphc", "passes", "codegen")

CPUINFO = Path("/proc/cpuinfo")
FIRST_CORE = 16384  # bytes that certainly hold the text on the first core, when a machine may have hundreds
IDENTITY = {  # what does not change from core to core, or with the clock
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"}
FLAGS = {"flags", "Features"}


@cache
def environment() -> str:
    """All that turns a graph into code here: this library file by file, and what it is run with."""
    return f"{sources()} {llvm_build()} numpy {np.__version__} {sys.version} {sys.platform} {platform.machine()}"


def sources(root: Path = ROOT) -> str:
    """A hash of the source files, which cost less to read than a mistake about their versions."""
    digest = hashlib.sha256()
    folders = [(os.path.join(root, name), name) for name in reversed(PACKAGES)]
    while folders:
        folder, prefix = folders.pop()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                with open(entry.path, "rb", buffering=0) as file:
                    content = file.read()
                digest.update(f"{prefix}/{entry.name} {len(content)}\n".encode() + content)
            elif entry.name != "__pycache__" and entry.is_dir():
                folders.append((entry.path, f"{prefix}/{entry.name}"))
    return digest.hexdigest()


@cache
def llvm_build() -> str:
    """The version of the LLVM that is installed, and the size of its library."""
    spec = find_spec("llvmlite")
    if spec is None or spec.origin is None:
        raise ImportError("llvmlite is not installed")
    folder = Path(spec.origin).parent
    libraries = sorted(path for path in (folder / "binding").iterdir() if path.suffix in (".so", ".dylib", ".dll"))
    sizes = [(path.name, path.stat().st_size) for path in libraries]
    return f"{(folder / '_version.py').read_text('utf-8')}{sizes}"


@cache
def processor(path: Path = CPUINFO) -> str | None:
    """The lines that say which processor this is; None where the system does not tell its flags."""
    try:
        with path.open("rb") as file:
            text = file.read(FIRST_CORE).decode("utf-8", "replace")
    except OSError:
        return None
    rows = [line.partition(":") for line in text.split("\n\n")[0].splitlines()]
    found = {name.strip(): value.strip() for name, _, value in rows if name.strip() in IDENTITY}
    if not FLAGS & found.keys():
        return None
    return "\n".join(f"{name}: {value}" for name, value in sorted(found.items()))
