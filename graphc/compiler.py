"""A request -> machine code in this process: graph passes, lowering, code generation, linking.

Nothing here knows of sessions: what comes out is the address of one native function and the data it is called with.
Where the cache has the plan and the code of the request, neither passes nor LLVM run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import ctypes
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
import sys
from time import perf_counter

from codegen.cache import Cache
from codegen.jit import Loaded, assembly_text, check_runs_here, content_key, loaded_image, made_image
from codegen.pool import RUN, process_pool
from codegen.program import Emitted, constant_symbol, emit_program, workspaces
from codegen.pycall import call_symbol, call_text
from codegen.pyform import form_of
from codegen.regions import DESCRIPTOR
from codegen.target import target
from passes.fuse import Fusion, fusion_text
from passes.lower import Request, lower, size_checks
from passes.pipeline import PIPELINE, optimise, write

from .arrays import constant_array
from .config import Options
from .ir.dims import evaluate
from .ir.errors import GraphError, Unsupported
from .ir.memory import Memory, memory_of, size_text
from .ir.node import ancestors
from .ir.plan import Border, Program
from .ir.plan_text import program_text
from .ir.verify import assert_valid_program
from .plans import Key, Plan, key_of, store, stored


@dataclass
class Compiled:
    """A native function with what it was made from.  `key` is None where nothing may be taken from the cache."""

    request: Request  # before the graph passes
    options: Options
    cache: Cache
    key: Key | None
    border: Border
    memory: Memory
    loaded: Loaded

    @property
    def address(self) -> int:
        return self.loaded.addresses[self.border.name]

    @property
    def arena_function(self) -> int:
        return self.loaded.addresses[f"{self.border.name}_arena"]

    @property
    def call_name(self) -> str:
        return call_symbol(self.border.name)

    def arena_bytes(self, sizes: dict[str, int]) -> int:
        return evaluate(self.border.arena + self.border.slot * (self.options.threads - 1), sizes)

    @cached_property
    def program(self) -> Program:
        """Made again for those who look at it, where the code came from the cache."""
        return planned(self.request, self.options)[1]

    def call_image(self, single: bool) -> bytes:
        """The code of the function that Python calls (`codegen.pycall`)."""
        def make() -> bytes:
            border = self.border
            text = call_text(form_of(self.program, border.arena, single, has_slots=border.slot != 0))
            return made_image(text, [self.call_name], target(self.options.target))

        key = self.key
        return make() if key is None else self.cache.made("code", f"{key.name}-call{int(single)}", make)


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
    program = lower(request, lambda fusion: show_fusion(fusion, options))
    if options.memory_limit:
        program = limited(request, program, options)
    if options.verify:
        assert_valid_program(program, "lower", program_text)
    return request, program


def limited(request: Request, program: Program, options: Options) -> Program:
    """The program, or one that computes values again to keep to the limit of memory."""
    own, slot = workspaces(program, target(options.target))
    workspace, limit = own + slot * (options.threads - 1), options.memory_limit
    need = program.arena + workspace
    if not isinstance(need, int):
        raise Unsupported(f"memory_limit: {program.name} needs {need} bytes: a limit of symbolic sizes, in lower")
    if need <= limit:
        return program
    assert isinstance(workspace, int), "part of a sum that is an int"
    found = lower(replace(request, arena_limit=max(0, limit - workspace)))
    least = found.arena + workspace
    assert isinstance(least, int), "sizes are known"
    if least > limit:
        raise GraphError(f"memory_limit: {program.name} needs {size_text(least)} beside its inputs, outputs and "
                         f"variables, {size_text(limit)} are allowed; {size_text(workspace)} of it is for packed "
                         f"operands, and without computing values again it would be {size_text(need)}")
    return found


def compile_request(request: Request, options: Options) -> Compiled:
    """Native code for the request, from the cache where it is there."""
    cache = Cache(Path(options.cache_dir), options.cache)
    key = key_of(request, options) if options.cache else None
    plan = stored(cache, key) if key is not None else None
    image = cache.get("code", plan.code) if plan is not None else None
    program = None
    if plan is None or image is None:
        program, plan, image = compiled_plan(request, options, cache)
        if key is not None:
            store(cache, key, plan)
    arrays = [constant_array(c.data) for c in plan.constants]
    symbols = {constant_symbol(c.key): a.ctypes.data for c, a in zip(plan.constants, arrays)}
    memory = memory_of(plan.border, plan.constants, options.threads)
    loaded = loaded_image(image, symbols, kept=arrays)
    compiled = Compiled(request, options, cache, key, plan.border, memory, loaded)
    share(compiled.loaded, options.threads, cache)
    if program is not None:
        compiled.program = program
    return compiled


def share(loaded: Loaded, threads: int, cache: Cache) -> None:
    """Lets calls of a program use so many threads, where it has steps to share."""
    if DESCRIPTOR in loaded.addresses and threads > 1:
        words = (ctypes.c_uint64 * 2).from_address(loaded.addresses[DESCRIPTOR])
        words[:] = [threads, process_pool(cache).addresses[RUN]]


def compiled_plan(request: Request, options: Options, cache: Cache) -> tuple[Program, Plan, bytes]:
    """The same by all passes; code of the same text is taken from the cache all the same."""
    chosen = target(options.target)
    check_runs_here(chosen)
    with timed("lower", options):
        _, program = planned(request, options)
    with timed("code", options):
        emitted = emit_program(program, chosen)
    show(program, emitted, options)
    with timed("machine code", options):
        code = content_key(emitted.text, chosen) + "-image"
        exports = [program.name, f"{program.name}_arena", *([DESCRIPTOR] if emitted.has_regions else [])]
        image = cache.made("code", code, lambda: made_image(emitted.text, exports, chosen))
    return program, Plan(code, Border.of(program, emitted.arena, emitted.slot), program.constants), image


@contextmanager
def timed(name: str, options: Options) -> Iterator[None]:
    """Prints how long a stage took, where GRAPHC_TIME asks for it."""
    start = perf_counter()
    yield
    if options.time:
        print(f"{name}: {1e3 * (perf_counter() - start):.2f} ms", file=sys.stderr)


def show_fusion(fusion: Fusion, options: Options) -> None:
    """Writes which nodes became one kernel and why, where GRAPHC_DUMP asks for it."""
    if options.dumps("fuse"):
        write(f"{len(PIPELINE) + 1:02d}-fuse.txt", fusion_text(fusion), options.dump_dir)


def show(program: Program, emitted: Emitted, options: Options) -> None:
    """Writes the plan and the generated code, where GRAPHC_DUMP asks for them."""
    first = len(PIPELINE) + 2
    if options.dumps("lower"):
        write(f"{first:02d}-lower.txt", program_text(program), options.dump_dir)
    if options.dumps("code"):
        write(f"{first + 1:02d}-code.ll", emitted.text, options.dump_dir)
        write(f"{first + 1:02d}-code.s", assembly_text(emitted.text, target(options.target)), options.dump_dir)
