"""Adjusts the p-values of several tests that are made together."""

from __future__ import annotations

import numpy as np
from scipy import stats


def holm(p_G) -> np.ndarray:
    """Returns adjusted p-values [G] by Holm's rule (Holm 1979).

    If the tests with an adjusted p-value <= alpha are rejected, the probability of any error is at
    most alpha, whatever their dependence.

    p_(i) -> max over j <= i of min(1, (G - j + 1) p_(j)).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p_G = np.asarray(p_G, np.float64)
    order = np.argsort(p_G, kind="stable")
    adjusted_G = np.empty(len(p_G))
    adjusted_G[order] = np.minimum(
        1, np.maximum.accumulate(p_G[order] * np.arange(len(p_G), 0, -1))
    )
    return adjusted_G


def benjamini_hochberg(p_N) -> np.ndarray:
    """Returns adjusted p-values [N] by Benjamini and Hochberg (1995); NaN is kept.

    If the tests with an adjusted p-value <= alpha are rejected, the expected share of errors among
    them is at most alpha.

    p_(i) -> min over j >= i of min(1, N p_(j) / j), for independent or positively dependent tests.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    p_N = np.asarray(p_N, np.float64)
    known_N, adjusted_N = ~np.isnan(p_N), np.full(len(p_N), np.nan)
    adjusted_N[known_N] = stats.false_discovery_control(p_N[known_N])
    return adjusted_N
