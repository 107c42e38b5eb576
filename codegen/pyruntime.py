"""What emitted calls have in common, as one module that is loaded once in a process and stays.

    ptr graphc_slow(ptr self, ptr args, i64 nargs, ptr kwnames)   the vectorcall function that calls the method `slow`
    ptr graphc_take(ptr gate, i64 nbytes)                         an arena from the gate's list, or a new one, or null
    void graphc_give(ptr gate, ptr arena)                         puts it back
    void graphc_free(ptr gate)                                    frees all arenas that are in the list

Threads that call these hold the GIL, which guards the list.  An arena is 64-byte aligned; before it are its links.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
import sys
from typing import Any

from .cache import Cache
from .elf.load import HOST
from .jit import content_key, loaded_image, made_image
from .pyobjects import LENGTH, P, call_symbols, python_api
from .target import HOSTS
from .text import Function, Int, Module

GATE = {"held": 0, "free": 1}  # words: how often the variables are locked; the first arena that is free
LINKS = {"next": -3, "nbytes": -2, "block": -1}  # words before an arena; block: what to free
ALIGN = 64
ROOM = ALIGN + 8 * len(LINKS)
HUGE = 1 << 22  # bytes from which huge pages are asked for
PAGE, ADVICE = 4096, 14  # MADV_HUGEPAGE of Linux
NAMES = ("graphc_slow", "graphc_take", "graphc_give", "graphc_free")


@dataclass(frozen=True)
class Runtime:
    """Addresses, and functions for Python."""

    addresses: dict[str, int]
    take: Any
    give: Any
    free: Any


LOADED: list[Runtime] = []  # the one of this process, once it is needed


def runtime(cache: Cache) -> Runtime:
    """The loaded module.  Its code is never unloaded: objects that are called while Python ends may still reach it."""
    if not LOADED:
        LOADED.append(load_runtime(cache))
    return LOADED[0]


def load_runtime(cache: Cache) -> Runtime:
    module, host = Module(), HOSTS[HOST]
    for write in (emit_slow, emit_take, emit_give, emit_free):
        write(module)
    text = module.text()
    image = cache.made("code", content_key(text, host) + "-image", lambda: made_image(text, NAMES, host))
    symbols = dict(call_symbols())
    if sys.platform == "linux":
        symbols["madvise"] = ctypes.cast(ctypes.CDLL(None).madvise, P).value or 0
    loaded = loaded_image(image, symbols)
    python_api("Py_IncRef", None, ctypes.py_object)(loaded)
    take, give, free = (loaded.addresses[f"graphc_{name}"] for name in ("take", "give", "free"))
    return Runtime(loaded.addresses, ctypes.PYFUNCTYPE(P, P, ctypes.c_int64)(take),
                   ctypes.PYFUNCTYPE(None, P, P)(give), ctypes.PYFUNCTYPE(None, P)(free))


def emit_slow(module: Module) -> None:
    """Calls the method `slow` of the object with the same arguments."""
    f = Function(module, "define ptr @graphc_slow(ptr %self, ptr %args, i64 %nargs, ptr %kwnames) #0")
    plain = f.value(f"and i64 %nargs, {(1 << 63) - 1}")  # without the mark that args[-1] may be written to
    none = f.value("icmp eq ptr %kwnames, null")
    named = f.choose(none, ["i64"], lambda: [0], lambda: [f.value(f"load i64, ptr {length(f, '%kwnames')}, align 8")])
    total = f.value(f"add i64 {plain}, {named[0]}")
    room = f.value(f"alloca ptr, i64 {f.value(f'add i64 {total}, 1')}, align 8")
    f.emit(f"store ptr %self, ptr {room}, align 8")

    def copy(k: Int) -> list[Int]:
        value = f.value(f"load ptr, ptr {f.element('ptr', '%args', k)}, align 8")
        f.emit(f"store ptr {value}, ptr {f.element('ptr', room, f.add(k, 1))}, align 8")
        return []

    f.loop(0, total, 1, [], lambda k, _: copy(k))
    count = f.value(f"add i64 {plain}, 1")
    f.emit("ret ptr " + method(f, "slow", room, count, "%kwnames"))
    module.add("graphc_slow", f.text())


def method(f: Function, name: str, args: str, count: Int, kwnames: str = "null") -> str:
    """Calls a method of the object that is the first argument."""
    symbol = f"graphc_name_{name}"
    f.module.add_global(symbol, f"@{symbol} = external global i8")
    return f.call("ptr", "PyObject_VectorcallMethod", ("ptr", f"@{symbol}"), ("ptr", args), ("i64", count),
                  ("ptr", kwnames))


def length(f: Function, pointer: str) -> str:
    return f.element("i8", pointer, LENGTH)


def emit_take(module: Module) -> None:
    """The first free arena where it is large enough; else a new one in its place."""
    f = Function(module, "define ptr @graphc_take(ptr %gate, i64 %nbytes) #0")
    head = f.element("i64", "%gate", GATE["free"])
    first = f.value(f"load ptr, ptr {head}, align 8")
    some, new = f.new_label("some"), f.new_label("new")
    f.branch_if(f.value(f"icmp eq ptr {first}, null"), new, some)
    f.place(some)
    f.emit(f"store ptr {linked(f, first, 'next')}, ptr {head}, align 8")
    f.when(f.value(f"icmp sge i64 {linked(f, first, 'nbytes')}, %nbytes"), lambda: leave(f, first))
    f.call("void", "PyMem_RawFree", ("ptr", linked(f, first, "block")))
    f.branch(new)
    f.place(new)
    block = f.call("ptr", "PyMem_RawMalloc", ("i64", f.value(f"add i64 %nbytes, {ROOM}")))
    f.when(f.value(f"icmp eq ptr {block}, null"), lambda: leave(f, "null"))
    if sys.platform == "linux":
        f.when(f.value(f"icmp sge i64 %nbytes, {HUGE}"), lambda: ask_for_huge_pages(f, block))
    arena = rounded(f, f.value(f"add i64 {f.value(f'ptrtoint ptr {block} to i64')}, {8 * len(LINKS)}"), ALIGN)
    f.emit(f"store ptr {block}, ptr {link(f, arena, 'block')}, align 8")
    f.emit(f"store i64 %nbytes, ptr {link(f, arena, 'nbytes')}, align 8")
    f.emit(f"ret ptr {arena}")
    module.add("graphc_take", f.text())


def emit_give(module: Module) -> None:
    f = Function(module, "define void @graphc_give(ptr %gate, ptr %arena) #0")
    head = f.element("i64", "%gate", GATE["free"])
    f.emit(f"store ptr {f.value(f'load ptr, ptr {head}, align 8')}, ptr {link(f, '%arena', 'next')}, align 8")
    f.emit(f"store ptr %arena, ptr {head}, align 8")
    f.emit("ret void")
    module.add("graphc_give", f.text())


def emit_free(module: Module) -> None:
    f = Function(module, "define void @graphc_free(ptr %gate) #0")
    head = f.element("i64", "%gate", GATE["free"])
    again, some, none = (f.new_label(name) for name in ("again", "some", "none"))
    f.branch(again)
    f.place(again)
    first = f.value(f"load ptr, ptr {head}, align 8")
    f.branch_if(f.value(f"icmp eq ptr {first}, null"), none, some)
    f.place(some)
    f.emit(f"store ptr {linked(f, first, 'next')}, ptr {head}, align 8")
    f.call("void", "PyMem_RawFree", ("ptr", linked(f, first, "block")))
    f.branch(again)
    f.place(none)
    f.emit("ret void")
    module.add("graphc_free", f.text())


def ask_for_huge_pages(f: Function, block: str) -> None:
    """For the whole pages of a block; that the kernel refuses is no fault."""
    start = rounded(f, f.value(f"ptrtoint ptr {block} to i64"), PAGE)
    whole = f.value(f"and i64 {f.value(f'sub i64 %nbytes, {PAGE}')}, {-PAGE}")
    f.call("i32", "madvise", ("ptr", start), ("i64", whole), ("i32", ADVICE))


def rounded(f: Function, address: str, multiple: int) -> str:
    up = f.value(f"and i64 {f.value(f'add i64 {address}, {multiple - 1}')}, {-multiple}")
    return f.value(f"inttoptr i64 {up} to ptr")


def leave(f: Function, result: str) -> None:
    f.emit(f"ret ptr {result}")
    f.place(f.new_label("never"))


def link(f: Function, arena: str, name: str) -> str:
    return f.element("i64", arena, LINKS[name])


def linked(f: Function, arena: str, name: str) -> str:
    return f.value(f"load {'i64' if name == 'nbytes' else 'ptr'}, ptr {link(f, arena, name)}, align 8")
