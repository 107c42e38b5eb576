"""WebAssembly beside native code of the same vector width: one library for both, called in node and in this process.

    python -m benchmarks.wasm            needs node and the package ziglang (pip install graphc[aot])

Native code is that for x86-64-v2, which has vectors of 128 bits and no fused multiply-add, as WebAssembly has, and that
for this processor.  One thread; rounds of all three in turn; medians over the rounds.  Results are compared first.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
import ctypes
from pathlib import Path
from statistics import median
import subprocess
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from .workloads import aligned

NATIVE = ("x86-64-v2", "native")
CALLS = 60
SHAPES = {"product": (256, 256), "softmax": (512, 512), "tanh": (1 << 18,), "sum": (1 << 18,)}  # of the input, float32
RUN = r"""
const fs = require("fs");
const lib = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[1]))).exports;
const calls = Number(process.argv[2]), entries = JSON.parse(process.argv[3]);
let free = lib.__heap_base.value;
function place(nbytes) {
  const at = Math.ceil(free / 64) * 64;
  free = at + nbytes;
  const missing = free - lib.memory.buffer.byteLength;
  if (missing > 0) lib.memory.grow(Math.ceil(missing / 65536));
  return at;
}
const most = Math.max(...entries.map(([, size]) => size)), x = place(4 * most), y = place(4 * most);
const room = place(Math.max(...entries.map(([name]) => Number(lib[`speed_${name}_workspace_size`]()))));
const given = fs.readFileSync("input.bin");
new Uint8Array(lib.memory.buffer).set(given, x);
for (const [name] of entries) {
  const call = lib[`speed_${name}`], times = [];
  for (let k = 0; k < 2 * calls; k++) {                // the first half is for the engine to compile
    const start = process.hrtime.bigint();
    if (call(x, y, room) !== 0) throw new Error(name);
    times.push(Number(process.hrtime.bigint() - start));
  }
  const half = times.slice(calls).sort((a, b) => a - b);
  fs.writeFileSync(`${name}.bin`, new Uint8Array(lib.memory.buffer, y, 4 * most));
  console.log(name, half[calls >> 1] / 1000);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        paths = libraries(Path(folder))
        given = np.random.default_rng(0).standard_normal(1 << 18).astype("float32")
        (Path(folder) / "input.bin").write_bytes(given.tobytes())
        for _ in range(rounds):
            there = in_node(Path(folder), paths["wasm32"])
            here = {name: natively(paths[name], given) for name in NATIVE}
            for entry in SHAPES:
                found[entry].append((there[entry], *(here[name][entry][0] for name in NATIVE)))
                got = np.fromfile(Path(folder) / f"{entry}.bin", "float32")[:here["native"][entry][1].size]
                np.testing.assert_allclose(got, here["native"][entry][1], rtol=1e-4, atol=1e-4)
    print(f"{'us per call':14}{'wasm':>9}{NATIVE[0]:>11}{'native':>9}{'/ v2':>8}{'/ native':>10}")
    for entry, rows in found.items():
        cells = [median(row[k] for row in rows) for k in range(3)]
        ratios = [median(row[0] / row[k] for row in rows) for k in (1, 2)]
        print(f"{entry:14}{cells[0]:9.1f}{cells[1]:11.1f}{cells[2]:9.1f}{ratios[0]:8.2f}{ratios[1]:10.2f}")


def libraries(folder: Path) -> dict[str, Path]:
    """The same functions for all."""
    import graphc as gc
    with gc.Graph():
        inputs = {name: gc.placeholder("float32", shape, name=name) for name, shape in SHAPES.items()}
        outputs = {"product": inputs["product"] @ inputs["product"], "softmax": gc.nn.softmax(inputs["softmax"]),
                   "tanh": gc.tanh(inputs["tanh"]), "sum": gc.sum(inputs["sum"])}
        entries = {name: gc.signature([inputs[name]], [output]) for name, output in outputs.items()}
        return {target: gc.compile_library(folder / target, "speed", entries, target=target)
                for target in ("wasm32", *NATIVE)}


def in_node(folder: Path, path: Path) -> dict[str, float]:
    """Microseconds per call; results are left as files."""
    entries = [[name, int(np.prod(shape))] for name, shape in SHAPES.items()]
    done = subprocess.run(["node", "-e", RUN, str(path), str(CALLS), str(entries).replace("'", '"')], cwd=folder,
                          check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}


def natively(path: Path, given: np.ndarray[Any, Any]) -> dict[str, tuple[float, np.ndarray[Any, Any]]]:
    """Microseconds per call, and the result."""
    library, found = ctypes.CDLL(str(path)), {}
    x, y = aligned(given), aligned(np.zeros_like(given))
    for name, shape in SHAPES.items():
        size, call = library[f"speed_{name}_workspace_size"], library[f"speed_{name}"]
        size.restype = ctypes.c_int64
        room = aligned(np.empty(max(1, size()), "uint8"))
        arguments = [ctypes.c_void_p(array.ctypes.data) for array in (x, y, room)]
        times = []
        for _ in range(2 * CALLS):
            start = perf_counter()
            if call(*arguments):
                raise RuntimeError(f"{name} failed")
            times.append(perf_counter() - start)
        count = 1 if name == "sum" else int(np.prod(shape))
        found[name] = 1e6 * median(times[CALLS:]), y[:count].copy()
    return found


if __name__ == "__main__":
    main()
