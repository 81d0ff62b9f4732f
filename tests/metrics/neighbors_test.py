"""Nearest rows: hand-computed ones, those of a naive search, ties, constants, bounded memory."""

import tracemalloc

import numpy as np
import pytest

from mia_jax.metrics import neighbors


def naive(x, queries, candidates, count, deviation, mean):
    """Sorts all candidates of each query by (distance, row number)."""
    listed = []
    for q in queries:
        scored = []
        for n in candidates:
            if n != q:
                parts = [
                    ((a - m) / s - (b - m) / s) ** 2
                    for a, b, m, s in zip(
                        *(np.ravel(v).tolist() for v in (x[q], x[n], mean, deviation)), strict=True
                    )
                    if s
                ]
                scored.append((sum(parts) ** 0.5, n))
        listed.append(sorted(scored)[:count])
    return listed


def test_neighbors_by_hand():
    """x0 has the deviation 2 and x1 is constant: distances 1, 1.5 and 2.5 of row 0."""
    x = np.array([[0.0, 7], [2, 7], [3, 7], [5, 7]], np.float32)
    scale = neighbors.Scale(np.array([1.0, 7]), np.array([2.0, 0]))
    near = neighbors.euclidean(x, [0, 3], np.arange(4), given=scale, count=3)
    assert near.row_QK.tolist() == [[1, 2, 3], [2, 1, 0]]
    assert near.distance_QK.tolist() == [[1, 1.5, 2.5], [1, 1.5, 2.5]]
    assert scale.typical == np.sqrt(2)


def test_a_scale_is_mean_and_deviation_and_constants_count_for_nothing():
    x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    x[:, 2] = 0.1
    rows = np.arange(10, 50)
    for block_bytes in (1, 100, 1 << 24):
        scale = neighbors.scale(x, rows, block_bytes=block_bytes)
        expected = x[rows].astype(np.float64)
        assert scale.mean == pytest.approx(expected.mean(0))
        assert scale.deviation == pytest.approx(np.where(np.arange(4) == 2, 0, expected.std(0)))
    every = scale.standardized(x[rows])
    assert (every[:, 2] == 0).all() and scale.typical == np.sqrt(6)
    squares = ((every[:, None] - every) ** 2).sum(-1).mean()
    assert scale.typical**2 == pytest.approx(squares)  # over all pairs, a row with itself included
    images = neighbors.scale(x.reshape(50, 2, 1, 2), rows, channels=True)
    assert images.mean[:, :, 1].ravel() == pytest.approx(expected[:, 1::2].mean())
    assert images.deviation[:, :, 0].ravel() == pytest.approx(expected[:, ::2].std())


@pytest.mark.parametrize("block_bytes", [1, 2000, 1 << 24])
def test_a_naive_search_agrees_also_where_distances_are_equal(block_bytes):
    """Whole numbers make many ties, and every row is there twice."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 3, (40, 5)).astype(np.float32)
    x = np.concatenate([x, x])
    x[:, 3] = 1
    candidates = np.flatnonzero(rng.random(80) < 0.7)
    queries = [3, 41, 77]
    scale = neighbors.Scale(np.ones(5), np.array([1.0, 0.5, 1, 0, 2]))
    near = neighbors.euclidean(
        x, queries, candidates, given=scale, count=6, block_bytes=block_bytes
    )
    expected = naive(x, queries, candidates, 6, scale.deviation, scale.mean)
    assert near.row_QK.tolist() == [[n for _, n in line] for line in expected]
    assert near.distance_QK == pytest.approx(np.array([[d for d, _ in line] for line in expected]))
    tokens = x.astype(np.int32)
    near = neighbors.mismatches(tokens, queries, candidates, count=6, block_bytes=block_bytes)
    for q, row, distance in zip(queries, near.row_QK, near.distance_QK, strict=True):
        scored = sorted((float(np.mean(tokens[q] != tokens[n])), n) for n in candidates if n != q)
        assert list(zip(distance.tolist(), row.tolist(), strict=True)) == scored[:6]


def test_far_from_zero_equal_rows_are_at_distance_zero_and_close_ones_are_ordered():
    """Where the matrix product has lost all digits, the differences still decide."""
    x = np.full((6, 3), 1e6)
    x[:, 0] += [0, 3e-7, 1e-7, 2e-7, 0, 0]
    near = neighbors.euclidean(
        x, [0], np.arange(6), given=neighbors.Scale(np.zeros(3), np.ones(3)), count=5
    )
    assert near.row_QK.tolist() == [[4, 5, 2, 3, 1]] and near.distance_QK[0, :2].tolist() == [0, 0]


def test_fewer_candidates_than_neighbors():
    x = np.eye(3)
    scale = neighbors.Scale(np.zeros(3), np.ones(3))
    near = neighbors.euclidean(x, [0], [0, 2], given=scale, count=3)
    assert near.row_QK.tolist() == [[2, -1, -1]] and np.isnan(near.distance_QK[0, 1:]).all()


def test_memory_is_that_of_the_blocks_and_not_of_the_rows():
    """8 million numbers: 61 MB as float64. The search needs a tenth of them, also among ties."""
    x = np.zeros((40_000, 200), np.float32)
    x[::2] = np.random.default_rng(0).normal(size=(1, 200))
    tracemalloc.start()
    candidates = np.arange(len(x))
    scale = neighbors.scale(x, candidates, block_bytes=1 << 20)
    near = neighbors.euclidean(x, [7, 8], candidates, given=scale, block_bytes=1 << 20)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert near.row_QK.tolist() == [[1, 3, 5], [0, 2, 4]] and (near.distance_QK == 0).all()
    assert used < 8e6
