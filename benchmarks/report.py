"""Figures as a table for reading, as JSON for keeping, and as a picture of the ratios.

A workload's limit is the time of the yardstick that was written for it; else what its arithmetic or its memory take at
the machine's peak, where the workload says how much there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
import json
import os
from pathlib import Path
import platform
from typing import Any

from .harness import Bench, Figure
from .native import Peaks
from .peers import OURS, YARDSTICKS
from .workloads import Workload

Figures = Mapping[str, Sequence[Figure]]
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def quantity(seconds: float) -> str:
    unit, name = next(((u, n) for u, n in UNITS if seconds >= u), UNITS[-1])
    return f"{seconds / unit:.3g} {name}"


def best(figures: Sequence[Figure], *, ours: bool) -> float | None:
    """Our best time, or the best of the peers."""
    times = [f.seconds for f in figures if not f.failure and f.peer not in YARDSTICKS and (f.peer == OURS) is ours]
    return min(times, default=None)


def ratio(figures: Sequence[Figure]) -> float | None:
    """Our best time over the best of the peers; None where one side has none."""
    mine, others = best(figures, ours=True), best(figures, ours=False)
    return mine / others if mine and others else None


def limit(workload: Workload, figures: Sequence[Figure], peaks: Peaks | None, threads: int) -> float | None:
    """Seconds; None where nobody knows.  Yardsticks run on one thread."""
    by_hand = min((f.seconds for f in figures if f.peer in YARDSTICKS and not f.failure), default=None)
    if by_hand is not None:
        return by_hand if threads == 1 else None
    if peaks is None or not (workload.flops or workload.nbytes):
        return None
    return max(workload.flops / getattr(peaks, workload.dtype) / threads, workload.nbytes / peaks.bandwidth)


def of_limit(workload: Workload, figures: Sequence[Figure], peaks: Peaks | None, threads: int) -> float | None:
    """Our time over the limit."""
    mine, least = best(figures, ours=True), limit(workload, figures, peaks, threads)
    return mine / least if mine and least else None


def shown(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def block(workload: Workload, figures: Sequence[Figure], peaks: Peaks | None = None, threads: int = 1) -> str:
    """The lines of one workload, the fastest first, failures last."""
    done = sorted((f for f in figures if not f.failure), key=lambda f: f.seconds)
    lines = [f"{workload.name}: {workload.title}   [{OURS} / best peer: {shown(ratio(figures))}, "
             f"/ limit: {shown(of_limit(workload, figures, peaks, threads))}]"]
    lines += [f"  {f.name:20} {quantity(f.seconds) + '~' * f.disturbed:>9}  ({quantity(f.low)} .. {quantity(f.high)})"
              f"  x{f.seconds / done[0].seconds:<6.3g} compile {f.compile_seconds:.2f} s"
              f"  peak +{f.peak_megabytes:.0f} MB  error {f.error:.0e}" for f in done]
    return "\n".join(lines + [f"  {f.name:20} {f.failure}" for f in figures if f.failure])


def summary(workloads: Sequence[Workload], found: Figures, peaks: Peaks | None = None, threads: int = 1) -> str:
    """A line per workload: the ratios to the best peer and to the limit."""
    lines = [f"{'workload':20} {'ratio':>6} {'limit':>6}  {OURS:>9}  the others, fastest first"]
    for workload in workloads:
        figures = found[workload.name]
        mine = best(figures, ours=True)
        others = sorted((f for f in figures if f.peer != OURS and not f.failure), key=lambda f: f.seconds)
        lines.append(f"{workload.name:20} {shown(ratio(figures)):>6} "
                     f"{shown(of_limit(workload, figures, peaks, threads)):>6}  "
                     f"{quantity(mine) if mine else '-':>9}  "
                     + "  ".join(f"{f.name} {quantity(f.seconds)}{'~' * f.disturbed}" for f in others))
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where it ran; the load says how busy the neighbours were."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    return {"processor": models[0] if models else platform.processor(), "cores": os.cpu_count(),
            "load": os.getloadavg(), "python": platform.python_version()}


def write_json(path: str, workloads: Sequence[Workload], runs: Mapping[int, tuple[Bench, Figures]],
               peaks: Peaks | None) -> None:
    """All figures by the number of threads, times in seconds, beside versions and machine."""
    whole: dict[str, Any] = {"machine": machine() | {"peaks": asdict(peaks) if peaks else None}, "threads": {}}
    for threads, (bench, found) in runs.items():
        rows = {w.name: {"ratio": ratio(found[w.name]), "of_limit": of_limit(w, found[w.name], peaks, threads),
                         "figures": [f.as_dict() for f in found[w.name]]} for w in workloads}
        whole["threads"][threads] = {"versions": bench.versions, "missing": bench.missing, "workloads": rows}
    Path(path).write_text(json.dumps(whole, indent=1) + "\n")


def draw(path: str, runs: Mapping[int, Figures]) -> None:
    """Our time over the best peer's, a bar per workload and number of threads, shorter is better."""
    import matplotlib  # an extra, and slow to import
    matplotlib.use("agg")
    from matplotlib import pyplot
    names = [name for name in next(iter(runs.values())) if any(ratio(found[name]) for found in runs.values())]
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.3 * len(names) * len(runs)), layout="constrained")
    height = 0.8 / len(runs)
    for k, (threads, found) in enumerate(runs.items()):
        values = [ratio(found[name]) or 0.0 for name in names]
        bars = axes.barh([n + k * height for n in range(len(names))], values, height,
                         label=f"{threads} thread{'s' * (threads > 1)}")
        axes.bar_label(bars, [shown(value) for value in values], padding=3, fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks([n + height * (len(runs) - 1) / 2 for n in range(len(names))], names)
    axes.set_xlabel(f"time of {OURS} / time of the fastest peer")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)
