"""Computes what the rates of one model's records suggest about epsilon, as a heuristic.

`eps_from_rates_heuristic` is the logarithm of a lower bound of TPR/FPR. The logarithm of TPR/FPR is
at most epsilon for an epsilon-DP mechanism if rows are independent trials of it. The records of one
model are not independent trials, because they depend on each other through the model. Therefore
nothing here is a bound on differential privacy, and it is always called a heuristic. Valid bounds
come from canaries (mia_jax/privacy/audit.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mia_jax.metrics import intervals, roc


class Heuristic(NamedTuple):
    """Holds max(0, log of the lower bound of TPR/FPR) in `value`, with its threshold.

    `counts` are (TP, members, FP, non-members).
    """

    value: float
    threshold: float
    counts: tuple[int, int, int, int]
    method: str


def lower(k1, n1, k0, n0, *, alpha: float = 0.05) -> np.ndarray:
    """Returns lower 1 - alpha bounds of p1/p0 for k1 of n1 and k0 of n0.

    They are Clopper-Pearson's lower limit of p1 over the upper limit of p0; each limit holds at
    alpha/2.

    Args:
        k1, n1, k0, n0: the successes and the trials, as numbers or arrays that broadcast.
        alpha: the probability that a bound does not hold, at most.

    Raises:
        ValueError: unless 0 <= k <= n, n > 0 and 0 < alpha < 1.
    """
    return (
        intervals.clopper_pearson(k1, n1, 1 - alpha)[0]
        / intervals.clopper_pearson(k0, n0, 1 - alpha)[1]
    )


def eps_from_rates_heuristic(score_N, member_N, *, alpha: float = 0.05) -> Heuristic:
    """Returns the log of a lower bound of TPR/FPR at the best of a few thresholds.

    The thresholds flag 0, 1, 2, 4, ... non-members, and alpha is shared among them (Bonferroni).
    These ranks depend only on the numbers of rows, so Clopper-Pearson holds at each of them, with
    ties too.

    Args:
        score_N: the scores, higher = more likely a member.
        member_N: whether each row is a member.
        alpha: the probability that the bound of independent rows does not hold.

    Raises:
        ValueError: a score is NaN, or a side is empty.
    """
    score_N, member_N = roc.two_sides(score_N, member_N)
    inside, outside = np.sort(score_N[member_N]), np.sort(score_N[~member_N])
    threshold_T = _thresholds(outside)
    true_T, false_T = (len(side) - np.searchsorted(side, threshold_T) for side in (inside, outside))
    bound_T = lower(true_T, len(inside), false_T, len(outside), alpha=alpha / len(threshold_T))
    best = int(np.argmax(bound_T))
    value = math.log(bound_T[best]) if bound_T[best] > 1 else 0.0
    counts = (int(true_T[best]), len(inside), int(false_T[best]), len(outside))
    return Heuristic(
        value,
        float(threshold_T[best]),
        counts,
        f"clopper_pearson, bonferroni over {len(threshold_T)} ranks",
    )


def _thresholds(outside: np.ndarray) -> np.ndarray:
    """Returns the thresholds that flag 0, 1, 2, 4, ... of these ascending scores.

    The first threshold is just above the highest score.
    """
    ranks = 2 ** np.arange(int(np.log2(max(len(outside), 2))))
    return np.append(np.nextafter(outside[-1], np.inf), outside[::-1][ranks - 1])
