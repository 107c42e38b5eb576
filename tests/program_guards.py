"""Whole programs with every buffer and the arena between pages that fault; a child process, because a fault ends it."""

from __future__ import annotations

import ctypes
import sys

from codegen import regions
from codegen.gemm import ranges
import graphc as gc
from graphc.binding import bind_sizes
from graphc.ir.dims import evaluate
from graphc.ir.node import Graph, Node
from graphc.ir.types import storage_dtype
import numpy as np

from compiled import Native
from kernel_guards import Fenced
from test_lower import CASES

ROUND = 64


def table(fences: list[Fenced], arrays: list[np.ndarray], at_end: bool) -> object:
    addresses = [fence.place(array, at_end=at_end) for fence, array in zip(fences, arrays)]
    return (ctypes.c_void_p * len(arrays))(*addresses)


def training_step() -> tuple[list[Node], list[Node], dict[Node, Node]]:
    x = gc.placeholder("float32", ("batch", 16), name="x")
    t = gc.placeholder("int32", ("batch",), name="t")
    loss = gc.nn.softmax_cross_entropy(gc.nn.dense(gc.nn.dense(x, 37, gc.nn.relu, name="a"), 5, name="b"), t).mean()
    return [loss], [x, t], gc.optim.Adam(1e-3).minimize(loss)


def fetches(name: str) -> tuple[list[Node], list[Node], dict[Node, Node]]:
    n = gc.placeholder("float64", ("batch", 16), name="n")
    return CASES[name](n), [n], {}


def share_everything() -> None:
    """From now on even the smallest steps are cut into pieces."""
    regions.REGION = ranges.REGION = 0
    regions.PIECE = 1


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    if threads > 1:
        share_everything()
    fences = [Fenced() for _ in range(24)]
    arena_fence = Fenced(4096)
    for name in [*CASES, "training step"]:
        print(name, flush=True)
        with Graph():
            nodes, inputs, updates = training_step() if name == "training step" else fetches(name)
            made = Native(nodes, inputs, updates.items(), threads=threads)
        state = [np.zeros(a.shape, storage_dtype(a.dtype)) for a in made.program.state]
        for batch in (1, 2, 3, 7, 16, 17, 33, 67) if threads == 1 else (1, 7, 67):
            for at_end in (True, False):
                run(made, batch, state, fences, arena_fence, at_end)


def run(made: Native, batch: int, state: list[np.ndarray], fences: list[Fenced], arena_fence: Fenced,
        at_end: bool) -> None:
    shapes = [[evaluate(s, {"batch": batch}) for s in a.shape] for a in made.program.inputs]
    inputs = [np.ones(shape, storage_dtype(a.dtype)) for shape, a in zip(shapes, made.program.inputs)]
    sizes = bind_sizes(made.program.inputs, [a.shape for a in inputs], made.program.checks)
    outputs = [np.zeros([evaluate(s, sizes) for s in a.shape], storage_dtype(a.dtype)) for a in made.program.outputs]
    arena = np.zeros(-(-made.emitted.arena_bytes(sizes, made.threads) // ROUND) * ROUND, np.uint8)
    where = arena_fence.place(arena, at_end=at_end)
    k, m = len(inputs), len(inputs) + len(outputs)
    tables = (table(fences, inputs, at_end), table(fences[k:], outputs, at_end), table(fences[m:], state, at_end))
    status = made.entry(*tables, where, *(sizes[s] for s in made.program.symbols))
    assert status == 0


if __name__ == "__main__":
    main()
    sys.exit(0)
