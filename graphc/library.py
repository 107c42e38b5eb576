"""Graphs -> a shared object with a C header: several functions that share kernels, weights and variables.

    gc.compile_library("build", "digits", {
        "predict": gc.signature([x], logits),
        "train_step": gc.signature([x, t], loss, updates=updates)}, session=sess)
    build/libdigits.so   build/digits.h   build/digits.pc   build/digits-config.cmake
    build/digits.dll     build/digits.lib ..    or libdigits.dylib, digits.wasm: the target says which

Variables that no entry updates become read-only data of the library, with the values of the session; without a session,
and where an entry updates them, they are members of `struct digits_state`, in the order of the graph.

The files need no compiler and no Python to be made or used.  `load_library` calls the functions from Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from codegen.cache import Cache
from codegen.cpu import BITS, needed_features
from codegen.debug import Origin
from codegen.entry import used_state
from codegen.header import ABI_VERSION, CFunction, CLibrary, check, header_text
from codegen.library import Linked, build_library, program_name
from codegen.linkers import OWN, check_linker
from codegen.state import layout
from codegen.target import Target, target
from passes.lower import Request

from .binding import as_array
from .compiler import planned
from .config import Options
from .described import FORMAT, sealed
from .ir.dims import encode
from .ir.errors import GraphError, Unsupported
from .ir.files import Chunk
from .ir.node import Graph, Node, ancestors, constant, replaced
from .ir.plan import Array, Program
from .ir.types import to_storage
from .home import spec_of
from .interface import c_function, state_members
from .loaded import Library, load_library
from .packaging import file_names, more_files, text_files, write_files
from .session import Session, missing_or_path, with_fed_nodes
from .signatures import Signature, signature

__all__ = ["Library", "Signature", "compile_library", "load_library", "signature"]

MOST_DATA = 2_000_000_000  # bytes; distances in the file have 31 bits
EMIT = ("a", "o", "ll", "s")
WEIGHTS = ("constant", "data", "file")


def compile_library(folder: str | os.PathLike[str], name: str, entries: Mapping[str, Signature],
                    session: Session | None = None, *, targets: Sequence[str] = (), weights: str = "constant",
                    freestanding: bool = False, linker: str = OWN, emit: Sequence[str] = (),
                    debug: bool | str | os.PathLike[str] = False, **options: Any) -> Path:
    """Writes lib<name>.so and <name>.h into the folder, and <name>.pc and <name>-config.cmake, by which pkg-config and
    CMake find them; all or none.  Returns the path of the first.  For a target that is not Linux the first is
    <name>.dll, with <name>.lib to import it, lib<name>.dylib, or <name>.wasm, linked by the package ziglang.

    The functions become `<name>_<entry>`.  Options are those of `Session`: `target="x86-64-v3"` for another machine.
    With `targets=["x86-64-v4", "x86-64-v3"]` the file has code for each, and uses the first that the processor it is
    loaded on can run.  Where it can run none, every function returns the status `<NAME>_CPU`.

    `weights` says what becomes of the variables that no entry updates, with the values of the session: "constant", part
    of the code and folded with it; "data", read-only data that `update_weights` can change in the file; "file", members
    of the state, whose values are written to <name>.safetensors for `<name>_map` or `<name>_load`.

    `emit` lists more files to write: "a", a static library; "o", its objects; "ll" and "s", their LLVM IR and assembly.
    `linker` is "own", which needs no toolchain, or one of cc, ld, lld and ziglang.

    Where entries update variables, the library has functions that make, copy, save and load a state, and needs libc for
    them; a `freestanding` one does without both, and its callers keep the arrays themselves.

    With `debug` gdb, perf and valgrind show the lines of the model that code was made from, and what kernels compute.
    Files have the names that Python knows them by; where `debug` is a folder, those in it are named from there, so that
    the library does not depend on where it was made.

    A library has one thread unless `threads` asks for more: then it brings a pool along, needs libc, and stays loaded.
    """
    check_entries(name, entries, session)
    chosen = options_of(session, options)
    if freestanding and chosen.threads > 1:
        raise GraphError(f"compile_library: {name!r}: threads={chosen.threads} needs libc; not freestanding")
    machines = chosen_targets(targets or (chosen.target,))
    check_linker(linker, machines[0])
    check_emit(emit)
    place = check_folder(folder, [*file_names(name, machines[0]), f"{name}.safetensors", f"lib{name}.a"])
    check_weights(weights, session, freestanding)
    check_system(machines[0], chosen.threads, weights, debug is not False)
    plan = plan_library(name, entries, session, chosen, weights=weights, has_files=not freestanding)
    if plan.header.state and not freestanding and not is_linux(machines[0]):
        raise GraphError(f"compile_library: {name!r}: the functions that make and save a state are for Linux; "
                         f"for {machines[0].name} freestanding=True (--freestanding) leaves them out, and the caller "
                         f"keeps the arrays of {', '.join(item.name for item in plan.header.state)}")
    text = header_text(plan.header)
    linked = build_library(plan.header, plan.programs, plan.metadata(machines), plan.weights, plan.initial, machines,
                           Cache(Path(chosen.cache_dir), chosen.cache), chosen.threads, origin_of(entries, debug))
    check_size(linked)
    data: dict[str, Iterable[Chunk]] = {file: [content] for file, content in more_files(name, linked, emit).items()}
    data |= {file: [content.encode()] for file, content in text_files(name, text, machines[0]).items()}
    if weights == "file":
        assert session is not None
        state = plan.programs[0].state
        variables = [session.graph.variables[array.name] for array in state]
        data[f"{name}.safetensors"] = layout(name, state).file([stored_value(v, session) for v in variables])
    return write_files(place, name, linked, linker, data)


def options_of(session: Session | None, given: Mapping[str, Any]) -> Options:
    """The session's options, where they are not given; but threads are for the caller of a library to ask for."""
    chosen = Options.of(**given)
    if session is not None:
        chosen = replace(session.options, **{name: getattr(chosen, name) for name in given})
    return chosen if given.get("threads") is not None else replace(chosen, threads=1)


def origin_of(entries: Mapping[str, Signature], debug: bool | str | os.PathLike[str]) -> Origin | None:
    """What debuggers are told, if they are."""
    if not isinstance(debug, bool) and not os.path.isdir(debug):
        raise GraphError(f"compile_library: debug={os.fspath(debug)!r} is no folder")
    root = "" if isinstance(debug, bool) else os.fspath(debug)
    return Origin(tuple(what.loc for what in entries.values()), root) if debug is not False else None


# -- what is asked for --
def check_size(linked: Linked) -> None:
    nbytes = sum(blob.nbytes if isinstance(blob, np.ndarray) else len(blob) for blob in linked.blobs.values())
    if nbytes > MOST_DATA:
        raise too_large(nbytes, "constants, weights and first values")


def check_values(variables: Iterable[Node]) -> None:
    """Refuses what is too large before it is copied."""
    nbytes = sum(int(v.type.nbytes) for v in variables)
    if nbytes > MOST_DATA:
        raise too_large(nbytes, "weights and first values")


def too_large(nbytes: int, what: str) -> GraphError:
    return GraphError(f"compile_library: {nbytes} bytes of {what}, code reaches {MOST_DATA}; weights='file' keeps "
                      "the weights that no entry updates out of the library")


def check_emit(emit: Sequence[str]) -> None:
    if not isinstance(emit, list | tuple | set | frozenset) or any(kind not in EMIT for kind in emit):
        raise GraphError(f"compile_library: emit={emit!r}: expected a list of {', '.join(EMIT)}")


def check_weights(weights: str, session: Session | None, freestanding: bool) -> None:
    if weights not in WEIGHTS:
        raise GraphError(f"compile_library: weights={weights!r}: expected one of {', '.join(WEIGHTS)}")
    if weights != "constant" and session is None:
        raise GraphError(f"compile_library: weights={weights!r} needs session=, which has their values")
    if weights == "file" and freestanding:
        raise GraphError("compile_library: weights='file' needs functions that read files, which freestanding=True "
                         "leaves out")


def is_linux(machine: Target) -> bool:
    return machine.object_format == "elf"


def check_system(machine: Target, threads: int, weights: str, has_lines: bool) -> None:
    if is_linux(machine):
        return
    if has_lines:
        raise GraphError(f"compile_library: debug=: libraries for {machine.name} have no lines for debuggers, "
                         "those for Linux do")
    if threads > 1:
        raise GraphError(f"compile_library: threads={threads}: libraries for {machine.name} run on the thread that "
                         "calls them; the pool is for Linux")
    if weights == "file":
        raise GraphError(f"compile_library: weights='file' needs functions that read files, which are for Linux; for "
                         f"{machine.name} weights are 'constant' or 'data'")


def chosen_targets(names: Sequence[str]) -> list[Target]:
    """The targets, of one architecture and each once."""
    if isinstance(names, str):
        raise GraphError(f"compile_library: targets={names!r}: expected a list of names; target={names!r} asks for one")
    found = [target(name) for name in names]
    if len({(t.architecture, t.object_format) for t in found}) > 1 or len(set(found)) < len(found):
        raise GraphError(f"compile_library: targets={list(names)}: expected different ones of one architecture and "
                         f"system, got {', '.join(t.triple for t in found)}")
    return found


def check_entries(name: str, entries: Mapping[str, Signature], session: Session | None) -> None:
    if not isinstance(name, str):
        raise GraphError(f"compile_library: the name is a string, got {name!r:.60}")
    if not isinstance(entries, Mapping) or not entries:
        raise GraphError(f"compile_library: no entries: expected a dict of names and signatures, got {entries!r:.60}")
    for entry, what in entries.items():
        if not isinstance(entry, str):
            raise GraphError(f"compile_library: entry {entry!r:.60}: the name is a string")
        if not isinstance(what, Signature):
            raise GraphError(f"compile_library: entry {entry!r}: expected gc.signature(inputs, outputs), "
                             f"got {type(what).__name__} {what!r:.60}")
    check(CLibrary(name, tuple(CFunction(entry, (), ()) for entry in entries)))  # names that C can have
    graphs = {id(n.graph): n.graph for s in entries.values() for n in (*s.inputs, *s.targets)}
    if session is not None:
        if not isinstance(session, Session):
            raise GraphError(f"compile_library: session={session!r:.60}: expected a gc.Session")
        session.check_open()
        graphs[id(session.graph)] = session.graph
    if len(graphs) != 1:
        raise GraphError(f"compile_library: {name!r}: the entries{' and the session' if session else ''} are of "
                         f"{len(graphs)} graphs; build them in one")


def check_folder(folder: str | bytes | os.PathLike[Any], files: Iterable[str]) -> Path:
    """The folder as a path, where it can be written to as far as can be seen before."""
    name = os.fsdecode(folder)
    if "\0" in name:
        raise GraphError(f"compile_library: the folder {name!r:.200} has a zero byte in its name")
    try:
        return checked_folder(Path(name), files)
    except OSError as fault:
        raise GraphError(f"compile_library: the folder {name!r:.200} cannot be written to: {fault.strerror}") from None


def checked_folder(place: Path, files: Iterable[str]) -> Path:
    if place.exists() and not place.is_dir():
        raise GraphError(f"compile_library: {os.fspath(place)!r} is no folder")
    existing = next(p for p in (place, *place.absolute().parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise GraphError(f"compile_library: the folder {os.fspath(existing)!r} cannot be written to")
    for file in files:
        if (place / file).is_dir():
            raise GraphError(f"compile_library: {os.fspath(place / file)!r} is a folder")
    return place


# -- the plan --
@dataclass(frozen=True)
class Plan:
    """A library before its code is made: programs and C functions in one order, and values of variables.

    The variables of every program are first those that have `weights`, then the members of the state.
    """

    header: CLibrary
    programs: tuple[Program, ...]
    signatures: tuple[Signature, ...]
    weights: tuple[np.ndarray[Any, Any], ...]
    initial: tuple[np.ndarray[Any, Any] | None, ...]
    threads: int

    def metadata(self, machines: Sequence[Target]) -> str:
        kept = len(self.weights)
        entries = {function.name: entry_data(function, program, what, kept)
                   for function, program, what in zip(self.header.functions, self.programs, self.signatures)}
        arrays = self.programs[0].state
        variables = [array_data(array, item.name) | {"initial": value is not None}
                     for array, item, value in zip(arrays[kept:], self.header.state, self.initial)]
        weights = [array_data(array, array.name) for array in arrays[:kept]]
        about = [{"name": m.name, "triple": m.triple, "needs": [f for f in needed_features(m) if f in BITS]}
                 for m in machines]
        return sealed(json.dumps({
            "format": FORMAT, "abi": ABI_VERSION, "name": self.header.name, "threads": self.threads, "targets": about,
            "state": variables, "weights": weights, "entries": entries}, separators=(",", ":")))


def array_data(array: Array, name: str) -> dict[str, Any]:
    return {"name": array.name, "c_name": name, "dtype": array.dtype, "shape": [encode(size) for size in array.shape]}


def entry_data(function: CFunction, program: Program, what: Signature, weights: int) -> dict[str, Any]:
    arrays = [item for item in function.arguments if item.direction != "state"]
    count = len(program.inputs)
    outputs = [replace(array, name=name) for array, name in zip(program.outputs, what.names)]
    return {
        "symbols": list(program.symbols), "single": what.single,
        "state": [k - weights for k in used_state(program) if k >= weights],
        "inputs": [array_data(a, item.name) for a, item in zip(program.inputs, arrays)],
        "outputs": [array_data(a, item.name) for a, item in zip(outputs, arrays[count:])],
        # The user's source lines are left out: the file goes elsewhere, and must not depend on where it was made.
        "checks": [[c.relation, encode(c.a), encode(c.b), c.message.split("\n")[0]] for c in program.checks],
        "messages": [message.split("\n")[0] for message in program.messages]}


def plan_library(name: str, entries: Mapping[str, Signature], session: Session | None, options: Options, *,
                 weights: str = "constant", has_files: bool = True) -> Plan:
    requests = {}
    for entry, what in entries.items():
        with named(entry):
            request = Request(program_name(name, entry), what.inputs, what.outputs, what.updates)
            requests[entry] = with_fed_nodes(request)
            missing_or_path(requests[entry], what.inputs)
    graph = next(n.graph for s in entries.values() for n in (*s.inputs, *s.targets))
    state = state_variables(graph, requests.values(), session)
    fixed = fixed_variables(requests.values(), state) if session is not None else ()
    changed = {v for request in requests.values() for v, _ in request.updates}
    check_values({*fixed, *state} if weights != "file" else changed)
    values = {v: stored_value(v, session) for v in fixed} if session is not None and weights == "data" else {}
    if weights == "file":
        state, fixed = ordered(graph, {*state, *fixed}), ()
    constants = {}
    if weights == "constant" and session is not None:
        constants = {v: constant(session.value(v), v.dtype, v.graph) for v in fixed}
    inside = fixed if weights == "data" else ()
    programs = []
    for entry, request in requests.items():
        with named(entry):
            programs.append(planned(complete(request, (*inside, *state), constants), options)[1])
    members = state_members(name, state, entries)
    functions = tuple(c_function(name, entry, what, program, state, members, len(inside))
                      for (entry, what), program in zip(entries.items(), programs))
    header = CLibrary(name, functions, members, has_files=has_files)
    check(header)
    initial = [first_value(v, session) if weights != "file" or v in changed else None for v in state]
    return Plan(header, tuple(programs), tuple(entries.values()), tuple(values[v] for v in inside), tuple(initial),
                options.threads)


@contextmanager
def named(entry: str) -> Iterator[None]:
    """Errors inside say which entry they are about."""
    try:
        yield
    except (GraphError, Unsupported) as fault:
        raise type(fault)(f"compile_library: entry {entry!r}: {fault}") from fault


def targets_of(request: Request) -> list[Node]:
    return [*request.outputs, *(value for _, value in request.updates)]


def state_variables(graph: Graph, requests: Iterable[Request], session: Session | None) -> tuple[Node, ...]:
    """The variables that the caller of the library keeps, in the order in which they were declared."""
    kept: set[Node] = set()
    for request in requests:
        kept |= {variable for variable, _ in request.updates}
        if session is None:
            kept |= {n for n in ancestors(targets_of(request)) if n.op.name == "variable"}
    return ordered(graph, kept)


def ordered(graph: Graph, variables: set[Node]) -> tuple[Node, ...]:
    return tuple(v for v in graph.variables.values() if v in variables)


def fixed_variables(requests: Iterable[Request], state: Sequence[Node]) -> tuple[Node, ...]:
    """The variables that are read and that nobody updates."""
    kept = set(state)
    return tuple(n for n in ancestors([t for r in requests for t in targets_of(r)])
                 if n.op.name == "variable" and n not in kept)


def complete(request: Request, state: Sequence[Node], weights: Mapping[Node, Node]) -> Request:
    """The request with constants for weights, and with the library's order of variables."""
    count = len(request.outputs)
    targets = replaced(targets_of(request), weights)
    updates = tuple((variable, value) for (variable, _), value in zip(request.updates, targets[count:]))
    return replace(request, outputs=tuple(targets[:count]), updates=updates, state=tuple(state))


def stored_value(variable: Node, session: Session) -> np.ndarray[Any, Any]:
    """The variable's value as native code holds it."""
    return to_storage(session.value(variable), variable.dtype)


def first_value(variable: Node, session: Session | None) -> np.ndarray[Any, Any] | None:
    """The value that a fresh state starts from, as native code holds it."""
    if session is not None:
        return stored_value(variable, session)
    initial = variable.graph.initial.get(variable.name)
    if initial is None:
        return None
    return np.ascontiguousarray(as_array(spec_of(variable), initial() if callable(initial) else initial))
