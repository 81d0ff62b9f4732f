"""Computes AUCs of many groups of rows from a single sort, and bootstraps them by matrix products.

A member's *placement* is the share of its group's non-members that score lower (+ half of the
tied), a non-member's the share of its group's members that score higher; the mean of either over
its side is the group's AUC. To first order a reweighting moves the AUC by what it moves the two
means (the Hajek projection), so R draws cost one product of matrices [T,N] [N,R].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special
from scipy.sparse import csr_array

from mia_jax.metrics import bootstrap, rank_bins, record_groups
from mia_jax.metrics.record_groups import Counts, Grouped


class Order(NamedTuple):
    """Holds record numbers by falling score.

    Row k is tied with the rows first_K[k] .. after_K[k] - 1.
    """

    rows_K: np.ndarray
    first_K: np.ndarray
    after_K: np.ndarray


def order(score_N, evaluated_N) -> Order:
    """Sorts the evaluated scores of one target."""
    rows = np.flatnonzero(evaluated_N)
    score_K = np.asarray(score_N, np.float64)[rows]
    by = np.argsort(-score_K, kind="stable")
    return Order(rows[by], *ties(score_K[by]))


def ties(sorted_K) -> tuple[np.ndarray, np.ndarray]:
    """Returns (first, after) [K] of sorted values: where the run of each value begins and ends."""
    new = np.flatnonzero(np.append(True, sorted_K[1:] != sorted_K[:-1])[: len(sorted_K)])
    run_K = np.repeat(np.arange(len(new)), np.diff(np.append(new, len(sorted_K))))
    return new[run_K], np.append(new, len(sorted_K))[run_K + 1]


def placements(rows: Order, member_N, code_N, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (auc_G, place_N) of one target, float64.

    They are the AUC within each group of records and the placement of every record in its group.
    The AUC is NaN where a group lacks members or non-members; placements are then 0.

    Args:
        rows: the sorted rows of the target (`order`).
        member_N: whether each record is a member.
        code_N: the group of each record, 0 .. groups - 1, or -1 for none.
        groups: the number G of groups.
    """
    place_N, auc_G = np.zeros(len(code_N)), np.full(groups, np.nan)
    code_K = code_N[rows.rows_K]
    kept = np.flatnonzero(code_K >= 0)
    kept = kept[np.argsort(code_K[kept], kind="stable")]  # group after group, each by falling score
    group_K, at_K = code_K[kept], rows.rows_K[kept]
    inside_K = member_N[at_K]
    joined = np.append(
        True, (group_K[1:] != group_K[:-1]) | (rows.first_K[kept][1:] != rows.first_K[kept][:-1])
    )[: len(kept)]
    start = np.flatnonzero(joined)
    run_K = np.cumsum(joined) - 1
    first_K, after_K = start[run_K], np.append(start, len(kept))[run_K + 1]
    inside, outside = (np.append(0, np.cumsum(side)) for side in (inside_K, ~inside_K))
    edge_G = np.searchsorted(group_K, np.arange(groups + 1))
    inside_G, outside_G = np.diff(inside[edge_G]), np.diff(outside[edge_G])
    above_K = (inside[first_K] + inside[after_K]) / 2 - inside[edge_G[group_K]]
    below_K = outside[edge_G[group_K + 1]] - (outside[first_K] + outside[after_K]) / 2
    whole = (inside_G > 0) & (outside_G > 0)
    place_K = (
        np.where(
            inside_K,
            below_K / np.maximum(outside_G, 1)[group_K],
            above_K / np.maximum(inside_G, 1)[group_K],
        )
        * whole[group_K]
    )
    place_N[at_K] = place_K
    total_G = np.bincount(group_K, place_K * inside_K, minlength=groups)
    auc_G[whole] = total_G[whole] / inside_G[whole]
    return auc_G, place_N


class Weights(NamedTuple):
    """Holds what all attacks share about one group of records.

    Attributes:
        columns: the columns n of the records that are kept.
        record_nR: the draws of these records.
        side_Tn: 1 for a member, -1 for a non-member, 0 for a record outside the group.
        inside_TR, outside_TR: the weights of members and of non-members under the draws.
        stretch: the factor by which deviations from the AUC grow, for few records and for draws of
            fewer records than there are.
    """

    columns: np.ndarray | slice
    record_nR: Counts
    side_Tn: np.ndarray
    inside_TR: np.ndarray
    outside_TR: np.ndarray
    stretch: float


def weights(inside_TN, outside_TN, record_NR: Counts) -> Weights:
    """Returns the shared part of `auc_draws` and `shares` for a group of records.

    Args:
        inside_TN, outside_TN: the members and the non-members of the group, for each target.
        record_NR: the counts of all records under the draws.
    """
    held = np.flatnonzero((inside_TN | outside_TN).any(0))
    # where the group has most of the records, all columns are kept, which needs no copy
    columns = held if 2 * len(held) < len(record_NR) else slice(None)
    record_nR = record_NR[columns]
    if not isinstance(record_nR, Grouped):
        record_nR = np.ascontiguousarray(record_nR)
    side_Tn = inside_TN[:, columns].astype(np.int8) - outside_TN[:, columns]
    records = int((side_Tn != 0).any(0).sum())
    wider = special.stdtrit(records - 1, 0.975) / special.ndtri(0.975) if records > 1 else 1.0
    return Weights(
        columns=columns,
        record_nR=record_nR,
        side_Tn=side_Tn,
        inside_TR=record_groups.totals(side_Tn == 1, record_nR),
        outside_TR=record_groups.totals(side_Tn == -1, record_nR),
        stretch=float(wider / record_NR.mean()),
    )


def shares(named_TN, w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weighted shares [T,R] of members and of non-members that are flagged [T,N].

    They are those of one group under the draws, and NaN where a side has no weight.
    """
    named_Tn = np.asarray(named_TN, bool)[:, w.columns]
    grouped = isinstance(w.record_nR, Grouped)
    sparse = not grouped and 8 * np.count_nonzero(named_Tn) < named_Tn.size
    share_of_side = []
    for sign, weight_TR in ((1, w.inside_TR), (-1, w.outside_TR)):
        part_Tn = named_Tn & (w.side_Tn == sign)
        if sparse:
            total_TR = csr_array(part_Tn.astype(np.float32)) @ w.record_nR
        else:
            total_TR = record_groups.totals(part_Tn, w.record_nR)
        share_of_side.append(
            np.where(
                weight_TR > 0, total_TR / np.where(weight_TR > 0, weight_TR, 1), np.nan
            ).astype(np.float64)
        )
    return share_of_side[0], share_of_side[1]


def auc_draws(auc_T, place_TN, w: Weights) -> np.ndarray:
    """Returns the AUCs [T,R] of a group under the draws; NaN where a side has no weight.

    They are AUC + sum of (placement - AUC)/(size of the side) x (count of the record). Deviations
    are stretched to DeLong's variance (n - 1 for n rows of a side) and to Student's t over the
    group's records, as `bootstrap.resample_size` does for a whole pool.

    Args:
        auc_T: the AUC of the group for each target.
        place_TN: the placements of its records (`placements`).
        w: the weights of the group.
    """
    auc_T = np.asarray(auc_T, np.float64)
    if isinstance(w.record_nR, Grouped):
        return grouped_draws(
            auc_T, [pulled(*of_target, w) for of_target in zip(auc_T, place_TN, w.side_Tn)], w
        )
    size_Tn = np.ones(w.side_Tn.shape)
    for sign in (1, -1):
        count_T = (w.side_Tn == sign).sum(1, keepdims=True)
        size_Tn = np.where(
            w.side_Tn == sign, np.sqrt(count_T * np.maximum(count_T - 1, 1)), size_Tn
        )
    pull_Tn = np.where(
        w.side_Tn != 0,
        (np.asarray(place_TN)[:, w.columns] - auc_T[:, None]) * w.stretch / size_Tn,
        0.0,
    )
    pull_Tn[np.isnan(auc_T)] = 0.0
    drawn_TR = auc_T[:, None] + (pull_Tn.astype(np.float32) @ w.record_nR).astype(np.float64)
    return np.where((w.inside_TR > 0) & (w.outside_TR > 0), drawn_TR, np.nan)


def grouped_draws(auc_T, pull_TG: Sequence[np.ndarray], w: Weights) -> np.ndarray:
    """Returns the AUCs [T,R] of `auc_draws` from what the groups of records add (`pulled`)."""
    count_GR = record_groups.of_groups(w.record_nR).count_GR.astype(np.float64)
    drawn_TR = np.asarray(auc_T)[:, None] + np.stack(pull_TG) @ count_GR
    return np.where((w.inside_TR > 0) & (w.outside_TR > 0), drawn_TR, np.nan)


def pulled(auc: float, place_N, side_n, w: Weights) -> np.ndarray:
    """Returns what an additional count of each group of records [G] adds to the AUC of a target."""
    pull_n = np.asarray(place_N, np.float64)[w.columns] - (0.0 if np.isnan(auc) else auc)
    for sign in (1, -1):
        rows = side_n == sign
        count = int(rows.sum())
        pull_n[rows] *= w.stretch / np.sqrt(max(count * max(count - 1, 1), 1))
    pull_n[(side_n == 0) | np.isnan(auc)] = 0.0
    return record_groups.of_groups(w.record_nR).fold(pull_n)


def _tprs_in_bins(
    rows: bootstrap.Ranked, draws: bootstrap.Draws, allowed_F: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `tpr_draws` returns, from the weights of rank bins."""
    counts, T = record_groups.of_groups(draws.record_NR), len(draws.index_T)
    last_B = rank_bins.last(len(rows.nonmember_J))
    # members that score higher than the lowest non-member of the bin
    ends = (np.append(rows.above_J[last_B - 1], len(rows.member_I)), last_B)
    weights_of_sides = []
    for row_K, end_B in zip((rows.member_I, rows.nonmember_J), ends, strict=True):
        code_K = np.repeat(np.arange(len(end_B)), np.diff(end_B, prepend=0))
        target_K, record_K = np.divmod(row_K, len(counts))
        order_K = np.argsort(target_K.astype(np.uint16), kind="stable")
        group_K, edge_T = counts.group_N[record_K], np.bincount(target_K, minlength=T).cumsum()
        total_BR = np.zeros((len(end_B), counts.shape[1]))
        for t, of_target in enumerate(np.split(order_K, edge_T[:-1])):
            drawn = (code_K[of_target], group_K[of_target].astype(np.int64), counts.count_GR)
            unit_R = 1.0 if draws.unit_TR is None else draws.unit_TR[t]
            total_BR += rank_bins.weights(*drawn, len(end_B)) * unit_R
        weights_of_sides.append(total_BR)
    single_B = np.diff(last_B, prepend=0) == 1
    inside_CR, outside_BR = weights_of_sides
    bins = rank_bins.DrawnBins(inside_CR, outside_BR, single_B, len(rows.nonmember_J))
    return rank_bins.drawn_ends(bins, allowed_F)


def tpr_draws(
    rows: bootstrap.Ranked, draws: bootstrap.Draws, allowed_F: Sequence[int], inside_R, outside_R
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low_FR, high_FR) of `bootstrap.redraw`, reading only the head of the sorted rows.

    Args:
        rows: the sorted rows.
        draws: the bootstrap draws.
        allowed_F: the numbers of allowed false positives.
        inside_R, outside_R: the total weights of the two sides under the draws, which all attacks
            share.
    """
    if isinstance(draws.record_NR, Grouped):
        return _tprs_in_bins(rows, draws, allowed_F)
    N = len(draws.record_NR)
    needed = sorted({k - d for k in allowed_F for d in (0, 1, 2) if k >= d})
    J, limit_FR = (
        len(rows.nonmember_J),
        (np.array(needed)[:, None] + 0.5) / len(rows.nonmember_J) * outside_R,
    )

    def weigh(part):
        record = draws.record_NR[part % N]
        return record if draws.unit_TR is None else record * draws.unit_TR[part // N]

    head = min(J, int(1.5 * needed[-1]) + 32)
    while True:
        false_HR = np.cumsum(weigh(rows.nonmember_J[:head]), axis=0, dtype=np.float64)
        if head == J or (false_HR[-1] > limit_FR[-1]).all():
            break
        head = min(J, 2 * head)
    # the first non-member beyond the limit (head: none)
    first_FR = np.stack([(false_HR <= limit_R).sum(0) for limit_R in limit_FR])
    reach = np.append(rows.above_J[:head], rows.above_J[head] if head < J else len(rows.member_I))[
        first_FR
    ]
    true_IR = np.zeros((int(reach.max()) + 1, len(outside_R)))
    np.cumsum(weigh(rows.member_I[: len(true_IR) - 1]), axis=0, out=true_IR[1:])
    total_R = np.where((inside_R > 0) & (outside_R > 0), inside_R, np.nan)
    tpr = dict(zip(needed, true_IR[reach, np.arange(len(outside_R))] / total_R))
    low = [
        tpr[0] * (1 - np.exp(-1)) if k == 1 else (tpr[k - 2] + tpr[k - 1]) / 2 for k in allowed_F
    ]
    return np.reshape(low, (len(low), -1)), np.reshape([tpr[k] for k in allowed_F], (len(low), -1))
