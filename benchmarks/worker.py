"""The process that measures one peer: a request in JSON per line of its input, an answer per line of its output.

    {"do": "build", "workload": .., "file": ..}      -> {"cases": {variant: {"error": .., "compile_seconds": ..} ..}}
    {"do": "time", "workload": .., "variant": .., "seconds": ..}        -> {"samples": [[seconds per call, waited] ..]}
    {"do": "forget"}                                 -> {}

With one thread times are of the process's CPU: the parent pins it to one core, where that equals the time on the clock
of an idle machine, and leaves out what the neighbours of a busy one take.  With several they are of the clock, and each
sample says which part of it some thread was ready and waited for a core.
"""

from __future__ import annotations

import gc
from importlib import import_module
import json
import os
import sys
from time import perf_counter, process_time
import traceback
from typing import Any

import numpy as np

from .peers import THREADS, Case
from .workloads import WORKLOADS, aligned, error

SAMPLE = 2e-4  # seconds that a sample of calls takes at least
STATEFUL_CALLS = 60  # after a reset, lest a training converges to numbers of other speed
Cases = dict[tuple[str, str], Case]


def megabytes(field: str) -> float:
    """A figure of this process's memory."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":")) / 1024


def build(peer: Any, cases: Cases, workload: str, file: str) -> dict[str, Any]:
    """Builds, calls and checks every variant of a workload that the peer knows."""
    row = next(w for w in WORKLOADS if w.name == workload)
    with np.load(file) as stored:
        inputs = {name[2:]: aligned(stored[name]) for name in stored.files if name.startswith("i:")}
        expected = [stored[name] for name in stored.files if name.startswith("r:")]
    made: dict[str, dict[str, Any]] = {}
    for variant, builder in peer.CASES.get(row.kind, {}).items():
        gc.collect()
        before = memory_mark()
        start = perf_counter(), process_time()
        try:
            case = builder(inputs)
            case.call()
        except Exception as problem:  # whatever another library throws is a result of the measurement
            traceback.print_exc()
            made[variant] = {"failure": f"{type(problem).__name__}: {problem}"[:300]}
            continue
        seconds = perf_counter() - start[0], process_time() - start[1]
        peak = megabytes("VmHWM") - before
        wrong = error(list(case.results()), expected)
        cases[workload, variant] = case
        made[variant] = {"error": wrong, "compile_seconds": seconds[0], "compile_cpu": seconds[1],
                         "peak_megabytes": peak}
    return {"cases": made}


def waited() -> float:
    """Seconds that the threads of this process were ready and had no core."""
    if THREADS == 1:
        return 0.0
    total = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/schedstat") as status:
                total += int(status.read().split()[1])
        except OSError:
            continue  # the thread has ended, or this kernel does not tell
    return total * 1e-9


def memory_mark() -> float:
    """The memory in use, from which the peak is counted anew."""
    with open("/proc/self/clear_refs", "w") as marks:
        marks.write("5")
    return megabytes("VmRSS")


def time(case: Case, seconds: float) -> dict[str, Any]:
    """Samples of the seconds per call, for about so many seconds."""
    if case.reset is not None:
        case.reset()
    call = case.call
    clock = process_time if THREADS == 1 else perf_counter
    began = clock()
    call()
    once = max(clock() - began, 1e-9)
    calls = max(1, round(SAMPLE / once)) if once < SAMPLE else 1
    limit = STATEFUL_CALLS if case.reset is not None else sys.maxsize
    samples: list[tuple[float, float]] = []
    spent = 0.0
    gc.disable()
    while spent < seconds and len(samples) * calls < limit:
        before = waited()
        began = clock()
        for _ in range(calls):
            call()
        took = clock() - began
        samples.append((took / calls, (waited() - before) / took))
        spent += took
    gc.enable()
    return {"samples": samples}


def answer(peer: Any, cases: Cases, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "build":
        return build(peer, cases, request["workload"], request["file"])
    if request["do"] == "time":
        return time(cases[request["workload"], request["variant"]], request["seconds"])
    cases.clear()
    gc.collect()
    return {}


def warm_up(peer: Any) -> None:
    """Computes something small, so that what a library does once is not counted as compile time of a workload."""
    for builder in list(peer.CASES.get("scale", {}).values())[:1]:
        case = builder({"x": np.ones(3)})  # a name, as some cases own the memory that their calls use
        case.call()


def main(name: str) -> None:
    """Answers on what was the standard output; what the peer prints goes to the standard error."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        peer = import_module(f"benchmarks.peers.{name}_")
    except ImportError as problem:
        print(json.dumps({"missing": str(problem)}), file=replies)
        return
    warm_up(peer)
    print(json.dumps({"version": peer.version()}), file=replies)
    cases: Cases = {}
    for line in sys.stdin:
        print(json.dumps(answer(peer, cases, json.loads(line))), file=replies)


if __name__ == "__main__":
    main(sys.argv[1])
