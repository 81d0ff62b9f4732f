"""Computes the rows of slices: every metric of every attack in every slice.

It also ranks the slices by exposure. The scores of each attack and target are sorted once.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax.metrics import (
    bootstrap,
    components,
    intervals,
    multiple,
    outcomes,
    placements,
    roc,
    summary,
)
from mia_jax.metrics.components import Error
from mia_jax.metrics.outcomes import Counts, Outcome
from mia_jax.metrics.placements import Weights
from mia_jax.metrics.slices import Layer
from mia_jax.metrics.study import Each, Study, TargetCounts, in_turn, result_row

# smaller slices are marked too small: they have no interval and are not ranked
FEWEST_RECORDS, FEWEST_OF_A_SIDE = 20, 5


class Ground(NamedTuple):
    """Holds what all attacks share about one slice.

    Attributes:
        name: the name of the slice.
        layer, group: its layer, and its code in that layer.
        post_hoc: whether the slice was made from the target's own answers.
        inside_T, outside_T: the members and the non-members of each target in the slice.
        records: the number of records in the slice.
        weights: the draws and the sides of its records.
        inside_R, outside_R: the total weights of its two sides under the draws.
    """

    name: str
    layer: int
    group: int
    post_hoc: bool
    inside_T: np.ndarray
    outside_T: np.ndarray
    records: int
    weights: Weights
    inside_R: np.ndarray
    outside_R: np.ndarray

    @property
    def both_T(self) -> np.ndarray:
        """Returns the targets that have members and non-members in the slice."""
        return (self.inside_T > 0) & (self.outside_T > 0)

    @property
    def too_small(self) -> str:
        """Returns why the slice is too small ('' if it is not)."""
        if not self.both_T.any():
            return "too small: no target has members and non-members in it"
        side = min(self.inside_T[self.both_T].mean(), self.outside_T[self.both_T].mean())
        if self.records < FEWEST_RECORDS:
            return f"too small: {self.records} records, fewer than {FEWEST_RECORDS}"
        return (
            f"too small: {side:.3g} rows on one side, fewer than {FEWEST_OF_A_SIDE}"
            if side < FEWEST_OF_A_SIDE
            else ""
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sliced(Study):
    """Holds a study with its slices.

    Attributes:
        code_LTN: the slice of each record in each layer; the last layer has all evaluated rows.
        grounds: what all attacks share about each slice.
        all: the same for all evaluated rows.
    """

    code_LTN: list[np.ndarray]
    grounds: list[Ground]
    all: Ground


def rows(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    layers: Sequence[Layer],
    *,
    draws: bootstrap.Draws,
    fprs: Sequence[float] = (0.001, 0.01, 0.1),
    ppv_ratio: float = 1.0,
    level: float = 0.95,
    each: Each = in_turn,
) -> tuple[list[dict], dict[str, list[dict]]]:
    """Computes the rows of every slice and each attack's ranking of slices by exposure.

    The AUC is a mean over targets, with an interval from the draws of placements. The interval of a
    TPR@FPR is that of the pooled ROC, where the false-positive rates are resolvable.

    Args:
        attacks, member_TN, evaluated_TN, draws, fprs, ppv_ratio, level: as in `summary.rows`.
        layers: the slices (`slices.make`).
        each: computes the rows of the attacks, {attack: function}, or returns what they were in an
            earlier process.

    Returns:
        (rows, ranking). The rows are those of `summary.rows` for target None and 'pooled' only,
            with the name of the slice and the columns `n_records`, `post_hoc` and `too_small`. The
            auc rows also have `p_value` (of AUC <= 1/2, one-sided) and `p_holm` (over the slices of
            this attack). `ranking[attack]` lists the slices that are not too small by falling lower
            end of the AUC's interval: {slice, auc, low, high, p_value, p_holm, excess, excess_low,
            excess_high, n_records, n_member, n_nonmember, post_hoc}, where `excess` is the AUC
            minus that of all records, with paired draws.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    codes = [
        np.where(evaluated_TN, np.broadcast_to(layer.code, evaluated_TN.shape), -1)
        for layer in layers
    ] + [evaluated_TN.astype(np.int32) - 1]
    made = [
        _ground(name, at, group, layer.post_hoc, codes[at] == group, member_TN, draws)
        for at, layer in enumerate(layers)
        for group, name in enumerate(layer.names)
    ]
    whole = _ground("all", len(layers), 0, False, evaluated_TN, member_TN, draws)
    shared = dict(
        member_TN=member_TN,
        evaluated_TN=evaluated_TN,
        draws=draws,
        fprs=tuple(fprs),
        ratio=ppv_ratio,
        level=level,
    )
    study = Sliced(code_LTN=codes, grounds=made, all=whole, **shared)
    if not made:
        return [], {}
    computes = {name: functools.partial(_attack, study, name, a) for name, a in attacks.items()}
    of_attacks = dict(zip(computes, each(computes), strict=True))
    result_rows = [row for attack_rows, _ in of_attacks.values() for row in attack_rows]
    return result_rows, {name: ranking for name, (_, ranking) in of_attacks.items()}


def _ground(name, layer, group, post_hoc, in_slice_TN, member_TN, draws) -> Ground:
    w = placements.weights(in_slice_TN & member_TN, in_slice_TN & ~member_TN, draws.record_NR)
    unit_TR = 1.0 if draws.unit_TR is None else draws.unit_TR
    sides = ((w.side_Tn == 1).sum(1), (w.side_Tn == -1).sum(1))
    totals = (
        (weight_TR * unit_TR).sum(0, dtype=np.float64) for weight_TR in (w.inside_TR, w.outside_TR)
    )
    return Ground(
        name, layer, group, post_hoc, *sides, int((w.side_Tn != 0).any(0).sum()), w, *totals
    )


def _attack(study: Sliced, name: str, attack: Mapping) -> tuple[list[dict], list[dict]]:
    """Returns the rows and the ranking of one attack."""
    score_TN = np.asarray(attack["score_TN"], np.float64)
    threshold_T = attack.get("threshold_T")
    named_TN = None
    if threshold_T is not None and not np.isnan(np.asarray(threshold_T, np.float64)).any():
        named_TN = study.evaluated_TN & (score_TN >= np.asarray(threshold_T, np.float64)[:, None])
    auc_TG, place_TN = _placed(study, score_TN)
    pooled = _segments(study, score_TN)
    whole_T, knows = auc_TG[-1][:, 0], attack.get("knows", "shadows")
    whole_TR = placements.auc_draws(whole_T, place_TN[-1], study.all.weights)
    attack_rows, ranking = [], []
    for ground in study.grounds:
        small = ground.too_small
        auc_T, drawn_TR = auc_TG[ground.layer][:, ground.group], np.full(whole_TR.shape, np.nan)
        if not small:
            drawn_TR = placements.auc_draws(auc_T, place_TN[ground.layer], ground.weights)
        mean = {"auc": _area(study, ground, auc_T, drawn_TR, knows)} | _at_threshold(
            study, ground, attack, named_TN
        )
        points = _tprs(study, ground, pooled[ground.layer], ground.group, score_TN, knows)
        if len(auc_T) == 1:
            mean |= points
        area = mean["auc"]
        if not small and area.value is not None and area.low is not None:
            error = _error(study, auc_T - whole_T, drawn_TR - whole_TR, knows)
            excess = area.value - float(np.mean(whole_T))
            ranking.append(_entry(study, ground, area, excess, error))
        attack_rows += [_row(name, attack, ground, None, metric, o) for metric, o in mean.items()]
        attack_rows += [
            _row(name, attack, ground, "pooled", metric, o) for metric, o in points.items()
        ]
    _rank(ranking, attack_rows)
    return attack_rows, sorted(ranking, key=lambda entry: -entry["low"])


def _placed(study: Sliced, score_TN) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the AUCs and the placements of every layer.

    They are the AUCs [T,G] of its slices, and the placement [T,N] of each record in its slice.
    """
    orders = [placements.order(*pair) for pair in zip(score_TN, study.evaluated_TN)]
    counts = [int(code_TN.max(initial=0)) + 1 for code_TN in study.code_LTN]
    parts = [
        [
            placements.placements(order, member_N, code_N, count)
            for order, member_N, code_N in zip(orders, study.member_TN, code_TN)
        ]
        for code_TN, count in zip(study.code_LTN, counts)
    ]
    return [np.array([auc_G for auc_G, _ in part]) for part in parts], [
        np.array([place_N for _, place_N in part]) for part in parts
    ]


def _segments(study: Sliced, score_TN) -> list[list[tuple]]:
    """Returns the pairs of every layer and slice as (score [K], member [K], row number [K]).

    They are sorted by falling score; the row number is t N + n.
    """
    at = np.flatnonzero(study.evaluated_TN)
    at = at[np.argsort(-score_TN.ravel()[at], kind="stable")]
    score_K, member_K, segments = score_TN.ravel()[at], study.member_TN.ravel()[at], []
    for code_TN in study.code_LTN[:-1]:
        code_K = code_TN.ravel()[at]
        by = np.argsort(code_K, kind="stable")
        edges = np.searchsorted(code_K[by], np.arange(int(code_K.max(initial=-1)) + 2))
        segments.append(
            [
                (score_K[k], member_K[k], at[k])
                for k in (by[a:b] for a, b in itertools.pairwise(edges))
            ]
        )
    return segments


def _error(study: Sliced, value_T, drawn_TR, knows: str) -> Error:
    """Returns the standard error of a mean over the targets that have a value."""
    return components.error(
        components.parts(value_T, drawn_TR, study.draws.index_T),
        crossed=study.draws.unit_TR is not None,
        knows=knows,
    )


def _area(study: Sliced, ground: Ground, auc_T, drawn_TR, knows: str) -> Outcome:
    if not ground.both_T.any():
        return Outcome(None, method=ground.too_small, convention=outcomes.TIES)
    value, smaller = (
        float(np.nanmean(auc_T)),
        int(min(ground.inside_T[ground.both_T].min(), ground.outside_T[ground.both_T].min())),
    )
    more = outcomes.spread(auc_T[ground.both_T]) if ground.both_T.sum() > 1 else {}
    if ground.too_small:
        return Outcome(value, method=ground.too_small, convention=outcomes.TIES, more=more)
    drawn_R, error = (
        outcomes.average(drawn_TR, study.draws.unit_TR),
        _error(study, auc_T, drawn_TR, knows),
    )
    outcome = outcomes.area(
        value,
        drawn_R,
        smaller,
        study.level,
        study.draws.resampling,
        study.draws.method,
        more,
        error,
    )
    if outcome.low is None:
        return outcome
    return outcome._replace(
        more=more | dict(p_value=one_sided(value, error, smaller, ground.records))
    )


def one_sided(value: float, error: Error, smaller_side: int, records: int) -> float:
    """Returns the p-value of 'AUC <= 1/2', on the logit scale like the interval.

    Its degrees of freedom are those of the units or of the records, whichever are fewer. The draws
    are stretched until 1.96 deviations are a t-interval over the records (`placements.auc_draws`).
    Where the records have the fewer degrees of freedom, this is undone here to get the far tail
    right.

    Args:
        value: the AUC.
        error: its standard error.
        smaller_side: the number of members or of non-members, whichever is smaller.
        records: the number of records in the slice.
    """
    freedom, deviation = records - 1, error.deviation
    if freedom <= error.freedom:
        deviation *= special.ndtri(0.975) / special.stdtrit(freedom, 0.975)
    return intervals.logit_p(value, deviation, smaller_side, min(freedom, error.freedom))


def _at_threshold(study: Sliced, ground: Ground, attack: Mapping, named_TN) -> dict[str, Outcome]:
    """Returns the metrics at the shadow-calibrated thresholds.

    They are means over the targets that have members and non-members in the slice.
    """
    metrics = outcomes.at_threshold(0.0, 0.0, study.ratio)
    if named_TN is None or not ground.both_T.any():
        why = (
            attack.get("no_threshold", "no shadow to choose a threshold on")
            if named_TN is None
            else ground.too_small
        )
        return {m: Outcome(None, method=why, convention=outcomes.RULE) for m in metrics}
    w, both_T = ground.weights, ground.both_T
    named_Tn = named_TN[:, w.columns]
    tp_T, fp_T = ((named_Tn & (w.side_Tn == sign)).sum(1)[both_T].astype(float) for sign in (1, -1))
    counts = TargetCounts(
        tp_T, ground.inside_T[both_T].astype(float), fp_T, ground.outside_T[both_T].astype(float)
    )
    values = outcomes.at_threshold(
        counts.tp / counts.inside, counts.fp / counts.outside, study.ratio
    )
    mean = {m: float(v.mean()) for m, v in values.items()}
    if ground.too_small:
        return {
            m: Outcome(
                v, method=ground.too_small, convention=outcomes.RULE, fpr_realized=mean["fpr"]
            )
            for m, v in mean.items()
        }
    drawn_TR = outcomes.at_threshold(*placements.shares(named_TN, w), study.ratio)
    drawn = {m: outcomes.average(v, study.draws.unit_TR) for m, v in drawn_TR.items()}
    filled = {m: np.full(len(both_T), np.nan) for m in values}
    for m, v in values.items():
        filled[m][both_T] = v
    knows = attack.get("knows", "shadows")
    errors = {
        m: _error(study, filled[m], v, outcomes.at_threshold_knows(m, knows))
        for m, v in drawn_TR.items()
    }
    return outcomes.several_at_threshold(
        mean,
        drawn,
        counts.total(),
        int(both_T.sum()),
        study.ratio,
        study.level,
        study.draws,
        errors,
    )


def _tprs(
    study: Sliced, ground: Ground, segments: list[tuple], group: int, score_TN, knows: str
) -> dict[str, Outcome]:
    """Returns the TPR at every FPR on the slice's pooled ROC."""
    score_K, member_K, at_K = segments[group]
    inside, outside = int(member_K.sum()), int((~member_K).sum())
    known = [fpr for fpr in study.fprs if inside and roc.resolvable(fpr, outside)]
    out = {
        f"tpr@{fpr:g}": outcomes.unresolvable(fpr, outside)
        for fpr in study.fprs
        if fpr not in known
    }
    if not known:
        return out
    curve = roc.roc(score_K, member_K)
    points = [roc.operating_point(curve, fpr) for fpr in known]
    if ground.too_small:
        return out | {
            f"tpr@{f:g}": Outcome(p.tpr, None, None, None, ground.too_small, outcomes.STEP, p.fpr)
            for f, p in zip(known, points)
        }
    steps = [outcomes.allowed(fpr, outside) for fpr in known]
    rank = bootstrap.ranked(score_K, member_K, at_K)
    low_FR, high_FR = placements.tpr_draws(
        rank, study.draws, steps, ground.inside_R, ground.outside_R
    )
    for f, (fpr, p) in enumerate(zip(known, points)):
        counts, targets = Counts(p.true_positives, inside, 0, 0), int(ground.both_T.sum())
        if len(study.member_TN) == 1:
            out[f"tpr@{fpr:g}"] = outcomes.percentiles(
                p.tpr, fpr, p.fpr, counts, low_FR[f], high_FR[f], study.level, study.draws
            )
            continue
        slope, named_TN = roc.slope_at(curve, steps[f]), score_TN >= p.threshold
        parts = summary.pooled_rate_parts(
            named_TN, ground.weights, study.draws, tpr=p.tpr, fpr=p.fpr, slope=slope
        )
        error = components.error(parts, crossed=study.draws.unit_TR is not None, knows=knows)
        out[f"tpr@{fpr:g}"] = outcomes.several_tpr(
            p.tpr,
            roc.tpr_between(curve, fpr),
            fpr,
            p.fpr,
            counts,
            targets,
            high_FR[f],
            study.level,
            study.draws,
            error,
        )
    return out


def _entry(study: Sliced, ground: Ground, area: Outcome, excess: float, error: Error) -> dict:
    """Returns a slice's entry in the ranking.

    `excess` is its AUC minus that of all records, and `error` the standard error of `excess` from
    the paired draws.
    """
    half = intervals.t_half(error.deviation, study.level, error.freedom)
    return dict(
        slice=ground.name,
        auc=area.value,
        low=area.low,
        high=area.high,
        p_value=area.more["p_value"],
        p_holm=None,
    ) | dict(
        excess=excess,
        excess_low=excess - half,
        excess_high=excess + half,
        n_records=ground.records,
        n_member=round(float(ground.inside_T.mean())),
        n_nonmember=round(float(ground.outside_T.mean())),
        post_hoc=ground.post_hoc,
    )


def _rank(ranking: list[dict], attack_rows: list[dict]) -> None:
    """Sets p_holm in the ranking and in the auc rows."""
    for entry, p in zip(ranking, multiple.holm([entry["p_value"] for entry in ranking])):
        entry["p_holm"] = float(p)
    adjusted = {entry["slice"]: entry["p_holm"] for entry in ranking}
    for row in attack_rows:
        if row["metric"] == "auc" and row["slice"] in adjusted:
            row["p_holm"] = adjusted[row["slice"]]


def _row(name: str, attack: Mapping, ground: Ground, target, metric: str, o: Outcome) -> dict:
    pooled, both_T = target == "pooled", ground.both_T
    sides = (ground.inside_T, ground.outside_T)
    n1, n0 = (
        int(side.sum())
        if pooled
        else round(float(side[both_T].mean()))
        if both_T.any()
        else round(float(side.mean()))
        for side in sides
    )
    return result_row(
        o,
        attack=name,
        target=target,
        metric=metric,
        n_member=n1,
        n_nonmember=n0,
        n_targets=int(both_T.sum()),
        knows=attack.get("knows", "shadows"),
        slice_name=ground.name,
        n_records=ground.records,
        post_hoc=ground.post_hoc,
        too_small=bool(ground.too_small),
    )
