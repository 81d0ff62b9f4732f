"""Bootstraps ROC curves by weights.

Every draw reweights rows that were sorted once. All targets and attacks share the draws, so that
differences are paired.

Several targets share their records and their shadows, so resampling only one of the two is not
enough. A *crossed* draw multiplies one count per record with one count per unit of models (twins
are one unit): the pigeonhole bootstrap of Owen (arXiv:0712.1111). Its draws vary too much
(`components`). Therefore crossed intervals take their standard errors from the draws of records in
every unit and from the spread among units or from reruns (`jackknife`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from mia_jax import checks
from mia_jax.metrics import rank_bins, record_groups
from mia_jax.metrics.record_groups import Counts, Grouped

# Fewer units of models cannot be resampled: the range of 4 values covers their mean in only 87% of
# cases.
FEWEST_UNITS = 5
BLOCK = 1 << 22  # weights in memory at a time
SHORT = 1 << 19  # weights per call where short calls cost no time


def resample_size(n: int) -> int:
    """Returns how many of n rows to draw so that the bootstrap has the spread of a t-interval.

    It is (n - 1)(1.96 / t_{.975, n-1})^2, at least 1.
    """
    return (
        n
        if n < 2
        else max(1, int((n - 1) * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, n - 1)) ** 2 + 0.5))
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """Holds R draws that all targets and attacks share, float32 whole numbers.

    Attributes:
        record_NR: how often each record is drawn; above `record_groups.EXACT` records, groups of
            records share their counts.
        unit_TR: how often the unit of each target is drawn; None: models are not resampled.
        index_T: the unit of each target.
        units: how many units the targets form.
        seed: the seed of the draws.
        reruns: how many reruns of the attack the standard error comes from (`jackknife`), for the
            text of `method`; 0: none.
    """

    record_NR: Counts
    unit_TR: np.ndarray | None
    index_T: np.ndarray
    units: int
    seed: int
    reruns: int = 0

    @property
    def resampling(self) -> str:
        return "records" if self.unit_TR is None else "crossed"

    @property
    def method(self) -> str:
        """Returns the text of the column `method`."""
        count = self.record_NR.shape[1]
        if self.unit_TR is not None:
            rerun = f" (attack rerun without each of {self.reruns} groups of units)" * (
                self.reruns > 0
            )
            return (
                f"bootstrap: {self.units} units of models x records, {count} draws, variance "
                f"components{rerun}"
            )
        why = (
            f", given these models ({self.units} of the {FEWEST_UNITS} units needed to resample "
            "them)"
        )
        return f"bootstrap: records, {count} draws{why}"


def make(num_records: int, unit_T, draws: int = 200, seed: int = 0) -> Draws:
    """Draws R counts for N = `num_records` records and for the units `unit_T` [T] of T targets.

    Args:
        num_records: the number N of records, at least 1.
        unit_T: targets with equal numbers are drawn together.
        draws: the number R of draws, at least 40.
        seed: the seed of the draws.
    """
    checks.at_least(40, draws=draws)
    checks.at_least(1, num_records=num_records)
    _, index_T = np.unique(np.asarray(unit_T), return_inverse=True)
    units = int(index_T.max()) + 1
    rng = np.random.default_rng(seed)
    record_NR: Counts
    if num_records > record_groups.EXACT:
        group_N = record_groups.deal(rng, num_records, record_groups.GROUPS)
        record_NR = Grouped(counts(rng, record_groups.GROUPS, draws), group_N)
    else:
        record_NR = counts(rng, num_records, draws)
    unit_TR = counts(rng, units, draws)[index_T] if units >= FEWEST_UNITS else None
    return Draws(record_NR=record_NR, unit_TR=unit_TR, index_T=index_T, units=units, seed=seed)


def stratified(seed: int, member_N, evaluated_N, draws: int = 200) -> Counts:
    """Returns counts [N,R] for one target, whose members and non-members are drawn separately.

    Above `record_groups.EXACT` records, groups of records of one side share their counts.

    Only evaluated rows are drawn; the others are 0. The counts are whole numbers below 2^16, and
    the counts of one draw are contiguous in memory, so that `redraw` can work draw by draw within
    the cache.

    Args:
        seed: the seed of the draws.
        member_N, evaluated_N: the members and the scored rows of the target.
        draws: the number R of draws.
    """
    rng = np.random.default_rng(seed)
    if len(member_N) > record_groups.EXACT:
        return _stratified_groups(rng, member_N, evaluated_N, draws)
    record_RN = np.zeros((draws, len(member_N)), np.uint16)
    sides = [np.flatnonzero(side_N) for side_N in (evaluated_N & member_N, evaluated_N & ~member_N)]
    for side in filter(len, sides):
        size = resample_size(len(side))
        for count_N in record_RN:
            count_N[side] = np.bincount(
                rng.integers(len(side), size=size), minlength=len(side)
            ).astype(np.uint16)
    return record_RN.T


def _stratified_groups(rng: np.random.Generator, member_N, evaluated_N, draws: int) -> Grouped:
    """Returns the counts of `stratified` by groups; the last group, never drawn, is of no side."""
    sides = [np.flatnonzero(side_N) for side_N in (evaluated_N & member_N, evaluated_N & ~member_N)]
    groups = [min(record_groups.GROUPS, len(side)) for side in sides]
    group_N = np.full(len(member_N), sum(groups), np.uint16)
    parts, first = [], 0
    for side, count in zip(sides, groups, strict=True):
        if count:
            group_N[side] = first + record_groups.deal(rng, len(side), count)
            parts.append(counts(rng, count, draws))
        first += count
    return Grouped(np.concatenate([*parts, np.zeros((1, draws), np.float32)]), group_N)


def counts(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """Returns how often each of n things is drawn, [n,R] float32.

    Every column is `resample_size(n)` draws with replacement. The work is done in blocks of draws,
    which give the same numbers as a single call, need less memory, and keep each call short enough
    for signals to be handled.
    """
    count_NR, step = np.empty((n, draws), np.float32), max(1, SHORT // n)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        at = rng.integers(n, size=(rows, resample_size(n))) + n * np.arange(rows)[:, None]
        count_NR[:, start : start + rows] = (
            np.bincount(at.ravel(), minlength=n * rows).reshape(rows, n).T
        )
    return count_NR


class Ranked(NamedTuple):
    """Holds the rows of one ROC, each side sorted by falling score.

    Attributes:
        member_I, nonmember_J: the row numbers of members and of non-members.
        above_J: how many members score higher than non-member j.
        upto_J: how many members score at least as high as non-member j.
    """

    member_I: np.ndarray
    nonmember_J: np.ndarray
    above_J: np.ndarray
    upto_J: np.ndarray

    @property
    def tied(self) -> bool:
        """Returns whether a member scores as high as a non-member."""
        return bool((self.above_J != self.upto_J).any())


def ranked(score_K, member_K, row_K) -> Ranked:
    """Sorts the rows [K] of one ROC once.

    Args:
        score_K: the scores, higher = more likely a member.
        member_K: whether each row is a member.
        row_K: the numbers by which `weigh` of `curve_draws` identifies the rows.
    """
    score_K = np.asarray(score_K, np.float64)
    inside_K, outside_K = np.flatnonzero(member_K), np.flatnonzero(~member_K)
    inside_K = inside_K[np.argsort(-score_K[inside_K], kind="stable")]
    outside_K = outside_K[np.argsort(-score_K[outside_K], kind="stable")]
    rising = score_K[inside_K][::-1]
    above, upto = (
        len(rising) - np.searchsorted(rising, score_K[outside_K], side=side)
        for side in ("right", "left")
    )
    return Ranked(row_K[inside_K], row_K[outside_K], above, upto)


def redraw(
    rows: Ranked, record_NR: Counts, unit_TR: np.ndarray | None, allowed_F, *, low: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (auc_R, low_FR, high_FR) of one ROC under R draws.

    They are its AUC and, for each number of allowed false positives, a TPR that errs low and a TPR
    that errs high. With k >= 1 allowed false positives the step rule's threshold has a true FPR
    near (k + 1)/J, and that of a draw has one near (k + 3/2)/J, while the requested FPR is k/J.
    `high` is the step rule in the draw; `low` reads the curve 3/2 non-members earlier (between
    allowances k - 2 and k - 1). For large k the difference is negligible.

    Args:
        rows: the sorted rows; their numbers are t N + n.
        record_NR: the counts of records; row t N + n has the weight record_NR[n].
        unit_TR: the counts of the targets' units, by which weights are multiplied; None: 1.
        allowed_F: the numbers k of allowed false positives.
        low: whether to compute low_FR; if not, low_FR is high_FR.
    """
    N, R = record_NR.shape
    if isinstance(record_NR, Grouped):
        raise TypeError("groups of records are drawn in rank bins: use rank_bins.")
    step = max(1, BLOCK // (len(rows.member_I) + len(rows.nonmember_J)))
    needed = rank_bins.needed(allowed_F, low=low)
    parts: list[tuple[float | np.ndarray, np.ndarray]] = []
    alone = unit_TR is None and record_NR.T.flags.c_contiguous  # as `stratified` lays them out
    if alone:
        places = (
            rows.member_I % N,
            rows.nonmember_J % N,
            np.append(rows.above_J, len(rows.member_I)),
            rows.tied,
        )
        parts = [one_draw(rows, places, count_N, needed) for count_N in record_NR.T]
    for start in () if alone else range(0, R, step):
        record = np.ascontiguousarray(record_NR[:, start : start + step])
        unit = None if unit_TR is None else np.ascontiguousarray(unit_TR[:, start : start + step])

        def weigh(row, record=record, unit=unit):
            weight = record[row % N]
            return weight if unit is None else weight * unit[row // N]

        parts.append(curve_draws(rows, weigh, needed))
    auc_R = np.concatenate([np.atleast_1d(auc) for auc, _ in parts])
    tpr = dict(
        zip(needed, np.concatenate([t[:, None] if t.ndim == 1 else t for _, t in parts], axis=1))
    )
    return auc_R, *rank_bins.ends(tpr, allowed_F, R, low=low)


def one_draw(rows: Ranked, places: tuple, count_N, allowed_F) -> tuple[float, np.ndarray]:
    """Returns (auc, tpr_F) of `curve_draws` for a single draw of counts [N].

    The arrays of one draw fit into the cache, which saves more time than longer vectors do.

    Args:
        rows: the sorted rows.
        places: (the members' records by rank, the non-members' records by rank, `above_J` with the
            number of members appended, whether a member ties a non-member).
        count_N: how often each record is drawn.
        allowed_F: as in `curve_draws`.
    """
    member_I, nonmember_J, above_K, tied = places
    true_I = np.zeros(len(member_I) + 1, np.int64)
    np.cumsum(count_N.take(member_I).astype(np.int64), out=true_I[1:])
    outside_J = count_N.take(nonmember_J).astype(np.int64)
    false_J = np.cumsum(outside_J)
    total, weight = int(true_I[-1]), int(false_J[-1])
    if not (total and weight):
        return np.nan, np.full(len(allowed_F), np.nan)
    reach_J = true_I.take(rows.above_J)
    if tied:
        reach_J = reach_J + true_I.take(rows.upto_J)
    pairs = int(outside_J @ reach_J) / (2 if tied else 1)
    # Counts are whole numbers, so the limit may be rounded down.
    limit_F = ((np.asarray(allowed_F) + 0.5) / len(false_J) * weight).astype(np.int64)
    return pairs / (total * weight), true_I[
        above_K[np.searchsorted(false_J, limit_F, side="right")]
    ] / total


def curve_draws(
    rows: Ranked, weigh: Callable[[np.ndarray], np.ndarray], allowed_F
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (auc_R, tpr_FR) of one ROC under R reweightings; NaN where a side has no weight.

    Args:
        rows: the sorted rows.
        weigh: maps row numbers [K] to their counts [K,R].
        allowed_F: rising numbers of false positives among the J non-members. The threshold is
            chosen again in every draw: at the vertex before the share (allowed + 1/2)/J of the
            draw's non-member weight is exceeded.
    """
    inside_IR, outside_JR = weigh(rows.member_I), weigh(rows.nonmember_J)
    J, R = outside_JR.shape
    # float32 represents whole numbers up to 2^24 exactly
    exact = np.float32 if max(len(inside_IR), J) < 1 << 22 else np.float64
    # true_IR[i] is the weight of the i members that score highest
    true_IR = np.zeros((len(inside_IR) + 1, R), exact)
    np.cumsum(inside_IR, axis=0, dtype=exact, out=true_IR[1:])
    weight_R = outside_JR.sum(0, dtype=np.float64)
    total_R = np.where((weight_R > 0) & (true_IR[-1] > 0), true_IR[-1].astype(np.float64), np.nan)
    tied = rows.tied
    pairs_R = np.zeros(R)
    for start in range(0, J, 1024):
        part = slice(start, start + 1024)
        reach = true_IR[rows.above_J[part]]
        if tied:
            reach = (reach + true_IR[rows.upto_J[part]]) / 2
        pairs_R += np.einsum("jr,jr->r", outside_JR[part], reach)
    tpr_FR = np.zeros((len(allowed_F), R))
    for f, first_R in enumerate(_first_beyond(outside_JR, weight_R, allowed_F)):
        tpr_FR[f] = (
            true_IR[np.append(rows.above_J, len(inside_IR))[first_R], np.arange(R)] / total_R
        )
    return pairs_R / (total_R * np.where(weight_R > 0, weight_R, 1.0)), tpr_FR


def _first_beyond(outside_JR: np.ndarray, weight_R: np.ndarray, allowed_F) -> Iterator[np.ndarray]:
    """Yields for each rising allowance the place [R] of the non-member that exceeds it (J: none).

    Only the head of the sorted rows is summed.
    """
    J = len(outside_JR)
    exact = np.float32 if J < 1 << 22 else np.float64
    head, false_HR = 0, np.zeros((0, len(weight_R)), exact)
    # where the last allowance was exceeded, from which the search for the next one starts
    low, high = 0, 0
    for allowed, before in zip(allowed_F, [0, *allowed_F]):
        limit_R = (allowed + 0.5) / J * weight_R
        reach = min(J, high + int(1.3 * (allowed - before)) + 32)
        while True:
            if reach > head:
                head = min(J, max(reach, int(1.3 * max(allowed_F)) + 32))
                false_HR = np.cumsum(outside_JR[:head], axis=0, dtype=exact)
            if reach == J or (false_HR[reach - 1] > limit_R).all():
                break
            reach = min(J, 2 * reach)
        first_R = low + (false_HR[low:reach] <= limit_R).sum(0)
        low, high = int(first_R.min()), int(first_R.max())
        yield first_R


def side_weights(
    member_TN, evaluated_TN, named_TN, record_NR: Counts
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights [T,R], under the draws, of flagged members and flagged non-members.

    Args:
        member_TN, evaluated_TN: the members and the scored rows; only the latter count.
        named_TN: the rows that are flagged.
        record_NR: the counts of records under the draws.
    """
    sides = (evaluated_TN & member_TN & named_TN, evaluated_TN & ~member_TN & named_TN)
    N, R = record_NR.shape
    if isinstance(record_NR, Grouped):
        inside_TR, outside_TR = (record_groups.totals(side, record_NR) for side in sides)
        return inside_TR, outside_TR
    step = max(1, BLOCK // N)  # the sums are whole numbers, exact in any order
    parts = [
        [
            side.astype(np.float32) @ record_NR[:, start : start + step]
            for start in range(0, R, step)
        ]
        for side in sides
    ]
    inside_TR, outside_TR = (np.concatenate(part, axis=1).astype(np.float64) for part in parts)
    return inside_TR, outside_TR
