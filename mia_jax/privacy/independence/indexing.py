"""Contains the rules of slices, gathers and scatters with computed indices.

Indices that are constants of the program are evaluated. See rules.py for what a rule is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mia_jax.privacy.independence.values import (
    NOBODY,
    TooLarge,
    Value,
    compressed,
    each,
    hull_of_all,
    joined,
    reduced,
)


def _dynamic_slice(analysis, eqn, ins, shapes, used):
    """Applies to dynamic slices: a constant start selects, an unknown start joins the axis."""
    value, *starts = ins
    ends = [hull_of_all(starts)]
    for axis, (n, m, start) in enumerate(zip(value.shape, shapes[0], starts, strict=True)):
        if value.lo.shape[axis] == 1 or n == m:
            continue
        known = start.known()
        if known is None:
            value = Value(*reduced(value, [axis]), value.shape)
        else:
            first = int(np.clip(known, 0, n - m))
            at = (slice(None),) * axis + (slice(first, first + m),)
            value = each(value, lambda a, at=at: a[at], value.shape)
    return [joined([(value.lo, value.hi), tuple(np.int32(e) for e in ends[0])], shapes[0])]


def _dynamic_update(analysis, eqn, ins, shapes, used):
    """Applies to dynamic updates: a constant start selects where the update goes."""
    value, update, *starts = ins
    size, at = [], []
    for axis, (n, m, start) in enumerate(zip(value.shape, update.shape, starts, strict=True)):
        known = None if n == m else start.known()
        if n == m:
            size.append(update.lo.shape[axis])
            at.append(slice(None))
        elif known is None:
            update = Value(*reduced(update, [axis]), update.shape)
            size.append(1)
            at.append(slice(None))
        else:
            first = int(np.clip(known, 0, n - m))
            size.append(n)
            at.append(slice(first, first + m))
    lo, hi = np.full(size, NOBODY, np.int32), np.full(size, -1, np.int32)
    lo[tuple(at)], hi[tuple(at)] = update.lo, update.hi
    return [
        joined(
            [(value.lo, value.hi), (lo, hi), tuple(np.int32(e) for e in hull_of_all(starts))],
            shapes[0],
        )
    ]


def _component(indices: Value, c: int):
    """Returns column c of indices [..., C] if it is a constant, else None."""
    if indices.known() is not None:
        return indices.known()[..., c]
    for part in indices.parts:
        if c < part.shape[-1]:
            return None if part.known() is None else part.known()[..., c]
        c -= part.shape[-1]
    return None


def _placed(array: np.ndarray, axes, rank: int) -> np.ndarray:
    """Returns the array with axis i moved to axis axes[i] of an array of that rank."""
    order = np.argsort(axes)
    new = [1] * rank
    for i, axis in enumerate(axes):
        new[axis] = array.shape[i]
    return array.transpose(order).reshape(new)


def _gather(analysis, eqn, ins, shapes, used):
    """Applies to gathers: constant indices select, unknown indices join their axis."""
    value, indices = ins
    d, sizes, rank = eqn.params["dimension_numbers"], eqn.params["slice_sizes"], len(shapes[0])
    batch = [a for a in range(rank) if a not in d.offset_dims]
    window = [
        a
        for a in range(len(value.shape))
        if a not in d.collapsed_slice_dims and a not in d.operand_batching_dims
    ]
    starts = {
        axis: _component(indices, c)
        for c, axis in enumerate(d.start_index_map)
        if value.lo.shape[axis] > 1
    }
    value = Value(
        *reduced(value, [axis for axis, start in starts.items() if start is None]), value.shape
    )
    at = []
    for axis, n in enumerate(value.lo.shape):
        place = np.zeros((1,) * rank, int)
        if n > 1:
            if axis in d.operand_batching_dims:
                out = batch[d.start_indices_batching_dims[d.operand_batching_dims.index(axis)]]
                place = _placed(np.arange(n), [out], rank)
            elif starts.get(axis) is not None:
                place = _placed(
                    np.clip(starts[axis], 0, value.shape[axis] - sizes[axis]).astype(int),
                    batch,
                    rank,
                )
            if axis in window:
                place = place + _placed(
                    np.arange(sizes[axis]), [d.offset_dims[window.index(axis)]], rank
                )
        at.append(place)
    ends = [
        tuple(
            end[tuple(at)].reshape(np.broadcast_shapes((1,) * rank, *(a.shape for a in at)))
            for end in (value.lo, value.hi)
        )
    ]
    index_ends = reduced(indices, [len(indices.shape) - 1])
    ends.append(tuple(_placed(end.squeeze(-1), batch, rank) for end in index_ends))
    return [compressed(*joined(ends, shapes[0])[:2], shapes[0])]


def _scatter(analysis, eqn, ins, shapes, used):
    """Applies to scatters: constant indices that are in range select where updates go."""
    if len(ins) != 3:
        return None
    value, indices, updates = ins
    d, rank = eqn.params["dimension_numbers"], len(ins[2].shape)
    batch = [a for a in range(rank) if a not in d.update_window_dims]
    window = [
        a
        for a in range(len(value.shape))
        if a not in d.inserted_window_dims and a not in d.operand_batching_dims
    ]
    ends = [
        _placed(end.squeeze(-1), batch, rank) for end in reduced(indices, [len(indices.shape) - 1])
    ]
    updates = joined([(updates.lo, updates.hi), tuple(ends)], updates.shape)
    at, size = [], []
    for axis, n in enumerate(value.shape):
        place, length = np.zeros((1,) * rank, int), 1
        if axis in d.operand_batching_dims:
            out = batch[d.scatter_indices_batching_dims[d.operand_batching_dims.index(axis)]]
            if updates.lo.shape[out] > 1:
                place, length = _placed(np.arange(n), [out], rank), n
        elif axis in d.scatter_dims_to_operand_dims:
            start = _component(indices, d.scatter_dims_to_operand_dims.index(axis))
            out = d.update_window_dims[window.index(axis)] if axis in window else None
            width = 1 if out is None else updates.shape[out]
            # For indices out of range the mode of the scatter decides where updates go.
            if start is not None and (start >= 0).all() and (start <= n - width).all():
                place, length = _placed(np.asarray(start, int), batch, rank), n
                if out is not None:
                    place = place + _placed(np.arange(width), [out], rank)
        elif axis in window:
            out = d.update_window_dims[window.index(axis)]
            if updates.lo.shape[out] > 1:
                place, length = _placed(np.arange(updates.shape[out]), [out], rank), n
        at.append(place)
        size.append(length)
    lo, hi = np.full(size, NOBODY, np.int32), np.full(size, -1, np.int32)
    common = np.broadcast_shapes(updates.lo.shape, *(a.shape for a in at))
    analysis.left -= math.prod(common)
    if analysis.left < 0:
        raise TooLarge
    where = tuple(np.broadcast_to(a, common) for a in at)
    if where:
        np.minimum.at(lo, where, np.broadcast_to(updates.lo, common))
        np.maximum.at(hi, where, np.broadcast_to(updates.hi, common))
    else:
        lo, hi = np.asarray(updates.lo.min()), np.asarray(updates.hi.max())
    return [joined([(value.lo, value.hi), (lo, hi)], shapes[0])]


RULES: dict[str, Callable] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "gather": _gather,
}
PREFIXES: dict[str, Callable] = {"scatter": _scatter}
