"""The units that may reach every element of an array, as intervals, and how intervals are joined.

Imports no jax.

An axis along which the intervals are equal is stored with length 1, so that the analysis of a batch
of 256 images costs about as much as that of a batch of 256 numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

NOBODY = 2**30  # the lower end of an empty interval; the upper one is -1


class TooLarge(Exception):
    """The analysis would take too long."""


def unknown():
    """What is known of an array that is no constant."""
    return None


class Value(NamedTuple):
    """The units that may reach an array of `shape`: `lo` and `hi` have its rank, and length 1 along
    axes where they are equal.

    `known()` is the array itself where it is a small constant of the program, else None; `parts`
    are what it was concatenated from, along its last axis.
    """

    lo: np.ndarray
    hi: np.ndarray
    shape: tuple[int, ...]
    known: Callable[[], Any] = unknown
    parts: tuple[Value, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether any unit may reach it."""
        return bool((self.hi >= 0).any())

    @property
    def mixed(self) -> bool:
        """Whether two units may reach one of its elements."""
        return bool((self.lo < self.hi).any())


def nobody(shape, known: Callable[[], Any] = unknown) -> Value:
    """An array that no unit reaches."""
    flat = (1,) * len(shape)
    return Value(np.full(flat, NOBODY, np.int32), np.full(flat, -1, np.int32), tuple(shape), known)


def by_unit(shape, units: int) -> Value:
    """An array of `shape` whose first axis holds the rows of `units` units, equally many
    consecutive rows each.
    """
    unit = np.repeat(np.arange(units, dtype=np.int32), shape[0] // units).reshape(
        -1, *(1,) * (len(shape) - 1)
    )
    return Value(unit, unit, tuple(shape))


def ranked(value: Value, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a value of this rank, or of a scalar that is broadcast to it."""
    return (
        (value.lo, value.hi)
        if value.lo.ndim == rank
        else (value.lo.reshape((1,) * rank), value.hi.reshape((1,) * rank))
    )


def joined(ends, shape) -> Value:
    """The join of pairs of ends that broadcast against each other."""
    los, his = zip(*ends, strict=True)
    lo, hi = (functools.reduce(f, arrays) for f, arrays in ((np.minimum, los), (np.maximum, his)))
    return Value(lo, hi, tuple(shape))


def hull(a: Value, b: Value) -> Value:
    return joined([(a.lo, a.hi), (b.lo, b.hi)], a.shape)


def hull_of_all(values: Sequence[Value]) -> tuple[int, int]:
    """The hull of all elements of all values."""
    return min((int(v.lo.min()) for v in values if v.lo.size), default=NOBODY), max(
        (int(v.hi.max()) for v in values if v.hi.size), default=-1
    )


def all_on_all(ins: Sequence[Value], shape) -> Value:
    """Every element depends on every input: what is true of any operation."""
    lo, hi = hull_of_all(ins)
    return Value(
        np.full((1,) * len(shape), lo, np.int32),
        np.full((1,) * len(shape), hi, np.int32),
        tuple(shape),
    )


def reduced(value: Value, axes) -> tuple[np.ndarray, np.ndarray]:
    """The hull over these axes, which stay with length 1."""
    axes = tuple(a for a in axes if value.lo.shape[a] != 1)
    return (
        (value.lo.min(axes, keepdims=True), value.hi.max(axes, keepdims=True))
        if axes
        else (value.lo, value.hi)
    )


def compressed(lo: np.ndarray, hi: np.ndarray, shape) -> Value:
    """Length 1 along the axes on which nothing changes."""
    for axis in range(lo.ndim):
        if lo.shape[axis] > 1:
            first = (slice(None),) * axis + (slice(0, 1),)
            if (lo == lo[first]).all() and (hi == hi[first]).all():
                lo, hi = lo[first], hi[first]
    return Value(lo, hi, tuple(shape))


def each(value: Value, f, shape) -> Value:
    """f of both ends."""
    return Value(f(value.lo), f(value.hi), tuple(shape))
