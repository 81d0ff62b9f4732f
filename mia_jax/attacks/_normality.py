"""Tests what a Gaussian attack assumes, on every example's shadows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import chdtrc

from mia_jax.attacks import _sides
from mia_jax.fitting import moments
from mia_jax.metrics.record_groups import EXACT, SAMPLE

LEAST = 8  # values from which the test's level is close to its name
LEVEL = 0.05


def diagnosis(signal: str, kinds: Sequence[str]) -> Callable:
    """Returns diagnose(evidence) -> {'out_normality_tested', 'out_normality_rejected', ...}.

    Per side: how many (query view, example) pairs with at least 8 shadows were tested, and the
    share that the omnibus test of `p_values` rejects at 5%; near 0.05 if the signals are Gaussian
    over models. Of more than `EXACT` examples, `SAMPLE` at equal distances are tested.
    """

    def diagnose(evidence) -> dict[str, float]:
        cols = np.flatnonzero(evidence.evaluated_N)
        if len(cols) > EXACT:
            cols = cols[np.linspace(0, len(cols) - 1, min(SAMPLE, len(cols))).astype(np.int64)]
        numbers = {}
        for kind, where_MN in zip(kinds, _sides.masks_of(evidence, cols, kinds), strict=True):
            p_AN = np.stack(
                [
                    p_values(evidence.shadow[signal][:, a][:, cols], where_MN)
                    for a in range(evidence.shadow[signal].shape[1])
                ]
            )
            tested = int((~np.isnan(p_AN)).sum())
            numbers[f"{kind}_normality_tested"] = tested
            if tested:
                numbers[f"{kind}_normality_rejected"] = float((p_AN < LEVEL).sum() / tested)
        return numbers

    return diagnose


def p_values(value_MN: np.ndarray, where_MN: np.ndarray) -> np.ndarray:
    """Returns the p-values [N] of the omnibus test of normality over axis M.

    K^2 = z_skew^2 + z_kurtosis^2 ~ chi-squared(2); NaN below 8 values or without spread. It equals
    scipy.stats.normaltest on each column.

    Sources: D'Agostino 1970 for the skewness, Anscombe and Glynn 1983 for the kurtosis.
    """
    p_N = np.full(value_MN.shape[1], np.nan)
    for cols in moments.blocks(value_MN.shape[1]):
        n, center, m2 = moments.moments(value_MN[:, cols], where_MN[:, cols])
        tested = (n >= LEAST) & (m2 > (1e-6 * center) ** 2)
        away_MN = np.where(where_MN[:, cols], value_MN[:, cols] - center, 0)[:, tested]
        n, m2 = n[tested], m2[tested]
        skew, kurtosis = ((away_MN**k).sum(0) / n / (m2 / n) ** (k / 2) for k in (3, 4))
        p_N[np.arange(len(p_N))[cols][tested]] = chdtrc(
            2, _skew_z(skew, n) ** 2 + _kurtosis_z(kurtosis, n) ** 2
        )
    return p_N


def _skew_z(skew: np.ndarray, n: np.ndarray) -> np.ndarray:
    y = skew * np.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    beta2 = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w2 = np.sqrt(2 * (beta2 - 1)) - 1
    return np.arcsinh(y / np.sqrt(2 / (w2 - 1))) / np.sqrt(np.log(w2) / 2)


def _kurtosis_z(kurtosis: np.ndarray, n: np.ndarray) -> np.ndarray:
    variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    x = (kurtosis - 3 * (n - 1) / (n + 1)) / np.sqrt(variance)
    root_beta1 = (
        6
        * (n**2 - 5 * n + 2)
        / ((n + 7) * (n + 9))
        * np.sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)))
    )
    a = 6 + 8 / root_beta1 * (2 / root_beta1 + np.sqrt(1 + 4 / root_beta1**2))
    ratio = (1 - 2 / a) / (1 + x * np.sqrt(2 / (a - 4)))
    return (1 - 2 / (9 * a) - np.cbrt(ratio)) / np.sqrt(2 / (9 * a))
