"""One number with its interval, for one target and for several: which resampling or closed form is right for which metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.metrics import intervals, roc

FEW = 5  # with fewer false positives, members named or missed, or records of a side, one target's bootstrap has too few distinct values
TOO_FEW = "too few records to resample"
STEP, TIES, RULE = "step", "ties 1/2", "score >= threshold"


class Outcome(NamedTuple):
    """`value` None = not available, `method` says why; low None = no interval. `more` holds further columns of the row."""

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    method: str = ""
    convention: str = ""
    fpr_realized: float | None = None
    more: Mapping[str, float] = {}


class Counts(NamedTuple):
    """At one threshold: members named, members, non-members named, non-members."""

    tp: float
    inside: float
    fp: float
    outside: float


def allowed(fpr: float, n_nonmember: int) -> int:
    """How many false positives the step rule allows; at least 1, since below that the rate is not resolvable anyway."""
    return max(1, int(fpr * n_nonmember * (1 + roc.TINY)))


def unresolvable(fpr: float, n_nonmember: int) -> Outcome:
    """TPR at an FPR that not even one false positive would keep."""
    return Outcome(None, method=f"not resolvable: FPR {fpr:g} < 1/{n_nonmember}", convention=STEP)


def area(value: float, auc_R, smaller_side: int, level: float, interval: str, method: str, more: Mapping[str, float] = {}) -> Outcome:
    """AUC with its interval on the logit scale."""
    few = smaller_side < FEW and 0 < value < 1  # too few to show how their ranks spread; a perfect order is bounded by their number alone
    if few or not intervals.usable(auc_R):
        return Outcome(value, method=TOO_FEW, convention=TIES, more=more)
    low, high = intervals.logit(value, float(np.nanstd(auc_R)), smaller_side, level)
    return Outcome(value, low, high, interval, method + ", logit scale", TIES, more=more)


def at_threshold(tpr, fpr, ratio: float) -> dict[str, np.ndarray]:
    """The metrics of one threshold from its rates (arrays of any one shape)."""
    return {
        "tpr": tpr,
        "fpr": fpr,
        "advantage": tpr - fpr,
        "balanced_accuracy": (tpr + 1 - fpr) / 2,
        f"ppv@{ratio:g}": roc.ppv(tpr, fpr, ratio),
    }


def closed_form(counts: Counts, ratio: float, level: float) -> dict[str, tuple[float, float, str]]:
    """(low, high, method) of the metrics of one target at a threshold that was fixed beforehand."""
    low, high = intervals.difference(*counts, level)
    return {
        "tpr": (*intervals.clopper_pearson(counts.tp, counts.inside, level), "Clopper-Pearson"),
        "fpr": (*intervals.clopper_pearson(counts.fp, counts.outside, level), "Clopper-Pearson"),
        "advantage": (low, high, "Newcombe over Clopper-Pearson"),
        "balanced_accuracy": ((1 + low) / 2, (1 + high) / 2, "Newcombe over Clopper-Pearson"),
        f"ppv@{ratio:g}": (*intervals.ratio_box(*counts, ratio, level), "box of two Clopper-Pearson"),
    }


def single_tprs(curve: roc.Roc, score_K, member_K, fprs: Sequence[float], low_FR, high_FR, level: float, method: str) -> dict[str, Outcome]:
    """TPR at each FPR for one target; `low_FR`, `high_FR` None = values only."""
    out = {}
    for f, fpr in enumerate(fprs):
        point = roc.tpr_at_fpr(curve, fpr)
        if point is None:
            out[f"tpr@{fpr:g}"] = unresolvable(fpr, int(curve.n_nonmember))
            continue
        few = min(allowed(fpr, int(curve.n_nonmember)), point.true_positives, curve.n_member - point.true_positives) < FEW
        if low_FR is None:
            low, high, interval, how = None, None, None, "value only"
        elif few:
            (low, high), interval, how = intervals.box(score_K, member_K, fpr, level), "records", "box: threshold band x Clopper-Pearson"
        else:
            low = min(intervals.percentile(low_FR[f], level)[0], point.tpr)
            high = max(intervals.percentile(high_FR[f], level)[1], point.tpr)
            interval, how = "records", f"{method}, threshold chosen anew"
        out[f"tpr@{fpr:g}"] = Outcome(point.tpr, low, high, interval, how, STEP, point.fpr)
    return out


def several_tpr(value: float, fpr_realized: float, counts: Counts, targets: int, low_R, high_R, level: float, draws, more={}) -> Outcome:
    """TPR at an FPR over several targets from R draws; `counts` are of all targets. Few members named or missed: at least one target's own limits."""
    if not intervals.usable(low_R):
        return Outcome(value, method=TOO_FEW, convention=STEP, fpr_realized=fpr_realized, more=more)
    low, high = intervals.percentile(low_R, level)[0], intervals.percentile(high_R, level)[1]
    how = f"{draws.method}, threshold chosen anew"
    if min(counts.tp, counts.inside - counts.tp) < FEW:
        own = intervals.clopper_pearson(round(counts.tp / targets), round(counts.inside / targets), level)
        low, high, how = min(low, own[0]), max(high, own[1]), how + ", widened to Clopper-Pearson of one target"
    return Outcome(value, min(low, value), max(high, value), draws.resampling, how, STEP, fpr_realized, more)


def several_at_threshold(
    value: Mapping[str, float], drawn: Mapping[str, np.ndarray], counts: Counts, targets: int, ratio: float, level: float, draws, more: Mapping = {}
) -> dict[str, Outcome]:
    """The metrics at the shadow-chosen thresholds over several targets; `drawn[metric]` are R draws, `counts` are of all targets."""
    typical = closed_form(Counts(*(round(c / targets) for c in counts)), ratio, level)
    out = {}
    for metric, value_R in drawn.items():
        if not intervals.usable(value_R):
            out[metric] = Outcome(float(value[metric]), None, None, None, TOO_FEW, RULE, float(value["fpr"]), more.get(metric, {}))
            continue
        low, high = intervals.percentile(value_R, level)
        low, high, how = min(low, float(value[metric])), max(high, float(value[metric])), draws.method
        if not low < high:
            low, high = min(low, typical[metric][0]), max(high, typical[metric][1])
            how = f"{typical[metric][2]} of one target (the draws do not differ)"
        out[metric] = Outcome(float(value[metric]), low, high, draws.resampling, how, RULE, float(value["fpr"]), more.get(metric, {}))
    return out


def optimistic(curves: Sequence[roc.Roc], independent: bool = True) -> dict[str, Outcome]:
    """Means over `curves` of the best that any threshold does on the target itself, with what scores that carry nothing reach on average."""
    out = {}
    for metric, two_sided, best, center, scale in (
        ("advantage_optimistic", True, roc.advantage, 0.0, 1.0),
        ("oracle_threshold", False, lambda c: roc.best_threshold(c)[1], 0.5, 0.5),
    ):
        null = center + scale * float(np.mean([roc.null_advantage(c.n_member, c.n_nonmember, two_sided) for c in curves]))
        how = f"optimistic: {null:.3f} on average when scores carry nothing" if independent else "optimistic: threshold chosen with the answer"
        value = float(np.mean([best(c) for c in curves]))
        out[metric] = Outcome(value, method=how, convention=RULE, more=dict(null_mean=null) if independent else {})
    return out


def average(value_TR: np.ndarray, unit_TR: np.ndarray | None) -> np.ndarray:
    """Mean over targets [R], weighted by the draws of units; a target whose draw left a side empty (NaN) is left out of that draw."""
    weight_TR = ~np.isnan(value_TR) * (1.0 if unit_TR is None else unit_TR)
    total_R = weight_TR.sum(0)
    return np.where(total_R > 0, (weight_TR * np.nan_to_num(value_TR)).sum(0) / np.where(total_R > 0, total_R, 1.0), np.nan)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The standard deviation over models (not an interval)."""
    return dict(sd_over_models=float(np.std(values, ddof=1)))
