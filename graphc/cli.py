"""The command `graphc`: what this machine has, pictures and libraries of saved graphs, the cache of compiled code.

    graphc doctor                                     versions, target, switches, cache, extras, and a self-test
    graphc view model.gcm -o model.svg                a picture of a saved graph
    graphc compile model.gcm -o build --name digits   build/libdigits.so and build/digits.h
    graphc inspect build/libdigits.so                 what a library holds, without running it
    graphc cache --clear

Exit status: 0; 1 where the self-test fails; 2 for a mistake in what was asked, with one message on standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
import importlib.metadata
import importlib.util
import os
from pathlib import Path
import platform
import re
import sys
from typing import Any

import numpy as np

from codegen.cache import Cache
from codegen.target import target

from . import __version__
from .config import Options, settings, unknown_variables, usable_cores
from .functions import arithmetic, contractions, creation, real, reductions
from .io.graphs import Entry, SavedGraph, load_graph
from .ir.errors import GraphError, Unsupported, VerifyError
from .ir.memory import size_text
from .ir.node import Graph
from .library import Signature, compile_library, signature
from .session import Session
from .shipped import inspect_library
from .view.graphs import dump

CORE = ("numpy", "sympy", "networkx", "llvmlite")
EXTRAS = {  # extra: the modules that it brings
    "onnx": ("onnx",), "aot": ("ziglang",), "mpi": ("mpi4py",), "dask": ("dask",), "sklearn": ("sklearn",),
    "png": ("resvg_py",)}
FEATURES = ("sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512vnni",
            "avx512bf16", "avx512fp16", "amx-tile", "neon", "dotprod", "bf16", "fullfp16", "sve")  # worth telling
COLUMN = 10  # characters for what a line is about


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads our output has stopped; nothing may be written when Python ends, either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GraphError, Unsupported) as fault:
        print(f"graphc: {fault}", file=sys.stderr)
    except OSError as fault:
        print(f"graphc: {fault.filename or 'file'!r}: {fault.strerror or fault}", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="graphc", description="A compiler for static graphs.")
    top.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(run=run)
        return made

    command("doctor", doctor, "show versions, target, switches and cache, and compile and run a self-test")
    made = command("view", view, "draw a saved graph")
    made.add_argument("model", help="a file written by gc.save_graph")
    made.add_argument("-o", "--output", metavar="FILE", help=".svg, .dot, .json or .txt; without it, text is printed")
    made.add_argument("--entry", metavar="NAME", help="only this entry, with its updates; by default the fetches")
    made = command("compile", compile_model, "make a shared library and a C header of a saved graph")
    made.add_argument("model", help="a file written by gc.save_graph")
    made.add_argument("-o", "--output", metavar="FOLDER", default=".", help="where the files go; by default here")
    made.add_argument("--name", help="the library's name; by default that of the model's file, as a name in C")
    made.add_argument("--entry", metavar="NAME", action="append", help="only this entry; may be given more than once")
    made.add_argument("--target", action="append", metavar="NAME",
                      help="the machine to compile for: native, x86-64-v3, aarch64, wasm32, x86-64-v3-windows, "
                           "aarch64-macos ..; given more than once, the file has code for each and uses the first that "
                           "fits")
    made.add_argument("--weights", default="constant", help="constant, data or file: where variables go that nobody "
                                                            "updates (%(default)s)")
    made.add_argument("--emit", action="append", metavar="KIND",
                      help="also a (static library), o (objects), ll (LLVM IR) or s (assembly); may be repeated")
    made.add_argument("--linker", default="own", help="own, cc, ld, lld or ziglang (%(default)s)")
    made.add_argument("--threads", type=int, metavar="N",
                      help="how many threads the library uses, in a pool of its own where there are more than one (1)")
    made.add_argument("--freestanding", action="store_true", help="no functions that need libc")
    made.add_argument("--debug", action="store_true", help="tell debuggers and profilers the lines of the model")
    made.add_argument("--fast-math", action="store_const", const=True, help="allow rewrites that are not exact")
    made = command("inspect", inspect, "show what a library holds, from the file itself")
    made.add_argument("library", help="a library written by gc.compile_library")
    made = command("cache", cache, "show the cache of compiled code")
    made.add_argument("--clear", action="store_true", help="remove all that is in it")
    return top


# -- saved graphs --
def view(arguments: argparse.Namespace) -> int:
    """Draws a model, or prints it as text."""
    saved = load_graph(arguments.model)
    target: Any = _entry(saved, arguments.model, arguments.entry) if arguments.entry else Entry((), _fetched(saved))
    written = dump(target, arguments.output)
    print(arguments.output if written is None else written, end="\n" if written is None else "")
    return 0


def _fetched(saved: SavedGraph) -> Any:
    """All fetches in one list."""
    found: list[Any] = []
    pending = [saved.fetches]
    while pending:
        part = pending.pop()
        if isinstance(part, (list, tuple, dict)):
            pending += reversed(list(part.values()) if isinstance(part, dict) else part)
        else:
            found.append(part)
    return tuple(found)


def _entry(saved: SavedGraph, model: str, name: str) -> Entry:
    if name not in saved.entries:
        raise GraphError(f"{model!r}: no entry {name!r}; there are {', '.join(saved.entries) or 'none'}")
    return saved.entries[name]


def _signature(entry: Entry) -> Signature:
    """Of derivatives the file knows more than the nodes in it do."""
    made = signature(entry.inputs, entry.outputs, entry.updates, entry.names)
    return replace(made, doc=entry.doc, comments=entry.comments, origins=entry.origins or made.origins,
                   patterns=entry.patterns or made.patterns)


def compile_model(arguments: argparse.Namespace) -> int:
    """Makes a library of the entries of a model and prints where it is."""
    saved = load_graph(arguments.model)
    chosen = {name: _entry(saved, arguments.model, name) for name in arguments.entry or saved.entries}
    options = {name: value for name in ("fast_math", "threads") if (value := getattr(arguments, name)) is not None}
    more = {"targets": arguments.target or (), "weights": arguments.weights, "freestanding": arguments.freestanding,
            "emit": arguments.emit or (), "linker": arguments.linker, "debug": arguments.debug}
    with saved.graph, Session(saved.graph, **options) as session:
        signatures = {name: _signature(e) for name, e in chosen.items()}
        name = arguments.name or re.sub(r"[^A-Za-z0-9]+", "_", Path(arguments.model).stem).strip("_")
        print(compile_library(arguments.output, name, signatures, session if saved.variables else None, **more,
                              **options))
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    """Prints what a library is made of."""
    print(inspect_library(arguments.library))
    return 0


# -- the cache --
def cache(arguments: argparse.Namespace) -> int:
    """Shows how full the cache is, or empties it."""
    options = Options.of()
    store = Cache(Path(options.cache_dir), options.cache)
    if arguments.clear:
        print(f"{store.clear()} files removed from {options.cache_dir}")
    else:
        print(cache_text(options))
    return 0


def cache_text(options: Options) -> str:
    """Where the cache is and how full."""
    store = Cache(Path(options.cache_dir), options.cache)
    files, (hits, misses) = store.files(), store.counts()
    limit = f"of {size_text(options.cache)}" if options.cache else "and switched off"
    return (f"{options.cache_dir}: {len(files)} files, {size_text(sum(nbytes for _, nbytes, _ in files))} {limit}; "
            f"code was found {hits} times and compiled {misses} times")


# -- doctor --
def doctor(arguments: argparse.Namespace) -> int:
    """Prints all about this installation; 1 where the self-test fails."""
    rows = [row("graphc", __version__), row("python", f"{platform.python_version()} {sys.executable}"),
            row("libraries", ", ".join(f"{name} {version(name)}" for name in CORE)), *machine_rows(), "",
            *switch_rows(), "", row("cache", cache_text(Options.of())), *extra_rows(), ""]
    print("\n".join(rows))
    fault = self_test()
    print(row("self-test", fault or "passed: a training step was compiled and run, and its values are right"))
    return 1 if fault else 0


def row(what: str, text: str) -> str:
    return f"{what:{COLUMN}} {text}"


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(no version)"


def machine_rows() -> Iterator[str]:
    """What code is made for."""
    import llvmlite.binding as llvm
    options = Options.of()
    chosen = target(options.target)
    flags = {flag.lstrip("+") for flag in chosen.features.split(",") if flag.startswith("+")}
    extra = [text for has, text in ((chosen.has_fma, "fused multiply-add"), (chosen.has_masks, "masks")) if has]
    yield row("machine", f"{platform.system()} {platform.release()} {platform.machine()}, "
                         f"{usable_cores()} of {os.cpu_count()} cores")
    yield row("LLVM", ".".join(map(str, llvm.llvm_version_info)))
    yield row("target", f"{chosen.name}: {chosen.triple}, cpu {chosen.cpu}")
    yield row("vectors", ", ".join([f"{chosen.vector_bits} bits ({chosen.lanes(32)} float32)", *extra]))
    yield row("features", " ".join(flag for flag in FEATURES if flag in flags) or "those of the cpu")


def switch_rows() -> Iterator[str]:
    """The table of switches, then the variables that look like one and are none."""
    table = [("switch", "value", "from", "variable")]
    table += [(s.switch.name, value_text(s.value), s.origin, s.switch.variable) for s in settings()]
    widths = [max(len(line[k]) for line in table) for k in range(3)]
    for line in table:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]])
    for name in unknown_variables(os.environ):
        yield f"warning: the variable {name} is no switch and does nothing"


def value_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def extra_rows() -> Iterator[str]:
    """Which optional libraries are there."""
    found: list[str] = []
    missing: list[str] = []
    for extra, modules in EXTRAS.items():
        (found if all(importlib.util.find_spec(name) for name in modules) else missing).append(extra)
    yield row("extras", f"here: {', '.join(found) or 'none'}; missing: {', '.join(missing) or 'none'}"
                        + (f" (pip install graphc[{missing[0]}])" if missing else ""))


def self_test() -> str:
    """Compiles and runs a training step and compares it with NumPy; the fault as text, empty where all is right."""
    rng = np.random.default_rng(0)
    xs, ws = rng.standard_normal((5, 7)).astype("float32"), rng.standard_normal((7, 3)).astype("float32")
    try:
        with Graph() as graph, Session(graph, mode="native") as session:
            x = creation.placeholder("float32", ("n", 7), name="x")
            w = creation.variable(ws, name="w")
            y = real.tanh(contractions.matmul(x, w))
            new = arithmetic.subtract(w, contractions.matmul(x.T, y))
            step = session.function([x], reductions.sum(y), updates={w: new})
            expected = np.tanh(xs.astype("float64") @ ws)
            for got, right in ((step(xs), expected.sum()), (session.value(w), ws - xs.T.astype("float64") @ expected),
                               (step(xs[:0]), 0.0)):
                if not np.allclose(got, right, rtol=1e-4, atol=1e-4):
                    return f"FAILED: expected {right!s:.200}, got {got!s:.200}"
    except (GraphError, Unsupported, VerifyError, RuntimeError, OSError) as fault:
        return f"FAILED: {type(fault).__name__}: {fault}"
    return ""
