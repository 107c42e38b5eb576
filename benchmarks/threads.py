"""What more threads give: our own time with one thread and with several, interleaved call by call.

    python -m benchmarks.threads --only W2,W3,W6 --threads 1,2 --seconds 5

Times are of the clock, in microseconds: the best, and the median of the rounds in which no thread of the process waited
for a core (as the scheduler counts it), with their number.  Others that use the machine take from what is gained.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from .harness import UNDISTURBED
from .peers.graphc_ import CASES
from .workloads import WORKLOADS, Workload

ROUND = 1_500_000  # nanoseconds of calls between two looks at the scheduler
WARM = 3  # calls before the first that counts


@dataclass
class Times:
    """Microseconds of a call, by round: all, and those that nobody disturbed."""

    every: list[float] = field(default_factory=list)
    calm: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        calm = f"{median(self.calm):10.1f}" if self.calm else "         -"
        return f"{min(self.every):10.1f} {calm} ({len(self.calm)}/{len(self.every)})"


def waited() -> int:
    """Nanoseconds for which the threads of this process have waited for a core."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except OSError:
            pass  # the thread has ended
    return total


def calls(workload: Workload, threads: int) -> Callable[[], Any]:
    """The workload with so many threads, into arrays that are kept."""
    variants = CASES[workload.kind]
    os.environ["GRAPHC_THREADS"] = str(threads)
    call = variants["out" if "out" in variants else ""](workload.inputs()).call
    for _ in range(WARM):
        call()
    return call


def measure(workload: Workload, numbers: Sequence[int], seconds: float) -> dict[int, Times]:
    """The times by number of threads."""
    functions = {threads: calls(workload, threads) for threads in numbers}
    start = perf_counter_ns()
    functions[numbers[0]]()
    count = max(1, ROUND // (perf_counter_ns() - start))
    found = {threads: Times() for threads in numbers}
    end = perf_counter_ns() + int(seconds * 1e9)
    while perf_counter_ns() < end:
        for threads, call in functions.items():
            call()
            before, start = waited(), perf_counter_ns()
            for _ in range(count):
                call()
            spent = perf_counter_ns() - start
            found[threads].every.append(spent / count / 1e3)
            if waited() - before < UNDISTURBED * spent:
                found[threads].calm.append(spent / count / 1e3)
    return found


def gains(found: dict[int, Times]) -> str:
    """How many times faster than the first number the others are: by the best, and by the calm median."""
    first, *others = found.values()
    texts = []
    for times in others:
        calm = f"{median(first.calm) / median(times.calm):.2f}" if first.calm and times.calm else "-"
        texts.append(f"{min(first.every) / min(times.every):5.2f} {calm:>5}")
    return "  ".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads")
    parser.add_argument("--only", default="W2,W3,W4,W5,W6", help="beginnings of workloads' names")
    parser.add_argument("--threads", default="1,2", help="the first is what others are compared with")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each workload")
    wanted = parser.parse_args()
    numbers = [int(text) for text in wanted.threads.split(",")]
    print(f"{'':14}" + "".join(f"{f'{n} threads: best, calm':>32}" for n in numbers) + "   times faster")
    for workload in WORKLOADS:
        if workload.name.startswith(tuple(wanted.only.split(","))):
            found = measure(workload, numbers, wanted.seconds)
            print(f"{workload.name:14}" + "".join(f"{times!s:>32}" for times in found.values())
                  + f"   {gains(found)}", flush=True)


if __name__ == "__main__":
    main()
