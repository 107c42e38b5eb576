"""Measures peers side by side: a process for each, timed in rounds A, B, C, A, B, C, ...

For one thread a process is pinned to one core; for several it may use all.

A machine that others use slows down for seconds at a time.  Interleaved rounds spread that over all peers, and medians
over all samples of all rounds forget it; figures of different runs do not compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
import json
import os
from pathlib import Path
from statistics import median
import subprocess
import sys
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import numpy as np

from .workloads import Workload, reference

ROOT = Path(__file__).resolve().parents[1]
ANSWER_SECONDS = 300.0
# PYTHONDONTWRITEBYTECODE is unset: with it every process compiles this library's sources anew, and not the peers'.
SETTINGS = {"PYTHONDONTWRITEBYTECODE": "", "GRAPHC_CACHE": "off", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            "TORCHINDUCTOR_COMPILE_THREADS": "1"}
COUNTS = ("BENCHMARK_THREADS", "GRAPHC_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
          "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS")
UNDISTURBED = 0.02  # the part of a sample that its threads may have waited for a core
FEWEST = 5  # undisturbed samples that make a median


@dataclass
class Figure:
    """What a peer needed for a workload: seconds and megabytes; `failure` says why there are none."""

    peer: str
    variant: str
    failure: str = ""
    error: float = 0.0
    compile_seconds: float = 0.0
    compile_cpu: float = 0.0
    peak_megabytes: float = 0.0
    seconds: float = float("inf")
    low: float = float("inf")
    high: float = float("inf")
    samples: list[tuple[float, float]] = field(default_factory=list)  # seconds, and the part that was waiting
    disturbed: bool = False  # too few samples without waiting: `seconds` is the tenth percentile of all

    @property
    def name(self) -> str:
        return f"{self.peer}:{self.variant}" if self.variant else self.peer

    def take(self, samples: Iterable[Sequence[float]]) -> None:
        """Adds samples; `low` and `high` are the quartiles."""
        self.samples += [(seconds, waiting) for seconds, waiting in samples]
        calm = sorted(seconds for seconds, waiting in self.samples if waiting <= UNDISTURBED)
        self.disturbed = len(calm) < min(FEWEST, len(self.samples))
        ordered = calm if not self.disturbed else sorted(seconds for seconds, _ in self.samples)
        self.seconds = median(ordered) if not self.disturbed else ordered[len(ordered) // 10]
        self.low, self.high = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: without the samples, and without times where there are none."""
        row = asdict(self) | {"samples": len(self.samples)}
        return {key: value for key, value in row.items() if value != float("inf")}


class Died(Exception):
    """A worker ended, or was ended because it did not answer in time."""


class Worker:
    """The process of one peer."""

    def __init__(self, peer: str, python: str, threads: int) -> None:
        environment = {**os.environ, **SETTINGS, **dict.fromkeys(COUNTS, str(threads))}
        core = {max(os.sched_getaffinity(0))}
        self.process = subprocess.Popen([python, "-m", "benchmarks.worker", peer], cwd=ROOT, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        preexec_fn=(lambda: os.sched_setaffinity(0, core)) if threads == 1 else None)
        self.peer = peer
        self.greeting = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        timer = Timer(ANSWER_SECONDS, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            raise Died(f"{self.peer}: its process ended with {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError as problem:
            raise Died(f"{self.peer}: its process ended with {self.process.wait()}") from problem
        return self.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Bench:
    """The workers of a run; one that dies is gone for a workload and starts again for the next."""

    pythons: Mapping[str, str]
    threads: int
    workers: dict[str, Worker] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, peers: Sequence[str], pythons: Mapping[str, str], threads: int = 1) -> Bench:
        """Starts a worker per peer; with one thread all of them are on the last core that this process may use."""
        bench = cls(pythons, threads)
        for peer in peers:
            bench.start(peer)
        return bench

    def start(self, peer: str) -> None:
        """Starts the peer's worker, or notes why it is missing."""
        try:
            worker = Worker(peer, self.pythons.get(peer, sys.executable), self.threads)
        except (Died, OSError) as problem:
            self.missing[peer] = str(problem)
            return
        if "version" in worker.greeting:
            self.workers[peer], self.versions[peer] = worker, worker.greeting["version"]
        else:
            self.missing[peer] = worker.greeting["missing"]
            worker.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def ask(self, peer: str, **request: Any) -> dict[str, Any]:
        """The answer, or what happened to the worker as a failure."""
        try:
            return self.workers[peer].ask(**request)
        except Died as problem:
            self.workers.pop(peer).close()
            self.dead.append(peer)
            return {"failure": str(problem)}

    def measure(self, workload: Workload, rounds: int, seconds: float) -> list[Figure]:
        """A figure for every peer and variant; `seconds` is what each may take per round."""
        while self.dead:
            self.start(self.dead.pop())
        with TemporaryDirectory() as folder:
            file = str(Path(folder) / "workload.npz")
            store(workload, file)
            figures = [figure for peer in list(self.workers) for figure in self.built(peer, workload, file)]
        for _ in range(rounds):
            for figure in figures:
                if not figure.failure and figure.peer in self.workers:
                    found = self.ask(figure.peer, do="time", workload=workload.name, variant=figure.variant,
                                     seconds=seconds)
                    figure.failure = found.get("failure", "")
                    figure.take(found.get("samples", []) if not figure.failure else [])
        for peer in list(self.workers):
            self.ask(peer, do="forget")
        return figures

    def built(self, peer: str, workload: Workload, file: str) -> list[Figure]:
        """The peer's variants, built and checked; wrong results are failures."""
        found = self.ask(peer, do="build", workload=workload.name, file=file)
        if "failure" in found:
            return [Figure(peer, "", found["failure"])]
        figures = [Figure(peer, variant, **row) for variant, row in found["cases"].items()]
        for figure in figures:
            if not figure.failure and not figure.error <= workload.tolerance:
                figure.failure = f"wrong: error {figure.error:.1e}, tolerance {workload.tolerance:.0e}"
        return figures


def store(workload: Workload, file: str) -> None:
    """Writes inputs and expected results where all workers read them."""
    inputs = workload.inputs()
    results = {f"r:{k:03}": result for k, result in enumerate(reference(workload, inputs))}
    np.savez(file, **{f"i:{name}": value for name, value in inputs.items()}, **results)  # type: ignore[arg-type]
