"""The contraction behind matmul, tensordot, trace and their kin: einsum.

`labels` has a tuple of small ints per operand, `out` one for the result.  Labels are numbered by first appearance over
the operands.  A label twice in an operand is its diagonal; labels that are not in `out` are summed over.
float16 and bfloat16 are accumulated in float32.
"""

from __future__ import annotations

import numpy as np

from ..dims import Dim
from ..errors import ShapeError
from ..node import Attrs, Need
from ..types import Type
from . import maps
from .declare import Array, declare, require_equal_dtypes, wide


def einsum_type(need: Need, types: tuple[Type, ...], attrs: Attrs) -> Type:
    labels, out = attrs["labels"], attrs["out"]
    if not types or len(labels) != len(types) or any(len(group) != t.rank for group, t in zip(labels, types)):
        raise ShapeError(f"labels {labels} do not match operands {', '.join(map(str, types)) or '(none)'}")
    flat = [label for group in labels for label in group]
    if list(dict.fromkeys(flat)) != list(range(len(set(flat)))):
        raise ShapeError(f"labels {labels} are not numbered by first appearance")
    if len(set(out)) != len(out) or not set(out) <= set(flat):
        raise ShapeError(f"output labels {out} are not distinct labels of the operands {labels}")
    sizes: dict[int, int | Dim] = {}
    for group, t in zip(labels, types):
        for axis, (label, size) in enumerate(zip(group, t.shape)):
            what = f"operands {', '.join(map(str, types))} with labels {labels}: axis {axis} of {t}"
            sizes[label] = need.equal(sizes[label], size, what) if label in sizes else size
    return Type(require_equal_dtypes(types), tuple(sizes[label] for label in out))


def einsum_values(attrs: Attrs, type: Type, *operands: Array) -> Array:
    pairs = [part for x, group in zip(operands, attrs["labels"]) for part in (wide(x), list(group))]
    return np.asarray(np.einsum(*pairs, list(attrs["out"]), optimize=len(operands) > 1))


declare("einsum", "structural", einsum_type, einsum_values,
        maps=maps.einsum, doc="sum of products over the labels not in `out`")
