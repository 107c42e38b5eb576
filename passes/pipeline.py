"""The order of the graph -> graph passes, and what is done around each: time, verify, dump, count rules, stop.

A pass is a pure function of fetches; the fetches that come out have the types of those that went in, position by
position.  Passes know nothing of what is done around them.

    optimise([loss, gradient], options)    ->    [loss', gradient']

Options are whatever object has the fields of `Switches`; `graphc.config.Options` is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
import os
from pathlib import Path
import sys
from time import perf_counter
from typing import Protocol

from graphc.ir.errors import VerifyError
from graphc.ir.node import Node, ancestors
from graphc.ir.types import shape_text

from .decompose import decompose
from .rewrite import counting
from .simplify import simplify
from .stabilise import stabilise


class Switches(Protocol):
    """What steers the pipeline."""

    @property
    def fast_math(self) -> bool: ...
    @property
    def verify(self) -> bool: ...
    @property
    def dump_dir(self) -> str: ...
    @property
    def time(self) -> bool: ...
    @property
    def stop_after(self) -> str: ...
    @property
    def rules(self) -> bool: ...
    def dumps(self, name: str) -> bool: ...


Pass = Callable[[Sequence[Node], Switches], list[Node]]
Observer = Callable[[str, Sequence[Node], float, Counter[str]], None]  # pass, its result, seconds, firings per rule

PIPELINE: list[tuple[str, Pass, str]] = [
    ("stabilise", lambda fetches, options: stabilise(fetches), "first: later passes may break up the forms it looks for"),
    ("simplify", lambda fetches, options: simplify(fetches, options.fast_math), "drops stop_gradient: derivatives are built"),
    ("decompose", lambda fetches, options: decompose(fetches), "last: needs the transposes gone that simplify absorbs"),
]


def optimise(fetches: Sequence[Node], options: Switches, observer: Observer | None = None) -> list[Node]:
    """The fetches after all passes, or after the pass `stop_after`."""
    found = list(fetches)
    for number, (name, run, _) in enumerate(PIPELINE, 1):
        counts: Counter[str] = Counter()
        start = perf_counter()
        with counting(counts):
            result = run(found, options)
        seconds = perf_counter() - start
        if options.verify:
            verify_pass(name, found, result)
        found = result
        tell(number, name, found, seconds, counts, options)
        if observer is not None:
            observer(name, found, seconds, counts)
        if options.stop_after == name:
            break
    return found


def verify_pass(name: str, before: Sequence[Node], after: Sequence[Node]) -> None:
    """A pass changes neither the number of fetches nor their types."""
    faults = [f"fetch {k} was {a.type} and is {b.type}" for k, (a, b) in enumerate(zip(before, after)) if a.type != b.type]
    if len(before) != len(after):
        faults.append(f"{len(before)} fetches went in and {len(after)} came out")
    if faults:
        raise VerifyError(f"{name}: {'; '.join(faults)}\n{listing(after)}")


def tell(number: int, name: str, fetches: Sequence[Node], seconds: float, counts: Counter[str], options: Switches) -> None:
    """What the switches ask to be written, to standard error or to files."""
    if options.time:
        print(f"{name}: {1e3 * seconds:.2f} ms, {len(ancestors(fetches))} nodes", file=sys.stderr)
    if options.rules:
        for rule, count in sorted(counts.items()):
            print(f"{name}: {rule} {count}", file=sys.stderr)
    if options.dumps(name):
        write(f"{number:02d}-{name}.txt", listing(fetches), options.dump_dir)


def write(name: str, text: str, folder: str) -> None:
    if not folder:
        print(f"-- {name}\n{text}", file=sys.stderr)
        return
    os.makedirs(folder, exist_ok=True)
    Path(folder, name).write_text(text, encoding="utf-8")


def listing(fetches: Sequence[Node]) -> str:
    """A line per node, operands first, numbered from 0: the same text for the same graph, whatever was built before."""
    order = ancestors(fetches)
    number = {node: k for k, node in enumerate(order)}
    lines = [f"%{number[n]} = {n.op.name}({', '.join(f'%{number[o]}' for o in n.operands)}){attrs_text(n)} : {n.type}"
             for n in order]
    return "\n".join([*lines, "fetch " + ", ".join(f"%{number[f]}" for f in fetches)]) + "\n"


def attrs_text(node: Node) -> str:
    shown = {name: value for name, value in node.attrs.items() if name not in ("dtype", "value") or node.op.name == "cast"}
    if node.op.name == "constant":
        array = node.attrs["value"].array
        shown = {"value": array.item() if array.ndim == 0 else f"array{shape_text(array.shape)}"}
    return "".join(f" {name}={shape_text(value) if isinstance(value, tuple) else value}" for name, value in shown.items())
