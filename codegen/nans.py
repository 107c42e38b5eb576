"""Maxima that may drop NaN, because NaN comes back by another way.

    m = reduce max x       m = reduce fastmax x      where x holds NaN, so does e = exp(x - m), and their sum is NaN:
    e = exp(x - m)    ->   ..                        every result that is made of the sum is NaN with either maximum
    z = reduce add e

A maximum that keeps NaN costs two instructions more for every vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
import math

from graphc.ir.plan import Kernel, KernelOp

from .collapse import operands_of
from .vectors import FLOATS

STRICT = {  # NaN where an operand is
    "add", "sub", "mul", "div", "fma", "neg", "abs", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt",
    "rsqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh", "sigmoid", "softplus", "erf", "erfc", "maximum", "minimum",
    "keep", "store",
}


def with_fast_maxima(kernel: Kernel) -> Kernel:
    """The kernel with every such maximum as `fastmax`."""
    fast = {i for i, op in enumerate(kernel.ops)
            if op.kind == "reduce" and op.value[0] == "max" and op.dtype in FLOATS and _comes_back(kernel, i)}
    if not fast:
        return kernel
    return replace(kernel, ops=tuple(replace(op, value=("fastmax", op.value[1])) if i in fast else op
                                     for i, op in enumerate(kernel.ops)))


def _comes_back(kernel: Kernel, maximum: int) -> bool:
    """Whether all that is written and depends on the maximum is made of a sum that is NaN where the maximum is.

    A kept row does not count: a later store takes its place, or nobody else reads it.
    """
    depends = _dependent(kernel, maximum)
    written = {i for i in depends if kernel.ops[i].kind in ("store", "accumulate")}
    spoilt = _spoilt(kernel, kernel.ops[maximum].operands)
    sums = [i for i in spoilt if kernel.ops[i].kind == "reduce"]
    return written <= _spoilt(kernel, sums)


def _dependent(kernel: Kernel, source: int) -> set[int]:
    found = {source}
    for i, op in enumerate(kernel.ops):
        if not found.isdisjoint(operands_of(op)):
            found.add(i)
    return found


def _spoilt(kernel: Kernel, sources: Iterable[int]) -> set[int]:
    """The operations whose values are NaN for certain where the sources are NaN."""
    found = set(sources)
    for i, op in enumerate(kernel.ops):
        if _is_spoilt(kernel, op, found):
            found.add(i)
    return found


def _is_spoilt(kernel: Kernel, op: KernelOp, found: set[int]) -> bool:
    if op.kind == "where":
        return all(k in found or _is_nan(kernel.ops[k]) for k in op.operands[1:])
    if op.kind == "reduce":  # no maxima: two of them must not vouch for each other
        return op.value[0] in ("add", "mul") and op.dtype in FLOATS and op.operands[0] in found
    is_strict = op.kind in STRICT or (op.kind == "cast" and op.dtype in FLOATS)
    return is_strict and not found.isdisjoint(op.operands)


def _is_nan(op: KernelOp) -> bool:
    return op.kind == "const" and isinstance(op.value, float) and math.isnan(op.value)
