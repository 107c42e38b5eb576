"""Passes over the rows of a kernel: in which of them a value is computed, and how long it is needed.

    %0 = load b0           pass 0, and again in pass 1 for %3
    %1 = reduce max %0     pass 1: before it, the row has been read once
    %2 = sub %0 %1         pass 1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .plan import Kernel, KernelOp, Map


def passes_of(ops: Sequence[KernelOp]) -> list[int]:
    """For each op the pass over the reduced axes in which it can first be computed."""
    found: list[int] = []
    for op in ops:
        inputs = [found[k] for k in op.operands] + [found[k] for k, _, _ in (op.map.indices if op.map else ())]
        found.append(max(inputs, default=0) + (op.kind == "reduce"))
    return found


def needs_of(ops: Sequence[KernelOp], first: Sequence[int]) -> list[int]:
    """For each op the last pass that needs its value, -1 where none does.

    What uses a value is computed anew, in every pass that uses it in turn, unless it is kept, stored or reduced.
    """
    need = [-1] * len(ops)
    for k in reversed(range(len(ops))):
        op = ops[k]
        once = op.kind in ("store", "accumulate", "keep", "reduce")
        at = first[k] - (op.kind == "reduce") if once else max(first[k], need[k])
        for used in (*op.operands, *(i for i, _, _ in (op.map.indices if op.map else ()))):
            need[used] = max(need[used], at)
    return need


def overwritten_early(kernel: Kernel) -> Iterator[tuple[int, int]]:
    """Operations that read an argument, each with a store to it that comes before the last pass that needs them."""
    first = passes_of(kernel.ops)
    if max(first, default=0) == 0:
        return
    need = needs_of(kernel.ops, first)
    stores = [(k, op.map.argument) for k, op in enumerate(kernel.ops) if op.kind == "store" and op.map]
    for number, op in enumerate(kernel.ops):
        if op.kind in ("load", "keep") and op.map:
            yield from ((number, k) for k, argument in stores
                        if argument == op.map.argument and first[k] < need[number])


def read_elsewhere(kernel: Kernel) -> Iterator[tuple[int, int]]:
    """Loads of an argument, each with a store to it that has another map: what is read might be written already."""
    stores: dict[int, list[tuple[int, Map]]] = {}
    for k, op in enumerate(kernel.ops):
        if op.kind == "store" and op.map:
            stores.setdefault(op.map.argument, []).append((k, op.map))
    for number, op in enumerate(kernel.ops):
        if op.kind == "load" and op.map and kernel.extents:
            yield from ((number, k) for k, target in stores.get(op.map.argument, ())
                        if (op.map.offset, op.map.strides) != (target.offset, target.strides))
