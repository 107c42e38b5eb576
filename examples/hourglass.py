"""The Jacobian of a network with a narrow waist: planned, forward and reverse, by the clock and by the count.

    python examples/hourglass.py
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np

import graphc as gc

SIZES = (512, 256, 8, 256, 512)


def network() -> tuple[gc.Node, gc.Node]:
    """Input and output of tanh layers of these sizes, with fixed random weights."""
    rng = np.random.default_rng(0)
    x = gc.placeholder("float64", SIZES[:1], name="x")
    y = x
    for rows, columns in zip(SIZES[1:], SIZES):
        y = gc.tanh(gc.constant(rng.standard_normal((rows, columns)) / np.sqrt(columns)) @ y)
    return x, y


def main() -> dict[str, float]:
    """Prints the plan and the times; returns seconds per Jacobian for each order."""
    with gc.Graph(), gc.Session() as sess:
        x, y = network()
        print(gc.plan_jacobian(y, x))
        functions = {order: sess.function([x], gc.jacobian(y, x, order=order))
                     for order in ("auto", "forward", "reverse")}
        point = np.random.default_rng(1).standard_normal(SIZES[0])
        results = {order: f(point) for order, f in functions.items()}
        seconds: dict[str, list[float]] = {order: [] for order in functions}
        for _ in range(5):  # interleaved, so that a busy moment meets all of them
            for order, f in functions.items():
                start = perf_counter()
                f(point)
                seconds[order].append(perf_counter() - start)
    for order in ("forward", "reverse"):
        np.testing.assert_allclose(results["auto"], results[order], rtol=1e-9, atol=1e-15)
    times = {order: median(values) for order, values in seconds.items()}
    print("  ".join(f"{order} {1e3 * value:.2f} ms" for order, value in times.items()))
    return times


if __name__ == "__main__":
    main()
