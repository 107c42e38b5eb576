"""A program as a function that Python calls directly, with no conversion between (METH_FASTCALL).

    ptr @<name>_call(ptr self, ptr args, i64 nargs)
    args    the input arrays; or the input arrays and then the output arrays
    result  inputs only:      the result, a list of results where they are several, or the int of a status that is not 0
            outputs given:    the status as an int
            None              not the plain case, and nothing was done: the caller converts or explains

The plain case: every argument is exactly an ndarray of the very dtype object, of the right rank and sizes, in C order,
aligned, an output writable and apart from inputs, variables and other outputs.  The fields of arrays are read at fixed
offsets, which `pyobjects.layout_is_known` compares with NumPy's own answers before any of this is used.

`self` is an array of 64-bit words, `pyobjects.CONTEXT`.  A call needs the GIL.  Long calls give it up meanwhile and
then hold the `busy` word, which guards the arena: a call that finds it set takes memory of its own.  Calls of a program
that has variables must be in order, which is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.dims import Dim, product, symbols_of
from graphc.ir.plan import Array, Contraction, CopyStep, KernelStep, Program
from graphc.ir.types import itemsize, storage_dtype

from .checked import CheckedSizes
from .jit import Loaded, loaded_image
from .pyobjects import ALIGNED, C_CONTIGUOUS, CONTEXT, FIELDS, WRITEABLE, call_symbols, python_function
from .text import Function, Int, Module

ARENA_ALIGN = 64
LONG_CALL = 20_000  # operations; giving up the GIL costs about as much as 500


def call_symbol(name: str) -> str:
    return f"{name}_call"


def emit_call(module: Module, program: Program, single: bool) -> str:
    """Adds the function to the module; returns its name.  `single`: the one output is returned bare, not in a list."""
    _Writer(module, program, single).write()
    return call_symbol(program.name)


def call_text(program: Program, single: bool) -> tuple[str, str]:
    """The text of a module with the function, and the function's name; the program and its arena are left open."""
    module = Module()
    name = emit_call(module, program, single)
    return module.text(), name


def load_call(image: bytes, name: str, loaded: Loaded, state: int, kept: object) -> Callable[..., object]:
    """The function for the program `name`, which is loaded; `state` is the address of the table of variables."""
    call = loaded_image(image, {**call_symbols(), **loaded.addresses}, (loaded, kept))
    return python_function(name, call.addresses[call_symbol(name)], call, state)


def operations(program: Program) -> list[tuple[int, int | Dim]]:
    """(operations per step, steps): how long a call takes, roughly."""
    found: list[tuple[int, int | Dim]] = []
    for step in program.steps:
        if isinstance(step, KernelStep):
            depth = step.kernel.depth if isinstance(step.kernel, Contraction) else 1
            found.append((max(1, len(step.kernel.ops)), step.size(product(step.kernel.extents) * depth)))
        else:
            buffer = program.buffers[step.source if isinstance(step, CopyStep) else step.buffer]
            found.append((1, buffer.size))
    return found


class _Writer:
    """Writes the function of one program."""

    def __init__(self, module: Module, program: Program, single: bool) -> None:
        self.module, self.program, self.single = module, program, single
        head = f"define ptr @{call_symbol(program.name)}(ptr %self, ptr %args, i64 %nargs) #0"
        self.function = Function(module, head)
        self.sizes = CheckedSizes(self.function, {})

    def write(self) -> None:
        f, program = self.function, self.program
        tables = {name: f.value(f"alloca [{max(1, len(arrays))} x ptr], align 8")
                  for name, arrays in (("inputs", program.inputs), ("outputs", program.outputs))}
        count = len(program.inputs) + len(program.outputs) + len(program.state)
        f.emit(f"%ranges = alloca [{max(1, 2 * count)} x ptr], align 8")
        room = f.value(f"alloca [{max([1, *(len(a.shape) for a in program.outputs)])} x i64], align 8")
        context = self.field("%self", "data")
        fresh = f.value(f"icmp eq i64 %nargs, {len(program.inputs)}")
        given = f.value(f"icmp eq i64 %nargs, {len(program.inputs) + len(program.outputs)}")
        self.unless(f.value(f"xor i1 {f.value(f'or i1 {fresh}, {given}')}, true"))
        inputs = [self.plain_array(k, spec, 0) for k, spec in enumerate(program.inputs)]
        self.bind(inputs)
        self.unless(self.sizes.any_fault())
        data = [self.field(array, "data") for array in inputs]
        outputs = self.choose_outputs(fresh, data, context, room)
        for name, pointers in (("inputs", data), ("outputs", [self.field(o, "data") for o in outputs])):
            for k, pointer in enumerate(pointers):
                f.emit(f"store ptr {pointer}, ptr {f.element('ptr', tables[name], k)}, align 8")
        status = self.run(tables, context, lambda: self.drop(fresh, outputs))
        self.finish(status, fresh, outputs)
        f.place("slow")
        f.call("void", "Py_IncRef", ("ptr", "@_Py_NoneStruct"))
        f.emit("ret ptr @_Py_NoneStruct")
        self.declare_data()
        self.module.add(call_symbol(program.name), f.text())

    def declare_data(self) -> None:
        descrs = sorted({descr_symbol(a.dtype) for a in (*self.program.inputs, *self.program.outputs)})
        for name in ("_Py_NoneStruct", "graphc_ndarray", *descrs):
            self.module.add_global(name, f"@{name} = external global i8")

    # -- small pieces --
    def unless(self, condition: str) -> None:
        """Leaves with None where the condition holds."""
        after = self.function.new_label("plain")
        self.function.branch_if(condition, "slow", after)
        self.function.place(after)

    def field(self, pointer: str, name: str) -> str:
        return field(self.function, pointer, name)

    def word(self, context: str, name: str) -> str:
        return self.function.element("i64", context, CONTEXT[name])

    def load(self, kind: str, pointer: str) -> str:
        return self.function.value(f"load {kind}, ptr {pointer}, align 8")

    def nbytes(self, array: Array) -> Int:
        return self.sizes.value(product(array.shape) * itemsize(array.dtype))

    # -- arguments --
    def plain_array(self, position: int, spec: Array, extra: int) -> str:
        """The argument, where it is an array whose every field but the sizes is as it must be; else leaves."""
        plain_function(self.module)
        array = self.load("ptr", self.function.element("ptr", "%args", position))
        descr, flags = f"@{descr_symbol(spec.dtype)}", C_CONTIGUOUS | ALIGNED | extra
        self.unless(self.function.call("i1", "graphc_not_plain", ("ptr", array), ("ptr", descr),
                                       ("i32", len(spec.shape)), ("i32", flags)))
        return array

    def lengths(self, array: str, spec: Array) -> list[str]:
        if not spec.shape:
            return []
        dims = self.field(array, "dims")
        return [self.load("i64", self.function.element("i64", dims, k)) for k in range(len(spec.shape))]

    def bind(self, inputs: Sequence[str]) -> None:
        """Finds the symbols in the shapes and notes what does not fit."""
        sizes = self.sizes
        lengths = [(spec, self.lengths(array, spec)) for array, spec in zip(inputs, self.program.inputs)]
        pairs = [(size, length) for spec, found in lengths for size, length in zip(spec.shape, found)]
        for size, length in pairs:
            if isinstance(size, Dim) and size == Dim.symbol(symbols_of(size)[0]):
                sizes.known.setdefault(symbols_of(size)[0], length)
        for size, length in pairs:
            if sizes.value(size) != length:
                sizes.equal(length, size)
        for check in self.program.checks:
            sizes.check(check)
        sizes.value(self.program.arena)
        for array in self.program.outputs:
            self.nbytes(array)
            for size in array.shape:
                sizes.nonnegative(size)

    # -- results --
    def choose_outputs(self, fresh: str, data: Sequence[str], context: str, room: str) -> list[str]:
        if not self.program.outputs:
            return []
        return self.function.choose(fresh, ["ptr"] * len(self.program.outputs), lambda: self.new_outputs(room),
                                    lambda: self.given_outputs(data, context))

    def new_outputs(self, room: str) -> list[str]:
        """New arrays; where memory is short those made are dropped and Python's error is left standing."""
        f = self.function
        labels = [f.new_label("short") for _ in self.program.outputs]
        made: list[str] = []
        for spec, label in zip(self.program.outputs, labels):
            for k, size in enumerate(spec.shape):
                f.emit(f"store i64 {self.sizes.value(size)}, ptr {f.element('i64', room, k)}, align 8")
            descr = f"@{descr_symbol(spec.dtype)}"
            f.call("void", "Py_IncRef", ("ptr", descr))  # the callee takes a reference
            rank = len(spec.shape)
            made.append(f.call("ptr", "PyArray_Empty", ("i32", rank), ("ptr", room), ("ptr", descr), ("i32", 0)))
            after = f.new_label("made")
            f.branch_if(f.value(f"icmp eq ptr {made[-1]}, null"), label, after)
            f.place(after)
        done = f.new_label("all")
        f.branch(done)
        for k in reversed(range(len(labels))):
            f.place(labels[k])
            if k:
                f.call("void", "Py_DecRef", ("ptr", made[k - 1]))
                f.branch(labels[k - 1])
            else:
                f.emit("ret ptr null")
        f.place(done)
        return made

    def given_outputs(self, data: Sequence[str], context: str) -> list[str]:
        f, program = self.function, self.program
        found = [self.plain_array(len(program.inputs) + k, spec, WRITEABLE) for k, spec in enumerate(program.outputs)]
        differ = [f.value(f"icmp ne i64 {length}, {self.sizes.value(size)}")
                  for array, spec in zip(found, program.outputs)
                  for size, length in zip(spec.shape, self.lengths(array, spec))]
        for condition in differ:
            self.unless(condition)
        self.unless_apart(found, data, context)
        return found

    def unless_apart(self, outputs: Sequence[str], data: Sequence[str], context: str) -> None:
        """Leaves where an output shares memory with an input, a variable or an output before it."""
        f, program = self.function, self.program
        ranges = [(pointer, self.nbytes(spec)) for pointer, spec in zip(data, program.inputs)]
        if program.state:
            table = self.load("ptr", self.word(context, "state"))
            ranges += [(self.load("ptr", f.element("ptr", table, k)), self.nbytes(spec))
                       for k, spec in enumerate(program.state)]
        first = len(ranges)
        ranges += [(self.field(array, "data"), self.nbytes(spec)) for array, spec in zip(outputs, program.outputs)]
        for k, (pointer, nbytes) in enumerate(ranges):
            for place, address in ((2 * k, pointer), (2 * k + 1, f.element("i8", pointer, nbytes))):
                f.emit(f"store ptr {address}, ptr {f.element('ptr', '%ranges', place)}, align 8")
        overlap_function(self.module)
        self.unless(f.call("i1", "graphc_overlap", ("ptr", "%ranges"), ("i64", first), ("i64", len(ranges))))

    def drop(self, fresh: str, outputs: Sequence[str]) -> None:
        """Gives up the new arrays."""
        if outputs:
            self.function.when(fresh, lambda: self.release(outputs))

    def release(self, objects: Sequence[str]) -> None:
        for item in objects:
            self.function.call("void", "Py_DecRef", ("ptr", item))

    # -- the call --
    def run(self, tables: dict[str, str], context: str, drop: Callable[[], None]) -> str:
        f = self.function
        symbols = [("i64", self.sizes.value(Dim.symbol(s))) for s in self.program.symbols]
        arena, temporary = self.arena(context, symbols, drop)
        state = self.load("ptr", self.word(context, "state"))

        def call() -> list[Int]:
            return [f.call("i32", self.program.name, ("ptr", tables["inputs"]), ("ptr", tables["outputs"]),
                           ("ptr", state), ("ptr", arena), *symbols)]

        def long_call() -> list[Int]:
            own = f.value(f"icmp eq ptr {temporary}, null")
            busy = self.word(context, "busy")
            f.when(own, lambda: f.emit(f"store i64 1, ptr {busy}, align 8"))
            thread = f.call("ptr", "PyEval_SaveThread")
            status = call()
            f.call("void", "PyEval_RestoreThread", ("ptr", thread))
            f.when(own, lambda: f.emit(f"store i64 0, ptr {busy}, align 8"))
            return status

        status = f.choose(self.is_long(), ["i32"], long_call, call)[0]
        if temporary != "null":
            f.call("void", "PyMem_RawFree", ("ptr", temporary))  # freeing null does nothing
        return status

    def is_long(self) -> str:
        """An i1; in floating point, where nothing overflows."""
        f, total, known = self.function, "0.0", 0.0
        for factor, count in operations(self.program):
            if isinstance(count, int):
                known += factor * count
                continue
            for monomial, coefficient in count.terms:
                term = repr(float(factor * coefficient))
                for atom in monomial:
                    term = f.value(f"fmul double {term}, {f.value(f'sitofp i64 {self.sizes.atom(atom)} to double')}")
                total = f.value(f"fadd double {total}, {term}")
        if known > LONG_CALL or total == "0.0":
            return "true" if known > LONG_CALL else "false"
        return f.value(f"fcmp ogt double {total}, {LONG_CALL - known!r}")

    def arena(self, context: str, symbols: Sequence[tuple[str, Int]], drop: Callable[[], None]) -> tuple[str, str]:
        """The arena, and the block to free after the call where the context's own is taken."""
        f = self.function
        needed = f.call("i64", f"{self.program.name}_arena", *symbols)
        busy = f.value(f"icmp ne i64 {self.load('i64', self.word(context, 'busy'))}, 0")
        short = f.value(f"icmp slt i64 {self.load('i64', self.word(context, 'nbytes'))}, {needed}")
        kept = self.load("ptr", self.word(context, "arena"))
        take_arena(self.module)

        def another() -> list[Int]:
            block = f.call("ptr", "graphc_take_arena", ("ptr", context), ("i64", needed))
            f.when(f.value(f"icmp eq ptr {block}, null"), lambda: self.no_memory(drop))
            return [aligned(f, block), f.value(f"select i1 {busy}, ptr {block}, ptr null")]

        arena, temporary = f.choose(f.value(f"or i1 {busy}, {short}"), ["ptr", "ptr"], another, lambda: [kept, "null"])
        return arena, temporary

    def no_memory(self, drop: Callable[[], None]) -> None:
        f = self.function
        drop()
        f.emit(f"ret ptr {f.call('ptr', 'PyErr_NoMemory')}")
        f.place(f.new_label("never"))

    def finish(self, status: str, fresh: str, outputs: Sequence[str]) -> None:
        """Returns the results, or the status where there is something to say or the caller has the arrays."""
        f = self.function
        number = f.value(f"sext i32 {status} to i64")
        failed = f.value(f"icmp ne i32 {status}, 0")
        f.when(failed, lambda: self.drop(fresh, outputs))
        result, plain = f.new_label("result"), f.new_label("status")
        f.branch_if(f.value(f"and i1 {fresh}, {f.value(f'xor i1 {failed}, true')}"), result, plain)
        f.place(plain)
        f.emit(f"ret ptr {f.call('ptr', 'PyLong_FromLong', ('i64', number))}")
        f.place(result)
        shown = [self.shown(spec, array) for spec, array in zip(self.program.outputs, outputs)]
        f.emit(f"ret ptr {shown[0] if self.single else self.listed(shown)}")

    def shown(self, spec: Array, array: str) -> str:
        """A NumPy scalar for rank 0; what is stored as another dtype (bfloat16) is left for Python to convert."""
        if spec.shape or storage_dtype(spec.dtype).name != spec.dtype:
            return array
        return self.function.call("ptr", "PyArray_Return", ("ptr", array))

    def listed(self, items: Sequence[str]) -> str:
        f = self.function
        made = f.call("ptr", "PyList_New", ("i64", len(items)))
        f.when(f.value(f"icmp eq ptr {made}, null"), lambda: self.no_list(items))
        for k, item in enumerate(items):
            f.call("i32", "PyList_SetItem", ("ptr", made), ("i64", k), ("ptr", item))
        return made

    def no_list(self, items: Sequence[str]) -> None:
        f = self.function
        self.release(items)
        f.emit("ret ptr null")
        f.place(f.new_label("never"))


def field(f: Function, pointer: str, name: str) -> str:
    """What an array object says of itself."""
    kind = "i32" if name in ("nd", "flags") else "ptr"
    return f.value(f"load {kind}, ptr {f.element('i8', pointer, FIELDS[name])}, align {4 if kind == 'i32' else 8}")


def plain_function(module: Module) -> None:
    """`i1 @graphc_not_plain(ptr object, ptr descr, i32 rank, i32 flags)`: whether it is anything but such an array."""
    name = "graphc_not_plain"
    if name in module.functions:
        return
    f = Function(module, f"define internal i1 @{name}(ptr %object, ptr %descr, i32 %rank, i32 %flags) #0")

    def fields() -> list[Int]:
        rank = f.value(f"icmp ne i32 {field(f, '%object', 'nd')}, %rank")
        descr = f.value(f"icmp ne ptr {field(f, '%object', 'descr')}, %descr")
        flags = f.value(f"icmp ne i32 {f.value('and i32 ' + field(f, '%object', 'flags') + ', %flags')}, %flags")
        return [f.value(f"or i1 {f.value(f'or i1 {rank}, {descr}')}, {flags}")]

    is_array = f.value(f"icmp eq ptr {field(f, '%object', 'type')}, @graphc_ndarray")
    f.emit(f"ret i1 {f.choose(is_array, ['i1'], fields, lambda: ['true'])[0]}")
    module.add(name, f.text())


def overlap_function(module: Module) -> None:
    """`i1 @graphc_overlap(ptr ranges, i64 first, i64 count)`: whether a range from `first` on meets one before it."""
    name = "graphc_overlap"
    if name in module.functions:
        return
    f = Function(module, f"define internal i1 @{name}(ptr %ranges, i64 %first, i64 %count) #0")

    def ends(k: Int) -> list[str]:
        places = [f.element("ptr", "%ranges", f.add(f.mul(k, 2), side)) for side in (0, 1)]
        return [f.value(f"load ptr, ptr {place}, align 8") for place in places]

    def compare(k: Int, found: str) -> list[Int]:
        low, high = ends(k)

        def with_other(i: Int, carried: list[str]) -> list[Int]:
            start, stop = ends(i)
            before, after = f.value(f"icmp ult ptr {low}, {stop}"), f.value(f"icmp ult ptr {start}, {high}")
            return [f.value(f"or i1 {carried[0]}, {f.value(f'and i1 {before}, {after}')}")]

        return list(f.loop(0, k, 1, [("i1", found)], with_other))

    f.emit(f"ret i1 {f.loop('%first', '%count', 1, [('i1', 'false')], lambda k, c: compare(k, c[0]))[0]}")
    module.add(name, f.text())


def descr_symbol(dtype: str) -> str:
    return f"graphc_descr_{storage_dtype(dtype).name}"


def aligned(f: Function, block: str) -> str:
    address = f.value(f"ptrtoint ptr {block} to i64")
    up = f.value(f"and i64 {f.value(f'add i64 {address}, {ARENA_ALIGN - 1}')}, {-ARENA_ALIGN}")
    return f.value(f"inttoptr i64 {up} to ptr")


def take_arena(module: Module) -> None:
    """`ptr @graphc_take_arena(ptr context, i64 nbytes)`: a block, the context's own from now on if that is idle."""
    name = "graphc_take_arena"
    if name in module.functions:
        return
    f = Function(module, f"define internal ptr @{name}(ptr %context, i64 %nbytes) #0")
    block = f.call("ptr", "PyMem_RawMalloc", ("i64", f.value(f"add i64 %nbytes, {ARENA_ALIGN}")))
    word = {key: f.element("i64", "%context", place) for key, place in CONTEXT.items()}
    idle = f.value(f"icmp eq i64 {f.value('load i64, ptr ' + word['busy'] + ', align 8')}, 0")
    keep = f.value(f"and i1 {idle}, {f.value(f'icmp ne ptr {block}, null')}")

    def kept() -> None:
        f.call("void", "PyMem_RawFree", ("ptr", f.value(f"load ptr, ptr {word['block']}, align 8")))
        f.emit(f"store ptr {block}, ptr {word['block']}, align 8")
        f.emit(f"store ptr {aligned(f, block)}, ptr {word['arena']}, align 8")
        f.emit(f"store i64 %nbytes, ptr {word['nbytes']}, align 8")

    f.when(keep, kept)
    f.emit(f"ret ptr {block}")
    module.add(name, f.text())
