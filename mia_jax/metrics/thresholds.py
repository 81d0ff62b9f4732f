"""Chooses thresholds on the models that an attacker trained itself, never on the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.metrics import roc


def shadow_thresholds(score_MN, member_MN, evaluated_MN, shadow_MM) -> np.ndarray:
    """Returns for each model the threshold with the best balanced accuracy on its shadows.

    The scored pairs of all shadows of a model are pooled. The rule is score >= threshold.
    Candidates are midpoints of distinct scores and +-inf; among equally good ones the highest is
    chosen.

    Args:
        score_MN: the scores of each model as if it were the target; NaN where it was not scored.
        member_MN, evaluated_MN: the members and the scored rows of each model.
        shadow_MM: shadow_MM[t, m] says whether model m is a shadow of model t.

    Returns:
        float64 [M]; NaN where the shadows of a model have no scored members or no scored
            non-members.
    """
    score_MN, member_MN = np.asarray(score_MN, np.float64), np.asarray(member_MN, bool)
    evaluated_MN, shadow_MM = np.asarray(evaluated_MN, bool), np.asarray(shadow_MM, bool)
    M = checks.shape("MN", score=score_MN, member=member_MN, evaluated=evaluated_MN)["M"]
    if shadow_MM.shape != (M, M):
        raise ValueError(f"shadow_MM has shape {shadow_MM.shape}; expected ({M}, {M}).")
    at_M, at_N = np.nonzero(evaluated_MN & ~np.isnan(score_MN))
    order = np.argsort(-score_MN[at_M, at_N], kind="stable")
    at_M, at_N = at_M[order], at_N[order]
    score_K, member_K = score_MN[at_M, at_N], member_MN[at_M, at_N]
    inside_M, outside_M = (
        np.bincount(at_M[member_K], minlength=M),
        np.bincount(at_M[~member_K], minlength=M),
    )
    last_V = np.flatnonzero(np.append(score_K[1:] != score_K[:-1], True))
    known: dict[bytes, float] = {}  # models with equal shadows share a threshold
    for shadow_M in shadow_MM:
        if shadow_M.tobytes() not in known:
            inside, outside = int(inside_M @ shadow_M), int(outside_M @ shadow_M)
            known[shadow_M.tobytes()] = (
                _best(score_K, member_K, shadow_M[at_M], last_V, inside, outside)
                if inside and outside
                else np.nan
            )
    return np.array([known[shadow_M.tobytes()] for shadow_M in shadow_MM])


def _best(score_K, member_K, keep_K, last_V, inside: int, outside: int) -> float:
    """Returns `roc.best_threshold` of the kept ones among sorted pairs.

    It reads a cumulative sum of whole numbers where a group of tied scores ends.
    """
    # inside * outside * (TPR - FPR), exact
    gain_K = np.cumsum(np.where(member_K, outside, -inside) * keep_K)
    best = last_V[np.argmax(gain_K[last_V])]
    if gain_K[best] <= 0:
        return np.inf
    return roc.between(score_K[best + 1 + np.argmax(keep_K[best + 1 :])], score_K[best])


def shadow_thresholds_at(
    score_MN, member_MN, evaluated_MN, shadow_MM, fprs: Sequence[float]
) -> np.ndarray:
    """Returns for each FPR and model the lowest threshold with that FPR on shadows, float64 [F,M].

    It flags at most that share of the scored non-members of the model's shadows, whose pairs are
    pooled. The rule is score >= threshold, and thresholds are between two scores.

    Args:
        score_MN, member_MN, evaluated_MN, shadow_MM: as in `shadow_thresholds`.
        fprs: the false-positive rates.

    Returns:
        float64 [F,M]; NaN where no shadow of a model was scored, or where a single false positive
            is more than the FPR allows.
    """
    score_MN, shadow_MM = np.asarray(score_MN, np.float64), np.asarray(shadow_MM, bool)
    usable_MN = np.asarray(evaluated_MN, bool) & ~np.asarray(member_MN, bool) & ~np.isnan(score_MN)
    M = checks.shape("MN", score=score_MN, usable=usable_MN)["M"]
    if shadow_MM.shape != (M, M):
        raise ValueError(f"shadow_MM has shape {shadow_MM.shape}; expected ({M}, {M}).")
    at_M, at_N = np.nonzero(usable_MN)
    order = np.argsort(-score_MN[at_M, at_N], kind="stable")
    at_M, score_K = at_M[order], score_MN[at_M[order], at_N[order]]
    last_V = np.flatnonzero(np.append(score_K[1:] != score_K[:-1], True))[: len(score_K)]
    known: dict[bytes, list[float]] = {}  # models with equal shadows share thresholds
    for shadow_M in shadow_MM:
        if shadow_M.tobytes() not in known:
            named_V = np.cumsum(shadow_M[at_M])[last_V] if len(score_K) else np.zeros(0, int)
            known[shadow_M.tobytes()] = [_below(score_K[last_V], named_V, fpr) for fpr in fprs]
    return np.array([known[shadow_M.tobytes()] for shadow_M in shadow_MM]).T.reshape(len(fprs), M)


def _below(score_V, named_V, fpr: float) -> float:
    """Returns the lowest threshold that flags at most the share `fpr` of the kept non-members.

    `named_V` counts those with a score of at least `score_V`, which is falling.
    """
    if not len(named_V) or not roc.resolvable(fpr, named_V[-1]):
        return np.nan
    # the number of distinct scores that may be flagged
    count = int(np.searchsorted(named_V, fpr * named_V[-1] * (1 + roc.TINY), side="right"))
    if count == len(named_V):
        return -np.inf
    if count == 0 or named_V[count - 1] == 0:
        return float(np.nextafter(score_V[count], np.inf))
    return roc.between(score_V[count], score_V[np.searchsorted(named_V, named_V[count - 1])])
