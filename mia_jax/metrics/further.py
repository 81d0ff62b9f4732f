"""Computes rows in addition to the headline rows of `summary`.

They are other conventions of reading a ROC, partial areas, precision and accuracy, the calibration
of thresholds that were chosen on shadows, and heuristics.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.metrics import (
    bootstrap,
    components,
    intervals,
    outcomes,
    placements,
    ratio_bounds,
    record_groups,
    roc,
    summary,
)
from mia_jax.metrics.jackknife import Key
from mia_jax.metrics.outcomes import Counts, Outcome
from mia_jax.metrics.study import Each, Study, TargetCounts, in_turn, result_row

NO_SHADOW = "no shadow to choose a threshold on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted(Study):
    """Holds a study with the weights of its members and non-members under the draws."""

    weights: placements.Weights


def rows(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    *,
    draws: bootstrap.Draws,
    fprs: Sequence[float] = summary.FPRS,
    level: float = 0.95,
    each: Each = in_turn,
) -> list[dict]:
    """Computes the further rows of every attack, in the columns of `summary.rows`.

    Metrics of the ROC, without intervals:
    - strict_tpr@f, linear_tpr@f, hull_tpr@f: the TPR by other conventions of `roc.tpr_at_fpr`.
    - hull_auc: the area under the hull; partial_auc@f: the mean TPR up to an FPR of f.
    - mann_whitney_p: twice the median over targets of the one-sided p-values, which is valid
      whatever their dependence.
    - best_accuracy: optimistic, with its threshold `at_threshold`.
    - eps_from_rates_heuristic: the mean of `ratio_bounds.eps_from_rates_heuristic`.

    Metrics at the shadow-calibrated thresholds, with intervals:
    - threshold: the mean threshold (without an interval); precision, recall, f1 and accuracy.
    - fpr_at_shadow@f, tpr_at_shadow@f (with attack['threshold_FT']): the rates on the target at the
      threshold that flags a share f of the shadows' non-members. `calibrated` says whether the
      interval of that FPR contains f.

    Args:
        attacks: as in `summary.rows`, optionally with `threshold_FT`
            (`thresholds.shadow_thresholds_at`).
        member_TN, evaluated_TN, draws, fprs, level: as in `summary.rows`.
        each: computes the rows of the attacks, {attack: function}, or returns what they were in an
            earlier process.

    Returns:
        Rows for target None (means over targets) and, for some metrics of curves, 'pooled'.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    study = Weighted(
        member_TN=member_TN,
        evaluated_TN=evaluated_TN,
        weights=placements.weights(
            evaluated_TN & member_TN, evaluated_TN & ~member_TN, draws.record_NR
        ),
        draws=draws,
        fprs=tuple(fprs),
        level=level,
    )
    computes = {name: functools.partial(_attack, study, name, a) for name, a in attacks.items()}
    return [row for attack_rows in each(computes) for row in attack_rows]


def at_zero(attacks: Mapping[str, Mapping], member_TN, evaluated_TN) -> list[dict]:
    """Returns rows tpr@0, the TPR without a false positive, as means over targets.

    They have no interval, because the highest non-member alone sets the threshold.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    sides = [
        round(float((evaluated_TN & side_TN).sum(1).mean())) for side_TN in (member_TN, ~member_TN)
    ]
    result_rows = []
    for name, attack in attacks.items():
        score_TN = np.asarray(attack["score_TN"], np.float64)
        values = [
            roc.tpr_at_zero(roc.roc(s[e], m[e])).tpr
            for s, m, e in zip(score_TN, member_TN, evaluated_TN, strict=True)
        ]
        mean = _mean(
            values, outcomes.STEP, "value only: the highest non-member alone sets the threshold"
        )._replace(fpr_realized=0.0)
        result_rows.append(
            result_row(
                mean,
                attack=name,
                target=None,
                metric="tpr@0",
                n_member=sides[0],
                n_nonmember=sides[1],
                n_targets=len(values),
                knows=attack.get("knows", "shadows"),
            )
        )
    return result_rows


def _attack(study: Weighted, name: str, attack: Mapping) -> list[dict]:
    score_TN, T = record_groups.as_scores(attack["score_TN"]), len(study.member_TN)
    done = attack.get("sorted")
    pairs = [(s, m, e) for s, m, e in zip(score_TN, study.member_TN, study.evaluated_TN)]
    curves = [roc.roc(s[e], m[e]) for s, m, e in pairs] if done is None else list(done.curves)
    outcome_of: dict[Key, Outcome] = {
        (None, metric): o for metric, o in _curves(curves, study.fprs).items()
    }
    if done is not None:
        pooled = [done.pooled]
    elif T == 1:
        pooled = curves
    else:
        pooled = [summary.pool(score_TN, study.member_TN, study.evaluated_TN)[0]]
    outcome_of |= {
        ("pooled", m): o
        for m, o in _curves(pooled, study.fprs).items()
        if "_tpr@" in m or m == "hull_auc"
    }
    outcome_of |= {(None, metric): o for metric, o in _tests(curves, pairs, study.level).items()}
    outcome_of |= {
        (None, metric): o
        for metric, o in (
            _at_threshold(study, score_TN, attack) | _calibration(study, score_TN, attack)
        ).items()
    }
    counts = {
        None: (study.inside_T.mean(), study.outside_T.mean()),
        "pooled": (study.inside_T.sum(), study.outside_T.sum()),
    }
    return [
        result_row(
            outcome,
            attack=name,
            target=target,
            metric=metric,
            n_member=counts[target][0],
            n_nonmember=counts[target][1],
            n_targets=T,
            knows="oracle_threshold"
            if metric == "best_accuracy"
            else attack.get("knows", "shadows"),
        )
        for (target, metric), outcome in outcome_of.items()
    ]


def _curves(curves: Sequence[roc.Roc], fprs: Sequence[float]) -> dict[str, Outcome]:
    """Returns what other conventions read off the curves, as means over curves."""
    hulls = [roc.hull(curve) for curve in curves]
    out: dict[str, Outcome] = {}
    for fpr in fprs:
        fewest = min(curve.n_nonmember for curve in curves)
        if not roc.resolvable(fpr, fewest):
            names = {f"{c}_tpr@{fpr:g}": c for c in roc.CONVENTIONS[1:]} | {
                f"partial_auc@{fpr:g}": "linear"
            }
            out |= {
                name: outcomes.unresolvable(fpr, int(fewest))._replace(convention=c)
                for name, c in names.items()
            }
            continue
        out[f"partial_auc@{fpr:g}"] = _mean(
            [roc.partial_auc(curve, fpr) for curve in curves], "linear", f"guessing: {fpr / 2:g}"
        )
        for convention, used in (("strict", curves), ("linear", curves), ("hull", hulls)):
            points = [
                roc.operating_point(curve, fpr, "linear" if convention == "hull" else convention)
                for curve in used
            ]
            mean = _mean([p.tpr for p in points], convention)
            out[f"{convention}_tpr@{fpr:g}"] = mean._replace(
                fpr_realized=float(np.mean([p.fpr for p in points]))
            )
    return out | {"hull_auc": _mean([roc.auc(hull) for hull in hulls], "hull")}


def _mean(values: Sequence[float], convention: str, method: str = "value only") -> Outcome:
    more = outcomes.spread(values) if len(values) > 1 else {}
    return Outcome(float(np.mean(values)), method=method, convention=convention, more=more)


def _tests(curves: Sequence[roc.Roc], pairs: Sequence[tuple], level: float) -> dict[str, Outcome]:
    """Returns the Mann-Whitney p-value, the best accuracy and a heuristic for epsilon."""
    p = [roc.mann_whitney(curve) for curve in curves]
    how = "one-sided, corrected for ties" + (
        "" if len(p) == 1 else "; twice the median over targets"
    )
    best = [roc.best_accuracy(curve) for curve in curves]
    threshold = np.array([t for t, _ in best])
    optimistic = _mean(
        [a for _, a in best], outcomes.RULE, "optimistic: threshold chosen with the true labels"
    )
    at = dict(at_threshold=float(threshold.mean())) if np.isfinite(threshold).all() else {}
    eps = [ratio_bounds.eps_from_rates_heuristic(s[e], m[e], alpha=1 - level) for s, m, e in pairs]
    words = (
        f"{eps[0].method}, TPR/FPR at level {level:g}; not a bound on differential privacy, "
        "because the records of one model are not independent trials"
    )
    return {
        "mann_whitney_p": Outcome(
            p[0] if len(p) == 1 else min(1.0, 2 * float(np.median(p))),
            method=how,
            convention=outcomes.TIES,
        ),
        "best_accuracy": optimistic._replace(more=dict(optimistic.more) | at),
        "eps_from_rates_heuristic": _mean([e.value for e in eps], outcomes.RULE, words),
    }


def at_threshold(tpr, fpr, ratio) -> dict[str, np.ndarray]:
    """Returns precision, recall, f1 and accuracy from rates and non-members per member.

    The arguments are numbers or arrays that broadcast. Precision is 0 where no row is flagged.
    """
    named = tpr + ratio * fpr
    return {
        "precision": np.where(
            named > 0, tpr / np.where(named > 0, named, 1.0), np.where(np.isnan(named), np.nan, 0.0)
        ),
        "recall": tpr,
        "f1": 2 * tpr / (1 + named),
        "accuracy": (tpr + ratio * (1 - fpr)) / (1 + ratio),
    }


def _at_threshold(study: Weighted, score_TN, attack: Mapping) -> dict[str, Outcome]:
    threshold_T = attack.get("threshold_T")
    if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
        why = attack.get("no_threshold", NO_SHADOW)
        return {
            m: Outcome(None, method=why, convention=outcomes.RULE)
            for m in ("threshold", *at_threshold(0.0, 0.0, 1.0))
        }
    threshold_T = np.asarray(threshold_T, np.float64)
    named_TN, ratio_T = score_TN >= threshold_T[:, None], study.outside_T / study.inside_T
    tpr_T, fpr_T = _rates(study, named_TN)
    values = at_threshold(tpr_T, fpr_T, ratio_T)
    drawn = at_threshold(*placements.shares(named_TN, study.weights), ratio_T[:, None])
    finite = np.isfinite(threshold_T).all()
    out = {
        "threshold": _mean(threshold_T.tolist(), outcomes.RULE)
        if finite
        else Outcome(None, method="infinite: it flags no rows or all rows")
    }
    knows = {m: outcomes.at_threshold_knows(m, attack.get("knows", "shadows")) for m in values}
    return out | {
        m: _interval(study, values[m], drawn[m], float(fpr_T.mean()), knows[m]) for m in values
    }


def _rates(study: Weighted, named_TN) -> tuple[np.ndarray, np.ndarray]:
    """Returns TPR and FPR [T] of the flagged rows."""
    named_TN = named_TN & study.evaluated_TN
    return (named_TN & study.member_TN).sum(1) / study.inside_T, (named_TN & ~study.member_TN).sum(
        1
    ) / study.outside_T


def _interval(study: Weighted, value_T, value_TR, fpr: float, knows: str) -> Outcome:
    value, value_R = float(np.mean(value_T)), outcomes.average(value_TR, study.draws.unit_TR)
    more = outcomes.spread(value_T) if len(value_T) > 1 else {}
    if not intervals.usable(value_R) or np.nanmax(value_R) == np.nanmin(value_R):
        return Outcome(
            value,
            method="the draws do not differ",
            convention=outcomes.RULE,
            fpr_realized=fpr,
            more=more,
        )
    if len(value_T) == 1:
        low, high = intervals.percentile(value_R, study.level)
    else:
        error = _error(study, value_T, value_TR, knows)
        low, high = intervals.angular(
            outcomes.unbiased(value, value_R), error.deviation, study.level, error.freedom
        )
    return Outcome(
        value,
        min(low, value),
        max(high, value),
        study.draws.resampling,
        study.draws.method,
        outcomes.RULE,
        fpr,
        more,
    )


def _error(study: Weighted, value_T, value_TR, knows: str) -> components.Error:
    """Returns the standard error of a mean over targets."""
    parts = components.parts(value_T, value_TR, study.draws.index_T)
    return components.error(parts, crossed=study.draws.unit_TR is not None, knows=knows)


def _calibration(study: Weighted, score_TN, attack: Mapping) -> dict[str, Outcome]:
    """Returns the realized rates of thresholds that flag a share of the shadows' non-members."""
    if attack.get("threshold_FT") is None:
        return {}
    out: dict[str, Outcome] = {}
    T = len(score_TN)
    for fpr, threshold_T in zip(
        study.fprs, np.asarray(attack["threshold_FT"], np.float64), strict=True
    ):
        names = {"tpr": f"tpr_at_shadow@{fpr:g}", "fpr": f"fpr_at_shadow@{fpr:g}"}
        if np.isnan(threshold_T).any():
            why = f"{NO_SHADOW}, or it has too few non-members"
            out |= {
                name: Outcome(None, method=why, convention=outcomes.RULE) for name in names.values()
            }
            continue
        named_TN = score_TN >= threshold_T[:, None]
        tpr_T, fpr_T = _rates(study, named_TN)
        counts = TargetCounts(
            tpr_T * study.inside_T, study.inside_T, fpr_T * study.outside_T, study.outside_T
        ).total()
        if T == 1:
            outcome_of = _closed_forms(counts, study.level)
        else:
            drawn_TR = dict(zip(names, placements.shares(named_TN, study.weights)))
            drawn = {m: outcomes.average(x_TR, study.draws.unit_TR) for m, x_TR in drawn_TR.items()}
            values, rates_T = (
                dict(tpr=float(tpr_T.mean()), fpr=float(fpr_T.mean())),
                dict(tpr=tpr_T, fpr=fpr_T),
            )
            errors = {
                m: _error(study, rates_T[m], x_TR, outcomes.at_threshold_knows(m, "shadows"))
                for m, x_TR in drawn_TR.items()
            }
            outcome_of = outcomes.several_at_threshold(
                values, drawn, counts, T, 1.0, study.level, study.draws, errors
            )
        realized = outcome_of["fpr"]
        calibrated = None
        if realized.low is not None and realized.high is not None:
            calibrated = bool(realized.low <= fpr <= realized.high)
        out[names["tpr"]] = outcome_of["tpr"]
        out[names["fpr"]] = realized._replace(
            more=dict(realized.more) | dict(calibrated=calibrated)
        )
    return out


def _closed_forms(counts: Counts, level: float) -> dict[str, Outcome]:
    """Returns exact binomial intervals of one target at a threshold fixed beforehand."""
    limits = outcomes.closed_form(counts, 1.0, level)
    values = dict(tpr=counts.tp / counts.inside, fpr=counts.fp / counts.outside)
    return {
        m: Outcome(v, *limits[m][:2], "fixed_threshold", limits[m][2], outcomes.RULE, values["fpr"])
        for m, v in values.items()
    }
