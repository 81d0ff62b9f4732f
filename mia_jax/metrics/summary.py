"""Computes the result rows of a report: every metric of every attack, with its interval.

Each metric is given as a mean over targets, pooled over all targets, and for each target.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.metrics import (
    bootstrap,
    components,
    intervals,
    jackknife,
    outcomes,
    placements,
    rank_bins,
    record_groups,
    roc,
    sorted_scores,
)
from mia_jax.metrics.components import Error, Left, Parts
from mia_jax.metrics.outcomes import Counts, Outcome
from mia_jax.metrics.record_groups import Counts as RecordCounts
from mia_jax.metrics.record_groups import Grouped
from mia_jax.metrics.sorted_scores import SortedScores
from mia_jax.metrics.study import Each, Study, TargetCounts, in_turn, result_row

FPRS = (0.001, 0.01, 0.1)
OPTIMISTIC = ("advantage_optimistic", "oracle_threshold")
DETAIL = 8  # targets up to which each has intervals of its own
# the metrics of single targets when there are many
BRIEF = ("auc", "tpr@", "advantage", "balanced_accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted(Study):
    """Holds a study with what the rows of single targets and of their means need.

    Attributes:
        targets: the numbers of the T audited models.
        stratified: each target's stratified draws [N,R]; empty when there are too many targets for
            each to get its own intervals.
        weight_2TR: the weights of members and non-members under the draws; empty for one target.
        sides: what shares of flagged records are computed with; None for one target.
    """

    targets: tuple[int, ...]
    stratified: tuple[RecordCounts, ...]
    weight_2TR: tuple[np.ndarray, ...]
    sides: placements.Weights | None

    @property
    def weights(self) -> placements.Weights:
        """Returns `sides`; raises ValueError for one target."""
        if self.sides is None:
            raise ValueError("a single target has no weights of several.")
        return self.sides


class Drawn(NamedTuple):
    """Holds a number with its bootstrap values [R], kept to compare attacks draw by draw.

    Attributes:
        outcome: the number and its interval.
        low_R, high_R: draws that err low and draws that err high (equal for an AUC).
        parts: the number unit by unit, for several targets.
        center: what the interval is centered on, for several targets.
        events: how many false positives the rate allows in all; inf for an AUC.
        knows: what the attack knows.
        left: the number without each group of units; None unless the attack was rerun.
    """

    outcome: Outcome
    low_R: np.ndarray
    high_R: np.ndarray
    parts: Parts | None = None
    center: float | None = None
    events: float = np.inf
    knows: str = "shadows"
    left: Left | None = None


class Scored(NamedTuple):
    """Holds one attack whose scores were sorted once.

    Attributes:
        score_TN: the scores, higher = more likely a member.
        curves: the ROC curve of each target.
        ranks: the sorted rows of each target; empty where groups of records share counts.
        done: what was drawn while the scores were sorted, where groups of records share counts.
        named_TN: the rows flagged at the shadow-calibrated thresholds; None without thresholds.
        counts_T: the counts at these thresholds; None without thresholds.
        no_threshold: why there are no thresholds ('' if there are).
        drawn: {(None or 'pooled', metric): Drawn}, filled with what is drawn over all targets.
        weight_2TR: the weights of the flagged members and non-members under the draws.
        knows: what the attack knows.
        left: the numbers without each group of units.
    """

    score_TN: np.ndarray
    curves: tuple[roc.Roc, ...]
    ranks: tuple[bootstrap.Ranked, ...]
    named_TN: np.ndarray | None
    counts_T: TargetCounts | None
    no_threshold: str
    drawn: dict[tuple, Drawn]
    weight_2TR: tuple[np.ndarray, ...] = ()
    knows: str = "shadows"
    left: Mapping[jackknife.Key, Left] = {}
    done: SortedScores | None = None


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
    detail: int = DETAIL,
    keep: dict[str, dict] | None = None,
    each: Each = in_turn,
) -> list[dict]:
    """Computes the rows of every metric of every attack, in the columns of `study.result_row`.

    Metrics: auc and tpr@FPR; at the shadow-calibrated threshold tpr, fpr, advantage = TPR - FPR,
    balanced_accuracy and ppv@RATIO (RATIO non-members per member); and, with
    knows='oracle_threshold' and `null_mean` (the mean for random scores), the optimistic
    advantage_optimistic = max |TPR - FPR| and oracle_threshold = the best balanced accuracy.

    Rows of auc and tpr@FPR with an interval have a `p_value`, one-sided, of 'no better than
    guessing'. Rows of means have `sd_over_models`. Where units of models can be resampled, the
    standard error comes from variance components: from reruns for attacks that know shadows
    (`components.left_error`), and without reruns from a rule that is often too wide
    (`components.error`). In both cases tpr, fpr and ppv at a threshold hold for these shadow models
    only.

    Args:
        attacks: {name: attack}. An attack has `score_TN` (higher = more likely a member; NaN
            outside evaluated_TN) and optionally `knows`, `threshold_T` (chosen on shadows by
            `thresholds.shadow_thresholds`; None or NaN = no shadows), `no_threshold` (why),
            `without` (its numbers without groups of units, a sequence of `jackknife.Rerun`) and
            `sorted` (its `SortedScores`, for draws of groups of records).
        member_TN, evaluated_TN: the members and the scored rows of each target.
        targets: the models' numbers, for the rows of single targets; None: 0 .. T-1.
        unit_T: targets of equal numbers are resampled together (twins); None: each by itself.
        draws: the bootstrap draws; None makes them.
        fprs: the false-positive rates of tpr@FPR.
        ppv_ratio: non-members per member of ppv@RATIO.
        level: the confidence level of the intervals.
        detail: up to this many targets get intervals of their own.
        keep: a dict that is filled with keep[attack][target, metric] = Drawn (`comparisons.rows`).
        each: computes the rows and the Drawn of the attacks, {attack: function}, or returns what
            they were in an earlier process.

    Returns:
        Rows with `target` None (mean over targets), 'pooled' (one ROC over all (target, record)
            pairs), and the number of each model. `n_member` and `n_nonmember` are those of a target
            (their mean if they differ) for None, and those of all pairs for 'pooled'.

    Raises:
        ValueError: a score of an evaluated row is NaN, or a target has no members or no
            non-members.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    T, N = checks.shape("TN", member=member_TN, evaluated=evaluated_TN).values()
    checks.fraction(closed="neither", level=level)
    checks.positive(ppv_ratio=ppv_ratio, **{f"fpr {fpr:g}": fpr for fpr in fprs})
    draws = (
        bootstrap.make(N, np.arange(T) if unit_T is None else unit_T) if draws is None else draws
    )
    study = Weighted(
        member_TN=member_TN,
        evaluated_TN=evaluated_TN,
        targets=tuple(range(T)) if targets is None else tuple(int(t) for t in targets),
        draws=draws,
        stratified=of_targets(draws, member_TN, evaluated_TN, detail=detail),
        fprs=tuple(fprs),
        ratio=ppv_ratio,
        weight_2TR=bootstrap.side_weights(member_TN, evaluated_TN, evaluated_TN, draws.record_NR)
        if T > 1
        else (),
        sides=placements.weights(
            evaluated_TN & member_TN, evaluated_TN & ~member_TN, draws.record_NR
        )
        if T > 1
        else None,
        level=level,
    )
    result_rows: list[dict] = []
    computes = {
        name: functools.partial(_attack_rows, study, name, attack, keep is not None)
        for name, attack in attacks.items()
    }
    for name, (attack_rows, drawn) in zip(computes, each(computes), strict=True):
        result_rows += attack_rows
        if keep is not None:
            keep[name] = drawn
    return result_rows


def of_targets(
    draws: bootstrap.Draws, member_TN, evaluated_TN, *, detail: int = DETAIL
) -> tuple[RecordCounts, ...]:
    """Returns each target's stratified draws; none for more than `detail` targets."""
    return tuple(
        bootstrap.stratified(draws.seed + 1 + t, *sides, draws.record_NR.shape[1])
        for t, sides in enumerate(zip(member_TN, evaluated_TN, strict=True))
        if len(member_TN) <= detail
    )


def _attack_rows(
    study: Weighted, name: str, attack: Mapping, keep: bool
) -> tuple[list[dict], dict]:
    """Returns the rows of one attack and, if they are to be kept, its Drawn."""
    scored, knows = _sorted(study, name, attack), attack.get("knows", "shadows")
    T, inside_T, outside_T = len(study.targets), study.inside_T, study.outside_T
    single = [_single(study, scored, t) for t in range(T)]
    scopes = [
        (None, single[0] if T == 1 else _mean(study, scored), inside_T.mean(), outside_T.mean(), T),
        (
            "pooled",
            single[0] if T == 1 else _pooled(study, scored),
            inside_T.sum(),
            outside_T.sum(),
            T,
        ),
        *((study.targets[t], single[t], inside_T[t], outside_T[t], 1) for t in range(T)),
    ]
    attack_rows = [
        result_row(
            outcome,
            attack=name,
            target=target,
            metric=metric,
            n_member=float(n_member),
            n_nonmember=float(n_nonmember),
            n_targets=count,
            knows="oracle_threshold" if metric in OPTIMISTIC else knows,
        )
        for target, outcome_of, n_member, n_nonmember, count in scopes
        for metric, outcome in outcome_of.items()
    ]
    return attack_rows, scored.drawn if keep else {}


def _sorted(study: Weighted, name: str, attack: Mapping) -> Scored:
    """Checks and sorts the scores of every target once."""
    score_TN, N = record_groups.as_scores(attack["score_TN"]), study.member_TN.shape[1]
    checks.shape("TN", member=study.member_TN, **{f"scores of {name}": score_TN})
    curves, ranks = [], []
    done: SortedScores | None = attack.get("sorted")
    if isinstance(study.draws.record_NR, Grouped) and done is None:
        try:
            done = sorted_scores.sort(
                score_TN,
                study.member_TN,
                study.evaluated_TN,
                targets=study.targets,
                draws=study.draws,
                fprs=study.fprs,
                stratified=study.stratified,
            )
        except ValueError as e:
            raise ValueError(f"attack {name!r}, {e}") from e
    for t, target in enumerate(study.targets) if done is None else ():
        at = np.flatnonzero(study.evaluated_TN[t])
        try:
            curves.append(roc.roc(score_TN[t, at], study.member_TN[t, at]))
        except ValueError as e:
            raise ValueError(f"attack {name!r}, target {target}: {e}") from e
        ranks.append(bootstrap.ranked(score_TN[t, at], study.member_TN[t, at], t * N + at))
    if done is not None:
        curves = list(done.curves)
    threshold_T = attack.get("threshold_T")
    left = jackknife.parts(
        attack, study.member_TN, study.evaluated_TN, draws=study.draws, fprs=study.fprs
    )
    more = dict(knows=attack.get("knows", "shadows"), left=left, done=done)
    if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
        why = attack.get("no_threshold", "no shadow to choose a threshold on")
        return Scored(score_TN, tuple(curves), tuple(ranks), None, None, why, {}, **more)
    named_TN = study.evaluated_TN & (score_TN >= np.asarray(threshold_T, np.float64)[:, None])
    sides = (study.evaluated_TN & study.member_TN, study.evaluated_TN & ~study.member_TN)
    counts_T = TargetCounts(
        *(
            rows_TN.sum(1).astype(float)
            for side_TN in sides
            for rows_TN in (side_TN & named_TN, side_TN)
        )
    )
    weight_2TR = (
        bootstrap.side_weights(study.member_TN, study.evaluated_TN, named_TN, study.draws.record_NR)
        if study.weight_2TR
        else ()
    )
    return Scored(
        score_TN, tuple(curves), tuple(ranks), named_TN, counts_T, "", {}, weight_2TR, **more
    )


def _missing(study: Weighted, scored: Scored) -> dict[str, Outcome]:
    """Returns the metrics of a fixed threshold where there is none."""
    return {
        m: Outcome(None, method=scored.no_threshold, convention=outcomes.RULE)
        for m in outcomes.at_threshold(0.0, 0.0, study.ratio)
    }


def _single(study: Weighted, scored: Scored, t: int) -> dict[str, Outcome]:
    """Returns the metrics of target t; values only when there are many targets.

    The intervals are those of a stratified bootstrap, of `intervals.box` where counts are small,
    and closed forms at the fixed threshold.
    """
    curve, level = scored.curves[t], study.level
    low_FR: np.ndarray | None = None
    high_FR: np.ndarray | None = None
    method = "value only"
    out = {"auc": Outcome(roc.auc(curve), method=method, convention=outcomes.TIES)}
    if study.stratified:
        method = f"stratified bootstrap, {study.stratified[t].shape[1]} draws"
        steps = [outcomes.allowed(fpr, int(curve.n_nonmember)) for fpr in study.fprs]
        if scored.done is None:
            redrawn = bootstrap.redraw(scored.ranks[t], study.stratified[t], None, steps)
        else:
            single = scored.done.single[t]
            redrawn = (single.auc_R, *single.ends(steps))
        auc_R, low_FR, high_FR = redrawn
        out["auc"] = outcomes.area(
            roc.auc(curve),
            auc_R,
            int(min(curve.n_member, curve.n_nonmember)),
            level,
            "records",
            method,
        )
    at = study.evaluated_TN[t]
    out |= outcomes.single_tprs(
        curve,
        scored.score_TN[t, at],
        study.member_TN[t, at],
        study.fprs,
        low_FR,
        high_FR,
        level,
        method,
    )
    if low_FR is not None and high_FR is not None and len(study.targets) == 1:
        _keep(scored, None, "auc", out, (auc_R, auc_R))
        for fpr, low_R, high_R in zip(study.fprs, low_FR, high_FR):
            _keep(scored, None, f"tpr@{fpr:g}", out, (low_R, high_R))
    if scored.counts_T is None:
        out |= _missing(study, scored)
    else:
        counts = scored.counts_T.of_target(t)
        values = outcomes.at_threshold(
            counts.tp / counts.inside, counts.fp / counts.outside, study.ratio
        )
        limits = outcomes.closed_form(counts, study.ratio, level) if study.stratified else {}
        for metric, value in values.items():
            low, high, how = limits.get(metric, (None, None, "value only"))
            out[metric] = Outcome(
                float(value),
                low,
                high,
                "fixed_threshold" if study.stratified else None,
                how,
                outcomes.RULE,
                float(values["fpr"]),
            )
    if study.stratified:
        return out | outcomes.optimistic([curve])
    return {metric: o for metric, o in out.items() if metric.startswith(BRIEF)}


def _mean(study: Weighted, scored: Scored) -> dict[str, Outcome]:
    """Returns the means over targets of each target's metrics.

    Draws reweight records within a target and targets in the mean.
    """
    draws, level, T = study.draws, study.level, len(study.targets)
    if scored.done is None:
        every = [bootstrap.redraw(r, draws.record_NR, None, [], low=False) for r in scored.ranks]
        auc_TR = np.stack([auc_R for auc_R, *_ in every])
    else:
        auc_TR = scored.done.area_TR
    areas = [roc.auc(curve) for curve in scored.curves]
    smaller = int(min(min(c.n_member, c.n_nonmember) for c in scored.curves))
    auc_R, parts = (
        outcomes.average(auc_TR, draws.unit_TR),
        components.parts(areas, auc_TR, draws.index_T),
    )
    value, more = float(np.mean(areas)), outcomes.spread(areas)
    error, how = _error(study, scored, parts, (None, "auc"))
    out = {
        "auc": outcomes.area(value, auc_R, smaller, level, how.resampling, how.method, more, error)
    }
    _keep(scored, None, "auc", out, (auc_R, auc_R, parts, value))
    w = study.weights
    for fpr in study.fprs:
        metric = f"tpr@{fpr:g}"
        fewest = int(min(c.n_nonmember for c in scored.curves))
        if not roc.resolvable(fpr, fewest):
            out[metric] = outcomes.unresolvable(fpr, fewest)
            continue
        points = [roc.operating_point(curve, fpr) for curve in scored.curves]
        counts = Counts(
            sum(p.true_positives for p in points), sum(c.n_member for c in scored.curves), 0, 0
        )
        tprs = [p.tpr for p in points]
        slope = float(
            np.mean(
                [roc.slope_at(c, outcomes.allowed(fpr, int(c.n_nonmember))) for c in scored.curves]
            )
        )
        tpr_TR = mean_rate_draws(study, scored, w, [p.threshold for p in points], slope)
        tpr_R, parts = (
            outcomes.average(tpr_TR, draws.unit_TR),
            components.parts(tprs, tpr_TR, draws.index_T),
        )
        between = float(np.mean([roc.tpr_between(c, fpr) for c in scored.curves]))
        center = roc.between_true(
            between,
            fpr,
            float(np.mean([c.n_nonmember for c in scored.curves])),
            roc.bend_at(scored.curves, fpr),
        )
        error, how = _error(study, scored, parts, (None, metric))
        events = sum(outcomes.allowed(fpr, int(c.n_nonmember)) for c in scored.curves)
        error = components.of_few(error, events)
        out[metric] = outcomes.several_tpr(
            float(np.mean(tprs)),
            center,
            fpr,
            float(np.mean([p.fpr for p in points])),
            counts,
            T,
            tpr_R,
            level,
            how,
            error,
            outcomes.spread(tprs),
        )
        _keep(scored, None, metric, out, (tpr_R, tpr_R, parts, center, events))
    if scored.counts_T is None:
        return out | _missing(study, scored) | outcomes.optimistic(scored.curves)
    (tp_TR, fp_TR), (in_TR, out_TR) = scored.weight_2TR, study.weight_2TR
    drawn = outcomes.at_threshold(_share(tp_TR, in_TR), _share(fp_TR, out_TR), study.ratio)
    counts_T = scored.counts_T
    values = outcomes.at_threshold(
        counts_T.tp / counts_T.inside, counts_T.fp / counts_T.outside, study.ratio
    )
    errors = {
        m: _error(study, scored, components.parts(values[m], v, draws.index_T), (None, m))
        for m, v in drawn.items()
    }
    out |= outcomes.several_at_threshold(
        {m: v.mean() for m, v in values.items()},
        {m: outcomes.average(v, draws.unit_TR) for m, v in drawn.items()},
        counts_T.total(),
        T,
        study.ratio,
        level,
        draws,
        {m: error for m, (error, _) in errors.items()},
        {m: outcomes.spread(v.tolist()) for m, v in values.items()},
        {m: how.method for m, (_, how) in errors.items()},
    )
    return out | outcomes.optimistic(scored.curves)


def mean_rate_draws(
    study: Weighted,
    scored: Scored,
    w: placements.Weights,
    thresholds: Sequence[float],
    slope: float,
) -> np.ndarray:
    """Returns the TPRs [T,R] at an FPR under the draws, to first order.

    It is a target's TPR minus `slope` times the change of its FPR, both at the target's threshold.
    A draw that chose the threshold again would overstate the spread where few non-members are above
    it, because of few order statistics it repeats some and skips others.

    Args:
        study, scored: the study and the attack.
        w: the weights of all evaluated rows.
        thresholds: the threshold of each target.
        slope: the mean slope of all targets' curves, since the curve of a single target is rough
            where it has few points.
    """
    named_TN = study.evaluated_TN & (scored.score_TN >= np.asarray(thresholds)[:, None])
    inside_TR, outside_TR = placements.shares(named_TN, w)
    outside_T = (named_TN & ~study.member_TN).sum(1) / (study.evaluated_TN & ~study.member_TN).sum(
        1
    )
    return inside_TR - slope * (outside_TR - outside_T[:, None])


def _error(
    study: Weighted, scored: Scored, parts: Parts, key: jackknife.Key
) -> tuple[Error, bootstrap.Draws]:
    """Returns the standard error of a number, and the draws whose `method` says how it was made."""
    left = _left(scored, parts, key)
    if left is not None:
        return components.left_error(left), dataclasses.replace(
            study.draws, reruns=len(left.value_G)
        )
    knows = outcomes.at_threshold_knows(key[1], scored.knows)
    return components.error(
        parts, crossed=study.draws.unit_TR is not None, knows=knows
    ), study.draws


def _left(scored: Scored, parts: Parts, key: jackknife.Key) -> Left | None:
    return (
        scored.left[key]._replace(whole_R=components.whole(parts)) if key in scored.left else None
    )


def _keep(
    scored: Scored,
    target: str | None,
    metric: str,
    outcome_of: Mapping[str, Outcome],
    drawn: Sequence,
) -> None:
    """Keeps the draws of a metric if it has an interval.

    Args:
        scored: the attack, whose `drawn` is filled.
        target, metric: the key.
        outcome_of: the outcome of each metric.
        drawn: the fields of `Drawn` that follow the outcome.
    """
    if outcome_of[metric].low is not None:
        kept = Drawn(outcome_of[metric], *drawn)
        left = None if kept.parts is None else _left(scored, kept.parts, (target, metric))
        scored.drawn[target, metric] = kept._replace(knows=scored.knows, left=left)


def _share(part_TR: np.ndarray, whole_TR: np.ndarray) -> np.ndarray:
    return np.where(whole_TR > 0, part_TR / np.where(whole_TR > 0, whole_TR, 1.0), np.nan)


def pool(score_TN, member_TN, evaluated_TN) -> tuple[roc.Roc, bootstrap.Ranked]:
    """Returns the ROC of all evaluated (target, record) pairs and its sorted rows t N + n."""
    at = np.flatnonzero(evaluated_TN)
    score_K, member_K = (
        np.asarray(score_TN, np.float64).ravel()[at],
        np.asarray(member_TN, bool).ravel()[at],
    )
    return roc.roc(score_K, member_K), bootstrap.ranked(score_K, member_K, at)


def redrawn_pool(
    score_TN, member_TN, evaluated_TN, draws: bootstrap.Draws, done: SortedScores | None = None
) -> tuple[roc.Roc, Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]]:
    """Returns the ROC of all evaluated (target, record) pairs and how to draw it.

    Args:
        score_TN, member_TN, evaluated_TN, draws: as in `rows`.
        done: the sorted scores, for draws of groups of records; None sorts them.

    Returns:
        (curve, ends), where ends(allowed_F) gives (low_FR, high_FR) of `bootstrap.redraw`.
    """
    if isinstance(draws.record_NR, Grouped):
        if done is None:
            arrays = (np.asarray(score_TN), np.asarray(member_TN, bool), np.asarray(evaluated_TN))
            targets = range(len(arrays[0]))
            done = sorted_scores.sort(*arrays, targets=targets, draws=draws, fprs=FPRS)
        return done.pooled, functools.partial(rank_bins.drawn_ends, done.pooled_bins)
    curve, rank = pool(score_TN, member_TN, evaluated_TN)

    def ends(allowed_F: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        _, low_FR, high_FR = bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, allowed_F)
        return low_FR, high_FR

    return curve, ends


def _pooled(study: Weighted, scored: Scored) -> dict[str, Outcome]:
    """Returns the metrics of the pooled ROC over all (target, record) pairs.

    Draws weight a pair by the count of its record times the count of its target.
    """
    draws, level, T = study.draws, study.level, len(study.targets)
    if scored.done is None:
        curve, rank = pool(scored.score_TN, study.member_TN, study.evaluated_TN)
        steps = [outcomes.allowed(fpr, len(rank.nonmember_J)) for fpr in study.fprs]
        auc_R, tpr_FR, _ = bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, steps, low=False)
    else:
        curve, bins = scored.done.pooled, scored.done.pooled_bins
        steps = [outcomes.allowed(fpr, int(curve.n_nonmember)) for fpr in study.fprs]
        tpr_FR = rank_bins.tprs(bins, steps)
    smaller = round(min(curve.n_member, curve.n_nonmember) / T)
    w = study.weights
    if scored.done is None:
        parts = pooled_area_parts(scored.score_TN, w, draws)
    else:
        area = scored.done.pooled_area
        if area is None:  # of a single target, which has no pooled rows
            raise ValueError("a single target's scores have no pooled area.")
        parts = components.parts(area.value_T, area.drawn_TR, draws.index_T)
        auc_R = components.whole(parts)
    error, how = _error(study, scored, parts, ("pooled", "auc"))
    out = {
        "auc": outcomes.area(
            roc.auc(curve), auc_R, smaller, level, how.resampling, how.method, error=error
        )
    }
    _keep(scored, "pooled", "auc", out, (auc_R, auc_R, parts, roc.auc(curve)))
    for f, fpr in enumerate(study.fprs):
        point = roc.tpr_at_fpr(curve, fpr)
        if point is None:
            out[f"tpr@{fpr:g}"] = outcomes.unresolvable(fpr, int(curve.n_nonmember))
            continue
        counts = Counts(point.true_positives, curve.n_member, 0, 0)
        named_TN = study.evaluated_TN & (scored.score_TN >= point.threshold)
        parts = pooled_rate_parts(
            named_TN, w, draws, tpr=point.tpr, fpr=point.fpr, slope=roc.slope_at(curve, steps[f])
        )
        center, (error, how) = (
            roc.tpr_between(curve, fpr),
            _error(study, scored, parts, ("pooled", f"tpr@{fpr:g}")),
        )
        error = components.of_few(error, steps[f])
        out[f"tpr@{fpr:g}"] = outcomes.several_tpr(
            point.tpr, center, fpr, point.fpr, counts, T, tpr_FR[f], level, how, error
        )
        _keep(
            scored, "pooled", f"tpr@{fpr:g}", out, (tpr_FR[f], tpr_FR[f], parts, center, steps[f])
        )
    if scored.counts_T is None:
        return out | _missing(study, scored) | outcomes.optimistic([curve], independent=False)
    unit_TR = 1.0 if draws.unit_TR is None else draws.unit_TR
    tp_R, fp_R, in_R, out_R = (
        (w * unit_TR).sum(0) for w in (*scored.weight_2TR, *study.weight_2TR)
    )
    (tp_TR, fp_TR), (in_TR, out_TR) = scored.weight_2TR, study.weight_2TR
    counts = scored.counts_T.total()
    rates = outcomes.at_threshold(
        counts.tp / counts.inside, counts.fp / counts.outside, study.ratio
    )
    values = {metric: float(rate) for metric, rate in rates.items()}
    linear_T = _linear(
        scored.counts_T.tp / scored.counts_T.inside,
        scored.counts_T.fp / scored.counts_T.outside,
        values,
        study.ratio,
    )
    linear_TR = _linear(_share(tp_TR, in_TR), _share(fp_TR, out_TR), values, study.ratio)
    errors = {
        m: _error(
            study, scored, components.parts(linear_T[m], linear_TR[m], draws.index_T), ("pooled", m)
        )
        for m in values
    }
    out |= outcomes.several_at_threshold(
        values,
        outcomes.at_threshold(_share(tp_R, in_R), _share(fp_R, out_R), study.ratio),
        counts,
        T,
        study.ratio,
        level,
        draws,
        {m: error for m, (error, _) in errors.items()},
        methods={m: how.method for m, (_, how) in errors.items()},
    )
    return out | outcomes.optimistic([curve], independent=False)


def _linear(tpr, fpr, at: Mapping[str, float], ratio: float) -> dict[str, np.ndarray]:
    """Returns the metrics at a threshold from targets' rates.

    The precision is replaced by its tangent at the rates of all pairs.
    """
    metrics = outcomes.at_threshold(tpr, fpr, ratio)
    named, precision = at["tpr"] + ratio * at["fpr"], f"ppv@{ratio:g}"
    if named > 0:  # d TPR/(TPR + r FPR) = r (FPR dTPR - TPR dFPR) / (TPR + r FPR)^2
        metrics[precision] = (
            at[precision]
            + ratio * (at["fpr"] * (tpr - at["tpr"]) - at["tpr"] * (fpr - at["fpr"])) / named**2
        )
    return metrics


def pooled_rate_parts(
    named_TN, w: placements.Weights, draws: bootstrap.Draws, *, tpr: float, fpr: float, slope: float
) -> Parts:
    """Returns what each unit adds to a pooled TPR at a fixed FPR, to first order.

    It is TPR + (flagged members - TPR x members) / mean members of a target - `slope` x the same of
    the non-members, where the counts are those of the unit.

    Args:
        named_TN: the rows flagged at the pooled threshold.
        w: the weights of all rows of the ROC.
        draws: the bootstrap draws.
        tpr, fpr: the pooled rates at the threshold.
        slope: the slope of the pooled ROC there.
    """
    value_T, drawn_TR, named_Tn = tpr, tpr, named_TN[:, w.columns]
    shares = placements.shares(named_TN, w)
    for sign, rate, factor, share_TR, weight_TR in zip(
        (1, -1), (tpr, fpr), (1.0, -slope), shares, (w.inside_TR, w.outside_TR), strict=True
    ):
        side_Tn = w.side_Tn == sign
        count_T = side_Tn.sum(1)
        scale = factor / count_T.mean()
        value_T = value_T + scale * ((named_Tn & side_Tn).sum(1) - rate * count_T)
        drawn_TR = drawn_TR + scale * weight_TR * (np.nan_to_num(share_TR) - rate)
    return components.parts(value_T, drawn_TR, draws.index_T)


def pooled_area_parts(score_TN, w: placements.Weights, draws: bootstrap.Draws) -> Parts:
    """Returns what each unit adds to a pooled AUC, to first order.

    It is the mean placement of its members plus that of its non-members among all pairs.
    """
    score_Tn = score_TN[:, w.columns]
    value_T, drawn_TR = np.zeros(len(score_TN)), np.zeros(w.inside_TR.shape)
    for sign, weight_TR in ((1, w.inside_TR), (-1, w.outside_TR)):
        side_Tn = w.side_Tn == sign
        sorted_K, side_K = np.sort(sign * score_Tn[w.side_Tn == -sign]), sign * score_Tn[side_Tn]
        place_Tn = np.zeros(score_Tn.shape, np.float32)
        place_Tn[side_Tn] = (
            np.searchsorted(sorted_K, side_K, side="left")
            + np.searchsorted(sorted_K, side_K, side="right")
        ) / (2 * len(sorted_K))
        value_T = value_T + place_Tn.sum(1, dtype=np.float64) / side_Tn.sum(1)
        drawn_TR = drawn_TR + _share(
            (place_Tn @ w.record_nR).astype(np.float64), weight_TR.astype(np.float64)
        )
    return components.parts(value_T, drawn_TR, draws.index_T)


def band(
    score_TN, member_TN, evaluated_TN, draws: bootstrap.Draws, points: int = 40, level: float = 0.95
) -> dict[str, np.ndarray]:
    """Returns the pooled ROC of an attack with pointwise intervals, for a figure.

    Args:
        score_TN, member_TN, evaluated_TN: as in `rows`.
        draws: the bootstrap draws.
        points: the number of FPRs with an interval.
        level: the confidence level.

    Returns:
        {fpr, tpr, band_fpr, low, high}: the ROC at up to 300 FPRs from 1/n to 1 on a log scale, and
            the intervals [low, high] at `band_fpr`.
    """
    curve, ends = redrawn_pool(score_TN, member_TN, evaluated_TN, draws)
    fine, steps = (
        np.unique(np.geomspace(1, curve.n_nonmember, count).round().astype(int))
        for count in (300, points)
    )
    tpr, at = (
        curve.tpr_V[np.searchsorted(curve.false_V, k, side="right") - 1] for k in (fine, steps)
    )
    low_FR, high_FR = ends(steps.tolist())
    # With too few records to resample, the interval is [0, 1].
    low, high = (
        [intervals.percentile(x, level)[end] if intervals.usable(x) else float(end) for x in x_FR]
        for end, x_FR in enumerate((low_FR, high_FR))
    )
    n = curve.n_nonmember
    return dict(
        fpr=fine / n,
        tpr=tpr,
        band_fpr=steps / n,
        low=np.minimum(low, at),
        high=np.maximum(high, at),
    )
