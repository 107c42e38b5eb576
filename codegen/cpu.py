"""Whether the processor that runs a library has the instructions it was compiled for: code that asks it once.

    internal i32 @<library>__cpu()      1 + the number of the best target that fits, 0 where none does

Features are LLVM's names.  `BITS` has those that LLVM may use in code that asks for none by name, with the place where
the processor tells of them (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E); vector registers also need the
operating system, which tells by XGETBV.  Other architectures need no question: what is asked for is their baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .target import Target
from .text import Function, Int, Module


class Bit(NamedTuple):
    """A bit of a register (0 eax, 1 ebx, 2 ecx, 3 edx) that CPUID gives for a leaf and its part."""

    leaf: int
    part: int
    register: int
    bit: int


BITS = {
    "sse3": Bit(1, 0, 2, 0), "ssse3": Bit(1, 0, 2, 9), "fma": Bit(1, 0, 2, 12), "cx16": Bit(1, 0, 2, 13),
    "sse4.1": Bit(1, 0, 2, 19), "sse4.2": Bit(1, 0, 2, 20), "movbe": Bit(1, 0, 2, 22), "popcnt": Bit(1, 0, 2, 23),
    "avx": Bit(1, 0, 2, 28), "f16c": Bit(1, 0, 2, 29),
    "bmi": Bit(7, 0, 1, 3), "avx2": Bit(7, 0, 1, 5), "bmi2": Bit(7, 0, 1, 8), "avx512f": Bit(7, 0, 1, 16),
    "avx512dq": Bit(7, 0, 1, 17), "adx": Bit(7, 0, 1, 19), "avx512ifma": Bit(7, 0, 1, 21),
    "avx512cd": Bit(7, 0, 1, 28), "avx512bw": Bit(7, 0, 1, 30), "avx512vl": Bit(7, 0, 1, 31),
    "avx512vbmi": Bit(7, 0, 2, 1), "avx512vbmi2": Bit(7, 0, 2, 6), "gfni": Bit(7, 0, 2, 8),
    "vpclmulqdq": Bit(7, 0, 2, 10), "avx512vnni": Bit(7, 0, 2, 11), "avx512bitalg": Bit(7, 0, 2, 12),
    "avx512vpopcntdq": Bit(7, 0, 2, 14), "avx512fp16": Bit(7, 0, 3, 23),
    "avxvnni": Bit(7, 1, 0, 4), "avx512bf16": Bit(7, 1, 0, 5), "avxifma": Bit(7, 1, 0, 23),
    "avxvnniint8": Bit(7, 1, 3, 4), "avxneconvert": Bit(7, 1, 3, 5), "avxvnniint16": Bit(7, 1, 3, 10),
    "egpr": Bit(7, 1, 3, 21),
    "sahf": Bit(0x80000001, 0, 2, 0), "lzcnt": Bit(0x80000001, 0, 2, 5),
}
V2 = ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
V3 = (*V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
LEVELS = {"x86-64-v2": V2, "x86-64-v3": V3, "x86-64-v4": V4}

OSXSAVE = Bit(1, 0, 2, 27)
STATES = {"avx": 0b110, "avx512f": 0b11100110, "egpr": 1 << 19}  # of XCR0, for the registers that came with a feature


def needed_features(target: Target) -> tuple[str, ...]:
    """Those that code for the target may use."""
    listed = [flag[1:] for flag in target.features.split(",") if flag.startswith("+")]
    return tuple(sorted({*LEVELS.get(target.cpu, ()), *listed}))


def emit_cpu(module: Module, library: str, targets: Sequence[Target]) -> None:
    """Adds the function that asks, where there is something to ask.

    The answer is kept in a word.  It is asked for when the library is loaded, before there are threads that could see
    the word change; where nobody runs such code, and in files of other formats than ELF, by the first call.
    """
    if targets[0].architecture != "x86_64":
        return
    name, kept = f"{library}__cpu", f"{library}__cpu_found"
    f = Function(module, f"define internal i32 @{name}() #0")
    module.add_global(kept, f"@{kept} = internal global i32 -1, align 4")
    found = _best(f, targets)
    f.emit(f"store atomic i32 {found}, ptr @{kept} monotonic, align 4")
    f.emit(f"ret i32 {found}")
    module.add(name, f.text())
    if targets[0].object_format != "elf":
        return
    first = Function(module, f"define internal void @{name}_at_load() #0")
    first.value(f"call i32 @{name}()")
    first.emit("ret void")
    module.add(f"{name}_at_load", first.text())
    module.add_global("llvm.global_ctors", "@llvm.global_ctors = appending global [1 x {i32, ptr, ptr}] "
                                           f"[{{i32, ptr, ptr}} {{i32 65535, ptr @{name}_at_load, ptr null}}]")


def emit_best(f: Function, library: str, targets: Sequence[Target]) -> str:
    """What the function answers; the call is made only where nobody has asked before."""
    if targets[0].architecture != "x86_64":
        return "1"
    before = f.value(f"load atomic i32, ptr @{library}__cpu_found monotonic, align 4")
    return f.choose(f.value(f"icmp ne i32 {before}, -1"), ["i32"], lambda: [before],
                    lambda: [f.value(f"call i32 @{library}__cpu()")])[0]


def emit_dispatch(f: Function, library: str, targets: Sequence[Target], go_on: Callable[[int], None]) -> None:
    """Ends the function: `go_on` with the number of the target that fits, or with how many there are where none does.

    `go_on` returns from the function.  The first target costs one comparison.
    """
    if targets[0].architecture != "x86_64":
        return go_on(0)

    def arm(best: str, number: int) -> None:
        this, other = f.new_label("this"), f.new_label("other")
        f.branch_if(f.value(f"icmp eq i32 {best}, {number + 1}"), this, other)
        f.place(this)
        go_on(number)
        f.place(other)
    arm(f.value(f"load atomic i32, ptr @{library}__cpu_found monotonic, align 4"), 0)
    best = emit_best(f, library, targets)
    for number in range(len(targets)):
        arm(best, number)
    go_on(len(targets))


def _best(f: Function, targets: Sequence[Target]) -> str:
    """The registers are asked for once, then every target's bits are compared; the first that fits wins."""
    asked = _Answers(f)
    found = "0"
    for number in reversed(range(len(targets))):
        fits = asked.has(needed_features(targets[number]))
        found = f.value(f"select i1 {fits}, i32 {number + 1}, i32 {found}")
    return found


class _Answers:
    """Registers of CPUID and XGETBV, each asked for when it is first needed; all in one block."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.registers: dict[tuple[int, int], list[str]] = {}
        self.most: dict[int, str] = {}
        self.states = ""

    def has(self, features: Iterable[str]) -> str:
        """An i1: whether all of the features are there that `BITS` knows."""
        f = self.function
        wanted: dict[tuple[int, int, int], int] = {}
        listed = [name for name in features if name in BITS]
        for bit in [BITS[name] for name in listed] + [OSXSAVE] * any(name in STATES for name in listed):
            key = bit.leaf, bit.part, bit.register
            wanted[key] = wanted.get(key, 0) | 1 << bit.bit
        result = "true"
        for (leaf, part, register), mask in sorted(wanted.items()):
            result = f.value(f"and i1 {result}, {self.holds(self.cpuid(leaf, part)[register], mask)}")
        states = 0
        for name in listed:
            states |= STATES.get(name, 0)
        return f.value(f"and i1 {result}, {self.holds(self.xgetbv(), states)}") if states else result

    def holds(self, register: str, mask: int) -> str:
        f = self.function
        return f.value(f"icmp eq i32 {f.value(f'and i32 {register}, {signed(mask)}')}, {signed(mask)}")

    def cpuid(self, leaf: int, part: int) -> list[str]:
        """Zeros for a leaf that this processor does not have."""
        if (leaf, part) not in self.registers:
            f, base = self.function, leaf & 0x80000000
            if base not in self.most:
                self.most[base] = self.ask(base, 0)[0]
            there = f.value(f"icmp uge i32 {self.most[base]}, {signed(leaf)}")
            if part:  # the first register of part 0 tells how many parts there are
                there = f.value(f"and i1 {there}, "
                                f"{f.value(f'icmp uge i32 {self.cpuid(leaf, 0)[0]}, {part}')}")
            self.registers[leaf, part] = [f.value(f"select i1 {there}, i32 {r}, i32 0") for r in self.ask(leaf, part)]
        return self.registers[leaf, part]

    def ask(self, leaf: int, part: int) -> list[str]:
        f = self.function
        four = "{i32, i32, i32, i32}"
        answer = f.value(f'call {four} asm sideeffect "cpuid", "={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},'
                         f'~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 {signed(leaf)}, i32 {part})')
        return [f.value(f"extractvalue {four} {answer}, {k}") for k in range(4)]

    def xgetbv(self) -> str:
        """The low word of XCR0; zero where the instruction is not there to be asked."""
        if not self.states:
            allowed = self.holds(self.cpuid(OSXSAVE.leaf, OSXSAVE.part)[OSXSAVE.register], 1 << OSXSAVE.bit)
            self.states = self.function.choose(allowed, ["i32"], self.ask_states, lambda: [0])[0]
        return self.states

    def ask_states(self) -> list[Int]:
        f, two = self.function, "{i32, i32}"
        answer = f.value(f'call {two} asm sideeffect "xgetbv", "={{ax}},={{dx}},{{cx}},~{{dirflag}},~{{fpsr}},'
                         f'~{{flags}}"(i32 0)')
        return [f.value(f"extractvalue {two} {answer}, 0")]


def signed(word: int) -> int:
    """The number that LLVM writes for these 32 bits."""
    return word - (1 << 32) if word >> 31 else word
