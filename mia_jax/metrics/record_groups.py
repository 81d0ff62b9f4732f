"""Bootstraps many records by random groups, which cost the same however many records there are.

Up to `EXACT` records each has a count of its own in every draw. More records are dealt at random
into `GROUPS` groups of equal size, and the records of a group share a count. A sum over records of
value x count is then a sum over groups, and no array has the size records x draws. Over the deals,
the variance of such a sum of centered values is that of counts record by record (the cross terms
of a group have mean 0); in a single deal it strays by about sqrt(2/GROUPS) = 2%, less than 200
draws do (10%). This is the method of random groups (Wolter, Introduction to Variance Estimation,
chapter 2).
"""

from __future__ import annotations

import dataclasses

import numpy as np

EXACT = 20_000  # records up to which each is drawn by itself
GROUPS = 4_096
# (target, record) pairs on which an attack is run again, and records that are always taken
SAMPLE_PAIRS, SAMPLE = 1 << 19, 1 << 15
COMPACT = 1 << 18  # scores that are looked at to see whether 32 bits part them


@dataclasses.dataclass(frozen=True)
class Grouped:
    """Holds how often each of N records is drawn in R draws, where groups of records share counts.

    It takes the place of an array of counts [N,R].

    Attributes:
        count_GR: the counts of the groups, float32 whole numbers.
        group_N: the group of each record, uint16.
    """

    count_GR: np.ndarray
    group_N: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (N, R)."""
        return len(self.group_N), self.count_GR.shape[1]

    def __len__(self) -> int:
        return len(self.group_N)

    def __getitem__(self, rows) -> Grouped:
        """Returns the counts of some records."""
        return Grouped(self.count_GR, self.group_N[rows])

    def mean(self) -> float:
        """Returns how often a group is drawn on average."""
        return float(self.count_GR.mean(dtype=np.float64))

    def expanded(self) -> np.ndarray:
        """Returns the counts [N,R] record by record."""
        return self.count_GR[self.group_N]

    def fold(self, value_N: np.ndarray) -> np.ndarray:
        """Returns the sums [G] of the values of each group's records, float64."""
        groups = len(self.count_GR)
        if value_N.dtype == bool:
            return np.bincount(self.group_N[value_N], minlength=groups).astype(np.float64)
        return np.bincount(self.group_N, weights=value_N, minlength=groups)


def sample(evaluated_N, targets: int, seed: int) -> np.ndarray | None:
    """Returns records [K], drawn at random, on which attacks are run again; None for all of them.

    Above `EXACT` evaluated records it is a part of them, and the same share of the others. What
    an attack's reruns show about other models does not need every record.

    Args:
        evaluated_N: the records that are scored.
        targets: the number of targets, which share `SAMPLE_PAIRS`.
        seed: the seed of the sample.
    """
    rows, others = np.flatnonzero(evaluated_N), np.flatnonzero(~np.asarray(evaluated_N, bool))
    most = max(SAMPLE, SAMPLE_PAIRS // max(targets, 1))
    if len(rows) <= max(EXACT, most):
        return None
    rng = np.random.default_rng([seed, most])
    few = round(len(others) * most / len(rows))
    kept = [rng.choice(rows, most, replace=False), rng.choice(others, few, replace=False)]
    return np.sort(np.concatenate(kept))


def compact(score_TN: np.ndarray) -> np.ndarray:
    """Returns scores of many records as float32 where that parts nearly as many of them.

    Equal scores stay equal. Up to `EXACT` records, and where of a part of the distinct scores more
    than 1% would become equal, they stay as they are.
    """
    if score_TN.shape[-1] <= EXACT or score_TN.dtype != np.float64:
        return score_TN
    some = score_TN.ravel()[:: score_TN.size // COMPACT + 1]
    some = some[~np.isnan(some)]
    with np.errstate(over="ignore"):
        distinct, kept = (len(np.unique(some.astype(t))) for t in (np.float64, np.float32))
        return score_TN if kept < 0.99 * distinct else score_TN.astype(np.float32)


def as_scores(score_TN) -> np.ndarray:
    """Returns scores in float64; of many records as they are, so that none are copied."""
    score_TN = np.asarray(score_TN)
    many = score_TN.shape[-1] > EXACT and score_TN.dtype.kind == "f"
    return score_TN if many else score_TN.astype(np.float64, copy=False)


def falling_order(score_K: np.ndarray) -> np.ndarray:
    """Returns the places [K] of scores from the highest to the lowest; equal ones in any order.

    Scores that float32 holds are sorted as whole numbers, with their places in the lower half.

    >>> falling_order(np.array([0.5, -2.0, 7.0])).tolist()
    [2, 0, 1]
    """
    if score_K.dtype != np.float32 or not score_K.size:
        return np.argsort(-score_K)
    bits_K = (score_K + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    rising_K = np.where(bits_K >> 31, ~bits_K, bits_K | np.uint32(1 << 31))
    code_K = (~rising_K).astype(np.uint64) << np.uint64(32)
    code_K |= np.arange(len(score_K), dtype=np.uint64)
    code_K.sort()
    return (code_K & np.uint64(0xFFFFFFFF)).astype(np.int64)


Counts = np.ndarray | Grouped  # how often each of N records is drawn in R draws


def of_groups(counts: Counts) -> Grouped:
    """Returns the counts of groups of records.

    Raises:
        TypeError: the counts are of single records.
    """
    if not isinstance(counts, Grouped):
        raise TypeError("draws of single records are measured row by row: see `bootstrap.redraw`.")
    return counts


def deal(rng: np.random.Generator, num_records: int, groups: int) -> np.ndarray:
    """Deals records at random into groups whose sizes differ by at most 1; returns group_N.

    >>> np.bincount(deal(np.random.default_rng(0), 10, 4)).tolist()
    [3, 3, 2, 2]
    """
    group_N = np.arange(num_records, dtype=np.int64) % groups
    return rng.permutation(group_N.astype(np.uint16))


def totals(value_TN, counts: Counts) -> np.ndarray:
    """Returns the sums [T,R] over records of value x count.

    Args:
        value_TN: values or masks of the N records.
        counts: how often each record is drawn.
    """
    if not isinstance(counts, Grouped):
        return np.asarray(value_TN).astype(np.float32, copy=False) @ counts
    folded_TG = np.array([counts.fold(value_N) for value_N in np.asarray(value_TN)])
    return folded_TG.reshape(len(value_TN), -1) @ counts.count_GR.astype(np.float64)
