"""Every op, random graphs and random kernels, as code for other systems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from codegen.cache import Cache
from codegen.header import CFunction, CLibrary
from codegen.kernel import emit_kernel, kernel_symbols, split_extent
from codegen.library import build_library, program_name
from codegen.target import target
from codegen.text import Module
from graphc.binding import bind_sizes
from graphc.compiler import planned
from graphc.config import Options
from graphc.ir.dims import evaluate as extent_of
from graphc.ir.node import Graph, Node, ancestors
from graphc.ir.plan import Kernel, Program
from graphc.ir.reference import evaluate
from graphc.ir.types import FLOATS, from_storage, storage_dtype, to_storage
from passes.lower import Request
from tests.foreign import MACHINES, linked, runner
from tests.foreign_programs import Job, Run, needs_ziglang
from tests.kernel_cases import arguments_of, differences, reference
from tests.kernel_fuzz import random_kernel
from tests.samples import all_samples, values_of
from tests.straight_programs import random_program
from tests.test_fuzz import random_graph
from tests.test_native_elementwise import ROWS, assert_close, built, values

pytestmark = needs_ziglang


@dataclass(frozen=True)
class Case:
    """A function, and arrays to call it with."""

    label: str
    leaves: tuple[Node, ...]
    nodes: tuple[Node, ...]
    feeds: Mapping[Node, np.ndarray]
    compare: Callable[[np.ndarray, np.ndarray, str, str], None]  # result, expected, dtype, label


def close(got: np.ndarray, wanted: np.ndarray, dtype: str, label: str) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13, err_msg=label)


def near(got: np.ndarray, wanted: np.ndarray, dtype: str, label: str) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-9, err_msg=label)


def structural() -> Iterator[Case]:
    for name, k, sample in all_samples():
        with Graph():
            node = sample()
            leaves = tuple(n for n in ancestors([node]) if n.op.name == "placeholder")
            yield Case(f"{name} {k}", leaves, (node,), values_of([node]),
                       close if node.dtype == "float64" else assert_close)


def elementwise(dtypes: Sequence[str], size: int = 67) -> Iterator[Case]:
    for op in ROWS:
        for dtype in dtypes:
            case = built(op.name, dtype, (size,))
            if case is None:
                continue
            rng = np.random.default_rng(sum(map(ord, op.name + dtype)))
            columns = values(dtype, size, rng, len(case[0]))
            if op.name == "where":
                columns[0] = rng.integers(0, 2, size).astype(bool)
            yield Case(f"{op.name} {dtype}", tuple(case[0]), (case[1],), dict(zip(case[0], columns)), assert_close)


def random_graphs(seeds: Iterable[int]) -> Iterator[Case]:
    """Loops of all kinds, with a size that is known at run time, and small programs without loops."""
    for seed in seeds:
        with Graph():
            leaves, fetches, feeds = random_graph(seed, 25)
            yield Case(f"graph {seed}", tuple(leaves), tuple(fetches), feeds, near)
        with Graph():
            inputs, outputs = random_program(seed)
            feeds = values_of(outputs)
            yield Case(f"program {seed}", tuple(n for n in inputs if n in feeds), tuple(outputs), feeds, near)


def library_of(folder: Path, cases: Sequence[Case], targets: Sequence[str]) -> tuple[Path, list[Program]]:
    """One library with an entry for each."""
    programs = []
    for k, case in enumerate(cases):
        with case.nodes[0].graph:
            programs.append(planned(Request(program_name("ops", f"f{k}"), case.leaves, case.nodes, ()),
                                    Options.of(threads=1, exact=True))[1])
    functions = tuple(CFunction(f"f{k}", (), ()) for k in range(len(cases)))
    linked = build_library(CLibrary("ops", functions), programs, "{}", (), (), [target(t) for t in targets],
                           Cache(Path(), 0))
    shared, *_ = files = linked.files("ops")
    (folder / shared).write_bytes(files[shared])
    return folder / shared, programs


def check_cases(folder: Path, cases: Sequence[Case], name: str, run: Run) -> None:
    chosen = MACHINES[name][-2 if name in ("windows", "wine") else 0]  # of several one without AVX-512
    path, programs = library_of(folder, cases, [chosen])
    stored = [[np.asarray(to_storage(np.asarray(case.feeds[n]), n.dtype)) for n in case.leaves] for case in cases]
    sizes = [bind_sizes(p.inputs, [a.shape for a in arrays], p.checks) for p, arrays in zip(programs, stored)]
    dims = [[found[symbol] for symbol in p.symbols] for p, found in zip(programs, sizes)]
    ask = Job(target(chosen).pointer_bytes)
    for k, given in enumerate(dims):
        ask.call(f"ops_f{k}_workspace_size", *given)
    rooms = run(path, ask).results
    job, results = Job(target(chosen).pointer_bytes), []
    for k, (case, arrays) in enumerate(zip(cases, stored)):
        wanted = evaluate(list(case.nodes), case.feeds, {})
        outputs = [job.room(np.dtype(storage_dtype(n.dtype)).itemsize * np.size(value))
                   for n, value in zip(case.nodes, wanted)]
        job.call(f"ops_f{k}", *dims[k], *map(job.array, arrays), *outputs, job.room(rooms[k]))
        results.append((case, wanted, outputs))
    done = run(path, job)
    assert done.statuses == [0] * len(cases)
    for case, wanted, outputs in results:
        for node, value, place in zip(case.nodes, wanted, outputs):
            got = from_storage(done.array(place, storage_dtype(node.dtype), np.shape(value)), node.dtype)
            case.compare(got, value, node.dtype, case.label)


SETS = {"structural": lambda: list(structural()), "floats": lambda: list(elementwise(FLOATS)),
        "integers": lambda: list(elementwise(["int8", "int64", "uint16", "uint64", "bool"])),
        "random": lambda: list(random_graphs(range(60)))}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wasm32", "windows", "macos-arm"])
@pytest.mark.parametrize("cases", list(SETS))
def test_every_op(tmp_path, host_folder, name, cases):
    run = runner(name, host_folder)
    listed = SETS[cases]()
    for k in range(0, len(listed), 100):
        check_cases(tmp_path, listed[k:k + 100], name, run)


@pytest.mark.parametrize("name", [name if name == "wasm32" else pytest.param(name, marks=pytest.mark.slow)
                                  for name in MACHINES])
def test_some_of_every_kind(tmp_path, host_folder, name):
    run = runner(name, host_folder)
    maps = list(elementwise(["float64", "float16", "int32"], 19))[::7]
    check_cases(tmp_path, [*list(structural())[::9], *maps, *random_graphs([3])], name, run)


def kernels_module(name: str, kernels: Mapping[str, Kernel]) -> str:
    """The text of functions `i32 <name>(ptr argument.., i64 size.., i64 low, i64 high)`."""
    module = Module()
    for label, kernel in kernels.items():
        emit_kernel(module, kernel, target(name), f"kernel_{label}")
        listed = ", ".join([*(f"ptr %a{i}" for i in range(len(kernel.arguments))),
                            *(f"i64 %s{i}" for i in range(len(kernel_symbols(kernel)) + 2))])
        module.add(label, f"define i32 @{label}({listed}) #0 {{\n  call void @kernel_{label}({listed})\n"
                          "  ret i32 0\n}\n")
    return module.text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wasm32", "windows", "macos-arm"])
@pytest.mark.parametrize("block", range(4))
def test_random_kernels(tmp_path, host_folder, name, block):
    """Kernels alone: what they write, and that they write nothing else."""
    run, rng, chosen = runner(name, host_folder), np.random.default_rng(block), MACHINES[name][-1]
    made = {f"k{seed}": random_kernel(1000 + seed) for seed in range(block * 60, block * 60 + 60)}
    text = kernels_module(chosen, {label: kernel for label, (kernel, _) in made.items()})
    path = linked(tmp_path, chosen, text, list(made), {})
    job, results = Job(target(chosen).pointer_bytes), []
    for label, (kernel, ranges) in made.items():
        for sizes in ({"p": 4, "q": 40}, {"p": 21, "q": 3}, {"p": 1, "q": 16}):
            arrays = arguments_of(kernel, sizes, ranges, rng)
            places = [job.array(array) for array in arrays]
            extent = extent_of(split_extent(kernel), sizes)
            job.call(label, *places, *(sizes[s] for s in kernel_symbols(kernel)), 0, extent)
            reference(kernel, sizes, arrays)
            results.append((f"{label} {sizes}", kernel, arrays, places))
    done = run(path, job)
    for label, kernel, wanted, places in results:
        for i, (value, place) in enumerate(zip(wanted, places)):
            got = done.array(place, value.dtype, value.shape)
            fault = differences(got, value, kernel.arguments[i], 1e-5)
            assert not fault, f"{label}: argument {i}: {fault}"
