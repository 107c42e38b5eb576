"""Writes what examples/wasm/train.mjs needs: the digits network with its training step as WebAssembly, and the data.

    python examples/wasm/export.py build        needs the package ziglang: pip install graphc[aot]
"""

from __future__ import annotations

from pathlib import Path
import sys

import numpy as np

import graphc as gc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from digits import data, network


def main(folder: str = "build") -> Path:
    """Writes the library with its header and digits.bin; returns the library's path."""
    pixels, labels, _, _ = data()
    x, t, logits, loss = network()
    updates = gc.optim.Adam(2e-3).minimize(loss)
    with gc.Session() as sess:
        path = gc.compile_library(folder, "digits", {
            "predict": gc.signature([x], [logits], names=["logits"]),
            "train_step": gc.signature([x, t], [loss], updates=updates, names=["loss"])},
            session=sess, target="wasm32", freestanding=True)
    file = Path(folder) / "digits.bin"
    file.write_bytes(np.int32(len(labels)).tobytes() + pixels.tobytes() + labels.tobytes())
    print(f"{path} and {file}: {len(labels)} digits")
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
