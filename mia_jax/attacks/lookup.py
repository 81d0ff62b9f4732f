"""Exact lookup: the share of members among the shadows' rows with exactly the same answers."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _features
from mia_jax.types import Attack


def make(*, signal: str = "correct_under_shift", per_class: bool = False) -> Attack:
    """Scores (m + 1) / (m + n + 2), of m members and n non-members with exactly this pattern.

    They are counted over the shadows' own evaluated rows, all shadows together. A pattern that no
    shadow row has takes m and n of the patterns with the same sum (if there are none, 1/2): for
    correct_under_shift, of equally many correct answers. It is exact and needs no training; the
    small networks of the label-only paper approximate it (Choquette-Choo et al. 2021,
    arXiv:2007.14321).

    Args:
        signal: binary answers, or others that repeat; every query view and component of it is part
            of a pattern.
        per_class: counts only rows of the example's class.
    """
    features = _features.make((signal,))
    needs = (*features.needs, *(["y"] if per_class else []), "shadow_own")

    def score(evidence, key):
        del key
        cols = np.flatnonzero(evidence.evaluated_N)
        parts = [_rows(features, evidence.target, evidence, cols, per_class)]
        sides = []
        for m in np.flatnonzero(evidence.shadow_evaluated_MN.any(1)):
            rows_K = np.flatnonzero(evidence.shadow_evaluated_MN[m])
            parts.append(
                _rows(
                    features,
                    {n: value[m] for n, value in evidence.shadow.items()},
                    evidence,
                    rows_K,
                    per_class,
                )
            )
            sides.append(evidence.shadow_member_MN[m, rows_K])
        member_K = np.concatenate(sides)
        checks.at_least(
            1, shadow_members=int(member_K.sum()), shadow_nonmembers=int((~member_K).sum())
        )
        group_K, x_KF = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        exact_N, seen_N = _share(np.column_stack([group_K, x_KF]), member_K, len(cols))
        sums_N, _ = _share(np.column_stack([group_K, x_KF.sum(1)]), member_K, len(cols))
        score_N = np.full(len(evidence.evaluated_N), np.nan)
        score_N[cols] = np.where(seen_N, exact_N, sums_N)
        return score_N

    return Attack(
        score,
        needs,
        note="share of members among equal patterns of "
        f"{signal}{' of a class' if per_class else ''}",
        threshold=0.5,
    )


def _rows(
    features, signal, evidence, rows_K: np.ndarray, per_class: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (class [K], 0 if pooled; features [K,F])."""
    return _features.labels(evidence, rows_K) if per_class else np.zeros(
        len(rows_K), int
    ), _features.matrix(features, signal, evidence, rows_K)


def _share(
    pattern_KF: np.ndarray, member_K: np.ndarray, asked: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of members per pattern, and whether the pattern was seen.

    Args:
        pattern_KF: the rows to score, then the rows that are counted.
        member_K: membership of the rows that are counted.
        asked: how many rows are scored.

    Returns:
        ((m + 1) / (m + n + 2), whether a counted row has the pattern) of the first `asked` rows.
    """
    number_K = np.unique(pattern_KF, axis=0, return_inverse=True)[1].reshape(-1)
    inside = np.bincount(number_K[asked:][member_K], minlength=number_K.max() + 1)
    outside = np.bincount(number_K[asked:][~member_K], minlength=number_K.max() + 1)
    own_N = number_K[:asked]
    return (inside[own_N] + 1) / (inside[own_N] + outside[own_N] + 2), inside[own_N] + outside[
        own_N
    ] > 0
