"""Leaves and arrays that are made from nothing: placeholders, variables, ranges, constants, triangles."""

from __future__ import annotations

from collections.abc import Callable
import operator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..ir import build
from ..ir.build import Operand
from ..ir.dims import Dim
from ..ir.errors import DTypeError
from ..ir.node import Node, constant, default_graph, make
from ..ir.types import Shape, as_dtype, is_integer
from .operands import ShapeLike, as_node, axis_of, dtype_of, refusal, shape_of


@runtime_checkable
class Initialiser(Protocol):
    """Makes a variable's first value when it is asked for."""

    shape: Any
    dtype: Any
    __call__: Callable[[], np.ndarray[Any, Any]]


# -- leaves --
def placeholder(dtype: Any, shape: ShapeLike | tuple[Any, ...] = (), name: str | None = None) -> Node:
    """A value fed at run time.  A string in `shape` is a symbolic size, the same everywhere; None is one of its own.

    >>> print(gc.placeholder("float32", ("batch", 64)).type)
    float32[batch, 64]
    """
    graph = default_graph()
    full_name = graph.unique_name(name, "placeholder")
    listed = shape if isinstance(shape, (tuple, list)) else (shape,)
    sizes = tuple(anonymous(full_name, k) if size is None else size for k, size in enumerate(listed))
    node = make("placeholder", graph=graph, name=full_name, dtype=dtype_of("placeholder", dtype),
                shape=shape_of("placeholder", sizes))
    graph.placeholders[full_name] = node
    return node


def anonymous(name: str, axis: int) -> Dim:
    """The symbol of an unnamed size: named after its placeholder and axis, so it is the same on every run."""
    return Dim.symbol(f"{name.replace('/', '_')}_{axis}")


def variable(initial: Any, name: str | None = None, dtype: Any = None) -> Node:
    """A value that lives in the session.  `initial` is an array (copied) or an initialiser of `graphc.init`.

    >>> print(gc.variable([[1.0, 2.0]], dtype="float32").type)
    float32[1, 2]
    """
    graph = default_graph()
    if isinstance(initial, Node):
        raise refusal("variable", "the initial value is an array or an initialiser, got a node", (initial,), DTypeError)
    full_name = graph.unique_name(name, "variable")
    if callable(initial) and isinstance(initial, Initialiser):
        kind, shape = dtype_of("variable", dtype or initial.dtype), shape_of("variable", initial.shape)
        graph.initial[full_name] = initial
    else:
        array = np.asarray(initial)
        kind, shape = dtype_of("variable", array.dtype if dtype is None else dtype), array.shape
        graph.initial[full_name] = as_dtype(array, kind).copy()
        graph.initial[full_name].flags.writeable = False
    node = make("variable", graph=graph, name=full_name, dtype=kind, shape=shape)
    graph.variables[full_name] = node
    return node


# -- filled arrays --
def full(shape: ShapeLike, value: Operand, dtype: Any = None) -> Node:
    """An array of one value.

    >>> print(gc.full((2, "n"), 7.0, "float32").type)
    float32[2, n]
    """
    node = as_node(value)
    kind = node.dtype if dtype is None else dtype_of("full", dtype)
    return build.broadcast_to(build.cast(node, kind), shape_of("full", shape))


def zeros(shape: ShapeLike, dtype: Any = "float64") -> Node:
    """Zeros.

    >>> print(gc.zeros((2, 3)).type)
    float64[2, 3]
    """
    return build.zeros(dtype_of("zeros", dtype), shape_of("zeros", shape))


def ones(shape: ShapeLike, dtype: Any = "float64") -> Node:
    """Ones.

    >>> print(gc.ones((2, 3), "int32").type)
    int32[2, 3]
    """
    return build.ones(dtype_of("ones", dtype), shape_of("ones", shape))


def full_like(x: Operand, value: Operand, dtype: Any = None) -> Node:
    """An array of one value, of x's shape and dtype.

    >>> print(gc.full_like([1.0, 2.0], 3).type)
    float64[2]
    """
    node = as_node(x)
    kind = node.dtype if dtype is None else dtype_of("full_like", dtype)
    filler = value if isinstance(value, Node) else constant(value, kind, node.graph)
    return build.broadcast_to(build.cast(filler, kind), node.shape)


def zeros_like(x: Operand, dtype: Any = None) -> Node:
    """Zeros of x's shape and dtype.

    >>> print(gc.zeros_like([1.0, 2.0]).type)
    float64[2]
    """
    return full_like(x, 0, dtype)


def ones_like(x: Operand, dtype: Any = None) -> Node:
    """Ones of x's shape and dtype.

    >>> print(gc.ones_like([1.0, 2.0], "bool").type)
    bool[2]
    """
    return full_like(x, 1, dtype)


# -- ranges --
def iota(dtype: str, shape: Shape, axis: int) -> Node:
    """The index along one axis."""
    return make("iota", dtype=dtype, shape=shape, axis=axis)


def arange(start: int | float | Dim | str, stop: int | float | Dim | str | None = None, step: int | float = 1,
           dtype: Any = None) -> Node:
    """start, start + step, .. below stop; integers may be symbolic sizes.

    >>> print(gc.arange("n").type)
    int64[n]
    """
    low, high = (0, start) if stop is None else (start, stop)
    bounds: list[Any] = [Dim.symbol(b) if isinstance(b, str) else b for b in (low, high)]
    if not any(isinstance(b, Dim) for b in bounds):
        values = np.arange(bounds[0], bounds[1], step)
        return constant(values, values.dtype if dtype is None else dtype)
    if not isinstance(step, int) or step == 0 or any(isinstance(b, float) for b in bounds):
        raise refusal("arange", f"with a symbolic size start, stop and step are integers, got {low}, {high}, {step}")
    kind = "int64" if dtype is None else dtype_of("arange", dtype)
    a, b = bounds
    count = (b - a + step - 1) // step if step > 0 else (a - b - step - 1) // -step
    steps = iota("int64", (count,), 0)
    scaled = build.elementwise("mul", steps, step) if step != 1 else steps
    if isinstance(a, int) and a == 0:
        return build.cast(scaled, kind)
    return build.cast(build.elementwise("add", scaled, build.size_node(a)), kind)


def linspace(start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = None) -> Node:
    """Evenly spaced numbers from start to stop.

    >>> print(gc.linspace(0.0, 1.0, 5).type)
    float64[5]
    """
    values = np.linspace(start, stop, operator.index(num), endpoint=endpoint)
    return constant(values, values.dtype if dtype is None else dtype)


# -- diagonals and triangles --
def eye(n: int | str | Dim, m: int | str | Dim | None = None, k: int = 0, dtype: Any = "float64") -> Node:
    """Ones on the k-th diagonal, zeros elsewhere.

    >>> print(gc.eye(2, 3).type)
    float64[2, 3]
    """
    shape = shape_of("eye", (n, n if m is None else m))
    return build.cast(build.elementwise("eq", *row_and_column(shape, k)), dtype_of("eye", dtype))


def row_and_column(shape: Shape, k: int) -> tuple[Node, Node]:
    """Row index + k, and column index, of the last two axes."""
    rank = len(shape)
    row = build.elementwise("add", iota("int64", (shape[-2],), 0), k) if k else iota("int64", (shape[-2],), 0)
    column = iota("int64", (shape[-1],), 0)
    return build.broadcast(row, shape, (rank - 2,)), build.broadcast(column, shape, (rank - 1,))


def tril(x: Operand, k: int = 0) -> Node:
    """x on and below the k-th diagonal of its last two axes, zero above.

    >>> print(gc.tril([[1.0, 2.0], [3.0, 4.0]]).type)
    float64[2, 2]
    """
    return triangle("tril", x, k, "ge")


def triu(x: Operand, k: int = 0) -> Node:
    """x on and above the k-th diagonal of its last two axes, zero below.

    >>> print(gc.triu([[1.0, 2.0], [3.0, 4.0]]).type)
    float64[2, 2]
    """
    return triangle("triu", x, k, "le")


def triangle(name: str, x: Operand, k: int, relation: str) -> Node:
    node = as_node(x)
    if node.ndim < 2:
        raise refusal(name, f"needs two axes or more, got {node.type}", (node,))
    with node.graph:
        inside = build.elementwise(relation, *row_and_column(node.shape, k))
    return build.elementwise("where", inside, node, build.zeros(node.dtype, node.shape, node.graph))


def one_hot(indices: Operand, depth: int, dtype: Any = "float32", axis: int = -1) -> Node:
    """1 at the index along a new axis of `depth`, 0 elsewhere; rows whose index is outside are all 0.

    >>> print(gc.one_hot([0, 2, 1], 3).type)
    float32[3, 3]
    """
    node = as_node(indices)
    if not is_integer(node.dtype):
        raise refusal("one_hot", f"indices are integers, got {node.type}; cast them first", (node,), DTypeError)
    k = axis_of("one_hot", axis, node.ndim + 1, (node,))
    node = build.cast(node, "int64")
    shape = (*node.shape[:k], depth, *node.shape[k:])
    with node.graph:
        classes = build.broadcast(iota("int64", (depth,), 0), shape, (k,))
    spread = build.broadcast(node, shape, tuple(a if a < k else a + 1 for a in range(node.ndim)))
    return build.cast(build.elementwise("eq", spread, classes), dtype_of("one_hot", dtype))
