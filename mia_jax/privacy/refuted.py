"""Searches for the end of the values that a test refutes.

This file uses no library.
"""

from __future__ import annotations

from collections.abc import Callable


def largest(
    refuted: Callable[[float], bool], *, tolerance: float = 1e-6, most: float = 1000.0
) -> float:
    """Returns the end of the interval from 0 on in which `refuted` holds.

    It is 0 if `refuted` does not hold just above 0. The search doubles, up to `most`, then bisects.

    >>> round(largest(lambda value: value < 3), 3)
    3.0
    """
    low, high = 0.0, 0.5
    if not refuted(tolerance):
        return 0.0
    while refuted(high):
        low, high = high, 2 * high
        if high > most:
            return low
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
