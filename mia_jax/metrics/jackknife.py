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
        return _numbers_of_many(
            score_TN, threshold_T, member_TN, evaluated_TN, fprs=fprs, counts=counts
        )
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


class Sorted(NamedTuple):
    """Holds the sorted rows of one target, and the group of every row in place of its record.

    Attributes:
        rows: the rows by falling score.
        group_K: the group of each row.
        whole_2G: how many members, and how many non-members, each group has.
    """

    rows: sorted_scores.Falling
    group_K: np.ndarray
    whole_2G: np.ndarray


def _sorted(score_N, member_N, evaluated_N, counts: Grouped) -> Sorted:
    rows = sorted_scores.falling(score_N, member_N, evaluated_N)
    group_K, groups = counts.group_N[rows.record_K], len(counts.count_GR)
    sides = (group_K[rows.inside_K], group_K[~rows.inside_K])
    return Sorted(rows, group_K, np.array([np.bincount(g, minlength=groups) for g in sides]))


def _numbers_of_many(
    score_TN, threshold_T, member_TN, evaluated_TN, *, fprs: Sequence[float] | None, counts: Grouped
) -> dict[Key, Influence]:
    """Returns what `numbers` returns, sorting every target once; pulls are those of groups."""
    T, G = len(score_TN), len(counts.count_GR)
    sorted_T = [_sorted(*of_target, counts) for of_target in zip(score_TN, member_TN, evaluated_TN)]
    influences: dict[Key, Influence] = {}
    if fprs is not None:
        sides_T = [sorted_scores.rising(of.rows) for of in sorted_T]
        ranks_T = [sorted_scores.Ranks.of(of.rows) for of in sorted_T]
        curves = [
            roc.of_sides(*sides, fprs, reach=ranks.reach(of.rows), thin=roc.READ)
            for sides, ranks, of in zip(sides_T, ranks_T, sorted_T, strict=True)
        ]
        inside_I, outside_J = (np.sort(np.concatenate(side)) for side in zip(*sides_T, strict=True))
        curve = roc.of_sides(inside_I, outside_J, fprs, thin=roc.READ)
        pooled_ranks = sorted_scores.PooledRanks(inside_I, outside_J)
        areas, pulls = [roc.auc(c) for c in curves], np.zeros((2, G))
        totals = (sum(c.n_member for c in curves), sum(c.n_nonmember for c in curves))
        for of, ranks, area, sides in zip(sorted_T, ranks_T, areas, sides_T, strict=True):
            placed = (ranks.placed(of.rows), pooled_ranks.placed(of.rows))
            for side, total, of_side in zip((True, False), totals, sides, strict=True):
                at, sizes = of.rows.inside_K == side, (len(of_side) * T, total)
                for pull_G, place_K, mean, size in zip(
                    pulls, placed, (area, roc.auc(curve)), sizes, strict=True
                ):
                    pull_G += np.bincount(of.group_K[at], (place_K[at] - mean) / size, G)
        influences[None, "auc"] = Influence(float(np.mean(areas)), pulls[0])
        influences["pooled", "auc"] = Influence(roc.auc(curve), pulls[1])
        for fpr in fprs:
            for target, of_rate in ((None, curves), ("pooled", [curve] * T)):
                rate = _rate_of_many(sorted_T, of_rate, fpr, pooled=target == "pooled")
                if rate is not None:
                    influences[target, f"tpr@{fpr:g}"] = rate
    if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
        return influences
    for target in (None, "pooled"):
        tpr, fpr, inside_G, outside_G = _pulled(
            sorted_T, np.asarray(threshold_T, np.float64), pooled=target == "pooled"
        )
        advantage, moved_G = tpr - fpr, inside_G - outside_G
        influences[target, "advantage"] = Influence(advantage, moved_G)
        influences[target, "balanced_accuracy"] = Influence((1 + advantage) / 2, moved_G / 2)
    return influences


def _rate_of_many(
    sorted_T: Sequence[Sorted], curves, fpr: float, *, pooled: bool
) -> Influence | None:
    """Returns TPR@FPR of many records, as a mean over targets or `pooled`."""
    read = [roc.tpr_at_fpr(curve, fpr) for curve in curves]
    points = [point for point in read if point is not None]
    if len(points) < len(read):
        return None
    slopes = [roc.slope_at(c, outcomes.allowed(fpr, int(c.n_nonmember))) for c in curves]
    threshold_T = np.array([point.threshold for point in points])
    _, _, inside_G, outside_G = _pulled(sorted_T, threshold_T, pooled=pooled)
    tpr = float(np.mean([point.tpr for point in points]))
    return Influence(tpr, inside_G - float(np.mean(slopes)) * outside_G)


def _pulled(sorted_T: Sequence[Sorted], threshold_T, *, pooled: bool):
    """Returns (TPR, FPR, their pulls [G], [G]) at thresholds, as means over targets or `pooled`."""
    T, G = len(sorted_T), sorted_T[0].whole_2G.shape[1]
    named_T2G = np.empty((T, 2, G))
    for named_2G, of, threshold in zip(named_T2G, sorted_T, threshold_T, strict=True):
        k = len(of.rows.score_K) - np.searchsorted(of.rows.score_K[::-1], threshold, side="left")
        inside_k, group_k = of.rows.inside_K[:k], of.group_K[:k]
        named_2G[0] = np.bincount(group_k[inside_k], minlength=G)
        named_2G[1] = np.bincount(group_k[~inside_k], minlength=G)
    rates, pulls = [], []
    for side in (0, 1):
        whole_TG = np.array([of.whole_2G[side] for of in sorted_T], np.float64)
        size_T, named_T = whole_TG.sum(1), named_T2G[:, side].sum(1)
        rate_T, weight_T = named_T / size_T, 1 / (size_T * T)
        if pooled:
            rate_T = np.full(T, named_T.sum() / size_T.sum())
            weight_T = np.full(T, 1 / size_T.sum())
        pulls.append(weight_T @ named_T2G[:, side] - (rate_T * weight_T) @ whole_TG)
        rates.append(float(rate_T.mean()))
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
