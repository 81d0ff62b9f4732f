"""Represents the units that may reach every element of an array, as intervals of unit numbers.

The interval [lo, hi] of an element contains every unit whose data may have influenced the element.
It is empty for constants and parameters, [u, u] for data of unit u, and wider if units were mixed.
Where elements are combined, their intervals are joined: the smaller lower end and the larger upper
end.

An axis along which the intervals are equal is stored with length 1, so that the analysis of a batch
of 256 images costs about as much as that of a batch of 256 numbers. This file does not import jax.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

NOBODY = 2**30  # The lower end of an empty interval; the upper end is -1.


class TooLarge(Exception):
    """Says that the analysis would take too long."""


def unknown():
    """Returns None: nothing is known about the elements of the array."""
    return None


class Value(NamedTuple):
    """Holds the units that may reach an array.

    Attributes:
        lo: the lower ends of the intervals. It has the rank of the array, and length 1 along axes
            on which the intervals are equal.
        hi: the upper ends, likewise.
        shape: the shape of the array.
        known: known() is the array itself if it is a small constant of the program, else None.
        parts: the values from which it was concatenated along its last axis.
    """

    lo: np.ndarray
    hi: np.ndarray
    shape: tuple[int, ...]
    known: Callable[[], Any] = unknown
    parts: tuple[Value, ...] = ()

    @property
    def reached(self) -> bool:
        """Returns whether any unit may reach the array."""
        return bool((self.hi >= 0).any())

    @property
    def mixed(self) -> bool:
        """Returns whether two units may reach one of its elements."""
        return bool((self.lo < self.hi).any())


def nobody(shape, known: Callable[[], Any] = unknown) -> Value:
    """Returns the value of an array that no unit reaches."""
    flat = (1,) * len(shape)
    return Value(np.full(flat, NOBODY, np.int32), np.full(flat, -1, np.int32), tuple(shape), known)


def by_unit(shape, units: int) -> Value:
    """Returns the value of an array whose first axis holds the rows of `units` units.

    Every unit has the same number of consecutive rows.
    """
    unit = np.repeat(np.arange(units, dtype=np.int32), shape[0] // units).reshape(
        -1, *(1,) * (len(shape) - 1)
    )
    return Value(unit, unit, tuple(shape))


def ranked(value: Value, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of a value of this rank, or of a scalar that is broadcast to it."""
    return (
        (value.lo, value.hi)
        if value.lo.ndim == rank
        else (value.lo.reshape((1,) * rank), value.hi.reshape((1,) * rank))
    )


def joined(ends, shape) -> Value:
    """Returns the join of pairs of ends that broadcast against each other."""
    los, his = zip(*ends, strict=True)
    lo, hi = (functools.reduce(f, arrays) for f, arrays in ((np.minimum, los), (np.maximum, his)))
    return Value(lo, hi, tuple(shape))


def hull(a: Value, b: Value) -> Value:
    """Returns the join of two values."""
    return joined([(a.lo, a.hi), (b.lo, b.hi)], a.shape)


def hull_of_all(values: Sequence[Value]) -> tuple[int, int]:
    """Returns the smallest lower and the largest upper end of all elements of all values."""
    return min((int(v.lo.min()) for v in values if v.lo.size), default=NOBODY), max(
        (int(v.hi.max()) for v in values if v.hi.size), default=-1
    )


def all_on_all(ins: Sequence[Value], shape) -> Value:
    """Returns the value whose every element depends on every input.

    This is valid for any operation.
    """
    lo, hi = hull_of_all(ins)
    return Value(
        np.full((1,) * len(shape), lo, np.int32),
        np.full((1,) * len(shape), hi, np.int32),
        tuple(shape),
    )


def reduced(value: Value, axes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends joined over these axes, which keep length 1."""
    axes = tuple(a for a in axes if value.lo.shape[a] != 1)
    return (
        (value.lo.min(axes, keepdims=True), value.hi.max(axes, keepdims=True))
        if axes
        else (value.lo, value.hi)
    )


def compressed(lo: np.ndarray, hi: np.ndarray, shape) -> Value:
    """Returns the value with length 1 along the axes on which the intervals are equal."""
    for axis in range(lo.ndim):
        if lo.shape[axis] > 1:
            first = (slice(None),) * axis + (slice(0, 1),)
            if (lo == lo[first]).all() and (hi == hi[first]).all():
                lo, hi = lo[first], hi[first]
    return Value(lo, hi, tuple(shape))


def each(value: Value, f, shape) -> Value:
    """Returns the value with f applied to both ends."""
    return Value(f(value.lo), f(value.hi), tuple(shape))
