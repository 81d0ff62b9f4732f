"""Contains the rules of products, convolutions, windows, transforms and factorizations.

See rules.py for what a rule is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mia_jax.privacy.independence.values import Value, all_on_all, each, joined, ranked, reduced

MATRICES = frozenset(
    """cholesky eig eigh geqrf householder_product lu qr schur svd triangular_solve
    tridiagonal_solve""".split()
)


def _matrices(analysis, eqn, ins, shapes, used):
    """Applies to linear algebra of stacked matrices: leading axes stay separate."""
    lead = len(ins[0].shape) - 2
    if (
        lead < 1
        or any(len(v.shape) < lead for v in ins)
        or any(len(s) < lead or tuple(s[:lead]) != ins[0].shape[:lead] for s in shapes)
    ):
        return None
    ends = [reduced(v, range(lead, len(v.shape))) for v in ins]
    stacked = joined(
        [tuple(e.reshape(e.shape[:lead]) for e in pair) for pair in ends], ins[0].shape[:lead]
    )
    return [
        each(stacked, lambda a, s=s: a.reshape(*a.shape, *(1,) * (len(s) - lead)), s)
        for s in shapes
    ]


def _windowed(analysis, eqn, ins, shapes, used):
    """Applies to windows: axes on which the window is a single element stay.

    All other axes are joined.
    """
    window, strides, pads = (
        eqn.params[name] for name in ("window_dimensions", "window_strides", "padding")
    )
    rank = len(shapes[0])

    def kept(a):
        return all(v.shape[a] == shapes[0][a] for v in ins if len(v.shape) == rank)

    moved = [
        a
        for a in range(rank)
        if window[a] != 1 or strides[a] != 1 or tuple(pads[a]) != (0, 0) or not kept(a)
    ]
    ends = [reduced(Value(*ranked(v, rank), v.shape), moved) for v in ins]
    return [joined(ends, shape) for shape in shapes]


def _fft(analysis, eqn, ins, shapes, used):
    """Applies to Fourier transforms: the transformed axes are joined."""
    rank = len(shapes[0])
    return [
        Value(
            *reduced(ins[0], range(rank - len(eqn.params["fft_lengths"]), rank)), tuple(shapes[0])
        )
    ]


def _dot(analysis, eqn, ins, shapes, used):
    """Applies to products: contracted axes are joined, batch axes and free axes stay."""
    (contract, batch), rank = eqn.params["dimension_numbers"], len(shapes[0])
    free = [
        [a for a in range(len(v.shape)) if a not in c and a not in b]
        for v, c, b in zip(ins, contract, batch, strict=True)
    ]
    ends = []
    for side, (value, c, b) in enumerate(zip(ins, contract, batch, strict=True)):
        before = len(b) + (len(free[0]) if side else 0)
        lo, hi = (a.transpose(*b, *free[side], *c) for a in reduced(value, c))
        shape = [
            *lo.shape[: len(b)],
            *(1,) * (before - len(b)),
            *lo.shape[len(b) : len(b) + len(free[side])],
        ]
        shape += [1] * (rank - len(shape))
        ends.append((lo.reshape(shape), hi.reshape(shape)))
    return [joined(ends, shapes[0])]


def _convolution(analysis, eqn, ins, shapes, used):
    """Applies to convolutions: the batch axis and groups of features stay, pixels are joined."""
    p = eqn.params
    if p["batch_group_count"] != 1:
        return None
    numbers, groups, rank = p["dimension_numbers"], p["feature_group_count"], len(shapes[0])
    (x_batch, x_feature, *pixels), (y_batch, y_feature, *_) = numbers.lhs_spec, numbers.out_spec
    x = Value(*reduced(ins[0], pixels if groups > 1 else [*pixels, x_feature]), ins[0].shape)
    ends = [ranked(all_on_all(ins[1:], ()), rank)]

    def for_axis(lo):
        return lo.transpose(x_batch, x_feature, *pixels).reshape(lo.shape[x_batch], -1)

    pair = []
    for end, join in ((x.lo, np.min), (x.hi, np.max)):
        a = for_axis(end)  # [B or 1, F or 1]
        if a.shape[1] > 1:
            a = np.repeat(join(a.reshape(len(a), groups, -1), 2), shapes[0][y_feature] // groups, 1)
        new = [1] * rank
        new[y_batch], new[y_feature] = a.shape
        pair.append((a if y_batch < y_feature else a.T).reshape(new))
    return [joined([*ends, tuple(pair)], shapes[0])]


RULES: dict[str, Callable] = dict.fromkeys(MATRICES, _matrices)
RULES |= {
    "fft": _fft,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "select_and_scatter_add": _windowed,
    "select_and_gather_add": _windowed,
}
# Rules of primitives by the beginning of their names.
PREFIXES: dict[str, Callable] = {"reduce_window": _windowed}
