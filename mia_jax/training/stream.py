"""Places the examples: the whole pool on the devices if it fits, else the rows of a few steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mia_jax.types import Pool


def num_bytes(pool: Pool) -> int:
    """Returns the number of bytes of x and y."""
    return np.asarray(pool.x).nbytes + np.asarray(pool.y).nbytes


def bare(pool: Pool, rows_K=None) -> Pool:
    """Returns x and y (of some rows) without columns, as the learners see a pool."""
    take = (lambda a: a) if rows_K is None else (lambda a: a[rows_K])
    return Pool(x=take(pool.x), y=take(pool.y), name=pool.name, task=pool.task)


def part_size(*, pool: Pool, shape_MSB: tuple[int, ...], limit: int) -> tuple[int, int]:
    """Returns (steps, rows) of a full part of an epoch with indices of this shape.

    A part has at least one step, even if that exceeds the limit (in bytes).
    """
    models, steps, *batch = shape_MSB  # A batch of pairs has one more axis.
    batch = int(np.prod(batch))
    row = max(1, num_bytes(pool) // len(pool.y))
    length = int(np.clip(limit // (row * models * batch), 1, steps))
    return length, models * length * batch


def parts(
    *, pool: Pool, index_MSB: np.ndarray, weight_MSB: np.ndarray, limit: int
) -> Iterator[tuple]:
    """Yields (pool, index, weight) of consecutive steps whose rows fit together in `limit` bytes.

    Together they are the same steps in the same order. The pool of a part holds the distinct rows
    of its steps, padded to a fixed number of rows so that one program serves all full parts.
    """
    steps = index_MSB.shape[1]
    length, capacity = part_size(pool=pool, shape_MSB=index_MSB.shape, limit=limit)
    for start in range(0, steps, length):
        index = index_MSB[:, start : start + length]
        rows, local = np.unique(index, return_inverse=True)
        padded = np.concatenate([rows, np.full(capacity - len(rows), rows[0])])
        yield (
            bare(pool, padded),
            local.reshape(index.shape).astype(np.int32),
            weight_MSB[:, start : start + length],
        )
