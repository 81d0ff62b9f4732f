"""Places the examples: the whole pool on the devices if it fits, else the rows of a few steps."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mia_jax.runtime import precision
from mia_jax.runtime.rows import Rows
from mia_jax.types import Pool

PARTS = 3  # that exist at a time: one is used while the next one is gathered and then put


def num_bytes(pool: Pool) -> int:
    """Returns the number of bytes of x and y as they are stored."""
    return pool.x.nbytes + np.asarray(pool.y).nbytes


def bare(pool: Pool, rows_K=None) -> Pool:
    """Returns x and y (of some rows) without columns, as the learners see a pool."""

    def take(a):
        if rows_K is None:
            return a
        return a.part(rows_K) if isinstance(a, Rows) else a[rows_K]

    return Pool(x=take(pool.x), y=take(pool.y), name=pool.name, task=pool.task)


def loaded(pool: Pool) -> Pool:
    """Returns the pool with all its rows in memory, or mapped into it."""
    x = pool.x.changed(np.asarray) if isinstance(pool.x, Rows) else pool.x
    return dataclasses.replace(pool, x=x)


def part_size(*, pool: Pool, shape_MSB: tuple[int, ...], limit: int) -> tuple[int, int]:
    """Returns (steps, rows) of a full part of an epoch with indices of this shape.

    PARTS of them fit the limit (in bytes), but a part has at least one step.
    """
    models, steps, *batch = shape_MSB  # A batch of pairs has one more axis.
    batch = int(np.prod(batch))
    row = max(1, num_bytes(pool) // len(pool.y))
    length = int(np.clip(limit // (PARTS * row * models * batch), 1, steps))
    return length, models * length * batch


def parts(
    *, pool: Pool, index_MSB: np.ndarray, weight_MSB: np.ndarray, limit: int, first: int = 0
) -> Iterator[tuple]:
    """Yields (pool, index, weight) of consecutive steps, PARTS of which fit in `limit` bytes.

    Together they are the same steps in the same order. The pool of a part holds the distinct rows
    of its steps, padded to a fixed number of rows so that one program serves all full parts.
    `first` steps are left out, of an epoch that was interrupted after them.
    """
    steps = index_MSB.shape[1]
    length, capacity = part_size(pool=pool, shape_MSB=index_MSB.shape, limit=limit)
    for start in range(first, steps, length):
        index = index_MSB[:, start : start + length]
        rows, local = np.unique(index, return_inverse=True)
        padded = np.concatenate([rows, np.full(capacity - len(rows), rows[0])])
        yield (
            bare(pool, padded),
            local.reshape(index.shape).astype(np.int32),
            weight_MSB[:, start : start + length],
        )


def ahead(items: Iterable, use: Callable) -> Iterator:
    """Yields use(item) of every item, in order; the next one is made while one is being used.

    Items and results are made in one thread, with the arithmetic of the calling thread. If the
    caller stops early, the one that is being made is the last one.

    >>> list(ahead([1, 2, 3], lambda item: 2 * item))
    [2, 4, 6]
    """
    todo, end = iter(items), object()

    def make():
        item = next(todo, end)
        return end if item is end else use(item)

    with concurrent.futures.ThreadPoolExecutor(1, "prefetch") as thread:
        work = precision.same_in_threads(make)
        following = thread.submit(work)
        while (result := following.result()) is not end:
            following = thread.submit(work)
            yield result
            del result  # or two would be held while the next one is awaited
