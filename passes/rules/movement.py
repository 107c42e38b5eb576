"""Movement of movement: what only changes where elements lie.  All rows are bit-exact; most serve every dtype.

Compositions of one op with itself (reshape of reshape, transpose of transpose, slice of slice, broadcast of broadcast)
are done by the builder functions, with which the driver rebuilds nodes.
"""

from __future__ import annotations

from graphc.ir import build
from graphc.ir.dims import known_equal
from graphc.ir.node import Node, make

from ..rewrite import Rule, step
from .identities import leaves


def rebuilt(node: Node) -> Node | None:
    """A node of one movement op on the same op, or an identity, that was made past the builder functions."""
    x = node.operands[0]
    if node.op.name == "reshape":
        return build.reshape(x, node.attrs["shape"])
    if node.op.name == "transpose":
        return build.transpose(x, node.attrs["axes"])
    if node.op.name == "slice":
        return build.slice_(x, node.attrs["starts"], node.attrs["steps"], node.attrs["shape"])
    if node.op.name == "pad":
        return build.pad(x, node.attrs["starts"], node.attrs["steps"], node.attrs["shape"])
    return build.broadcast(x, node.attrs["shape"], node.attrs["axes"])


def is_one(size: object) -> bool:
    return isinstance(size, int) and size == 1


def transpose_of_single(node: Node) -> Node | None:
    """Moving only axes of one element is a reshape."""
    x = node.operands[0]
    kept = [k for k in node.attrs["axes"] if not is_one(x.shape[k])]
    return build.reshape(x, node.shape) if kept == sorted(kept) else None


def transpose_of_broadcast(node: Node) -> Node | None:
    """The small operand is transposed, not the large result."""
    spread = node.operands[0]
    if spread.op.name != "broadcast":
        return None
    place = {old: new for new, old in enumerate(node.attrs["axes"])}
    targets = [place[k] for k in spread.attrs["axes"]]
    order = sorted(range(len(targets)), key=lambda k: targets[k])
    return build.broadcast(build.transpose(spread.operands[0], order), node.shape, sorted(targets))


def slice_of_broadcast(node: Node) -> Node | None:
    """New axes need no slicing: the small operand is sliced along its own."""
    spread = node.operands[0]
    if spread.op.name != "broadcast":
        return None
    axes = spread.attrs["axes"]
    x = build.slice_(spread.operands[0], tuple(node.attrs["starts"][k] for k in axes),
                     tuple(node.attrs["steps"][k] for k in axes), tuple(node.shape[k] for k in axes))
    return build.broadcast(x, node.shape, axes)


def slice_of_pad(node: Node) -> Node | None:
    """The slice that a pad undoes."""
    padded = node.operands[0]
    if padded.op.name != "pad" or any(node.attrs[name] != padded.attrs[name] for name in ("starts", "steps")):
        return None
    x = padded.operands[0]
    return x if x.shape == node.shape else None


def pad_of_pad(node: Node) -> Node | None:
    inner = node.operands[0]
    if inner.op.name != "pad":
        return None
    a, b = inner.attrs, node.attrs
    starts = tuple(s + t * k for s, t, k in zip(b["starts"], b["steps"], a["starts"]))
    return build.pad(inner.operands[0], starts, tuple(s * t for s, t in zip(a["steps"], b["steps"])), b["shape"])


def slice_of_concat(node: Node) -> Node | None:
    """A slice that lies within one part."""
    whole = node.operands[0]
    if whole.op.name != "concat":
        return None
    axis = whole.attrs["axis"]
    start, step_, count = (node.attrs[name][axis] for name in ("starts", "steps", "shape"))
    if not all(isinstance(n, int) for n in (start, count)) or count == 0:
        return None
    ends = sorted((start, start + step_ * (count - 1)))
    offset = 0
    for part in whole.operands:
        size = part.shape[axis]
        if not isinstance(size, int):
            return None
        if offset <= ends[0] and ends[1] < offset + size:
            starts = tuple(s - offset if k == axis else s for k, s in enumerate(node.attrs["starts"]))
            return build.slice_(part, starts, node.attrs["steps"], node.attrs["shape"])
        offset += size
    return None


def concat_of_concat(node: Node) -> Node | None:
    axis = node.attrs["axis"]
    parts: list[Node] = []
    for x in node.operands:
        same_axis = x.op.name == "concat" and x.attrs["axis"] == axis
        parts += x.operands if same_axis else (x,)
    return build.concat(parts, axis) if len(parts) > len(node.operands) else None


def concat_without_empty(node: Node) -> Node | None:
    """Empty parts are dropped, and a concat of one part is that part."""
    axis = node.attrs["axis"]
    parts = [x for x in node.operands if known_equal(x.shape[axis], 0) is not True]
    return build.concat(parts, axis) if parts and (len(parts) < len(node.operands) or len(parts) == 1) else None


def reshape_of_broadcast(node: Node) -> Node | None:
    """A reshape that only adds or drops axes of one element, of a broadcast: the broadcast has other axes."""
    spread = node.operands[0]
    if spread.op.name != "broadcast":
        return None
    old = [k for k, size in enumerate(spread.shape) if not is_one(size)]
    new = [k for k, size in enumerate(node.shape) if not is_one(size)]
    if [spread.shape[k] for k in old] != [node.shape[k] for k in new]:
        return None
    place = dict(zip(old, new))
    x = spread.operands[0]
    kept = [k for k in range(x.ndim) if spread.attrs["axes"][k] in place]
    small = build.reshape(x, tuple(x.shape[k] for k in kept))
    return build.broadcast(small, node.shape, tuple(place[spread.attrs["axes"][k]] for k in kept))


def transposed_twice(dtype: str) -> Node:
    x, = leaves(dtype, 1)
    return make("transpose", (make("transpose", (x,), axes=(1, 0)),), axes=(1, 0))


def spread_leaf(dtype: str) -> Node:
    return make("broadcast", (leaves(dtype, 1)[0],), shape=(3, 5, 4), axes=(0, 2))


def padded_leaf(dtype: str) -> Node:
    return make("pad", (leaves(dtype, 1)[0],), starts=(1, 0), steps=(1, 2), shape=(5, 8))


def joined_leaves(dtype: str) -> Node:
    return make("concat", leaves(dtype, 2), axis=0)


def with_new_axis(dtype: str) -> Node:
    row, = leaves(dtype, 1, (4,))
    return make("reshape", (make("broadcast", (row,), shape=(3, 4), axes=(1,)),), shape=(3, 1, 4))


def with_empty_part(dtype: str) -> Node:
    x, = leaves(dtype, 1)
    return make("concat", (x, make("slice", (x,), starts=(0, 0), steps=(1, 1), shape=(0, 4))), axis=0)


RULES: list[Rule] = [
    step("movement_identity", ("reshape", "transpose", "slice", "pad", "broadcast"), rebuilt, example=transposed_twice),
    step("transpose_of_single", ("transpose",), transpose_of_single,
         example=lambda dtype: make("transpose", (leaves(dtype, 1, (3, 1))[0],), axes=(1, 0))),
    step("transpose_of_broadcast", ("transpose",), transpose_of_broadcast,
         example=lambda dtype: make("transpose", (spread_leaf(dtype),), axes=(2, 1, 0))),
    step("slice_of_broadcast", ("slice",), slice_of_broadcast,
         example=lambda dtype: make("slice", (spread_leaf(dtype),), starts=(1, 0, 3), steps=(1, 2, -1),
                                    shape=(2, 2, 3))),
    step("slice_of_pad", ("slice",), slice_of_pad,
         example=lambda dtype: make("slice", (padded_leaf(dtype),), starts=(1, 0), steps=(1, 2), shape=(3, 4))),
    step("pad_of_pad", ("pad",), pad_of_pad,
         example=lambda dtype: make("pad", (padded_leaf(dtype),), starts=(2, 1), steps=(2, 1), shape=(11, 10))),
    step("slice_of_concat", ("slice",), slice_of_concat,
         example=lambda dtype: make("slice", (joined_leaves(dtype),), starts=(4, 0), steps=(1, 1), shape=(2, 4))),
    step("concat_of_concat", ("concat",), concat_of_concat,
         example=lambda dtype: make("concat", (joined_leaves(dtype), *leaves(dtype, 1)), axis=0)),
    step("concat_without_empty", ("concat",), concat_without_empty, example=with_empty_part),
    step("reshape_of_broadcast", ("reshape",), reshape_of_broadcast, example=with_new_axis),
]
