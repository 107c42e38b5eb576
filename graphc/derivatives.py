"""Derivatives, as nodes of the same graph: gradients, jvp, vjp, jacobian, hessian, hvp, and the plans of Jacobians.

Gradients, jvp and vjp are linear sweeps over linear maps (`passes.differentiate`); Jacobians are products of these maps
in the order of a plan (`passes.jacobian`).  A list in gives a list out, a node a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import os
from typing import Any, overload

from graphc.ir import build
from graphc.ir.dims import Dim, known_equal, product
from graphc.ir.errors import DTypeError, GraphError, ShapeError, user_line
from graphc.ir.linmap import LinMap, covector, dense_node, identity, vector
from graphc.ir.linmap.contract import estimate
from graphc.ir.linmap.cost import price
from graphc.ir.node import Node, ancestors, constant
from graphc.ir.types import is_float, shape_text
from passes.differentiate import between, forward, reverse
from passes.jacobian.plan import Plan, carried_out, executed, jacobians, multiplied, plan_of
from passes.jacobian.tensor import Linear, linearised
from passes.stabilise import stabilise

from .decisions import Decision, decided
from .origins import noted

Nodes = Sequence[Node]
UNCONNECTED = ("zero", "error")
ORDERS = ("auto", "forward", "reverse")
QUICK = 0.05  # seconds that a plan may take to be searched where nobody asked for one


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
    results = pulled_back("gradients", y_list, x_list, maps, unconnected)
    for x, node in zip(x_list, results):
        noted("gradient" if seeds is None else "vjp", node, as_nodes(ys), [x])
    found: Node | list[Node] = like(xs, results)
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
    results = pulled_back("vjp", y_list, x_list, maps, unconnected)
    for x, node in zip(x_list, results):
        noted("vjp", node, as_nodes(ys), [x])
    found: Node | list[Node] = like(xs, results)
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
        results = [dense_node(m, y.type.shape, (), y.type.dtype) for m, y in zip(tangents, y_list)]
    for y, node in zip(as_nodes(ys), results):
        noted("jvp", node, [y], x_list)
    found: Node | list[Node] = like(ys, results)
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
    seeds = seeded("hvp", x_list, as_list(xs, vs))
    tries = [jvp(slopes, x_list, seeds), vjp(slopes, x_list, seeds)]  # the Jacobian of g times v; the gradient of v'g
    results = min(tries, key=lambda nodes: estimate(price(nodes, slopes)))
    for node in results:
        node.origins = ()  # not what it was made by
        noted("hvp", node, [y], x_list)
    found: Node | list[Node] = like(xs, results)
    return found


# -- matrices --
def plan_jacobian(ys: Node | Nodes, xs: Node | Nodes, *, memory: int | None = None, budget: float = 1.0,
                  threads: int = 1) -> Plan:
    """The order in which `jacobian` would multiply, what it costs, and what was rejected.

    `memory` limits the bytes that are held at a time, `budget` is what searches may take, in seconds or so; with
    `threads` the time until the last of so many threads is done is what counts.

    Example::

        >>> import graphc as gc
        >>> x, w = gc.placeholder("float64", (3,)), gc.placeholder("float64", (2, 3))
        >>> gc.plan_jacobian(gc.tanh(w @ x), x).multiplications
        6
    """
    y_list, x_list = both_sides("plan_jacobian", ys, xs, "zero")
    check_limits(memory, budget, threads)
    with y_list[0].graph:
        return plan_of(linearised(y_list, x_list), memory=memory, budget=budget, threads=threads)


def jacobian(ys: Node | Nodes, xs: Node | Nodes, order: str | Plan = "auto", *, unconnected: str = "zero") -> Any:
    """dy/dx, of shape y.shape + x.shape; lists give a list of rows, one node per pair.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.jacobian(gc.sin(x), x).shape
        (3, 3)
    """
    y_list, x_list = both_sides("jacobian", ys, xs, unconnected)
    found = matrices("jacobian", y_list, x_list, order, unconnected)
    for (p, q), node in found.items():
        noted("jacobian", node, [as_nodes(ys)[p]], [x_list[q]])
    return like(ys, [like(xs, [found[p, q] for q in range(len(x_list))]) for p in range(len(y_list))])


def hessian(y: Node, xs: Node | Nodes, order: str | Plan = "auto", *, unconnected: str = "zero") -> Any:
    """The second derivatives of the scalar y, of shape x.shape + x.shape; a list gives all pairs.

    A pair of different xs is computed once, and transposed for the other way round.

    Example::

        >>> import graphc as gc
        >>> x = gc.placeholder("float64", (3,))
        >>> gc.hessian(gc.sum(x * x), x).shape
        (3, 3)
    """
    _, x_list = both_sides("hessian", y, xs, unconnected)
    slopes, _ = both_sides("hessian", gradients(y, x_list, unconnected=unconnected), x_list, unconnected)
    below = [(p, q) for p in range(len(x_list)) for q in range(p)]
    found = matrices("hessian", slopes, x_list, order, "zero", below, symmetric=True)
    for p, q in below:
        rank, width = x_list[q].type.rank, x_list[p].type.rank
        found[p, q] = build.transpose(found[q, p], (*range(rank, rank + width), *range(rank)))
    for (p, q), node in found.items():
        noted("hessian", node, [y], [x_list[p]] if p == q else [x_list[p], x_list[q]])
    return like(xs, [like(xs, [found[p, q] for q in range(len(x_list))]) for p in range(len(x_list))])


def matrices(name: str, ys: Nodes, xs: Nodes, order: str | Plan, unconnected: str,
             skipped: Iterable[tuple[int, int]] = (), *, symmetric: bool = False) -> dict[tuple[int, int], Node]:
    """The dense Jacobian of every wanted pair of positions, multiplied in the order asked for."""
    if not isinstance(order, Plan) and order not in ORDERS:
        raise refused(name, f"order {order!r} is none of {', '.join(ORDERS)}, nor a plan")
    require_room(name, ys, xs, skipped)
    with ys[0].graph:
        linear = linearised(ys, xs, skipped, symmetric=symmetric)
        found = ordered(linear, order)
        return {(p, q): node if node is not None else absent(name, ys[p], xs[q], unconnected)
                for (p, q), node in found.items()}


def ordered(linear: Linear[LinMap], order: str | Plan) -> dict[tuple[int, int], Node | None]:
    if isinstance(order, Plan):
        return executed(order, linear)
    if order == "auto":
        return planned(linear)
    return multiplied(linear, linear.inner if order == "forward" else linear.inner[::-1])


def planned(linear: Linear[LinMap]) -> dict[tuple[int, int], Node | None]:
    """The Jacobians as a quick search says, or as one said before."""
    made: list[dict[tuple[int, int], Node | None]] = []

    def search() -> Decision | None:
        plan, results = jacobians(linear, QUICK)
        made.append(results)
        return None if plan.alternatives else Decision(plan.engine, plan.order)
    found = decided(linear, QUICK, search)
    if made:
        return made[0]
    assert found is not None, "what is not decided is searched"
    return carried_out(linear, *found)


def absent(name: str, y: Node, x: Node, unconnected: str) -> Node:
    """The Jacobian of a y that does not depend on x."""
    if product(y.type.shape) != 0 and product(x.type.shape) != 0 and unconnected == "error":
        raise unreachable(name, [y], [x])
    return build.zeros(y.type.dtype, (*y.type.shape, *x.type.shape), y.graph)


def require_room(name: str, ys: Nodes, xs: Nodes, skipped: Iterable[tuple[int, int]]) -> None:
    """Refuses Jacobians that this machine's memory cannot hold, before anything is allocated."""
    left_out = set(skipped)
    needed: int | Dim = 0
    for p, y in enumerate(ys):
        for q, x in enumerate(xs):
            if (p, q) not in left_out:
                needed = needed + y.type.nbytes * x.type.size
    if isinstance(needed, int) and needed > physical_memory():
        raise refused(name, f"the dense result of {len(ys)} by {len(xs)} nodes takes {needed} bytes, and this machine "
                      f"has {physical_memory()}: use gc.sparse_jacobian where most of it is zero, or gc.jvp and "
                      "gc.vjp, which multiply by it without forming it")


def physical_memory() -> int:
    """Bytes; as good as endless where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 1 << 63
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_limits(memory: int | None, budget: float, threads: int) -> None:
    if memory is not None and memory < 0:
        raise refused("plan_jacobian", f"memory={memory} bytes: needs zero or more")
    if not budget >= 0:
        raise refused("plan_jacobian", f"budget={budget} seconds: needs zero or more")
    if threads < 1:
        raise refused("plan_jacobian", f"threads={threads}: needs one or more")


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


def as_nodes(given: Node | Nodes) -> Nodes:
    return [given] if isinstance(given, Node) else given


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
