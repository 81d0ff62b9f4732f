"""Leverage attack: a least-squares fit passes closer to its own points, the more so far outside."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _sides, _signals
from mia_jax.types import Attack


def make(*, signal: str = "loss", members: int = 0, ridge: float = 1e-3) -> Attack:
    """Scores (1 - r^2 / mean r^2) * ((1 + h) - 1 / (1 + h)) / 2, the mean over the query views.

    This is the Gaussian log-likelihood ratio to second order in h. For least squares with Gaussian
    noise the squared residual r^2 (`signal`) has mean s^2 / (1 + h) for a member and s^2 (1 + h)
    for a non-member. h = f' (F'F + ridge K I)^-1 f is the leverage that the example's features f
    (with a column of ones) would have outside the fit. F'F is K / n times the sum over the n
    evaluated rows. No shadow is needed.

    Args:
        signal: the squared residual.
        members: K, how many rows the model was fitted on; 0: half of the evaluated rows.
        ridge: keeps the inverse finite.

    Source: Hoaglin & Welsch 1978, for the leverage.
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
            # Equal values must tie.
            differs_X = np.abs(value_X - center) > 1e-12 * scale
            excess_X = np.where(differs_X, value_X - center, 0)
            total_X -= excess_X / (scale or 1) * gain_X
        return _sides.spread_out(total_X / len(evidence.target[signal]), evidence.evaluated_N)

    return Attack(score, (signal, "x"), knows="nothing", note=f"{signal} weighted by leverage")


def leverages(x_N, *, members: int, ridge: float) -> np.ndarray:
    """Returns the leverages [N] > 0 of rows in a fit of `members` rows like them.

    The features have a column of ones.
    """
    features_NF = np.asarray(x_N, np.float64).reshape(len(x_N), -1)
    features_NF = np.concatenate(
        [np.ones((len(features_NF), 1)), features_NF - features_NF.mean(0)], axis=1
    )
    gram_FF = members / len(features_NF) * features_NF.T @ features_NF + ridge * members * np.eye(
        features_NF.shape[1]
    )
    return np.einsum("nf,fn->n", features_NF, np.linalg.solve(gram_FF, features_NF.T))
