"""Figures as a table for reading and as JSON for keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import platform
from typing import Any

from .harness import Figure
from .workloads import Workload

OURS = "graphc"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def quantity(seconds: float) -> str:
    unit, name = next(((u, n) for u, n in UNITS if seconds >= u), UNITS[-1])
    return f"{seconds / unit:.3g} {name}"


def ratio(figures: Sequence[Figure]) -> float | None:
    """Our best time over the best of the others; None where one side has none."""
    sides = [[f.seconds for f in figures if not f.failure and (f.peer == OURS) is ours] for ours in (True, False)]
    return min(sides[0]) / min(sides[1]) if all(sides) else None


def block(workload: Workload, figures: Sequence[Figure]) -> str:
    """The lines of one workload, the fastest first, failures last."""
    done = sorted((f for f in figures if not f.failure), key=lambda f: f.seconds)
    found = ratio(figures)
    lines = [f"{workload.name}: {workload.title}" + (f"   [{OURS} / best peer: {found:.2f}]" if found else "")]
    lines += [f"  {f.name:20} {quantity(f.seconds):>9}  ({quantity(f.low)} .. {quantity(f.high)})"
              f"  x{f.seconds / done[0].seconds:<6.3g} compile {f.compile_seconds:.2f} s"
              f"  peak +{f.peak_megabytes:.0f} MB  error {f.error:.0e}" for f in done]
    return "\n".join(lines + [f"  {f.name:20} {f.failure}" for f in figures if f.failure])


def summary(found: Mapping[str, Sequence[Figure]]) -> str:
    """A line per workload: the ratio to the best peer."""
    lines = []
    for name, figures in found.items():
        ours = [f.seconds for f in figures if f.peer == OURS and not f.failure]
        others = sorted((f for f in figures if f.peer != OURS and not f.failure), key=lambda f: f.seconds)
        shown = ratio(figures)
        lines.append(f"{name:20} {f'{shown:.2f}' if shown else '-':>6}  {quantity(min(ours)) if ours else '-':>9}  "
                     + "  ".join(f"{f.name} {quantity(f.seconds)}" for f in others))
    return "\n".join([f"{'workload':20} {'ratio':>6}  {OURS:>9}  the others, fastest first", *lines])


def machine() -> dict[str, Any]:
    """Where it ran; the load says how busy the neighbours were."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    return {"processor": models[0] if models else platform.processor(), "cores": os.cpu_count(),
            "load": os.getloadavg(), "python": platform.python_version()}


def write_json(path: str, versions: Mapping[str, str], missing: Mapping[str, str],
               found: Mapping[str, Sequence[Figure]]) -> None:
    """All figures, times in seconds, beside versions and machine."""
    workloads = {name: {"ratio": ratio(figures), "figures": [f.as_dict() for f in figures]}
                 for name, figures in found.items()}
    whole = {"machine": machine(), "versions": versions, "missing": missing, "workloads": workloads}
    Path(path).write_text(json.dumps(whole, indent=1) + "\n")
