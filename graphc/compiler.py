"""A request -> machine code in this process: graph passes, lowering, code generation, linking.

Nothing here knows of sessions: what comes out is the address of one native function and the data it is called with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
import sys
from time import perf_counter

from codegen.jit import Cache, Loaded, assembly_text, load
from codegen.program import Emitted, constant_symbol, emit_program
from codegen.target import target
from passes.lower import Request, lower, size_checks
from passes.pipeline import PIPELINE, optimise, write

from .arrays import constant_array
from .config import Options
from .ir.node import ancestors
from .ir.plan import Program
from .ir.plan_text import program_text
from .ir.verify import assert_valid_program


@dataclass
class Compiled:
    """A native function with what it was made from."""

    request: Request  # after the graph passes
    program: Program
    emitted: Emitted
    loaded: Loaded

    @property
    def address(self) -> int:
        return self.loaded.addresses[self.program.name]


def optimised(request: Request, options: Options) -> Request:
    """The request on optimised nodes."""
    targets = [*request.outputs, *(value for _, value in request.updates)]
    checks = size_checks(ancestors(targets))
    results = optimise(targets, options)
    count = len(request.outputs)
    updates = tuple((variable, value) for (variable, _), value in zip(request.updates, results[count:]))
    return replace(request, outputs=tuple(results[:count]), updates=updates, checks=checks)


def planned(request: Request, options: Options) -> tuple[Request, Program]:
    """The optimised request and its program."""
    request = optimised(request, options)
    program = lower(request)
    if options.verify:
        assert_valid_program(program, "lower", program_text)
    return request, program


def compile_request(request: Request, options: Options) -> Compiled:
    """Native code for the request, from the cache where it is there."""
    with timed("lower", options):
        request, program = planned(request, options)
    chosen = target(options.target)
    with timed("code", options):
        emitted = emit_program(program, chosen)
    show(program, emitted, options)
    with timed("machine code", options):
        data = Cache(Path(options.cache_dir), options.cache).object_of(emitted.text, chosen)
    arrays = [constant_array(c.data) for c in program.constants]
    symbols = {constant_symbol(c.key): a.ctypes.data for c, a in zip(program.constants, arrays)}
    loaded = load(data, [program.name, f"{program.name}_arena"], chosen, symbols, kept=arrays)
    return Compiled(request, program, emitted, loaded)


@contextmanager
def timed(name: str, options: Options) -> Iterator[None]:
    """Prints how long a stage took, where GRAPHC_TIME asks for it."""
    start = perf_counter()
    yield
    if options.time:
        print(f"{name}: {1e3 * (perf_counter() - start):.2f} ms", file=sys.stderr)


def show(program: Program, emitted: Emitted, options: Options) -> None:
    """Writes the plan and the generated code, where GRAPHC_DUMP asks for them."""
    first = len(PIPELINE) + 1
    if options.dumps("lower"):
        write(f"{first:02d}-lower.txt", program_text(program), options.dump_dir)
    if options.dumps("code"):
        write(f"{first + 1:02d}-code.ll", emitted.text, options.dump_dir)
        write(f"{first + 1:02d}-code.s", assembly_text(emitted.text, target(options.target)), options.dump_dir)
