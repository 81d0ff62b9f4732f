"""The rows of a report: every metric of every attack over the targets, pooled, and target by target, each with its interval and how it was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.metrics import bootstrap, intervals, outcomes, roc
from mia_jax.metrics.outcomes import Counts, Outcome

FPRS = (0.001, 0.01, 0.1)
OPTIMISTIC = ("advantage_optimistic", "oracle_threshold")
BRIEF = ("auc", "tpr@", "advantage", "balanced_accuracy")  # what single targets show when there are many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What all attacks share; `own` are each target's stratified draws [N,R], empty when there are too many targets for intervals of their own.

    `weight_2TR` are the weights of members and non-members under the draws.
    """

    member_TN: np.ndarray
    evaluated_TN: np.ndarray
    targets: tuple[int, ...]
    draws: bootstrap.Draws
    own: tuple[np.ndarray, ...]
    weight_2TR: tuple[np.ndarray, ...]
    fprs: tuple[float, ...]
    ratio: float
    level: float


class Drawn(NamedTuple):
    """A number and its bootstrap values [R]: `low_R` errs low, `high_R` errs high (equal for an AUC); kept to compare attacks draw by draw."""

    outcome: Outcome
    low_R: np.ndarray
    high_R: np.ndarray


class Scored(NamedTuple):
    """One attack, sorted: a ROC and its rows for each target; `counts_T` and `named_TN` at the shadow-chosen thresholds (None without them).

    `weight_2TR` are the weights of the named members and non-members under the draws; `drawn[target, metric]` collects what the attack drew over
    all targets (target None or 'pooled').
    """

    score_TN: np.ndarray
    curves: tuple[roc.Roc, ...]
    ranks: tuple[bootstrap.Ranked, ...]
    named_TN: np.ndarray | None
    counts_T: Counts | None
    no_threshold: str
    drawn: dict[tuple, Drawn]
    weight_2TR: tuple[np.ndarray, ...] = ()


def rows(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    *,
    targets: Sequence[int] | None = None,
    unit_T=None,
    draws: bootstrap.Draws | None = None,
    fprs: Sequence[float] = FPRS,
    ppv_ratio: float = 1.0,
    level: float = 0.95,
    detail: int = 8,
    keep: dict[str, dict] | None = None,
) -> list[dict]:
    """Rows {attack, target, slice, metric, value, low, high, interval, method, convention, fpr_realized, n_member, n_nonmember, n_targets, knows}.

    `attacks[name]` has `score_TN` (higher = more likely a member; NaN outside evaluated_TN) and optionally `knows`, `threshold_T` (chosen on shadows:
    `thresholds.shadow_thresholds`; None or NaN = no shadows) and `no_threshold` (why). `target` None = mean over targets, 'pooled' = one ROC over all
    (target, record) pairs, else the model's number from `targets`; up to `detail` targets get intervals of their own. `unit_T`: targets resampled
    together (twins). `n_member`, `n_nonmember` are a target's for None (their mean if they differ), all pairs' for 'pooled'. Metrics: auc, tpr@FPR;
    at the shadow-chosen threshold tpr, fpr, advantage = TPR - FPR, balanced_accuracy, ppv@RATIO (non-members a member); and, optimistic with
    knows='oracle_threshold' and `null_mean` beside them, advantage_optimistic = max |TPR - FPR| and oracle_threshold = best balanced accuracy.
    Mean rows carry `sd_over_models`. A dict `keep` is filled with keep[attack][target, metric] = Drawn (`comparisons.rows`).
    Raises ValueError on NaN scores of evaluated rows and on targets without members or non-members.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    T, N = checks.shape("TN", member=member_TN, evaluated=evaluated_TN).values()
    checks.fraction(closed="neither", level=level)
    checks.positive(ppv_ratio=ppv_ratio, **{f"fpr {fpr:g}": fpr for fpr in fprs})
    draws = bootstrap.make(N, np.arange(T) if unit_T is None else unit_T) if draws is None else draws
    count = draws.record_NR.shape[1]
    study = Study(
        member_TN=member_TN,
        evaluated_TN=evaluated_TN,
        targets=tuple(range(T)) if targets is None else tuple(int(t) for t in targets),
        draws=draws,
        own=tuple(bootstrap.stratified(draws.seed + 1 + t, member_TN[t], evaluated_TN[t], count) for t in range(T)) if T <= detail else (),
        fprs=tuple(fprs),
        ratio=ppv_ratio,
        weight_2TR=bootstrap.side_weights(member_TN, evaluated_TN, evaluated_TN, draws.record_NR) if T > 1 else (),
        level=level,
    )
    return [row for name, attack in attacks.items() for row in _attack_rows(study, name, attack, keep)]


def _attack_rows(study: Study, name: str, attack: Mapping, keep: dict | None) -> list[dict]:
    scored, knows = _sorted(study, name, attack), attack.get("knows", "shadows")
    T = len(study.targets)
    inside_T, outside_T = (study.evaluated_TN & study.member_TN).sum(1), (study.evaluated_TN & ~study.member_TN).sum(1)
    single = [_single(study, scored, t) for t in range(T)]
    scopes = [
        (None, single[0] if T == 1 else _mean(study, scored), inside_T.mean(), outside_T.mean(), T),
        ("pooled", single[0] if T == 1 else _pooled(study, scored), inside_T.sum(), outside_T.sum(), T),
        *((study.targets[t], single[t], inside_T[t], outside_T[t], 1) for t in range(T)),
    ]
    if keep is not None:
        keep[name] = scored.drawn
    return [
        dict(attack=name, target=target, slice="all", metric=metric, value=o.value, low=o.low, high=o.high, interval=o.interval, method=o.method)
        | dict(convention=o.convention, fpr_realized=o.fpr_realized, n_member=round(float(n1)), n_nonmember=round(float(n0)), n_targets=count)
        | dict(knows="oracle_threshold" if metric in OPTIMISTIC else knows, **o.more)
        for target, found, n1, n0, count in scopes
        for metric, o in found.items()
    ]


def _sorted(study: Study, name: str, attack: Mapping) -> Scored:
    """Checks and sorts the scores of every target once."""
    score_TN, N = np.asarray(attack["score_TN"], np.float64), study.member_TN.shape[1]
    checks.shape("TN", member=study.member_TN, **{f"scores of {name}": score_TN})
    curves, ranks = [], []
    for t, target in enumerate(study.targets):
        at = np.flatnonzero(study.evaluated_TN[t])
        try:
            curves.append(roc.roc(score_TN[t, at], study.member_TN[t, at]))
        except ValueError as e:
            raise ValueError(f"attack {name!r}, target {target}: {e}") from e
        ranks.append(bootstrap.ranked(score_TN[t, at], study.member_TN[t, at], t * N + at))
    threshold_T = attack.get("threshold_T")
    if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
        return Scored(score_TN, tuple(curves), tuple(ranks), None, None, attack.get("no_threshold", "no shadow to choose a threshold on"), {})
    named_TN = study.evaluated_TN & (score_TN >= np.asarray(threshold_T, np.float64)[:, None])
    sides = (study.evaluated_TN & study.member_TN, study.evaluated_TN & ~study.member_TN)
    counts_T = Counts(*(rows_TN.sum(1).astype(float) for side_TN in sides for rows_TN in (side_TN & named_TN, side_TN)))
    weight_2TR = bootstrap.side_weights(study.member_TN, study.evaluated_TN, named_TN, study.draws.record_NR) if study.weight_2TR else ()
    return Scored(score_TN, tuple(curves), tuple(ranks), named_TN, counts_T, "", {}, weight_2TR)


def _missing(study: Study, scored: Scored) -> dict[str, Outcome]:
    """The metrics of a fixed threshold where there is none."""
    return {m: Outcome(None, method=scored.no_threshold, convention=outcomes.RULE) for m in outcomes.at_threshold(0.0, 0.0, study.ratio)}


def _single(study: Study, scored: Scored, t: int) -> dict[str, Outcome]:
    """One target: stratified bootstrap, the box where counts are small, closed forms at the fixed threshold; values only when there are many."""
    curve, rank, level = scored.curves[t], scored.ranks[t], study.level
    low_FR, high_FR, method = None, None, "value only"
    out = {"auc": Outcome(roc.auc(curve), method=method, convention=outcomes.TIES)}
    if study.own:
        method = f"stratified bootstrap, {study.own[t].shape[1]} draws"
        steps = [outcomes.allowed(fpr, len(rank.nonmember_J)) for fpr in study.fprs]
        auc_R, low_FR, high_FR = bootstrap.redraw(rank, study.own[t], None, steps)
        out["auc"] = outcomes.area(roc.auc(curve), auc_R, min(len(rank.member_I), len(rank.nonmember_J)), level, "records", method)
    at = study.evaluated_TN[t]
    out |= outcomes.single_tprs(curve, scored.score_TN[t, at], study.member_TN[t, at], study.fprs, low_FR, high_FR, level, method)
    if study.own and len(study.targets) == 1:
        _keep(scored, None, out, auc_R, low_FR, high_FR, study.fprs)
    if scored.counts_T is None:
        out |= _missing(study, scored)
    else:
        counts = Counts(*(float(c[t]) for c in scored.counts_T))
        values = outcomes.at_threshold(counts.tp / counts.inside, counts.fp / counts.outside, study.ratio)
        limits = outcomes.closed_form(counts, study.ratio, level) if study.own else dict.fromkeys(values, (None, None, "value only"))
        for metric, value in values.items():
            low, high, how = limits[metric]
            out[metric] = Outcome(value, low, high, "fixed_threshold" if study.own else None, how, outcomes.RULE, values["fpr"])
    if study.own:
        return out | outcomes.optimistic([curve])
    return {metric: o for metric, o in out.items() if metric.startswith(BRIEF)}


def _mean(study: Study, scored: Scored) -> dict[str, Outcome]:
    """Means over targets of each target's metric; draws reweight records within a target and targets in the mean."""
    draws, level, T = study.draws, study.level, len(study.targets)
    steps_TF = [[outcomes.allowed(fpr, len(r.nonmember_J)) for fpr in study.fprs] for r in scored.ranks]
    redrawn = [bootstrap.redraw(rank, draws.record_NR, None, steps) for rank, steps in zip(scored.ranks, steps_TF)]
    auc_R, low_FR, high_FR = (np.array([outcomes.average(x_TR, draws.unit_TR) for x_TR in _by_target(part)]) for part in zip(*redrawn))
    areas = [roc.auc(curve) for curve in scored.curves]
    smaller = min(min(len(r.member_I), len(r.nonmember_J)) for r in scored.ranks)
    out = {"auc": outcomes.area(float(np.mean(areas)), auc_R[0], smaller, level, draws.resampling, draws.method, outcomes.spread(areas))}
    for f, fpr in enumerate(study.fprs):
        points = [roc.tpr_at_fpr(curve, fpr) for curve in scored.curves]
        if None in points:
            out[f"tpr@{fpr:g}"] = outcomes.unresolvable(fpr, int(min(c.n_nonmember for c in scored.curves)))
            continue
        counts = Counts(sum(p.true_positives for p in points), sum(c.n_member for c in scored.curves), 0, 0)
        tprs, more = [p.tpr for p in points], outcomes.spread([p.tpr for p in points])
        realized = float(np.mean([p.fpr for p in points]))
        out[f"tpr@{fpr:g}"] = outcomes.several_tpr(float(np.mean(tprs)), realized, counts, T, low_FR[f], high_FR[f], level, draws, more)
    _keep(scored, None, out, auc_R[0], low_FR, high_FR, study.fprs)
    if scored.counts_T is None:
        return out | _missing(study, scored) | outcomes.optimistic(scored.curves)
    (tp_TR, fp_TR), (in_TR, out_TR) = scored.weight_2TR, study.weight_2TR
    drawn = outcomes.at_threshold(_share(tp_TR, in_TR), _share(fp_TR, out_TR), study.ratio)
    counts = scored.counts_T
    values = outcomes.at_threshold(counts.tp / counts.inside, counts.fp / counts.outside, study.ratio)
    out |= outcomes.several_at_threshold(
        {m: v.mean() for m, v in values.items()},
        {m: outcomes.average(v, draws.unit_TR) for m, v in drawn.items()},
        Counts(*(float(c.sum()) for c in counts)),
        T,
        study.ratio,
        level,
        draws,
        {m: outcomes.spread(v) for m, v in values.items()},
    )
    return out | outcomes.optimistic(scored.curves)


def _keep(scored: Scored, target: str | None, found: Mapping[str, Outcome], auc_R, low_FR, high_FR, fprs) -> None:
    """Keeps the draws of the numbers that have an interval."""
    for metric, low_R, high_R in (("auc", auc_R, auc_R), *((f"tpr@{f:g}", low, high) for f, low, high in zip(fprs, low_FR, high_FR))):
        if found[metric].low is not None:
            scored.drawn[target, metric] = Drawn(found[metric], low_R, high_R)


def _by_target(part: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[T] arrays [R] or [F,R] -> a list of [T,R], one for each leading entry."""
    stacked = np.stack([np.atleast_2d(p) for p in part])
    return [stacked[:, f] for f in range(stacked.shape[1])]


def _share(part_TR: np.ndarray, whole_TR: np.ndarray) -> np.ndarray:
    return np.where(whole_TR > 0, part_TR / np.where(whole_TR > 0, whole_TR, 1.0), np.nan)


def pool(score_TN, member_TN, evaluated_TN) -> tuple[roc.Roc, bootstrap.Ranked]:
    """One ROC over all evaluated (target, record) pairs and its sorted rows, numbered t N + n."""
    at = np.flatnonzero(evaluated_TN)
    score_K, member_K = np.asarray(score_TN, np.float64).ravel()[at], np.asarray(member_TN, bool).ravel()[at]
    return roc.roc(score_K, member_K), bootstrap.ranked(score_K, member_K, at)


def _pooled(study: Study, scored: Scored) -> dict[str, Outcome]:
    """One ROC over all pairs; draws weight a pair by its record's count times its target's."""
    draws, level, T = study.draws, study.level, len(study.targets)
    curve, rank = pool(scored.score_TN, study.member_TN, study.evaluated_TN)
    steps = [outcomes.allowed(fpr, len(rank.nonmember_J)) for fpr in study.fprs]
    auc_R, low_FR, high_FR = bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, steps)
    smaller = round(min(curve.n_member, curve.n_nonmember) / T)
    out = {"auc": outcomes.area(roc.auc(curve), auc_R, smaller, level, draws.resampling, draws.method)}
    for f, fpr in enumerate(study.fprs):
        point = roc.tpr_at_fpr(curve, fpr)
        if point is None:
            out[f"tpr@{fpr:g}"] = outcomes.unresolvable(fpr, int(curve.n_nonmember))
            continue
        counts = Counts(point.true_positives, curve.n_member, 0, 0)
        out[f"tpr@{fpr:g}"] = outcomes.several_tpr(point.tpr, point.fpr, counts, T, low_FR[f], high_FR[f], level, draws)
    _keep(scored, "pooled", out, auc_R, low_FR, high_FR, study.fprs)
    if scored.counts_T is None:
        return out | _missing(study, scored) | outcomes.optimistic([curve], independent=False)
    unit_TR = 1.0 if draws.unit_TR is None else draws.unit_TR
    tp_R, fp_R, in_R, out_R = ((w * unit_TR).sum(0) for w in (*scored.weight_2TR, *study.weight_2TR))
    counts = Counts(*(float(c.sum()) for c in scored.counts_T))
    out |= outcomes.several_at_threshold(
        outcomes.at_threshold(counts.tp / counts.inside, counts.fp / counts.outside, study.ratio),
        outcomes.at_threshold(_share(tp_R, in_R), _share(fp_R, out_R), study.ratio),
        counts,
        T,
        study.ratio,
        level,
        draws,
    )
    return out | outcomes.optimistic([curve], independent=False)


def band(score_TN, member_TN, evaluated_TN, draws: bootstrap.Draws, points: int = 40, level: float = 0.95) -> dict[str, np.ndarray]:
    """The pooled ROC for a figure: {fpr, tpr} at up to 300 FPRs from 1/n to 1 on a log scale, and pointwise intervals {band_fpr, low, high}."""
    curve, rank = pool(score_TN, member_TN, evaluated_TN)
    fine, steps = (np.unique(np.geomspace(1, curve.n_nonmember, count).round().astype(int)) for count in (300, points))
    tpr, at = (curve.tpr_V[np.searchsorted(curve.false_V, k, side="right") - 1] for k in (fine, steps))
    _, low_FR, high_FR = bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, steps.tolist())
    low, high = (
        [intervals.percentile(x, level)[end] if intervals.usable(x) else float(end) for x in x_FR] for end, x_FR in enumerate((low_FR, high_FR))
    )  # too few records to resample: the whole of [0, 1]
    n = curve.n_nonmember
    return dict(fpr=fine / n, tpr=tpr, band_fpr=steps / n, low=np.minimum(low, at), high=np.maximum(high, at))
