"""Computes a number with its interval, for one target and for several.

It decides which resampling or closed form is right for which metric: AUC (`area`), TPR at an FPR
(`single_tprs`, `several_tpr`), rates at a threshold (`several_at_threshold`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mia_jax.metrics import intervals, roc
from mia_jax.metrics.components import Error

# With fewer false positives, flagged or missed members, or records of a side, the bootstrap of one
# target has too few distinct values.
FEW = 5
TOO_FEW = "too few records to resample"
STEP, TIES, RULE = "step", "ties 1/2", "score >= threshold"


class Outcome(NamedTuple):
    """Holds one number with its interval.

    Attributes:
        value: the number; None if it is not available, and `method` says why.
        low, high: the interval; None if there is none.
        interval: what the interval generalizes to: 'crossed', 'records' or 'fixed_threshold'.
        method: how the interval was made.
        convention: how the number is read off the ROC or a threshold.
        fpr_realized: the false-positive rate that was realized.
        more: further columns of the row.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    method: str = ""
    convention: str = ""
    fpr_realized: float | None = None
    more: Mapping[str, float | bool | None] = {}


class Counts(NamedTuple):
    """Holds the counts at a threshold.

    Attributes:
        tp, inside: the flagged members, and all members.
        fp, outside: the flagged non-members, and all non-members.
    """

    tp: float
    inside: float
    fp: float
    outside: float


def allowed(fpr: float, n_nonmember: int) -> int:
    """Returns how many false positives the step rule allows.

    It is at least 1, since below that the rate is not resolvable.
    """
    return max(1, int(fpr * n_nonmember * (1 + roc.TINY)))


def unresolvable(fpr: float, n_nonmember: int) -> Outcome:
    """Returns the outcome of a TPR at an FPR below that of a single false positive."""
    return Outcome(None, method=f"not resolvable: FPR {fpr:g} < 1/{n_nonmember}", convention=STEP)


def area(
    value: float,
    auc_R,
    smaller_side: int,
    level: float,
    interval: str,
    method: str,
    more: Mapping[str, float | bool | None] = {},
    error: Error | None = None,
) -> Outcome:
    """Returns the AUC with its interval on the logit scale and the p-value of 'AUC <= 1/2'.

    Args:
        value: the AUC.
        auc_R: the AUC under R draws.
        smaller_side: the number of members or of non-members, whichever is smaller.
        level: the confidence level.
        interval: what the interval generalizes to (`Outcome.interval`).
        method: how the interval was made; ', logit scale' is appended.
        more: further columns of the row.
        error: the standard error; None: the standard deviation of the draws (normal).
    """
    # Few rows do not show how their ranks spread. A perfect order is bounded by their number alone.
    few = smaller_side < FEW and 0 < value < 1
    if few or not intervals.usable(auc_R):
        return Outcome(value, method=TOO_FEW, convention=TIES, more=more)
    error = Error(float(np.nanstd(auc_R))) if error is None else error
    low, high = intervals.logit(value, error.deviation, smaller_side, level, error.freedom)
    p = intervals.logit_p(value, error.deviation, smaller_side, error.freedom)
    return Outcome(
        value,
        low,
        high,
        interval,
        method + ", logit scale",
        TIES,
        more=dict(more) | dict(p_value=p),
    )


def at_threshold(tpr, fpr, ratio: float) -> dict[str, np.ndarray]:
    """Returns the metrics at one threshold from its rates (numbers or arrays of one shape)."""
    return {
        "tpr": tpr,
        "fpr": fpr,
        "advantage": tpr - fpr,
        "balanced_accuracy": (tpr + 1 - fpr) / 2,
        f"ppv@{ratio:g}": roc.ppv(tpr, fpr, ratio),
    }


def closed_form(counts: Counts, ratio: float, level: float) -> dict[str, tuple[float, float, str]]:
    """Returns (low, high, method) of one target's metrics at a threshold fixed beforehand."""
    low, high = intervals.difference(*counts, level)
    return {
        "tpr": (*intervals.clopper_pearson(counts.tp, counts.inside, level), "Clopper-Pearson"),
        "fpr": (*intervals.clopper_pearson(counts.fp, counts.outside, level), "Clopper-Pearson"),
        "advantage": (low, high, "Newcombe over Clopper-Pearson"),
        "balanced_accuracy": ((1 + low) / 2, (1 + high) / 2, "Newcombe over Clopper-Pearson"),
        f"ppv@{ratio:g}": (
            *intervals.precision(*counts, ratio, level),
            "MOVER-R over Clopper-Pearson",
        ),
    }


def single_tprs(
    curve: roc.Roc,
    score_K,
    member_K,
    fprs: Sequence[float],
    low_FR,
    high_FR,
    level: float,
    method: str,
) -> dict[str, Outcome]:
    """Returns the TPR at each FPR for one target.

    Args:
        curve: the ROC curve of the target.
        score_K, member_K: its rows.
        fprs: the false-positive rates.
        low_FR, high_FR: draws that err low and draws that err high; None: values only.
        level: the confidence level.
        method: the name of the bootstrap.
    """
    out = {}
    for f, fpr in enumerate(fprs):
        point = roc.tpr_at_fpr(curve, fpr)
        if point is None:
            out[f"tpr@{fpr:g}"] = unresolvable(fpr, int(curve.n_nonmember))
            continue
        few = (
            min(
                allowed(fpr, int(curve.n_nonmember)),
                point.true_positives,
                curve.n_member - point.true_positives,
            )
            < FEW
        )
        if low_FR is None:
            low, high, interval, how = None, None, None, "value only"
        elif few:
            (low, high), interval, how = (
                intervals.box(score_K, member_K, fpr, level),
                "records",
                "box: threshold band x Clopper-Pearson",
            )
            p = box_p(score_K, member_K, fpr)
        else:
            low = min(intervals.percentile(low_FR[f], level)[0], point.tpr)
            high = max(intervals.percentile(high_FR[f], level)[1], point.tpr)
            interval, how = "records", f"{method}, threshold chosen again per draw"
            p = intervals.angular_p(
                float(np.nanmedian(low_FR[f])), fpr, float(np.nanstd(low_FR[f]))
            )
        out[f"tpr@{fpr:g}"] = Outcome(
            point.tpr,
            low,
            high,
            interval,
            how,
            STEP,
            point.fpr,
            {} if low_FR is None else dict(p_value=p),
        )
    return out


def box_p(score_K, member_K, fpr: float, most: float | None = None) -> float:
    """Returns the p-value of 'TPR <= most' (None: FPR) for `intervals.box`, which is exact.

    It is the smallest (1 - level)/2 whose lower end is above `most`, by bisection on its logarithm.
    """
    most = fpr if most is None else most
    low, high = -36.0, float(np.log(0.5))  # below, 1 - level is 0 in float64
    if not intervals.box(score_K, member_K, fpr, 1e-6)[0] > most:
        return 1.0
    for _ in range(20):
        middle = (low + high) / 2
        above = intervals.box(score_K, member_K, fpr, 1 - 2 * np.exp(middle))[0] > most
        low, high = (low, middle) if above else (middle, high)
    return float(np.exp(high))


def several_tpr(
    value: float,
    center: float,
    fpr: float,
    fpr_realized: float,
    counts: Counts,
    targets: int,
    tpr_R,
    level: float,
    draws,
    error: Error,
    more: Mapping = {},
) -> Outcome:
    """Returns the TPR at an FPR over several targets, with the p-value of 'TPR <= fpr'.

    The interval is on the angular scale and about `center`, since the true FPR of the step rule's
    threshold is one non-member too high on average, which shows in a mean over many targets. It is
    extended to the step rule's value. With few flagged or few missed members it is at least as wide
    as the Clopper-Pearson interval of one target.

    Args:
        value: the TPR by the step rule.
        center: `roc.tpr_between`, or for means over targets `roc.between_true`.
        fpr, fpr_realized: the requested and the realized false-positive rate.
        counts: the counts of all targets together.
        targets: the number of targets.
        tpr_R: the TPR under R draws.
        level: the confidence level.
        draws: the draws, for `interval` and `method`.
        error: the standard error.
        more: further columns of the row.
    """
    if not intervals.usable(tpr_R):
        return Outcome(value, method=TOO_FEW, convention=STEP, fpr_realized=fpr_realized, more=more)
    low, high = intervals.angular(center, *_at_level(error, level))
    p, how = (
        intervals.angular_p(center, fpr, *error),
        f"{draws.method}, threshold by the slope of the ROC, angular scale",
    )
    if min(counts.tp, counts.inside - counts.tp) < FEW or not low < high:
        tp, inside = round(counts.tp / targets), round(counts.inside / targets)
        exact = intervals.clopper_pearson(tp, inside, level)
        low, high, how = (
            min(low, exact[0]),
            max(high, exact[1]),
            how + ", widened to Clopper-Pearson of one target",
        )
        p = max(p, float(stats.binom.sf(tp - 1, inside, fpr)))
    more = dict(more) | dict(p_value=p)
    return Outcome(
        value, min(low, value), max(high, value), draws.resampling, how, STEP, fpr_realized, more
    )


def percentiles(
    value: float,
    fpr: float,
    fpr_realized: float,
    counts: Counts,
    low_R,
    high_R,
    level: float,
    draws,
) -> Outcome:
    """Returns the TPR at an FPR of one target with percentiles of R draws of its records.

    With few flagged or few missed members the interval is at least that of Clopper-Pearson.

    Args:
        value: the TPR.
        fpr, fpr_realized: the requested and the realized false-positive rate.
        counts: the counts behind the TPR.
        low_R, high_R: draws that err low and draws that err high.
        level: the confidence level.
        draws: the draws, for `interval` and `method`.
    """
    if not intervals.usable(low_R):
        return Outcome(value, method=TOO_FEW, convention=STEP, fpr_realized=fpr_realized)
    low, high = intervals.percentile(low_R, level)[0], intervals.percentile(high_R, level)[1]
    how, p = (
        f"{draws.method}, threshold chosen again per draw",
        intervals.angular_p(float(np.nanmedian(low_R)), fpr, float(np.nanstd(low_R))),
    )
    if min(counts.tp, counts.inside - counts.tp) < FEW:
        exact = intervals.clopper_pearson(round(counts.tp), round(counts.inside), level)
        low, high, how = (
            min(low, exact[0]),
            max(high, exact[1]),
            how + ", widened to Clopper-Pearson of one target",
        )
        p = max(p, float(stats.binom.sf(counts.tp - 1, counts.inside, fpr)))
    return Outcome(
        value,
        min(low, value),
        max(high, value),
        draws.resampling,
        how,
        STEP,
        fpr_realized,
        dict(p_value=p),
    )


def _at_level(error: Error, level: float) -> tuple[float, float, float]:
    return error.deviation, level, error.freedom


def at_threshold_knows(metric: str, knows: str) -> str:
    """Returns what an attack knows for the purpose of a metric's standard error.

    Rates at a threshold hold for these shadow models only, like the threshold itself. A shift that
    all shadows share moves the scores and the threshold together, and with them TPR, FPR and
    precision; no score shows by how much. TPR - FPR (advantage, balanced accuracy) is hardly
    affected and generalizes to other shadows.
    """
    return (
        "nothing"
        if metric in ("tpr", "fpr", "precision", "recall", "f1", "accuracy")
        or metric.startswith("ppv@")
        else knows
    )


def several_at_threshold(
    value: Mapping[str, float],
    drawn: Mapping[str, np.ndarray],
    counts: Counts,
    targets: int,
    ratio: float,
    level: float,
    draws,
    errors: Mapping[str, Error],
    more: Mapping = {},
    methods: Mapping[str, str] = {},
) -> dict[str, Outcome]:
    """Returns the metrics at the shadow-calibrated thresholds over several targets.

    The intervals of rates are on the angular scale; those of TPR - FPR and of what is linear in it
    are untransformed.

    Args:
        value: the value of each metric.
        drawn: the value of each metric under R draws.
        counts: the counts of all targets together.
        targets: the number of targets.
        ratio: non-members per member of ppv@RATIO.
        level: the confidence level.
        draws: the draws, for `interval` and `method`.
        errors: the standard error of each metric.
        more: further columns of each metric's row.
        methods: the `method` of metrics for which that of `draws` is not right.
    """
    typical = closed_form(Counts(*(round(c / targets) for c in counts)), ratio, level)
    out = {}
    for metric, value_R in drawn.items():
        if not intervals.usable(value_R):
            out[metric] = Outcome(
                float(value[metric]),
                None,
                None,
                None,
                TOO_FEW,
                RULE,
                float(value["fpr"]),
                more.get(metric, {}),
            )
            continue
        center, how = float(value[metric]), methods.get(metric, draws.method)
        if metric.startswith("ppv@"):
            center = unbiased(center, value_R)
        low, high = at_level(metric, center, errors[metric], level)
        low, high = min(low, float(value[metric])), max(high, float(value[metric]))
        if not low < high:
            low, high = min(low, typical[metric][0]), max(high, typical[metric][1])
            how = f"{typical[metric][2]} of one target (the draws do not differ)"
        out[metric] = Outcome(
            float(value[metric]),
            low,
            high,
            draws.resampling,
            how,
            RULE,
            float(value["fpr"]),
            more.get(metric, {}),
        )
    return out


def unbiased(value: float, value_R) -> float:
    """Returns a ratio in [0, 1] minus its bias, the mean excess of its draws [R] over it.

    In a mean over many targets the bias would be visible.
    """
    return float(np.clip(2 * value - np.nanmean(value_R), 0.0, 1.0))


def at_level(metric: str, value: float, error: Error, level: float) -> tuple[float, float]:
    """Returns (low, high) of a metric at a fixed threshold, given its standard error."""
    if metric in ("advantage", "balanced_accuracy"):
        half = intervals.t_half(error.deviation, level, error.freedom)
        return max(value - half, -1.0 if metric == "advantage" else 0.0), min(value + half, 1.0)
    return intervals.angular(value, *_at_level(error, level))


def optimistic(curves: Sequence[roc.Roc], independent: bool = True) -> dict[str, Outcome]:
    """Returns means over `curves` of what the best threshold reaches on the target itself.

    Each has the mean for random scores, `null_mean`, if the curves are `independent`.
    """
    out = {}
    for metric, two_sided, best, center, scale in (
        ("advantage_optimistic", True, roc.advantage, 0.0, 1.0),
        ("oracle_threshold", False, lambda c: roc.best_threshold(c)[1], 0.5, 0.5),
    ):
        null = center + scale * float(
            np.mean([roc.null_advantage(c.n_member, c.n_nonmember, two_sided) for c in curves])
        )
        how = (
            f"optimistic: {null:.3f} on average for random scores"
            if independent
            else "optimistic: threshold chosen with the true labels"
        )
        value = float(np.mean([best(c) for c in curves]))
        out[metric] = Outcome(
            value, method=how, convention=RULE, more=dict(null_mean=null) if independent else {}
        )
    return out


def average(value_TR: np.ndarray, unit_TR: np.ndarray | None) -> np.ndarray:
    """Returns the mean over targets [R], weighted by the draws of units.

    A target whose draw left a side empty (NaN) is left out of that draw.
    """
    weight_TR = ~np.isnan(value_TR) * (1.0 if unit_TR is None else unit_TR)
    total_R = weight_TR.sum(0)
    return np.where(
        total_R > 0,
        (weight_TR * np.nan_to_num(value_TR)).sum(0) / np.where(total_R > 0, total_R, 1.0),
        np.nan,
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the standard deviation over models (not an interval)."""
    return dict(sd_over_models=float(np.std(values, ddof=1)))
