"""The command line: measures, prints each workload when it is done, and at the end one line for each.

    python -m benchmarks --peers jax,numba --only W10,W11 --threads 1,2 --json figures.json --plot figures.svg

The columns of this library and of the yardsticks are always there.  Peers that are not installed are named and left
out; `--python` gives a peer an interpreter of its own, as libraries that need different versions of the same one
cannot share any.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import report
from .harness import Bench, Figure
from .native import NoCompiler, Peaks, peaks
from .peers import OURS, PEERS, YARDSTICKS
from .workloads import chosen


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compares speed with other libraries.")
    parser.add_argument("--peers", type=listed, default=list(PEERS), help="of " + ",".join(PEERS))
    parser.add_argument("--only", type=listed, default=[], help="beginnings of workloads, such as W10,W4_gemm64")
    parser.add_argument("--rounds", type=int, default=6, help="how often each is timed (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="per peer and round (%(default)s)")
    parser.add_argument("--threads", type=listed, default=["1"], help="such as 1,2: a run for each")
    parser.add_argument("--plot", default="", help="a picture of the ratios: .svg, .png or .pdf; needs matplotlib")
    parser.add_argument("--json", default="", help="a file for all figures")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="its interpreter")
    found = parser.parse_args(given)
    for peer in [*found.peers, *(text.partition("=")[0] for text in found.python)]:
        if peer not in PEERS:
            parser.error(f"no peer {peer!r}; there are {', '.join(PEERS)}")
    for text in found.python:
        if not text.partition("=")[2]:
            parser.error(f"--python {text!r}: expected PEER=PATH")
    if not all(text.isdecimal() and int(text) for text in found.threads):
        parser.error(f"--threads {','.join(found.threads)}: expected numbers from 1 on")
    found.threads = [int(text) for text in found.threads]
    if found.rounds < 1 or not found.seconds > 0:
        parser.error(f"--rounds {found.rounds} --seconds {found.seconds}: need at least one round and some time")
    try:
        found.only = chosen(found.only)
    except ValueError as problem:
        parser.error(str(problem))
    return found


def limits() -> Peaks | None:
    try:
        return peaks()
    except NoCompiler as problem:
        print(f"the machine's limits are left out: {problem}")
        return None


def one_run(wanted: argparse.Namespace, threads: int, machine: Peaks | None) -> tuple[Bench, dict[str, list[Figure]]]:
    """All workloads with so many threads."""
    peers = [OURS, *YARDSTICKS, *(peer for peer in PEERS if peer in wanted.peers)]
    found: dict[str, list[Figure]] = {}
    with Bench.of(peers, dict(text.split("=", 1) for text in wanted.python), threads) as bench:
        print(f"{threads} thread{'s' * (threads > 1)}: "
              + "  ".join(f"{peer} {version}" for peer, version in bench.versions.items()))
        for peer, reason in bench.missing.items():
            print(f"{peer} is left out: {reason}")
        for workload in wanted.only:
            found[workload.name] = bench.measure(workload, wanted.rounds, wanted.seconds)
            print("\n" + report.block(workload, found[workload.name], machine, threads), flush=True)
    print("\n" + report.summary(wanted.only, found, machine, threads))
    return bench, found


def main(given: Sequence[str] | None = None) -> dict[str, list[Figure]]:
    """The figures of the last number of threads."""
    wanted = arguments(given)
    machine = limits()
    if machine is not None:
        print(f"one core: {machine.float32 / 1e9:.0f} GFLOP/s float32, {machine.float64 / 1e9:.0f} float64, "
              f"{machine.bandwidth / 1e9:.0f} GB/s read from 16 MiB")
    runs = {threads: one_run(wanted, threads, machine) for threads in wanted.threads}
    if wanted.json:
        report.write_json(wanted.json, wanted.only, runs, machine)
    if wanted.plot:
        report.draw(wanted.plot, {threads: found for threads, (_, found) in runs.items()})
    return runs[wanted.threads[-1]][1]


if __name__ == "__main__":
    main()
