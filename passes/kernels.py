"""Groups -> kernels: the loop nest of elementwise roots and reductions that share their axes.

    group: max1, z, y over (batch, 10)          %0 = load x          %4 = exp %3
                                                %1 = reduce max %0   %5 = keep -> y
                                         ->     %2 = load x          %6 = reduce add %5
                                                %3 = sub %2 %1       %7 = div %5 %6      store y %7

A value that is dear to compute and needed again in a later pass over a row is kept, in the output if that is free until
then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.costs import weight
from graphc.ir.dims import Dim
from graphc.ir.node import Node
from graphc.ir.plan import KernelOp, Map
from graphc.ir.rows import needs_of, passes_of

from .builder import Builder, Draft, Scratch, finished, root_value
from .coordinates import Coordinates, axis, identity, row_major
from .groups import Group
from .spaces import iteration_space
from .roots import CHEAP, REDUCTIONS, is_count


def row_places(group: Group) -> Coordinates:
    return tuple(axis(k, len(group.domain)) for k in group.kept)


def loop_kernel(group: Group, roots: set[Node], stored: set[Node]) -> Draft:
    """The kernel of a group of elementwise roots and reductions; `stored` are the roots read elsewhere."""
    builder = Builder(group.domain, roots, next(iter(group.roots)).loc)
    full = identity(len(group.domain))
    reduced = tuple(sorted(group.reduced))
    values: list[tuple[Node, int, Coordinates]] = []
    for root in group.roots:
        builder.loc = root.loc
        space, own_axes = iteration_space(root)
        if (root.op.name in REDUCTIONS and not is_count(root)) or root.op.name == "einsum":
            number = builder.reduced(root, full, tuple(sorted(own_axes)))
            at = row_places(group) if own_axes else full
        else:
            is_row = group.reduced and space == group.row_shape
            at = full if space == group.domain and not is_row else row_places(group)
            number = root_value(builder, root, at)
        builder.known[root, at] = number
        values.append((root, number, at))
    for root, number, at in values:
        if root in stored:
            builder.loc = root.loc
            builder.store(root, number, at)
    scratch = keep_dear_values(builder, reduced, next(iter(group.roots)))
    places = (*builder.places, *scratch) if scratch else tuple(builder.places)
    return finished(builder, tuple(places), tuple(r for r in group.roots if r in stored), tuple(group.roots))


def keep_dear_values(builder: Builder, reduced: tuple[int, ...], owner: Node) -> list[Scratch]:
    """Inserts a `keep` for values that are dear to compute and used in a later pass too; returns the scratch rows."""
    first = passes_of(builder.ops)
    if max(first, default=0) == 0:
        return []
    spread = axes_of(builder, reduced)
    scratch: list[Scratch] = []
    price: list[float] = []
    chosen: list[int] = []
    for number, op in enumerate(builder.ops):
        own = 0.0 if number in chosen else weight(op.kind)
        price.append(own + sum(price[k] for k in set(op.operands) if spread[k]) if spread[number] else 0.0)
        is_dear = op.kind not in ("load", "store", "reduce") and price[number] > CHEAP
        if spread[number] and is_dear and last_pass(builder.ops, first, number) > first[number]:
            chosen.append(number)
            price[number] = 1.0
    for number in reversed(chosen):
        insert_keep(builder, number, first, reduced, owner, scratch)
    return scratch


def axes_of(builder: Builder, reduced: tuple[int, ...]) -> list[bool]:
    """Whether each op's value varies along the reduced axes."""
    found: list[bool] = []
    for op in builder.ops:
        varies = any(found[k] for k in op.operands) and op.kind != "reduce"
        if op.map and op.kind == "load":
            varies = any(op.map.strides[a] != 0 for a in reduced) or any(found[k] for k, _, _ in op.map.indices)
        found.append(varies or (op.kind == "iota" and op.value in reduced))
    return found


def last_pass(ops: Sequence[KernelOp], first: list[int], number: int) -> int:
    """The last pass in which an operation that uses the value is first computed."""
    return max((first[k] - (op.kind == "reduce") for k, op in enumerate(ops) if number in op.operands), default=0)


def insert_keep(builder: Builder, number: int, first: list[int], reduced: tuple[int, ...], owner: Node,
                scratch: list[Scratch]) -> None:
    """Inserts it, in the place of a store that comes when the value is needed no more, or else in a row of its own."""
    op, last = builder.ops[number], needs_of(builder.ops, first)[number]
    target = next((o.map for k, o in enumerate(builder.ops) if o.kind == "store" and o.dtype == op.dtype and o.map
                   and first[k] >= last and all(o.map.strides[a] != 0 for a in reduced)
                   and not any(p.kind == "keep" and p.map == o.map for p in builder.ops)), None)
    if target is None:
        shape = tuple(builder.extents[a] for a in reduced)
        strides: list[int | Dim] = [0] * len(builder.extents)
        for a, stride in zip(reduced, row_major(shape)):
            strides[a] = stride
        row = Scratch(owner, op.dtype, shape, len(scratch))
        scratch.append(row)
        target = Map(len(builder.places) + len(scratch) - 1, 0, tuple(strides))
    kept = KernelOp("keep", (number,), op.dtype, target, None, op.loc)

    def moved(k: int) -> int:
        return k if k < number else number + 1 if k == number else k + 1

    later = [replace(o, operands=tuple(map(moved, o.operands)), map=o.map and replace(o.map, indices=tuple(
        (moved(k), s, e) for k, s, e in o.map.indices))) for o in builder.ops[number + 1:]]
    builder.ops[number + 1:] = [kept, *later]
    first.insert(number + 1, first[number])
