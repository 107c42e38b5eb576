"""check_numerics: a call that ends in a NaN or an infinity names the first node that made one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from passes.lower import Request

from .binding import as_array
from .function import Function
from .ir.errors import GraphError
from .ir.node import Node, ancestors
from .ir.reference import evaluate
from .ir.types import from_storage, is_float

Values = Mapping[Node, np.ndarray[Any, Any]]


class Checked:
    """A function whose results and new variable values are looked at after every call."""

    def __init__(self, function: Function, request: Request) -> None:
        self.function = function
        self.request = request
        self.targets = [*request.outputs, *(value for _, value in request.updates)]
        self.variables = [n for n in ancestors(self.targets) if n.op.name == "variable"]

    def __repr__(self) -> str:
        return repr(self.function)

    def __call__(self, *args: Any, out: Any = None) -> Any:
        home = self.function.home
        home.check_open()
        with home.lock:
            before = {n: from_storage(home.storage(n.name), n.dtype).copy() for n in self.variables}
            results = self.function(*args, out=out)
            after = [from_storage(home.storage(v.name), v.dtype) for v, _ in self.request.updates]
            shown = [results] if self.function.single else list(results)
            if not all(is_finite(a) for a in [*shown, *after]):
                self.explain(args, before)
        return results

    def explain(self, args: Sequence[Any], variables: Values) -> None:
        """Raises for the first node with a bad value that has none in its operands."""
        specs = self.function.border.inputs
        feeds = {n: from_storage(as_array(s, a), n.dtype) for n, s, a in zip(self.request.inputs, specs, args)}
        nodes = [n for n in ancestors(self.targets) if is_float(n.dtype)]
        for node, value in zip(nodes, evaluate(nodes, feeds, variables)):
            if not is_finite(value):
                place = np.unravel_index(int(np.argmin(np.isfinite(value))), np.shape(value))
                raise GraphError(f"check_numerics: {node.op.name} of {node.type} is {value[place]} at "
                                 f"{tuple(map(int, place))}\n  at {node.loc}")
        raise GraphError("check_numerics: native code made a NaN or an infinity that the reference does not")


def is_finite(value: Any) -> bool:
    return np.asarray(value).dtype.kind != "f" or bool(np.isfinite(value).all())
