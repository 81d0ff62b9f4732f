"""Sorts the scores of one attack once, for all numbers of a report about many records.

What it keeps has the size of bins and groups, not of records: thinned ROC curves
(`roc.of_sides`), the AUCs under the draws by placements (to first order, as in `placements`; with
more than `record_groups.EXACT` records the rest is below 1e-4), and the weights of rank bins for
the rates (`rank_bins`). Members and non-members of a target are sorted at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mia_jax.metrics import bootstrap, outcomes, rank_bins, record_groups, roc
from mia_jax.metrics.rank_bins import Cuts
from mia_jax.metrics.record_groups import Counts, Grouped, of_groups

POOLED_BINS = 1 << 14  # in which the scores of all targets are ranked among each other


class Redrawn(NamedTuple):
    """Holds one target under R draws of its own: its AUC, and its TPRs at the FPRs that are read.

    Attributes:
        auc_R: the AUC.
        tpr: {number of allowed false positives: TPR [R]}.
    """

    auc_R: np.ndarray
    tpr: Mapping[int, np.ndarray]

    def ends(self, allowed_F: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns (low_FR, high_FR) of `bootstrap.redraw`."""
        return rank_bins.ends(self.tpr, allowed_F, len(self.auc_R))


class PooledArea(NamedTuple):
    """Holds what each target adds to the pooled AUC, and that under the draws, to first order."""

    value_T: np.ndarray
    drawn_TR: np.ndarray


class SortedScores(NamedTuple):
    """Holds one attack whose scores were sorted once.

    Attributes:
        curves: the ROC of each target.
        pooled: the ROC of all (target, record) pairs.
        area_TR: the AUC of each target under the shared draws of records.
        single: each target under stratified draws of its own; empty without.
        pooled_area: what each target adds to the pooled AUC; None for one target.
        pooled_bins: the pooled ROC under the draws of records and units.
    """

    curves: tuple[roc.Roc, ...]
    pooled: roc.Roc
    area_TR: np.ndarray
    single: tuple[Redrawn, ...]
    pooled_area: PooledArea | None
    pooled_bins: rank_bins.DrawnBins


class Falling(NamedTuple):
    """Holds the scored rows of one target by falling score: scores, members, record numbers.

    Scores keep their dtype, float32 or float64.
    """

    score_K: np.ndarray
    inside_K: np.ndarray
    record_K: np.ndarray


def falling(score_N, member_N, evaluated_N) -> Falling:
    """Sorts the evaluated rows of one target.

    Raises:
        ValueError: a score is NaN, or there are no members or no non-members.
    """
    record_K = np.flatnonzero(evaluated_N).astype(np.int32)
    score_K = score_N if len(record_K) == len(score_N) else score_N[record_K]
    inside_K = member_N[record_K]
    if np.isnan(score_K).any() or not 0 < np.count_nonzero(inside_K) < len(inside_K):
        score_K, inside_K = roc.two_sides(score_K, inside_K)  # which says what is wrong
    order_K = record_groups.falling_order(score_K)
    return Falling(score_K[order_K], inside_K[order_K], record_K[order_K])


def sort(
    score_TN,
    member_TN,
    evaluated_TN,
    *,
    targets: Sequence[int],
    draws: bootstrap.Draws,
    fprs: Sequence[float],
    pooled_fprs: Sequence[float] = (),
    stratified: Sequence[Counts] = (),
) -> SortedScores:
    """Sorts the scores of an attack and draws what a report needs of them.

    Args:
        score_TN: the scores; not NaN where evaluated.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        targets: the numbers of the targets, for messages.
        draws: the shared draws, with groups of records.
        fprs: the false-positive rates at which curves are read.
        pooled_fprs: those at which the pooled curve is read as well.
        stratified: the draws of each target by itself; empty for none.

    Raises:
        ValueError: a score of an evaluated row is NaN, or a target lacks members or non-members.
    """
    score_TN, T = np.asarray(score_TN), len(score_TN)
    every = sorted({*fprs, *pooled_fprs})
    of_one, thin = (every, roc.WHOLE) if T == 1 else (fprs, roc.FEWER)
    thin = thin if len(stratified) == 0 else roc.WHOLE
    counts = of_groups(draws.record_NR)
    count_GR = counts.count_GR.astype(np.float64)
    curves, areas, single, rows_T = [], [], [], []
    for t in range(T):
        try:
            rows = falling(score_TN[t], member_TN[t], evaluated_TN[t])
        except ValueError as e:
            raise ValueError(f"target {targets[t]}: {e}") from e
        sides, ranks = rising(rows), Ranks.of(rows)
        curves.append(roc.of_sides(*sides, of_one, reach=ranks.reach(rows), thin=thin))
        place_K = ranks.placed(rows)
        del ranks
        areas.append(_areas(rows, place_K, curves[-1], counts.group_N, count_GR))
        if stratified:
            alone = of_groups(stratified[t])
            auc_R = _areas(rows, place_K, curves[-1], alone.group_N, alone.count_GR)
            bins = drawn_bins(rows, rank_bins.cut(sides[1]), alone)
            steps = [outcomes.allowed(fpr, len(sides[1])) for fpr in fprs]
            steps = rank_bins.needed(steps)
            single.append(Redrawn(auc_R, dict(zip(steps, rank_bins.tprs(bins, steps)))))
            del bins
        rows_T.append(rows)
    area_TR = np.stack(areas)
    if T == 1:
        bins = drawn_bins(rows, rank_bins.cut(sides[1]), counts)
        return SortedScores(tuple(curves), curves[0], area_TR, tuple(single), None, bins)
    inside_I, outside_J = (
        np.sort(np.concatenate([rows.score_K[rows.inside_K == side] for rows in rows_T]))
        for side in (True, False)
    )
    pooled = roc.of_sides(inside_I, outside_J, every)
    cuts, pooled_ranks = rank_bins.cut(outside_J), PooledRanks(inside_I, outside_J)
    del inside_I, outside_J
    value_T, pull_TR = np.zeros(T), np.zeros(area_TR.shape)
    weights: list[Any] = [0.0, 0.0]
    for t, rows in enumerate(rows_T):
        unit_R = 1.0 if draws.unit_TR is None else draws.unit_TR[t]
        place_K = pooled_ranks.placed(rows)
        value_T[t], pull_TR[t] = _pooled_area(rows, place_K, counts.group_N, count_GR)
        drawn = drawn_bins(rows, cuts, counts)
        for side, weight_BR in enumerate((drawn.inside_CR, drawn.outside_BR)):
            weights[side] = weights[side] + (weight_BR * unit_R).astype(np.float64)
    inside_CR, outside_BR = (np.asarray(side).astype(np.float32) for side in weights)
    bins = rank_bins.DrawnBins(inside_CR, outside_BR, cuts.single_B, cuts.nonmembers)
    area = PooledArea(value_T, pull_TR)
    return SortedScores(tuple(curves), pooled, area_TR, tuple(single), area, bins)


def rising(rows: Falling) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rising scores of the members and of the non-members."""
    return rows.score_K[rows.inside_K][::-1].copy(), rows.score_K[~rows.inside_K][::-1].copy()


class Ranks(NamedTuple):
    """Holds how many members precede each sorted row, and the runs of equal scores.

    Attributes:
        inside_E: how many members are among the first e rows, e = 0 .. K.
        first_K, after_K: the first row of the run of each row, and the first one after it.
        tied: the sum of t^3 - t over runs of t rows.
    """

    inside_E: np.ndarray
    first_K: np.ndarray
    after_K: np.ndarray
    tied: float

    @classmethod
    def of(cls, rows: Falling) -> Ranks:
        """Counts the members of sorted rows."""
        K = len(rows.score_K)
        inside_E = np.zeros(K + 1, np.int64)
        np.cumsum(rows.inside_K, out=inside_E[1:])
        new_K = rows.score_K[1:] != rows.score_K[:-1]
        if new_K.all():
            return cls(inside_E, np.arange(K), np.arange(1, K + 1), 0.0)
        edge_U = np.concatenate([[0], np.flatnonzero(new_K) + 1, [K]])
        size_U = np.diff(edge_U)
        several = size_U[size_U > 1].astype(np.float64)
        first_K, after_K = np.repeat(edge_U[:-1], size_U), np.repeat(edge_U[1:], size_U)
        return cls(inside_E, first_K, after_K, float(np.sum(several**3 - several)))

    def reach(self, rows: Falling) -> roc.Reach:
        """Returns how the non-members are placed among the members."""
        at_J = np.flatnonzero(~rows.inside_K)[::-1]
        above_J, upto_J = (self.inside_E[edge_K[at_J]] for edge_K in (self.first_K, self.after_K))
        return roc.Reach(above_J, upto_J, self.tied)

    def placed(self, rows: Falling) -> np.ndarray:
        """Returns the placement [K] of each row among the rows of the other side, ties half."""
        n = int(self.inside_E[-1])
        m = len(rows.score_K) - n
        before_K, upto_K = self.inside_E[self.first_K], self.inside_E[self.after_K]
        inside_K = before_K + upto_K
        outside_K = self.first_K + self.after_K - inside_K
        return np.where(rows.inside_K, 1 - outside_K / (2 * m), inside_K / (2 * n))


def placed(rows: Falling) -> np.ndarray:
    """Returns the placement [K] of each row among the rows of the other side, ties half."""
    return Ranks.of(rows).placed(rows)


def _areas(rows: Falling, place_K, curve: roc.Roc, group_N, count_GR) -> np.ndarray:
    """Returns the AUC [R] of one target under draws of groups of records."""
    area, group_K = roc.auc(curve), group_N[rows.record_K]
    value_R: float | np.ndarray = area
    for side_K in (rows.inside_K, ~rows.inside_K):
        of_side = group_K[side_K]
        pull_G = np.bincount(of_side, weights=place_K[side_K] - area, minlength=len(count_GR))
        weight_R = np.bincount(of_side, minlength=len(count_GR)) @ count_GR
        with np.errstate(invalid="ignore"):
            value_R = value_R + np.where(
                weight_R > 0, pull_G @ count_GR / np.where(weight_R > 0, weight_R, 1), np.nan
            )
    return np.asarray(value_R)


def drawn_bins(rows: Falling, cuts: Cuts, counts: Grouped) -> rank_bins.DrawnBins:
    """Returns the weights of one target's rank bins under draws of groups of records."""
    B, group_K = len(cuts.score_B), counts.group_N[rows.record_K]
    drawn = []
    for member, side_K in ((True, rows.inside_K), (False, ~rows.inside_K)):
        group_I = group_K[side_K].astype(np.int64)
        first, last = int(group_I.min()), int(group_I.max()) + 1  # groups that the side lacks
        code_I = rank_bins.codes(rows.score_K[side_K], cuts, member=member)
        count_gR = counts.count_GR[first:last]
        drawn.append(rank_bins.weights(code_I, group_I - first, count_gR, B + member))
    inside_CR, outside_BR = drawn
    return rank_bins.DrawnBins(inside_CR, outside_BR, cuts.single_B, cuts.nonmembers)


class PooledRanks:
    """Ranks the scores of single targets among those of all, in `POOLED_BINS` fine bins a side.

    Args:
        inside_I, outside_J: the rising scores of all members and of all non-members.
    """

    def __init__(self, inside_I: np.ndarray, outside_J: np.ndarray):
        sides = (inside_I, outside_J)
        at = [np.linspace(0, len(s) - 1, min(POOLED_BINS, len(s))).astype(np.int64) for s in sides]
        self.edges = np.unique(np.concatenate([s[k] for s, k in zip(sides, at, strict=True)]))
        start_2E = [np.searchsorted(side, self.edges, side="left") for side in sides]
        # the share of a side below the middle of each bin
        self.below_2E = [
            (start_E + np.append(start_E[1:], len(side))) / 2 / len(side)
            for start_E, side in zip(start_2E, sides, strict=True)
        ]

    def placed(self, rows: Falling) -> np.ndarray:
        """Returns the placement [K] of each row of a target among all rows of the other side."""
        start_E = np.searchsorted(-rows.score_K, -self.edges, side="right")  # rows from an edge on
        size_E = np.diff(start_E[::-1], prepend=0)
        code_K = np.repeat(np.arange(len(self.edges))[::-1], size_E)
        of_inside, of_outside = self.below_2E
        return np.where(rows.inside_K, of_outside[code_K], 1 - of_inside[code_K])


def _pooled_area(rows: Falling, place_K, group_N, count_GR) -> tuple[float, np.ndarray]:
    """Returns the mean placements of one target's sides among all pairs, added up, and drawn."""
    group_K = group_N[rows.record_K]
    value, drawn_R = 0.0, np.zeros(count_GR.shape[1])
    for side_K in (rows.inside_K, ~rows.inside_K):
        place_I, group_I = place_K[side_K], group_K[side_K]
        weight_R = np.bincount(group_I, minlength=len(count_GR)) @ count_GR
        sum_R = np.bincount(group_I, weights=place_I, minlength=len(count_GR)) @ count_GR
        value += float(place_I.mean())
        drawn_R = drawn_R + np.where(weight_R > 0, sum_R / np.maximum(weight_R, 1e-300), np.nan)
    return value, drawn_R
