"""Checks of arguments by keyword, so that a message names the argument and gives both numbers. Imports no jax."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np


def positive(**values) -> None:
    """Raises ValueError unless every value is > 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be > 0.")


def at_least(low, **values) -> None:
    """Raises ValueError unless every value is >= low."""
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{name}={value} must be at least {low}.")


def fraction(*, closed: str = "both", **values) -> None:
    """Raises ValueError unless every value lies in [0, 1] (closed='both'), [0, 1) ('left') or (0, 1) ('neither')."""
    for name, value in values.items():
        low = value >= 0 if closed in ("both", "left") else value > 0
        high = value <= 1 if closed == "both" else value < 1
        if not (low and high):
            text = {"both": "[0, 1]", "left": "[0, 1)", "neither": "(0, 1)"}[closed]
            raise ValueError(f"{name}={value} must lie in {text}.")


def finite(**arrays) -> None:
    """Raises ValueError that says how many values of an array are NaN or infinite, and where the first one is."""
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind in "fc":
            bad = ~np.isfinite(array)
            if bad.any():
                at = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(f"{name} has {int(bad.sum())} of {array.size} values that are NaN or infinite; the first is {array[at]} at {at}.")


def shape(axes: str, **arrays) -> dict[str, int]:
    """Checks ranks and that equal axis letters have equal lengths over all arrays; returns the lengths.

    >>> shape('MN', member=np.zeros((2, 3)), score=np.zeros((2, 3)))
    {'M': 2, 'N': 3}
    """
    lengths: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, array in arrays.items():
        if np.ndim(array) != len(axes):
            raise ValueError(f"{name} has {np.ndim(array)} axes (shape {np.shape(array)}); expected {len(axes)}: [{','.join(axes)}].")
        for letter, length in zip(axes, np.shape(array), strict=True):
            if lengths.setdefault(letter, length) != length:
                raise ValueError(f"axis {letter} has length {length} in {name} but {lengths[letter]} in {owner[letter]}.")
            owner.setdefault(letter, name)
    return lengths


def one_of(allowed: Iterable, **values) -> None:
    """Raises ValueError that lists the allowed values and the closest one."""
    allowed = list(allowed)
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {allowed}.{closest(value, allowed)}")


def closest(word, known: Iterable) -> str:
    """' Did you mean ...?' for the most similar known word, or ''."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    return f" Did you mean {match[0]!r}?" if match else ""
