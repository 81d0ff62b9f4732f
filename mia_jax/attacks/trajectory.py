"""Trajectory attack: how the loss fell over several epochs of the same training run.

After Liu et al. 2022 (arXiv:2208.14933).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mia_jax import checks, registry
from mia_jax.attacks import _sides
from mia_jax.fitting import logistic
from mia_jax.threat_model import Stack
from mia_jax.types import Attack

# [A,N,E]: the loss after each of E epochs of a run, the last at its end.
SIGNAL = "loss_trajectory"
FLOOR = 1e-10  # smaller losses count as this


def make(
    *, form: str = "logistic", shadows: int = 16, ridge: float = 1e-3, mode: str = "online"
) -> Attack:
    """Scores -log(loss) at every epoch, the mean over the query views, jointly over the epochs.

    It reads the signal 'loss_trajectory' [A,N,E], E >= 1. The paper distills such losses from the
    target; here they are the snapshots of the runs themselves, a stronger attacker.

    Args:
        form: 'logistic': the log-odds of a logistic regression on the E values, standardized,
            fitted on the shadows' own evaluated rows. 'lira': the Student-t likelihood ratio of
            lira on the E values jointly, per example.
        shadows: how many shadows the regression is fitted on, the first ones.
        ridge: the regression's penalty.
        mode: 'online' or 'offline', for 'lira'.

    Raises:
        ValueError: No shadow has evaluated members and non-members of its own ('logistic').
    """
    checks.one_of(("logistic", "lira"), form=form)
    checks.one_of(("online", "offline"), mode=mode)
    checks.at_least(1, shadows=shadows)
    if form == "lira":
        whole = registry.make(
            "attacks",
            "lira",
            dict(signal="epochs", sign=1, mode=mode, views="multivariate", variance="shrunk"),
        )

        def of_lira(evidence, key):
            target, shadow = (
                {"epochs": by_epoch(of[SIGNAL])} for of in (evidence.target, evidence.shadow)
            )
            return whole.score(dataclasses.replace(evidence, target=target, shadow=shadow), key)

        return Attack(
            of_lira,
            (SIGNAL, *whole.needs[1:]),
            knows="shadows",
            note=f"jointly over epochs; {whole.note}",
        )

    def score(evidence, key):
        del key
        own_MN = evidence.shadow_evaluated_MN[:shadows]
        of_models = zip(evidence.shadow[SIGNAL][:shadows], own_MN, strict=True)
        x_KE = np.concatenate([features(value)[own_N] for value, own_N in of_models])
        member_K = evidence.shadow_member_MN[:shadows][own_MN]
        center_E, scale_E = x_KE.mean(0), x_KE.std(0)
        scale_E = np.where(scale_E > 1e-12 * np.abs(center_E), scale_E, np.inf)
        weight_E, intercept = logistic.balanced((x_KE - center_E) / scale_E, member_K, ridge=ridge)
        x = evidence.evaluated_N
        return _sides.spread_out(
            (features(evidence.target[SIGNAL])[x] - center_E) / scale_E @ weight_E + intercept, x
        )

    return Attack(
        score,
        (SIGNAL, "shadow_own"),
        knows="shadows",
        note=f"logistic over epochs, fitted on up to {shadows} shadows",
    )


def by_epoch(value: np.ndarray | Stack) -> np.ndarray:
    """Returns the features [..,E,N] of a signal [..,A,N,E]; of a Stack one model is read at a time.

    They are one number per example and epoch: the query views of a Stack are never in memory.
    """
    if isinstance(value, Stack):
        return np.stack([np.moveaxis(features(value_ANE), -1, -2) for value_ANE in value])
    return np.moveaxis(features(value), -1, -2)


def features(value: np.ndarray) -> np.ndarray:
    """Returns the mean over the query views of -log(loss), [..,A,N,E] -> [..,N,E] float64.

    Raises:
        ValueError: The signal has no axis of epochs.
    """
    if value.ndim < 3 or not value.shape[-1]:
        raise ValueError(
            f"signal {SIGNAL!r} has shape {value.shape}; the trajectory attack needs [..,A,N,E] "
            "with E >= 1 epochs."
        )
    return -np.log(np.maximum(value, FLOOR, dtype=np.float64)).mean(-3)
