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
from graphc.ir.text import text
from graphc.ir.verify import assert_valid

from .decompose import decompose
from .rewrite import counting
from .simplify import simplify
from .stabilise import stabilise


class Switches(Protocol):
    """What steers the pipeline."""

    @property
    def fast_math(self) -> bool: ...
    @property
    def exact(self) -> bool: ...
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
    ("stabilise", lambda fetches, options: stabilise(fetches),
     "first: later passes may break up the forms it looks for"),
    ("simplify", lambda fetches, options: simplify(fetches, options.fast_math),
     "drops stop_gradient: derivatives are built"),
    ("decompose", lambda fetches, options: decompose(fetches, options.exact),
     "last: needs the transposes gone that simplify absorbs"),
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
    """A pass changes neither the number of fetches nor their types, and leaves a valid graph."""
    types, new_types = [str(n.type) for n in before], [str(n.type) for n in after]
    if types != new_types:
        raise VerifyError(f"{name}: the fetches were {', '.join(types)} and are {', '.join(new_types)}\n{text(after)}")
    assert_valid(after, name)


def tell(number: int, name: str, fetches: Sequence[Node], seconds: float, counts: Counter[str],
         options: Switches) -> None:
    """What the switches ask to be written, to standard error or to files."""
    if options.time:
        print(f"{name}: {1e3 * seconds:.2f} ms, {len(ancestors(fetches))} nodes", file=sys.stderr)
    if options.rules:
        for rule, count in sorted(counts.items()):
            print(f"{name}: {rule} {count}", file=sys.stderr)
    if options.dumps(name):
        write(f"{number:02d}-{name}.txt", text(fetches), options.dump_dir)


def write(name: str, content: str, folder: str) -> None:
    if not folder:
        print(f"-- {name}\n{content}", file=sys.stderr)
        return
    os.makedirs(folder, exist_ok=True)
    Path(folder, name).write_text(content, encoding="utf-8")
