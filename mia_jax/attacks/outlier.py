"""Outliers first: records far from all others in the shadows' embeddings rank above the rest."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _signals
from mia_jax.types import Attack


def make(
    *,
    signal: str = "correct",
    beta: float = 0.01,
    neighbors: int = 10,
    shadows: int = 4,
    sign: int | None = None,
) -> Attack:
    """Scores u + [outlier and u above the median], u in (0, 1) the mid-rank of sign * signal.

    Ranks are over the target's evaluated rows. An outlier is one of the share `beta` whose
    `neighbors`-th nearest row, by cosine distance of the embeddings, is farthest: fewer than
    `neighbors` rows are within the radius that this defines. The embeddings are the shadows' on
    rows that they did not train on, averaged over shadows; the target is asked only for `signal`.

    Args:
        signal: its last part is ranked.
        beta: the share of outliers, in (0, 1).
        neighbors: the number of the neighbor whose distance counts.
        shadows: the most shadows whose embeddings are read.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), section 7.
    """
    checks.fraction(closed="neither", beta=beta)
    checks.at_least(1, neighbors=neighbors, shadows=shadows)
    sign = _signals.sign_of(signal, sign)

    def score(evidence, key):
        del key
        cols = np.flatnonzero(evidence.evaluated_N)
        value_K = sign * _signals.scalar(
            _signals.part(evidence.target[signal], None, signal), "AN", signal
        ).astype(np.float64)[:, cols].mean(0)
        u_K = mid_ranks(value_K)
        lonely_K = loneliness(
            evidence.shadow["embedding"][:shadows, 0][:, cols].astype(np.float64), neighbors
        )
        outlier_K = lonely_K > np.quantile(lonely_K, 1 - beta)
        score_N = np.full(len(evidence.evaluated_N), np.nan)
        score_N[cols] = u_K + (outlier_K & (u_K > 0.5))
        return score_N

    note = f"mid-rank of {signal}, the {100 * beta:g}% of outliers by {neighbors} neighbors first"
    return Attack(score, (signal, "embedding", "shadow_out"), note=note)


def mid_ranks(value_K: np.ndarray) -> np.ndarray:
    """Returns (rank - 1/2) / K in (0, 1); ties share their mean rank.

    Equal values all have 1/2.
    """
    _, number_K, count = np.unique(value_K, return_inverse=True, return_counts=True)
    below = np.cumsum(count) - count
    return (below + count / 2)[number_K] / len(value_K)


def loneliness(feature_SKF: np.ndarray, neighbors: int) -> np.ndarray:
    """Returns the mean over models of the cosine distance [K] to a row's nearest neighbors.

    The distance is to the `neighbors`-th nearest other row. Rows of NaN are not neighbors; a row
    that is NaN in every model has 0.

    Args:
        feature_SKF: embeddings of K rows by S models.
        neighbors: the number of the neighbor.
    """
    total_K, seen_K = np.zeros(feature_SKF.shape[1]), np.zeros(feature_SKF.shape[1])
    for feature_KF in feature_SKF:
        rows = np.flatnonzero(~np.isnan(feature_KF).any(1))
        if len(rows) > neighbors:
            length_K = np.linalg.norm(feature_KF[rows], axis=1, keepdims=True)
            unit_KF = feature_KF[rows] / np.where(length_K > 0, length_K, 1)
            distance_KK = np.round(1 - unit_KF @ unit_KF.T, 9)  # equal rows stay equal in any order
            np.fill_diagonal(distance_KK, np.inf)
            total_K[rows] += np.partition(distance_KK, neighbors - 1, axis=1)[:, neighbors - 1]
            seen_K[rows] += 1
    return total_K / np.maximum(seen_K, 1)
