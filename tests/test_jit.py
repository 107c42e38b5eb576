"""Code in this process: compiling, linking, loading and dropping it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

from codegen.elf import LinkError, link
from codegen.elf.load import HOST, Mapped, load_image, place, process_symbol
from codegen.jit import compile_text, content_key, image_of, load
from codegen.target import KNOWN, target
import graphc as gc
import numpy as np
import pytest

from tests.elf_programs import compiled

TEXT = "define i64 @f(i64 %x) {\n  %y = mul i64 %x, 3\n  ret i64 %y\n}\n"
OTHER, OTHER_NAME = {"x86_64": ("aarch64", "aarch64"), "aarch64": ("x86_64", "x86-64-v2")}[HOST]


def called(text: str, name: str, result: object, *arguments: object, symbols: dict[str, int] | None = None) -> object:
    """The result of a function of a module of text IR; arguments are ctypes values."""
    loaded = load(compile_text(text, target()), [name], target(), symbols or {})
    return loaded.function(name, result, *map(type, arguments))(*arguments)  # type: ignore[operator]


# -- loading --
def test_load_and_call() -> None:
    assert called(TEXT, "f", ctypes.c_int64, ctypes.c_int64(14)) == 42


def test_functions_of_this_process_are_found() -> None:
    text = """
        declare double @atan2(double, double)
        declare double @fma(double, double, double)
        declare ptr @memmove(ptr, ptr, i64)
        define double @f(double %x) {
          %a = call double @atan2(double %x, double 2.0)
          %b = call double @fma(double %a, double 2.0, double 1.0)
          ret double %b
        }
        define ptr @where() {
          ret ptr @memmove
        }
        """
    assert called(text, "f", ctypes.c_double, ctypes.c_double(3.0)) == 2 * np.arctan2(3.0, 2.0) + 1
    assert called(text, "where", ctypes.c_void_p) == process_symbol("memmove")


def test_given_symbols_come_first_and_may_be_far_away() -> None:
    """Data through the global offset table, functions through a stub, both more than 2 GiB from the code."""
    @ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    def memmove(x: int) -> int:
        return x + 1000

    numbers = (ctypes.c_int64 * 3)(5, 6, 7)
    text = """
        @numbers = external constant i8, align 8
        declare i64 @memmove(i64)
        define i64 @f(i64 %k) {
          %p = getelementptr i64, ptr @numbers, i64 %k
          %x = load i64, ptr %p
          %y = call i64 @memmove(i64 %x)
          ret i64 %y
        }
        """
    address = ctypes.cast(memmove, ctypes.c_void_p).value
    assert address is not None
    symbols = {"numbers": ctypes.addressof(numbers), "memmove": address}
    assert called(text, "f", ctypes.c_int64, ctypes.c_int64(2), symbols=symbols) == 1007


def test_pointers_between_sections_and_zeroed_and_written_data() -> None:
    text = """
        @table = internal constant [2 x ptr] [ptr @first, ptr @second]
        @first = internal constant [3 x i32] [i32 10, i32 11, i32 12], align 64
        @second = internal global [2 x i32] [i32 20, i32 21], align 4
        @count = internal global i32 0, align 4
        define i32 @f(i64 %row, i64 %k) {
          %place = getelementptr ptr, ptr @table, i64 %row
          %data = load ptr, ptr %place
          %p = getelementptr i32, ptr %data, i64 %k
          %x = load i32, ptr %p
          %n = load i32, ptr @count
          %m = add i32 %n, 100
          store i32 %m, ptr @count
          %y = add i32 %x, %n
          ret i32 %y
        }
        """
    loaded = load(compile_text(text, target()), ["f"], target())
    f = loaded.function("f", ctypes.c_int32, ctypes.c_int64, ctypes.c_int64)
    assert [f(0, 2), f(1, 1), f(0, 0)] == [12, 121, 210]  # type: ignore[operator]


def test_no_page_is_writable_and_executable() -> None:
    text = "@data = global i64 7\n" + TEXT + "define ptr @g() {\n  ret ptr @data\n}\n"
    loaded = load(compile_text(text, target()), ["f", "g", "data"], target())
    data = loaded.function("g", ctypes.c_void_p)()  # type: ignore[operator]
    assert data == loaded.addresses["data"]
    rights = {name: rights_at(loaded.addresses[name]) for name in ("f", "data")}
    assert rights == {"f": "r-xp", "data": "rw-p"}
    assert sorted(set(all_rights(loaded.memory))) == ["r--p", "r-xp", "rw-p"]


def rights_at(address: int) -> str:
    return next(rights for start, end, rights in mappings() if start <= address < end)


def all_rights(mapped: Mapped) -> list[str]:
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped.memory))
    return [rights for low, high, rights in mappings() if low < start + len(mapped.memory) and start < high]


def mappings() -> Iterator[tuple[int, int, str]]:
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        span, rights = line.split()[:2]
        start, _, end = span.partition("-")
        yield int(start, 16), int(end, 16), rights


def test_undefined_symbols_are_named() -> None:
    text = "declare i64 @nobody_has_this(i64)\ndefine i64 @f(i64 %x) {\n  %y = call i64 @nobody_has_this(i64 %x)\n" \
           "  ret i64 %y\n}\n"
    with pytest.raises(LinkError, match="load: undefined symbol 'nobody_has_this'"):
        load(compile_text(text, target()), ["f"], target())
    weak = text.replace("declare i64", "declare extern_weak i64")
    load(compile_text(weak, target()), ["f"], target())


def test_constructors_are_refused() -> None:
    text = TEXT + """
        @llvm.global_ctors = appending global [1 x {i32, ptr, ptr}] [{i32, ptr, ptr} {i32 65535, ptr @c, ptr null}]
        define internal void @c() {
          ret void
        }
        """
    with pytest.raises(LinkError, match="constructors"):
        load(compile_text(text, target()), ["f"], target())


def test_code_for_another_machine_is_refused() -> None:
    with pytest.raises(LinkError, match=f"the object is for {OTHER}, this machine is {HOST}"):
        load_image(image_of(compiled(TEXT, OTHER_NAME), ["f"]), {})
    with gc.Graph(), gc.Session(target=OTHER_NAME) as session:
        x = gc.placeholder("float32", (3,), name="x")
        with pytest.raises(gc.GraphError, match=f"code for {OTHER_NAME} cannot run here"):
            session.function([x], x + 1)


@pytest.mark.parametrize("name", ["x86-64-v2", "aarch64"])
def test_words_are_patched_for_any_base(name: str) -> None:
    """The loader's own work, for both machines: addresses of symbols, with addends, and of the object's own data."""
    text = """
        @outside = external global i8
        @inside = global i64 7
        @table = constant [3 x ptr] [ptr getelementptr (i8, ptr @outside, i64 5), ptr @inside, ptr @f]
        define ptr @f() {
          ret ptr @outside
        }
        """
    image = image_of(compiled(text, name), ["f", "table", "inside"])
    for base in (0x10000, 0x7F0012340000):
        memory = bytearray(1 << 20)
        found = place(image, memory, base, {"outside": 0xABCDEF0})
        at = found["table"] - base
        words = [int.from_bytes(memory[at + 8 * k:at + 8 * k + 8], "little") for k in range(3)]
        assert words == [0xABCDEF5, found["inside"], found["f"]]
        assert memory.count((0xABCDEF0).to_bytes(8, "little")) == 1  # the slot of the global offset table


def test_a_file_of_another_type_is_refused() -> None:
    with pytest.raises(LinkError, match="expected a shared object"):
        load_image(compile_text(TEXT, target()), {})
    assert load_image(link([compile_text(TEXT, target())], exports=["f"]), {}).addresses.keys() == {"f"}


# -- dropping --
def megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status[status.index("VmRSS:") + 6:].split()[0]) / 1024


def test_dropped_code_gives_its_memory_back() -> None:
    image = image_of(compile_text(TEXT, target()), ["f"])
    before = len(list(mappings()))
    loaded = [load_image(image, {}) for _ in range(50)]
    assert len(list(mappings())) >= before + 50
    del loaded
    assert len(list(mappings())) < before + 25


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_programs_leave_nothing_behind(count: int) -> None:
    """Each of its own text, compiled, linked, loaded, called and dropped: at most 5 MiB of a thousand."""
    def cycle(k: int) -> None:
        assert called(TEXT.replace("3", str(k)), "f", ctypes.c_int64, ctypes.c_int64(2)) == 2 * k

    for k in range(100):
        cycle(k)
    before = megabytes()
    for k in range(count):
        cycle(k)
    assert megabytes() - before <= 1 + count / 250


@pytest.mark.slow
def test_sessions_leave_nothing_behind() -> None:
    def cycle(k: int) -> None:
        with gc.Graph(), gc.Session(cache="off") as session:
            x = gc.placeholder("float64", ("n",), name="x")
            f = session.function([x], gc.sum(x * float(k)))
            assert f(np.ones(3)) == f(np.ones(3)) == 3 * k

    for k in range(100):
        cycle(k)
    before = megabytes()
    for k in range(1000):
        cycle(k)
    assert megabytes() - before <= 5


# -- targets --
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
