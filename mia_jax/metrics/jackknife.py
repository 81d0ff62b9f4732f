"""Estimates how an attack's numbers would vary with other shadow models.

All targets share their shadow models, so scores alone cannot show how the numbers would vary with
other shadows. Reruns of the attack can: without a group of units, neither as targets nor as
shadows, each number moves by what the group contributes in both roles. The spread of these moves
gives the delete-a-group jackknife (Kott, Journal of Official Statistics 17, 2001), for every metric
and, by differences, for every pair of attacks. The reaction of the moves to reweighted records
shows how much of that spread is due to the records: to first order, a number reacts by the sum over
records of (count of the record) x (its influence), so R draws cost one product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.metrics import bootstrap, outcomes, roc, sorted_scores
from mia_jax.metrics.components import Left
from mia_jax.metrics.record_groups import Counts, Grouped

Key = tuple[str | None, str]  # (None or 'pooled', metric), as in the rows of summary


class Influence(NamedTuple):
    """Holds a number and what an additional count of each record [N] adds to it, to first order.

    Where groups of records share counts, `pull_N` has the groups in place of the records.
    """

    value: float
    pull_N: np.ndarray


class Rerun(NamedTuple):
    """Holds the numbers of an attack without a group of units.

    Attributes:
      left_T: marks the targets of the group.
      numbers: the numbers without it.
      record_K: the records on which the attack was rerun; None for all.
    """

    left_T: np.ndarray
    numbers: Mapping[Key, Influence]
    record_K: np.ndarray | None = None


def counts_of(draws: bootstrap.Draws, record_K: np.ndarray | None) -> Counts:
    """Returns how often the records are drawn on which an attack is rerun (None: all)."""
    return draws.record_NR if record_K is None else draws.record_NR[record_K]


def parts(
    attack: Mapping,
    member_TN,
    evaluated_TN,
    *,
    draws: bootstrap.Draws,
    fprs: Sequence[float] | None,
) -> dict[Key, Left]:
    """Computes the jackknifed parts of an attack's metrics, as `summary.rows` names them.

    Args:
      attack: the evidence; `without` is a sequence of `Rerun`, empty or absent for no result.
      member_TN, evaluated_TN: as in `summary.rows`.
      draws: the shared draws of records.
      fprs: the rates of tpr@FPR; None leaves out all metrics of the ROC.

    Returns:
      {(None or 'pooled', metric): Left} for metrics that the attack and all its reruns have.
    """
    reruns = attack.get("without") or ()
    if not reruns or draws.unit_TR is None:
        return {}
    record_K, threshold_T = reruns[0].record_K, attack.get("threshold_T")
    counts = counts_of(draws, record_K)
    score_TN, member_TN, evaluated_TN = (
        np.asarray(array_TN) if record_K is None else np.asarray(array_TN)[:, record_K]
        for array_TN in (attack["score_TN"], member_TN, evaluated_TN)
    )
    sides = dict(member_TN=member_TN, evaluated_TN=evaluated_TN)
    whole = numbers(score_TN, threshold_T, fprs=fprs, counts=counts, **sides)
    share_G = np.array([rerun.left_T.mean() for rerun in reruns])
    times_G = 1 / share_G - 1
    _, first_U = np.unique(draws.index_T, return_index=True)
    group_U = np.argmax([rerun.left_T for rerun in reruns], axis=0)[first_U]
    lefts: dict[Key, Left] = {}
    for key, number in whole.items():
        if not all(key in rerun.numbers for rerun in reruns):
            continue
        fewer = [rerun.numbers[key] for rerun in reruns]
        value_G = number.value + times_G * (number.value - np.array([f.value for f in fewer]))
        pull_GN = np.stack(
            [t * (number.pull_N - _by_group(f.pull_N, counts)) for t, f in zip(times_G, fewer)]
        )
        if isinstance(counts, Grouped):
            apart_GR = pull_GN @ counts.count_GR.astype(np.float64)
        else:
            apart_GR = (pull_GN.astype(np.float32) @ counts).astype(np.float64)
        lefts[key] = Left(value_G, apart_GR / counts.mean(), share_G, group_U)
    return lefts


def _by_group(pull_N: np.ndarray, counts: Counts) -> np.ndarray:
    """Returns pulls of groups, also where a rerun has those of single records."""
    if isinstance(counts, Grouped) and len(pull_N) == len(counts):
        return counts.fold(pull_N)
    return pull_N


def numbers(
    score_TN,
    threshold_T,
    *,
    member_TN,
    evaluated_TN,
    fprs: Sequence[float] | None,
    counts: Counts | None = None,
) -> dict[Key, Influence]:
    """Computes every metric, as means over targets and pooled.

    Args:
      score_TN, threshold_T: scores and thresholds (None or NaN: no metrics at a threshold).
      member_TN, evaluated_TN: as in `summary.rows`.
      fprs: the rates of tpr@FPR; None leaves out all metrics of the ROC.
      counts: how often records are drawn, if groups of them share counts.
    """
    score_TN = np.asarray(score_TN, np.float64)
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    if isinstance(counts, Grouped):
        every = _numbers_of_many(score_TN, threshold_T, member_TN, evaluated_TN, fprs=fprs)
        return {key: Influence(value, counts.fold(pull)) for key, (value, pull) in every.items()}
    inside_TN, outside_TN = evaluated_TN & member_TN, evaluated_TN & ~member_TN
    influences: dict[Key, Influence] = {}
    if fprs is not None:
        influences |= _mean_curves(score_TN, inside_TN, outside_TN, fprs)
        influences |= _pooled_curve(score_TN, inside_TN, outside_TN, fprs)
    if threshold_T is None:
        return influences
    threshold_T = np.asarray(threshold_T, np.float64)
    if np.isnan(threshold_T).any():
        return influences
    named_TN = score_TN >= threshold_T[:, None]
    return influences | _at_threshold(named_TN, inside_TN, outside_TN)


def _numbers_of_many(
    score_TN, threshold_T, member_TN, evaluated_TN, *, fprs: Sequence[float] | None
) -> dict[Key, Influence]:
    """Returns what `numbers` returns, sorting every target once."""
    T, N = score_TN.shape
    rows_T = [
        sorted_scores.falling(*of_target) for of_target in zip(score_TN, member_TN, evaluated_TN)
    ]
    influences: dict[Key, Influence] = {}
    if fprs is not None:
        sides_T = [sorted_scores.rising(rows) for rows in rows_T]
        curves = [roc.of_sides(*sides, fprs) for sides in sides_T]
        pooled = [np.sort(np.concatenate(side)) for side in zip(*sides_T, strict=True)]
        inside_I, outside_J = pooled
        curve = roc.of_sides(inside_I, outside_J, fprs)
        ranks = sorted_scores.PooledRanks(inside_I, outside_J)
        areas, pulls = [roc.auc(c) for c in curves], np.zeros((2, N))
        totals = (sum(c.n_member for c in curves), sum(c.n_nonmember for c in curves))
        for rows, area, sides in zip(rows_T, areas, sides_T, strict=True):
            place_K, among_K = sorted_scores.placed(rows), ranks.placed(rows)
            for side, total, of_side in zip((True, False), totals, sides, strict=True):
                at = rows.inside_K == side
                record_K = rows.record_K[at]
                pulls[0, record_K] += (place_K[at] - area) / (len(of_side) * T)
                pulls[1, record_K] += (among_K[at] - roc.auc(curve)) / total
        influences[None, "auc"] = Influence(float(np.mean(areas)), pulls[0])
        influences["pooled", "auc"] = Influence(roc.auc(curve), pulls[1])
        for fpr in fprs:
            for target, of_rate in ((None, curves), ("pooled", [curve] * T)):
                rate = _rate_of_many(rows_T, of_rate, fpr, N, pooled=target == "pooled")
                if rate is not None:
                    influences[target, f"tpr@{fpr:g}"] = rate
    if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
        return influences
    for target in (None, "pooled"):
        tpr, fpr, inside_N, outside_N = _pulled(
            rows_T, np.asarray(threshold_T, np.float64), N, pooled=target == "pooled"
        )
        advantage, moved_N = tpr - fpr, inside_N - outside_N
        influences[target, "advantage"] = Influence(advantage, moved_N)
        influences[target, "balanced_accuracy"] = Influence((1 + advantage) / 2, moved_N / 2)
    return influences


def _rate_of_many(rows_T, curves, fpr: float, N: int, *, pooled: bool) -> Influence | None:
    """Returns TPR@FPR of many records, as a mean over targets or `pooled`."""
    read = [roc.tpr_at_fpr(curve, fpr) for curve in curves]
    points = [point for point in read if point is not None]
    if len(points) < len(read):
        return None
    slopes = [roc.slope_at(c, outcomes.allowed(fpr, int(c.n_nonmember))) for c in curves]
    threshold_T = np.array([point.threshold for point in points])
    _, _, inside_N, outside_N = _pulled(rows_T, threshold_T, N, pooled=pooled)
    tpr = float(np.mean([point.tpr for point in points]))
    return Influence(tpr, inside_N - float(np.mean(slopes)) * outside_N)


def _pulled(rows_T, threshold_T, N: int, *, pooled: bool):
    """Returns (TPR, FPR, their pulls [N], [N]) at thresholds, as means over targets or `pooled`."""
    flagged = [
        np.searchsorted(-rows.score_K, -t, side="right") for rows, t in zip(rows_T, threshold_T)
    ]
    rates, pulls = [], []
    for side in (True, False):
        of_side = [rows.inside_K == side for rows in rows_T]
        size_T = np.array([at.sum() for at in of_side], np.float64)
        named_T = np.array([at[:k].sum() for at, k in zip(of_side, flagged, strict=True)])
        rate_T, weight_T = named_T / size_T, 1 / (size_T * len(rows_T))
        if pooled:
            rate_T = np.full(len(rows_T), named_T.sum() / size_T.sum())
            weight_T = np.full(len(rows_T), 1 / size_T.sum())
        pull_N = np.zeros(N)
        for rows, at, k, rate, weight in zip(
            rows_T, of_side, flagged, rate_T, weight_T, strict=True
        ):
            pull_N[rows.record_K[at]] -= rate * weight
            pull_N[rows.record_K[:k][at[:k]]] += weight
        rates.append(float(rate_T.mean()))
        pulls.append(pull_N)
    return *rates, *pulls


def _mean_curves(score_TN, inside_TN, outside_TN, fprs: Sequence[float]) -> dict[Key, Influence]:
    """Returns AUC and TPR@FPR as means over targets."""
    T, N = score_TN.shape
    pulls = np.zeros((1 + 2 * len(fprs), N))  # AUC; then members and non-members of each FPR
    aucs: list[float] = []
    tprs_F: list[list[float]] = [[] for _ in fprs]
    slopes_F: list[list[float]] = [[] for _ in fprs]
    for score_N, inside_N, outside_N in zip(score_TN, inside_TN, outside_TN, strict=True):
        inside, outside = np.flatnonzero(inside_N), np.flatnonzero(outside_N)
        at = np.concatenate([inside, outside])
        curve = roc.roc(score_N[at], inside_N[at])
        aucs.append(roc.auc(curve))
        place_K = placed(score_N[inside], score_N[outside])
        for rows, place in zip((inside, outside), place_K, strict=True):
            pulls[0, rows] += (place - aucs[-1]) / len(rows)
        for f, fpr in enumerate(fprs):
            point = roc.tpr_at_fpr(curve, fpr)
            if point is None:
                tprs_F[f].append(np.nan)
                continue
            tprs_F[f].append(point.tpr)
            slopes_F[f].append(roc.slope_at(curve, outcomes.allowed(fpr, len(outside))))
            for side, rows in enumerate((inside, outside)):
                named = score_N[rows] >= point.threshold
                pulls[1 + 2 * f + side, rows] += (named - named.mean()) / len(rows)
    pulls /= T
    influences: dict[Key, Influence] = {(None, "auc"): Influence(float(np.mean(aucs)), pulls[0])}
    for f, fpr in enumerate(fprs):
        if not np.isnan(tprs_F[f]).any():
            pull_N = pulls[1 + 2 * f] - np.mean(slopes_F[f]) * pulls[2 + 2 * f]
            influences[None, f"tpr@{fpr:g}"] = Influence(float(np.mean(tprs_F[f])), pull_N)
    return influences


def _pooled_curve(score_TN, inside_TN, outside_TN, fprs: Sequence[float]) -> dict[Key, Influence]:
    """Returns AUC and TPR@FPR of the pooled ROC over all pairs of a target and a record."""
    N = score_TN.shape[1]
    sides = [np.nonzero(side_TN) for side_TN in (inside_TN, outside_TN)]
    scores = [score_TN[side] for side in sides]
    member_K = np.repeat([True, False], [len(s) for s in scores])
    curve = roc.roc(np.concatenate(scores), member_K)

    def pull(side: int, value_K) -> np.ndarray:
        return np.bincount(sides[side][1], value_K / len(value_K), minlength=N)

    area = roc.auc(curve)
    inside_place, outside_place = placed(*scores)
    pull_N = pull(0, inside_place - area) + pull(1, outside_place - area)
    influences: dict[Key, Influence] = {("pooled", "auc"): Influence(area, pull_N)}
    for fpr in fprs:
        point = roc.tpr_at_fpr(curve, fpr)
        if point is None:
            continue
        slope = roc.slope_at(curve, outcomes.allowed(fpr, int(curve.n_nonmember)))
        named = [s >= point.threshold for s in scores]
        inside_N, outside_N = (pull(side, n - n.mean()) for side, n in enumerate(named))
        influences["pooled", f"tpr@{fpr:g}"] = Influence(point.tpr, inside_N - slope * outside_N)
    return influences


def _at_threshold(named_TN, inside_TN, outside_TN) -> dict[Key, Influence]:
    """Returns advantage and balanced accuracy, as means over targets and over all pairs.

    TPR, FPR and precision are not among them: where the best threshold is hardly better than its
    neighbors, those rates jump from one rerun to the next, and a jackknife of jumps says nothing.
    """
    sides = (inside_TN, outside_TN)
    influences: dict[Key, Influence] = {}
    for target in (None, "pooled"):
        rates, moves = [], []
        for side_TN in sides:
            size_T = side_TN.sum(1)
            rate_T = (named_TN & side_TN).sum(1) / size_T
            weight_T = 1 / (size_T * len(size_T))
            if target == "pooled":
                rate_T = np.full(len(size_T), (named_TN & side_TN).sum() / size_T.sum())
                weight_T = np.full(len(size_T), 1 / size_T.sum())
            rates.append(float(rate_T.mean()))
            moves.append((side_TN * (named_TN - rate_T[:, None]) * weight_T[:, None]).sum(0))
        advantage, moved_N = rates[0] - rates[1], moves[0] - moves[1]
        influences[target, "advantage"] = Influence(advantage, moved_N)
        influences[target, "balanced_accuracy"] = Influence((1 + advantage) / 2, moved_N / 2)
    return influences


def placed(inside, outside) -> tuple[np.ndarray, np.ndarray]:
    """Returns the placement of every member and of every non-member, from their scores.

    The placement of a member is the share of the non-members that score lower, that of a non-member
    the share of the members that score higher; ties count half. The mean of either is the AUC.
    """
    places = []
    for scores, other in ((inside, outside), (-outside, -inside)):
        other = np.sort(other)
        sums = (np.searchsorted(other, scores, side=side) for side in ("left", "right"))
        places.append(sum(sums) / (2 * len(other)))
    return places[0], places[1]
