"""How an attack reads one scalar signal: its sign and its query views."""

from __future__ import annotations

import numpy as np

from mia_jax import registry
from mia_jax.threat_model import Stack


def sign_of(signal: str, sign: int | None) -> int:
    """Returns `sign`, or the sign that the signal declares if it is None.

    +1: a larger signal means member, -1: a smaller one does.

    Raises:
        ValueError: The sign is 0.
    """
    if sign is None:
        sign = registry.make("signals", signal).sign
    if sign not in (-1, 1):
        raise ValueError(
            f"signal {signal!r} has sign={sign}: which way does membership point? Choose a scalar "
            "signal or give sign=1 or -1."
        )
    return sign


def scalar(value: np.ndarray, axes: str, signal: str) -> np.ndarray:
    """Returns `value` itself after a check of its axes ('AN' or 'MAN').

    Raises:
        ValueError: The signal is not one number per example.
    """
    if value.ndim != len(axes):
        raise ValueError(
            f"signal {signal!r} has shape {value.shape}; this attack needs one number per example, "
            f"axes [{','.join(axes)}]."
        )
    return value


def mean_over_views(value: np.ndarray | Stack) -> np.ndarray:
    """Returns the means [..,N] float64 of signals [..,A,N]; of a Stack one model is read at a time.

    >>> mean_over_views(np.array([[[1, 2], [3, 6]]])).tolist()
    [[2.0, 4.0]]
    """
    if isinstance(value, Stack):
        return np.stack([value_AN.mean(-2, dtype=np.float64) for value_AN in value])
    return value.mean(-2, dtype=np.float64)


def part(value_AN: np.ndarray, prefix: int | None, signal: str) -> np.ndarray:
    """Returns component `prefix` [A,N] of a signal with prefixes [A,N,P] (None: the last).

    A scalar signal is returned as it is.

    Raises:
        ValueError: There is no such part.
    """
    if value_AN.ndim == 2 and prefix is None:
        return value_AN
    if value_AN.ndim == 3 and registry.make("signals", signal).sign == 0:
        # A vector, not answers to growing prefixes of a budget.
        scalar(value_AN, "AN", signal)
    parts = value_AN.shape[2] if value_AN.ndim == 3 else 0
    if prefix is not None and not 0 <= prefix < parts:
        raise ValueError(
            f"prefix={prefix} of signal {signal!r}: it has {parts} parts, numbered from 0."
        )
    return value_AN[:, :, -1 if prefix is None else prefix] if parts else value_AN
