"""Builder functions: nodes in canonical form.  What builds nodes calls these, and `make` only where there is none.

    elementwise   weak Python scalars, NumPy 2 promotion, casts, broadcasting.  Where all operands are broadcasts over a
                  strict subset of the axes, the op is done on what they broadcast and its result is broadcast: a row
                  times a row stays a row, which keeps rank-one derivatives small.
    reshape, transpose, broadcast, slice_, cast    compose with themselves; the identity is the operand
    einsum        labels numbered by first appearance; one operand: a transpose, a sum, or the operand
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from .dims import Dim, known_equal, sign
from .errors import DTypeError, GraphError, ShapeError, user_line
from .node import OPS, Bits, Node, constant, make, operand_lines
from .plan import Condition
from .types import DTYPES, FLOATS, Shape, as_dtype, dtype_name, is_integer, numpy_dtype, promote, shape_text

Operand: TypeAlias = "Node | int | float | bool | np.ndarray[Any, Any]"
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def refusal(name: str, message: str, operands: Sequence[Any] = (), kind: type[GraphError] = ShapeError) -> GraphError:
    """An error in the form of those that `make` raises: op, reason, the user's line, the operands."""
    nodes = [o for o in operands if isinstance(o, Node)]
    return kind(f"{name}: {message}\n  at {user_line()}" + operand_lines(nodes))


# -- constants --
@lru_cache(4096)
def scalar_bits(value: Any, kind: str, negative: bool, dtype: str) -> Bits:
    """The interned bits of one number; `kind` and `negative` tell 1 from 1.0 and True, and 0.0 from -0.0."""
    return Bits(as_dtype(value, dtype), dtype)


def scalar(value: Any, dtype: str, graph: Any = None) -> Node:
    """A constant of shape ()."""
    if is_integer(dtype) and isinstance(value, int):
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            raise OverflowError(f"{value} does not fit {dtype}, which holds {limits.min} to {limits.max}")
    negative = value == 0 and str(value).startswith("-")
    return make("constant", graph=graph, value=scalar_bits(value, type(value).__name__, negative, dtype))


def full(value: Any, dtype: str, shape: Shape, graph: Any = None) -> Node:
    """A broadcast number."""
    node = scalar(value, dtype, graph)
    return make("broadcast", (node,), shape=tuple(shape), axes=()) if shape else node


def zeros(dtype: str, shape: Shape, graph: Any = None) -> Node:
    return full(False if dtype == "bool" else 0, dtype, shape, graph)


def ones(dtype: str, shape: Shape, graph: Any = None) -> Node:
    return full(True if dtype == "bool" else 1, dtype, shape, graph)


def full_like(x: Node, value: Any) -> Node:
    return full(value, x.dtype, x.shape, x.graph)


def size_node(size: int | Dim, graph: Any = None) -> Node:
    """A size as an int64 scalar; every symbol in it is counted at run time, as the sum of so many ones."""
    if not isinstance(size, Dim):
        return scalar(int(size), "int64", graph)
    total: Node | None = None
    for monomial, factor in size.terms:
        term = scalar(factor, "int64", graph)
        for atom in monomial:
            counted = reduce_sum(ones("int64", (Dim({(atom,): 1}),), graph), (0,))
            term = counted if factor == 1 and atom is monomial[0] else elementwise("mul", term, counted)
        total = term if total is None else elementwise("add", total, term)
    assert total is not None
    return total


# -- elementwise --
def elementwise(name: str, /, *operands: Operand, **attrs: Any) -> Node:
    """The elementwise op on these operands, by NumPy's rules of promotion and broadcasting."""
    rule = OPS[name].rule
    assert rule is not None, name
    kinds = tuple([o.type.dtype if isinstance(o, Node) else weak_kind(o) for o in operands])
    try:
        wanted, _ = rule(kinds)
    except TypeError:
        raise no_loop(name, kinds, operands) from None
    if kinds == wanted and are_alike(operands):
        return make(name, operands, **attrs)  # type: ignore[arg-type]
    graph = next((o.graph for o in operands if isinstance(o, Node)), None)
    try:
        nodes = tuple(cast(o, d) if isinstance(o, Node) else scalar_or_array(o, d, graph)
                      for o, d in zip(operands, wanted))
    except OverflowError as fault:
        if name in COMPARISONS:
            return out_of_range_comparison(name, operands)
        raise refusal(name, f"{fault}; cast an operand first", operands, DTypeError) from None
    return broadcasting(name, nodes, attrs)


def are_alike(operands: Sequence[Any]) -> bool:
    """The common case: nodes of one shape, not all of them broadcasts."""
    shape, is_full = None, False
    for o in operands:
        if not isinstance(o, Node):
            return False
        if shape is None:
            shape = o.type.shape
        elif o.type.shape != shape:
            return False
        is_full = is_full or o.op.name != "broadcast"
    return is_full


def weak_kind(value: Any) -> Any:
    """int or float for a Python scalar, which is weak; a dtype name for anything else."""
    if type(value) is int or type(value) is float:
        return type(value)
    try:
        return dtype_name(np.asarray(value).dtype)
    except TypeError as fault:
        raise refusal("constant", str(fault), (), DTypeError) from None


def no_loop(name: str, kinds: Sequence[Any], operands: Sequence[Any]) -> GraphError:
    names = ", ".join(k if isinstance(k, str) else f"Python {k.__name__}" for k in kinds)
    return refusal(name, f"no meaning for dtypes {names}; cast an operand first (gc.cast)", operands, DTypeError)


def scalar_or_array(value: Any, dtype: str, graph: Any) -> Node:
    if isinstance(value, (int, float)):
        return scalar(value, dtype, graph)
    array = constant(value, graph=graph)
    return cast(array, dtype)


def out_of_range_comparison(name: str, operands: Sequence[Any]) -> Node:
    """A comparison of integers with a Python integer beyond their range is decided by its sign, as in NumPy."""
    first_is_node = isinstance(operands[0], Node)
    node, value = operands if first_is_node else operands[::-1]
    node_is_less = value > 0
    less_than = node_is_less if first_is_node else not node_is_less
    truth = {"eq": False, "ne": True, "lt": less_than, "le": less_than, "gt": not less_than, "ge": not less_than}
    return full(truth[name], "bool", node.shape, node.graph)


def broadcasting(name: str, nodes: Sequence[Node], attrs: dict[str, Any]) -> Node:
    """The op on nodes of the right dtypes, whose shapes broadcast against each other."""
    shape = broadcast_shapes(name, nodes)
    smalls = [shrunk(n, len(shape)) for n in nodes]
    used = tuple(sorted({axis for _, axes in smalls for axis in axes}))
    if len(used) == len(shape):
        spread = [n if lines_up(n.type.shape, shape) else broadcast_to(n, shape) for n in nodes]
        return make(name, tuple(spread), **attrs)
    place = {axis: k for k, axis in enumerate(used)}
    inner = tuple(shape[axis] for axis in used)
    small = make(name, tuple(broadcast(n, inner, tuple(place[axis] for axis in axes)) for n, axes in smalls), **attrs)
    return broadcast(small, shape, used)


def lines_up(shape: Shape, target: Shape) -> bool:
    """Whether no axis is repeated or added; symbolic sizes that differ are for the type rule to check."""
    return shape == target or (len(shape) == len(target) and not any(
        isinstance(size, int) and size == 1 and not (isinstance(other, int) and other == 1)
        for size, other in zip(shape, target)))


def shrunk(node: Node, rank: int) -> tuple[Node, tuple[int, ...]]:
    """What the node broadcasts to `rank` axes, and where the axes of that go; axes of size 1 are dropped."""
    base = rank - node.type.rank
    if node.op.name == "broadcast":
        axes = tuple(base + axis for axis in node.attrs["axes"])
        node = node.operands[0]
    else:
        axes = tuple(range(base, rank))
    shape = node.type.shape
    if 1 in shape:
        kept = [k for k, size in enumerate(shape) if not (isinstance(size, int) and size == 1)]
        node, axes = reshape(node, tuple(shape[k] for k in kept)), tuple(axes[k] for k in kept)
    return node, axes


def broadcast_shapes(name: str, nodes: Sequence[Node]) -> Shape:
    """NumPy's common shape; a symbolic size meets another size only as its equal."""
    shapes = [n.type.shape for n in nodes]
    rank = max(map(len, shapes), default=0)
    result: list[int | Dim] = []
    for axis in range(rank):
        size: int | Dim = 1
        for shape in shapes:
            k = axis - rank + len(shape)
            if k < 0 or (isinstance(shape[k], int) and shape[k] == 1):
                continue
            if isinstance(size, int) and size == 1:
                size = shape[k]
            elif known_equal(size, shape[k]) is False:
                listed = " and ".join(str(n.type) for n in nodes)
                raise refusal(name, f"shapes {listed} do not broadcast: {size} against {shape[k]} at axis "
                              f"{axis - rank}; sizes must be equal or 1 (gc.expand_dims can line axes up)", nodes)
            elif isinstance(shape[k], int):
                size = shape[k]
        result.append(size)
    return tuple(result)


def cast(x: Node, dtype: Any) -> Node:
    """The value in another dtype; x itself if it has it already."""
    if not (isinstance(dtype, str) and dtype in DTYPES):
        try:
            dtype = dtype_name(dtype)
        except TypeError as fault:
            raise refusal("cast", str(fault), (x,), DTypeError) from None
    if x.type.dtype == dtype:
        return x
    if x.op.name == "constant" and x.type.rank == 0:
        return make("constant", graph=x.graph, value=Bits(as_dtype(x.attrs["value"].array, dtype), dtype))
    return broadcasting("cast", (x,), {"dtype": dtype})


# -- movement --
def broadcast(x: Node, shape: Shape, axes: Sequence[int]) -> Node:
    """Operand axis k becomes axis axes[k] of `shape`."""
    shape, axes = tuple(shape), tuple(axes)
    if len(axes) == len(shape) and x.type.shape == shape:
        return x
    if x.op.name == "broadcast":
        axes = tuple(axes[k] for k in x.attrs["axes"])
        x = x.operands[0]
    if x.op.name != "constant" and all(k in axes or (isinstance(n, int) and n == 1) for k, n in enumerate(shape)):
        return reshape(x, shape)  # nothing is repeated
    return make("broadcast", (x,), shape=shape, axes=axes)


def broadcast_to(x: Node, shape: Shape) -> Node:
    """NumPy's broadcast_to: axes are lined up at the end, axes of size 1 are repeated."""
    shape = tuple(shape)
    if x.type.shape == shape:
        return x
    base = len(shape) - x.type.rank
    if base < 0:
        raise refusal("broadcast_to", f"{x.type} has more axes than shape {shape_text(shape)}", (x,))
    kept = []
    for k, size in enumerate(x.type.shape):
        target = shape[base + k]
        if isinstance(size, int) and size == 1 and not (isinstance(target, int) and target == 1):
            continue
        if known_equal(size, target) is False:
            raise refusal("broadcast_to", f"{x.type} does not broadcast to {shape_text(shape)}: "
                          f"{size} against {target} at axis {base + k}", (x,))
        kept.append(k)
    if len(kept) < x.type.rank:
        x = reshape(x, tuple(x.type.shape[k] for k in kept))
    return broadcast(x, shape, tuple(base + k for k in kept))


def reshape(x: Node, shape: Shape) -> Node:
    """Row-major reshape to a full shape (no -1)."""
    shape = tuple(shape)
    while x.op.name == "reshape" and x.type.shape != shape:
        x = x.operands[0]
    return x if x.type.shape == shape else make("reshape", (x,), shape=shape)


def transpose(x: Node, axes: Sequence[int]) -> Node:
    """Output axis i is operand axis axes[i]."""
    axes = tuple(axes)
    if x.op.name == "transpose":
        inner = x.attrs["axes"]
        x, axes = x.operands[0], tuple(inner[a] for a in axes)
    return x if axes == tuple(range(x.type.rank)) else make("transpose", (x,), axes=axes)


def slice_(x: Node, starts: Shape, steps: Sequence[int], shape: Shape) -> Node:
    """output[i] = x[starts + steps*i]."""
    starts, steps, shape = tuple(starts), tuple(steps), tuple(shape)
    if shape == x.type.shape and all(isinstance(s, int) and s == 0 for s in starts) and all(s == 1 for s in steps):
        return x
    if x.op.name == "slice":
        starts = tuple(s + t * b for s, t, b in zip(x.attrs["starts"], x.attrs["steps"], starts))
        steps = tuple(s * t for s, t in zip(x.attrs["steps"], steps))
        return slice_(x.operands[0], starts, steps, shape)
    return make("slice", (x,), starts=starts, steps=steps, shape=shape)


def pad(x: Node, starts: Shape, steps: Sequence[int], shape: Shape) -> Node:
    """output[starts + steps*i] = x[i], zero elsewhere."""
    starts, steps, shape = tuple(starts), tuple(steps), tuple(shape)
    if shape == x.type.shape and all(isinstance(s, int) and s == 0 for s in starts) and all(s == 1 for s in steps):
        return x
    return make("pad", (x,), starts=starts, steps=steps, shape=shape)


def concat(nodes: Sequence[Node], axis: int) -> Node:
    """Nodes of one dtype, joined along an axis."""
    return nodes[0] if len(nodes) == 1 else make("concat", tuple(nodes), axis=axis)


def choose(nodes: Sequence[Node], conditions: Sequence[Condition]) -> Node:
    """The first node whose conditions on sizes hold (pairs (a, b): a >= b), else the last."""
    settled = tuple(tuple((a, b) for a, b in condition if sign(a - b) != 1) for condition in conditions)
    last = next((k for k, condition in enumerate(settled) if not condition), len(settled))
    kept = [k for k in range(last) if not any(isinstance(a - b, int) for a, b in settled[k])]  # ints left are negative
    operands = [*(nodes[k] for k in kept), nodes[last]]
    if all(node is operands[0] for node in operands):
        return operands[0]
    return make("choose", operands, conditions=tuple(settled[k] for k in kept))


# -- reductions and contractions --
def reduce(name: str, x: Node, axes: Sequence[int]) -> Node:
    """sum, prod, max, min, any, all over axes (none: x)."""
    axes = tuple(sorted(axes))
    return make(name, (x,), axes=axes) if axes else x


def reduce_sum(x: Node, axes: Sequence[int]) -> Node:
    return reduce("sum", x, axes)


def einsum(labels: Sequence[Sequence[Any]], out: Sequence[Any], *operands: Node) -> Node:
    """Sum of products over the labels that are not in `out`; labels may be any hashable things."""
    number: dict[Any, int] = {}
    for label in (label for group in (*labels, out) for label in group):
        number.setdefault(label, len(number))
    ins = tuple(tuple(number[label] for label in group) for group in labels)
    outs = tuple(number[label] for label in out)
    distinct = len(set(outs)) == len(outs)
    if len(operands) == 1 and len(set(ins[0])) == len(ins[0]) and distinct and set(outs) <= set(ins[0]):
        kept = [label for label in ins[0] if label in outs]
        small = reduce_sum(operands[0], tuple(k for k, label in enumerate(ins[0]) if label not in outs))
        return transpose(small, tuple(kept.index(label) for label in outs))
    return make("einsum", operands, labels=ins, out=outs)


def diagonal(x: Node, axes: Sequence[Sequence[int]]) -> Node:
    """x written on a diagonal: operand axis k lies along all the output axes axes[k]; zero elsewhere."""
    groups = tuple(tuple(group) for group in axes)
    if all(len(group) == 1 for group in groups):
        order = [group[0] for group in groups]
        return transpose(x, tuple(order.index(axis) for axis in range(len(order))))
    return make("diagonal", (x,), axes=groups)


# -- indexing --
def gather(x: Node, indices: Sequence[Node], x_labels: Sequence[Any], index_labels: Sequence[Sequence[int]],
           out: Sequence[int]) -> Node:
    """y[out] = x[x_labels], where ("index", k) stands for the value of indices[k]."""
    return make("gather", (x, *(as_index("gather", i) for i in indices)), x_labels=tuple(x_labels),
                index_labels=tuple(map(tuple, index_labels)), out=tuple(out))


def scatter_add(u: Node, indices: Sequence[Node], x_labels: Sequence[Any], index_labels: Sequence[Sequence[int]],
                out: Sequence[int], shape: Shape) -> Node:
    """The transpose of gather by x: zeros of `shape`, to which u is added at the indices."""
    return make("scatter_add", (u, *(as_index("scatter_add", i) for i in indices)), x_labels=tuple(x_labels),
                index_labels=tuple(map(tuple, index_labels)), out=tuple(out), shape=tuple(shape))


def as_index(name: str, node: Node) -> Node:
    """The node as int64 indices."""
    if not is_integer(node.type.dtype):
        raise refusal(name, f"indices must be integers, got {node.type}; cast them first", (node,), DTypeError)
    return cast(node, "int64")


def take(x: Node, indices: Node, axis: int) -> Node:
    """NumPy's take along one axis: the axis is replaced by the axes of `indices`."""
    rank, extra = x.type.rank, indices.type.rank
    fresh = tuple(range(rank, rank + extra))
    x_labels = tuple(("index", 0) if k == axis else k for k in range(rank))
    return gather(x, (indices,), x_labels, (fresh,), (*range(axis), *fresh, *range(axis + 1, rank)))


def linear_scan(a: Node, b: Node, axis: int, reverse: bool = False) -> Node:
    """y[i] = a[i]*y[i-1] + b[i] along the axis, from the end if `reverse`."""
    return make("linear_scan", (a, b), axis=axis, reverse=reverse)


def float_of(*dtypes: str) -> str:
    """The float dtype in which NumPy's real functions of these dtypes are computed."""
    joined = promote(*dtypes)
    return joined if joined in FLOATS else np.exp(np.zeros((), numpy_dtype(joined))).dtype.name
