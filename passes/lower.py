"""Graph -> program: the last pass.  What comes out holds no nodes (`graphc.ir.plan`).

    outputs, updates  --roots, groups-->  kernels over nodes  --schedule, memory-->  steps over buffers
                      --straight-->       (small and static: kernels without axes)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir.dims import Dim, product, symbols_of
from graphc.ir.errors import GraphError, Loc
from graphc.ir.node import Node, ancestors
from graphc.ir.plan import (
    Array,
    Buffer,
    Constant,
    Contraction,
    CopyStep,
    DimCheck,
    Kernel,
    KernelStep,
    Map,
    Program,
    RangeStep,
)
from graphc.ir.types import to_storage

from .branches import When, cases_of, shared
from .families import with_shared_kernels
from .fuse import Fusion, fuse
from .groups import Group
from .kernels import loop_kernel
from .builder import Again, Draft, Place, Scratch
from .memory import aligned, assign_offsets, fits_in_place, in_place, lifetimes
from .pieces import piecewise_kernels
from .products import contraction_step
from .recompute import Forward, within
from .roots import is_leaf
from .schedule import schedule
from .streamed import with_streamed_outputs
from .straight import straight_drafts

Step = KernelStep | RangeStep | CopyStep


@dataclass(frozen=True)
class Request:
    """What a native function shall do: read `inputs`, return `outputs`, give variables new values."""

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[tuple[Node, Node], ...] = ()  # (variable, new value)
    state: tuple[Node, ...] = ()  # the order of variables, where the caller fixes it
    checks: tuple[DimCheck, ...] = ()  # what the graph required of sizes before nodes were rewritten
    arena_limit: int | None = None  # bytes; values are computed again where the arena would be larger


def without_reshape(node: Node) -> Node:
    """An output in memory is the same bytes in any shape."""
    while node.op.name == "reshape":
        node = node.operands[0]
    return node


def lower(request: Request, observe: Callable[[Fusion], None] | None = None) -> Program:
    """The program of optimised nodes; `observe` is told what fusion made of them, where loops are.

    Where no program keeps the limit of the arena, it is the one that comes nearest.
    """
    outputs = [without_reshape(node) for node in request.outputs]
    updates = [(variable, without_reshape(value)) for variable, value in request.updates]
    targets = [*outputs, *(value for _, value in updates)]
    steps = straight_drafts(targets, [value for _, value in updates])
    if steps is None:
        steps = loop_drafts(targets, {value: variable for variable, value in updates if not is_leaf(value)}, observe)
    program = Assembly(request, outputs, updates, steps).program()
    if request.arena_limit is None or not isinstance(program.arena, int) or program.arena <= request.arena_limit:
        return program
    return within(request.arena_limit, program, Forward(steps, resident_places(targets)),
                  lambda again: Assembly(request, outputs, updates, again).program())


def resident_places(targets: Sequence[Node]) -> set[Place]:
    """What takes no arena: leaves and results."""
    return {*(n for n in ancestors(targets) if is_leaf(n)), *targets}


def loop_drafts(targets: Sequence[Node], becomes: Mapping[Node, Node],
                observe: Callable[[Fusion], None] | None) -> list[Draft]:
    """Kernels with loops, in an order that works; `becomes` says which variables new values replace."""
    fusion = fuse(targets, cases_of(targets))
    if observe is not None:
        observe(fusion)
    drafts = [draft for group in fusion.groups for draft in drafts_of(group, fusion.roots, fusion.stored)]
    return schedule(drafts, becomes, resident_places(targets))


def drafts_of(group: Group, roots: set[Node], stored: set[Node]) -> list[Draft]:
    """The kernels of a group, in the cases in which it is needed."""
    drafts = kernels_of(group, roots, stored)
    return [replace(draft, when=(*group.when, *draft.when)) for draft in drafts] if group.when else drafts


def kernels_of(group: Group, roots: set[Node], stored: set[Node]) -> list[Draft]:
    if group.kind == "alone":
        return piecewise_kernels(next(iter(group.roots)), roots)
    if group.kind == "contraction":
        return [contraction_step(group, roots, stored)]
    return [loop_kernel(group, roots, stored)]


def size_checks(nodes: Sequence[Node], more: Sequence[DimCheck] = ()) -> tuple[DimCheck, ...]:
    """What nodes require of run-time sizes, each once."""
    return tuple(dict.fromkeys([*more, *(c for n in nodes for c in n.checks)]))


def steps_of(uses: Iterable[tuple[int, Place]]) -> dict[Place, list[int]]:
    """For each place the steps that use it, in order."""
    found: dict[Place, list[int]] = {}
    for k, place in uses:
        found.setdefault(place, []).append(k)
    return found


class Assembly:
    """Steps over nodes become steps over buffers."""

    def __init__(self, request: Request, outputs: Sequence[Node], updates: Sequence[tuple[Node, Node]],
                 steps: Sequence[Draft]) -> None:
        self.request = request
        self.outputs = outputs
        self.updates = updates
        self.steps = steps
        self.nodes = ancestors([*request.outputs, *(v for _, v in request.updates)])
        self.state = request.state or tuple(dict.fromkeys(
            [n for n in self.nodes if n.op.name == "variable"] + [v for v, _ in updates]))
        self.reading = steps_of((k, place) for k, step in enumerate(steps) for place in step.reads())
        self.writing = steps_of((k, root) for k, step in enumerate(steps) for root in step.writes)
        self.becoming = Counter(value for _, value in updates)
        self.buffers: list[Buffer] = []
        self.number_of: dict[Place, int] = {}
        self.same: dict[Place, Place] = {}
        self.constants: list[Constant] = []
        self.messages: list[str] = []
        self.arena: int | Dim = 0

    def program(self) -> Program:
        symbols = self.symbols()
        self.place_leaves()
        first, last = self.place_results()
        self.place_arena({source for source, _ in last})
        copies = [CopyStep(self.number(source), target, loc=line_of(source)) for source, target in last]
        return Program(
            self.request.name, symbols, tuple(map(array, self.request.inputs)),
            tuple(Array(f"output{k}", n.dtype, n.shape) for k, n in enumerate(self.request.outputs)),
            tuple(map(array, self.state)), tuple(self.constants), tuple(self.buffers),
            tuple(with_streamed_outputs([*first, *self.kernel_steps(), *copies], self.buffers)),
            self.arena, size_checks(self.nodes, self.request.checks), tuple(self.messages))

    def symbols(self) -> tuple[str, ...]:
        """The run-time sizes; each must be the length of an axis of an input."""
        known = {names[0] for n in self.request.inputs for size in n.shape
                 if len(names := symbols_of(size)) == 1 and size == Dim.symbol(names[0])}
        for node in self.nodes:
            sizes = (size for condition in node.attrs.get("conditions", ()) for pair in condition for size in pair)
            for name in symbols_of(*node.shape, *sizes):
                if name not in known:
                    inputs = ", ".join(n.name for n in self.request.inputs) or "none"
                    raise GraphError(f"{node.op.name}: the size {name!r} of {node.type} is not the length of any axis "
                                     f"of the inputs ({inputs}), so it would be unknown at run time\n  at {node.loc}")
        return tuple(sorted(known))

    # -- buffers --
    def number(self, place: Place) -> int:
        return self.number_of[self.same.get(place, place)]

    def add(self, buffer: Buffer, place: Place | None = None) -> int:
        self.buffers.append(buffer)
        if place is not None:
            self.number_of[place] = len(self.buffers) - 1
        return len(self.buffers) - 1

    def place_leaves(self) -> None:
        for k, node in enumerate(self.request.inputs):
            self.add(Buffer(node.dtype, node.size, "input", k, name=node.name), node)
        for k, node in enumerate(self.state):
            self.add(Buffer(node.dtype, node.size, "state", k, name=node.name), node)
        for node in self.nodes:
            if node.op.name == "constant" and is_leaf(node):
                self.add_constant(node)

    def add_constant(self, node: Node) -> None:
        bits = node.attrs["value"]
        data = to_storage(bits.array, node.dtype).tobytes()
        self.constants.append(Constant(bits.key, node.dtype, bits.array.shape, data))
        self.add(Buffer(node.dtype, node.size, "constant", len(self.constants) - 1, name=bits.key), node)

    def place_results(self) -> tuple[list[Step], list[tuple[Place, int]]]:
        """Puts results where they are wanted; returns the copies to make before the kernels, and those after."""
        first: list[Step] = []
        last: list[tuple[Place, int]] = []
        for k, node in enumerate(self.outputs):
            result = Buffer(node.dtype, node.size, "output", k, name=f"output{k}")
            if is_leaf(node):
                first.append(CopyStep(self.number(node), self.add(result)))  # a variable's old value
            elif node in self.number_of:
                last.append((node, self.add(result)))
            else:
                self.add(result, node)
        changed = {variable for variable, _ in self.updates}
        for variable, value in self.updates:
            if value is variable:
                continue
            if is_leaf(value) and value in changed:
                old = self.add(Buffer(value.dtype, value.size, "arena", offset=self.arena, name=f"old {value.name}"))
                self.arena = self.arena + aligned(value.type.nbytes)
                first.append(CopyStep(self.number(value), old))
                token = Scratch(value, value.dtype, value.shape, -1)
                self.number_of[token] = old
                last.append((token, self.number_of[variable]))
            elif value not in self.number_of and self.may_write(variable, value):
                self.number_of[value] = self.number_of[variable]
            else:
                last.append((value, self.number_of[variable]))
        return first, last

    def may_write(self, variable: Node, value: Node) -> bool:
        """Whether the steps that compute `value` may write straight into the variable: nobody needs its old value."""
        writing, reading = self.writing.get(value, []), self.reading.get(variable, [])
        if not writing or self.becoming[value] > 1:
            return False
        if not reading or max(reading) < writing[0]:
            return True
        step = self.steps[writing[0]]
        return len(writing) == 1 and max(reading) == writing[0] and fits_in_place(step, variable, value)

    def place_arena(self, needed_later: set[Place]) -> None:
        elsewhere = set(self.number_of) | needed_later
        self.same = {r: h for r, h in in_place(self.steps, elsewhere).items() if r not in self.number_of}
        found = lifetimes(self.steps, set(self.number_of), self.same)
        for buffer in found:
            if buffer.place in needed_later:
                buffer.last = len(self.steps)
        base = self.arena
        size = assign_offsets(found)
        for buffer in found:
            place = buffer.place
            self.add(Buffer(place.dtype, product(place.shape), "arena", offset=buffer.offset + base,
                            name="row" if isinstance(place, Scratch) else place.name), place)
        self.arena = base + size

    # -- steps --
    def kernel_steps(self) -> list[Step]:
        """The kernels, and the range checks of index buffers: first of those that are there, then as they are made."""
        made = {node for draft in self.steps for node in draft.writes}
        pending: dict[tuple[Node, int | Dim, Node], When] = {}
        for draft in self.steps:
            for index in draft.indices:
                pending[index] = shared(pending.get(index, draft.when), draft.when)
        found: list[Step] = [self.range_step(*index, when) for index, when in pending.items() if index[0] not in made]
        writers = {node: k for k, draft in enumerate(self.steps) for node in draft.writes}
        for k, step in enumerate(with_shared_kernels([self.merged(draft) for draft in self.steps])):
            found.append(step)
            found += [self.range_step(*index, when) for index, when in pending.items() if writers.get(index[0]) == k]
        return found

    def range_step(self, held: Node, extent: int | Dim, user: Node, when: When) -> RangeStep:
        self.messages.append(f"{user.op.name}: an index lies outside [-{extent}, {extent})\n  at {user.loc}")
        return RangeStep(self.number(held), extent, len(self.messages) - 1, when, user.loc)

    def merged(self, draft: Draft) -> KernelStep:
        """The step with one argument for each buffer: in-place operands and results become the same one."""
        numbers = [self.number(place) for place in draft.places]
        unique = list(dict.fromkeys(numbers))
        if len(unique) == len(numbers):
            return KernelStep(draft.kernel, tuple(numbers), draft.label, draft.when)
        return KernelStep(with_arguments(draft.kernel, [unique.index(n) for n in numbers], len(unique)),
                          tuple(unique), draft.label, draft.when)


def with_arguments(kernel: Kernel | Contraction, new: Sequence[int], count: int) -> Kernel | Contraction:
    """The kernel with argument k renumbered to new[k]."""
    def moved(m: Map) -> Map:
        return replace(m, argument=new[m.argument])

    dtypes = [""] * count
    for k, dtype in enumerate(kernel.arguments):
        dtypes[new[k]] = dtype
    ops = tuple(replace(op, map=moved(op.map)) if op.map else op for op in kernel.ops)
    if isinstance(kernel, Contraction):
        return replace(kernel, arguments=tuple(dtypes), ops=ops, a=moved(kernel.a), b=moved(kernel.b))
    return replace(kernel, arguments=tuple(dtypes), ops=ops)


def line_of(place: Place) -> Loc | None:
    """The user's line that computed what lies there."""
    node = place.owner if isinstance(place, Scratch) else place.root if isinstance(place, Again) else place
    return None if is_leaf(node) else node.loc


def array(node: Node) -> Array:
    return Array(node.name, node.dtype, node.shape)
