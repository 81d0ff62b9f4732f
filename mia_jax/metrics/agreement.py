"""Measures which records several attacks identify together and which only one of them does.

An attack identifies the records above the threshold at which it flags as many non-members of the
target as a false-positive rate allows: those that `tpr@fpr` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.metrics import outcomes, roc


class Agreement(NamedTuple):
    """Holds how A attacks agree on the members of a target that they identify; means over targets.

    Attributes:
        jaccard_AA: members identified by both, divided by those identified by either; NaN where
            neither identifies a member of any target.
        chance_AA: the Jaccard index of two attacks that identify as many members independently of
            each other.
        identified_A, false_A: the members and the non-members that an attack flags.
        only_A, only_false_A: the members and the non-members that no other attack flags.
        union, union_false: the members and the non-members that at least one attack flags.
        union_tpr, union_fpr: their shares of all members and non-members.
        first_tpr: the TPR of the first attack alone at as many false positives as the union has.
    """

    jaccard_AA: np.ndarray
    chance_AA: np.ndarray
    identified_A: np.ndarray
    false_A: np.ndarray
    only_A: np.ndarray
    only_false_A: np.ndarray
    union: float
    union_false: float
    union_tpr: float
    union_fpr: float
    first_tpr: float


def flagged(score_N, member_N, false_positives: int) -> np.ndarray:
    """Returns which records score above the threshold with at most so many false positives.

    The threshold is the lowest one, and equal scores are flagged together or not at all.

    Args:
        score_N: the scores of one target, higher = more likely a member.
        member_N: the members.
        false_positives: the non-members that may be flagged.

    >>> flagged([5, 4, 4, 3, 2], [1, 1, 0, 1, 0], 0).tolist()
    [True, False, False, False, False]
    """
    score_N = np.asarray(score_N, np.float64)
    other_K = score_N[~np.asarray(member_N, bool)]
    if false_positives >= len(other_K):
        return np.ones(len(score_N), bool)
    place = len(other_K) - 1 - false_positives  # of the first non-member that is too many
    return score_N > np.partition(other_K, place)[place]


def jaccard(flagged_AN) -> np.ndarray:
    """Returns the Jaccard index [A,A] of the records of each two rows; NaN where both are empty.

    >>> jaccard([[1, 1, 0], [0, 1, 1]])[0].round(3).tolist()
    [1.0, 0.333]
    """
    flagged_AN = np.asarray(flagged_AN, np.float64)  # a matrix product counts fast, and exactly
    both_AA, size_A = flagged_AN @ flagged_AN.T, flagged_AN.sum(1)
    either_AA = size_A[:, None] + size_A - both_AA
    return np.where(either_AA > 0, both_AA / np.maximum(either_AA, 1), np.nan)


def by_chance(rate_A) -> np.ndarray:
    """Returns the Jaccard index [A,A] of independent sets in large numbers; 1 with itself.

    >>> by_chance([0.5, 0.5])[0].round(3).tolist()
    [1.0, 0.333]
    """
    rate_A = np.asarray(rate_A, np.float64)
    both_AA = rate_A[:, None] * rate_A
    either_AA = rate_A[:, None] + rate_A - both_AA
    chance_AA = np.where(either_AA > 0, both_AA / np.where(either_AA > 0, either_AA, 1), np.nan)
    np.fill_diagonal(chance_AA, np.where(rate_A > 0, 1, np.nan))
    return chance_AA


def measure(score_ATN: Sequence, member_TN, evaluated_TN, *, fpr: float = 0.01) -> Agreement:
    """Measures how attacks agree at a false-positive rate, each with its own threshold.

    Args:
        score_ATN: the scores [T,N] of each attack, the strongest first; not NaN where evaluated.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        fpr: the false-positive rate of each attack on each target.

    Raises:
        ValueError: the shapes differ, there is no attack, or some target has fewer than 1/fpr
            non-members.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    if not len(score_ATN):
        raise ValueError("score_ATN is empty; pass the scores of at least one attack.")
    for score_TN in score_ATN:
        checks.shape("TN", score=np.asarray(score_TN), member=member_TN, evaluated=evaluated_TN)
    fewest = int((evaluated_TN & ~member_TN).sum(1).min())
    if not roc.resolvable(fpr, fewest):
        raise ValueError(
            f"fpr={fpr:g} is below one false positive of {fewest} non-members; pass at least "
            f"{1 / max(fewest, 1):.3g}."
        )
    targets = []
    for t in range(len(member_TN)):
        row_K = np.flatnonzero(evaluated_TN[t])
        score_AK = [np.asarray(score_TN)[t, row_K] for score_TN in score_ATN]
        targets.append(_of_target(score_AK, member_TN[t, row_K], fpr))
    means = {name: _mean([getattr(t, name) for t in targets]) for name in Agreement._fields}
    numbers: dict[str, Any] = {name: m if m.ndim else float(m) for name, m in means.items()}
    return Agreement(**numbers)


def groups(
    score_ATN: Sequence, member_TN, evaluated_TN, *, same: float, most: int, fpr: float = 0.01
) -> list[list[int]]:
    """Groups attacks that identify almost the same members, each with the first that it resembles.

    Args:
        score_ATN, member_TN, evaluated_TN, fpr: as in `measure`.
        same: the Jaccard index (mean over targets) from which on two attacks count as the same.
            Two that identify no member of any target are the same.
        most: the largest number of groups; attacks that would begin another one are left out.

    Returns:
        The places of the attacks in `score_ATN`; the first of a group stands for it.

    >>> score_TN, member_TN = np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([[1, 1, 0, 0]])
    >>> groups([score_TN, -score_TN, score_TN**3], member_TN, member_TN >= 0, same=0.95, most=9,
    ...        fpr=0.5)
    [[0, 2], [1]]
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    made: list[list[int]] = []
    first: list[list[np.ndarray]] = []
    for a, score_TN in enumerate(score_ATN):
        flagged_T = []
        for t in range(len(member_TN)):
            row_K = np.flatnonzero(evaluated_TN[t])
            member_K = member_TN[t, row_K]
            allowed = outcomes.allowed(fpr, int((~member_K).sum()))
            flagged_T.append(flagged(np.asarray(score_TN)[t, row_K], member_K, allowed)[member_K])
        at = next((g for g, other_T in enumerate(first) if _alike(flagged_T, other_T, same)), None)
        if at is not None:
            made[at].append(a)
        elif len(made) < most:
            made.append([a])
            first.append(flagged_T)
    return made


def _alike(flagged_T: Sequence, other_T: Sequence, same: float) -> bool:
    index_T = [
        both.sum() / either.sum()
        for a, b in zip(flagged_T, other_T, strict=True)
        for both, either in [(a & b, a | b)]
        if either.any()
    ]
    return not index_T or float(np.mean(index_T)) >= same


def _of_target(score_AK: Sequence[np.ndarray], member_K: np.ndarray, fpr: float) -> Agreement:
    allowed = outcomes.allowed(fpr, int((~member_K).sum()))
    flagged_AK = np.array([flagged(score_K, member_K, allowed) for score_K in score_AK])
    sides = flagged_AK[:, member_K], flagged_AK[:, ~member_K]
    (identified_A, only_A, union), (false_A, only_false_A, union_false) = map(_counts, sides)
    inside, outside = max(int(member_K.sum()), 1), max(int((~member_K).sum()), 1)
    alone_K = flagged(score_AK[0], member_K, int(union_false))
    return Agreement(
        jaccard_AA=jaccard(sides[0]),
        chance_AA=by_chance(identified_A / inside),
        identified_A=identified_A,
        false_A=false_A,
        only_A=only_A,
        only_false_A=only_false_A,
        union=union,
        union_false=union_false,
        union_tpr=union / inside,
        union_fpr=union_false / outside,
        first_tpr=alone_K[member_K].sum() / inside,
    )


def _counts(flagged_AK: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns how many records each attack flags, how many it alone flags, how many any does."""
    times_K = flagged_AK.sum(0)
    return flagged_AK.sum(1), (flagged_AK & (times_K == 1)).sum(1), float((times_K > 0).sum())


def _mean(values: Sequence) -> np.ndarray:
    """Returns the mean over targets of what is defined there; NaN where it never is."""
    value_T = np.asarray(values, np.float64)
    known_T = ~np.isnan(value_T)
    total, count = np.where(known_T, value_T, 0).sum(0), known_T.sum(0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
