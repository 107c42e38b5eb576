"""Matrix products: one function for a `Contraction`, and how much scratch memory it needs.

    void name(ptr noalias %a0, .., i64 %dim_<symbol>.., [i64 %lo<axis>, i64 %hi<axis>,].. ptr %workspace)

Symbols are sorted; the axes with ranges are those of `product_ranges`, so threads may take pieces.

The workspace is aligned to 64 bytes; what it holds before a call does not matter.  The two operands change places
where that makes the result contiguous along its columns: c = a b and c^T = b^T a^T are the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.dims import Dim
from graphc.ir.errors import Unsupported
from graphc.ir.plan import Contraction, Map

from .gemm import axpy, dot, driver
from .gemm.blocking import blocking
from .gemm.ranges import Range
from .target import Target
from .text import Module
from .vectors import check_dtype


def emit_contraction(module: Module, contraction: Contraction, target: Target, name: str) -> None:
    """Adds `define internal void @name` and the functions that it calls."""
    chosen = checked(contraction)
    if dot.fits(chosen):
        dot.emit(module, chosen, target, name)
    elif axpy.fits(chosen):
        axpy.emit(module, chosen, target, name)
    else:
        driver.emit(module, chosen, target, name)


def workspace_bytes(contraction: Contraction, target: Target) -> int | Dim:
    """Bytes of scratch memory that the function of `emit_contraction` is given."""
    chosen = checked(contraction)
    if dot.fits(chosen):
        return dot.workspace_bytes(chosen)
    if axpy.fits(chosen):
        return axpy.workspace_bytes(chosen)
    return driver.layout(chosen, target, blocking(chosen, target)).size


def product_ranges(contraction: Contraction, target: Target) -> tuple[Range, ...]:
    """The axes that the function is given ranges of; none where the product is one piece."""
    chosen = checked(contraction)
    if dot.fits(chosen):
        return dot.cut(chosen, target)
    return axpy.cut(chosen, target) if axpy.fits(chosen) else driver.cut(chosen, target)


def checked(contraction: Contraction) -> Contraction:
    """The contraction with its operands in the order in which it is computed."""
    for dtype in (*contraction.arguments, contraction.dtype):
        check_dtype(dtype, "contraction")
    if contraction.dtype in ("bool", "float16", "bfloat16"):
        raise Unsupported(f"contraction: sums of {contraction.dtype} in code generation")
    for map_ in (contraction.a, contraction.b):
        if map_.guards or map_.indices:
            raise Unsupported(f"contraction: an operand with guards or indices ({map_})")
    return swapped(contraction) if is_better_swapped(contraction) else contraction


def is_better_swapped(contraction: Contraction) -> bool:
    """One column, few columns of dot products, or results that are contiguous along the rows."""
    m, n = contraction.extents[-2:]
    if n == 1 or m == 1:
        return n == 1 and m != 1
    if dot.fits(contraction) or dot.fits(swapped(contraction)):
        return not dot.fits(contraction)
    strides = [op.map.strides[-2:] for op in contraction.ops if op.kind == "store" and op.map is not None]
    return bool(strides) and all(row == 1 and column != 1 for row, column in strides)


def swapped(contraction: Contraction) -> Contraction:
    """The transposed product: n takes m's place, b takes a's."""
    def turned(map_: Map) -> Map:
        *batch, m, n, k = map_.strides
        return replace(map_, strides=(*batch, n, m, k))

    def turned_back(map_: Map | None) -> Map | None:
        return map_ and replace(map_, strides=(*map_.strides[:-2], map_.strides[-1], map_.strides[-2]),
                                guards=tuple(replace(g, strides=(*g.strides[:-2], g.strides[-1], g.strides[-2]))
                                             for g in map_.guards))
    *batch, m, n = contraction.extents
    return replace(contraction, extents=(*batch, n, m), a=turned(contraction.b), b=turned(contraction.a),
                   ops=tuple(replace(op, map=turned_back(op.map)) for op in contraction.ops))
