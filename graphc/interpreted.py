"""Functions run by the NumPy meaning of every node: mode="reference", and mode="check", native code beside it.

Where native and reference results differ, `check` runs the nodes one by one on the reference's values and names the
first that differs; where none does alone, a pass is at fault, and the passes are run one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from passes.lower import Request, size_checks
from passes.pipeline import PIPELINE, optimise

from .binding import as_array, bind_sizes
from .compiler import compile_request
from .function import Function
from .home import Home
from .ir.errors import FeedError, VerifyError
from .ir.node import Node, ancestors, make, replaced
from .ir.plan import Array
from .ir.reference import evaluate
from .ir.types import from_storage, is_float, to_storage

Values = Mapping[Node, np.ndarray[Any, Any]]
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 2e-2, "bfloat16": 1e-1}


class Interpreted:
    """Like `Function`, by the reference evaluator."""

    def __init__(self, home: Home, request: Request, single: bool, where: Callable[[int], str],
                 checks: bool) -> None:
        self.home = home
        self.request = request
        self.single = single
        self.where = where
        self.checks = checks
        self.specs = tuple(Array(n.name, n.dtype, n.shape) for n in request.inputs)
        self.targets = [*request.outputs, *(value for _, value in request.updates)]
        self.nodes = ancestors(self.targets)

    def __call__(self, *args: Any, out: Any = None) -> Any:
        self.home.check_open()
        if len(args) != len(self.specs):
            raise FeedError(f"expected {len(self.specs)} arguments, got {len(args)}")
        arrays = [as_array(s, a, lambda k=k: self.where(k)) for k, (s, a) in enumerate(zip(self.specs, args))]  # type: ignore[misc]
        bind_sizes(self.specs, [a.shape for a in arrays], size_checks(self.nodes), self.where)
        feeds = {n: from_storage(a, n.dtype) for n, a in zip(self.request.inputs, arrays)}
        with self.home.lock:
            variables = {n: from_storage(self.home.storage(n.name), n.dtype).copy() for n in self.nodes
                         if n.op.name == "variable"}
            results = evaluate(self.targets, feeds, variables)
            if self.checks:
                self.compare(feeds, variables, results)
            for (variable, _), value in zip(self.request.updates, results[len(self.request.outputs):]):
                self.home.store(variable, to_storage(value, variable.dtype))
        return self.given_back(results[:len(self.request.outputs)], out)

    def given_back(self, results: Sequence[Any], out: Any) -> Any:
        if out is not None:
            for array, value in zip([out] if self.single else out, results):
                array[...] = value
            return out
        shown = [np.asarray(r)[()] for r in results]
        return shown[0] if self.single else shown

    # -- mode="check" --
    def compare(self, feeds: Values, variables: Values, expected: Sequence[Any]) -> None:
        native = run_native(self.home, self.targets, feeds, variables)
        if all(agree(a, b, n.dtype) for a, b, n in zip(native, expected, self.targets)):
            return
        culprit = self.first_wrong_node(feeds, variables)
        if culprit is not None:
            raise VerifyError(culprit)
        raise VerifyError(self.first_wrong_pass(feeds, variables, expected))

    def first_wrong_node(self, feeds: Values, variables: Values) -> str | None:
        inner = [n for n in self.nodes if n.operands]
        values = dict(zip(inner, evaluate(inner, feeds, variables)))
        known = {**values, **variables}
        for node in inner:
            got = run_native(self.home, [node], feeds, {o: known[o] for o in node.operands if o in known})[0]
            if not agree(got, values[node], node.dtype):
                return (f"check: native code of {node.op.name} differs from its reference: {worst(got, values[node])}\n"
                        f"  at {node.loc}")
        return None

    def first_wrong_pass(self, feeds: Values, variables: Values, expected: Sequence[Any]) -> str:
        for count in range(1, len(PIPELINE) + 1):
            name = PIPELINE[count - 1][0]
            targets = optimise(self.targets, replace(self.home.options, stop_after=name))
            got = evaluate(targets, feeds, variables)
            for value, wanted, node in zip(got, expected, self.targets):
                if not agree(value, wanted, node.dtype):
                    return f"check: pass {name} changed the value of {node!r}: {worst(value, wanted)}"
        return "check: fused native code differs from the reference, though every node and pass alone agrees"


def run_native(home: Home, targets: Sequence[Node], feeds: Values, others: Values) -> list[Any]:
    """The targets by native code.  `others` (variables, inner nodes) become inputs too: the session does not change."""
    new = {n: make("placeholder", graph=n.graph, name=f"{n.name} (checked)", dtype=n.dtype, shape=n.shape)
           for n in others if n not in feeds}
    request = Request("main", (*feeds, *new.values()), tuple(replaced(targets, new)))
    function = Function(home, compile_request(request, home.options), False, lambda k: "")
    return list(function(*(to_storage(np.asarray(v), n.dtype) for n, v in feeds.items()),
                         *(to_storage(np.asarray(others[n]), n.dtype) for n in new)))


def agree(a: Any, b: Any, dtype: str) -> bool:
    if not is_float(dtype):
        return bool(np.array_equal(a, b))
    tolerance = TOLERANCE[dtype]
    scale = float(np.max(np.abs(np.where(np.isfinite(b), b, 0)), initial=0))
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * max(scale, 1e-30), equal_nan=True))


def worst(got: Any, wanted: Any) -> str:
    """Where two arrays differ most, in words."""
    a, b = np.asarray(got), np.asarray(wanted)
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    with np.errstate(all="ignore"):
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        gap = np.where((a == b) | (np.isnan(gap) & (a != a) & (b != b)), 0, np.where(np.isnan(gap), np.inf, gap))
    place = np.unravel_index(int(np.argmax(gap)), gap.shape) if gap.size else ()
    return f"at {tuple(map(int, place))} native {a[place]}, reference {b[place]}"
