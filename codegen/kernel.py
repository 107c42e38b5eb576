"""Iteration-space kernels: one `Kernel` becomes one function of text IR.

    define internal void @name(ptr noalias %a0, .., i64 %dim_<symbol>.., i64 %lo, i64 %hi)

lo..hi runs over `split_extent(kernel)`, so threads may take pieces; symbols come in the order of `kernel_symbols`.
Every buffer is one argument.  Pieces of lo..hi give the same bits as one call.
"""

from __future__ import annotations

from graphc.ir.dims import Dim, symbols_of
from graphc.ir.plan import Kernel, is_straight

from .access import Frame
from .collapse import Facts, collapse, facts
from .nans import with_fast_maxima
from .nest import Writer
from .roles import choose, split_axis
from .sizes import environment, symbol_register
from .straight import emit_straight
from .target import Target
from .text import Function, Module
from .vectors import Lanes
from .work import kernel_work


def _shape(kernel: Kernel) -> tuple[Kernel, Facts, int | None]:
    """The kernel with merged axes, what its operations depend on, and the axis that lo..hi runs over."""
    merged = collapse(kernel)
    known = facts(merged)
    return merged, known, split_axis(merged, known)


def kernel_symbols(kernel: Kernel) -> tuple[str, ...]:
    """The symbols that the kernel's sizes are made of, in the order of its parameters."""
    return symbols_of(*_sizes(kernel))


def _sizes(kernel: Kernel) -> list[int | Dim]:
    sizes: list[int | Dim] = list(kernel.extents)
    for op in kernel.ops:
        if isinstance(op.value, Dim):
            sizes.append(op.value)
        if op.map is not None:
            sizes += [op.map.offset, *op.map.strides]
            sizes += [size for _, stride, extent in op.map.indices for size in (stride, extent)]
            for guard in op.map.guards:
                sizes += [guard.offset, *guard.strides, guard.extent]
    return sizes


def split_extent(kernel: Kernel) -> int | Dim:
    """How far lo..hi runs; 1 where the kernel is one piece."""
    merged, _, axis = _shape(kernel)
    return 1 if axis is None else merged.extents[axis]


def kernel_axis(kernel: Kernel, target: Target) -> tuple[int | Dim, int, int | Dim]:
    """For threads: how far lo..hi runs, a multiple at which a piece starts without waste, and the work of all."""
    merged, known, axis = _shape(kernel)
    if axis is None:
        return 1, 1, 0
    choice = choose(merged, known, target)
    block = choice.factor if choice.unroll == axis else 1
    multiple = 4 * choice.count * block if choice.lanes == axis else block
    return merged.extents[axis], multiple, kernel_work(merged, known, target)


def emit_kernel(module: Module, kernel: Kernel, target: Target, name: str) -> None:
    merged, known, split = _shape(kernel)
    if is_straight(merged):
        emit_straight(module, merged, target, name)
        return
    merged = with_fast_maxima(merged)
    choice = choose(merged, known, target)
    symbols = kernel_symbols(kernel)
    parameters = [f"ptr noalias %a{i}" for i in range(len(kernel.arguments))]
    parameters += [f"i64 {symbol_register(symbol)}" for symbol in symbols] + ["i64 %lo", "i64 %hi"]
    function = Function(module, f"define internal void @{name}({', '.join(parameters)}) #0")
    frame = Frame(function, Lanes(function, target, choice.count), Lanes(function, target, 1), merged, known, choice,
                  environment(symbols))
    Writer(frame, split).write()
    function.emit("ret void")
    module.add(name, function.text())
