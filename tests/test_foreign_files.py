"""Files of libraries for other systems: what they hold and bring along, what reads them, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

from codegen import formats
from codegen.header import CLibrary
from codegen.runtime import runtime_object
from codegen.target import KNOWN, target
import graphc as gc
from graphc.cli import main
from tests.foreign import MACHINES, WINDOWS, linked, runner, shipped
from tests.foreign_images import commands, flat, number_at, text_at
from tests.foreign_programs import Job, in_wine, needs_ziglang, windows_host, wine, zig
from tests.test_library import XS, model

pytestmark = needs_ziglang


# -- what files hold --
FILES = {"wasm32": ("tiny.wasm",), "x86-64-v3-windows": ("tiny.dll", "tiny.lib"),
         "aarch64-windows": ("tiny.dll", "tiny.lib"), "x86-64-v3-macos": ("libtiny.dylib",),
         "aarch64-macos": ("libtiny.dylib",)}
PUBLIC = {f"tiny_{end}" for end in ("predict", "predict_workspace_size", "step", "step_workspace_size", "strerror",
                                    "abi_version", "interface", "check_cpu", "metadata", "initial")}


@pytest.fixture(scope="module", params=list(FILES))
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    shipped(folder, [request.param])
    return request.param, folder


def test_the_files_are_those_of_the_system(files):
    name, folder = files
    beside = {"tiny.h"} | (set() if name == "wasm32" else {"tiny.pc", "tiny-config.cmake"})
    assert {p.name for p in folder.iterdir()} == {*FILES[name], *beside}
    if name != "wasm32":
        cmake = (folder / "tiny-config.cmake").read_text()
        assert all(f"/{file}" in cmake for file in FILES[name])
        assert ("@rpath/libtiny.dylib" in cmake) == name.endswith("macos")


CMAKE = """cmake_minimum_required(VERSION 3.10)
set(CMAKE_SYSTEM_NAME {system})
project(consumer NONE)
find_package(tiny REQUIRED CONFIG PATHS "{folder}" NO_DEFAULT_PATH)
foreach(what LOCATION IMPLIB SONAME)
  get_target_property(found tiny::tiny IMPORTED_${{what}})
  message(STATUS "${{what}}=${{found}}")
endforeach()
"""


def test_cmake_finds_them(files, tmp_path):
    name, folder = files
    if shutil.which("cmake") is None or name == "wasm32":
        pytest.skip("no cmake here, or no shared library")
    system = "Windows" if name.endswith("windows") else "Darwin"
    (tmp_path / "CMakeLists.txt").write_text(CMAKE.format(system=system, folder=folder))
    done = subprocess.run(["cmake", "-S", ".", "-B", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"-- (\w+)=(.*)", done.stdout))
    shared, *imports = (str(folder / file) for file in FILES[name])
    assert told == {"LOCATION": shared, "IMPLIB": imports[0] if imports else "found-NOTFOUND",
                    "SONAME": "@rpath/libtiny.dylib" if system == "Darwin" else "found-NOTFOUND"}


CONSUMER = """
__declspec(dllimport) void ExitProcess(unsigned);
int tiny_abi_version(void);
void start(void) { ExitProcess(100 + (unsigned)tiny_abi_version()); }
"""


@pytest.mark.slow
def test_a_windows_program_links_with_the_import_library(tmp_path, host_folder):
    host = windows_host(host_folder) if wine() else Path()
    path = shipped(tmp_path, WINDOWS)
    (tmp_path / "main.c").write_text(CONSUMER)
    zig(tmp_path, "cc", "-c", "-target", "x86_64-windows-gnu", "-O1", "-ffreestanding", "main.c", "-o", "main.obj")
    zig(tmp_path, "lld-link", "/subsystem:console", "/entry:start", "/nodefaultlib", "/out:main.exe", "main.obj",
        "tiny.lib", str(host.parent / "kernel32.lib"))
    done = in_wine(path.parent / "main.exe", tmp_path, host.parent)
    assert done.returncode == 100 + CLibrary("tiny", ()).abi_version, done.stderr


def test_the_same_input_gives_the_same_bytes(files, tmp_path):
    name, folder = files
    shipped(tmp_path / "again", [name], linker="ziglang")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_only_public_names_can_be_seen(files):
    name, folder = files
    data = (folder / FILES[name][0]).read_bytes()
    exports, imports = {"coff": pe_names, "macho": macho_names, "wasm": wasm_names}[target(name).object_format](data)
    more = {"wasm": {"memory", "__heap_base"}, "macho": {"_mh_dylib_header", "__dso_handle"}}  # every image's own
    more = more.get(target(name).object_format, set())
    assert exports == PUBLIC | more
    assert imports <= {"dyld_stub_binder"}  # which every library for macOS asks of the system, and ours never call


def pe_names(data: bytes) -> tuple[set[str], set[str]]:
    """The exported names of a DLL, and whether it imports any; its own name and entry point are looked at."""
    header = struct.unpack_from("<I", data, 0x3C)[0] + 24
    assert data[header - 24:header - 20] == b"PE\0\0"
    assert struct.unpack_from("<I", data, header + 16)[0] == 0, "a library without an entry point"
    export, imports = (struct.unpack_from("<I", data, header + 112 + 8 * k)[0] for k in (0, 1))
    image = flat(data)
    assert text_at(image.memory, struct.unpack_from("<I", image.memory, export + 12)[0]) == "tiny.dll"
    return set(image.exports), set() if imports == 0 else {"some"}


def macho_names(data: bytes) -> tuple[set[str], set[str]]:
    """What an image exports and leaves open; its install name, its libraries and its signature are looked at."""
    undefined, libraries, is_signed = set(), [], False
    for command, at in commands(data):
        if command in (0xD, 0xC):  # its own name, and those of libraries that it needs
            libraries.append(text_at(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif command == 2:
            symbols, n, strings, _ = struct.unpack_from("<4I", data, at + 8)
            for k in range(n):
                name, what = struct.unpack_from("<IB", data, symbols + 16 * k)
                if what & 0xE == 0 and what & 1 and not what & 0xE0:
                    undefined.add(text_at(data, strings + name))
        elif command == 0x1D:
            check_signature(data, *struct.unpack_from("<2I", data, at + 8))
            is_signed = True
    is_arm = struct.unpack_from("<I", data, 4)[0] == 0x0100000C
    assert is_signed or not is_arm, "macOS starts nothing for arm64 that is not signed"
    assert libraries == ["@rpath/libtiny.dylib", "/usr/lib/libSystem.B.dylib"]
    return set(flat(data).exports), undefined


def check_signature(data: bytes, at: int, size: int) -> None:
    """An ad-hoc signature is the SHA-256 of every page (big-endian; cs_blobs.h of XNU)."""
    assert struct.unpack_from(">I", data, at)[0] == 0xFADE0CC0
    start = at + struct.unpack_from(">I", data, at + 16)[0]
    _, _, _, flags, hashes, _, _, pages, limit = struct.unpack_from(">9I", data, start)
    assert flags & 2 and limit == at  # ad hoc, and all that lies before it
    page = 1 << data[start + 39]
    for k in range(pages):
        found = hashlib.sha256(data[k * page:min(limit, (k + 1) * page)]).digest()
        assert data[start + hashes + 32 * k:start + hashes + 32 * (k + 1)] == found, k


def wasm_names(data: bytes) -> tuple[set[str], set[str]]:
    """Sections are a number, a length and contents; 2 has imports, 7 exports: name, kind, index."""
    assert data[:8] == b"\0asm\1\0\0\0"
    at, exports, imports = 8, set(), set()
    while at < len(data):
        kind, (size, start) = data[at], number_at(data, at + 1)
        if kind == 2:
            imports.add("some")
        if kind == 7:
            count, place = number_at(data, start)
            for _ in range(count):
                length, place = number_at(data, place)
                exports.add(data[place:place + length].decode())
                _, place = number_at(data, place + length + 1)
        at = start + size
    return exports, imports


def test_files_tell_what_they_hold(files):
    name, folder = files
    path = folder / FILES[name][0]
    told = gc.inspect_library(path)
    assert [entry.name for entry in told.entries] == ["predict", "step"] and told.targets[0].name == name
    assert [a.name for a in told.state] == ["layer/w", "layer/b"]
    assert f"target     {name}" in str(told) and "step(x: float32[batch, 4]" in str(told)
    system = {"coff": "Windows", "macho": "macOS", "wasm": "WebAssembly"}[target(name).object_format]
    for refused in (gc.load_library, lambda path: gc.update_weights(path, {})):
        with pytest.raises(gc.GraphError, match=f"is for {system}: inspect_library tells"):
            refused(path)
    data = path.read_bytes()
    for damaged in (data[:64], data.replace(b"layer/w", b"layer/v")):
        (folder.parent / "damaged").write_bytes(damaged)
        with pytest.raises(gc.GraphError, match=r"no description|its sum differs"):
            gc.inspect_library(folder.parent / "damaged")


def test_parts_for_who_links_themselves(tmp_path):
    for name in FILES:
        folder = tmp_path / name
        shipped(folder, [name], emit=["a", "o", "ll", "s"], weights="data")
        end = "obj" if name.endswith("windows") else "o"
        there = {p.name for p in folder.iterdir()}
        assert {"libtiny.a", "tiny_entries.ll", "tiny_code0.s", f"tiny_code0.{end}", f"tiny_data.{end}"} <= there
        assert (folder / "libtiny.a").read_bytes().startswith(b"!<arch>\n")
        assert np.full(4, 0.5, "f").tobytes() in (folder / f"tiny_data.{end}").read_bytes()


@pytest.mark.parametrize("name", ["wasm32", "windows"])
def test_static_libraries_link(tmp_path, host_folder, name):
    """An archive, and what a compiler has of its own, make the library again."""
    run, targets = runner(name, host_folder), MACHINES[name]
    chosen = target(targets[0])
    path = shipped(tmp_path, targets, emit=["a"], weights="data")
    (tmp_path / "again").mkdir()
    objects = [("libtiny.a", (tmp_path / "libtiny.a").read_bytes()), ("runtime.o", runtime_object(chosen))]
    functions = [f"tiny_{end}" for end in ("predict", "predict_workspace_size")]
    again = tmp_path / "again" / path.name
    again.write_bytes(formats.linked(chosen, "tiny", objects, functions, [])[path.name])
    found = []
    for library in (path, again):
        job = Job(chosen.pointer_bytes)
        x, scores, room = job.array(XS), job.room(4 * len(XS) * 3), job.room(4096)
        state = job.pointers(job.array(np.ones((4, 3), "f")), job.array(np.ones(3, "f")))
        job.call("tiny_predict_workspace_size", len(XS))
        job.call("tiny_predict", len(XS), x, scores, state, room)
        done = run(library, job)
        assert done.results[0] <= 4096 and done.statuses[1] == 0
        found.append(done.bytes_of(scores))
    assert found[0] == found[1] != bytes([0x5A]) * len(found[0])


# -- what is brought along --
def test_blobs_of_any_length_are_where_they_belong(tmp_path, host_folder):
    rng = np.random.default_rng(0)
    blobs = {f"blob{n}": rng.bytes(n) for n in (0, 1, 15, 16, 17, 64, 1000, 100_000)}
    text = "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n"
    for name, data in blobs.items():
        text += (f"@{name} = external hidden constant i8, align 64\ndefine i64 @{name}_to(ptr %to) {{\n"
                 f"  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr @{name}, i64 {len(data)}, i1 false)\n"
                 f"  %low = ptrtoint ptr @{name} to i64\n  %rest = and i64 %low, 63\n  ret i64 %rest\n}}\n")
    run = runner("wasm32", host_folder)
    path = linked(tmp_path, "wasm32", text, [f"{name}_to" for name in blobs], blobs)
    job = Job(4)
    rooms = {name: job.room(len(data)) for name, data in blobs.items()}
    for name, room in rooms.items():
        job.call(f"{name}_to", room)
    done = run(path, job)
    assert done.results == (0,) * len(blobs)
    assert {name: done.bytes_of(room) for name, room in rooms.items()} == blobs
    for other in FILES:
        image = linked(tmp_path, other, text, [f"{name}_to" for name in blobs], blobs).read_bytes()
        assert all(data in image for data in blobs.values()), other


def test_wide_products_on_wasm(tmp_path, host_folder):
    run = runner("wasm32", host_folder)
    text = """define void @wide(ptr %to, ptr %a, ptr %b) {
  %x = load i128, ptr %a, align 8
  %y = load i128, ptr %b, align 8
  %z = mul i128 %x, %y
  store i128 %z, ptr %to, align 8
  ret void
}
define i32 @times(ptr %to, ptr %a, ptr %b) {
  call void @wide(ptr %to, ptr %a, ptr %b)
  ret i32 0
}
"""
    path = linked(tmp_path, "wasm32", text, ["times"], {})
    edges = [0, 1, 2**32 - 1, 2**32, 2**64 - 1, 2**64, 2**127, 2**128 - 1, 0x0123456789ABCDEFFEDCBA9876543210]
    pairs = [(a, b) for a in edges for b in edges]
    job = Job(4)
    rooms = [job.room(16) for _ in pairs]
    for room, (a, b) in zip(rooms, pairs):
        job.call("times", room, job.put(a.to_bytes(16, "little")), job.put(b.to_bytes(16, "little")))
    done = run(path, job)
    for room, (a, b) in zip(rooms, pairs):
        assert int.from_bytes(done.bytes_of(room), "little") == a * b % 2**128


LARGE_FRAME = """
define i32 @deep(ptr %out, i64 %n) {
  %room = alloca [300000 x i8], align 64
  %more = alloca i8, i64 %n, align 16
  store volatile i8 1, ptr %room
  store volatile i8 2, ptr %more
  %a = load volatile i8, ptr %room
  %b = load volatile i8, ptr %more
  %c = add i8 %a, %b
  store i8 %c, ptr %out
  ret i32 0
}
"""


@pytest.mark.slow
def test_large_frames_on_windows(tmp_path, host_folder):
    run = runner("windows", host_folder)
    path = linked(tmp_path, "x86-64-v2-windows", LARGE_FRAME, ["deep"], {})
    job = Job(8)
    rooms = [job.room(1) for _ in range(6)]
    for room, n in zip(rooms, (1, 4095, 4096, 4097, 8192, 400_000)):
        job.call("deep", room, n)
    done = run(path, job)
    assert [done.bytes_of(room) for room in rooms] == [b"\3"] * 6


def test_the_probe_for_arm_is_what_it_says(tmp_path):
    if shutil.which("llvm-objdump") is None:
        pytest.skip("no llvm-objdump here")
    (tmp_path / "a.obj").write_bytes(runtime_object(target("aarch64-windows")))
    said = subprocess.run(["llvm-objdump", "-d", "--no-show-raw-insn", "--disassemble-symbols=__chkstk",
                           str(tmp_path / "a.obj")], capture_output=True, text=True, check=True).stdout
    lines = [" ".join(line.split("//")[0].split()[1:]) for line in said.splitlines() if re.match(r" +[0-9a-f]+:", line)]
    assert [re.sub(r"0x[0-9a-f]+ <__chkstk\+(0x[0-9a-f]+)>", r"\1", line) for line in lines[:9]] == [
        "sub x16, sp, x15, lsl #4", "mov x17, sp", "sub x17, x17, #1, lsl #12", "cmp x17, x16", "b.ls 0x1c",
        "ldr xzr, [x17]", "b 0x8", "ldr xzr, [x16]", "ret"]


def test_what_cannot_be_linked_is_named(tmp_path):
    text = "declare i32 @elsewhere(i32)\ndefine i32 @f(i32 %x) {\n  %y = call i32 @elsewhere(i32 %x)\n  ret i32 %y\n}\n"
    for name in FILES:
        with pytest.raises(gc.Unsupported, match=r"calls elsewhere, which libraries .* \(stage: linking\)"):
            linked(tmp_path, name, text, ["f"], {})
    assert list(tmp_path.iterdir()) == []


# -- the command line --
def test_from_a_saved_graph(tmp_path, capsys):
    with gc.Graph():
        x = gc.placeholder("float64", ("n",), name="x")
        y = x * x
        gc.save_graph(tmp_path / "model.gcm", y, entries={"square": gc.signature([x], y, names=["y"])})
    assert main(["compile", str(tmp_path / "model.gcm"), "-o", str(tmp_path / "build"), "--target", "wasm32"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'build' / 'model.wasm'}\n"
    assert main(["inspect", str(tmp_path / "build" / "model.wasm")]) == 0
    assert "square(x: float64[n]) -> y: float64[n]" in capsys.readouterr().out


def test_a_training_step_needs_the_word(tmp_path, capsys):
    with gc.Graph():
        entries = model()
        gc.save_graph(tmp_path / "model.gcm", list(entries["predict"].outputs), entries=entries)
    arguments = ["compile", str(tmp_path / "model.gcm"), "-o", str(tmp_path / "build"), "--target", "x86-64-v3-windows"]
    assert main(arguments) == 2 and "(--freestanding)" in capsys.readouterr().err
    assert main([*arguments, "--freestanding"]) == 0
    assert (tmp_path / "build" / "model.dll").exists()


# -- what is refused --
@pytest.mark.parametrize("options, text", [
    ({"freestanding": False}, r"freestanding=True \(--freestanding\) leaves them out, .* keeps .* layer_w, layer_b"),
    ({"threads": 2}, "threads=2"),
    ({"weights": "file", "freestanding": False}, "weights='file' needs functions that read files"),
    ({"debug": True}, "have no lines for debuggers"),
    ({"linker": "cc"}, "linker='cc' makes ELF; files for wasm32 are linked by 'ziglang'")])
def test_what_these_systems_do_not_have(tmp_path, options, text):
    with pytest.raises(gc.GraphError, match=text):
        shipped(tmp_path, ["wasm32"], **options)
    assert list(tmp_path.iterdir()) == []


def test_one_file_is_for_one_system(tmp_path):
    with pytest.raises(gc.GraphError, match="of one architecture and system"):
        shipped(tmp_path, ["x86-64-v3", "x86-64-v2-windows"])


def test_without_ziglang_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(gc.GraphError, match=r"'aarch64-macos' needs the package ziglang: pip install graphc\[aot\]"):
        shipped(tmp_path, ["aarch64-macos"])


@pytest.mark.parametrize("name", ["wasm32", "x86-64-v2-windows", "x86-64-v2-macos"])
def test_a_session_does_not_run_such_code(name):
    with gc.Graph():
        x = gc.placeholder("float32", (3,), name="x")
        with gc.Session(target=name) as sess, pytest.raises(gc.GraphError, match=f"code for {name} cannot run here"):
            sess.function([x], x + 1)(np.ones(3, "f"))


def test_every_target_has_a_name_of_its_own():
    assert all(name == chosen.name for name, chosen in KNOWN.items())
    assert {chosen.object_format for chosen in KNOWN.values()} == set(formats.FORMATS)
