"""Shared objects by other linkers than our own: the same objects, exports and names, for who must use a toolchain.

    cc         the system's compiler driver, which calls its linker
    ld, lld    GNU's and LLVM's linker (`ld`, `ld.lld`)
    ziglang    LLVM's linker as the package ziglang brings it: `pip install graphc[aot]`

All make ELF; files of other formats are linked by `codegen.formats`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import shutil
import subprocess
from tempfile import TemporaryDirectory

from graphc.ir.errors import GraphError

from .elf.read import LinkError
from .formats import SECONDS, ZIG, check_ziglang
from .target import Target

OWN, ZIGLANG = "own", "ziglang"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "cc": ("cc", "-shared", "-nostdlib"), "ld": ("ld", "-shared"), "lld": ("ld.lld", "-shared"),
    ZIGLANG: (*ZIG, "ld.lld", "-shared")}
LINKERS = (OWN, *COMMANDS)
OPTIONS = ("-z", "now", "-z", "relro", "-z", "noexecstack", "--build-id=sha1", "--no-undefined")


def check_linker(name: str, target: Target) -> None:
    """Raises GraphError where there is no such linker for the target, or it is not on this machine."""
    if name not in LINKERS:
        raise GraphError(f"link: linker={name!r}: expected one of {', '.join(LINKERS)}")
    if target.object_format != "elf":
        if name not in (OWN, ZIGLANG):
            raise GraphError(f"link: linker={name!r} makes ELF; files for {target.name} are linked by 'ziglang', which "
                             "need not be asked for")
        check_ziglang(f"target={target.name!r}")
    if name == ZIGLANG:
        check_ziglang("linker='ziglang'")
    if name in COMMANDS and shutil.which(COMMANDS[name][0]) is None:
        raise GraphError(f"link: linker={name!r}: no program {COMMANDS[name][0]!r} on this machine; linker='own' needs "
                         "none")


def link_by(linker: str, path: Path, objects: Sequence[tuple[str, bytes]], exports: Sequence[str], soname: str,
            *, libc: bool, stays: bool) -> None:
    """Writes the shared object with that linker; `libc`: the objects need it, `stays`: it is never unloaded."""
    with TemporaryDirectory(prefix="graphc-") as folder:
        place = Path(folder)
        (place / "exports.map").write_text("{ global: " + " ".join(f"{name};" for name in exports) + " local: *; };\n")
        for name, data in objects:
            (place / name).write_bytes(data)
        options = [*OPTIONS, f"--version-script={place / 'exports.map'}", "-soname", soname]
        options += ["-z", "nodelete"] if stays else []
        if linker == "cc":
            options = [f"-Wl,{','.join(options)}"]
        libraries = [] if not libc else ["-lc"] if linker == "cc" else [str(system_libc())]
        command = [*COMMANDS[linker], *options, *(str(place / name) for name, _ in objects), *libraries,
                   "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise LinkError(f"link: {linker} failed with {done.returncode}: {done.stderr.strip()[:2000]}")


def system_libc() -> Path:
    """The C library as a file, for linkers that do not know where the system keeps it."""
    with open("/proc/self/maps", errors="surrogateescape") as maps:  # any file may be mapped here
        for line in maps:
            if "libc.so" in line or "/libc-" in line:
                return Path(line.split()[-1])
    raise LinkError("link: this process has no libc that could be linked with; linker='cc' knows where it is")
