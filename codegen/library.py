"""Programs as one shared object with a C interface: what `codegen.header` declares, and nothing else can be seen.

    i32 <lib>_<entry>(i64 size.., ptr input.., ptr output.., [ptr state,] ptr workspace)
    i64 <lib>_<entry>_workspace_size(i64 size..)
    ptr <lib>_strerror(i32)      i32 <lib>_abi_version()      i32 <lib>_interface()      i32 <lib>_check_cpu()
    @<lib>_metadata              JSON text that says all this to a loader
    @<lib>_initial               pointers to the first values of the variables, null where there is none
    @<lib>_weights               pointers to the weights that can be changed in the file, where there are such

Public functions choose the variant for this processor and go on in it (`codegen.entry`).  Only the functions of
`codegen.state` import something, from libc, and the pool of a library with threads, which is never unloaded; memcpy
and its like are part of the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from graphc.ir.errors import Loc
from graphc.ir.plan import Program

from . import formats
from .blobs import blob_object
from .cache import Cache
from .cpu import emit_best, emit_cpu, emit_dispatch
from .debug import Lines, Origin
from .elf import Blob, write_library
from .elf.archive import archive
from .elf.link import flat
from .entry import CODE, SIZE_END, emit_entry, parameters_of, data_text
from .header import STATUS, CLibrary
from .jit import object_of
from .linkers import OWN, link_by
from .literals import bytes_literal
from .pool import IMPORTS as POOL_IMPORTS, RUN, emit_pool
from .program import constant_symbol
from .regions import DESCRIPTOR, descriptor_text, foreign_descriptor
from .runtime import memory_functions, runtime_object
from .state import IMPORTS, emit_state
from .target import Target, baseline
from .text import Function, Int, Module

LIBC = ("libc.so.6",)
UNKNOWN = "no such status"


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
    runtime: tuple[bytes, ...]  # what stands for functions of C libraries
    functions: tuple[str, ...]  # that are exported
    tables: tuple[str, ...]  # exported data
    blobs: Mapping[str, Blob]
    imports: tuple[str, ...] = ()  # of libc
    has_pool: bool = False

    @property
    def target(self) -> Target:
        """The least processor that all of it is for."""
        return self.units[0].target

    def write(self, path: Path, soname: str, linker: str = OWN) -> None:
        """Writes the shared object, in ELF; by our linker blobs go from memory to the file without a copy."""
        needed, exports = LIBC if self.imports else (), (*self.functions, *self.tables)
        if linker == OWN:
            write_library(path, [*(unit.code for unit in self.units), *self.runtime], exports=exports,
                          soname=soname, blobs=self.blobs, imports=self.imports, needed=needed,
                          stays=self.has_pool)
        else:
            link_by(linker, path, self.all_objects(), exports, soname, libc=bool(needed), stays=self.has_pool)

    def files(self, name: str) -> dict[str, bytes]:
        """The files of a library that is not ELF."""
        return formats.linked(self.target, name, self.all_objects(), self.functions, self.tables)

    def objects(self) -> list[tuple[str, bytes]]:
        """Relocatable objects by their file names, data included; they want memcpy and its like from elsewhere."""
        end = formats.format_of(self.target).object_end
        data = blob_object({name: flat(name, blob) for name, blob in self.blobs.items()}, self.target)
        return [*((f"{unit.label}{end}", unit.code) for unit in self.units), (f"data{end}", data)]

    def all_objects(self) -> list[tuple[str, bytes]]:
        end = formats.format_of(self.target).object_end
        return [*self.objects(), *((f"runtime{k}{end}", code) for k, code in enumerate(self.runtime))]

    def archive(self, name: str) -> bytes:
        """A static library of the objects, which the file of that name is to hold."""
        if self.target.object_format == "elf":
            return archive(self.objects())
        return formats.archived(name, self.objects())


def program_name(library: str, entry: str) -> str:
    """The name of an entry's program inside the library, which no public name can be."""
    return f"{library}__{entry}"


def build_library(library: CLibrary, programs: Sequence[Program], metadata: str, weights: Sequence[Blob],
                  initial: Sequence[Blob | None], targets: Sequence[Target], cache: Cache,
                  threads: int = 1, origin: Origin | None = None) -> Linked:
    """Code and data of the library.  `programs` belong to its functions, `initial` to its state, in order.

    `weights` are the values of the first variables of every program, and part of the library; the state follows them.

    The programs are compiled for every target, all else for the least processor there is: it finds out at run time
    which of them fits, the first one that does, and says so where none does.  With an `origin`
    they say which lines of the user's program their code belongs to.
    """
    base = baseline(targets[0])
    module = library_module(base, origin)
    weight_symbols = tuple(weight_symbol(library.name, k) for k in range(len(weights)))
    locs = origin.entries if origin is not None else (None,) * len(programs)
    entries = [Entry(f"{library.name}_{function.name}", program, weight_symbols, loc)
               for function, program, loc in zip(library.functions, programs, locs)]
    variants = [program_module(library_module(target, origin), entries, number, target, has_pool=threads > 1)
                for number, target in enumerate(targets)]
    emit_cpu(module, library.name, targets)
    functions = [name for entry in entries for name in emit_public(module, library.name, entry, targets)]
    functions += [emit_strerror(module, library.name),
                  emit_number(module, f"{library.name}_abi_version", library.abi_version),
                  emit_number(module, f"{library.name}_interface", library.interface),
                  emit_check(module, library.name, targets)]
    tables = [emit_text(module, f"{library.name}_metadata", metadata), emit_initial(module, library.name, initial)]
    if weights:
        tables.append(emit_table(module, f"{library.name}_weights", weight_symbols))
    imports: tuple[str, ...] = ()
    if library.state and library.has_files:
        functions += emit_state(module, library.name, programs[0].state[len(weights):], CODE)
        imports = IMPORTS
    has_pool = any(DESCRIPTOR in made.globals for made in variants)
    if has_pool:
        emit_pool(module, base)
        # Static libraries in one program share the first one's pool, and its number of threads.
        module.add_global(DESCRIPTOR, descriptor_text(threads, f"@{RUN}", "weak hidden "))
        imports += POOL_IMPORTS
    units = [unit_of("entries", module, base, cache)]
    units += [unit_of(f"code{k}", made, t, cache) for k, (made, t) in enumerate(zip(variants, targets))]
    blobs: dict[str, Blob] = {constant_symbol(c.key): c.data for p in programs for c in p.constants}
    blobs |= {f"{library.name}__weights_head": weights_head(library.name)} if weights else {}
    blobs |= {weight_symbol(library.name, k): data for k, data in enumerate(weights)}
    blobs |= {initial_symbol(library.name, k): data for k, data in enumerate(initial) if data is not None}
    if base.object_format == "elf":
        runtime = memory_functions([unit.code for unit in units], {*blobs, *imports}, base)
    else:
        runtime = (runtime_object(base),)
    return Linked(tuple(units), runtime, tuple(functions), tuple(tables), blobs, imports, has_pool)


def library_module(target: Target, origin: Origin | None) -> Module:
    """An empty module; Windows walks the stack by tables that every function has."""
    return Module(more_attributes="uwtable" if target.object_format == "coff" else "",
                  debug=Lines(origin.root) if origin is not None else None)


def unit_of(label: str, module: Module, target: Target, cache: Cache) -> Unit:
    text = module.text()
    return Unit(label, text, target, object_of(text, target, cache))


@dataclass(frozen=True)
class Entry:
    """A function of the library: its public name, its program, and the symbols of the program's first variables."""

    public: str
    program: Program
    weights: tuple[str, ...]
    loc: Loc | None  # the user's line, where debuggers are told

    def variant(self, number: int) -> str:
        """The name of its code for the target of that number."""
        return f"{self.program.name}__{number}"


def program_module(module: Module, entries: Sequence[Entry], number: int, target: Target, *, has_pool: bool) -> Module:
    """The module with the code of all entries for one target."""
    for entry in entries:
        with module.at(entry.loc):
            emit_entry(module, entry.variant(number), entry.program, target, entry.weights, has_pool=has_pool)
    if DESCRIPTOR in module.globals:
        module.globals[DESCRIPTOR] = foreign_descriptor()
    return module


def emit_public(module: Module, library: str, entry: Entry, targets: Sequence[Target]) -> tuple[str, ...]:
    """The functions of an entry that the header declares: they go on in those of the variant that fits."""
    def public(end: str, result: str, kinds: Sequence[str], none: int) -> str:
        arguments = [(kind, f"%a{k}") for k, kind in enumerate(kinds)]
        with module.at(entry.loc):
            f = Function(module, f"define {result} @{entry.public}{end}({', '.join(map(' '.join, arguments))}) #0")

        def go_on(number: int) -> None:
            value: Int = none
            if number < len(targets):
                value = f.call(result, f"{entry.variant(number)}{end}", *arguments, how="tail call")
            f.emit(f"ret {result} {value}")
        emit_dispatch(f, library, targets, go_on)
        module.add(f"{entry.public}{end}", f.text())
        return f"{entry.public}{end}"
    kinds = [parameter.split()[0] for parameter in parameters_of(entry.program, entry.weights)]
    return (public("", "i32", kinds, CODE["CPU"]),
            public(SIZE_END, "i64", ["i64"] * len(entry.program.symbols), -1))


# -- what belongs to the library as a whole --
def emit_text(module: Module, name: str, text: str, linkage: str = "constant") -> str:
    """A string of C."""
    data = f"{text}\0".encode()
    module.add_global(name, f"@{name} = {linkage} {bytes_literal(data)}")
    return name


def emit_strerror(module: Module, library: str) -> str:
    name = f"{library}_strerror"
    f = Function(module, f"define ptr @{name}(i32 %status) #0")
    found = emit_text(module, f"{library}__text", UNKNOWN, "internal constant")
    found = f"@{found}"
    for status, value, text in STATUS:
        this = emit_text(module, f"{library}__text_{status.lower()}", text, "internal constant")
        same = f.value(f"icmp eq i32 %status, {value}")
        found = f.value(f"select i1 {same}, ptr @{this}, ptr {found}")
    f.emit(f"ret ptr {found}")
    module.add(name, f.text())
    return name


def emit_number(module: Module, name: str, value: int) -> str:
    module.add(name, f"define i32 @{name}() #0 {{\n  ret i32 {value}\n}}\n")
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


def weights_head(library: str) -> bytes:
    """The 64 bytes before the first weight, by which those who change weights know that they are at the right place."""
    return b"graphc weights".ljust(32, b"\0") + sha256(library.encode()).digest()


def weight_symbol(library: str, number: int) -> str:
    return f"{library}__weight_{number}"


def emit_initial(module: Module, library: str, initial: Sequence[Blob | None]) -> str:
    symbols = [None if data is None else initial_symbol(library, k) for k, data in enumerate(initial)]
    return emit_table(module, f"{library}_initial", symbols)


def emit_table(module: Module, name: str, symbols: Sequence[str | None]) -> str:
    """Pointers to data of the library, null where there is none; readers of the file find the data by it too."""
    for symbol in symbols:
        if symbol is not None:
            module.add_global(symbol, data_text(symbol))
    listed = ", ".join("ptr null" if symbol is None else f"ptr @{symbol}" for symbol in symbols)
    module.add_global(name, f"@{name} = constant [{len(symbols)} x ptr] [{listed}], align 8" if symbols else
                      f"@{name} = constant [1 x ptr] zeroinitializer, align 8")
    return name
