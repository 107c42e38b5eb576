"""A program as a function that Python calls directly, with nothing between (vectorcall, PEP 590).

    ptr @<name>_call(ptr self, ptr args, i64 nargs, ptr kwnames)
    self    an instance of a `pytype.callable_type`, whose words say where code, variables and arenas are
    args    the inputs; then the value of `out`, where kwnames is ("out",)

The plain case is done here.  An input is exactly an ndarray of the very dtype object, of the right rank and sizes, in
C order and aligned; for rank 0 also a number (`pyargs`).  `out` is None, or such an array, writable and apart from
inputs, variables and other outputs, or a list or tuple of them.  Everything else goes to the method `slow` with the
same arguments, which converts or explains.  A status that is not 0 goes to the method `refused`, and results that
Python sees as another dtype (bfloat16) go to `converted`.

A call needs the GIL, and what it does before it gives that up is undisturbed.  Only long calls give it up.  Calls that
use variables leave for `slow` while the gate's word `held` says that someone else does; long ones hold the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir.dims import Dim, product, symbols_of
from graphc.ir.plan import Array
from graphc.ir.types import itemsize, storage_dtype

from .checked import CheckedSizes
from .pyargs import Refuse, descr, field, is_object, leave_where_meeting, lengths, number, plain_array, symbol
from .pyform import CallForm
from .pyobjects import ITEMS, LENGTH, WRITEABLE
from .pyruntime import ALIGN, GATE, method
from .pytype import WORDS, WORDS_AT
from .text import Function, Int, Module

LONG_CALL = 20_000  # operations; giving up the GIL costs about as much as 500
STACK_ARENA = 4096  # bytes; a larger arena is taken from the gate
NARGS = (1 << 63) - 1  # the highest bit says that args[-1] may be written to


def call_symbol(name: str) -> str:
    return f"{name}_call"


def call_text(form: CallForm) -> str:
    """The module with the function."""
    module = Module()
    _Writer(module, form).write()
    return module.text()


def is_stored_otherwise(array: Array) -> bool:
    return storage_dtype(array.dtype).name != array.dtype


@dataclass(frozen=True)
class Result:
    """Registers of an output: the array (null for a number that is yet to be made) and its data."""

    array: str
    data: str


class _Writer:
    """Writes the function of one form."""

    def __init__(self, module: Module, form: CallForm) -> None:
        self.module, self.form = module, form
        head = f"define ptr @{call_symbol(form.name)}(ptr %self, ptr %args, i64 %nargs, ptr %kwnames) #0"
        self.function = Function(module, head)
        self.sizes = CheckedSizes(self.function, {})
        self.refuse = Refuse(self.function, "slow")

    def write(self) -> None:
        f, form = self.function, self.form
        self.allocate()
        count = f.value(f"and i64 %nargs, {NARGS}")
        self.unless(f.value(f"icmp ne i64 {count}, {len(form.inputs)}"))
        self.out = f.choose(f.value("icmp eq ptr %kwnames, null"), ["ptr"], lambda: ["null"], self.keyword)[0]
        self.fresh = f.value(f"icmp eq ptr {self.out}, null")
        arrays = [self.load("ptr", f.element("ptr", "%args", k)) for k in range(len(form.inputs))]
        self.data = [plain_array(self.refuse, a, spec) if spec.shape else number(self.refuse, a, spec, slot)
                     for a, spec, slot in zip(arrays, form.inputs, self.input_slots)]
        self.bind(arrays)
        self.unless(self.sizes.any_fault())
        self.gate = self.load("ptr", self.word("gate")) if form.state or form.arena != 0 else "null"
        self.variables = self.checked_variables()
        needed = self.needed()
        results = self.results()
        self.finish(self.run(needed, results), results)
        f.place("slow")
        slow = f.call("ptr", "graphc_slow", ("ptr", "%self"), ("ptr", "%args"), ("i64", "%nargs"), ("ptr", "%kwnames"))
        f.emit(f"ret ptr {slow}")
        self.module.add(call_symbol(form.name), f.text())

    def allocate(self) -> None:
        """All memory on the stack."""
        form = self.form
        self.input_slots = ["" if a.shape else self.room("i64") for a in form.inputs]
        self.output_slots = ["" if a.shape else self.room("i64") for a in form.outputs]
        self.shape = self.room("i64", max([1, *(len(a.shape) for a in form.outputs)]))
        self.pair = self.room("ptr", 2)
        self.ranges = self.room("ptr", 2 * (len(form.inputs) + len(form.outputs) + len(form.state)))
        self.tables = [self.room("ptr", len(arrays)) for arrays in (form.inputs, form.outputs)]
        self.members = self.room("ptr", 1 + max(form.numbers, default=0))
        self.stack_arena = "null"
        if isinstance(form.arena, int) and 0 < form.arena <= STACK_ARENA and not form.has_slots:
            self.stack_arena = self.room("i8", form.arena, ALIGN)

    # -- small pieces --
    def room(self, kind: str, count: int = 1, align: int = 8) -> str:
        return self.function.value(f"alloca [{max(1, count)} x {kind}], align {align}")

    def unless(self, condition: str) -> None:
        self.refuse.unless(condition)

    def load(self, kind: str, pointer: str) -> str:
        return self.function.value(f"load {kind}, ptr {pointer}, align 8")

    def word(self, name: str) -> str:
        return self.function.element("i8", "%self", WORDS_AT + 8 * WORDS[name])

    def nbytes(self, array: Array) -> Int:
        return self.sizes.value(product(array.shape) * itemsize(array.dtype))

    def filled(self, room: str, pointers: Sequence[str]) -> str:
        for k, pointer in enumerate(pointers):
            self.function.emit(f"store ptr {pointer}, ptr {self.function.element('ptr', room, k)}, align 8")
        return room

    def when_null(self, pointer: str, body: Callable[[], None]) -> None:
        self.function.when(self.function.value(f"icmp eq ptr {pointer}, null"), body)

    def unless_null(self, pointer: str, objects: Sequence[str] = ()) -> None:
        """Where Python could not make an object, drops these and leaves its error standing."""
        def leave() -> None:
            self.release(objects)
            self.leave()

        self.when_null(pointer, leave)

    def leave(self, result: str = "null") -> None:
        self.function.emit(f"ret ptr {result}")
        self.function.place(self.function.new_label("never"))

    def release(self, objects: Sequence[str]) -> None:
        for item in objects:
            self.function.call("void", "Py_DecRef", ("ptr", item))  # of null it does nothing

    # -- arguments --
    def keyword(self) -> list[Int]:
        """The value of the one keyword argument, which must be `out`; null for None."""
        f = self.function
        self.unless(f.value(f"icmp ne i64 {self.load('i64', f.element('i8', '%kwnames', LENGTH))}, 1"))
        name = self.load("ptr", f.element("i8", "%kwnames", ITEMS))
        self.unless(f.value(f"icmp ne ptr {name}, {symbol(f, 'name_out')}"))
        out = self.load("ptr", f.element("ptr", "%args", len(self.form.inputs)))
        return [f.value(f"select i1 {is_object(f, out, 'None')}, ptr null, ptr {out}")]

    def bind(self, arrays: Sequence[str]) -> None:
        """Finds the symbols in the shapes and notes what does not fit."""
        sizes = self.sizes
        pairs = [pair for array, spec in zip(arrays, self.form.inputs)
                 for pair in zip(spec.shape, lengths(self.function, array, spec))]
        for size, length in pairs:
            if isinstance(size, Dim) and size == Dim.symbol(symbols_of(size)[0]):
                sizes.known.setdefault(symbols_of(size)[0], length)
        for size, length in pairs:
            if sizes.value(size) != length:
                sizes.equal(length, size)
        for check in self.form.checks:
            sizes.check(check)
        if self.form.arena is not None:
            sizes.value(self.form.arena)
        for array in self.form.outputs:
            self.nbytes(array)
            for size in array.shape:
                sizes.nonnegative(size)

    def checked_variables(self) -> list[str]:
        """The objects of a library's variables, which its user may replace at any time; no others need a check."""
        f, form = self.function, self.form
        if form.state:
            self.unless(f.value(f"icmp ne i64 {self.load('i64', f.element('i64', self.gate, GATE['held']))}, 0"))
        if not form.is_entry:
            return []
        table = self.load("ptr", self.word("state"))
        found = [self.load("ptr", f.element("ptr", table, k)) for k in form.numbers]
        for array, spec in zip(found, form.state):
            self.unless(f.value(f"icmp eq ptr {array}, null"))
            plain_array(self.refuse, array, spec, WRITEABLE)
            self.of_lengths(array, spec)
        return found

    def of_lengths(self, array: str, spec: Array) -> None:
        for size, length in zip(spec.shape, lengths(self.function, array, spec)):
            self.unless(self.function.value(f"icmp ne i64 {length}, {self.sizes.value(size)}"))

    # -- results --
    def results(self) -> list[Result]:
        """New arrays, or those of the caller."""
        count = len(self.form.outputs)
        found = self.function.choose(self.fresh, ["ptr"] * (2 * count), self.new_results, self.given_results)
        return [Result(*pair) for pair in zip(found[:count], found[count:])]

    def new_results(self) -> list[Int]:
        """Arrays; numbers are made at the end, and have room on the stack until then."""
        f = self.function
        made: list[str] = []
        for spec in self.form.outputs:
            made.append(self.new_array(spec, list(made)) if spec.shape else "null")
        return [*made, *(field(f, array, "data") if array != "null" else slot
                         for array, slot in zip(made, self.output_slots))]

    def new_array(self, spec: Array, others: Sequence[str]) -> str:
        """An array; where memory is short those made before are dropped and Python's error is left standing."""
        f = self.function
        for k, size in enumerate(spec.shape):
            f.emit(f"store i64 {self.sizes.value(size)}, ptr {f.element('i64', self.shape, k)}, align 8")
        f.call("void", "Py_IncRef", ("ptr", descr(f, spec)))  # the callee takes a reference
        made = f.call("ptr", "PyArray_Empty", ("i32", len(spec.shape)), ("ptr", self.shape), ("ptr", descr(f, spec)),
                      ("i32", 0))
        self.unless_null(made, [o for o in others if o != "null"])
        return made

    def given_results(self) -> list[Int]:
        outputs = self.form.outputs
        arrays = [self.out] if self.form.single else self.items(self.out, len(outputs))
        data = [plain_array(self.refuse, array, spec, WRITEABLE) for array, spec in zip(arrays, outputs)]
        for array, spec in zip(arrays, outputs):
            self.of_lengths(array, spec)
        self.unless_apart(data)
        return [*arrays, *data]

    def items(self, pointer: str, count: int) -> list[str]:
        """The items of a list or tuple of so many."""
        f = self.function
        kind, at = field(f, pointer, "type"), f.element("i8", pointer, ITEMS)

        def of_list() -> list[Int]:
            self.unless(f.value(f"xor i1 {is_object(f, kind, 'list')}, true"))
            return [self.load("ptr", at)]

        first = f.choose(is_object(f, kind, "tuple"), ["ptr"], lambda: [at], of_list)[0]
        self.unless(f.value(f"icmp ne i64 {self.load('i64', f.element('i8', pointer, LENGTH))}, {count}"))
        return [self.load("ptr", f.element("ptr", first, k)) for k in range(count)]

    def unless_apart(self, data: Sequence[str]) -> None:
        """Leaves where an output shares memory with an input, a variable or an output before it."""
        form = self.form
        before = [*zip(self.data, form.inputs), *zip(self.variable_data(), form.state)]
        arrays = [(pointer, self.nbytes(spec)) for pointer, spec in [*before, *zip(data, form.outputs)]]
        leave_where_meeting(self.refuse, arrays, len(before), self.ranges)

    def variable_data(self) -> list[str]:
        f = self.function
        if self.form.is_entry:
            return [field(f, array, "data") for array in self.variables]
        table = self.load("ptr", self.word("state"))
        return [self.load("ptr", f.element("ptr", table, k)) for k in self.form.numbers]

    # -- the call --
    def needed(self) -> Int:
        """Bytes of arena that must be taken from the gate."""
        f, form = self.function, self.form
        if form.arena is not None and not form.has_slots:
            return 0 if self.stack_arena != "null" else self.sizes.value(form.arena)
        size = self.load("ptr", self.word("arena"))
        found = f.value(f"call i64 {size}({', '.join(self.symbols())})")
        self.unless(f.value(f"icmp slt i64 {found}, 0"))
        return found

    def symbols(self) -> list[str]:
        return [f"i64 {self.sizes.value(Dim.symbol(s))}" for s in self.form.symbols]

    def run(self, needed: Int, results: Sequence[Result]) -> str:
        """The status of the call."""
        f = self.function
        arena = self.stack_arena if needed == 0 else self.taken_arena(needed, results)

        def give() -> None:
            if needed != 0:
                f.call("void", "graphc_give", ("ptr", self.gate), ("ptr", arena))

        def undo() -> None:
            give()
            self.drop(results)
            self.leave()

        call, long = self.prepared(arena, results), self.is_long()
        status = call() if long == "false" else f.choose(
            long, ["i32"], lambda: [self.long_call(call, results, undo)], lambda: [call()])[0]
        give()
        return status

    def taken_arena(self, needed: Int, results: Sequence[Result]) -> str:
        f = self.function
        arena = f.call("ptr", "graphc_take", ("ptr", self.gate), ("i64", needed))

        def no_memory() -> None:
            self.drop(results)
            self.leave(f.call("ptr", "PyErr_NoMemory"))

        self.when_null(arena, no_memory)
        return arena

    def prepared(self, arena: str, results: Sequence[Result]) -> Callable[[], str]:
        """Writes what the native function reads; what comes back calls it."""
        f, form = self.function, self.form
        data = [r.data for r in results]
        if form.is_entry:
            pointers = [*self.data, *data, *([self.member_table()] if form.state else []), arena]
            arguments = [*self.symbols(), *(f"ptr {p}" for p in pointers)]
        else:
            tables = [self.filled(room, pointers) for room, pointers in zip(self.tables, (self.data, data))]
            state = self.load("ptr", self.word("state")) if form.state else "null"
            arguments = [*(f"ptr {p}" for p in (*tables, state, arena)), *self.symbols()]
        entry = self.load("ptr", self.word("entry"))
        return lambda: f.value(f"call i32 {entry}({', '.join(arguments)})")

    def member_table(self) -> str:
        """The addresses of a library's variables, each in its place."""
        for k, pointer in zip(self.form.numbers, self.variable_data()):
            self.function.emit(f"store ptr {pointer}, ptr {self.function.element('ptr', self.members, k)}, align 8")
        return self.members

    def long_call(self, call: Callable[[], str], results: Sequence[Result], undo: Callable[[], None]) -> str:
        """Without the GIL; what others could drop meanwhile is held, and so is the lock of the variables."""
        f = self.function
        kept = [*self.variables, *([] if self.form.single else [r.array for r in results])]
        if self.form.state:
            self.of_lock("acquire", undo)
            f.emit(f"store i64 1, ptr {f.element('i64', self.gate, GATE['held'])}, align 8")
        for item in kept:
            f.call("void", "Py_IncRef", ("ptr", item))
        thread = f.call("ptr", "PyEval_SaveThread")
        status = call()
        f.call("void", "PyEval_RestoreThread", ("ptr", thread))
        self.release(kept)
        if self.form.state:
            f.emit(f"store i64 0, ptr {f.element('i64', self.gate, GATE['held'])}, align 8")
            self.of_lock("release", undo)
        return status

    def of_lock(self, name: str, undo: Callable[[], None]) -> None:
        """Calls a method of the lock; it may raise, as where the user interrupts the waiting."""
        done = self.function.call("ptr", "PyObject_CallNoArgs", ("ptr", self.load("ptr", self.word(name))))
        self.when_null(done, undo)
        self.release([done])

    def is_long(self) -> str:
        """An i1; in floating point, where nothing overflows."""
        f, total, known = self.function, "0.0", 0.0
        for factor, count in self.form.work:
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

    # -- the end --
    def drop(self, results: Sequence[Result]) -> None:
        """Gives up the new arrays."""
        if arrays := [r.array for r, spec in zip(results, self.form.outputs) if spec.shape]:
            self.function.when(self.fresh, lambda: self.release(arrays))

    def finish(self, status: str, results: Sequence[Result]) -> None:
        f = self.function
        f.when(f.value(f"icmp ne i32 {status}, 0"), lambda: self.refused(status, results))
        new, given = f.new_label("new"), f.new_label("given")
        f.branch_if(self.fresh, new, given)
        f.place(given)
        f.call("void", "Py_IncRef", ("ptr", self.out))
        f.emit(f"ret ptr {self.out}")
        f.place(new)
        objects = self.objects(results)
        shown = objects[0] if self.form.single else self.listed(objects)
        if any(map(is_stored_otherwise, self.form.outputs)):
            stored, shown = shown, method(f, "converted", self.filled(self.pair, ["%self", shown]), 2)
            self.release([stored])
        f.emit(f"ret ptr {shown}")

    def refused(self, status: str, results: Sequence[Result]) -> None:
        """The method raises what the status means."""
        f = self.function
        self.drop(results)
        number = f.call("ptr", "PyLong_FromLong", ("i64", f.value(f"sext i32 {status} to i64")))
        self.unless_null(number)
        raised = method(f, "refused", self.filled(self.pair, ["%self", number]), 2)
        self.release([number])
        self.leave(raised)

    def objects(self, results: Sequence[Result]) -> list[str]:
        """The new arrays, and NumPy scalars for rank 0."""
        f, found = self.function, [r.array for r in results]
        for k, (result, spec) in enumerate(zip(results, self.form.outputs)):
            if not spec.shape:
                found[k] = f.call("ptr", "PyArray_Scalar", ("ptr", result.data), ("ptr", descr(f, spec)),
                                  ("ptr", "null"))
                self.unless_null(found[k], [*found[:k], *found[k + 1:]])
        return found

    def listed(self, items: Sequence[str]) -> str:
        f = self.function
        made = f.call("ptr", "PyList_New", ("i64", len(items)))
        self.unless_null(made, items)
        if items:
            self.filled(self.load("ptr", f.element("i8", made, ITEMS)), items)
        return made
