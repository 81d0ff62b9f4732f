"""How an attack reads one scalar signal: which way it points, and its query views."""

from __future__ import annotations

import numpy as np

from mia_jax import registry


def sign_of(signal: str, sign: int | None) -> int:
    """`sign` (+1: larger means member, -1: smaller does), or the sign that mia_jax.signals.<signal> declares if None. ValueError if it is 0."""
    if sign is None:
        sign = registry.make("signals", signal).sign
    if sign not in (-1, 1):
        raise ValueError(f"signal {signal!r} has sign={sign}: which way does membership point? Choose a scalar signal or give sign=1 or -1.")
    return sign


def scalar(value: np.ndarray, axes: str, signal: str) -> np.ndarray:
    """`value` itself; ValueError unless it has the axes of a scalar signal ('AN' or 'MAN')."""
    if value.ndim != len(axes):
        raise ValueError(f"signal {signal!r} has shape {value.shape}; this attack needs one number an example, axes [{','.join(axes)}].")
    return value
