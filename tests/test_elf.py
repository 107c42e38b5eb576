"""The linker: libraries made of LLVM's objects are loaded in a child process and called; other tools accept them."""

from __future__ import annotations

import ctypes.util
import hashlib
import os
from pathlib import Path
import shutil
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest

from codegen.elf import Blob, LinkError, link, write_library
from codegen.elf.dynamic import gnu_hash, hash_table
from tests.elf_programs import CALLS, EXPORTS, FIRST, LIBC, SECOND, SMALL, WEIGHTS, child, compiled, first_library
from tests.elf_programs import runs_here, tool


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elf") / "libfirst.so"
    path.write_bytes(first_library())
    return path


@runs_here
def test_code_data_and_blobs(library: Path) -> None:
    child(CALLS, library)


@runs_here
@pytest.mark.parametrize("model", ["medium", "large"])
def test_other_code_models(tmp_path: Path, model: str) -> None:
    path = tmp_path / "libmodel.so"
    objects = [compiled(FIRST, model=model), compiled(SECOND, model=model)]
    write_library(path, objects, exports=EXPORTS, blobs={"weights": WEIGHTS, "more": SMALL})
    child(CALLS, path)


@runs_here
def test_imports(tmp_path: Path) -> None:
    path = tmp_path / "libc_user.so"
    write_library(path, [compiled(LIBC)], exports=["copy", "release", "address"], needed=["libc.so.6"],
                  imports={"malloc", "memcpy", "free", "getenv", "unused"})
    child("""
lib, libc = CDLL(sys.argv[1], os.RTLD_NOW), CDLL(None)
lib.copy.restype = lib.address.restype = c_void_p
p = lib.copy(b"some bytes", c_size_t(11))
assert string_at(p) == b"some bytes"
lib.release(c_void_p(p))
assert lib.address() == cast(libc.malloc, c_void_p).value
""", path)


@runs_here
def test_only_exports_can_be_found(tmp_path: Path) -> None:
    names = [f"function_{i * i}" for i in range(300)]
    text = "\n".join(f"define i32 @{name}() {{ ret i32 {i} }}" for i, name in enumerate(names))
    path = tmp_path / "libmany.so"
    write_library(path, [compiled(text)], exports=names[::2])
    child("""
lib = CDLL(sys.argv[1])
for i in range(300):
    name = f"function_{i * i}"
    assert hasattr(lib, name) == (i % 2 == 0), name
    assert i % 2 or lib[name]() == i
assert not hasattr(lib, "other")
""", path)


def test_gnu_hash_of_known_names() -> None:
    assert [gnu_hash(name) for name in ("", "printf", "exit", "syscall", "flapenguin.me")] == [
        0x1505, 0x156B2BB8, 0x7C967E3F, 0xBAC212A0, 0x8AE9F18E]


def test_hash_table_can_be_searched() -> None:
    """Walks the table as a loader does, the filter apart, so that wrong ends of chains show."""
    for count, buckets in ((0, 1), (1, 1), (7, 3), (300, 75)):
        hashes = sorted((gnu_hash(f"name_{i}") for i in range(count)), key=lambda value: value % buckets)
        words = struct.unpack_from("<4I", table := hash_table(hashes, buckets=buckets, first=5))
        assert words[:2] == (buckets, 5) and words[2] & (words[2] - 1) == 0
        bloom = struct.unpack_from(f"<{words[2]}Q", table, 16)
        heads = struct.unpack_from(f"<{buckets}I", table, 16 + 8 * words[2])
        chain = [row for row, in struct.iter_unpack("<I", table[16 + 8 * words[2] + 4 * buckets:])]
        found = []
        for bucket, row in enumerate(heads):
            while row:
                assert hashes[row - 5] % buckets == bucket and (chain[row - 5] ^ hashes[row - 5]) < 2
                found.append(hashes[row - 5])
                row = 0 if chain[row - 5] & 1 else row + 1
        assert found == hashes and len(chain) == count
        for value in hashes:
            word = bloom[value // 64 % words[2]]
            assert word >> value % 64 & 1 and word >> (value >> words[3]) % 64 & 1


@runs_here
def test_library_without_data_or_exports(tmp_path: Path) -> None:
    for i, (text, exports) in enumerate((
            ("define i32 @f() { ret i32 3 }", ["f"]), ("define i32 @f() { ret i32 3 }", []),
            ("@b = global [9 x i64] zeroinitializer, align 64", ["b"]), ("@b = global i32 7", ["b"]),
            ("define void @nothing() { unreachable }", ["nothing"]))):
        path = tmp_path / f"lib{i}.so"
        write_library(path, [compiled(text)], exports=exports)
        child("lib = CDLL(sys.argv[1])\nfor n in sys.argv[2:]: assert c_int.in_dll(lib, n) is not None", path, *exports)


@runs_here
def test_weak_definitions(tmp_path: Path) -> None:
    weak = "define weak i32 @f() { ret i32 1 }\ndefine i32 @g() { %v = call i32 @f()\n ret i32 %v }"
    path = tmp_path / "libweak.so"
    for objects, expected in (([weak], 1), ([weak, "define i32 @f() { ret i32 2 }"], 2),
                              ([weak, "define weak i32 @f() { ret i32 3 }"], 1)):
        write_library(path, [compiled(text) for text in objects], exports=["f", "g"])
        child("lib = CDLL(sys.argv[1]); assert lib.f() == lib.g() == int(sys.argv[2])", path, expected)


@runs_here
def test_pages_are_never_writable_and_executable(library: Path) -> None:
    out = child("CDLL(sys.argv[1])\nprint(open('/proc/self/maps').read())", library)
    modes = [line.split()[1] for line in out.splitlines() if str(library) in line]
    assert len(modes) >= 4 and {"r-xp", "rw-p", "r--p"} == set(modes), modes


@runs_here
@pytest.mark.parametrize("what", ["the_table", "the_weights", "hello"])
def test_constants_cannot_be_written(library: Path, what: str) -> None:
    child("lib = CDLL(sys.argv[1])\nf = lib[sys.argv[2]]\nf.restype = c_void_p\nmemset(f(), 0, 1)", library, what,
          expect=-11)


@runs_here
def test_unwinder_finds_every_function(library: Path) -> None:
    if ctypes.util.find_library("gcc_s") is None:
        pytest.skip("no libgcc_s here")
    child("""
lib, gcc = CDLL(sys.argv[1]), CDLL("libgcc_s.so.1")
gcc._Unwind_Find_FDE.restype = c_void_p
for name in ("triple", "second", "choose"):
    bases = (c_void_p * 3)()
    start = cast(lib[name], c_void_p).value
    assert gcc._Unwind_Find_FDE(c_void_p(start + 1), bases), name
    assert bases[2] == start, (name, bases[2], start)
""", library)


# -- other programs --

def test_readelf_has_no_complaint(library: Path, tmp_path: Path) -> None:
    text = tool("readelf", "-aW", library)
    for part in ("libfirst.so", "BIND_NOW", "GNU_RELRO", "GNU_STACK", "Build ID: ", ".blobs", "INIT_ARRAYSZ"):
        assert part in text
    assert "TEXTREL" not in text and "RWE" not in text
    arm = tmp_path / "libarm.so"
    arm.write_bytes(first_library("aarch64"))
    assert "AArch64" in tool("readelf", "-aW", arm)


def test_symbols_for_the_loader_and_for_debuggers(library: Path) -> None:
    assert {line.split()[-1] for line in tool("nm", "-D", library).splitlines()} == set(EXPORTS)
    rows = {line.split()[-1]: line.split()[-2] for line in tool("nm", library).splitlines()}
    assert rows["triple"] == "T" and rows["plus5"] == "t" and rows["weights"] == "r" and rows["zeros"] == "b"
    assert rows["counter"] == "d" and rows["table"] == "d"
    assert "<triple>:" in tool("objdump", "-d", library)


@runs_here
@pytest.mark.parametrize("option", ["--strip-all", "--strip-debug"])
def test_stripped_library_still_works(library: Path, tmp_path: Path, option: str) -> None:
    path = tmp_path / "libstripped.so"
    tool("strip", option, "-o", path, library)
    child(CALLS, path)


@runs_here
@pytest.mark.parametrize("linker", ["bfd", "gold"])
def test_c_program_linked_against_it(library: Path, tmp_path: Path, linker: str) -> None:
    if linker == "gold" and shutil.which("ld.gold") is None:
        pytest.skip("no ld.gold here")
    source = tmp_path / "main.c"
    source.write_text("double direct(double); long count(void);\n"
                      "int main(void) { return direct(0.5) == 150.0 && count() == 21 ? 0 : 1; }\n")
    shutil.copy(library, tmp_path / "libfirst.so")
    tool("cc", "-Wall", f"-fuse-ld={linker}", "-o", tmp_path / "main", source, "-L", tmp_path, "-lfirst",
         f"-Wl,-rpath,{tmp_path},--fatal-warnings")
    assert subprocess.run([tmp_path / "main"], timeout=60, check=False).returncode == 0
    if shutil.which("valgrind"):
        done = subprocess.run(["valgrind", "-q", "--error-exitcode=9", tmp_path / "main"], timeout=100, check=False,
                              capture_output=True)
        assert done.returncode == 0, done.stderr


def test_debugger_reads_symbols(library: Path) -> None:
    out = tool("gdb", "-nx", "-batch", "-ex", "info symbol triple", "-ex", "disassemble triple", library)
    assert "triple in section .text" in out and "ret" in out


# -- the file --

def test_same_input_gives_same_bytes() -> None:
    assert first_library() == first_library()
    again = child("import tests.elf_programs as t, hashlib; print(hashlib.sha256(t.first_library()).hexdigest())")
    assert again.strip() == hashlib.sha256(first_library()).hexdigest()


def test_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(b"old")
    with pytest.raises(LinkError):
        write_library(path, [compiled(SECOND)], exports=["bump"])
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["lib.so"]
    objects = [compiled("define void @f() { ret void }")]
    write_library(path, objects, exports=["f"])
    assert path.read_bytes() == link(objects, exports=["f"]) and os.listdir(tmp_path) == ["lib.so"]
    assert os.stat(path).st_mode & 0o500 == 0o500
    (tmp_path / "folder").mkdir()
    with pytest.raises(LinkError, match="is a folder"):
        write_library(tmp_path / "folder", objects, exports=["f"])
    with pytest.raises(FileNotFoundError):
        write_library(tmp_path / "none" / "lib.so", objects, exports=["f"])
    assert sorted(os.listdir(tmp_path)) == ["folder", "lib.so"]


def test_failed_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_library(tmp_path / "lib.so", [compiled("define void @f() { ret void }")], exports=["f"])
    assert os.listdir(tmp_path) == []


@runs_here
def test_large_blobs_are_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "libbig.so"
    text = FIRST.replace("@more = external global", "@more = internal global").replace(
        "[0 x i16]\n", "[0 x i16] zeroinitializer\n")
    big = np.arange(25_000_000, dtype=np.float32)
    objects = [compiled(text), compiled(SECOND)]
    tracemalloc.start()
    write_library(path, objects, exports=EXPORTS, blobs={"weights": big})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20 and path.stat().st_size > big.nbytes
    child("lib = CDLL(sys.argv[1]); lib.weight.restype = c_float\n"
          "assert lib.weight(c_int64(10_000_001)) == 10_000_001 and lib.choose(4) == 55", path)


@runs_here
def test_blobs_of_every_kind(tmp_path: Path) -> None:
    blobs: dict[str, Blob] = {"a": b"bytes", "b": bytearray(b"array"), "c": memoryview(b"view"), "d": np.zeros((0, 3)),
                              "e": np.array(2.5), "f": np.arange(7, dtype=np.float16)}
    text = "\n".join(f"@{n} = external hidden global i8\ndefine ptr @get_{n}() {{ ret ptr @{n} }}" for n in blobs)
    path = tmp_path / "libblobs.so"
    write_library(path, [compiled(text)], exports=[f"get_{n}" for n in blobs], blobs=blobs)
    expected = [blob.tobytes() if isinstance(blob, np.ndarray) else bytes(blob) for blob in blobs.values()]
    child("""
lib = CDLL(sys.argv[1])
for name, value in zip("abcdef", eval(sys.argv[2])):
    f = lib["get_" + name]; f.restype = c_void_p
    assert f() % 64 == 0 and string_at(f(), len(value)) == value, name
""", path, expected)
