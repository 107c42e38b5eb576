"""Trains a network on handwritten digits, ships it as a shared object, and checks that both give the same answers.

    python examples/digits.py [folder]

Data: the 1,797 digits of 8x8 pixels that come with scikit-learn (UCI, Alpaydin and Kaynak 1998).  The network is
64-128-10 with a relu, trained by Adam on minibatches.  Writes digits.svg, libdigits.so, digits.h into the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import graphc as gc

BATCH, EPOCHS, SEED = 64, 20, 0


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training pixels and labels, then those of the fifth that is held out."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    pixels, labels = (digits.data[order] / 16).astype("float32"), digits.target[order].astype("int32")
    held_out = len(order) // 5
    return pixels[held_out:], labels[held_out:], pixels[:held_out], labels[:held_out]


def network(dtype: str = "float32") -> tuple[gc.Node, gc.Node, gc.Node, gc.Node]:
    """Placeholders for pixels and labels, the logits and the mean loss."""
    x = gc.placeholder(dtype, ("batch", 64), name="x")
    t = gc.placeholder("int32", ("batch",), name="t")
    hidden = gc.nn.dense(x, 128, gc.nn.relu, name="hidden", seed=1)
    logits = gc.nn.dense(hidden, 10, name="output", seed=2)
    return x, t, logits, gc.nn.softmax_cross_entropy(logits, t).mean()


def train(step: Callable[..., Any], pixels: np.ndarray, labels: np.ndarray, epochs: int = EPOCHS) -> list[float]:
    """Mean loss of each epoch."""
    rng = np.random.default_rng(SEED)
    history = []
    for epoch in range(epochs):
        order = rng.permutation(len(labels))
        parts = [order[i:i + BATCH] for i in range(0, len(order), BATCH)]
        losses = [float(step(pixels[part], labels[part])) for part in parts]
        history.append(float(np.average(losses, weights=[len(p) for p in parts])))
        print(f"epoch {epoch + 1:2d}  loss {history[-1]:.4f}")
    return history


def main(folder: str = ".") -> float:
    """Trains and ships; returns the accuracy on the digits held out."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    train_x, train_t, test_x, test_t = data()
    x, t, logits, loss = network()
    updates = gc.optim.Adam(2e-3).minimize(loss)
    with gc.Session() as sess:
        step = sess.function([x, t], loss, updates=updates)
        gc.dump(step, target / "digits.svg")  # one box for each kernel of the compiled training step
        train(step, train_x, train_t)
        predictions = sess.run(logits, {x: test_x})
        accuracy = float((predictions.argmax(axis=1) == test_t).mean())
        print(f"accuracy on {len(test_t)} digits held out: {accuracy:.4f}")
        path = gc.compile_library(target, "digits", {
            "predict": gc.signature([x], [logits]),
            "train_step": gc.signature([x, t], [loss], updates=updates)}, session=sess)
    library = gc.load_library(path)
    shipped = library.predict(test_x)
    print(f"{path} agrees with the session to {np.abs(shipped - predictions).max():.1e}")
    assert np.allclose(shipped, predictions, rtol=1e-5, atol=1e-5)
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])
