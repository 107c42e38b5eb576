"""How long one waits for a first result: processes of their own, interleaved, medians of several.

    python -m benchmarks.compile --only W6_mlp64,W10,W12 --rounds 7

cold    from the graph's first line to the first result, nothing kept from earlier processes.  Imports are not counted,
        nor the collection of their garbage, nor what a library does once: each process computes something small before.
warm    the same in a process that finds its code in the cache of an earlier one and has computed nothing yet
call    of the warm time, that from `Session.function` to the first result: building the graph is left out

Every figure is process-CPU time, in milliseconds, with the time on the clock behind it.  Every first result is checked.
JAX (under `jit`, without its cache) is the rival where it is installed; `ratio` is our cold CPU time to its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from gc import collect
from importlib import import_module
from importlib.util import find_spec
import json
import os
from statistics import median
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np

from .harness import COUNTS, ROOT, SETTINGS
from .worker import warm_up
from .workloads import Workload, aligned, chosen, error, reference

DEFAULT = ("W6_mlp64", "W10", "W11_hessian", "W12")
WRONG = 3
Row = dict[str, list[float]]  # kind of time -> seconds of every round


# -- in a process of its own --
def measured(peer_name: str, workload: Workload, is_warm: bool) -> dict[str, float]:
    """Seconds until the first result."""
    peer = import_module(f"benchmarks.peers.{peer_name}_")
    began = perf_counter(), process_time()
    if peer_name == "graphc":
        watch_functions(began_at := list(began))
    if not is_warm:
        warm_up(peer)
    inputs = {name: aligned(value) for name, value in workload.inputs().items()}
    collect()  # what imports have left behind belongs to no peer's figure
    start = perf_counter(), process_time()
    case = next(iter(peer.CASES[workload.kind].values()))(inputs)
    case.call()
    end = perf_counter(), process_time()
    if not error(list(case.results()), reference(workload, workload.inputs())) <= workload.tolerance:
        sys.exit(WRONG)
    found = {"clock": end[0] - start[0], "cpu": end[1] - start[1]}
    if peer_name == "graphc":
        found |= {"call clock": end[0] - began_at[0], "call cpu": end[1] - began_at[1]}
    return found


def watch_functions(latest: list[float]) -> None:
    """Puts into `latest` when `Session.function` was called last; imports what the library imports when it is used."""
    import graphc
    for name in graphc.MODULE_OF:
        getattr(graphc, name)
    real = graphc.Session.function

    def function(*arguments: Any, **named: Any) -> Any:
        latest[:] = perf_counter(), process_time()
        return real(*arguments, **named)

    graphc.Session.function = function  # type: ignore[method-assign]


# -- around them --
def child(peer: str, workload: Workload, folder: str) -> dict[str, float]:
    """The figures of one process; `folder` is the cache of a warm one."""
    settings = {**SETTINGS, **dict.fromkeys(COUNTS, "1")}
    if folder:
        settings |= {"GRAPHC_CACHE": "on", "GRAPHC_CACHE_DIR": folder}
    core = {max(os.sched_getaffinity(0))}
    command = [sys.executable, "-m", "benchmarks.compile", "--child", peer, workload.name]
    done = subprocess.run([*command, *(["warm"] if folder else [])], cwd=ROOT, env={**os.environ, **settings},
                          capture_output=True, text=True, check=False,
                          preexec_fn=lambda: os.sched_setaffinity(0, core))
    if done.returncode:
        reason = "wrong results" if done.returncode == WRONG else done.stderr[-500:]
        raise RuntimeError(f"{workload.name} by {peer}: {reason}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(workload: Workload, peers: Sequence[str], rounds: int) -> dict[str, Row]:
    """Times by peer; "warm" is this library with its cache."""
    found: dict[str, Row] = {}
    with TemporaryDirectory(prefix="graphc-") as folder:
        child("graphc", workload, folder)  # fills the cache
        for _ in range(rounds):
            for name in ("graphc", "warm", *peers):
                times = child("graphc" if name == "warm" else name, workload, folder if name == "warm" else "")
                for kind, seconds in times.items():
                    found.setdefault(name, {}).setdefault(kind, []).append(seconds)
    return found


def line(workload: Workload, found: dict[str, Row]) -> str:
    def shown(name: str, kind: str = "") -> str:
        if name not in found:
            return "-"
        cpu, clock = (1e3 * median(found[name][kind + unit]) for unit in ("cpu", "clock"))
        return f"{cpu:.1f} ({clock:.1f})"

    ratio = f"{median(found['graphc']['cpu']) / median(found['jax']['cpu']):.2f}" if "jax" in found else "-"
    cells = [shown("graphc"), shown("jax"), ratio, shown("warm"), shown("warm", "call ")]
    return f"{workload.name:18}" + "".join(f"{cell:>18}" for cell in cells)


def main(given: Sequence[str] | None = None) -> dict[str, dict[str, Row]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(DEFAULT), help="beginnings of workloads (%(default)s)")
    parser.add_argument("--peers", default="jax" if find_spec("jax") else "", help="jax, or nothing")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (%(default)s)")
    wanted = parser.parse_args(given)
    print(f"{'ms, CPU (clock)':18}" + "".join(f"{head:>18}" for head in ("cold", "jax", "ratio", "warm", "warm call")))
    found = {}
    for workload in chosen([part for part in wanted.only.split(",") if part]):
        found[workload.name] = compare(workload, [p for p in wanted.peers.split(",") if p], wanted.rounds)
        print(line(workload, found[workload.name]), flush=True)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        np.seterr(all="ignore")
        print(json.dumps(measured(sys.argv[2], chosen([sys.argv[3]])[0], sys.argv[4:] == ["warm"])))
    else:
        main()
