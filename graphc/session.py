"""Sessions: where variables have values and graphs are run.

A session is of one graph.  It compiles what it is asked for once per set of fetches and feeds, and keeps the arrays of
the variables, which native code changes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import difflib
import os
from typing import Any

import numpy as np

from passes.lower import Request

from .binding import as_array
from .compiler import compile_request
from .config import Options
from .function import Function
from .home import Home, spec_of
from .interpreted import Interpreted
from .io.tensors import read_tensors, write_tensors
from .ir.errors import FeedError, GraphError, SessionError, user_line
from .ir.node import Graph, Node, ancestors, default_graph, make, path_to, replaced
from .ir.types import from_storage, to_storage
from .numerics import Checked

Feeds = Mapping[Any, Any]


class Session:
    """Runs the nodes of one graph.

    Keyword options: threads, target, fast_math, check_numerics, mode ("native", "reference" or "check") and the other
    switches of `graphc.config`; an option that is not given comes from the environment.

    Example::

        >>> import graphc as gc, numpy as np
        >>> with gc.Graph():
        ...     x = gc.placeholder("float32", ("n",), name="x")
        ...     with gc.Session() as sess:
        ...         sess.run(x * 2 + 1, {x: np.arange(3)}).tolist()
        [1.0, 3.0, 5.0]
    """

    def __init__(self, graph: Graph | None = None, **options: Any) -> None:
        self.graph = graph or default_graph()
        self.options = Options.of(**options)
        self.home = Home(self.graph, self.options)
        self.lock = self.home.lock
        self.functions: dict[Any, Callable[..., Any]] = {}

    def __enter__(self) -> Session:
        self.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the variables and the compiled functions; the session cannot be used again."""
        self.home.close()
        self.functions.clear()

    def check_open(self) -> None:
        self.home.check_open()

    # -- running --
    def run(self, fetches: Any, feed_dict: Feeds | None = None) -> Any:
        """The values of `fetches`: a node, or lists, tuples and dicts of nodes, given back in the same structure.

        `feed_dict` gives values to placeholders, by node or name; an inner node may be fed too.
        """
        self.check_open()
        nodes: list[Node] = []
        collect(fetches, nodes)
        self.check_graph(nodes)
        feeds = self.feeds(feed_dict or {})
        key = (tuple(n.id for n in nodes), tuple(n.id for n in feeds))
        function = self.functions.get(key)
        if function is None:
            function = self.functions[key] = self.function(list(feeds), nodes)
        results = iter(function(*feeds.values()))
        return rebuilt(fetches, results)

    def function(self, inputs: Sequence[Node], outputs: Any, updates: Any = None,
                 name: str = "main") -> Callable[..., Any]:
        """A function of the inputs that returns the outputs and then gives variables their new values.

        inputs: placeholders or inner nodes, one per argument.  outputs: a node or a list of nodes.  updates: a dict or
        list of pairs (variable, new value), as `optim` makes; all new values are computed from the old ones.
        """
        self.check_open()
        single = isinstance(outputs, Node)
        nodes = [outputs] if isinstance(outputs, Node) else list(outputs)
        pairs = update_pairs(updates)
        self.check_graph([*inputs, *nodes, *(n for pair in pairs for n in pair)])
        check_updates(pairs)
        request = with_fed_nodes(Request(name, tuple(inputs), tuple(nodes), tuple(pairs)))
        where = missing_or_path(request, list(inputs))
        if self.options.mode != "native":
            return Interpreted(self.home, request, single, where, self.options.mode == "check")
        function = Function(self.home, compile_request(request, self.options), single, where)
        return Checked(function, request) if self.options.check_numerics else function

    # -- variables --
    def variable(self, node: Node) -> Node:
        """The node, where it is a variable of this session's graph."""
        self.check_open()
        if not isinstance(node, Node) or node.op.name != "variable":
            raise SessionError(f"expected a variable, got {node!r:.80}")
        if node.graph is not self.graph:
            raise SessionError(f"variable {node.name!r} is of another graph than this session")
        return node

    def value(self, variable: Node) -> np.ndarray[Any, Any]:
        """A copy of the variable's value."""
        node = self.variable(variable)
        with self.lock:
            return np.array(from_storage(self.home.storage(node.name), node.dtype))

    def assign(self, variable: Node, value: Any) -> None:
        """Gives the variable a new value of its shape."""
        node = self.variable(variable)
        array = as_array(spec_of(node), value)
        with self.lock:
            self.home.store(node, array)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all variables to one file, safetensors inside a zip; the file is whole or not there."""
        self.check_open()
        with self.lock:
            write_tensors(path, {name: (v.dtype, self.value(v)) for name, v in self.graph.variables.items()})

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save` wrote; refused as a whole when a variable is missing or of another shape or dtype."""
        self.check_open()
        found = read_tensors(path)
        for name, v in self.graph.variables.items():
            if name not in found:
                raise SessionError(f"restore {os.fspath(path)!r}: no variable {name!r}; "
                                   f"there are {', '.join(found) or 'none'}")
            dtype, array = found[name]
            if (dtype, array.shape) != (v.dtype, v.shape):
                raise SessionError(f"restore {os.fspath(path)!r}: variable {name!r} is {v.type}, the file has "
                                   f"{dtype}{list(array.shape)}")
        with self.lock:
            for name, v in self.graph.variables.items():
                self.home.store(v, to_storage(found[name][1], v.dtype))

    # -- checks --
    def check_graph(self, nodes: Iterable[Any]) -> None:
        for node in nodes:
            if not isinstance(node, Node):
                raise GraphError(f"expected a node of the graph, got {type(node).__name__} {node!r:.60}\n"
                                 f"  at {user_line()}")
            if node.graph is not self.graph:
                raise GraphError(f"{node!r} is of another graph than this session\n  at {user_line()}\n"
                                 "open the session with gc.Session(graph) or inside `with graph:`")

    def feeds(self, given: Feeds) -> dict[Node, Any]:
        found: dict[Node, Any] = {}
        for key, value in given.items():
            node = self.named(key) if isinstance(key, str) else key
            self.check_graph([node])
            if node.op.name in ("constant", "variable"):
                raise FeedError(f"feed of {node!r}: a {node.op.name} cannot be fed"
                                + ("; use Session.assign" if node.op.name == "variable" else ""))
            found[node] = value
        return dict(sorted(found.items(), key=lambda item: item[0].id))

    def named(self, name: str) -> Node:
        if name in self.graph.placeholders:
            return self.graph.placeholders[name]
        near = difflib.get_close_matches(name, self.graph.placeholders, 3)
        hint = (f"did you mean {', '.join(map(repr, near))}?" if near else
                f"there are {', '.join(map(repr, self.graph.placeholders)) or 'none'}")
        raise FeedError(f"feed of {name!r}: no such placeholder; {hint}")


def collect(fetches: Any, into: list[Any]) -> None:
    if isinstance(fetches, (list, tuple)):
        for part in fetches:
            collect(part, into)
    elif isinstance(fetches, Mapping):
        for part in fetches.values():
            collect(part, into)
    else:
        into.append(fetches)


def rebuilt(fetches: Any, results: Any) -> Any:
    if isinstance(fetches, tuple) and hasattr(fetches, "_fields"):
        return type(fetches)(*(rebuilt(part, results) for part in fetches))
    if isinstance(fetches, (list, tuple)):
        return type(fetches)(rebuilt(part, results) for part in fetches)
    if isinstance(fetches, Mapping):
        return {key: rebuilt(part, results) for key, part in fetches.items()}
    return next(results)


def update_pairs(updates: Any) -> list[tuple[Node, Node]]:
    if updates is None:
        return []
    return [(v, n) for v, n in (updates.items() if isinstance(updates, Mapping) else updates)]


def check_updates(pairs: Sequence[tuple[Node, Node]]) -> None:
    seen: set[Node] = set()
    for variable, value in pairs:
        if variable.op.name != "variable":
            raise GraphError(f"updates: {variable!r} is no variable\n  at {user_line()}")
        if variable in seen:
            raise GraphError(f"updates: variable {variable.name!r} is given two new values\n  at {user_line()}")
        if variable.type != value.type:
            raise GraphError(f"updates: variable {variable.name!r} is {variable.type}, its new value {value.type}"
                             f"\n  at {value.loc}")
        seen.add(variable)


def with_fed_nodes(request: Request) -> Request:
    """The request with a placeholder in the place of every inner node that is fed."""
    new = {n: make("placeholder", graph=n.graph, name=f"{n.name} (fed)", dtype=n.dtype, shape=n.shape)
           for n in request.inputs if n.op.name != "placeholder"}
    if not new:
        return request
    targets = replaced([*request.outputs, *(v for _, v in request.updates)], new)
    count = len(request.outputs)
    return Request(request.name, tuple(new.get(n, n) for n in request.inputs), tuple(targets[:count]),
                   tuple((v, n) for (v, _), n in zip(request.updates, targets[count:])))


def missing_or_path(request: Request, inputs: Sequence[Node]) -> Callable[[int], str]:
    """Refuses a request that needs a placeholder it is not given; returns what says how an input is reached."""
    targets = [*request.outputs, *(v for _, v in request.updates)]
    given = set(request.inputs)
    if len(given) < len(request.inputs):
        raise GraphError(f"an input is given twice\n  at {user_line()}")
    for node in ancestors(targets):
        if node.op.name == "placeholder" and node not in given:
            near = difflib.get_close_matches(node.name, [n.name for n in inputs], 1)
            hint = f"; {near[0]!r} was fed, is that meant?" if near else ""
            raise FeedError(f"no feed for placeholder {node.name!r} ({node.type}), declared at {node.loc}"
                            f"{how_reached(targets, node)}{hint}")

    def where(k: int) -> str:
        return f"\n  declared at {request.inputs[k].loc}{how_reached(targets, request.inputs[k])}"

    return where


def how_reached(targets: Sequence[Node], leaf: Node) -> str:
    for fetch in targets:
        path = path_to(fetch, leaf)
        if path:
            shown = path if len(path) < 9 else [*path[:4], *path[-4:]]
            steps = [f"{n.name} ({n.loc.file.rsplit('/', 1)[-1]}:{n.loc.line})" for n in shown]
            return "\n  the fetch needs it: " + " <- ".join(steps)
    return ""

