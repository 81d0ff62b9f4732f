"""Finds the rows nearest to a few query rows, in memory that does not grow with the rows.

Rows of numbers are compared by the Euclidean distance after standardization, rows of tokens by the
share of positions that differ. Among equal distances the lowest row number comes first, so the
result depends neither on the blocks nor on the machine's matrix product: that product only proposes
rows, whose distances are then computed from differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 24  # bytes of rows that are compared at once
ROUNDING = 1e-9  # far more than the matrix product loses, relative to the squared norms


class Neighbors(NamedTuple):
    """Holds the K nearest rows of Q queries, the nearest first.

    Attributes:
        row_QK: row numbers; -1 where there are fewer than K candidates.
        distance_QK: their distances; NaN where there is none.
    """

    row_QK: np.ndarray
    distance_QK: np.ndarray


class Scale(NamedTuple):
    """Holds the mean and the standard deviation of every value of a row, of one row's shape.

    `deviation` is 0 where a value is the same in all rows; such a value counts for nothing.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def standardized(self, x: np.ndarray) -> np.ndarray:
        """Returns rows [B,...] as [B,F] float64 with mean 0 and deviation 1; constants become 0.

        >>> Scale(np.array([1.0, 5.0]), np.array([2.0, 0.0])).standardized(np.array([[5.0, 5.0]]))
        array([[2., 0.]])
        """
        inverse = np.where(
            self.deviation > 0, 1 / np.where(self.deviation > 0, self.deviation, 1), 0
        )
        return ((x - self.mean) * inverse).reshape(len(x), -1)

    @property
    def typical(self) -> float:
        """Returns the root mean square distance of two rows drawn from those of the scale.

        A standardized value has the variance 1, so the squared difference of two is 2 on average.
        """
        return float(np.sqrt(2 * np.count_nonzero(self.deviation)))


def scale(x, rows, *, channels: bool = False, block_bytes: int = BLOCK) -> Scale:
    """Returns the mean and deviation over rows, in two passes of float64.

    Args:
        x: the rows [N,...]: an array, or what has a shape and rows that can be indexed.
        rows: the numbers of the rows that count, at least one.
        channels: whether the last axis is one of channels (images), whose values share one mean and
            one deviation over all pixels.
        block_bytes: the bytes that are read at once.

    >>> scale(np.array([[1.0, 7.0], [3.0, 7.0], [9.0, 0.0]]), [0, 1]).deviation.tolist()
    [1.0, 0.0]
    """
    rows, shape = np.asarray(rows), np.shape(x)[1:]
    axes = tuple(range(len(shape))) if channels else (0,)
    total, squares, count = 0.0, 0.0, 0
    low, high = np.inf, -np.inf
    for block in _blocks(x, rows, block_bytes):
        values = x[block].astype(np.float64)
        total = total + values.sum(axes)
        count += values.size // (shape[-1] if channels else int(np.prod(shape)))
        low, high = np.minimum(low, values.min(axes)), np.maximum(high, values.max(axes))
    mean = total / count
    for block in _blocks(x, rows, block_bytes):
        squares = squares + ((x[block] - mean) ** 2).sum(axes)
    deviation = np.where(low == high, 0.0, np.sqrt(squares / count))
    return Scale(np.broadcast_to(mean, shape), np.broadcast_to(deviation, shape))


def euclidean(
    x, queries, candidates, *, given: Scale, count: int = 3, block_bytes: int = BLOCK
) -> Neighbors:
    """Returns the candidates nearest to each query by the distance of standardized rows.

    A row is no neighbor of itself. Equal rows have the distance 0 exactly.

    Args:
        x: the rows [N,...].
        queries: the numbers of the Q rows whose neighbors are sought.
        candidates: the numbers of the rows that can be neighbors, rising.
        given: the scale of the rows.
        count: K, the number of neighbors.
        block_bytes: the bytes of standardized rows that are in memory at once.

    >>> x = np.array([[0.0], [1.0], [3.0], [1.0]])
    >>> euclidean(x, [0], [0, 1, 2, 3], given=Scale(np.zeros(1), np.ones(1)), count=2)
    Neighbors(row_QK=array([[1, 3]]), distance_QK=array([[1., 1.]]))
    """
    queries, candidates = np.asarray(queries), np.asarray(candidates)
    query_QF = given.standardized(x[queries])
    best = _Best(len(queries), count)
    norm_Q = (query_QF**2).sum(1)
    for block in _blocks(x, candidates, block_bytes):
        row_BF = given.standardized(x[block])
        norm_B = (row_BF**2).sum(1)
        about_QB = norm_Q[:, None] + norm_B - 2 * query_QF @ row_BF.T
        slack_Q = ROUNDING * (norm_Q + norm_B.max())
        for q, about_B in enumerate(about_QB):
            other_B = block != queries[q]
            near = about_B[other_B]
            if not len(near):
                continue
            kth = np.partition(near, min(count, len(near)) - 1)[min(count, len(near)) - 1]
            bound = min(kth, best.farthest(q) ** 2) + slack_Q[q]
            proposed = np.flatnonzero(other_B & (about_B <= bound))
            difference_PF = row_BF[proposed] - query_QF[q]
            best.add(q, block[proposed], np.sqrt((difference_PF * difference_PF).sum(1)))
    return best.neighbors()


def mismatches(x, queries, candidates, *, count: int = 3, block_bytes: int = BLOCK) -> Neighbors:
    """Returns the candidates nearest to each query by the share of positions that differ.

    A row is no neighbor of itself.

    Args:
        x: rows of tokens [N,...].
        queries, candidates, count, block_bytes: as in `euclidean`.

    >>> x = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [4, 3, 2, 1]])
    >>> mismatches(x, [0], [1, 2], count=2).distance_QK.tolist()
    [[0.25, 1.0]]
    """
    queries, candidates = np.asarray(queries), np.asarray(candidates)
    query_QL = np.asarray(x[queries]).reshape(len(queries), -1)
    best = _Best(len(queries), count)
    for block in _blocks(x, candidates, block_bytes):
        row_BL = np.asarray(x[block]).reshape(len(block), -1)
        for q, n in enumerate(queries):
            other_B = block != n
            distance_B = (row_BL != query_QL[q]).mean(1)
            best.add(q, block[other_B], distance_B[other_B])
    return best.neighbors()


class _Best:
    """Keeps the K nearest rows of every query while blocks of rows go by."""

    def __init__(self, queries: int, count: int):
        self.row_QK = np.full((queries, count), -1)
        self.distance_QK = np.full((queries, count), np.inf)

    def farthest(self, q: int) -> float:
        """Returns the distance that a new row of query q must not exceed."""
        return float(self.distance_QK[q, -1])

    def add(self, q: int, row_B: np.ndarray, distance_B: np.ndarray) -> None:
        """Takes the rows that are nearer to query q, or as near with a lower number."""
        row, distance = (
            np.concatenate(parts)
            for parts in ((self.row_QK[q], row_B), (self.distance_QK[q], distance_B))
        )
        order = np.lexsort((row, distance))[: self.row_QK.shape[1]]
        self.row_QK[q], self.distance_QK[q] = row[order], distance[order]

    def neighbors(self) -> Neighbors:
        """Returns what is kept."""
        return Neighbors(self.row_QK, np.where(self.row_QK < 0, np.nan, self.distance_QK))


def _blocks(x, rows: np.ndarray, block_bytes: int) -> Iterator[np.ndarray]:
    """Yields row numbers in parts whose rows take about `block_bytes` as float64."""
    step = max(1, block_bytes // (8 * max(1, int(np.prod(np.shape(x)[1:])))))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
