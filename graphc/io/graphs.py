"""Graphs as files: a stored zip of `graph.json` and, for large constants and the values of variables, safetensors.

    {"format": "graphc-graph", "version": 1,
     "files": ["model.py"],
 "nodes": [{"op": "placeholder", "operands": [], "attrs": {..}, "dtype": "float32", "shape": [64],
                "loc": [0, 3], "scope": ""}, ..],
     "placeholders": [0], "variables": [1], "fetches": 7,
     "entries": {"run": {"inputs": [0], "outputs": 7, "updates": [[1, 6]], "names": ["y"], "doc": "",
                         "comments": {"y": "class scores"}, "origins": [""], "patterns": [null]}}}

Nodes are numbered by their place, operands before users, in an order that depends on the fetches alone.  Fetches are a
number, or {"list": ..}, {"tuple": ..}, {"dict": [[key, ..], ..]} of them.  Source files go without their folders.

Loading runs no code and opens no other file: nodes are rebuilt one by one through `make`, their types are inferred
anew and must be those in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..ir.errors import GraphError, Loc
from ..ir.node import OPS, STACK, Graph, Node, make
from ..ir.text import postorder
from ..ir.types import Type, as_dtype
from .archive import open_archive, write_archive
from .attributes import (
    Store,
    operand_count,
    read_attributes,
    read_dtype,
    read_int,
    read_list,
    read_sizes,
    read_text,
    write_attributes,
    write_sizes,
)
from .strict_json import parsed
from .tensors import MEMBER, tensor_chunks, tensors_of

if TYPE_CHECKING:
    from ..session import Session

GRAPH = "graph.json"
FORMAT = "graphc-graph"
VERSION = 1
VALUE = "variable/"  # and the variable's name: the tensor of its value
KEYS = ("format", "version", "files", "nodes", "placeholders", "variables", "fetches", "entries")
NODE_KEYS = ("op", "operands", "attrs", "dtype", "shape", "loc", "scope")
ENTRY_KEYS = ("inputs", "outputs", "updates", "names")
SAID_KEYS = ("doc", "comments", "origins", "patterns")  # may be missing: what a library's header says


class Pattern(NamedTuple):
    """Which entries of a matrix an output has, in CSR form."""

    shape: tuple[int, int]
    indptr: Sequence[int]
    indices: Sequence[int]


@dataclass(frozen=True)
class Entry:
    """What one function of a library computes, as `gc.signature` takes it: a single output stands without a tuple."""

    inputs: tuple[Node, ...]
    outputs: Node | tuple[Node, ...]
    updates: tuple[tuple[Node, Node], ...] = ()
    names: tuple[str, ...] = ()  # of the outputs
    doc: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)  # of inputs, outputs, sizes and variables
    origins: tuple[str, ...] = ()  # of the outputs, what each is the derivative of
    patterns: tuple[Pattern | None, ...] = ()  # of the outputs that are the entries of a sparse matrix

    @property
    def nodes(self) -> list[Node]:
        return [*self.inputs, *nodes_in(self.outputs), *(node for pair in self.updates for node in pair)]


@dataclass(frozen=True)
class SavedGraph:
    """What a file holds: a graph of its own, the fetches in the structure they were saved in, the entries by name."""

    graph: Graph
    fetches: Any
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def placeholders(self) -> dict[str, Node]:
        return self.graph.placeholders

    @property
    def variables(self) -> dict[str, Node]:
        return self.graph.variables


# -- structures of nodes --
def nodes_in(structure: Any) -> list[Node]:
    """The nodes of a node, or of lists, tuples and dicts of them, in order."""
    if isinstance(structure, Node):
        return [structure]
    if isinstance(structure, (list, tuple)):
        return [node for part in structure for node in nodes_in(part)]
    if isinstance(structure, Mapping):
        return [node for part in structure.values() for node in nodes_in(part)]
    raise GraphError(f"expected a node, or lists, tuples and dicts of nodes, got {structure!r:.100}")


def _written(structure: Any, number: Mapping[Node, int]) -> Any:
    if isinstance(structure, Node):
        return number[structure]
    if isinstance(structure, Mapping):
        wrong = [key for key in structure if not isinstance(key, str)]
        if wrong:
            raise GraphError(f"save_graph: keys of dicts are strings in a file, got {wrong[0]!r:.100}")
        return {"dict": [[key, _written(part, number)] for key, part in structure.items()]}
    return {"tuple" if isinstance(structure, tuple) else "list": [_written(part, number) for part in structure]}


def _read(data: Any, nodes: Sequence[Node]) -> Any:
    if not isinstance(data, dict):
        return nodes[_place(data, len(nodes))]
    if len(data) == 1 and "dict" in data:
        pairs = [(read_text(key), part) for key, part in read_list(data["dict"])]
        return {key: _read(part, nodes) for key, part in pairs}
    if len(data) == 1 and ("list" in data or "tuple" in data):
        (kind, parts), = data.items()
        found = [_read(part, nodes) for part in read_list(parts)]
        return tuple(found) if kind == "tuple" else found
    raise ValueError(f"expected the number of a node or a structure of numbers, got {data!r:.200}")


def _place(data: Any, count: int) -> int:
    place = read_int(data)
    if not 0 <= place < count:
        raise ValueError(f"{place} is the number of none of the {count} nodes before it")
    return place


# -- saving --
def save_graph(path: str | os.PathLike[str], fetches: Any, session: Session | None = None,
               entries: Mapping[str, Any] | None = None) -> None:
    """Writes what the fetches need, with the session's values of the variables, or else their initial values.

    `fetches` is a node, or lists, tuples and dicts of nodes.  `entries` gives a `gc.signature` by name, from which
    `graphc compile` makes a library; without, there is one named "run" from the placeholders to the fetches.

    Example::

        >>> import graphc as gc, os, tempfile
        >>> with gc.Graph():
        ...     x = gc.placeholder("float32", ("n",), name="x")
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         gc.save_graph(os.path.join(folder, "double.gcm"), {"y": x * 2})
        ...         saved = gc.load_graph(os.path.join(folder, "double.gcm"))
        >>> list(saved.fetches), list(saved.placeholders)
        (['y'], ['x'])
    """
    given = {name: _entry(name, signature) for name, signature in (entries or {}).items()}
    roots = [*nodes_in(fetches), *(node for entry in given.values() for node in entry.nodes)]
    graph = _one_graph(roots, session)
    order = postorder(roots)
    number = {node: k for k, node in enumerate(order)}
    _check_declared(order)
    leaves = {kind: [node for node in by_name.values() if node in number]
              for kind, by_name in (("placeholders", graph.placeholders), ("variables", graph.variables))}
    entries_or_run = given or {"run": _default_entry(leaves["placeholders"], fetches)}
    store = Store()
    files: dict[str, int] = {}
    document = {
        "nodes": [_node_data(node, number, files, store) for node in order],
        **{kind: [number[node] for node in nodes] for kind, nodes in leaves.items()},
        "fetches": _written(fetches, number),
        "entries": {name: _entry_data(entry, number) for name, entry in entries_or_run.items()}}
    for node in leaves["variables"]:
        value = _value(node, session)
        if value is not None:
            store.arrays[VALUE + node.name] = node.dtype, value
    head = {"format": FORMAT, "version": VERSION, "files": list(files)}
    write_archive(path, {GRAPH: [_json(head, document)], MEMBER: tensor_chunks(store.arrays)})


def _entry(name: str, signature: Any) -> Entry:
    """What a `gc.signature` says; its module is not imported here, because it brings the code generator with it."""
    if not all(hasattr(signature, part) for part in ("inputs", "outputs", "updates", "names", "single", "patterns")):
        raise GraphError(f"save_graph: entry {name!r}: expected gc.signature(inputs, outputs), got {signature!r:.100}")
    outputs = signature.outputs[0] if signature.single else tuple(signature.outputs)
    return Entry(tuple(signature.inputs), outputs, tuple(signature.updates), tuple(signature.names), signature.doc,
                 signature.comments, signature.origins, signature.patterns)


def _default_entry(placeholders: Sequence[Node], fetches: Any) -> Entry:
    """From the placeholders to the fetches, which go by the keys of a plain dict."""
    nodes = nodes_in(fetches)
    plain = isinstance(fetches, Mapping) and all(isinstance(part, Node) for part in fetches.values())
    names = tuple(fetches) if plain else tuple(f"output{k}" for k in range(len(nodes)))
    return Entry(tuple(placeholders), fetches if isinstance(fetches, Node) else tuple(nodes), (), names)


def _one_graph(roots: Sequence[Node], session: Session | None) -> Graph:
    if not roots:
        raise GraphError("save_graph: there is nothing to save: no fetches")
    graph = roots[0].graph
    for node in roots:
        if node.graph is not graph:
            raise GraphError(f"save_graph: {node!r} is of another graph than {roots[0]!r}")
    if session is not None and session.graph is not graph:
        raise GraphError(f"save_graph: {roots[0]!r} is of another graph than the session")
    return graph


def _check_declared(nodes: Iterable[Node]) -> None:
    for node in nodes:
        by_name = {"placeholder": node.graph.placeholders, "variable": node.graph.variables}.get(node.op.name)
        if by_name is not None and by_name.get(node.name) is not node:
            raise GraphError(f"save_graph: {node!r} is not the {node.op.name} that its graph has under that name")


def _node_data(node: Node, number: Mapping[Node, int], files: dict[str, int], store: Store) -> dict[str, Any]:
    file = files.setdefault(os.path.basename(node.loc.file), len(files))
    return {"op": node.op.name, "operands": [number[o] for o in node.operands], "attrs": write_attributes(node, store),
            "dtype": node.dtype, "shape": write_sizes(node.shape), "loc": [file, node.loc.line], "scope": node.scope}


def _entry_data(entry: Entry, number: Mapping[Node, int]) -> dict[str, Any]:
    return {"inputs": [number[node] for node in entry.inputs], "outputs": _written(entry.outputs, number),
            "updates": [[number[v], number[n]] for v, n in entry.updates], "names": list(entry.names),
            "doc": entry.doc, "comments": dict(entry.comments),
            "origins": list(entry.origins or [""] * len(entry.names)),
            "patterns": [p and [list(p.shape), list(p.indptr), list(p.indices)]
                         for p in entry.patterns or [None] * len(entry.names)]}


def _value(variable: Node, session: Session | None) -> np.ndarray[Any, Any] | None:
    """The session's value; without a session the initial one, or None where there is none."""
    if session is not None:
        return session.value(variable)
    initial = variable.graph.initial.get(variable.name)
    if initial is None:
        return None
    value = as_dtype(initial() if callable(initial) else initial, variable.dtype)
    if value.shape != variable.shape:
        raise GraphError(f"save_graph: variable {variable.name!r} is {variable.type}, its initial value is of shape "
                         f"{value.shape}")
    return value


def _json(head: Mapping[str, Any], document: Mapping[str, Any]) -> bytes:
    """A node a line, so that two files can be compared as text."""
    def dumped(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    nodes = ",\n".join(map(dumped, document["nodes"]))
    rest = [f"{dumped(key)}:{dumped(value)}" for key, value in {**head, **document}.items() if key != "nodes"]
    return ("{" + ",\n".join(rest) + ',\n"nodes":[\n' + nodes + "]}\n").encode("ascii")


# -- loading --
def load_graph(path: str | os.PathLike[str]) -> SavedGraph:
    """Reads what `save_graph` wrote, into a graph of its own.  GraphError naming the path and the fault otherwise."""
    with open_archive(path) as archive:
        document = parsed(archive.whole(GRAPH), lambda fault: archive.refuse(f"{GRAPH}: {fault}"))
        _check_head(document, archive.refuse)
        store = Store(tensors_of(archive))
        try:
            return _saved_graph(document, store)
        except RecursionError:
            archive.refuse(f"{GRAPH}: nested too deeply")
        except (ValueError, TypeError) as fault:  # of reading, and GraphErrors, which are ValueErrors
            archive.refuse(f"{GRAPH}: {fault}")


def _check_head(document: Any, refuse: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        refuse(f"{GRAPH} is not a graph in the format {FORMAT!r}")
    if document.get("version") != VERSION:
        refuse(f"{GRAPH} is of version {document.get('version')!r:.40}; this program reads version {VERSION}")
    if set(document) != set(KEYS):
        refuse(f"{GRAPH} has the keys {', '.join(document)!s:.300}, not {', '.join(KEYS)}")


def _saved_graph(document: Mapping[str, Any], store: Store) -> SavedGraph:
    graph = Graph()
    files = [read_text(name) for name in read_list(document["files"])]
    for name in files:
        if os.path.basename(name) != name:
            raise ValueError(f"the source file {name!r:.200} is named with a folder")
    nodes: list[Node] = []
    for k, data in enumerate(read_list(document["nodes"])):
        try:
            nodes.append(_node(graph, data, nodes, files, store))
        except (ValueError, TypeError, LookupError, ArithmeticError, AssertionError, NotImplementedError) as fault:
            raise GraphError(f"node {k}: {fault or type(fault).__name__}") from None
    for kind, by_name in (("placeholder", graph.placeholders), ("variable", graph.variables)):
        _enter(graph, kind, by_name, [nodes[_place(k, len(nodes))] for k in read_list(document[f"{kind}s"])])
    _check_leaves(graph, nodes)
    for name, variable in graph.variables.items():
        if VALUE + name in store.arrays:
            graph.initial[name] = _initial(variable, *store.take(VALUE + name))
    unused = [name for name in store.arrays if name not in store.used]
    if unused:
        raise ValueError(f"no node uses the tensor {unused[0]!r:.200}")
    return SavedGraph(graph, _read(document["fetches"], nodes), _read_entries(document["entries"], nodes))


def _node(graph: Graph, data: Any, before: Sequence[Node], files: Sequence[str], store: Store) -> Node:
    """The node of this data, on operands that came before."""
    if not isinstance(data, dict) or set(data) != set(NODE_KEYS):
        raise ValueError(f"needs {', '.join(NODE_KEYS)}, got {data!r:.200}")
    op = read_text(data["op"])
    if op not in OPS:
        raise ValueError(f"unknown op {op!r:.100}; the file may be of a newer version of this program")
    operands = [before[_place(k, len(before))] for k in read_list(data["operands"])]
    attrs = read_attributes(op, data["attrs"], store)
    wanted = operand_count(op, attrs)
    if len(operands) != wanted and (wanted is not None or not operands):
        raise ValueError(f"{op} has {wanted or 'at least 1'} operands, got {len(operands)}")
    stored = Type(read_dtype(data["dtype"]), read_sizes(data["shape"]))
    file, line = read_list(data["loc"])
    STACK.locs.append((Loc(files[_place(file, len(files))], read_int(line)), read_text(data["scope"])))
    try:
        node = make(op, operands, graph=graph, **attrs)
    finally:
        STACK.locs.pop()
    if node.type != stored:
        raise ValueError(f"{op} is {node.type}, and the file says {stored}")
    return node


def _enter(graph: Graph, kind: str, by_name: dict[str, Node], leaves: Iterable[Node]) -> None:
    for node in leaves:
        if node.op.name != kind or node.name in graph.placeholders or node.name in graph.variables:
            raise ValueError(f"{node.name!r:.200} among the {kind}s is a {node.op.name}, or the name is taken")
        by_name[node.name] = node


def _check_leaves(graph: Graph, nodes: Sequence[Node]) -> None:
    """Every variable that is read must be among the variables, or there would be two of a name."""
    listed = {*graph.placeholders.values(), *graph.variables.values()}
    for node in nodes:
        if node.op.name in ("placeholder", "variable") and node not in listed:
            raise ValueError(f"the {node.op.name} {node.name!r:.200} is not among the {node.op.name}s")


def _initial(variable: Node, dtype: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if (dtype, array.shape) != (variable.dtype, variable.shape):
        raise ValueError(f"variable {variable.name!r:.200} is {variable.type}, its value {dtype}{list(array.shape)}")
    array.flags.writeable = False
    return array


def _read_entries(data: Any, nodes: Sequence[Node]) -> dict[str, Entry]:
    if not isinstance(data, dict):
        raise ValueError(f"expected entries by name, got {data!r:.200}")
    found = {}
    for name, entry in data.items():
        try:
            found[read_text(name)] = _read_entry(entry, nodes)
        except ValueError as fault:
            raise ValueError(f"entry {name!r:.200}: {fault}") from None
    return found


def _read_entry(data: Any, nodes: Sequence[Node]) -> Entry:
    if not isinstance(data, dict) or not set(ENTRY_KEYS) <= set(data) <= {*ENTRY_KEYS, *SAID_KEYS}:
        raise ValueError(f"needs {', '.join(ENTRY_KEYS)}, got {data!r:.200}")
    inputs = _read({"tuple": data["inputs"]}, nodes)
    outputs = _read(data["outputs"], nodes)
    updates = tuple(_read({"tuple": pair}, nodes) for pair in read_list(data["updates"]))
    names = tuple(read_text(name) for name in read_list(data["names"]))
    flat = [outputs] if isinstance(outputs, Node) else outputs
    if not all(isinstance(node, Node) for node in (*inputs, *flat, *(node for pair in updates for node in pair))):
        raise ValueError("inputs, outputs and updates are nodes, not structures of them")
    if len(names) != len(flat) or any(len(pair) != 2 for pair in updates):
        raise ValueError(f"{len(names)} names for {len(flat)} outputs, or an update that is no pair")
    return Entry(inputs, outputs, updates, names, read_text(data.get("doc", "")), _comments(data.get("comments", {})),
                 _origins(data.get("origins", [""] * len(flat)), len(flat)),
                 _patterns(data.get("patterns", [None] * len(flat)), flat))


def _comments(data: Any) -> dict[str, str]:
    if not isinstance(data, dict):
        raise ValueError(f"expected comments by name, got {data!r:.200}")
    return {read_text(name): read_text(text) for name, text in data.items()}


def _origins(data: Any, count: int) -> tuple[str, ...]:
    found = tuple(map(read_text, read_list(data)))
    if len(found) != count:
        raise ValueError(f"{len(found)} origins for {count} outputs")
    return found


def _patterns(data: Any, outputs: Sequence[Node]) -> tuple[Pattern | None, ...]:
    rows = read_list(data)
    if len(rows) != len(outputs):
        raise ValueError(f"{len(rows)} patterns for {len(outputs)} outputs")
    return tuple(_pattern(row, node) if row is not None else None for row, node in zip(rows, outputs))


def _pattern(data: Any, node: Node) -> Pattern:
    """A pattern in CSR form that this node can have the entries of."""
    shape, indptr, indices = ([read_int(n) for n in read_list(part)] for part in read_list(data))
    rows, columns = shape
    if rows < 0 or columns < 0 or len(indptr) != rows + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or any(
            a > b for a, b in pairwise(indptr)) or any(not 0 <= k < columns for k in indices) or (
            node.shape != (len(indices),)):
        raise ValueError(f"{rows} x {columns} with {len(indices)} entries is no pattern in CSR form of {node.type}")
    return Pattern((rows, columns), tuple(indptr), tuple(indices))
