"""The libraries that are compared, a module each; a module is imported only in the process that measures it.

A peer module has `version() -> str`, and a table `CASES`: kind of workload -> variant ("" is the plain one) -> function
of the inputs that gives a `Case`.  Building a case and its first call is what counts as compile time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import os
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]
OURS = "graphc"
PEERS = ("numpy", "jax", "numba", "casadi", "torch", "onnxruntime", "tensorflow", "pytensor", "numexpr", "opt_einsum")
YARDSTICKS = ("limit",)  # code written by hand for a workload: measured beside the peers, and none of them
THREADS = int(os.environ.get("BENCHMARK_THREADS", "1"))


@dataclass(frozen=True)
class Case:
    """A computation that is ready to be timed: `call()` returns when its results are complete.

    `results` gives them as arrays for the check, and `reset` brings what calls change back to the beginning.
    """

    call: Callable[[], Any]
    results: Callable[[], Sequence[Any]]
    reset: Callable[[], None] | None = None
    kept: object = None  # what must live as long as the case: it holds addresses of it


Builder = Callable[[Inputs], Case]
Table = dict[str, dict[str, Builder]]


def calling(function: Callable[..., Any], *arguments: Any, shown: Callable[[Any], Any] = lambda r: r) -> Case:
    """A case that calls the function on these arguments; one result, or a list or tuple of results."""
    call = partial(function, *arguments) if arguments else function

    def results() -> Sequence[Any]:
        found = shown(call())
        return [np.asarray(r) for r in (found if isinstance(found, (list, tuple)) else [found])]
    return Case(call, results)


def training(step: Callable[[], Any], reset: Callable[[], None], parameters: Callable[[], Sequence[Any]]) -> Case:
    """A case whose calls change parameters: its results are three losses and the norms of the parameters then."""
    def results() -> Sequence[Any]:
        reset()
        losses = np.array([float(step()) for _ in range(3)])
        return [losses, np.array([np.linalg.norm(np.asarray(p, "float64")) for p in parameters()])]
    reset()
    return Case(step, results, reset)


def updating(step: Callable[[], Any], value: Callable[[], Any]) -> Case:
    """A case whose calls change one array in place: its result is the array after the first call."""
    def results() -> Sequence[Any]:
        return [first]
    step()
    first = np.array(value())
    return Case(step, results)
