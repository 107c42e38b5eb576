"""Object formats: what a library's files are called, and how those that are not ELF are linked.

    elf      lib<name>.so                  our own linker, or one of `codegen.linkers`
    coff     <name>.dll, <name>.lib        lld-link: no C library, no entry point; the second file imports the first
    macho    lib<name>.dylib               zig's linker: install name @rpath/lib<name>.dylib, signed ad hoc
    wasm     <name>.wasm                   wasm-ld: imports nothing, exports its memory and __heap_base too

The linkers of all but the first come with the package ziglang.  What is left open is an error, never an import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys
from tempfile import TemporaryDirectory

from graphc.ir.errors import GraphError, Unsupported

from .elf.read import LinkError
from .target import Target

ZIG = (sys.executable, "-m", "ziglang")
SECONDS = 300
STACK = 1 << 18  # bytes, of a wasm module; it lies below the data, so that running out of it traps
LEFT_OPEN = re.compile(r"undefined symbol: (\S+)")


@dataclass(frozen=True)
class Job:
    """What is linked into one file: objects by their file names, and the names that can be seen from outside."""

    target: Target
    shared: str
    objects: Sequence[str]
    functions: Sequence[str]
    tables: Sequence[str]  # exported data


@dataclass(frozen=True)
class Format:
    """Names of files, with {} for the library's; `command` links where our own linker does not."""

    shared: str
    imports: str | None = None
    object_end: str = ".o"
    is_found: bool = True  # by pkg-config and CMake
    command: Callable[[Job], list[str]] | None = None

    def files(self, name: str) -> tuple[str, ...]:
        """What linking makes: the library first."""
        return tuple(file.format(name) for file in (self.shared, self.imports) if file is not None)


def link_coff(job: Job) -> list[str]:
    exports = [f"/export:{name}" for name in job.functions] + [f"/export:{name},DATA" for name in job.tables]
    return ["lld-link", "/dll", "/noentry", "/nodefaultlib", "/brepro", "/debug:none", f"/out:{job.shared}",
            f"/implib:{Path(job.shared).stem}.lib", *exports, *job.objects]


def link_macho(job: Job) -> list[str]:
    return ["cc", "-target", f"{job.target.architecture}-macos.11.0", "-shared", "-nostdlib", "-s",
            f"-Wl,-install_name,@rpath/{job.shared}", "-o", job.shared, *job.objects]


def link_wasm(job: Job) -> list[str]:
    exports = [f"--export={name}" for name in (*job.functions, *job.tables, "__heap_base")]
    return ["wasm-ld", "--no-entry", "--stack-first", "-z", f"stack-size={STACK}", "--strip-all", "-o", job.shared,
            *exports, *job.objects]


FORMATS: Mapping[str, Format] = {
    "elf": Format("lib{}.so"),
    "coff": Format("{}.dll", "{}.lib", ".obj", command=link_coff),
    "macho": Format("lib{}.dylib", command=link_macho),
    "wasm": Format("{}.wasm", is_found=False, command=link_wasm),
}


def format_of(target: Target) -> Format:
    return FORMATS[target.object_format]


def check_ziglang(what: str) -> None:
    """Raises GraphError where the package is not installed that `what` needs."""
    if importlib.util.find_spec("ziglang") is None:
        raise GraphError(f"link: {what} needs the package ziglang: pip install graphc[aot]")


def linked(target: Target, name: str, objects: Sequence[tuple[str, bytes]], functions: Sequence[str],
           tables: Sequence[str]) -> dict[str, bytes]:
    """The files of the library of that name, the shared one first; the same arguments give the same bytes."""
    form = format_of(target)
    assert form.command is not None
    files = form.files(name)
    with TemporaryDirectory(prefix="graphc-") as folder:
        for file, data in objects:
            (Path(folder) / file).write_bytes(data)
        said = zig(form.command(Job(target, files[0], [file for file, _ in objects], functions, tables)), folder)
        if said is not None:
            raise fault_of(target, said)
        return {file: (Path(folder) / file).read_bytes() for file in files}


def archived(name: str, objects: Sequence[tuple[str, bytes]]) -> bytes:
    """A static library of objects of any format."""
    check_ziglang("a static library of this format")
    with TemporaryDirectory(prefix="graphc-") as folder:
        for file, data in objects:
            (Path(folder) / file).write_bytes(data)
        said = zig(["ar", "rcsD", name, *(file for file, _ in objects)], folder)
        if said is not None:
            raise LinkError(f"link: ar failed: {said[:2000]}")
        return (Path(folder) / name).read_bytes()


def zig(command: Sequence[str], folder: str) -> str | None:
    """Runs a tool of ziglang in a folder, where it may keep files; what it says where it fails, else nothing."""
    kept = {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
    try:
        done = subprocess.run([*ZIG, *command], cwd=folder, env=os.environ | kept, capture_output=True, text=True,
                              timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {SECONDS} s"
    return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def fault_of(target: Target, said: str) -> Exception:
    prefix = "_" if target.object_format == "macho" else ""
    names = sorted({name.removeprefix(prefix) for name in LEFT_OPEN.findall(said)})
    if names:
        return left_open(target, names)
    return LinkError(f"link: the linker of ziglang failed: {said[:2000]}")


def left_open(target: Target, names: Sequence[str]) -> Unsupported:
    """Code calls functions that nobody has."""
    return Unsupported(f"library: the code for {target.name} calls {', '.join(names)}, which libraries do not bring "
                       "along yet (stage: linking)")
