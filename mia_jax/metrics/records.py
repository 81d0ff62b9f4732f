"""Measures which records are exposed, by one AUC per record.

The AUC compares the scores of the models that trained on the record with those of the models that
did not. With shadows that are targets themselves, a record's AUC is biased downward even if nothing
leaks, and its spread is too large. Therefore the targets are cut into two folds of whole units, a
target's shadows come from the other fold (`other_fold`), and scores are compared only within a
fold.

The two folds are still not independent of each other. If by chance the IN shadows of a record
differ from its OUT shadows in the same way in both folds, the AUC of both folds is high, because
each fold is the other's evidence. Given the shadows, the targets of one fold are independent.
Therefore p-values are computed per fold and corrected for choosing the smaller of two, and
intervals allow for full dependence. The highest of many AUCs is too high because it was selected
(the winner's curse), so what is ranked highest on half of a fold's targets is reported from the
other half.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.metrics import bootstrap, intervals, multiple

FEWEST_UNITS = 4  # units of models per fold
FEW = 4096  # records from which equal ones are looked for
EXACT = 1024  # up to this many pairs per fold, p-values come from the exact distribution


class Vulnerability(NamedTuple):
    """Holds the exposure of N records.

    Values are NaN where no fold has both a model that trained on the record and one that did not.

    Attributes:
        auc_N, low_N, high_N: the AUC over both folds and its interval.
        p_N, q_N: the p-value of 'AUC <= 1/2' and the q-value (Benjamini-Hochberg).
        inside_N, outside_N: how many targets trained on the record and how many did not.
        auc_2N, low_2N, high_2N: the AUC of each fold and its interval.
    """

    auc_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    p_N: np.ndarray
    q_N: np.ndarray
    inside_N: np.ndarray
    outside_N: np.ndarray
    auc_2N: np.ndarray
    low_2N: np.ndarray
    high_2N: np.ndarray


class Halves(NamedTuple):
    """Holds the AUCs of N records on the halves of the first fold; NaN where a half lacks a side.

    Attributes:
        ranked_N: the AUC on the first half, by which records are ranked.
        held_N, held_low_N, held_high_N: the AUC on the second half, which did not rank them, and
            its interval.
    """

    ranked_N: np.ndarray
    held_N: np.ndarray
    held_low_N: np.ndarray
    held_high_N: np.ndarray


def folds(unit_T) -> np.ndarray:
    """Returns the fold, 0 or 1, of every target: units of models (twins together) alternate."""
    return np.unique(np.asarray(unit_T), return_inverse=True)[1] % 2


def halves(unit_T) -> np.ndarray:
    """Returns which half, 0 or 1, of its fold each target is in.

    The records that one half ranks highest are reported from the other half.
    """
    return np.unique(np.asarray(unit_T), return_inverse=True)[1] // 2 % 2


def other_fold(shadow_MM, targets, fold_T) -> np.ndarray:
    """Returns shadow_MM without the shadows that are targets of the same fold as the target.

    Rows of models that are not targets are unchanged.
    """
    targets, fold_T, kept_MM = np.asarray(targets), np.asarray(fold_T), np.array(shadow_MM, bool)
    kept_MM[np.ix_(targets, targets)] &= fold_T[:, None] != fold_T
    return kept_MM


def refused(unit_T) -> str:
    """Returns why single records cannot be tested with these targets ('' if they can)."""
    units = len(np.unique(unit_T))
    return (
        ""
        if units >= 2 * FEWEST_UNITS
        else f"{units} independent target{'s' * (units > 1)}; two folds of {FEWEST_UNITS} are "
        "needed"
    )


def vulnerability(
    score_TN, member_TN, evaluated_TN, fold_T, *, level: float = 0.95
) -> Vulnerability:
    """Computes per-record AUCs of scores [T,N] whose shadows came from the other fold.

    U counts the pairs (target with n, target without n) of one fold in which the first scores
    higher (ties 1/2); AUC = sum of U / sum of pairs. The p-value is twice the smaller of the folds'
    exact Mann-Whitney p-values (conservative with ties; normal above 1,024 pairs per fold). The
    interval has the AUCs a that satisfy |AUC - a| <= z sd(a), with Hanley and McNeil's variance at
    the mean size of the two sides (Newcombe 2006, method 5); the deviations of the folds are added
    as if they were fully dependent.

    Args:
        score_TN: the scores of each target, higher = more likely a member; NaN where unknown.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        fold_T: the fold, 0 or 1, of each target (`folds`).
        level: the confidence level of the intervals.
    """
    score_TN, fold_T = np.asarray(score_TN, np.float64), np.asarray(fold_T)
    checks.shape(
        "TN", score=score_TN, member=np.asarray(member_TN), evaluated=np.asarray(evaluated_TN)
    )
    valid_TN = np.asarray(evaluated_TN, bool) & ~np.isnan(score_TN)
    inside_TN, outside_TN = (
        valid_TN & np.asarray(member_TN, bool),
        valid_TN & ~np.asarray(member_TN, bool),
    )
    above, sizes = [], []
    for fold in (0, 1):
        rows = np.flatnonzero(fold_T == fold)
        above.append(pairs_above(score_TN[rows], inside_TN[rows], outside_TN[rows]))
        sizes.append((inside_TN[rows].sum(0), outside_TN[rows].sum(0)))
    above_2N, size_22N = np.array(above), np.array(sizes)
    auc_N, low_N, high_N = _interval(above_2N, size_22N, level)
    each = [_interval(above_2N[f : f + 1], size_22N[f : f + 1], level) for f in (0, 1)]
    p_N = np.minimum(1, 2 * np.fmin(*(p_values(above_2N[f], size_22N[f]) for f in (0, 1))))
    return Vulnerability(
        auc_N=auc_N,
        low_N=low_N,
        high_N=high_N,
        p_N=p_N,
        q_N=multiple.benjamini_hochberg(p_N),
        inside_N=inside_TN.sum(0),
        outside_N=outside_TN.sum(0),
        auc_2N=np.array([auc for auc, _, _ in each]),
        low_2N=np.array([low for _, low, _ in each]),
        high_2N=np.array([high for _, _, high in each]),
    )


def pairs_above(score_TN, inside_TN, outside_TN, weight_T=None) -> np.ndarray:
    """Counts for every record the pairs in which the target with it scores higher, float64 [N].

    A pair is a target with the record and a target without it; ties count 1/2.

    Args:
        score_TN: the scores of each target.
        inside_TN, outside_TN: whether the target was trained with, or without, the record.
        weight_T: the weight of each target, by which pairs are weighted; None: 1.
    """
    weight_T = np.ones(len(score_TN)) if weight_T is None else np.asarray(weight_T, np.float64)
    total_N = np.zeros(score_TN.shape[1])
    for t, score_N in enumerate(score_TN):
        won_TN = (score_N > score_TN) + 0.5 * (score_N == score_TN)
        total_N += weight_T[t] * inside_TN[t] * (weight_T @ (won_TN * outside_TN))
    return total_N


def _interval(above_FN, size_F2N, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (auc, low, high) [N] from pairs won [F,N] and sizes [F,2,N] of the folds."""
    if above_FN.shape[1] > FEW:  # many records have equal numbers, which are computed once
        first_U, of_N = _distinct([*(2 * above_FN), *size_F2N.reshape(-1, size_F2N.shape[2])])
        if 2 * len(first_U) < len(of_N):
            values_U = _interval_of(above_FN[:, first_U], size_F2N[:, :, first_U], level)
            auc_N, low_N, high_N = (value_U[of_N] for value_U in values_U)
            return auc_N, low_N, high_N
    return _interval_of(above_FN, size_F2N, level)


def _distinct(columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first place of every distinct row, and which of them each row is.

    Args:
        columns: whole numbers of at least 0, a column each.
    """
    code_N = np.zeros(len(columns[0]), np.int64)
    for column_N in columns:
        value_N = np.asarray(column_N).astype(np.int64)
        code_N = code_N * (int(value_N.max(initial=0)) + 1) + value_N
        _, first_U, code_N = np.unique(code_N, return_index=True, return_inverse=True)
    return first_U, code_N


def _interval_of(above_FN, size_F2N, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what `_interval` returns."""
    pairs_FN = size_F2N.prod(1).astype(np.float64)
    total_N = pairs_FN.sum(0)
    known_N = total_N > 0
    share_FN = pairs_FN / np.where(known_N, total_N, 1)
    auc_N = np.where(known_N, above_FN.sum(0) / np.where(known_N, total_N, 1), 0.5)
    mean_FN, z = size_F2N.mean(1), special.ndtri((1 + level) / 2)

    def deviation(a_N):
        spread = 1 + (mean_FN - 1) * ((1 - a_N) / (2 - a_N) + a_N / (1 + a_N))
        return (
            share_FN * np.sqrt(np.maximum(a_N * (1 - a_N) / np.maximum(pairs_FN, 1) * spread, 0))
        ).sum(0)

    ends = []
    for far in (0.0, 1.0):
        near_N, far_N = auc_N.copy(), np.full(len(auc_N), far)  # inside and outside the interval
        for _ in range(45):
            middle_N = (near_N + far_N) / 2
            within = np.abs(auc_N - middle_N) <= z * deviation(middle_N)
            near_N, far_N = np.where(within, middle_N, near_N), np.where(within, far_N, middle_N)
        ends.append(np.where(known_N, near_N, np.nan))
    return np.where(known_N, auc_N, np.nan), ends[0], ends[1]


@functools.lru_cache(maxsize=4096)
def distribution(inside: int, outside: int) -> np.ndarray:
    """Returns P(U = u) for u = 0 .. inside * outside when all orders are equally likely.

    It uses the recursion of Mann and Whitney 1947, in which nothing cancels.
    """
    before = [np.ones(1) for _ in range(outside + 1)]  # without members U = 0
    for i in range(1, inside + 1):
        row = [np.ones(1)]
        for j in range(1, outside + 1):
            probability_U = np.zeros(i * j + 1)
            # the highest is one of the i, which beats all j
            probability_U[j:] += i / (i + j) * before[j]
            probability_U[: len(row[-1])] += j / (i + j) * row[-1]
            row.append(probability_U)
        before = row
    return before[outside]


def p_values(above_N, size_2N) -> np.ndarray:
    """Returns P(U >= what was seen) [N] for random scores.

    It is computed from the pairs won [N] and the sizes [2,N] of the two sides in one fold; NaN
    where there is no pair.
    """
    keys, code_N = np.unique(size_2N, axis=1, return_inverse=True)
    seen_N, p_N = np.floor(above_N).astype(int), np.full(len(above_N), np.nan)
    for k, (inside, outside) in enumerate(keys.T.tolist()):
        same_N, pairs = code_N.ravel() == k, inside * outside
        if 0 < pairs <= EXACT:
            tail = np.cumsum(distribution(inside, outside)[::-1])[::-1]
            p_N[same_N] = np.minimum(1, tail[seen_N[same_N]])
        elif pairs:
            deviation = np.sqrt(pairs * (inside + outside + 1) / 12)
            p_N[same_N] = special.ndtr(-(seen_N[same_N] - pairs / 2 - 0.5) / deviation)
    return p_N


def most_exposed(
    score_TN,
    member_TN,
    evaluated_TN,
    unit_T,
    *,
    top: int = 20,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[dict, Halves]:
    """Measures on held-out targets the records that half of a fold's targets rank highest.

    Args:
        score_TN: the scores of each target, higher = more likely a member; NaN where unknown.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        unit_T: the unit of each target (twins share one).
        top: how many of the highest records are chosen in each half.
        draws: the number of bootstrap draws of the interval.
        level: the confidence level.
        seed: the seed of the draws.

    Returns:
        ({records, ranked_auc, held_out_auc, low, high}, halves). `ranked_auc` and `held_out_auc`
            are the mean AUCs of the `records` chosen records in the half that ranked them and in
            the other half of the fold, averaged over both folds and both halves. `low` and `high`
            resample the units of the halves that did not choose (percentiles; None with fewer than
            5 units). If no record has both sides in every half, `records` is 0 and the other values
            are None.
    """
    score_TN, member_TN = np.asarray(score_TN, np.float64), np.asarray(member_TN, bool)
    valid_TN = np.asarray(evaluated_TN, bool) & ~np.isnan(score_TN)
    fold_T, half_T = folds(unit_T), halves(unit_T)
    ranked, held, drawn, count, rng = [], [], [], top, np.random.default_rng(seed)
    halves_N: Halves | None = None
    for fold in (0, 1):
        rows = [np.flatnonzero((fold_T == fold) & (half_T == half)) for half in (0, 1)]
        sides = [
            (score_TN[r], valid_TN[r] & member_TN[r], valid_TN[r] & ~member_TN[r]) for r in rows
        ]
        estimates = [
            _interval(pairs_above(*side)[None], np.array([[side[1].sum(0), side[2].sum(0)]]), level)
            for side in sides
        ]
        if halves_N is None:
            halves_N = Halves(estimates[0][0], *estimates[1])
        known = np.flatnonzero(~np.isnan(estimates[0][0] + estimates[1][0]))
        count = min(count, len(known))
        if not count:
            none = dict(records=0, ranked_auc=None, held_out_auc=None, low=None, high=None)
            return none, halves_N
        for half in (0, 1):
            chosen = known[np.argsort(-estimates[half][0][known], kind="stable")[:count]]
            ranked.append(estimates[half][0][chosen].mean())
            held.append(estimates[1 - half][0][chosen].mean())
            other_score, other_inside, other_outside = sides[1 - half]
            drawn.append(
                _resampled(
                    other_score[:, chosen],
                    other_inside[:, chosen],
                    other_outside[:, chosen],
                    np.asarray(unit_T)[rows[1 - half]],
                    rng,
                    draws,
                )
            )
    held_out_auc = float(np.mean(held))
    ends: tuple[float | None, float | None] = (None, None)
    value_R = np.mean(drawn, 0)
    if intervals.usable(value_R):
        low, high = intervals.percentile(value_R, level)
        ends = (min(low, held_out_auc), max(high, held_out_auc))
    assert halves_N is not None
    summary = dict(records=count, ranked_auc=float(np.mean(ranked)), held_out_auc=held_out_auc)
    return summary | dict(low=ends[0], high=ends[1]), halves_N


def _resampled(score_TN, inside_TN, outside_TN, unit_T, rng, draws: int) -> np.ndarray:
    """Returns the mean AUC [R] over the given records when units of targets are resampled.

    Units are drawn with replacement; NaN with fewer than 5 units.
    """
    _, index_T = np.unique(unit_T, return_inverse=True)
    units = len(np.unique(index_T))
    if units < bootstrap.FEWEST_UNITS:
        return np.full(draws, np.nan)
    value_R = np.empty(draws)
    for r, weight_T in enumerate(bootstrap.counts(rng, units, draws)[index_T].T):
        pairs_N = (weight_T @ inside_TN) * (weight_T @ outside_TN)
        above_N = pairs_above(score_TN, inside_TN, outside_TN, weight_T)
        value_R[r] = (
            np.mean(above_N[pairs_N > 0] / pairs_N[pairs_N > 0]) if (pairs_N > 0).any() else np.nan
        )
    return value_R
