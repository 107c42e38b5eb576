"""Colourings: valid by brute force on random patterns, no worse than first fit, exact counts on known ones."""

import numpy as np
import pytest

from passes.jacobian.colouring import (bicolouring, by_incidence, column_colouring, count, greedy_star,
                                       neighbours_of_columns, row_colouring, smallest_last, star_colouring)
from passes.jacobian.pattern import from_pairs
from passes.jacobian.sparse import star_places


def pattern_of(dense):
    return from_pairs(*np.nonzero(dense), dense.shape)


def random_dense(seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 30, 2)
    return rng.random((m, n)) < rng.choice([0.03, 0.1, 0.3])


def grid_laplacian(n, *, periodic):
    """The 5-point pattern on n x n."""
    line = np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
    if periodic:
        line[0, -1] = line[-1, 0] = 1
    return (np.kron(np.eye(n), line) + np.kron(line, np.eye(n))) != 0


def columns_fault(dense, colours):
    """A row with two entries of one colour, or an entry without one; None where there is none."""
    for i, row in enumerate(dense):
        found = colours[row]
        if (found < 0).any() or len(set(found.tolist())) < len(found):
            return i, found.tolist()
    return None


def star_fault(dense, colours):
    """An edge with equal ends, or a path over four vertices of two colours."""
    n = len(dense)
    near = [[j for j in range(n) if dense[i, j] and i != j] for i in range(n)]
    for b in range(n):
        for c in near[b]:
            if colours[b] == colours[c]:
                return b, c
            for a in near[b]:
                for d in near[c]:
                    if len({a, b, c, d}) == 4 and colours[a] == colours[c] and colours[b] == colours[d]:
                        return a, b, c, d
    return None


@pytest.mark.parametrize("seed", range(60))
def test_columns_and_rows(seed):
    dense = random_dense(seed)
    p = pattern_of(dense)
    columns, rows = column_colouring(p), row_colouring(p)
    assert columns_fault(dense, columns) is None
    assert columns_fault(dense.T, rows) is None
    assert count(columns) >= dense.sum(1).max(initial=0)
    overlap = dense.T.astype(int) @ dense.astype(int) > 0
    assert count(columns) <= overlap.sum(1).max(initial=0)  # first fit never needs more
    assert ((columns >= 0) == dense.any(0)).all()


def test_the_checks_see_faults():
    assert columns_fault(np.ones((1, 2), bool), np.array([0, 0])) == (0, [0, 0])
    assert columns_fault(np.ones((1, 1), bool), np.array([-1])) == (0, [-1])
    path = np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool)
    assert star_fault(path, [0, 1, 0, 1]) is not None
    assert star_fault(path, [0, 0, 1, 2]) is not None
    assert star_fault(path, [0, 1, 2, 1]) is None


@pytest.mark.parametrize("seed", range(60))
def test_star(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 20))
    half = rng.random((n, n)) < rng.choice([0.05, 0.15, 0.4])
    dense = half | half.T
    if seed % 2:
        dense |= np.eye(n, dtype=bool)
    p = pattern_of(dense)
    colours = star_colouring(p)
    assert star_fault(dense, colours) is None
    assert ((colours >= 0) == dense.any(0)).all()
    values = np.where(dense, rng.normal(size=(n, n)), 0)
    values = values + values.T
    colour_count = count(colours)
    sums = np.zeros((colour_count, n))
    for j in range(n):
        if colours[j] >= 0:
            sums[colours[j]] += values[:, j]
    if p.nnz:
        read = sums.reshape(-1)[star_places(p, colours)]
        np.testing.assert_allclose(read, values[p.rows, p.indices], rtol=1e-14)


@pytest.mark.parametrize("seed", range(40))
def test_both_sides(seed):
    rng = np.random.default_rng(seed)
    dense = random_dense(seed)
    dense[rng.integers(len(dense))] = True
    dense[:, rng.integers(dense.shape[1])] = True
    found = bicolouring(pattern_of(dense))
    if found is None:
        return
    dense_rows = found.rows >= 0
    assert columns_fault(dense[~dense_rows], found.columns) is None
    assert columns_fault(dense[dense_rows].T, found.rows[dense_rows]) is None


def test_orders_are_permutations():
    p = neighbours_of_columns(pattern_of(random_dense(7)))
    for order in (smallest_last, by_incidence):
        assert sorted(order(p.lists())) == list(range(p.shape[0]))


def test_smallest_last_colours_a_tree_with_two():
    """A path in a scrambled order: every vertex has one coloured neighbour at most when its turn comes."""
    names = np.random.default_rng(0).permutation(60)
    dense = np.zeros((60, 60), bool)
    dense[names[1:], names[:-1]] = dense[names[:-1], names[1:]] = True
    neighbours = pattern_of(dense).lists()
    place = {v: k for k, v in enumerate(smallest_last(neighbours))}
    assert all(sum(place[w] < place[v] for w in neighbours[v]) <= 1 for v in range(60))


@pytest.mark.parametrize(("dense", "columns", "star"), [
    (np.eye(50, dtype=bool), 1, 1),
    (np.tri(50, k=1, dtype=bool) & ~np.tri(50, k=-2, dtype=bool), 3, 3),
    (np.tri(50, k=3, dtype=bool) & ~np.tri(50, k=-4, dtype=bool), 7, 7),
    (grid_laplacian(32, periodic=False), 7, 6),
    (np.ones((12, 12), bool), 12, 12),
])
def test_known_counts(dense, columns, star):
    p = pattern_of(dense)
    assert count(column_colouring(p)) <= columns
    assert count(row_colouring(p)) <= columns
    assert count(star_colouring(p)) <= star


def test_arrowhead():
    dense = np.eye(200, dtype=bool)
    dense[0] = dense[:, 0] = True
    p = pattern_of(dense)
    assert count(column_colouring(p)) == 200
    assert count(star_colouring(p)) == 2
    assert bicolouring(p).count == 3


def test_no_entries():
    p = pattern_of(np.zeros((3, 4), bool))
    assert column_colouring(p).tolist() == [-1] * 4
    assert star_colouring(pattern_of(np.zeros((3, 3), bool))).tolist() == [-1] * 3
    assert bicolouring(p) is None
    assert greedy_star([], []) == []


def test_large_periodic_grid_is_quick():
    n = 100
    cells = np.arange(n * n).reshape(n, n)
    near = np.stack([np.roll(cells, step, axis) for step in (1, -1) for axis in (0, 1)] + [cells])
    p = from_pairs(np.tile(cells.reshape(-1), 5), near.reshape(-1), (n * n, n * n))
    assert p.nnz == 5 * n * n
    colours = column_colouring(p)
    assert count(colours) <= 9
    assert all(len(set(colours[p.indices[a:b]].tolist())) == 5 for a, b in zip(p.indptr[:-1], p.indptr[1:]))
