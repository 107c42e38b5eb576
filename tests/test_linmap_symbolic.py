"""Derivatives of random programs over symbolic sizes, against central differences at several values of the symbol."""

import random

import numpy as np
import pytest

from graphc.derivatives import jacobian, jvp, vjp
from graphc.ir import build
from graphc.ir.dims import Dim, exact_quotient, substitute
from graphc.ir.node import Graph, ancestors, constant, make
from graphc.ir.reference import evaluate
from samples import leaf

N = Dim.symbol("n")
KINDS = ("merge", "split", "slice", "flip", "pad", "concat", "transpose", "sin", "mul", "add", "broadcast", "sum",
         "take", "linear_scan", "half", "stride", "trace")


def known(shape, n):
    return tuple(substitute(size, {"n": n}) for size in shape)


def windowed(op, x, axis, start, step, size):
    starts = tuple(start if a == axis else 0 for a in range(x.ndim))
    steps = tuple(step if a == axis else 1 for a in range(x.ndim))
    return make(op, (x,), starts=starts, steps=steps, shape=(*x.shape[:axis], size, *x.shape[axis + 1:]))


def grow(rng, x, pool, n):
    """One random op on x; x where it does not fit."""
    kind, rank, shape = rng.choice(KINDS), x.ndim, x.shape
    if kind == "sin":
        return build.elementwise("sin", x)
    if kind in ("mul", "add"):
        return build.elementwise(kind, x, rng.choice([p for p in pool if p.shape == shape]))
    if kind == "broadcast" and rank < 3:
        at = rng.randrange(rank + 1)
        return build.broadcast(x, (*shape[:at], rng.choice([2, N, 1]), *shape[at:]),
                               tuple(a for a in range(rank + 1) if a != at))
    return grow_along(rng, x, pool, n, kind, rng.randrange(rank)) if rank else x


def grow_along(rng, x, pool, n, kind, axis):
    shape, size = x.shape, x.shape[axis]
    half = exact_quotient(size, 2)
    if kind == "merge" and axis + 1 < x.ndim:
        return make("reshape", (x,), shape=(*shape[:axis], size * shape[axis + 1], *shape[axis + 2:]))
    if kind == "split":
        return split(rng, x, axis)
    if kind == "slice" and known(shape, n)[axis] > 2:
        return windowed("slice", x, axis, rng.choice([0, 1]), 1, size - 1)
    if kind == "flip":
        return windowed("slice", x, axis, size - 1, -1, size)
    if kind == "pad":
        return windowed("pad", x, axis, rng.choice([0, 1, 2]), 1, size + 2)
    if kind in ("half", "stride") and half is not None:
        start = rng.choice([0, half] if kind == "half" else [0, 1])
        return windowed("slice", x, axis, start, 1 if kind == "half" else 2, half)
    if kind == "concat":
        fits = [p for p in pool if p.ndim == x.ndim and p.shape[:axis] + p.shape[axis + 1:]
                == shape[:axis] + shape[axis + 1:]]
        return build.concat([x, rng.choice(fits)], axis)
    return move(rng, x, kind, axis)


def split(rng, x, axis):
    outer = rng.choice([2, 4, N])
    inner = exact_quotient(x.shape[axis], outer)
    if inner is None or inner == 0:
        return x
    parts = rng.choice([(outer, inner), (inner, outer)])
    return make("reshape", (x,), shape=(*x.shape[:axis], *parts, *x.shape[axis + 1:]))


def move(rng, x, kind, axis):
    if kind == "transpose":
        return build.transpose(x, rng.sample(range(x.ndim), x.ndim))
    if kind == "sum":
        return build.reduce_sum(x, (axis,))
    if kind == "take":
        return build.take(x, constant(np.array([0, -1, 0])), axis)
    if kind == "linear_scan":
        return build.linear_scan(build.elementwise("sin", x), x, axis, rng.random() < 0.5)
    other = next((a for a in range(x.ndim) if a != axis and x.shape[a] == x.shape[axis]), None)
    if kind == "trace" and other is not None:
        labels = tuple(axis if a == other else a for a in range(x.ndim))
        return build.einsum((labels,), sorted(set(labels)), x)
    return x


def program(rng, n):
    x = leaf("x", *rng.choice([(N, 4), (N,), (2 * N,), (4, N), (N, 2, 2), (N, N)]))
    pool = [x]
    for _ in range(rng.randint(2, 7)):
        node = grow(rng, pool[-1], pool[-3:], n)
        if np.prod(known(node.shape, n)) <= 150:
            pool.append(node)
    return pool[-1], x


@pytest.mark.parametrize("block", range(8))
def test_random_programs(block):
    for seed in range(25 * block, 25 * block + 25):
        with Graph():
            check_program(seed)


def check_program(seed):
    rng = random.Random(seed)
    n = rng.choice([2, 3, 4])
    y, x = program(rng, n)
    binder = build.elementwise("sin", anchor := leaf("anchor", N))  # gives n a value where y does not
    values = np.random.default_rng(seed)
    point = values.normal(size=known(x.shape, n)) * 0.7
    u, t = leaf("u", *y.shape), leaf("t", *x.shape)
    feeds = {anchor: np.zeros(n), x: point, u: values.normal(size=known(y.shape, n)),
             t: values.normal(size=point.shape)}

    def run(fetches, at=point):
        alive = set(ancestors([*fetches, binder]))
        return evaluate([*fetches, binder], {k: v for k, v in {**feeds, x: at}.items() if k in alive}, {})[:-1]
    want = np.zeros(known(y.shape, n) + point.shape)
    for place in np.ndindex(*point.shape):
        step = np.zeros_like(point)
        step[place] = 1e-5
        want[(..., *place)] = (run([y], point + step)[0] - run([y], point - step)[0]) / 2e-5
    got = run([jacobian(y, x, "reverse"), jacobian(y, x, "forward"), vjp(y, x, u), jvp(y, x, t)])
    scale = max(1.0, np.abs(want).max(initial=0.0))
    expected = (want, want, np.tensordot(feeds[u], want, y.ndim), np.tensordot(want, feeds[t], x.ndim))
    for found, correct in zip(got, expected):
        assert found.shape == correct.shape, f"seed {seed}"
        np.testing.assert_allclose(found, correct, rtol=1e-5, atol=1e-6 * scale, err_msg=f"seed {seed}, n = {n}: {y!r}")
