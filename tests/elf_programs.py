"""Programs that the tests of the linker link, how they are compiled, and how a library is tried in a child process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
import platform
import shutil
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest

from codegen.elf import link
from codegen.target import machine, target

ROOT = Path(__file__).resolve().parent.parent

ON_X86 = platform.machine() == "x86_64" and sys.platform == "linux"
runs_here = pytest.mark.skipif(not ON_X86, reason="the library is made for x86-64 Linux")


@cache
def compiled(text: str, name: str = "x86-64-v2", model: str = "small") -> bytes:
    chosen = target(name)
    module = llvm.parse_assembly(f'target triple = "{chosen.triple}"\n{text}')
    own = machine(chosen)  # the first one makes LLVM ready to write objects
    if model == "small":
        return bytes(own.emit_object(module))
    made = llvm.Target.from_triple(chosen.triple).create_target_machine(opt=2, reloc="pic", codemodel=model)
    return bytes(made.emit_object(module))


def child(code: str, *arguments: object, expect: int = 0) -> str:
    """Runs Python code in a new process; its output."""
    program = "import ctypes, os, sys\nfrom ctypes import *\n" + code
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, check=False, cwd=ROOT)
    assert done.returncode == expect, (done.returncode, done.stderr)
    return done.stdout


def tool(name: str, *arguments: object) -> str:
    """Output of a program that must succeed without a word of warning; skips where it is absent."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    done = subprocess.run([name, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, (done.returncode, done.stderr)
    return done.stdout


FIRST = """
@table = internal constant [3 x ptr] [ptr @triple, ptr @plus5, ptr @second]
@numbers = internal constant [4 x double] [double 1.5, double 2.5, double 3.5, double 4.5], align 32
@zeros = internal global [1000 x double] zeroinitializer, align 64
@counter = internal global i64 40
@pointer = internal global ptr @counter
@middle = internal global ptr getelementptr (double, ptr @zeros, i64 7)
@text = private unnamed_addr constant [6 x i8] c"hello\\00"
@weights = external hidden global [0 x float]
@more = external global [0 x i16]
@llvm.global_ctors = appending global [3 x {i32, ptr, ptr}] [
  {i32, ptr, ptr} {i32 65535, ptr @last, ptr null}, {i32, ptr, ptr} {i32 200, ptr @early, ptr null},
  {i32, ptr, ptr} {i32 65535, ptr @last2, ptr null}]
declare double @second(double)
define internal void @early() { store i64 2, ptr @counter
 ret void }
define internal void @last() { %v = load i64, ptr @counter
 %w = mul i64 %v, 10
 store i64 %w, ptr @counter
 ret void }
define internal void @last2() { %v = load i64, ptr @counter
 %w = add i64 %v, 1
 store i64 %w, ptr @counter
 ret void }
define double @triple(double %x) { %y = fmul double %x, 3.0
 ret double %y }
define internal double @plus5(double %x) { %y = fadd double %x, 5.0
 ret double %y }
define double @via_table(i64 %i, double %x) { %p = getelementptr ptr, ptr @table, i64 %i
 %f = load ptr, ptr %p
 %y = call double %f(double %x)
 ret double %y }
define double @direct(double %x) { %y = call double @second(double %x)
 ret double %y }
define double @number(i64 %i) { %p = getelementptr double, ptr @numbers, i64 %i
 %q = load double, ptr %p
 ret double %q }
define i64 @count() { %p = load ptr, ptr @pointer
 %v = load i64, ptr %p
 ret i64 %v }
define ptr @zero_array() { ret ptr @zeros }
define ptr @zero_middle() { %p = load ptr, ptr @middle
 ret ptr %p }
define ptr @hello() { ret ptr @text }
define ptr @the_table() { ret ptr @table }
define ptr @the_weights() { ret ptr @weights }
define float @weight(i64 %i) { %p = getelementptr float, ptr @weights, i64 %i
 %q = load float, ptr %p
 ret float %q }
define i16 @small(i64 %i) { %p = getelementptr i16, ptr @more, i64 %i
 %q = load i16, ptr %p
 ret i16 %q }
define i32 @choose(i32 %x) { switch i32 %x, label %d [i32 0, label %a
 i32 1, label %b
 i32 2, label %c
 i32 3, label %e
 i32 4, label %f]
a: %t = call double @second(double 1.0)
 %u = fptosi double %t to i32
 ret i32 %u
b: ret i32 7
c: %r = call i64 @count()
 %s = trunc i64 %r to i32
 ret i32 %s
e: ret i32 1
f: ret i32 55
d: ret i32 -1 }
"""

SECOND = """
@scale = internal constant double 100.0
@state = internal global [3 x i64] [i64 1, i64 2, i64 3]
declare double @triple(double)
define double @second(double %x) { %a = call double @triple(double %x)
 %s = load volatile double, ptr @scale
 %b = fmul double %a, %s
 ret double %b }
define i64 @bump(i64 %i) { %p = getelementptr i64, ptr @state, i64 %i
 %v = load i64, ptr %p
 %w = add i64 %v, 1
 store i64 %w, ptr %p
 ret i64 %w }
"""

LIBC = """
@allocate = internal global ptr @malloc
declare ptr @malloc(i64)
declare ptr @memcpy(ptr, ptr, i64)
declare void @free(ptr)
declare ptr @getenv(ptr) nonlazybind
define ptr @copy(ptr %p, i64 %n) { %f = load ptr, ptr @allocate
 %q = call ptr %f(i64 %n)
 call ptr @memcpy(ptr %q, ptr %p, i64 %n)
 ret ptr %q }
define void @release(ptr %p) { call void @free(ptr %p)
 ret void }
define ptr @address() { ret ptr @malloc }
define ptr @address2() { ret ptr @getenv }
"""

EXPORTS = ("triple", "via_table", "direct", "number", "count", "zero_array", "zero_middle", "hello", "the_table",
           "the_weights", "weight", "small", "choose", "second", "bump")
WEIGHTS = np.arange(5000, dtype=np.float32) / 7
SMALL = np.arange(100, dtype=np.int16).reshape(10, 10)


def first_library(name: str = "x86-64-v2") -> bytes:
    return link([compiled(FIRST, name), compiled(SECOND, name)], exports=EXPORTS, soname="libfirst.so",
                blobs={"weights": WEIGHTS, "more": SMALL})

CALLS = """
lib = CDLL(sys.argv[1], os.RTLD_NOW)
for name in ("triple", "via_table", "direct", "number", "second"):
    getattr(lib, name).restype = c_double
for name in ("zero_array", "zero_middle", "the_weights", "the_table"):
    getattr(lib, name).restype = c_void_p
lib.weight.restype, lib.hello.restype, lib.small.restype = c_float, c_char_p, c_int16
lib.count.restype = lib.bump.restype = c_int64
def near(a, b):
    assert a == b, (a, b)
near(lib.triple(c_double(1.25)), 3.75)
near([lib.via_table(c_int64(i), c_double(2.0)) for i in range(3)], [6.0, 7.0, 600.0])
near(lib.direct(c_double(2.0)), 600.0)
near([lib.number(c_int64(i)) for i in range(4)], [1.5, 2.5, 3.5, 4.5])
near(lib.count(), 21 if len(sys.argv) < 3 else int(sys.argv[2]))
near(lib.hello(), b"hello")
near([lib.choose(i) for i in range(-1, 6)], [-1, 300, 7, 21, 1, 55, -1])
zeros = (c_double * 1000).from_address(lib.zero_array())
assert lib.zero_array() % 64 == 0 and not any(zeros)
zeros[999] = 3.0
near(lib.zero_middle(), lib.zero_array() + 56)
near([lib.bump(c_int64(2)) for _ in range(3)], [4, 5, 6])
near(lib.the_weights() % 64, 0)
import struct
f32 = lambda x: struct.unpack("f", struct.pack("f", x))[0]
near([lib.weight(c_int64(i)) for i in (0, 1, 777, 4999)], [f32(f32(i) / 7) for i in (0, 1, 777, 4999)])
near([lib.small(c_int64(i)) for i in (0, 99)], [0, 99])
"""
