"""Programs as one shared object with a C interface: what `codegen.header` declares, and nothing else can be seen.

    i32 <lib>_<entry>(i64 size.., ptr input.., ptr output.., [ptr state,] ptr workspace)
    i64 <lib>_<entry>_workspace_size(i64 size..)
    ptr <lib>_strerror(i32)      i32 <lib>_abi_version()      i32 <lib>_check_cpu()
    @<lib>_metadata              JSON text that says all this to a loader
    @<lib>_initial               pointers to the first values of the variables, null where there is none
    @<lib>_weights               pointers to the weights that can be changed in the file, where there are such

An entry trusts nothing: sizes are evaluated with checked arithmetic, pointers may be null only where nothing is behind
them, and must be aligned.  A status other than 0 from these checks means that nothing was written.  Only the functions
of `codegen.state` import something, from libc, and the pool of a library with threads, which is never unloaded; memcpy
and its like are part of the object.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphc.ir.dims import Dim, product
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Array, CopyStep, KernelStep, Program
from graphc.ir.types import itemsize

from .cache import Cache
from .checked import CheckedSizes
from .cpu import emit_best, emit_cpu
from .elf import Blob, write_library
from .elf.archive import data_object
from .elf.link import flat
from .elf.read import UNDEFINED, read_object
from .elf.relocations import ARCHITECTURES
from .elf.resolve import TABLE_NAME
from .header import STATUS, WORKSPACE_ALIGN, CLibrary
from .jit import compile_text, object_of
from .linkers import OWN, link_by
from .pool import IMPORTS as POOL_IMPORTS, RUN, emit_pool
from .program import constant_symbol, emit_program
from .regions import DESCRIPTOR, descriptor_text, foreign_descriptor
from .sizes import symbol_register
from .state import IMPORTS, emit_state
from .target import Target, baseline
from .text import Function, Int, Module

CODE = {name: value for name, value, _ in STATUS}
LIBC = ("libc.so.6",)
UNKNOWN = "no such status"
MEMORY = {"memcpy": ("ptr", 1), "memmove": ("ptr", 1), "memset": ("i32", 0)}  # second parameter; whether it is read


@dataclass(frozen=True)
class Unit:
    """A module of the library: the entries, or the programs for one target."""

    label: str
    text: str
    target: Target
    code: bytes


@dataclass(frozen=True)
class Linked:
    """What a library is made of, ready to be written to any file."""

    units: tuple[Unit, ...]
    memory: tuple[bytes, ...]  # what stands for functions of <string.h>
    exports: tuple[str, ...]
    blobs: Mapping[str, Blob]
    imports: tuple[str, ...] = ()  # of libc
    has_pool: bool = False

    def write(self, path: Path, soname: str, linker: str = OWN) -> None:
        """Writes the shared object; by our linker blobs go from memory to the file without a copy."""
        needed = LIBC if self.imports else ()
        if linker == OWN:
            write_library(path, [*(unit.code for unit in self.units), *self.memory], exports=self.exports,
                          soname=soname, blobs=self.blobs, imports=self.imports, needed=needed,
                          stays=self.has_pool)
        else:
            memory = [(f"memory{k}.o", code) for k, code in enumerate(self.memory)]
            link_by(linker, path, [*self.objects(), *memory], self.exports, soname,
                    libc=bool(needed), stays=self.has_pool)

    def objects(self) -> list[tuple[str, bytes]]:
        """Relocatable objects by their file names, data included; they want memcpy and its like from libc."""
        arch = ARCHITECTURES[read_object(self.units[0].code, "code").machine]
        data = {name: flat(name, blob) for name, blob in self.blobs.items()}
        return [*((f"{unit.label}.o", unit.code) for unit in self.units), ("data.o", data_object(data, arch))]


def program_name(library: str, entry: str) -> str:
    """The name of an entry's program inside the library, which no public name can be."""
    return f"{library}__{entry}"


def build_library(library: CLibrary, programs: Sequence[Program], metadata: str, weights: Sequence[Blob],
                  initial: Sequence[Blob | None], targets: Sequence[Target], cache: Cache,
                  threads: int = 1) -> Linked:
    """Code and data of the library.  `programs` belong to its functions, `initial` to its state, in order.

    `weights` are the values of the first variables of every program, and part of the library; the state follows them.

    The programs are compiled for every target, all else for the least processor there is: it finds out at run time
    which of them fits, the first one that does, and says so where none does.
    """
    module, base = Module(), baseline(targets[0])
    variants = [program_module(programs, number, target, threads) for number, target in enumerate(targets)]
    emit_cpu(module, library.name, targets)
    weight_symbols = [weight_symbol(library.name, k) for k in range(len(weights))]
    for k, (function, program) in enumerate(zip(library.functions, programs)):
        choice = Choice(library.name, tuple(targets), tuple(made.arenas[k] for made in variants))
        emit_entry(module, f"{library.name}_{function.name}", program, choice, weight_symbols)
    exports = [f"{library.name}_{f.name}{end}" for f in library.functions for end in ("", "_workspace_size")]
    exports += [emit_strerror(module, library.name), emit_version(module, library),
                emit_check(module, library.name, targets)]
    exports.append(emit_text(module, f"{library.name}_metadata", metadata))
    exports.append(emit_initial(module, library.name, initial))
    if weights:
        exports.append(emit_table(module, f"{library.name}_weights", weight_symbols))
    imports: tuple[str, ...] = ()
    if library.state and library.has_files:
        exports += emit_state(module, library.name, programs[0].state[len(weights):], CODE)
        imports = IMPORTS
    has_pool = any(DESCRIPTOR in made.module.globals for made in variants)
    if has_pool:
        emit_pool(module, base)
        # Static libraries in one program share the first one's pool, and its number of threads.
        module.add_global(DESCRIPTOR, descriptor_text(threads, f"@{RUN}", "weak hidden "))
        imports += POOL_IMPORTS
    units = [unit_of("entries", module, base, cache)]
    units += [unit_of(f"code{k}", made.module, t, cache) for k, (made, t) in enumerate(zip(variants, targets))]
    blobs: dict[str, Blob] = {constant_symbol(c.key): c.data for p in programs for c in p.constants}
    blobs |= {weight_symbol(library.name, k): data for k, data in enumerate(weights)}
    blobs |= {initial_symbol(library.name, k): data for k, data in enumerate(initial) if data is not None}
    memory = memory_functions([unit.code for unit in units], {*blobs, *imports}, base)
    return Linked(tuple(units), memory, tuple(exports), blobs, imports, has_pool)


def unit_of(label: str, module: Module, target: Target, cache: Cache) -> Unit:
    text = module.text()
    return Unit(label, text, target, object_of(text, target, cache))


@dataclass(frozen=True)
class Variant:
    """The programs' code for one of the targets, and the bytes of workspace that each needs there."""

    module: Module
    arenas: tuple[int | Dim, ...]


def program_module(programs: Sequence[Program], number: int, target: Target, threads: int) -> Variant:
    module = Module()
    arenas = [emit_program(replace(program, name=variant(program.name, number)), target, module,
                           has_pool=threads > 1).arena for program in programs]
    if DESCRIPTOR in module.globals:
        module.globals[DESCRIPTOR] = foreign_descriptor()
    return Variant(module, tuple(arenas))


def variant(program: str, number: int) -> str:
    """The name of a program's code for the target of that number."""
    return f"{program}__{number}"


@dataclass(frozen=True)
class Choice:
    """How an entry chooses between the variants of its program; `arenas` are the workspaces that they need."""

    library: str
    targets: tuple[Target, ...]
    arenas: tuple[int | Dim, ...]

    def best(self, f: Function) -> str:
        """1 + the number of the variant that fits this processor, 0 where none does."""
        return emit_best(f, self.library, self.targets)

    def workspace(self, f: Function, best: str, program: Program, none: int) -> Int:
        """Bytes of workspace; known where they are the same numbers for all."""
        if isinstance(self.arenas[0], int) and len(set(self.arenas)) == 1 and none == 0:
            return self.arenas[0]
        return self.call(f, best, "i64", program.name, "_arena", ", ".join(sizes_of(program)), none)

    def call(self, f: Function, best: str, kind: str, program: str, end: str, arguments: str, none: int) -> str:
        """Calls that variant of `program` + `end`; `none` is the result where there is no variant."""
        def arm(number: int) -> Sequence[Int]:
            if number == len(self.targets):
                return [none]
            name = f"{variant(program, number)}{end}"
            f.module.declare(f"{kind} @{name}({', '.join(part.split()[0] for part in arguments.split(', ') if part)})")

            def here() -> list[Int]:
                return [f.value(f"call {kind} @{name}({arguments})")]
            if none == 0 and number == len(self.targets) - 1:
                return here()  # where no variant fits, the entry has left before
            return f.choose(f.value(f"icmp eq i32 {best}, {number + 1}"), [kind], here, lambda: arm(number + 1))
        return str(arm(0)[0])


# -- an entry --
def used_state(program: Program) -> tuple[int, ...]:
    """Which variables the steps of a program touch."""
    touched: set[int] = set()
    for step in program.steps:
        touched |= set(step.buffers) if isinstance(step, KernelStep) else (
            {step.source, step.target} if isinstance(step, CopyStep) else {step.buffer})
    return tuple(sorted({program.buffers[b].number for b in touched if program.buffers[b].place == "state"}))


def emit_entry(module: Module, public: str, program: Program, choice: Choice, weights: Sequence[str]) -> None:
    """The functions of an entry; `weights` are the symbols of its first variables, the others are the caller's."""
    emit_sizes(module, program)
    _Entry(module, public, program, choice, weights).write()
    emit_workspace_size(module, public, program, choice)


def sizes_of(program: Program) -> list[str]:
    return [f"i64 {symbol_register(s)}" for s in program.symbols]


def emit_sizes(module: Module, program: Program) -> None:
    """`i1 @<program>_sizes(i64 size..)`: whether the sizes are such that the program may run."""
    f = Function(module, f"define internal i1 @{program.name}_sizes({', '.join(sizes_of(program))}) #0")
    sizes = CheckedSizes(f, {s: symbol_register(s) for s in program.symbols})
    # Every symbol is the length of some axis of an input, so none is negative either.
    for array in (*program.inputs, *program.outputs):
        for size in array.shape:
            sizes.nonnegative(size)
        sizes.value(product(array.shape) * itemsize(array.dtype))
    for check in program.checks:
        sizes.check(check)
    sizes.nonnegative(program.arena)
    f.emit(f"ret i1 {f.value(f'xor i1 {sizes.any_fault()}, true')}")
    module.add(f"{program.name}_sizes", f.text())


def emit_workspace_size(module: Module, public: str, program: Program, choice: Choice) -> None:
    listed = ", ".join(sizes_of(program))
    f = Function(module, f"define i64 @{public}_workspace_size({listed}) #0")
    good = f.value(f"call i1 @{program.name}_sizes({listed})")

    def arena() -> list[Int]:
        return [choice.workspace(f, choice.best(f), program, none=-1)]
    size = f.choose(good, ["i64"], arena, lambda: [-1])
    f.emit(f"ret i64 {size[0]}")
    module.add(f"{public}_workspace_size", f.text())


class _Entry:
    """Writes the public function of an entry: the checks, then a call of its program."""

    def __init__(self, module: Module, public: str, program: Program, choice: Choice, weights: Sequence[str]) -> None:
        self.module, self.public, self.program, self.choice = module, public, program, choice
        self.weights = weights
        self.inputs = [f"%in{k}" for k in range(len(program.inputs))]
        self.outputs = [f"%out{k}" for k in range(len(program.outputs))]
        self.used = used_state(program)
        self.kept = [k - len(weights) for k in self.used if k >= len(weights)]  # by the caller
        pointers = [*self.inputs, *self.outputs, *(["%state"] if self.kept else []), "%workspace"]
        parameters = ", ".join([*sizes_of(program), *(f"ptr {p}" for p in pointers)])
        self.function = Function(module, f"define i32 @{public}({parameters}) #0")
        self.sizes = CheckedSizes(self.function, {s: symbol_register(s) for s in program.symbols})

    def write(self) -> None:
        f, listed = self.function, ", ".join(sizes_of(self.program))
        tables = [self.table(pointers) for pointers in (self.inputs, self.outputs)]
        if listed:  # without symbols the sizes were checked when the program was made
            good = f.value(f"call i1 @{self.program.name}_sizes({listed})")
            self.refuse(f.value(f"xor i1 {good}, true"), "BAD_SIZE")
        self.best = self.choice.best(f)
        if self.best != "1":
            self.refuse(f.value(f"icmp eq i32 {self.best}, 0"), "CPU")
        needed = self.choice.workspace(f, self.best, self.program, none=0)
        arrays = list(zip([*self.inputs, *self.outputs], [*self.program.inputs, *self.program.outputs]))
        variables = self.variables()
        arrays += variables
        for pointer, array in arrays:
            self.refuse(self.missing(pointer, self.sizes.value(product(array.shape))), "NULL_POINTER")
        self.refuse(self.missing("%workspace", needed), "NULL_POINTER")
        for pointer, array in arrays:
            self.aligned(pointer, itemsize(array.dtype), self.sizes.value(product(array.shape)))
        self.aligned("%workspace", WORKSPACE_ALIGN, needed)
        status = self.call([*tables, self.state_table([pointer for pointer, _ in variables])])
        f.emit(f"ret i32 {status}")
        self.module.add(self.public, f.text())

    def table(self, pointers: Sequence[str]) -> str:
        f = self.function
        table = f.value(f"alloca [{max(1, len(pointers))} x ptr], align 8")
        for k, pointer in enumerate(pointers):
            f.emit(f"store ptr {pointer}, ptr {f.element('ptr', table, k)}, align 8")
        return table

    def variables(self) -> list[tuple[str, Array]]:
        """The members of the state struct that the program touches, and what they are."""
        if not self.kept:
            return []
        f = self.function
        self.refuse(f.value("icmp eq ptr %state, null"), "NULL_POINTER")
        self.aligned("%state", 8, 1)
        return [(f.value(f"load ptr, ptr {f.element('ptr', '%state', k)}, align 8"),
                 self.program.state[len(self.weights) + k]) for k in self.kept]

    def state_table(self, kept: Sequence[str]) -> str:
        """What the program takes: the caller's struct, or where the library has weights a table with both."""
        if not self.weights or not self.used:
            return "%state" if self.kept else "null"
        pointers = {k: f"@{self.weights[k]}" for k in self.used if k < len(self.weights)}
        pointers |= {len(self.weights) + k: pointer for k, pointer in zip(self.kept, kept)}
        return self.table([pointers.get(k, "null") for k in range(len(self.program.state))])

    def refuse(self, condition: str, reason: str) -> None:
        self.function.when(condition, lambda: self.leave(reason))

    def leave(self, reason: str) -> None:
        self.function.emit(f"ret i32 {CODE[reason]}")
        self.function.place(self.function.new_label("never"))

    def missing(self, pointer: str, size: Int) -> str:
        """An i1: whether the pointer is null though there is something behind it."""
        f = self.function
        if size == 0:
            return "false"
        null = f.value(f"icmp eq ptr {pointer}, null")
        return null if isinstance(size, int) else f.value(f"and i1 {null}, {f.value(f'icmp ne i64 {size}, 0')}")

    def aligned(self, pointer: str, alignment: int, size: Int) -> None:
        """Refuses a pointer that is not aligned; where there is nothing behind it, any will do."""
        if alignment > 1 and size != 0:
            f = self.function
            low = f.value(f"and i64 {f.value(f'ptrtoint ptr {pointer} to i64')}, {alignment - 1}")
            wrong = f.value(f"icmp ne i64 {low}, 0")
            if not isinstance(size, int):
                wrong = f.value(f"and i1 {wrong}, {f.value(f'icmp ne i64 {size}, 0')}")
            self.refuse(wrong, "MISALIGNED")

    def call(self, tables: Sequence[str]) -> str:
        f = self.function
        arguments = ", ".join([*(f"ptr {p}" for p in (*tables, "%workspace")), *sizes_of(self.program)])
        status = self.choice.call(f, self.best, "i32", self.program.name, "", arguments, none=0)
        if not self.program.messages:
            return status
        bad = f.value(f"icmp ne i32 {status}, 0")
        return f.value(f"select i1 {bad}, i32 {CODE['OUT_OF_RANGE']}, i32 {CODE['OK']}")


# -- what belongs to the library as a whole --
def text_literal(text: str) -> str:
    """The bytes of a C string as LLVM writes them."""
    data = text.encode() + b"\0"
    shown = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data)
    return f'[{len(data)} x i8] c"{shown}"'


def emit_text(module: Module, name: str, text: str, linkage: str = "constant") -> str:
    module.add_global(name, f"@{name} = {linkage} {text_literal(text)}")
    return name


def emit_strerror(module: Module, library: str) -> str:
    name = f"{library}_strerror"
    f = Function(module, f"define ptr @{name}(i32 %status) #0")
    found = emit_text(module, f"{library}_text", UNKNOWN, "internal constant")
    found = f"@{found}"
    for status, value, text in STATUS:
        this = emit_text(module, f"{library}_text_{status.lower()}", text, "internal constant")
        same = f.value(f"icmp eq i32 %status, {value}")
        found = f.value(f"select i1 {same}, ptr @{this}, ptr {found}")
    f.emit(f"ret ptr {found}")
    module.add(name, f.text())
    return name


def emit_version(module: Module, library: CLibrary) -> str:
    name = f"{library.name}_abi_version"
    module.add(name, f"define i32 @{name}() #0 {{\n  ret i32 {library.abi_version}\n}}\n")
    return name


def emit_check(module: Module, library: str, targets: Sequence[Target]) -> str:
    name = f"{library}_check_cpu"
    f = Function(module, f"define i32 @{name}() #0")
    none = f.value(f"icmp eq i32 {emit_best(f, library, targets)}, 0")
    bad, good = CODE["CPU"], CODE["OK"]
    f.emit(f"ret i32 {f.value(f'select i1 {none}, i32 {bad}, i32 {good}')}")
    module.add(name, f.text())
    return name


def initial_symbol(library: str, number: int) -> str:
    return f"{library}__initial_{number}"


def weight_symbol(library: str, number: int) -> str:
    return f"{library}__weight_{number}"


def emit_initial(module: Module, library: str, initial: Sequence[Blob | None]) -> str:
    symbols = [None if data is None else initial_symbol(library, k) for k, data in enumerate(initial)]
    return emit_table(module, f"{library}_initial", symbols)


def emit_table(module: Module, name: str, symbols: Sequence[str | None]) -> str:
    """Pointers to data of the library, null where there is none; readers of the file find the data by it too."""
    for symbol in symbols:
        if symbol is not None:
            module.add_global(symbol, f"@{symbol} = external hidden constant i8, align 64")
    listed = ", ".join("ptr null" if symbol is None else f"ptr @{symbol}" for symbol in symbols)
    module.add_global(name, f"@{name} = constant [{len(symbols)} x ptr] [{listed}], align 8" if symbols else
                      f"@{name} = constant [1 x ptr] zeroinitializer, align 8")
    return name


# -- what C libraries have, and this one brings along --
def memory_functions(code: Sequence[bytes], known: Collection[str], target: Target) -> tuple[bytes, ...]:
    """An object with those functions of <string.h> that the code calls."""
    symbols = [s for data in code for s in read_object(data, "the library's code").symbols if s.name]
    defined = {s.name for s in symbols if s.section != UNDEFINED}
    missing = sorted({s.name for s in symbols if s.section == UNDEFINED} - {TABLE_NAME, *known, *defined})
    strange = [name for name in missing if name not in MEMORY]
    if strange:
        raise Unsupported(f"library: the code for {target.name} calls {', '.join(strange)}, which libraries do not "
                          "bring along yet (stage: linking)")
    wanted = [name for name in missing if name in MEMORY]
    if not wanted:
        return ()
    module = Module(attributes='nounwind "no-builtins"')
    for name in wanted:
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
