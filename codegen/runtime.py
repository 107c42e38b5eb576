"""What compilers take from libraries of their own, and shared objects of ours bring along: memcpy and its kin, products
of 128-bit integers where the machine has none, and on Windows the function that touches a large frame page by page.

ELF objects tell what they lack, so only that is made.  For other formats all of a format's functions are made, and the
linker leaves out, or keeps, some hundred bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .elf.read import UNDEFINED, read_object
from .elf.resolve import TABLE_NAME
from .formats import left_open
from .jit import compile_text
from .literals import bytes_literal
from .target import Target
from .text import Function, Int, Module

MEMORY = {"memcpy": ("ptr", 1), "memmove": ("ptr", 1), "memset": ("i32", 0)}  # second parameter; whether it is read
ATTRIBUTES = 'nounwind "no-builtins"'  # a loop that copies is not to become a call of itself

# Machine code of the function by which a frame of more than a page is touched on Windows, by architecture: name, bytes.
# The stack grows there by one page at a time, and only where it is touched in order.
PROBES = {
    "x86_64": ("___chkstk_ms", bytes.fromhex(  # rax: bytes of the frame; keeps all registers
        "51"              # push rcx
        "50"              # push rax
        "488d4c2418"      # lea rcx, [rsp + 24]: where the caller's stack ends
        "eb0e"            # jmp compare
        "4881e900100000"  # page: sub rcx, 4096
        "2d00100000"      # sub eax, 4096
        "8501"            # test [rcx], eax
        "483d00100000"    # compare: cmp rax, 4096
        "77ea"            # ja page
        "4829c1"          # sub rcx, rax
        "8501"            # test [rcx], eax
        "58"              # pop rax
        "59"              # pop rcx
        "c3")),           # ret
    "aarch64": ("__chkstk", b"".join(word.to_bytes(4, "little") for word in (  # x15: 16 bytes of the frame each
        0xCB2F73F0,    # sub x16, sp, x15, lsl #4: where the frame ends
        0x910003F1,    # mov x17, sp
        0xD1400631,    # page: sub x17, x17, #4096
        0xEB10023F,    # cmp x17, x16
        0x54000069,    # b.ls last
        0xF940023F,    # ldr xzr, [x17]
        0x17FFFFFC,    # b page
        0xF940021F,    # last: ldr xzr, [x16]
        0xD65F03C0))), # ret
}


def runtime_object(target: Target) -> bytes:
    """An object with all that code for a target that is not ELF may call."""
    module = Module(attributes=ATTRIBUTES)
    if target.object_format == "wasm":  # which copies and fills by instructions
        emit_wide_product(module)
    else:
        for name in MEMORY:
            emit_memory(module, name)
    if target.object_format == "coff":
        emit_probe(module, *PROBES[target.architecture])
    return compile_text(module.text(), target)


def emit_wide_product(module: Module) -> None:
    """`__multi3`: the product of two 128-bit integers modulo 2^128, each given as its low and its high half."""
    f = Function(module, "define hidden void @__multi3(ptr %to, i64 %a, i64 %ah, i64 %b, i64 %bh) #0")
    low, high = "and i64 {}, 4294967295", "lshr i64 {}, 32"
    a0, a1, b0, b1 = (f.value(half.format(x)) for x in ("%a", "%b") for half in (low, high))
    p00, p01, p10, p11 = (f.value(f"mul i64 {x}, {y}") for x in (a0, a1) for y in (b0, b1))
    middle = f.value(f"add i64 {p01}, {f.value(high.format(p00))}")
    second = f.value(f"add i64 {p10}, {f.value(low.format(middle))}")
    parts = [f.value(high.format(x)) for x in (middle, second)]
    parts += [f.value(f"mul i64 {x}, {y}") for x, y in (("%a", "%bh"), ("%ah", "%b"))]
    upper = p11
    for part in parts:
        upper = f.value(f"add i64 {upper}, {part}")
    f.emit(f"store i64 {f.value('mul i64 %a, %b')}, ptr %to, align 8")
    f.emit(f"store i64 {upper}, ptr {f.element('i64', '%to', 1)}, align 8")
    f.emit("ret void")
    module.add("__multi3", f.text())


def emit_probe(module: Module, name: str, code: bytes) -> None:
    """A function that is these bytes: what it does to registers no calling convention of LLVM's can say."""
    module.add(name, f"define hidden void @{name}() naked nounwind prologue {bytes_literal(code)} {{\n"
                     "  unreachable\n}\n")


def memory_functions(code: Sequence[bytes], known: Collection[str], target: Target) -> tuple[bytes, ...]:
    """An object with those functions of <string.h> that ELF code calls."""
    symbols = [s for data in code for s in read_object(data, "the library's code").symbols if s.name]
    defined = {s.name for s in symbols if s.section != UNDEFINED}
    missing = sorted({s.name for s in symbols if s.section == UNDEFINED} - {TABLE_NAME, *known, *defined})
    if strange := [name for name in missing if name not in MEMORY]:
        raise left_open(target, strange)
    if not missing:
        return ()
    module = Module(attributes=ATTRIBUTES)
    for name in missing:
        emit_memory(module, name)
    return (compile_text(module.text(), target),)


def emit_memory(module: Module, name: str) -> None:
    """memcpy, memmove or memset, in steps of 32 bytes."""
    kind, reads = MEMORY[name]
    f = Function(module, f"define hidden ptr @{name}(ptr %to, {kind} %from, i64 %n) #0")
    wide = f.value("and i64 %n, -32")
    if not reads:
        byte = f.value("trunc i32 %from to i8")
        first = f.value(f"insertelement <32 x i8> poison, i8 {byte}, i32 0")
        row = f.value(f"shufflevector <32 x i8> {first}, <32 x i8> poison, <32 x i32> zeroinitializer")

    def step(kind: str, at: Int) -> list[Int]:
        value = byte_or_row(kind)
        if reads:
            value = f.value(f"load {kind}, ptr {f.element('i8', '%from', at)}, align 1")
        f.emit(f"store {kind} {value}, ptr {f.element('i8', '%to', at)}, align 1")
        return []

    def byte_or_row(kind: str) -> str:
        return "" if reads else byte if kind == "i8" else row

    def forward() -> list[Int]:
        f.loop(0, wide, 32, [], lambda i, _: step("<32 x i8>", i))
        f.loop(wide, "%n", 1, [], lambda i, _: step("i8", i))
        return []

    def backward() -> list[Int]:
        last = f.value("sub i64 %n, 1")
        f.loop(0, "%n", 1, [], lambda i, _: step("i8", f.value(f"sub i64 {last}, {i}")))
        return []

    if name == "memmove":
        f.choose(f.value("icmp ugt ptr %to, %from"), [], backward, forward)
    else:
        forward()
    f.emit("ret ptr %to")
    module.add(name, f.text())
