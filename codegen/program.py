"""A whole program as one module of text IR.

    i32 name(ptr inputs, ptr outputs, ptr state, ptr arena, i64 dim..)    arrays of pointers; a 64-byte aligned arena
    i64 name_arena(i64 dim..)                                             bytes that the arena must have
    @graphc_pool                                                          threads of a call and the pool (`regions`)

The result is 0, or 1 + n where the n-th message of the program says what is wrong.  Large constants are external
symbols `graphc_<key>` of 64-byte alignment: the JIT binds them to arrays, the ELF writer to read-only data.

Equal kernels are emitted once.  The text is the same for any number of threads, which is found in memory at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from graphc.ir.dims import Dim, evaluate, maximum
from graphc.ir.plan import Buffer, Case, Contraction, CopyStep, Kernel, KernelStep, Program, RangeStep, taken
from graphc.ir.types import itemsize

from .contraction import emit_contraction, product_ranges, workspace_bytes
from .debug import spoken
from .gemm.batch import sizes_of as contraction_symbols
from .kernel import emit_kernel, kernel_axis, kernel_symbols
from .regions import DESCRIPTOR, Axis, Call, Regions, threads_of
from .sizes import Environment, environment, size_value, symbol_register
from .target import Target
from .text import INLINE, Function, Int, Module
from .work import product_work

Step = KernelStep | RangeStep | CopyStep
FEW_STEPS, FEW_OPS = 4, 40  # of a program, and of a kernel of it: there a call is felt, and inlining takes little room


@dataclass(frozen=True)
class Emitted:
    """The text of a program's module, and what it needs."""

    text: str
    name: str
    arena: int | Dim  # bytes, the workspace of one thread included
    slot: int | Dim  # bytes for each further thread
    constants: tuple[str, ...]  # symbols to bind
    has_regions: bool  # whether threads and the pool are looked up

    def arena_bytes(self, sizes: dict[str, int], threads: int = 1) -> int:
        return evaluate(self.arena + self.slot * (threads - 1), sizes)


def constant_symbol(key: str) -> str:
    return f"graphc_{key}"


def emit_program(program: Program, target: Target, module: Module | None = None, *, has_pool: bool = True) -> Emitted:
    """The module of a program; with `module` given, the program is added to it.

    Without a pool nothing is shared among threads, and nothing looked up.
    """
    module = module or Module()
    arena, slot = arena_sizes(program, target, has_pool=has_pool)
    constants = declare_constants(module, program)
    function = Function(module, f"define i32 @{program.name}(ptr %inputs, ptr %outputs, ptr %state, ptr %arena"
                                f"{parameters(program)}) #0")

    def pointer(place: str, number: int) -> str:
        table = {"input": "%inputs", "output": "%outputs", "state": "%state"}[place]
        return function.value(f"load ptr, ptr {function.element('ptr', table, number)}, align 8")
    places = Places(pointer, "%arena", lambda number: 1 + number)
    StepWriter(function, program, target, places, has_pool=has_pool).write()
    module.add(program.name, function.text())
    emit_arena(module, program, arena, slot)
    return Emitted(module.text(), program.name, arena, slot, constants, DESCRIPTOR in module.globals)


def declare_constants(module: Module, program: Program) -> tuple[str, ...]:
    """The symbols of a program's large constants."""
    symbols = tuple(constant_symbol(c.key) for c in program.constants)
    for symbol in symbols:
        module.add_global(symbol, f"@{symbol} = external constant i8, align 64")
    return symbols


def arena_sizes(program: Program, target: Target, *, has_pool: bool) -> tuple[int | Dim, int | Dim]:
    """Bytes of the arena for one thread, and those that each further one adds."""
    workspace, slot = workspaces(program, target)
    return program.arena + workspace, slot if has_pool else 0


def workspaces(program: Program, target: Target) -> tuple[int | Dim, int | Dim]:
    """Bytes behind the arena that matrix products pack into: for one thread, and for each further one."""
    most: int | Dim = 0
    products = [step.kernel for step in program.steps
                if isinstance(step, KernelStep) and isinstance(step.kernel, Contraction)]
    for kernel in products:
        most = maximum(most, workspace_bytes(kernel, target))
    return most, most if any(product_ranges(kernel, target) for kernel in products) else 0


def parameters(program: Program) -> str:
    return "".join(f", i64 {symbol_register(s)}" for s in program.symbols)


def emit_arena(module: Module, program: Program, arena: int | Dim, slot: int | Dim) -> None:
    function = Function(module, f"define i64 @{program.name}_arena({parameters(program)[2:]}) #0")
    function.emit(f"ret i64 {arena_value(function, program, arena, slot)}")
    module.add(f"{program.name}_arena", function.text())


def arena_value(function: Function, program: Program, arena: int | Dim, slot: int | Dim) -> Int:
    """The bytes of the arena for the sizes that the function has, and the threads that there are."""
    env = environment(program.symbols)
    nbytes = size_value(function, arena, env)
    if slot == 0:
        return nbytes
    more = function.value(f"sub i64 {threads_of(function)}, 1")
    return function.add(nbytes, function.mul(more, size_value(function, slot, env)))


@dataclass(frozen=True)
class Places:
    """Where a function being written finds the arrays of its program, and what it returns.

    `pointer` gives the register of an array's address by the place of its buffer ("input", "output", "state") and its
    number there; `fault` the status where a message, by its number, is to be given.
    """

    pointer: Callable[[str, int], str]
    arena: str
    fault: Callable[[int], int]


class StepWriter:
    """Writes the steps of a program into a function, of which nothing is written yet: its entry block is needed.

    With `inline` small kernels of small programs become part of the function.
    """

    def __init__(self, function: Function, program: Program, target: Target, places: Places, *, has_pool: bool,
                 inline: bool = False) -> None:
        self.module = function.module
        self.function, self.program, self.places = function, program, places
        self.has_pool = has_pool
        self.inline = inline and len(program.steps) <= FEW_STEPS
        self.workspace = workspaces(program, target)[0]
        self.target = target
        self.regions = Regions(function)
        self.env: Environment = environment(program.symbols)
        self.pointers: dict[int, str] = {}

    def write(self) -> None:
        """All of it, from the function's current place to the return of success."""
        for number, buffer in enumerate(self.program.buffers):
            self.pointers[number] = self.pointer(buffer)
        for when, steps in groupby(self.program.steps, lambda step: step.when):
            self.guarded(when, tuple(steps))
        self.function.at(self.module.loc)
        self.function.emit("ret i32 0")
        self.regions.close()

    def guarded(self, when: tuple[Case, ...], steps: Sequence[Step]) -> None:
        """The steps behind a branch, unless they always run."""
        holds = self.size(taken(when))
        if isinstance(holds, int):
            self.run(steps if holds else ())
            return
        outside = self.env
        self.env = dict(outside)  # sizes computed behind the branch are not known after it
        self.function.when(self.function.value(f"icmp ne i64 {holds}, 0"),
                           lambda: self.run(steps))
        self.env = outside

    def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.function.at(step.loc)
            with self.module.at(step.loc):
                if isinstance(step, KernelStep):
                    self.kernel(step)
                elif isinstance(step, RangeStep):
                    self.check(step)
                else:
                    self.copy(step)

    def size(self, size: int | Dim) -> Int:
        return size_value(self.function, size, self.env)

    def pointer(self, buffer: Buffer) -> str:
        if buffer.place == "arena":
            return self.function.element("i8", self.places.arena, self.size(buffer.offset))
        if buffer.place == "constant":
            return f"@{constant_symbol(self.program.constants[buffer.number].key)}"
        return self.places.pointer(buffer.place, buffer.number)

    def kernel(self, step: KernelStep) -> None:
        kernel = step.kernel
        name = kernel_function(self.module, kernel, self.target, step.label)
        pointers = [("ptr", self.pointers[b]) for b in step.buffers]
        if isinstance(kernel, Kernel):
            call, work = self.kernel_call(step, kernel, name, pointers)
        else:
            call, work = self.product_call(kernel, name, pointers)
        if self.has_pool and call.may_share(work):
            self.regions.write(call, self.size(work))
        else:
            self.function.emit(call.whole())

    def kernel_call(self, step: KernelStep, kernel: Kernel, name: str,
                    pointers: Sequence[tuple[str, Int]]) -> tuple[Call, int | Dim]:
        extent, multiple, work = kernel_axis(kernel, self.target)
        sizes = (("i64", self.size(step.size(Dim.symbol(s)))) for s in kernel_symbols(kernel))
        axis = Axis(self.size(step.size(extent)), multiple, multiple)
        attributes = INLINE if self.inline and len(kernel.ops) <= FEW_OPS else ""
        return Call(name, (*pointers, *sizes), (axis,), attributes=attributes), step.size(work)

    def product_call(self, kernel: Contraction, name: str,
                     pointers: Sequence[tuple[str, Int]]) -> tuple[Call, int | Dim]:
        arguments = (*pointers, *(("i64", symbol_register(s)) for s in contraction_symbols(kernel)))
        ranges = product_ranges(kernel, self.target)
        has_grid = [r.axis for r in ranges][-2:] == [len(kernel.extents) - 2, len(kernel.extents) - 1]
        axes = tuple(Axis(self.size(r.extent), r.multiple, r.block) for r in ranges)
        place = self.function.element("i8", self.places.arena, self.size(self.program.arena))
        call = Call(name, arguments, axes, has_grid, place, self.size(self.workspace))
        return call, product_work(kernel, self.target)

    def check(self, step: RangeStep) -> None:
        buffer = self.program.buffers[step.buffer]
        name = range_function(self.module, buffer.dtype)
        good = self.function.value(f"call i1 @{name}(ptr {self.pointers[step.buffer]}, i64 {self.size(buffer.size)}, "
                                   f"i64 {self.size(step.extent)})")
        bad, after = self.function.new_label("bad"), self.function.new_label("after")
        self.function.branch_if(good, after, bad)
        self.function.place(bad)
        self.function.emit(f"ret i32 {self.places.fault(step.number)}")
        self.function.place(after)

    def copy(self, step: CopyStep) -> None:
        source = self.program.buffers[step.source]
        nbytes = self.size(source.size * itemsize(source.dtype))
        self.function.call("void", "llvm.memcpy.p0.p0.i64", ("ptr", self.pointers[step.target]),
                           ("ptr", self.pointers[step.source]), ("i64", nbytes), ("i1", "false"))


def kernel_function(module: Module, kernel: Kernel | Contraction, target: Target, label: str) -> str:
    """The name of the kernel's function, which is emitted when it is first asked for.

    Where debuggers are told of it, the name says what it computes.
    """
    names = module.kernels
    key = repr(kernel)  # 0.0 and -0.0 are equal numbers, but not equal text
    if key not in names:
        kind = "kernel" if isinstance(kernel, Kernel) else "matmul"
        names[key] = f"{kind}_{len(names)}" if module.debug is None else f"kernel_{len(names)}_{spoken(kernel, label)}"
        emit = emit_kernel if isinstance(kernel, Kernel) else emit_contraction
        emit(module, kernel, target, names[key])  # type: ignore[arg-type]
    return names[key]


def range_function(module: Module, dtype: str) -> str:
    """`i1 f(ptr data, i64 n, i64 extent)`: whether all elements lie in [-extent, extent)."""
    name = f"in_range_{dtype}"
    if name in module.functions:
        return name
    bits = itemsize(dtype) * 8
    extend = "zext" if dtype.startswith("uint") else "sext"
    function = Function(module, f"define internal i1 @{name}(ptr %data, i64 %n, i64 %extent) #0")
    wrong = function.loop(0, "%n", 1, [("i1", "false")], lambda i, c: [outside(function, bits, extend, i, c[0])])
    function.emit(f"ret i1 {function.value(f'xor i1 {wrong[0]}, true')}")
    module.add(name, function.text())
    return name


def outside(function: Function, bits: int, extend: str, index: Int, wrong: str) -> str:
    value = function.value(f"load i{bits}, ptr {function.element(f'i{bits}', '%data', index)}, align {bits // 8}")
    if bits < 64:
        value = function.value(f"{extend} i{bits} {value} to i64")
    if extend == "zext":  # those of 64 bits have no sign either
        return function.value(f"or i1 {wrong}, {function.value(f'icmp uge i64 {value}, %extent')}")
    shifted = function.value(f"add i64 {value}, %extent")
    twice = function.value("shl i64 %extent, 1")
    bad = function.value(f"icmp uge i64 {shifted}, {twice}")
    return function.value(f"or i1 {wrong}, {bad}")
