"""Libraries of other formats, run where something here can: WebAssembly by node, DLLs by wine, and DLLs and dylibs of
any processor by a program that maps them itself, under qemu where they are for ARM.

All do the same job: memory whose every byte is written here, and calls whose arguments are numbers or places in it.
All arrays lie in that memory with bytes between them that nothing may touch.

    job.bin     64-bit words: fix-ups (how many; place of a pointer, what it points to), then calls (how many; place of
                the name, or the function's address; number of arguments, and for each what it is, a number 0, a place
                1, null 2, and its value)
    image.bin   the memory; out.bin has it after the calls, and behind it one 64-bit word for each result
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
import importlib.util
import os
from pathlib import Path
import platform
import shutil
import struct
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

from tests.foreign_images import BASE, flat

BETWEEN = 0xA5  # the byte between arrays
GAP = 64

needs_ziglang = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the package ziglang is absent")


class Place(NamedTuple):
    """Bytes of a job's memory."""

    at: int
    nbytes: int


@dataclass
class Job:
    """Memory and calls, being put together; `pointer_bytes` are those of the machine."""

    pointer_bytes: int
    image: bytearray = field(default_factory=lambda: bytearray([BETWEEN]) * GAP)
    places: list[Place] = field(default_factory=list)
    fixups: list[tuple[int, int]] = field(default_factory=list)
    calls: list[tuple[str, Place, list[int]]] = field(default_factory=list)  # name, where it is, words of arguments

    def put(self, data: bytes, skew: int = 0) -> Place:
        """The data at a multiple of 64 bytes, and so many more."""
        self.image += bytes([BETWEEN]) * (-len(self.image) % 64 + skew)
        self.places.append(Place(len(self.image), len(data)))
        self.image += data + bytes([BETWEEN]) * GAP
        return self.places[-1]

    def array(self, value: np.ndarray, skew: int = 0) -> Place:
        return self.put(np.ascontiguousarray(value).tobytes(), skew)

    def room(self, nbytes: int, skew: int = 0) -> Place:
        return self.put(bytes([0x5A]) * nbytes, skew)

    def pointers(self, *targets: Place) -> Place:
        """A struct of pointers, as entries take for the state."""
        made = self.put(bytes(self.pointer_bytes * len(targets)))
        self.fixups += [(made.at + k * self.pointer_bytes, target.at) for k, target in enumerate(targets)]
        return made

    def call(self, name: str, *arguments: Place | int) -> int:
        """The number of the call; a null pointer is the place `NULL`."""
        words = [len(arguments)]
        for a in arguments:
            words += [0, a] if isinstance(a, int) else [2, 0] if a is NULL else [1, a.at]
        self.calls.append((name, self.put(name.encode() + b"\0"), words))
        return len(self.calls) - 1

    def words(self, addresses: Mapping[str, int] | None = None) -> bytes:
        """The file, with names or with addresses."""
        flat = [len(self.fixups), *(word for pair in self.fixups for word in pair), len(self.calls)]
        for name, place, words in self.calls:
            flat += [place.at if addresses is None else addresses[name], *words]
        return struct.pack(f"<{len(flat)}q", *flat)


NULL = Place(0, 0)


@dataclass(frozen=True)
class Done:
    """What a job has left: its memory, and the results of its calls."""

    image: bytes
    results: tuple[int, ...]

    @property
    def statuses(self) -> list[int]:
        """The results of functions of 32 bits, of which the other half of a register says nothing."""
        return [result & 0xFFFFFFFF for result in self.results]

    def bytes_of(self, place: Place) -> bytes:
        return self.image[place.at:place.at + place.nbytes]

    def array(self, place: Place, dtype: object, shape: Sequence[int] = (-1,)) -> np.ndarray:
        return np.frombuffer(self.bytes_of(place), dtype).reshape(shape)


Run = Callable[[Path, Job], Done]


def after(job: Job, folder: Path) -> Done:
    """Checks that nothing outside the arrays has changed."""
    data = (folder / "out.bin").read_bytes()
    size = len(job.image)
    image = data[:size]
    inside = bytearray(size)
    for at, nbytes in job.places:
        inside[at:at + nbytes] = b"\1" * nbytes
    outside = np.frombuffer(bytes(inside), np.uint8) == 0
    assert (np.frombuffer(image, np.uint8)[outside] == BETWEEN).all(), "a byte between the arrays has changed"
    return Done(image, struct.unpack(f"<{len(job.calls)}q", data[size:]))


def written(job: Job, folder: Path, addresses: Mapping[str, int] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.bin").write_bytes(job.words(addresses))
    (folder / "image.bin").write_bytes(job.image)


# -- WebAssembly --
NODE = r"""
const fs = require("fs");
const lib = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[2])), {}).exports;
const image = fs.readFileSync("image.bin"), data = fs.readFileSync("job.bin");
const job = new BigInt64Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
const base = (lib.__heap_base.value + 63) & ~63;
const missing = base + image.length - lib.memory.buffer.byteLength;
if (missing > 0) lib.memory.grow(Math.ceil(missing / 65536));
const memory = new Uint8Array(lib.memory.buffer), view = new DataView(lib.memory.buffer);
memory.set(image, base);
let next = 0;
const word = () => Number(job[next++]);
for (let n = word(); n > 0; n--) view.setUint32(base + word(), base + word(), true);
const results = [];
for (let n = word(); n > 0; n--) {
    const at = word(), name = image.toString("latin1", at, image.indexOf(0, at)), values = [];
    for (let k = word(); k > 0; k--) {
        const what = word(), value = job[next++];
        values.push(what === 0 ? value : what === 1 ? base + Number(value) : 0);
    }
    results.push(BigInt(lib[name](...values)));
}
if (lib.memory.buffer !== memory.buffer) throw "memory was replaced";
const tail = memory.subarray(base + image.length);
if (tail.some(byte => byte)) throw "written behind the arrays";
fs.writeFileSync("out.bin", Buffer.concat([memory.subarray(base, base + image.length),
                                           Buffer.from(new BigInt64Array(results).buffer)]));
"""


def run_wasm(path: Path, job: Job) -> Done:
    if shutil.which("node") is None:
        pytest.skip("no node here")
    folder = path.parent / "job"
    written(job, folder)
    (folder / "run.js").write_text(NODE)
    done = subprocess.run(["node", "run.js", str(path)], cwd=folder, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    return after(job, folder)


# -- files that are mapped by the program itself --
MAPPED = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef long long word;
typedef ABI word (*function)(word, word, word, word, word, word, word, word, word, word, word, word, word, word, word,
                             word);

static char *contents(const char *name, void *place, size_t *size)
{
    FILE *file = fopen(name, "rb");
    char *data;
    if (!file || fseek(file, 0, SEEK_END)) exit(101);
    *size = (size_t)ftell(file);
    rewind(file);
    data = mmap(place, *size + 64, PROT_READ | PROT_WRITE | (place ? PROT_EXEC : 0),
                MAP_PRIVATE | MAP_ANONYMOUS | (place ? MAP_FIXED_NOREPLACE : 0), -1, 0);
    if (data == MAP_FAILED || (place && data != place) || fread(data, 1, *size, file) != *size) exit(102);
    fclose(file);
    __builtin___clear_cache(data, data + *size);
    return data;
}

int main(void)
{
    size_t size, words, bytes;
    char *image = contents("image.bin", NULL, &size);
    word *job = (word *)contents("job.bin", NULL, &words), n, k, a[16], count;
    word *results = malloc(words);
    FILE *file = fopen("out.bin", "wb");
    contents("library.bin", (void *)BASE, &bytes);
    for (n = *job++; n > 0; n--, job += 2) *(char **)(image + job[0]) = image + job[1];
    count = *job++;
    for (n = 0; n < count; n++) {
        function f = (function)*job++;
        word arguments = *job++;
        if (arguments > 16) exit(104);
        for (k = 0; k < arguments; k++, job += 2) a[k] = job[0] == 1 ? (word)(image + job[1]) : job[1];
        results[n] = f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
                       a[15]);
    }
    if (!file || fwrite(image, 1, size, file) != size || fwrite(results, 8, (size_t)count, file) != (size_t)count)
        exit(103);
    return fclose(file);
}
"""
COMPILERS = {"x86_64": ("cc",), "aarch64": ("aarch64-linux-gnu-gcc", "-static")}
EMULATORS = {"x86_64": (), "aarch64": ("qemu-aarch64-static",)}


@cache
def mapping_host(folder: Path, architecture: str, abi: str) -> tuple[str, ...]:
    """The command that does jobs with files for that processor, whose functions are called as `abi` says."""
    compiler = COMPILERS[architecture]
    for program in (compiler[0], *EMULATORS[architecture]):
        if shutil.which(program) is None or (architecture == "x86_64" and platform.machine() != "x86_64"):
            pytest.skip(f"no {program} here")
    host = folder / f"host_{architecture}{abi.strip('_()')}"
    host.with_suffix(".c").write_text(MAPPED)
    done = subprocess.run([*compiler, "-O1", f"-DABI={abi}", f"-DBASE={BASE}ull", f"{host}.c", "-o", str(host)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (*EMULATORS[architecture], str(host))


def run_mapped(path: Path, job: Job, command: Sequence[str]) -> Done:
    folder = path.parent / "job"
    image = flat(path.read_bytes())
    written(job, folder, image.exports)
    (folder / "library.bin").write_bytes(image.memory)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return after(job, folder)


# -- Windows --
DEFINITIONS = "LIBRARY kernel32.dll\nEXPORTS\n" + "\n".join(
    ("CloseHandle", "CreateFileA", "ExitProcess", "GetFileSize", "GetProcAddress", "LoadLibraryA", "ReadFile",
     "VirtualAlloc", "WriteFile")) + "\n"
HOST = r"""
typedef long long word;
#define IMPORT __declspec(dllimport)
IMPORT void *LoadLibraryA(const char *);
IMPORT void *GetProcAddress(void *, const char *);
IMPORT void *CreateFileA(const char *, unsigned, unsigned, void *, unsigned, unsigned, void *);
IMPORT unsigned GetFileSize(void *, unsigned *);
IMPORT int ReadFile(void *, void *, unsigned, unsigned *, void *);
IMPORT int WriteFile(void *, const void *, unsigned, unsigned *, void *);
IMPORT int CloseHandle(void *);
IMPORT void *VirtualAlloc(void *, unsigned long long, unsigned, unsigned);
IMPORT void ExitProcess(unsigned);
typedef word (*function)(word, word, word, word, word, word, word, word, word, word, word, word, word, word, word,
                         word);

static char *contents(const char *name, unsigned *size)
{
    void *file = CreateFileA(name, 0x80000000u, 1, 0, 3, 0, 0);
    unsigned done;
    char *data;
    *size = GetFileSize(file, 0);
    data = VirtualAlloc(0, *size + 1, 0x3000, 4);
    if (!ReadFile(file, data, *size, &done, 0) || done != *size) ExitProcess(101);
    return data;
}

void start(void)
{
    unsigned size, words, done;
    char *image = contents("image.bin", &size);
    word *job = (word *)contents("job.bin", &words), n, k, a[16];
    void *library = LoadLibraryA("library.dll"), *file = CreateFileA("out.bin", 0x40000000u, 0, 0, 2, 0, 0);
    word *results = VirtualAlloc(0, words, 0x3000, 4), count;
    if (!library) ExitProcess(102);
    for (n = *job++; n > 0; n--, job += 2) *(char **)(image + job[0]) = image + job[1];
    count = *job++;
    for (n = 0; n < count; n++) {
        function f = (function)GetProcAddress(library, image + *job++);
        if (!f) ExitProcess(103);
        word arguments = *job++;
        if (arguments > 16) ExitProcess(104);
        for (k = 0; k < arguments; k++, job += 2) a[k] = job[0] == 1 ? (word)(image + job[1]) : job[1];
        results[n] = f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
                       a[15]);
    }
    WriteFile(file, image, size, &done, 0);
    WriteFile(file, results, (unsigned)count * 8, &done, 0);
    CloseHandle(file);
    ExitProcess(0);
}
"""


def wine() -> str:
    """The program that runs Windows programs of 64 bits."""
    found = [name for name in ("wine64", "wine", "/usr/lib/wine/wine64") if shutil.which(name)]
    if not found:
        pytest.skip("no wine here")
    return found[0]


@cache
def windows_host(folder: Path) -> Path:
    """The program that does jobs on Windows; it needs no C library, which would take a minute to build."""
    (folder / "host.c").write_text(HOST)
    (folder / "kernel32.def").write_text(DEFINITIONS)
    zig(folder, "dlltool", "-d", "kernel32.def", "-l", "kernel32.lib", "-m", "i386:x86-64")
    zig(folder, "cc", "-c", "-target", "x86_64-windows-gnu", "-O1", "-ffreestanding", "-fno-stack-protector",
        "-fno-sanitize=undefined", "host.c", "-o", "host.obj")
    zig(folder, "lld-link", "/subsystem:console", "/entry:start", "/nodefaultlib", "/out:host.exe", "host.obj",
        "kernel32.lib")
    return folder / "host.exe"


def zig(folder: Path, *command: str) -> None:
    kept = {name: str(folder / "zig") for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
    done = subprocess.run([sys.executable, "-m", "ziglang", *command], cwd=folder, env=os.environ | kept,
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def run_windows(path: Path, job: Job, host: Path) -> Done:
    folder = path.parent / "job"
    written(job, folder)
    shutil.copy(path, folder / "library.dll")
    done = in_wine(host, folder, host.parent)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return after(job, folder)


def in_wine(program: Path, folder: Path, kept: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a folder; `kept` has what wine keeps between runs."""
    environment = os.environ | {"WINEPREFIX": str(kept / "wine"), "WINEDEBUG": "-all"}
    return subprocess.run([wine(), str(program)], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
                          env=environment)
