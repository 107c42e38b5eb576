"""The command line: measures, prints each workload when it is done, and at the end one line for each.

    python -m benchmarks --peers jax,numba --only W10,W11 --python numba=/path/to/python

The column of this library is always there.  Peers that are not installed are named and left out; `--python` gives a
peer an interpreter of its own, as libraries that need different versions of the same one cannot share any.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import report
from .harness import Bench, Figure
from .peers import PEERS
from .workloads import chosen


def listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compares speed with other libraries.")
    parser.add_argument("--peers", type=listed, default=list(PEERS[1:]), help="of " + ",".join(PEERS[1:]))
    parser.add_argument("--only", type=listed, default=[], help="beginnings of workloads, such as W10,W4_gemm64")
    parser.add_argument("--rounds", type=int, default=6, help="how often each is timed (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="per peer and round (%(default)s)")
    parser.add_argument("--json", default="", help="a file for all figures")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="its interpreter")
    found = parser.parse_args(given)
    for peer in [*found.peers, *(text.partition("=")[0] for text in found.python)]:
        if peer not in PEERS:
            parser.error(f"no peer {peer!r}; there are {', '.join(PEERS)}")
    for text in found.python:
        if not text.partition("=")[2]:
            parser.error(f"--python {text!r}: expected PEER=PATH")
    if found.rounds < 1 or not found.seconds > 0:
        parser.error(f"--rounds {found.rounds} --seconds {found.seconds}: need at least one round and some time")
    try:
        found.only = chosen(found.only)
    except ValueError as problem:
        parser.error(str(problem))
    return found


def main(given: Sequence[str] | None = None) -> dict[str, list[Figure]]:
    wanted = arguments(given)
    peers = [peer for peer in PEERS if peer in ("graphc", *wanted.peers)]
    found: dict[str, list[Figure]] = {}
    with Bench.of(peers, dict(text.split("=", 1) for text in wanted.python)) as bench:
        print("  ".join(f"{peer} {version}" for peer, version in bench.versions.items()))
        for peer, reason in bench.missing.items():
            print(f"{peer} is left out: {reason}")
        for workload in wanted.only:
            found[workload.name] = bench.measure(workload, wanted.rounds, wanted.seconds)
            print("\n" + report.block(workload, found[workload.name]), flush=True)
    print("\n" + report.summary(found))
    if wanted.json:
        report.write_json(wanted.json, bench.versions, bench.missing, found)
    return found


if __name__ == "__main__":
    main()
