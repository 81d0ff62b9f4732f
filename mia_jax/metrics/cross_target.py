"""Computes the cross-target null: the scores of one model against the membership of another.

The scores cannot know that membership, so every audit comes with its own null.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mia_jax.metrics import (
    bootstrap,
    components,
    intervals,
    outcomes,
    placements,
    record_groups,
    sorted_scores,
)
from mia_jax.metrics.record_groups import Grouped


def partners(unit_T) -> np.ndarray:
    """Returns for each target a target of the next unit (-1 if there is only one unit)."""
    units, index_T = np.unique(np.asarray(unit_T), return_inverse=True)
    place = {u: np.flatnonzero(index_T == u) for u in range(len(units))}
    if len(units) < 2:
        return np.full(len(index_T), -1)
    chosen = []
    for t, u in enumerate(index_T):
        other = place[(u + 1) % len(units)]
        chosen.append(other[int((place[u] < t).sum()) % len(other)])
    return np.array(chosen)


def check(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    *,
    unit_T,
    draws: bootstrap.Draws,
    level: float = 0.95,
) -> dict:
    """Computes the AUC of another unit's scores against each target's members, mean over targets.

    The AUC is 1/2 for every attack if the models' memberships are independent, their shadows came
    in whole pairs, and nothing of the target's membership entered the scores.

    Args:
        attacks, member_TN, evaluated_TN, draws, level: as in `summary.rows`.
        unit_T: the unit of each target (twins share one).

    Returns:
        {attacks: {name: {auc, low, high}}, excluded, level, method}. `excluded` are the attacks
            whose AUC is so far from 1/2 that in honest audits any attack is excluded with
            probability of at most 1 - level (Bonferroni). {why} if there is no second unit, or no
            row is evaluated for both.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    partner_T = partners(unit_T)
    if (partner_T < 0).any():
        return dict(why="there is no second independent target")
    common_TN = evaluated_TN & evaluated_TN[partner_T]
    inside_TN, outside_TN = common_TN & member_TN, common_TN & ~member_TN
    if not (inside_TN.any(1).all() and outside_TN.any(1).all()):
        return dict(why="the targets share no evaluated rows, or only members or non-members")
    w = placements.weights(inside_TN, outside_TN, draws.record_NR)
    many = isinstance(draws.record_NR, Grouped)
    code_TN = None if many else common_TN.astype(np.int32) - 1
    smaller = int(min(inside_TN.sum(1).min(), outside_TN.sum(1).min()))
    intervals_of, excluded = {}, []
    each = 1 - (1 - level) / max(len(attacks), 1)
    for name, attack in attacks.items():
        score_TN = record_groups.as_scores(attack["score_TN"])
        if code_TN is None:
            auc_T, drawn_TR = _of_many(score_TN, partner_T, member_TN, common_TN, w)
        else:
            placed = [
                placements.placements(placements.order(s, c), m, code, 1)
                for s, c, m, code in zip(
                    score_TN[partner_T], common_TN, member_TN, code_TN, strict=True
                )
            ]
            auc_T = np.array([auc_G[0] for auc_G, _ in placed])
            drawn_TR = placements.auc_draws(auc_T, np.array([place for _, place in placed]), w)
        value = float(auc_T.mean())
        parts = components.parts(auc_T, drawn_TR, draws.index_T)
        # Also with few units: among these very models the value is not 1/2, for a shadow's level
        # shows in the scores of others. Records alone would show too little of its chance.
        error = components.error(parts, crossed=True, knows=attack.get("knows", "shadows"))
        if not intervals.usable(outcomes.average(drawn_TR, draws.unit_TR)):
            error = components.Error(0.0)
        low, high = intervals.logit(value, error.deviation, smaller, level, error.freedom)
        intervals_of[name] = dict(auc=value, low=low, high=high)
        if error.deviation > 0 and 0 < value < 1:
            bottom, top = intervals.logit(value, error.deviation, smaller, each, error.freedom)
            if not bottom <= 0.5 <= top:
                excluded.append(name)
    return dict(attacks=intervals_of, excluded=excluded, level=level, method=draws.method)


def _of_many(
    score_TN, partner_T, member_TN, common_TN, w: placements.Weights
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUC of each target by its partner's scores, and those under the draws [T,R]."""
    auc_T, pull_TG = np.zeros(len(partner_T)), []
    for t, partner in enumerate(partner_T):
        rows = sorted_scores.falling(score_TN[partner], member_TN[t], common_TN[t])
        place_K, place_N = sorted_scores.placed(rows), np.zeros(len(common_TN[t]))
        auc_T[t] = place_K[rows.inside_K].mean()
        place_N[rows.record_K] = place_K
        pull_TG.append(placements.pulled(auc_T[t], place_N, w.side_Tn[t], w))
    return auc_T, placements.grouped_draws(auc_T, pull_TG, w)
