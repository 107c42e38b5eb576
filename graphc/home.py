"""Where the variables of a session have their values, and what its functions share.

A function refers to the home and not to the session, which refers to the functions that it keeps: nothing here needs a
garbage collector to go away, and a function lives on where its session was dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np

from codegen.cache import Cache

from .arrays import aligned_array
from .binding import as_array
from .config import Options
from .gate import Gate
from .ir.errors import SessionError
from .ir.node import Graph, Node
from .ir.plan import Array
from .ir.types import storage_dtype


class Connected(Protocol):
    """A function that may be called natively, until it is told that the session is closed."""

    def disconnect(self) -> None: ...


class Home:
    """The values by name, in the form that native code uses; `lock` is held by who reads or changes them."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self.graph = graph
        self.options = options
        self.lock = Gate(Cache(Path(options.cache_dir), options.cache))
        self.values: dict[str, np.ndarray[Any, Any]] = {}
        self.functions: WeakSet[Connected] = WeakSet()
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True
        for function in self.functions:
            function.disconnect()
        self.values.clear()
        self.lock.free()

    def check_open(self) -> None:
        if self.is_closed:
            raise SessionError("Session: the session is closed; open another with gc.Session()")

    # -- variables --
    def storage(self, name: str) -> np.ndarray[Any, Any]:
        """The array that holds a variable; made when it is first needed."""
        found = self.values.get(name)
        return found if found is not None else self.initialise(self.graph.variables[name])

    def initialise(self, variable: Node) -> np.ndarray[Any, Any]:
        initial = self.graph.initial.get(variable.name)
        if initial is None:
            raise SessionError(f"variable {variable.name!r} has no value: it was declared without one at "
                               f"{variable.loc}; use Session.assign or restore first")
        value = initial() if callable(initial) else initial
        return self.store(variable, as_array(spec_of(variable), value))

    def store(self, variable: Node, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if value.shape != variable.shape:
            raise SessionError(f"variable {variable.name!r}: expected shape {variable.shape}, got {value.shape}")
        if variable.name not in self.values:
            room = aligned_array(value.nbytes).view(storage_dtype(variable.dtype)).reshape(value.shape)
            self.values[variable.name] = room
        self.values[variable.name][...] = value
        return self.values[variable.name]


def spec_of(node: Node) -> Array:
    return Array(node.name, node.dtype, node.shape)
