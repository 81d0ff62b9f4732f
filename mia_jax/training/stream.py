"""Where the examples live: the whole pool on the devices when it fits, else the rows of a few steps
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mia_jax.types import Pool


def num_bytes(pool: Pool) -> int:
    """Bytes of x and y."""
    return np.asarray(pool.x).nbytes + np.asarray(pool.y).nbytes


def bare(pool: Pool, rows_K=None) -> Pool:
    """x and y (of some rows) without columns, as the learners see a pool."""
    take = (lambda a: a) if rows_K is None else (lambda a: a[rows_K])
    return Pool(x=take(pool.x), y=take(pool.y), name=pool.name, task=pool.task)


def part_size(*, pool: Pool, shape_MSB: tuple[int, ...], limit: int) -> tuple[int, int]:
    """(steps, rows) of a full part of an epoch with these indices; a part of one step is the
    smallest, whatever the limit.
    """
    models, steps, *batch = shape_MSB  # a batch of pairs has one more axis
    batch = int(np.prod(batch))
    row = max(1, num_bytes(pool) // len(pool.y))
    length = int(np.clip(limit // (row * models * batch), 1, steps))
    return length, models * length * batch


def parts(
    *, pool: Pool, index_MSB: np.ndarray, weight_MSB: np.ndarray, limit: int
) -> Iterator[tuple]:
    """(pool, index, weight) for consecutive steps whose rows together fit in `limit` bytes; the
    same steps in the same order.

    The pool of a part holds the distinct rows of its steps, padded to a fixed number of rows so
    that one program serves all full parts.
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
