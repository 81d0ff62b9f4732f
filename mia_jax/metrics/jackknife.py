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

from mia_jax.metrics import bootstrap, outcomes, roc
from mia_jax.metrics.components import Left

Key = tuple[str | None, str]  # (None or 'pooled', metric), as in the rows of summary


class Influence(NamedTuple):
    """Holds a number and what an additional count of each record [N] adds to it, to first order."""

    value: float
    pull_N: np.ndarray


class Rerun(NamedTuple):
    """Holds the numbers of an attack without a group of units; `left_T` marks its targets."""

    left_T: np.ndarray
    numbers: Mapping[Key, Influence]


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
    sides = dict(member_TN=member_TN, evaluated_TN=evaluated_TN)
    threshold_T = attack.get("threshold_T")
    whole = numbers(attack["score_TN"], threshold_T, fprs=fprs, **sides)
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
        pull_GN = np.stack([t * (number.pull_N - f.pull_N) for t, f in zip(times_G, fewer)])
        apart_GR = (pull_GN.astype(np.float32) @ draws.record_NR).astype(np.float64)
        lefts[key] = Left(value_G, apart_GR / draws.record_NR.mean(), share_G, group_U)
    return lefts


def numbers(
    score_TN, threshold_T, *, member_TN, evaluated_TN, fprs: Sequence[float] | None
) -> dict[Key, Influence]:
    """Computes every metric, as means over targets and pooled.

    Args:
      score_TN, threshold_T: scores and thresholds (None or NaN: no metrics at a threshold).
      member_TN, evaluated_TN: as in `summary.rows`.
      fprs: the rates of tpr@FPR; None leaves out all metrics of the ROC.
    """
    score_TN = np.asarray(score_TN, np.float64)
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
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
