"""What must hold between passes.  A fault is a mistake of the compiler, never of the user.

A graph:
    1  every op is in the op table, and is the table's own row
    2  an operand has a smaller id than its user, and is of the same graph
    3  the type is what the op's type rule gives for these operands and attributes
    4  attributes are hashable, and constants are read-only and of the node's dtype and shape
    5  an elementwise op has as many partials as operands (a user's op at least as many)

A plan (`graphc.ir.plan`):
    1  operands of an operation come before it; kinds are known and have what they need (map, value, operands)
    2  maps have a stride per axis, name an argument that exists, and read indices that are int64 and come before
    3  reductions of a kernel share their axes; a scan's axis exists
    4  a step has a buffer per argument, of the same dtype
    5  buffers that are live at once do not overlap in the arena, and end inside it; sizes that depend on symbols are
       compared at several values of the symbols
    6  a step's cases are cases of its conditions
    7  numbers of inputs, outputs, state, constants and messages exist
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from .dims import Dim, evaluate, symbols_of
from .errors import GraphError, VerifyError
from .memory import buffers_of
from .node import OPS, Need, Node
from .plan import Contraction, CopyStep, Kernel, KernelOp, KernelStep, Map, Program, RangeStep, taken
from .rows import overwritten_early, read_elsewhere
from .text import postorder, text
from .types import is_integer, itemsize

SAMPLES = (1, 2, 7, 64)  # values of symbols at which sizes are compared
PLAIN_KINDS = {"load", "store", "keep", "const", "iota", "reduce", "second", "scan", "accumulate", "accumulator",
               "cast"}
MONOIDS = {"add", "mul", "max", "min", "fastmax", "argmax", "argmin", "any", "all"}
MAPPED = {"load", "store", "keep", "accumulate"}


class Fault(NamedTuple):
    """What is wrong with a node."""

    node: Node
    message: str


# -- graphs --
def faults(fetches: Sequence[Node]) -> list[Fault]:
    """Every breach of the invariants in the graph of the fetches."""
    return [Fault(node, message) for node in postorder(fetches) for message in faults_of(node)]


def faults_of(node: Node) -> Iterator[str]:
    if OPS.get(node.op.name) is not node.op:
        yield f"op {node.op.name!r} is not a row of the op table"
        return
    yield from (f"operand {k} is of another graph" for k, o in enumerate(node.operands) if o.graph is not node.graph)
    yield from (f"operand {k} was built after its user" for k, o in enumerate(node.operands) if o.id >= node.id)
    for name, value in node.attrs.items():
        try:
            hash(value)
        except TypeError:
            yield f"attribute {name} is not hashable: {value!r:.60}"
    if node.op.name == "constant" and node.attrs["value"].array.flags.writeable:
        yield "the constant's array is writeable"
    partials = node.op.partials
    if partials is not None and len(partials) != len(node.operands) and node.op.name != "user":
        yield f"{len(partials)} partials for {len(node.operands)} operands"
    yield from type_faults(node)


def type_faults(node: Node) -> Iterator[str]:
    try:
        expected = node.op.infer(Need(), tuple(o.type for o in node.operands), node.attrs)
    except (GraphError, KeyError, TypeError, ValueError) as fault:
        yield f"the type rule refuses the operands: {fault!r:.200}"
        return
    if expected != node.type:
        yield f"the type is {node.type}, the type rule says {expected}"


def assert_valid(fetches: Sequence[Node], after: str) -> None:
    """Raises VerifyError with the graph and its faults, if there are any."""
    found = faults(fetches)
    if not found:
        return
    notes: dict[Node, list[str]] = {}
    for fault in found:
        notes.setdefault(fault.node, []).append(fault.message)
    raise VerifyError(f"after {after}: {len(found)} faults; please report this\n{text(fetches, notes)}")


# -- kernels --
def kernel_faults(kernel: Kernel | Contraction) -> list[str]:
    """Every breach of the invariants in one kernel, as `op 3 (add): what`."""
    rank = len(kernel.extents)
    found: list[str] = []
    for k, op in enumerate(kernel.ops):
        found += [f"op {k} ({op.kind}): {message}" for message in op_faults(kernel, k, op)]
    if isinstance(kernel, Contraction):
        for name, matrix, zero_axis in (("a", kernel.a, rank - 1), ("b", kernel.b, rank - 2)):
            found += [f"map {name}: {message}" for message in map_faults(kernel, len(kernel.ops), matrix, rank + 1)]
            if len(matrix.strides) == rank + 1 and matrix.strides[zero_axis] != 0:
                found.append(f"map {name}: its stride along axis {zero_axis} is {matrix.strides[zero_axis]}, not 0")
        if not kernel.ops or kernel.ops[0].kind != "accumulator" or kernel.ops[0].dtype != kernel.dtype:
            found.append(f"op 0 is not the accumulator of dtype {kernel.dtype}")
    axes = {op.value[1] for op in kernel.ops if op.kind == "reduce" and is_pair(op.value)}
    if len(axes) > 1:
        found.append(f"reductions over different axes: {sorted(axes)}")
    if not any(op.kind in ("store", "accumulate", "keep") for op in kernel.ops):
        found.append("nothing is stored")
    if isinstance(kernel, Kernel):
        read = {op.map.argument for op in kernel.ops if op.map is not None and op.kind != "store"}
        for argument in kernel.schedule.streamed:
            if argument in read or argument not in written_arguments(kernel):
                found.append(f"argument {argument} is streamed, but not just stored to")
        if not found:
            found += [f"op {k} ({kernel.ops[k].kind}): what it reads is overwritten by op {store} before the last pass "
                      "that needs it" for k, store in overwritten_early(kernel)]
            found += [f"op {k} (load): reads what op {store} writes, at another place"
                      for k, store in read_elsewhere(kernel)]
    return found


def is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def op_faults(kernel: Kernel | Contraction, place: int, op: KernelOp) -> Iterator[str]:
    rank = len(kernel.extents)
    row = OPS.get(op.kind)
    if op.kind not in PLAIN_KINDS and (row is None or row.kind != "elementwise"):
        yield "no such kind"
    yield from (f"operand {k} does not come before it" for k in op.operands if not 0 <= k < place)
    if op.kind in MAPPED and op.map is None:
        yield "has no map"
    if op.kind not in MAPPED and op.map is not None:
        yield "has a map that nothing reads"
    if op.map is not None:
        yield from map_faults(kernel, place, op.map, rank)
        if 0 <= op.map.argument < len(kernel.arguments) and kernel.arguments[op.map.argument] != op.dtype:
            yield f"is of {op.dtype}, its argument of {kernel.arguments[op.map.argument]}"
    yield from arity_faults(op)
    yield from value_faults(kernel, op, rank)


ARITY = {"load": 0, "const": 0, "iota": 0, "accumulator": 0, "store": 1, "keep": 1, "reduce": 1, "second": 1,
         "accumulate": 1, "cast": 1, "scan": 2}


def arity_faults(op: KernelOp) -> Iterator[str]:
    row = OPS.get(op.kind)
    own = len(row.partials) if row is not None and row.partials and op.kind != "user" else None
    expected = ARITY.get(op.kind, own)
    if expected is not None and len(op.operands) != expected:
        yield f"has {len(op.operands)} operands, needs {expected}"


def value_faults(kernel: Kernel | Contraction, op: KernelOp, rank: int) -> Iterator[str]:
    if op.kind == "reduce":
        if not is_pair(op.value) or op.value[0] not in MONOIDS:
            yield f"value {op.value!r} is no (monoid, axes)"
        elif not all(0 <= axis < rank for axis in op.value[1]):
            yield f"axes {op.value[1]} are not axes of {rank}"
    if op.kind == "scan" and not (is_pair(op.value) and 0 <= op.value[0] < rank):
        yield f"value {op.value!r} is no (axis, reverse)"
    if op.kind == "iota" and not (isinstance(op.value, int) and 0 <= op.value < rank):
        yield f"value {op.value!r} is no axis"
    if op.kind == "const" and not isinstance(op.value, (int, float, Dim)):
        yield f"value {op.value!r} is no number"
    if op.kind == "second" and op.operands and 0 <= op.operands[0] < len(kernel.ops):
        source = kernel.ops[op.operands[0]]
        if source.kind != "reduce" or not is_pair(source.value) or source.value[0] not in ("argmax", "argmin"):
            yield f"its operand is {source.kind}, not an argmax or argmin"


def map_faults(kernel: Kernel | Contraction, place: int, map: Map, rank: int) -> Iterator[str]:
    if not 0 <= map.argument < len(kernel.arguments):
        yield f"argument {map.argument} of {len(kernel.arguments)}"
    if len(map.strides) != rank:
        yield f"{len(map.strides)} strides for {rank} axes"
    for op, _, _ in map.indices:
        if not 0 <= op < place:
            yield f"index {op} does not come before it"
        elif kernel.ops[op].dtype != "int64":
            yield f"index {op} is of {kernel.ops[op].dtype}, not int64"
    yield from (f"a guard has {len(g.strides)} strides for {rank} axes" for g in map.guards if len(g.strides) != rank)


# -- programs --
def program_faults(program: Program) -> list[str]:
    """Every breach of the invariants in a plan."""
    found = [message for number, step in enumerate(program.steps) for message in step_faults(program, number, step)]
    counts = {"input": len(program.inputs), "output": len(program.outputs), "state": len(program.state),
              "constant": len(program.constants)}
    for number, buffer in enumerate(program.buffers):
        if buffer.place not in (*counts, "arena"):
            found.append(f"buffer {number}: no place {buffer.place!r}")
        elif buffer.place != "arena" and not 0 <= buffer.number < counts[buffer.place]:
            found.append(f"buffer {number}: there is no {buffer.place} {buffer.number}")
    sizes = [program.arena, *(s for b in program.buffers for s in (b.size, b.offset)),
             *(taken(step.when) for step in program.steps)]
    unknown = set(symbols_of(*sizes)) - set(program.symbols)
    if unknown:
        return [*found, f"sizes need the symbols {', '.join(sorted(unknown))}, which the program does not take"]
    return found + overlaps(program)


def step_faults(program: Program, number: int, step: KernelStep | RangeStep | CopyStep) -> Iterator[str]:
    name = f"step {number}"
    used = buffers_of(step)
    if any(not 0 <= b < len(program.buffers) for b in used):
        yield f"{name}: buffers {used} of {len(program.buffers)}"
        return
    buffers = [program.buffers[b] for b in used]
    yield from (f"{name}: case {c.number} of {len(c.conditions) + 1}" for c in step.when
                if not 0 <= c.number <= len(c.conditions))
    if isinstance(step, KernelStep):
        given = tuple(b.dtype for b in buffers)
        if given != step.kernel.arguments:
            yield f"{name}: buffers of {given} for arguments {step.kernel.arguments}"
        yield from (f"{name}: {message}" for message in kernel_faults(step.kernel))
        yield from (f"{name}: {message}" for message in size_faults(program, step))
        written = written_arguments(step.kernel)
        yield from (f"{name}: writes constant buffer {used[a]}" for a in written
                    if a < len(buffers) and buffers[a].place in ("constant", "input"))
    elif isinstance(step, RangeStep):
        if not is_integer(buffers[0].dtype):
            yield f"{name}: indices of {buffers[0].dtype}"
        if not 0 <= step.number < len(program.messages):
            yield f"{name}: message {step.number} of {len(program.messages)}"
    elif (buffers[0].dtype, buffers[0].size) != (buffers[1].dtype, buffers[1].size):
        yield f"{name}: copies {buffers[0].dtype}[{buffers[0].size}] to {buffers[1].dtype}[{buffers[1].size}]"


def size_faults(program: Program, step: KernelStep) -> Iterator[str]:
    """A kernel's symbols are the program's or given by the step, and not both."""
    own = [name for name, _ in step.sizes]
    yield from (f"gives a value to {name}, which is a size of the program" for name in own if name in program.symbols)
    sizes = [*step.kernel.extents, *(size for _, size in step.sizes)]
    sizes += [size for op in step.kernel.ops if op.map is not None for size in (op.map.offset, *op.map.strides)]
    unknown = set(symbols_of(*map(step.size, sizes))) - set(program.symbols)
    if unknown:
        yield f"sizes need the symbols {', '.join(sorted(unknown))}, which nothing gives it"


def written_arguments(kernel: Kernel | Contraction) -> list[int]:
    writing = [op.map for op in kernel.ops if op.kind in ("store", "keep", "accumulate")]
    return sorted({map.argument for map in writing if map is not None})


def lifetimes(program: Program) -> dict[int, tuple[int, int]]:
    """First and last step that uses each arena buffer."""
    spans: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(program.steps):
        for b in buffers_of(step):
            if 0 <= b < len(program.buffers) and program.buffers[b].place == "arena":
                spans[b] = (spans.get(b, (number, number))[0], number)
    return spans


def overlaps(program: Program) -> list[str]:
    """Arena buffers that share bytes while both are live, or that leave the arena, at sample sizes."""
    spans = lifetimes(program)
    found: dict[str, None] = {}
    for values in samples(program.symbols):
        places = sorted((evaluate(b.offset, values), evaluate(b.size, values) * itemsize(b.dtype), k)
                        for k, b in enumerate(program.buffers) if k in spans)
        arena = evaluate(program.arena, values)
        found |= {f"buffer {k}: ends at byte {at + size} of an arena of {arena} (at {values})": None
                  for at, size, k in places if at < 0 or at + size > arena}
        open_ones: list[tuple[int, int]] = []  # (end, buffer) of those that reach beyond where we are
        for at, size, k in places:
            open_ones = [(end, other) for end, other in open_ones if end > at]
            if size:
                found |= {f"buffers {min(k, other)} and {max(k, other)} overlap while both are live (at {values})": None
                          for _, other in open_ones if meet(spans[k], spans[other])}
                open_ones.append((at + size, k))
    return list(found)


def meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def samples(symbols: Sequence[str]) -> Iterator[dict[str, int]]:
    """All symbols at each sample value, and each alone at the greatest."""
    if not symbols:
        yield {}
        return
    for value in SAMPLES:
        yield dict.fromkeys(symbols, value)
    if len(symbols) > 1:
        for symbol in symbols:
            yield {**dict.fromkeys(symbols, SAMPLES[0]), symbol: SAMPLES[-1]}


def assert_valid_program(program: Program, after: str, show: Callable[[Program], str] = repr) -> None:
    """Raises VerifyError with the faults and the plan, if there are any."""
    found = program_faults(program)
    if found:
        listed = "\n".join(f"    ^ {message}" for message in found)
        raise VerifyError(f"after {after}: {len(found)} faults in the plan; please report this\n{listed}\n"
                          f"{show(program)}")

