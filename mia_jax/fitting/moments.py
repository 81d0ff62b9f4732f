"""Moments over models that several attacks share, in float64, with masks. Imports no jax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 4096  # columns at a time: bounds the float64 copies
NEAR = 1024  # columns at a time of what is read several times: stays near the core
ROUNDING = 4 * np.finfo(np.float64).eps  # relative error of a mean of a few equal numbers


class Moments(NamedTuple):
    """Per column: how many values, their center, and the sum of squared residuals about it.

    `center` is 0 where count is 0.
    """

    count: np.ndarray
    center: np.ndarray
    m2: np.ndarray


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Returns slices that cover range(n), `size` at a time."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def moments(value_MN: np.ndarray, where_MN: np.ndarray, center: str = "mean") -> Moments:
    """Returns the moments over axis M of the values where `where_MN`; [N] each, float64.

    Values outside the mask are never read (they may be NaN). The mean of equal values is exactly
    that value and m2 is 0, whatever their number: rounding must not reveal how many models have a
    value.

    Args:
        value_MN: the values.
        where_MN: which of them count.
        center: 'mean' or 'median' (of an even number of values: the mean of the middle two).
    """
    count, middle, m2 = (np.zeros(value_MN.shape[1]) for _ in range(3))
    for cols in blocks(value_MN.shape[1], NEAR):
        where = where_MN[:, cols]
        value = kept(value_MN[:, cols], where).astype(np.float64)
        weight = where.astype(np.float64)
        count[cols] = weight.sum(0)
        middle[cols] = (
            value.sum(0) / np.maximum(count[cols], 1) if center == "mean" else _median(value, where)
        )
        value -= middle[None, cols]
        value *= weight
        m2[cols] = np.einsum("mn,mn->n", value, value)
        if center == "mean":
            _settle_equal(middle[cols], m2[cols], count[cols], value_MN[:, cols], where)
    return Moments(count, middle, m2)


def _settle_equal(
    middle_N: np.ndarray,
    m2_N: np.ndarray,
    count_N: np.ndarray,
    value_MN: np.ndarray,
    where_MN: np.ndarray,
) -> None:
    """Corrects, in place, columns whose values differ from their mean only by rounding.

    The center becomes the smallest of the values, and m2 becomes 0.
    """
    (equal,) = np.nonzero((m2_N > 0) & (m2_N <= count_N * (ROUNDING * middle_N) ** 2))
    if len(equal):
        middle_N[equal] = np.min(
            value_MN[:, equal], axis=0, initial=np.inf, where=where_MN[:, equal]
        )
        m2_N[equal] = 0


def kept(value: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns np.where(where, value, 0) of floats, by a mask over their bits.

    It takes a tenth of the time where `where` is random, and a NaN outside becomes 0.
    """
    bits = np.dtype(f"i{value.dtype.itemsize}")
    return (np.ascontiguousarray(value).view(bits) & -where.astype(bits)).view(value.dtype)


def merge(a: Moments, b: Moments) -> Moments:
    """Returns the moments of the union of two disjoint sets of values (mean centers).

    Source: Chan, Golub and LeVeque 1979, equation 2.1.
    """
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    delta = b.center - a.center
    return Moments(count, a.center + delta * share, a.m2 + b.m2 + delta**2 * a.count * share)


def leave_unit_out_moments(
    value_MN: np.ndarray, where_MN: np.ndarray, unit_M: np.ndarray
) -> Moments:
    """Returns the moments over all models outside a unit, [U,N] each, for every unit in order.

    It takes O(M N) time and O(U N) memory. It merges what comes before u with what comes after u
    and never subtracts: row u does not depend on u's own values, mask or NaNs in any bit, and
    nothing cancels. Mean centers.
    """
    units, row_M = np.unique(unit_M, return_inverse=True)
    U, N = len(units), value_MN.shape[1]
    if U == len(unit_M):
        parts = _of_single_values(value_MN[np.argsort(row_M)], where_MN[np.argsort(row_M)])
    else:
        each = [moments(value_MN[row_M == u], where_MN[row_M == u]) for u in range(U)]
        parts = Moments(*(np.stack(field) for field in zip(*each, strict=True)))
    before, after = (Moments(*(np.zeros((U, N)) for _ in range(3))) for _ in range(2))
    for u in range(1, U):
        _put(before, u, merge(_row(before, u - 1), _row(parts, u - 1)))
        _put(after, U - 1 - u, merge(_row(after, U - u), _row(parts, U - u)))
    return merge(before, after)


def _of_single_values(value_MN: np.ndarray, where_MN: np.ndarray) -> Moments:
    """Returns the moments [M,N] of every value by itself, as `moments` computes them."""
    value = kept(value_MN, where_MN).astype(np.float64, copy=False)
    weight = where_MN.astype(np.float64)
    middle = value / np.maximum(weight, 1)
    return Moments(weight, middle, np.square((value - middle) * weight))


def _row(rows: Moments, u: int) -> Moments:
    return Moments(*(field[u] for field in rows))


def _put(rows: Moments, u: int, row: Moments) -> None:
    for field, value_N in zip(rows, row, strict=True):
        field[u] = value_N


def _median(value_MN: np.ndarray, where_MN: np.ndarray) -> np.ndarray:
    if not len(value_MN):
        return np.zeros(value_MN.shape[1])
    sorted_MN = np.sort(np.where(where_MN, value_MN, np.inf), 0)
    count_N = where_MN.sum(0)
    middle = np.maximum(count_N - 1, 0) // 2, np.minimum(count_N // 2, len(value_MN) - 1)
    low_N, high_N = (np.take_along_axis(sorted_MN, k_N[None], 0)[0] for k_N in middle)
    return np.where(count_N > 0, (low_N + high_N) / 2, 0)
