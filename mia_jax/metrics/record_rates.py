"""Measures the TPR at an FPR that holds for every record, next to the one pooled over records.

A pooled rate has one threshold for all records. Its FPR is a mean over records: those with large
scores are accused often, others never. A likelihood ratio spends its false positives on the records
that are exposed, a threshold on losses on those that are hard, so the rates of single records are
above or below the pooled ones. Here every record has a threshold of its own, taken from the models
that were not trained on it (arXiv:2605.25819 states the problem).

A record has few such models. Its scores are therefore compared with the predictive distribution of
the score of one more of them: Student's t about their mean, with a variance that is shrunk toward a
prior over all records (fitting/variances.py). The score of a model is never compared with its own,
nor with one of its unit (a twin); only the prior is common to all. If the scores of a record are
normal, a non-member's p-value is uniform for this record however few models there are; for other
shapes the threshold on p-values gives the FPR on average over records. Estimating a threshold from
few models costs power and never adds any: by the lemma of Neyman and Pearson the rate is at most
that of an attacker who knows the distributions. Comparing a score with models that include its own
adds power that no attacker has.

Scores must not depend on each other through the models that are compared: those of attacks with
shadow models come from the other fold (`records.other_fold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.fitting import moments, variances
from mia_jax.metrics import intervals, roc
from mia_jax.metrics.record_groups import EXACT

FEWEST = 2  # models without a record that its scores are compared with
GROUPS = 16  # of units of models that are left out for an interval
EXPECTED = 5  # false positives from which an interval is made


class Rate(NamedTuple):
    """Holds a TPR at an FPR, with its interval over models and records.

    Attributes:
        tpr: the rate; None where the FPR is below one false positive of all.
        low, high: the interval; None with fewer than EXPECTED allowed false positives.
    """

    tpr: float | None
    low: float | None
    high: float | None


class Scored(NamedTuple):
    """Holds what rates are read off: scores with sides, units and folds.

    Attributes:
        score_TN: higher = more likely a member; read where a side is marked.
        inside_TN, outside_TN: the scored members and non-members of each target.
        unit_T: the unit of each target (twins share one).
        fold_T: targets of different folds are never compared.
    """

    score_TN: np.ndarray
    inside_TN: np.ndarray
    outside_TN: np.ndarray
    unit_T: np.ndarray
    fold_T: np.ndarray


def calibrated(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Returns (p_TN, count_TN): a p-value per score, and with how many models it was compared.

    p = P(T > (s - m) / sqrt(v (1 + 1/k))), where k models of other units of the same fold were not
    trained on the record, m is the mean of their scores, and v their variance, shrunk. NaN where no
    side is marked or k is below FEWEST.
    """
    p_TN = np.full(scored.score_TN.shape, np.nan)
    count_TN = np.zeros(scored.score_TN.shape, np.int32)
    for fold in np.unique(scored.fold_T):
        rows = np.flatnonzero(scored.fold_T == fold)
        p_TN[rows], count_TN[rows] = _calibrated_fold(_rows(scored, rows))
    return p_TN, count_TN


def _rows(scored: Scored, rows: np.ndarray) -> Scored:
    return Scored(*(field[rows] for field in scored))


def _calibrated_fold(fold: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `calibrated` returns, of targets that are all compared with each other."""
    p_TN, count_TN = np.empty(fold.score_TN.shape), np.empty(fold.score_TN.shape, np.int32)
    whole = moments.moments(fold.score_TN, fold.outside_TN)
    variance, dof = variances.prior(whole.m2, whole.count - 1)
    _, unit_T = np.unique(fold.unit_T, return_inverse=True)
    for cols in moments.blocks(fold.score_TN.shape[1]):
        score_TN, outside_TN = fold.score_TN[:, cols], fold.outside_TN[:, cols]
        others = moments.leave_unit_out_moments(score_TN, outside_TN, unit_T)
        p_TN[:, cols], count_TN[:, cols] = _p_values(
            score_TN,
            fold.inside_TN[:, cols] | outside_TN,
            moments.Moments(*(field[unit_T] for field in others)),
            variance=variance,
            dof=dof,
        )
    return p_TN, count_TN


def _p_values(
    score_TN, used_TN, others: moments.Moments, *, variance: float, dof: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (p_TN, count_TN) of scores under the predictive distributions of other models."""
    enough_TN = used_TN & (others.count >= FEWEST)
    count_TN = np.maximum(others.count, FEWEST)
    if np.isinf(dof):
        v_TN, dof_TN = np.full(count_TN.shape, variance), np.full(count_TN.shape, np.inf)
    else:
        dof_TN = dof + count_TN - 1
        v_TN = (dof * variance + others.m2) / dof_TN
    apart_TN = np.where(enough_TN, score_TN, 0.0) - others.center
    sd_TN = np.sqrt(v_TN * (1 + 1 / count_TN))
    with np.errstate(divide="ignore", invalid="ignore"):
        t_TN = np.where(apart_TN == 0, 0.0, apart_TN / sd_TN)
    p_TN = special.ndtr(-t_TN) if np.isinf(dof) else special.stdtr(dof_TN, -t_TN)
    return np.where(enough_TN, p_TN, np.nan), np.where(enough_TN, count_TN, 0).astype(np.int32)


def measure(
    score_TN,
    member_TN,
    evaluated_TN,
    *,
    unit_T,
    fold_T,
    fprs: Sequence[float],
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures the TPR at each FPR, pooled over records and with a threshold per record.

    Both are rates of the same scores over the same (target, record) pairs. Above EXACT records a
    random sample of EXACT is measured.

    Args:
        score_TN: the scores of each target, higher = more likely a member; NaN where unknown.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        unit_T: the unit of each target (twins share one).
        fold_T: targets of different folds are never compared.
        fprs: the false-positive rates.
        level: the confidence level.
        seed: the seed of the sample.

    Returns:
        {rates, models, records}. `rates` has {fpr, pooled, per_record, again} per FPR above 0; the
            middle two are a `Rate` each, as a mapping. `again` is the probability that a record
            that the pooled threshold wrongly accuses in one model is wrongly accused in another
            one: the FPR if all records have the same; None if it cannot be seen. `models` is the
            median number of models that a score is compared with, `records` the number of records.
            {why} if no member and no non-member could be compared.
    """
    score_TN = np.asarray(score_TN, np.float64)
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    checks.shape("TN", score=score_TN, member=member_TN, evaluated=evaluated_TN)
    if score_TN.shape[1] > EXACT:
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.permutation(score_TN.shape[1])[:EXACT])
        score_TN, member_TN, evaluated_TN = (
            array_TN[:, kept] for array_TN in (score_TN, member_TN, evaluated_TN)
        )
    valid_TN = evaluated_TN & ~np.isnan(score_TN)
    scored = Scored(
        score_TN,
        valid_TN & member_TN,
        valid_TN & ~member_TN,
        np.asarray(unit_T),
        np.asarray(fold_T),
    )
    p_TN, count_TN = calibrated(scored)
    known_TN = ~np.isnan(p_TN)
    if not ((known_TN & scored.inside_TN).any() and (known_TN & scored.outside_TN).any()):
        return dict(
            why=f"no record has members and non-members that can be compared with {FEWEST} models "
            "of other units that were not trained on it"
        )
    seen = dict(
        models=int(np.median(count_TN[known_TN])),
        records=int(known_TN.any(0).sum()),
    )
    rates = [fpr for fpr in fprs if fpr > 0]
    if not rates:
        return dict(rates=[], **seen)
    pooled = _curve(np.where(known_TN, score_TN, np.nan), scored, rates)
    single = _curve(-p_TN, scored, rates)
    of_models = _without_models(scored, p_TN, pooled, single)
    pooled_F = _with_intervals(pooled, of_models[:, 0], fprs=rates, level=level)
    single_F = _with_intervals(single, of_models[:, 1], fprs=rates, level=level)
    return dict(
        rates=[
            dict(
                fpr=fpr,
                pooled=pooled_F[i]._asdict(),
                per_record=single_F[i]._asdict(),
                again=_again(pooled, scored, pooled.threshold_F[i]),
            )
            for i, fpr in enumerate(rates)
        ],
        **seen,
    )


class Curve(NamedTuple):
    """Holds one threshold per FPR over all pairs (target, record).

    Attributes:
        value_TN: what the threshold is on.
        inside_TN, outside_TN: the pairs that count, of members and of non-members.
        tpr_F, fpr_F, threshold_F: at each FPR; NaN, NaN and inf where it is not resolved.
        slope_F: how fast the TPR rises with the FPR there.
    """

    value_TN: np.ndarray
    inside_TN: np.ndarray
    outside_TN: np.ndarray
    tpr_F: np.ndarray
    fpr_F: np.ndarray
    threshold_F: np.ndarray
    slope_F: np.ndarray


def _curve(value_TN: np.ndarray, scored: Scored, fprs: Sequence[float]) -> Curve:
    """Returns the thresholds of values, which are NaN where a pair does not count."""
    known_TN = ~np.isnan(value_TN)
    inside_TN, outside_TN = scored.inside_TN & known_TN, scored.outside_TN & known_TN
    outside_K, inside_K = np.sort(value_TN[outside_TN])[::-1], np.sort(value_TN[inside_TN])

    def at(fpr: float) -> tuple[float, float, float]:
        if not roc.resolvable(fpr, len(outside_K)):
            return np.nan, np.nan, np.inf
        allowed = int(min(fpr, 1.0) * len(outside_K) * (1 + roc.TINY))
        # the first score that is not flagged, and all that tie with it
        bound = outside_K[allowed] if allowed < len(outside_K) else -np.inf
        tpr = 1 - np.searchsorted(inside_K, bound, side="right") / len(inside_K)
        false = np.searchsorted(-outside_K, -bound, side="left")
        return tpr, false / len(outside_K), float(np.nextafter(bound, np.inf))

    points = np.array([[at(fpr), at(fpr / 2), at(2 * fpr)] for fpr in fprs]).reshape(-1, 3, 3)
    slope_F = np.nan_to_num((points[:, 2, 0] - points[:, 1, 0]) / (1.5 * np.array(fprs)))
    tpr_F, fpr_F, threshold_F = points[:, 0].T
    return Curve(value_TN, inside_TN, outside_TN, tpr_F, fpr_F, threshold_F, slope_F)


def _without_models(scored: Scored, p_TN: np.ndarray, pooled: Curve, single: Curve) -> np.ndarray:
    """Returns what records add to the TPRs without each group of units, [G,2,F,N].

    The two are pooled, and calibrated again. There are at most GROUPS groups, of units in turn.
    """
    group_T = np.unique(scored.unit_T, return_inverse=True)[1] % GROUPS
    pull_G2FN = []
    for group in np.unique(group_T):
        kept = group_T != group
        fewer, again_TN = _rows(scored, kept), p_TN[kept]
        for fold in np.unique(scored.fold_T[~kept]):  # the other folds are as they were
            rows = np.flatnonzero(fewer.fold_T == fold)
            if len(rows):
                again_TN[rows] = _calibrated_fold(_rows(fewer, rows))[0]
        known_TN = ~np.isnan(again_TN)
        sides = fewer.inside_TN & known_TN, fewer.outside_TN & known_TN
        pull_G2FN.append(
            [
                _pulls(curve, value_TN, *sides)
                for curve, value_TN in ((pooled, fewer.score_TN), (single, -again_TN))
            ]
        )
    return np.array(pull_G2FN)


def _pulls(curve: Curve, value_TN, inside_TN, outside_TN) -> np.ndarray:
    """Returns what each record adds to the difference of the TPRs from those of a curve, [F,N].

    Thresholds stay where they are, and what the FPR gains or loses is given back at the slope of
    the curve: a threshold chosen again would jump between single scores.

    Args:
        curve: the thresholds, and the rates at them.
        value_TN, inside_TN, outside_TN: other values, and which pairs count.
    """
    inside_N, outside_N = inside_TN.sum(0), outside_TN.sum(0)
    members, nonmembers = max(inside_N.sum(), 1), max(outside_N.sum(), 1)
    pull_FN = []
    for tpr, fpr, threshold, slope in zip(
        curve.tpr_F, curve.fpr_F, curve.threshold_F, curve.slope_F, strict=True
    ):
        flagged_TN = value_TN >= threshold
        true_N = ((flagged_TN & inside_TN).sum(0) - tpr * inside_N) / members
        false_N = ((flagged_TN & outside_TN).sum(0) - fpr * outside_N) / nonmembers
        pull_FN.append(true_N - slope * false_N)
    return np.array(pull_FN)


def _with_intervals(
    curve: Curve, of_models_GFN: np.ndarray, *, fprs: Sequence[float], level: float
) -> list[Rate]:
    """Returns a `Rate` per FPR.

    The variance is that over records of what they add, and what the delete-a-group jackknife over
    models shows beyond it: its part due to single pairs (group, record) is in both.

    Args:
        curve: the thresholds.
        of_models_GFN: what `_without_models` returned.
        fprs, level: as in `measure`.
    """
    groups, nonmembers = len(of_models_GFN), curve.outside_TN.sum()
    records_F = np.square(_pulls(curve, *curve[:3])).sum(1)
    apart_GFN = of_models_GFN - of_models_GFN.mean(0)
    models_F, pairs_F = (
        (groups - 1) / groups * np.square(apart).sum(0)
        for apart in (apart_GFN.sum(2), np.moveaxis(apart_GFN, 2, 1).reshape(-1, len(fprs)))
    )
    made = []
    for i, fpr in enumerate(fprs):
        tpr, low, high = float(curve.tpr_F[i]), None, None
        if np.isnan(tpr):
            made.append(Rate(None, None, None))
            continue
        if fpr * nonmembers >= EXPECTED and groups > 1:
            models = max(float(models_F[i] - pairs_F[i]), 0.0)
            variance = float(records_F[i]) + models
            freedom = (groups - 1) * (variance / models) ** 2 if models > 0 else np.inf
            low, high = intervals.angular(tpr, float(np.sqrt(variance)), level, freedom)
        made.append(Rate(tpr, low, high))
    return made


def _again(curve: Curve, scored: Scored, threshold: float) -> float | None:
    """Returns the share of accusations among the other models of a record that was accused.

    Pairs are those of different units of the same fold; only wrong accusations are counted.
    """
    accused_TN = curve.outside_TN & (curve.value_TN >= threshold)
    both = asked = 0
    for fold in np.unique(scored.fold_T):
        rows = np.flatnonzero(scored.fold_T == fold)
        units, unit_T = np.unique(scored.unit_T[rows], return_inverse=True)
        accused_UN, outside_UN = (np.zeros((len(units), accused_TN.shape[1]), int) for _ in "ao")
        np.add.at(accused_UN, unit_T, accused_TN[rows])
        np.add.at(outside_UN, unit_T, curve.outside_TN[rows])
        accused_N, outside_N = accused_UN.sum(0), outside_UN.sum(0)
        both += int((accused_UN * (accused_N - accused_UN)).sum())
        asked += int((accused_UN * (outside_N - outside_UN)).sum())
    return both / asked if asked else None


def outside_pool(auc, fraction: float):
    """Returns the AUC of a record if models were trained on new records, at its closest to 1/2.

    All models of a fleet are trained on parts of one finite pool of records, so that they differ by
    less than models trained on new records: the mean of a part, a share f of the pool, varies by
    (1 - f) times the variance of the mean of as many new records. If scores are normal, react
    linearly to what else was in the training set, and vary for no other reason, the distance of the
    two sides in standard deviations is 1/sqrt(1 - f) times the one among new records. What else
    varies (noise, seeds, batches) is the same inside and outside the pool, so the AUC among new
    records is between Phi(sqrt(1 - f) Phi^-1(auc)) and `auc`.

    Args:
        auc: an AUC, or an array of AUCs.
        fraction: f in [0, 1), the share of the pool on which a model is trained.

    >>> round(outside_pool(0.75, 0.5), 3), round(outside_pool(0.75, 0.0), 3)
    (0.683, 0.75)
    """
    checks.fraction(closed="left", fraction=fraction)
    value = special.ndtr(np.sqrt(1 - fraction) * special.ndtri(auc))
    return float(value) if np.ndim(value) == 0 else value
