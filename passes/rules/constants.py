"""Constant folding as a row, and reductions of uniform values that need no array."""

from __future__ import annotations

from graphc.ir import build
from graphc.ir.node import OPS, Node, constant, make, uniform_value
from graphc.ir.types import FLOATS

from ..fold import NEVER, fold
from ..rewrite import Rule, step
from .arithmetic import MANTISSA

FOLDED = tuple(name for name in OPS if name not in NEVER)
MOVING = ("reshape", "transpose", "slice", "broadcast")


def moved_uniform(node: Node) -> Node | None:
    """A uniform value stays uniform wherever it is moved."""
    x = node.operands[0]
    if x.op.name != "broadcast" or x.operands[0].ndim:
        return None
    return build.broadcast(x.operands[0], node.shape, ())


def full_transposed(dtype: str) -> Node:
    return make("transpose", (build.full(3, dtype, (2, 3)),), axes=(1, 0))


def sum_of_uniform(node: Node) -> Node | None:
    """n equal numbers add up to n times the number, where no partial sum is rounded."""
    x, axes = node.operands[0], node.attrs["axes"]
    value = uniform_value(x)
    count = count_of(x, axes)
    if value is None or count is None or value != int_or_nan(value):
        return None
    limit = 2 ** MANTISSA[x.dtype] if x.dtype in FLOATS else 2 ** 7
    if abs(value) * count > limit or (value == 0 and str(value).startswith("-")):
        return None
    return build.full(value * count, x.dtype, node.shape, x.graph)


def count_of(x: Node, axes: tuple[int, ...]) -> int | None:
    """How many elements are added, if that is known."""
    count = 1
    for axis in axes:
        size = x.shape[axis]
        if not isinstance(size, int):
            return None
        count *= size
    return count


def int_or_nan(value: float) -> float:
    return float(int(value)) if abs(value) < 2.0**53 else float("nan")


def sum_of_ones(dtype: str) -> Node:
    return make("sum", (build.full(1, dtype, (64, 1000) if dtype == "float64" else (4, 30)),), axes=(1,))


def two_constants(dtype: str) -> Node:
    return make("add", (constant([1, 2], dtype), constant([3, 4], dtype)))


RULES: list[Rule] = [
    step("moved_uniform", MOVING, moved_uniform, example=full_transposed),
    step("sum_of_uniform", ("sum",), sum_of_uniform, example=sum_of_ones),
    step("fold", FOLDED, fold, example=two_constants),
]
