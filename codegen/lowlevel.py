"""A program as a C function of the kinds that other libraries call back, many times and without Python.

    scalar    double f(double x, [void *data])                        SciPy's integrate.quad
    vector    double f(int n, double *x, [void *data])                quad with args, nquad
    filter    int f(double *x, intptr_t n, double *y, void *data)     ndimage.generic_filter

The result is the one output.  What `x` does not give comes from `data`, a table of words: the addresses of the inputs
that are bound, in order, and then the value of every symbol that their shapes give.  NaN (0 for a filter) says that the
number of values does not fit, that there is no memory, or that the program refused.  Nothing is shared between calls,
so they may run at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dims import Dim, symbols_of
from graphc.ir.plan import Border

from .checked import CheckedSizes
from .text import Function, Int, Module

HEADS = {"scalar": "double @{}(double %x, ptr %data)", "vector": "double @{}(i32 %n, ptr %x, ptr %data)",
         "filter": "i32 @{}(ptr %x, i64 %n, ptr %y, ptr %data)"}
STACK_ARENA = 4096  # bytes; larger arenas are allocated anew by every call
ALIGN = 64
NAN = "0x7FF8000000000000"


@dataclass(frozen=True)
class Callback:
    """Which function is wanted: the first `free` inputs come from `x`, the rest from `data`."""

    border: Border
    kind: str
    free: int

    @property
    def name(self) -> str:
        return f"{self.border.name}_{self.kind}"

    @property
    def bound_symbols(self) -> set[str]:
        return set(symbols_of(*(size for a in self.border.inputs[self.free:] for size in a.shape)))


def callback_text(callback: Callback) -> str:
    """The module with the function; the program and `graphc_state`, its table of variables, are left open."""
    module = Module()
    _Writer(module, callback).write()
    return module.text()


class _Writer:
    def __init__(self, module: Module, callback: Callback) -> None:
        self.module, self.callback, self.border = module, callback, callback.border
        self.function = Function(module, f"define {HEADS[callback.kind].format(callback.name)} #0")
        self.sizes = CheckedSizes(self.function, {})

    def write(self) -> None:
        f, border = self.function, self.border
        table, outputs, result = (f.value(f"alloca [{n} x i64], align 8") for n in (max(1, len(border.inputs)), 1, 1))
        f.emit(f"store ptr {result}, ptr {outputs}, align 8")
        self.bind()
        for k, pointer in enumerate(self.pointers()):
            f.emit(f"store ptr {pointer}, ptr {f.element('i64', table, k)}, align 8")
        for check in border.checks:
            self.sizes.check(check)
        needed = self.sizes.value(border.arena)
        self.leave_if(self.sizes.any_fault())
        arena, block = self.arena(needed)
        self.module.add_global("graphc_state", "@graphc_state = external global ptr")
        arguments: list[tuple[str, Int]] = [("ptr", table), ("ptr", outputs), ("ptr", "@graphc_state"), ("ptr", arena)]
        arguments += [("i64", self.sizes.value(Dim.symbol(s))) for s in border.symbols]
        status = f.call("i32", border.name, *arguments)
        if block != "null":
            f.call("void", "PyMem_RawFree", ("ptr", block))
        self.leave_if(f.value(f"icmp ne i32 {status}, 0"))
        found = f.value(f"load double, ptr {result}, align 8")
        if self.callback.kind == "filter":
            f.emit(f"store double {found}, ptr %y, align 8")
        f.emit("ret i32 1" if self.callback.kind == "filter" else f"ret double {found}")
        self.module.add(self.callback.name, f.text())

    def leave_if(self, condition: str) -> None:
        f = self.function
        bad, good = f.new_label("bad"), f.new_label("good")
        f.branch_if(condition, bad, good)
        f.place(bad)
        f.emit("ret i32 0" if self.callback.kind == "filter" else f"ret double {NAN}")
        f.place(good)

    # -- inputs --
    def bind(self) -> None:
        """The values of the symbols, and whether `x` has as many values as it must have."""
        f, callback = self.function, self.callback
        bound = callback.bound_symbols
        for k, name in enumerate(self.border.symbols):
            if name in bound:
                place = f.element("i64", "%data", len(self.border.inputs) - callback.free + k)
                self.sizes.known[name] = f.value(f"load i64, ptr {place}, align 8")
        if callback.kind == "scalar":
            return
        count = "%n" if callback.kind == "filter" else f.value("sext i32 %n to i64")
        first = self.border.inputs[0]
        if not first.shape:
            self.sizes.equal(count, callback.free)
            return
        size = first.shape[0]
        if isinstance(size, Dim) and size == Dim.symbol(symbols_of(size)[0]):
            self.sizes.known.setdefault(symbols_of(size)[0], count)
        self.sizes.equal(count, size)

    def pointers(self) -> Sequence[str]:
        f, callback = self.function, self.callback
        rest = [f.value(f"load ptr, ptr {f.element('i64', '%data', k)}, align 8")
                for k in range(len(self.border.inputs) - callback.free)]
        if callback.kind == "scalar":
            slot = f.value("alloca double, align 8")
            f.emit(f"store double %x, ptr {slot}, align 8")
            return [slot, *rest]
        return [*(f.element("double", "%x", k) for k in range(callback.free)), *rest]

    def arena(self, needed: Int) -> tuple[str, str]:
        """The arena, and the block to free after the call."""
        f = self.function
        if needed == 0:
            return "null", "null"
        if isinstance(needed, int) and needed <= STACK_ARENA:
            return f.value(f"alloca [{needed} x i8], align {ALIGN}"), "null"
        block = f.call("ptr", "PyMem_RawMalloc", ("i64", f.add(needed, ALIGN)))
        self.leave_if(f.value(f"icmp eq ptr {block}, null"))
        address = f.value(f"add i64 {f.value(f'ptrtoint ptr {block} to i64')}, {ALIGN - 1}")
        return f.value(f"inttoptr i64 {f.value(f'and i64 {address}, {-ALIGN}')} to ptr"), block
