"""Identifies members with a bounded expected share of false ones, around any score.

A candidate record is compared with known non-members, the calibration set: its conformal p-value is
the share of them, itself included, that score at least as high. Benjamini and Hochberg's rule over
the candidates of one model then names members (arXiv:2508.07066).

Among the named, the expected share of non-members is at most `share` times the share of
non-members among the candidates, whatever the scores are and however they depend on each other, if
the non-members of both sets are exchangeable given the members' scores (Bates et al. 2023; Marandon
et al. 2024). A split at random makes them so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mia_jax.metrics import multiple, roc


class Identified(NamedTuple):
    """Holds what one attack identifies in one model.

    Attributes:
        named_K: which candidates are identified as members.
        p_K: their conformal p-values.
        fewest: how many must be identified for any to be: below, no p-value is small enough.
    """

    named_K: np.ndarray
    p_K: np.ndarray
    fewest: int


def p_values(score_K, calibration_C) -> np.ndarray:
    """Returns the conformal p-values [K]: (1 + #{calibration >= score}) / (C + 1).

    A score that ties with a non-member's counts as the lower one, which is conservative.

    Args:
        score_K: the scores of the candidates, higher = more likely a member.
        calibration_C: the scores of known non-members, none of them a candidate.

    >>> p_values([3, 1, 0], [1, 2, 0]).tolist()
    [0.25, 0.75, 1.0]
    """
    score_K = np.asarray(score_K, np.float64)
    rising_C = np.sort(np.asarray(calibration_C, np.float64))
    if np.isnan(score_K).any() or np.isnan(rising_C).any():
        raise ValueError(
            "score_K or calibration_C holds NaN; leave out the records that were not scored."
        )
    at_least_K = len(rising_C) - np.searchsorted(rising_C, score_K, side="left")
    return (1 + at_least_K) / (len(rising_C) + 1)


def fewest(candidates: int, calibration: int, share: float) -> int:
    """Returns how many records must be identified for any to be.

    The smallest p-value is 1 / (calibration + 1), and k records are identified only if the k-th
    smallest is at most share k / candidates.

    >>> fewest(candidates=300, calibration=99, share=0.1)
    30
    """
    return math.ceil(candidates / (share * (calibration + 1)) * (1 - roc.TINY))


def identify(score_K, calibration_C, *, share: float = 0.1) -> Identified:
    """Identifies members among the candidates of one model.

    Args:
        score_K: the scores of the candidates, higher = more likely a member.
        calibration_C: the scores of known non-members, none of them a candidate.
        share: the largest expected share of non-members among the identified.

    Raises:
        ValueError: `share` is not between 0 and 1, or a score is NaN.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share!r}: expected a number between 0 and 1, such as 0.1.")
    p_K = p_values(score_K, calibration_C)
    named_K = (
        multiple.benjamini_hochberg(p_K) <= share * (1 + roc.TINY) if len(p_K) else p_K.astype(bool)
    )
    return Identified(named_K, p_K, fewest(len(p_K), len(np.asarray(calibration_C)), share))


def counts(score_K, member_K, calibration_C, *, share: float = 0.1) -> tuple[int, int]:
    """Returns how many candidates `identify` names, and how many of them are non-members.

    Both sets are sorted and compared once, without a p-value for each candidate.

    Args:
        score_K, calibration_C, share: as in `identify`.
        member_K: the members among the candidates.
    """
    rising_K, rising_C = np.sort(score_K), np.sort(calibration_C)
    size, known = len(rising_K), len(rising_C)
    if np.isnan(rising_K[-1:]).any() or np.isnan(rising_C[-1:]).any():
        raise ValueError(
            "score_K or calibration_C holds NaN; leave out the records that were not scored."
        )
    # above the j highest non-members p-values are at most (1 + j) / (known + 1)
    above_J = size - np.searchsorted(rising_K, rising_C[::-1], side="right")
    above_J = np.append(above_J, size)
    adjusted_J = (1 + np.arange(known + 1)) / (known + 1) * (size / np.maximum(above_J, 1))
    named_J = np.flatnonzero((above_J > 0) & (adjusted_J <= share * (1 + roc.TINY)))
    if not len(named_J):
        return 0, 0
    named = int(above_J[named_J[-1]])
    lowest = rising_K[size - named]
    return named, int(np.count_nonzero(~member_K & (score_K >= lowest)))


def split(nonmember_N, seed) -> tuple[np.ndarray, np.ndarray]:
    """Draws half of the non-members at random for calibration; the others stay candidates.

    Args:
        nonmember_N: the known non-members.
        seed: the key of the draw, a number or several.

    Returns:
        (calibration_N, candidate_N), bool; of an odd number, calibration has the larger half.

    >>> [side.tolist() for side in split([1, 0, 1], seed=0)]
    [[True, False, False], [False, False, True]]
    """
    row_K = np.flatnonzero(np.asarray(nonmember_N, bool))
    order_K = np.random.default_rng(seed).permutation(row_K)
    calibration_N, candidate_N = np.zeros((2, len(np.asarray(nonmember_N))), bool)
    half = -(-len(row_K) // 2)
    calibration_N[order_K[:half]] = True
    candidate_N[order_K[half:]] = True
    return calibration_N, candidate_N
