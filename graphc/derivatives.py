"""Derivatives, as nodes of the same graph: gradients, jvp, vjp, jacobian, hessian, hvp.

All of them are sweeps over linear maps (`passes.differentiate`).  A list in gives a list out, a node a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from graphc.ir import build
from graphc.ir.dims import Dim, known_equal, product
from graphc.ir.errors import DTypeError, GraphError, ShapeError, user_line
from graphc.ir.linmap import LinMap, covector, dense_node, identity, vector
from graphc.ir.node import Node, ancestors, constant
from graphc.ir.types import is_float, shape_text
from passes.differentiate import between, forward, reverse
from passes.stabilise import stabilise

Nodes = Sequence[Node]
UNCONNECTED = ("zero", "error")
ORDERS = ("auto", "forward", "reverse")


# -- gradients and products --
@overload
def gradients(ys: Node | Nodes, xs: Node, seeds: Any = None, *, unconnected: str = "zero") -> Node: ...
@overload
def gradients(ys: Node | Nodes, xs: Nodes, seeds: Any = None, *, unconnected: str = "zero") -> list[Node]: ...
def gradients(ys: Node | Nodes, xs: Node | Nodes, seeds: Any = None, *, unconnected: str = "zero") -> Node | list[Node]:
    """d(sum of ys)/dx for every x; the ys are scalars unless `seeds` gives each a cotangent of its shape.

    An x on which no y depends gets zeros, or with `unconnected="error"` an error.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float32", (3,))
        >>> gc.gradients(gc.sum(x * x), x).type
        Type(dtype='float32', shape=(3,))
    """
    y_list, x_list = both_sides("gradients", ys, xs, unconnected)
    if seeds is None:
        for y in y_list:
            require_scalar(y)
        maps = [identity(())] * len(y_list)  # a y of one element has no atoms, whatever its rank
    else:
        maps = [covector(u) for u in seeded("gradients", y_list, as_list(ys, seeds))]
    found: Node | list[Node] = like(xs, pulled_back("gradients", y_list, x_list, maps, unconnected))
    return found


@overload
def vjp(ys: Node | Nodes, xs: Node, us: Any, *, unconnected: str = "zero") -> Node: ...
@overload
def vjp(ys: Node | Nodes, xs: Nodes, us: Any, *, unconnected: str = "zero") -> list[Node]: ...
def vjp(ys: Node | Nodes, xs: Node | Nodes, us: Any, *, unconnected: str = "zero") -> Node | list[Node]:
    """u.T @ dy/dx, summed over the ys, for every x; the us have the shapes of the ys.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.vjp(gc.sin(x), [x], [1.0, 0.0, 0.0])[0].shape
        (3,)
    """
    y_list, x_list = both_sides("vjp", ys, xs, unconnected)
    maps = [covector(u) for u in seeded("vjp", y_list, as_list(ys, us))]
    found: Node | list[Node] = like(xs, pulled_back("vjp", y_list, x_list, maps, unconnected))
    return found


@overload
def jvp(ys: Node, xs: Node | Nodes, dxs: Any, *, unconnected: str = "zero") -> Node: ...
@overload
def jvp(ys: Nodes, xs: Node | Nodes, dxs: Any, *, unconnected: str = "zero") -> list[Node]: ...
def jvp(ys: Node | Nodes, xs: Node | Nodes, dxs: Any, *, unconnected: str = "zero") -> Node | list[Node]:
    """dy/dx @ dx, summed over the xs, for every y; the dxs have the shapes of the xs.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.jvp(gc.sum(x), x, [1.0, 2.0, 3.0]).shape
        ()
    """
    y_list, x_list = both_sides("jvp", ys, xs, unconnected)
    seeds: dict[Node, LinMap] = {}
    for x, dx in zip(x_list, seeded("jvp", x_list, as_list(xs, dxs))):
        seeds[x] = (*seeds.get(x, ()), *vector(dx))
    with y_list[0].graph:
        part = between(y_list, x_list)
        tangents = forward(part, seeds, y_list, ())
        for y, tangent in zip(y_list, tangents):
            if not tangent and unconnected == "error":
                raise unreachable("jvp", [y], x_list)
        found: Node | list[Node] = like(ys, [dense_node(m, y.type.shape, (), y.type.dtype)
                                             for m, y in zip(tangents, y_list)])
    return found


def hvp(y: Node, xs: Node | Nodes, vs: Any, *, unconnected: str = "zero") -> Node | list[Node]:
    """The Hessian of the scalar y by the xs times the vs, without forming it.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.hvp(gc.sum(gc.sin(x)), [x], [[1.0, 0.0, 0.0]])[0].shape
        (3,)
    """
    _, x_list = both_sides("hvp", y, xs, unconnected)
    slopes = gradients(y, x_list, unconnected=unconnected)
    found: Node | list[Node] = like(xs, vjp(slopes, x_list, seeded("hvp", x_list, as_list(xs, vs))))
    return found


# -- matrices --
def jacobian(ys: Node | Nodes, xs: Node | Nodes, order: str = "auto", *, unconnected: str = "zero") -> Any:
    """dy/dx, of shape y.shape + x.shape; lists give a list of rows, one node per pair.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.jacobian(gc.sin(x), x).shape
        (3, 3)
    """
    if order not in ORDERS:
        raise refused("jacobian", f"order {order!r} is none of {', '.join(ORDERS)}")
    y_list, x_list = both_sides("jacobian", ys, xs, unconnected)
    with y_list[0].graph:
        rows = [jacobian_row(y, x_list, order, unconnected) for y in y_list]
    return like(ys, [like(xs, row) for row in rows])


def hessian(y: Node, xs: Node | Nodes, *, unconnected: str = "zero") -> Any:
    """The second derivatives of the scalar y, of shape x.shape + x.shape; a list gives all pairs.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.hessian(gc.sum(x * x), x).shape
        (3, 3)
    """
    return jacobian(gradients(y, xs, unconnected=unconnected), xs)


def jacobian_row(y: Node, xs: Nodes, order: str, unconnected: str) -> list[Node]:
    """One reverse sweep for the xs that are no smaller than y, a forward sweep for each of the others."""
    back = [x for x in xs if order == "reverse" or (order == "auto" and not fewer(x.type.size, y.type.size))]
    found: dict[Node, LinMap] = {}
    if back:
        found.update(zip(back, reverse(between([y], back), {y: identity(y.type.shape)}, back, y.type.shape)))
    for x in xs:
        if x not in found:
            found[x] = forward(between([y], [x]), {x: identity(x.type.shape)}, [y], x.type.shape)[0]
    return [finished(found[x], y, x, unconnected) for x in xs]


def finished(m: LinMap, y: Node, x: Node, unconnected: str) -> Node:
    if not m and y.type.size != 0 and x.type.size != 0 and unconnected == "error":
        raise unreachable("jacobian", [y], [x])
    return dense_node(m, y.type.shape, x.type.shape, y.type.dtype)


def fewer(a: int | Dim, b: int | Dim) -> bool:
    """Whether a is known to be less than b."""
    return isinstance(a, int) and isinstance(b, int) and a < b


# -- what they share --
def pulled_back(name: str, ys: Nodes, xs: Nodes, maps: Sequence[LinMap], unconnected: str) -> list[Node]:
    """The covectors at the ys pulled back to the xs, as nodes."""
    seeds: dict[Node, LinMap] = {}
    for y, m in zip(ys, maps):
        seeds[y] = (*seeds.get(y, ()), *m)
    with ys[0].graph:
        part = between(ys, xs)
        found = reverse(part, seeds, xs, ())
        for x, m in zip(xs, found):
            if not m and product(x.type.shape) != 0 and unconnected == "error":
                raise unreachable(name, ys, [x])
        return [dense_node(m, (), x.type.shape, x.type.dtype) for x, m in zip(xs, found)]


def both_sides(name: str, ys: Any, xs: Any, unconnected: str) -> tuple[list[Node], list[Node]]:
    """The ys and the xs as lists, all of one graph; refuses an unknown `unconnected`."""
    if unconnected not in UNCONNECTED:
        raise refused(name, f"unconnected={unconnected!r} is none of {', '.join(UNCONNECTED)}")
    y_list, x_list = listed(name, "y", ys), listed(name, "x", xs)
    for node in (*y_list, *x_list):
        if node.graph is not y_list[0].graph:
            raise refused(name, f"{node!r} is of another graph than {y_list[0]!r}")
    return stabilise(y_list, keep=x_list), x_list  # what is unstable has an unstable derivative


def listed(name: str, side: str, nodes: Any) -> list[Node]:
    """The nodes, which must be floats of one graph."""
    found = [nodes] if isinstance(nodes, Node) else list(nodes)
    if not found:
        raise refused(name, f"needs at least one {side}")
    for node in found:
        if not isinstance(node, Node):
            raise refused(name, f"{side}: expected a node, got {type(node).__name__} {node!r:.60}")
        if not is_float(node.type.dtype):
            raise refused(name, f"{side} {node!r} holds {node.type.dtype}, which has no derivative; cast it to a float "
                          "dtype before it is used", DTypeError)
    return found


def seeded(name: str, nodes: Nodes, seeds: Any) -> list[Node]:
    """One seed per node, of its shape and dtype; arrays become constants."""
    given = list(seeds) if isinstance(seeds, (list, tuple)) else [seeds]
    if len(given) != len(nodes):
        raise refused(name, f"{len(nodes)} seeds are needed, one per node, got {len(given)}")
    return [seed_of(name, node, seed) for node, seed in zip(nodes, given)]


def seed_of(name: str, node: Node, seed: Any) -> Node:
    with node.graph:
        found = seed if isinstance(seed, Node) else constant(seed, graph=node.graph)
    if found.graph is not node.graph:
        raise refused(name, f"the seed {found!r} is of another graph than {node!r}")
    if len(found.type.shape) != node.type.rank or any(known_equal(a, b) is False for a, b in
                                                      zip(found.type.shape, node.type.shape)):
        raise refused(name, f"the seed of shape {shape_text(found.type.shape)} must have the shape "
                      f"{shape_text(node.type.shape)} of {node!r}", ShapeError)
    return build.cast(found, node.type.dtype)


def as_list(nodes: Node | Nodes, seeds: Any) -> Any:
    """Seeds go as their nodes do: a node's own seed (a list may be an array), or a list of seeds."""
    return [seeds] if isinstance(nodes, Node) else seeds


def like(given: Any, results: Sequence[Any]) -> Any:
    """A list where a list was given, else the one result."""
    return results[0] if isinstance(given, Node) else list(results)


def require_scalar(y: Node) -> None:
    if y.type.rank and not (isinstance(y.type.size, int) and y.type.size == 1):
        raise refused("gradients", f"{y!r} is not a scalar: use gc.jacobian(y, x) for the matrix of derivatives, "
                      "gc.vjp(y, xs, u) for a weighted sum of its rows, or give seeds=", ShapeError)


def unreachable(name: str, ys: Nodes, xs: Nodes) -> GraphError:
    above = set(ancestors(ys))
    how = ("depends on it only through ops without a derivative" if any(x in above for x in xs)
           else "does not depend on it")
    return refused(name, f"no derivative of {', '.join(map(repr, ys))} by {', '.join(map(repr, xs))}: it {how}")


def refused(name: str, message: str, kind: Callable[[str], GraphError] = GraphError) -> GraphError:
    return kind(f"{name}: {message}\n  at {user_line()}")
