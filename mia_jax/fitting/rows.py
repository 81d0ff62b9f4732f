"""Rows of features in an order that depends only on their content: draws, folds, balance.

Imports no jax.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mia_jax.fitting import moments


class Job(NamedTuple):
    """A fit: learn `member_K` from `x_KF`, then score the rows `ask_NF`.

    Jobs of one `family` may share the choice of a learning rate.
    """

    x_KF: np.ndarray
    member_K: np.ndarray
    ask_NF: np.ndarray
    family: int = 0


# (jobs, key) -> a score_N per job, larger = member
Classifier = Callable[[Sequence[Job], Any], list[np.ndarray]]


def hashes(x_NF: np.ndarray, salt: int) -> np.ndarray:
    """Returns a uint64 per row from its values and `salt`; equal rows tie.

    It gives a random order of the rows that does not depend on their positions. It is the sum over
    columns of splitmix64's finalizer of (bits XOR the column's random number); -0 counts as 0.
    """
    salt_F = np.random.default_rng(salt).integers(2**64, size=x_NF.shape[1], dtype=np.uint64)
    found_N = np.zeros(len(x_NF), np.uint64)
    for rows in moments.blocks(len(x_NF)):
        bits_KF = (np.ascontiguousarray(x_NF[rows], np.float64) + 0.0).view(np.uint64)
        found_N[rows] = _mix(_mix(bits_KF ^ salt_F[None]).sum(1, dtype=np.uint64))
    return found_N


def rank_within(cell_N: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Returns the rank 0, 1, ... of every row among the rows of its cell, by their hashes.

    Ties are in the given order.
    """
    order_N = np.lexsort((hash_N, cell_N))
    _, start, count = np.unique(cell_N[order_N], return_index=True, return_counts=True)
    rank_N = np.empty(len(cell_N), int)
    rank_N[order_N] = np.arange(len(cell_N)) - np.repeat(start, count)
    return rank_N


def folds(member_K: np.ndarray, count: int) -> np.ndarray:
    """Returns fold_K in 0..count-1, the folds of scikit-learn's StratifiedKFold.

    Each side is divided into `count` runs of consecutive rows, of sizes that differ by at most one.
    """
    fold_K, start = np.empty(len(member_K), int), 0
    for side_K in (member_K == member_K[0], member_K != member_K[0]):
        fold_K[side_K] = np.sort(np.arange(start, start + side_K.sum()) % count)
        start += side_K.sum()
    return fold_K


def accuracy(score_N: np.ndarray, member_N: np.ndarray) -> float:
    """Returns the share of rows whose side is the sign of their score; 0 without rows.

    A score of 0 means non-member.
    """
    return float(np.mean((score_N > 0) == member_N)) if len(member_N) else 0.0


def one_thread(work: int):
    """Returns a context that keeps BLAS and OpenMP to one thread for small array operations.

    Small means fewer than 2^26 steps of `work`. For such sizes waiting for a second thread takes
    longer than the work: ten times on a machine whose cores are busy.
    """
    if work >= 2**26:
        return contextlib.nullcontext()
    import threadpoolctl

    return threadpoolctl.threadpool_limits(limits=1)


class Scaling(NamedTuple):
    """Scales columns to mean 0 and sd 1 over the training rows.

    A column that is constant there becomes 0 everywhere.
    """

    center_F: np.ndarray
    factor_F: np.ndarray

    def __call__(self, x_NF: np.ndarray) -> np.ndarray:
        return np.where(self.factor_F > 0, (x_NF - self.center_F) * self.factor_F, 0.0)


def scaling(x_KF: np.ndarray) -> Scaling:
    """Returns the Scaling of the training rows x_KF."""
    center_F, sd_F = x_KF.mean(0), x_KF.std(0)
    varies_F = (x_KF.max(0) > x_KF.min(0)) & (sd_F > 0)
    return Scaling(center_F, np.divide(1.0, sd_F, out=np.zeros_like(sd_F), where=varies_F))


def _mix(h: np.ndarray) -> np.ndarray:
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
