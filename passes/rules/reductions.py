"""Reductions: of reductions, of broadcasts, of moved operands, over axes of one element."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir import build
from graphc.ir.node import Node, make
from graphc.ir.types import is_float

from ..pattern import REDUCTIONS
from ..rewrite import Rule, step
from .identities import leaves

IDEMPOTENT = ("max", "min", "any", "all")


def rounds(node: Node) -> bool:
    """Whether the order of the operands can change the result."""
    return node.op.name in ("sum", "prod") and is_float(node.dtype)


def reduction_of_reduction(node: Node) -> Node | None:
    """sum(sum(x, A), B) in one go."""
    inner = node.operands[0]
    if inner.op.name != node.op.name:
        return None
    x = inner.operands[0]
    left = [k for k in range(x.ndim) if k not in inner.attrs["axes"]]
    return build.reduce(node.op.name, x, (*inner.attrs["axes"], *(left[k] for k in node.attrs["axes"])))


def reduction_of_transpose(node: Node) -> Node | None:
    """Reduces where the elements lie; what is left is transposed, which is smaller."""
    moved = node.operands[0]
    if moved.op.name != "transpose":
        return None
    x, order = moved.operands[0], moved.attrs["axes"]
    small = build.reduce(node.op.name, x, tuple(order[k] for k in node.attrs["axes"]))
    kept = [order[k] for k in range(x.ndim) if k not in node.attrs["axes"]]
    return build.transpose(small, tuple(sorted(kept).index(k) for k in kept))


def reduction_of_single(node: Node) -> Node | None:
    """A reduction over axes of one element is a reshape."""
    x = node.operands[0]
    sizes = [x.shape[k] for k in node.attrs["axes"]]
    return build.reshape(x, node.shape) if all(isinstance(size, int) and size == 1 for size in sizes) else None


def idempotent_of_broadcast(node: Node) -> Node | None:
    """The greatest of n copies is one of them."""
    spread, axes = node.operands[0], node.attrs["axes"]
    if spread.op.name != "broadcast":
        return None
    copied = [k for k in axes if k not in spread.attrs["axes"]
              and isinstance(spread.shape[k], int) and spread.shape[k] > 0]
    if not copied:
        return None
    x = spread.operands[0]
    rest = [k for k in range(spread.ndim) if k not in copied]
    small = build.broadcast(x, tuple(spread.shape[k] for k in rest), tuple(rest.index(k) for k in spread.attrs["axes"]))
    return build.reduce(node.op.name, small, tuple(rest.index(k) for k in axes if k not in copied))


def whole_of_reshape(node: Node) -> Node | None:
    """A reduction over all axes does not see the shape."""
    moved = node.operands[0]
    if moved.op.name != "reshape" or node.ndim:
        return None
    x = moved.operands[0]
    return build.reduce(node.op.name, x, tuple(range(x.ndim))) if x.ndim else None


def sum_of_broadcast(node: Node) -> Node | None:
    """n copies add up to a product with n."""
    spread, axes = node.operands[0], node.attrs["axes"]
    if spread.op.name != "broadcast":
        return None
    copied = [k for k in axes if k not in spread.attrs["axes"] and isinstance(spread.shape[k], int)]
    if not copied:
        return None
    x = spread.operands[0]
    rest = [k for k in range(spread.ndim) if k not in copied]
    count = 1
    for k in copied:
        count *= int(spread.shape[k])
    small = build.broadcast(build.elementwise("mul", x, count), tuple(spread.shape[k] for k in rest),
                            tuple(rest.index(k) for k in spread.attrs["axes"]))
    return build.reduce(node.op.name, small, tuple(rest.index(k) for k in axes if k not in copied))


def example(name: str, operand: Callable[[Node], Node], axes: tuple[int, ...], shape: tuple[int, ...] = (3, 4)
            ) -> Callable[[str], Node]:
    """An example: the reduction of a leaf that was moved."""
    return lambda dtype: make(name, (operand(leaves(dtype, 1, shape)[0]),), axes=axes)


def steps(name: str, function: Callable[[Node], Node | None], operand: Callable[[str], Callable[[Node], Node]],
          axes: tuple[int, ...], shape: tuple[int, ...] = (3, 4), ops: tuple[str, ...] = REDUCTIONS,
          lonely: bool = False) -> list[Rule]:
    """One row per reduction; those that round change the order of their operands."""
    dtype = {"any": "bool", "all": "bool"}
    return [step(f"{op}_{name}", (op,), function, reorders=op in ("sum", "prod"), dtypes=dtype.get(op, "any"),
                 lonely=lonely, example=example(op, operand(op), axes, shape)) for op in ops]


RULES: list[Rule] = [
    *steps("of_single", reduction_of_single, lambda op: lambda x: x, (1,), (3, 1)),
    *steps("of_reduction", reduction_of_reduction, lambda op: lambda x: make(op, (x,), axes=(1,)), (0,), lonely=True),
    *steps("of_transpose", reduction_of_transpose, lambda op: lambda x: make("transpose", (x,), axes=(1, 0)), (0,)),
    *steps("of_reshape", whole_of_reshape, lambda op: lambda x: make("reshape", (x,), shape=(12,)), (0,)),
    *steps("of_broadcast", idempotent_of_broadcast,
           lambda op: lambda x: make("broadcast", (x,), shape=(3, 5, 4), axes=(0, 2)), (1, 2), ops=IDEMPOTENT),
]

OF_REALS: list[Rule] = [
    step("sum_of_broadcast", ("sum",), sum_of_broadcast, exact=False,
         example=example("sum", lambda x: make("broadcast", (x,), shape=(3, 5, 4), axes=(0, 2)), (1, 2))),
]
