"""Privacy risk score: the probability of membership given the loss, from the shadows' histograms.

Source: Song and Mittal 2021 (arXiv:2003.10595).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _signals
from mia_jax.types import Attack

FLOOR = 1e-10  # smaller losses count as this


def make(*, signal: str = "loss", bins: int = 15, per_class: bool = False) -> Attack:
    """Scores P(member | bin of x's signal) = d_in / (d_in + d_out).

    d_in and d_out are the shares of the shadows' members and non-members in the bin, over all
    shadows' own evaluated rows together. The signal is the mean over the query views. Values
    outside all bins take the nearest bin; an empty bin scores 1/2. At equal priors the score is a
    probability; it needs no sign.

    Args:
        signal: the scalar signal.
        bins: how many bins. Edges are log-spaced between the smallest and the largest value,
            floored at 1e-10; equally spaced for a signal with negative values.
        per_class: histograms of x's class only (a class without members or non-members takes those
            of all classes).

    Raises:
        ValueError: No shadow has evaluated members and non-members of its own.
    """
    checks.at_least(1, bins=bins)

    def mean_over_views(value, axes):
        return _signals.mean_over_views(_signals.scalar(value, axes, signal))

    def score(evidence, key):
        del key
        own_N, own_MN = mean_over_views(evidence.target[signal], "AN"), evidence.shadow_evaluated_MN
        value_K, member_K = (
            mean_over_views(evidence.shadow[signal], "MAN")[own_MN],
            evidence.shadow_member_MN[own_MN],
        )
        inside, outside = int(member_K.sum()), int((~member_K).sum())
        if not inside or not outside:
            raise ValueError(
                f"histograms need the shadows' own rows: {len(own_MN)} shadows have {inside} "
                f"evaluated members and {outside} non-members; "
                "at least 1 of each is needed."
            )
        bin_of = _binning(value_K, bins)
        label_N = evidence.y if per_class else np.zeros(len(own_N), int)
        label_K = np.broadcast_to(label_N, own_MN.shape)[own_MN]
        posterior_CB = posteriors(
            bin_of(value_K), member_K, label_K, bins, evidence.num_classes if per_class else 1
        )
        score_N = np.full(len(own_N), np.nan)
        x = evidence.evaluated_N
        score_N[x] = posterior_CB[label_N[x], bin_of(own_N[x])]
        return score_N

    needs = (signal, "shadow_own") + (("y",) if per_class else ())
    return Attack(
        score,
        needs,
        knows="shadows",
        note=f"{signal}, {bins} bins{' per class' if per_class else ''}, equal priors",
    )


def _binning(value_K: np.ndarray, bins: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from values to bin numbers 0..bins-1, for the range of `value_K`."""
    low, high = value_K.min(), value_K.max()
    floor = FLOOR if low >= 0 else -np.inf
    space = np.geomspace if low >= 0 else np.linspace
    inner = space(max(low, floor), max(high, floor), bins + 1)[1:-1]
    return lambda value: np.searchsorted(inner, np.maximum(value, floor), side="right")


def posteriors(
    bin_K: np.ndarray, member_K: np.ndarray, label_K: np.ndarray, bins: int, classes: int
) -> np.ndarray:
    """Returns P(member | bin) [C,B] at equal priors, 1/2 in empty bins.

    It is the share of a class's members in the bin, over that share plus the non-members' share. A
    class without members or non-members takes the histograms of all classes together.
    """
    flat_K = (label_K * 2 + member_K) * bins + bin_K
    count_CSB = (
        np.bincount(flat_K, minlength=classes * 2 * bins)
        .reshape(classes, 2, bins)
        .astype(np.float64)
    )
    complete_C = count_CSB.sum(2).all(1)
    count_CSB[~complete_C] = count_CSB.sum(0)
    share_CSB = count_CSB / count_CSB.sum(2, keepdims=True)
    total_CB = share_CSB.sum(1)
    return np.where(total_CB > 0, share_CSB[:, 1] / np.where(total_CB > 0, total_CB, 1), 0.5)
