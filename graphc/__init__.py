"""A compiler for static graphs: build a graph, plan its derivatives, get one native function.

    import graphc as gc

What builds graphs is loaded at once; the rest (sessions, derivatives, libraries, pictures ..) when its name is first used,
because it needs libraries that are slow to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .functions import PUBLIC
from .ir.dims import Dim
from .ir.errors import (DTypeError, FeedError, GraphError, SessionError, ShapeError, Unsupported,
                        VerifyError)
from .ir.node import Graph, Node, constant, default_graph, reset_default_graph

__version__ = "0.1.0"

LATER: dict[str, tuple[str, ...]] = {  # module: the names that it gives; a module without names is itself a name
    "graphc.session": ("Session", "Function"),
    "graphc.derivatives": ("gradients", "jacobian", "hessian", "jvp", "vjp", "hvp", "plan_jacobian", "count_operations",
                           "sparse_jacobian"),
    "graphc.library": ("compile_library", "load_library", "signature"),
    "graphc.view.graphs": ("dump",),
    "graphc.view.report": ("report",),
    "graphc.io.graphs": ("save_graph", "load_graph"),
    "graphc.nn": (),
    "graphc.optim": (),
    "graphc.init": (),
    "graphc.train": (),
}
MODULE_OF = {name: module for module, names in LATER.items() for name in names or (module.rpartition(".")[2],)}

globals().update(PUBLIC)


def name_scope(name: str) -> Any:
    """Names and drawings of what is built inside carry the prefix `name/`.

    >>> import graphc as gc
    >>> with gc.name_scope("encoder"):
    ...     x = gc.placeholder("float32", (3,), name="inputs")
    >>> x.name
    'encoder/inputs'
    """
    return default_graph().name_scope(name)


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    module = import_module(MODULE_OF[name])
    value = getattr(module, name) if LATER[MODULE_OF[name]] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULE_OF} - {"annotations", "import_module", "Any", "PUBLIC", "LATER", "MODULE_OF"})


__all__ = ["DTypeError", "Dim", "FeedError", "Graph", "GraphError", "Node", "SessionError", "ShapeError", "Unsupported",
           "VerifyError", "constant", "default_graph", "name_scope", "reset_default_graph", *PUBLIC, *MODULE_OF]
