"""Threshold attack: a threshold on one signal, which needs only the target."""

from __future__ import annotations

import numpy as np

from mia_jax.attacks import _signals
from mia_jax.types import Attack


def make(
    *,
    signal: str = "loss",
    view: int | None = None,
    sign: int | None = None,
    prefix: int | None = None,
) -> Attack:
    """Scores sign * the mean of the target's signal over the query views.

    Neither training data nor shadows are needed to rank; the report chooses the threshold on
    shadows.

    Args:
        signal: a scalar signal, or one with a value for every part of its budget [A,N,P]
            (boundary_distance, noise_robustness).
        view: the number of the query view that is read; None: the mean over all.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.
        prefix: the number of the part that is read; None: the last, which used all queries.

    Raises:
        ValueError: The signal has no sign, or the view was not queried.

    Sources: Yeom et al. 2018 (arXiv:1709.01604), adversary 2; for modified entropy Song and Mittal
    2021 (arXiv:2003.10595).
    """
    sign = _signals.sign_of(signal, sign)

    def score(evidence, key):
        del key
        value = _signals.part(evidence.target[signal], prefix, signal)
        value_AN = _signals.scalar(value, "AN", signal).astype(np.float64)
        if view is not None and not 0 <= view < len(value_AN):
            raise ValueError(
                f"view={view} of signal {signal!r} was not queried; there are {len(value_AN)} "
                "views, numbered from 0."
            )
        value_N = value_AN.mean(0) if view is None else value_AN[view]
        return np.where(evidence.evaluated_N, sign * value_N, np.nan)

    at = lambda p: make(signal=signal, view=view, sign=sign, prefix=p)  # noqa: E731
    return Attack(
        score,
        (signal,),
        knows="nothing",
        note=signal
        + (", averaged over the query views" if view is None else f" at query view {view}"),
        at=at,
    )
