"""Membership in a least-squares fit: a fitted line passes closer to its own points, the more so the
further out they lie.
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _sides, _signals
from mia_jax.types import Attack


def make(*, signal: str = "loss", members: int = 0, ridge: float = 1e-3) -> Attack:
    """score = (1 - r^2 / mean r^2) * ((1 + h) - 1 / (1 + h)) / 2, mean over query views; the
    Gaussian log-likelihood ratio to second order in h.

    For least squares on Gaussian noise the squared residual r^2 (`signal`) of a member has mean s^2
    / (1 + h), of a non-member s^2 (1 + h): h = f' (F'F + ridge K I)^-1 f is the leverage that the
    example's features f (with a column of ones) would have outside the fit. F'F is K / n times the
    sum over the n evaluated rows, K = `members` (0: half of them). It needs no shadow. Leverage:
    Hoaglin & Welsch 1978.
    """
    checks.at_least(0, members=members)
    checks.positive(ridge=ridge)
    sign = _signals.sign_of(signal, None)

    def score(evidence, key):
        del key
        rows = np.flatnonzero(evidence.evaluated_N)
        leverage_X = leverages(
            evidence.x[rows], members=members or max(1, len(rows) // 2), ridge=ridge
        )
        gain_X = ((1 + leverage_X) - 1 / (1 + leverage_X)) / 2
        total_X = np.zeros(len(rows))
        for value_X in -sign * _signals.scalar(evidence.target[signal], "AN", signal)[
            :, rows
        ].astype(np.float64):
            center, scale = value_X.mean(), np.abs(value_X).mean()
            excess_X = np.where(
                np.abs(value_X - center) > 1e-12 * scale, value_X - center, 0
            )  # equal values tie
            total_X -= excess_X / (scale or 1) * gain_X
        return _sides.spread_out(total_X / len(evidence.target[signal]), evidence.evaluated_N)

    return Attack(score, (signal, "x"), knows="nothing", note=f"{signal} weighted by leverage")


def leverages(x_N, *, members: int, ridge: float) -> np.ndarray:
    """h [N] of the rows' features with a column of ones, in a fit of `members` rows like them; >
    0.
    """
    features_NF = np.asarray(x_N, np.float64).reshape(len(x_N), -1)
    features_NF = np.concatenate(
        [np.ones((len(features_NF), 1)), features_NF - features_NF.mean(0)], axis=1
    )
    gram_FF = members / len(features_NF) * features_NF.T @ features_NF + ridge * members * np.eye(
        features_NF.shape[1]
    )
    return np.einsum("nf,fn->n", features_NF, np.linalg.solve(gram_FF, features_NF.T))
