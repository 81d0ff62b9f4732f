"""Redraws a ROC in rank bins: a draw needs the weights of bins only, however many rows they hold.

Each of the `HEAD` highest distinct non-member scores has a bin of its own, so that the TPR at few
false positives is that of the draw row by row. Further bins hold a share `FINE` of the non-members
above them, but never more than a share `COARSE` of all J, nor more than (`ERROR` J)^2; within them
the curve is a line. The rows of a bin scatter about that line by less than the square root of
their number, so that a TPR of a draw is off by about `ERROR`. Equal scores are never parted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

HEAD = 256
FINE, COARSE, ERROR = 1 / 64, 1 / 512, 5e-5
SPARSE = 16  # cells per row from which a product skips empty cells


class Cuts(NamedTuple):
    """Holds how the scores of one ROC are cut into B bins, the highest scores first.

    Bin b has the non-members with scores from score_B[b] up to the bin before, and the members
    that score higher than score_B[b], but not higher than score_B[b - 1].

    Attributes:
        score_B: falling scores of non-members.
        single_B: whether all non-members of the bin have equal scores.
        nonmembers: the number of non-members.
    """

    score_B: np.ndarray
    single_B: np.ndarray
    nonmembers: int


class DrawnBins(NamedTuple):
    """Holds the weights of the bins under R draws.

    Attributes:
        inside_CR: the weights of the members in each bin; the last row has those below all bins.
        outside_BR: the weights of the non-members in each bin.
        single_B: whether all non-members of the bin have equal scores.
        nonmembers: the number of non-members.
    """

    inside_CR: np.ndarray
    outside_BR: np.ndarray
    single_B: np.ndarray
    nonmembers: int


def needed(allowed_F: Sequence[int], *, low: bool = True) -> list[int]:
    """Returns the allowances that `ends` reads: k and, for draws that err low, k - 1 and k - 2."""
    return sorted({k - d for k in allowed_F for d in ((0, 1, 2) if low else (0,)) if k >= d})


def ends(
    tpr: Mapping[int, np.ndarray], allowed_F: Sequence[int], R: int, *, low: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low_FR, high_FR) of `bootstrap.redraw` from TPRs [R] at the needed allowances."""
    high_FR = np.reshape([tpr[k] for k in allowed_F], (len(allowed_F), R))
    if not low:
        return high_FR, high_FR
    low_FR = [
        tpr[0] * (1 - np.exp(-1)) if k == 1 else (tpr[k - 2] + tpr[k - 1]) / 2 for k in allowed_F
    ]
    return np.reshape(low_FR, high_FR.shape), high_FR


def last(nonmembers: int) -> np.ndarray:
    """Returns how many of the sorted non-members there are up to the end of each bin.

    >>> np.diff(last(1_000_000), prepend=0)[[0, 255, 256, 500, 900]].tolist()
    [1, 1, 4, 155, 1953]
    """
    sizes, count = [1] * min(HEAD, nonmembers), min(HEAD, nonmembers)
    while count < nonmembers:
        most = max(1, int(min(nonmembers * COARSE, (nonmembers * ERROR) ** 2)))
        sizes.append(min(max(1, int(count * FINE)), most, nonmembers - count))
        count += sizes[-1]
    return np.cumsum(sizes)


def drawn_ends(
    drawn: DrawnBins, allowed_F: Sequence[int], *, low: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low_FR, high_FR) of `bootstrap.redraw` from the weights of the bins."""
    steps = needed(allowed_F, low=low)
    tpr = dict(zip(steps, tprs(drawn, steps), strict=True))
    return ends(tpr, allowed_F, drawn.outside_BR.shape[1], low=low)


def cut(outside_J: np.ndarray) -> Cuts:
    """Cuts the rising scores [J] of the non-members of one ROC into bins."""
    J = len(outside_J)
    # the lowest score of each bin; equal scores are one bin
    score_B = outside_J[J - last(J)]
    score_B = score_B[np.append(True, score_B[1:] != score_B[:-1])]
    first_B = np.searchsorted(outside_J, score_B, side="left")
    highest_B = outside_J[np.append(J, first_B[:-1]) - 1]
    return Cuts(score_B, highest_B == score_B, J)


def codes(falling_K: np.ndarray, cuts: Cuts, *, member: bool) -> np.ndarray:
    """Returns the bin of each score of one side, which fall; B for members below all bins."""
    edge_B = np.searchsorted(-falling_K, -cuts.score_B, side="left" if member else "right")
    size_C = np.diff(edge_B, prepend=0, append=len(falling_K))
    return np.repeat(np.arange(len(size_C)), size_C)


def weights(code_K: np.ndarray, group_K: np.ndarray, count_GR: np.ndarray, bins: int) -> np.ndarray:
    """Returns the weights [bins,R] of rows under the draws of their groups.

    Args:
        code_K: the bin of each row.
        group_K: its group.
        count_GR: how often each group is drawn.
        bins: the number of bins.
    """
    groups = len(count_GR)
    if SPARSE * len(code_K) < bins * groups:
        ones = np.ones(len(code_K), np.float32)
        return csr_array((ones, (code_K, group_K)), (bins, groups)) @ count_GR
    cell_K = code_K * groups + group_K
    in_cell = np.bincount(cell_K, minlength=bins * groups)
    return in_cell.astype(np.float32).reshape(bins, groups) @ count_GR


def tprs(drawn: DrawnBins, allowed_F: Sequence[int]) -> np.ndarray:
    """Returns the TPRs [F,R] of `bootstrap.curve_draws`; NaN where a side has no weight.

    Args:
        drawn: the weights of the bins.
        allowed_F: numbers of allowed false positives.
    """
    true_RC = np.cumsum(drawn.inside_CR, axis=0, dtype=np.float64).T.copy()
    false_RB = np.cumsum(drawn.outside_BR, axis=0, dtype=np.float64).T.copy()
    limit_F = (np.asarray(allowed_F) + 0.5) / drawn.nonmembers
    tpr_FR = np.full((len(limit_F), len(true_RC)), np.nan)
    for r, (true_C, false_B) in enumerate(zip(true_RC, false_RB, strict=True)):
        total, weight = true_C[-1], false_B[-1]
        if not (total > 0 and weight > 0):
            continue
        # the first bin in which the limit is exceeded
        bin_F = np.searchsorted(false_B, limit_F * weight, side="right")
        at_F = np.minimum(bin_F, len(false_B) - 1)
        false_F, true_F = (np.where(at_F > 0, x[at_F - 1], 0.0) for x in (false_B, true_C))
        # of a bin whose non-members have equal scores, all members above them count
        share_F = np.where(
            drawn.single_B[at_F],
            1.0,
            (limit_F * weight - false_F) / np.maximum(false_B[at_F] - false_F, 1e-9),
        )
        reach_F = true_F + np.clip(share_F, 0.0, 1.0) * (true_C[at_F] - true_F)
        tpr_FR[:, r] = np.where(bin_F < len(false_B), reach_F, total) / total
    return tpr_FR
