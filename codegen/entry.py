"""An entry of a library for one target: what the caller gives is checked, then the steps of its program follow.

    i32 <name>(i64 size.., ptr input.., ptr output.., [ptr state,] ptr workspace)
    i64 <name>_workspace_size(i64 size..)      -1 where a size is not valid

An entry trusts nothing: sizes are evaluated with checked arithmetic, pointers may be null only where nothing is behind
them, and must be aligned.  Where a check fails nothing is written.  Checks and steps are one function: a call of a
small program costs little more than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Dim, product
from graphc.ir.errors import GraphError
from graphc.ir.plan import Array, CopyStep, KernelStep, Program
from graphc.ir.types import itemsize

from .checked import CheckedSizes
from .header import STATUS, WORKSPACE_ALIGN
from .program import Places, StepWriter, arena_sizes, arena_value, constant_symbol
from .sizes import symbol_register
from .target import Target
from .text import INLINE, Function, Int, Module

CODE = {name: value for name, value, _ in STATUS}
SIZE_END = "_workspace_size"


def used_state(program: Program) -> tuple[int, ...]:
    """Which variables the steps of a program touch."""
    touched: set[int] = set()
    for step in program.steps:
        touched |= set(step.buffers) if isinstance(step, KernelStep) else (
            {step.source, step.target} if isinstance(step, CopyStep) else {step.buffer})
    return tuple(sorted({program.buffers[b].number for b in touched if program.buffers[b].place == "state"}))


def kept_state(program: Program, weights: Sequence[str]) -> tuple[int, ...]:
    """Members of the caller's struct that a program touches; its first variables are weights of the library."""
    return tuple(k - len(weights) for k in used_state(program) if k >= len(weights))


def sizes_of(program: Program) -> list[str]:
    return [f"i64 {symbol_register(s)}" for s in program.symbols]


def parameters_of(program: Program, weights: Sequence[str]) -> list[str]:
    """The parameters of an entry, each with its type."""
    arrays = [f"ptr %in{k}" for k in range(len(program.inputs))] + [f"ptr %out{k}" for k in range(len(program.outputs))]
    state = ["ptr %state"] if kept_state(program, weights) else []
    return [*sizes_of(program), *arrays, *state, "ptr %workspace"]


def emit_entry(module: Module, name: str, program: Program, target: Target, weights: Sequence[str], *,
               has_pool: bool) -> None:
    """Both functions; `weights` are the symbols of the program's first variables, the others are the caller's."""
    for symbol in (*weights, *(constant_symbol(c.key) for c in program.constants)):
        module.add_global(symbol, data_text(symbol))
    arena = arena_sizes(program, target, has_pool=has_pool)[0]
    if program.symbols:
        emit_sizes(module, name, program, arena, target)
    else:
        check_sizes(name, program, arena, target)
    _Writer(module, name, program, target, weights, has_pool).write()
    emit_workspace_size(module, name, program, target, has_pool=has_pool)


def data_text(symbol: str) -> str:
    """The declaration of data of the library."""
    return f"@{symbol} = external hidden constant i8, align 64"


def check_sizes(name: str, program: Program, arena: int | Dim, target: Target) -> None:
    """Raises GraphError where an array of known size cannot be addressed."""
    sizes = {array.name: product(array.shape) * itemsize(array.dtype) for array in (*program.inputs, *program.outputs)}
    for what, nbytes in (sizes | {"the workspace": arena}).items():
        if isinstance(nbytes, int) and nbytes > target.most_bytes:
            raise GraphError(f"library: {name}: {what} has {nbytes} bytes, {target.name} reaches {target.most_bytes}")


def emit_sizes(module: Module, name: str, program: Program, arena: int | Dim, target: Target) -> None:
    """`i1 @<name>_sizes(i64 size..)`: whether the sizes are such that the program may run; `arena` is what it needs."""
    f = Function(module, f"define internal i1 @{name}_sizes({', '.join(sizes_of(program))}){INLINE} #0")
    sizes = CheckedSizes(f, {s: symbol_register(s) for s in program.symbols})
    # Every symbol is the length of some axis of an input, so none is negative either.
    for array in (*program.inputs, *program.outputs):
        for size in array.shape:
            sizes.nonnegative(size)
        sizes.at_most(product(array.shape) * itemsize(array.dtype), target.most_bytes)
    for check in program.checks:
        sizes.check(check)
    sizes.nonnegative(arena)
    sizes.at_most(arena, target.most_bytes)
    f.emit(f"ret i1 {f.value(f'xor i1 {sizes.any_fault()}, true')}")
    module.add(f"{name}_sizes", f.text())


def emit_workspace_size(module: Module, name: str, program: Program, target: Target, *, has_pool: bool) -> None:
    listed = ", ".join(sizes_of(program))
    f = Function(module, f"define hidden i64 @{name}{SIZE_END}({listed}) #0")

    def arena() -> list[Int]:
        return [arena_value(f, program, *arena_sizes(program, target, has_pool=has_pool))]
    if program.symbols:
        f.emit(f"ret i64 {f.choose(f.value(f'call i1 @{name}_sizes({listed})'), ['i64'], arena, lambda: [-1])[0]}")
    else:  # the sizes were checked when the program was made
        f.emit(f"ret i64 {arena()[0]}")
    module.add(f"{name}{SIZE_END}", f.text())


class _Writer:
    """Writes the function of an entry."""

    def __init__(self, module: Module, name: str, program: Program, target: Target, weights: Sequence[str],
                 has_pool: bool) -> None:
        self.module, self.name, self.program, self.target = module, name, program, target
        self.weights = weights
        self.arena = arena_sizes(program, target, has_pool=has_pool)
        listed = ", ".join(parameters_of(program, weights))
        self.function = Function(module, f"define hidden i32 @{name}({listed}) #0")
        self.members: dict[int, str] = {}
        places = Places(self.pointer, "%workspace", lambda _: CODE["OUT_OF_RANGE"])
        self.steps = StepWriter(self.function, program, target, places, has_pool=has_pool, inline=True)
        self.sizes = CheckedSizes(self.function, {s: symbol_register(s) for s in program.symbols})

    def write(self) -> None:
        f, program = self.function, self.program
        if program.symbols:
            good = f.value(f"call i1 @{self.name}_sizes({', '.join(sizes_of(program))})")
            self.refuse(f.value(f"xor i1 {good}, true"), "BAD_SIZE")
        arrays = [(f"%in{k}", array) for k, array in enumerate(program.inputs)]
        arrays += [(f"%out{k}", array) for k, array in enumerate(program.outputs)]
        arrays += self.variables()
        behind = [(pointer, itemsize(array.dtype), self.sizes.value(product(array.shape))) for pointer, array in arrays]
        behind.append(("%workspace", WORKSPACE_ALIGN, arena_value(f, program, *self.arena)))
        for pointer, _, size in behind:
            if size != 0:
                self.refuse(self.with_something(f"icmp eq ptr {pointer}, null", size), "NULL_POINTER")
        self.check_alignment(behind)
        self.steps.write()
        self.module.add(self.name, f.text())

    def pointer(self, place: str, number: int) -> str:
        """Where an array is, for the steps; variables that no step touches are nowhere."""
        if place != "state":
            return f"%{'in' if place == 'input' else 'out'}{number}"
        if number < len(self.weights):
            return f"@{self.weights[number]}"
        return self.members.get(number - len(self.weights), "null")

    def variables(self) -> list[tuple[str, Array]]:
        """The members of the state struct that the program touches, and what they are."""
        kept = kept_state(self.program, self.weights)
        if not kept:
            return []
        f = self.function
        self.refuse(f.value("icmp eq ptr %state, null"), "NULL_POINTER")
        size = self.target.pointer_bytes
        self.check_alignment([("%state", size, 1)])
        self.members = {k: f.value(f"load ptr, ptr {f.element('ptr', '%state', k)}, align {size}") for k in kept}
        return [(pointer, self.program.state[len(self.weights) + k]) for k, pointer in self.members.items()]

    def refuse(self, condition: str, reason: str) -> None:
        f = self.function
        wrong, right = f.new_label("wrong"), f.new_label("right")
        f.branch_if(condition, wrong, right, unlikely=True)
        f.place(wrong)
        f.emit(f"ret i32 {CODE[reason]}")
        f.place(right)

    def with_something(self, condition: str, size: Int) -> str:
        """An i1: the condition, and that there is something behind the pointer."""
        f = self.function
        wrong = f.value(condition)
        return wrong if isinstance(size, int) else f.value(f"and i1 {wrong}, {f.value(f'icmp ne i64 {size}, 0')}")

    def check_alignment(self, pointers: Sequence[tuple[str, int, Int]]) -> None:
        """Refuses pointers, each with its alignment and size, that are not aligned; where nothing is behind, any does.

        Those of one alignment that surely have something behind them are looked at together.
        """
        f = self.function
        together: dict[int, Int] = {}
        for pointer, alignment, size in pointers:
            if alignment == 1 or size == 0:
                continue
            address = f.value(f"ptrtoint ptr {pointer} to i64")
            if isinstance(size, int):
                together[alignment] = f.value(f"or i64 {together.get(alignment, 0)}, {address}")
            else:
                self.refuse(self.with_something(self.low_bits(address, alignment), size), "MISALIGNED")
        for alignment, bits in together.items():
            self.refuse(f.value(self.low_bits(bits, alignment)), "MISALIGNED")

    def low_bits(self, address: Int, alignment: int) -> str:
        """The comparison that tells whether any of the bits below the alignment is set."""
        return f"icmp ne i64 {self.function.value(f'and i64 {address}, {alignment - 1}')}, 0"
