"""shift:dy,dx: by whole pixels, down and right; edges are repeated."""

from __future__ import annotations

import functools

import jax
import numpy as np

IMAGES = True


def make(*, dy: int, dx: int):
    """Returns the view of images [B,H,W,C]."""
    return functools.partial(_shifted, dy=dy, dx=dx)


def _shifted(x_BHWC: jax.Array, dy: int, dx: int) -> jax.Array:
    height, width = x_BHWC.shape[1:3]
    rows, columns = (
        np.clip(np.arange(height) - dy, 0, height - 1),
        np.clip(np.arange(width) - dx, 0, width - 1),
    )
    return x_BHWC[:, rows][:, :, columns]


def diamond(d: int) -> list[tuple[int, int]]:
    """Returns (dy, dx) of the image itself and of its 4d shifts around the diamond of radius d.

    >>> diamond(1)
    [(0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)]
    """
    if d == 0:
        return [(0, 0)]
    corners = [(d, 0), (0, -d), (-d, 0), (0, d)]
    steps = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    return [(0, 0)] + [
        (y + i * sy, x + i * sx)
        for (y, x), (sy, sx) in zip(corners, steps, strict=True)
        for i in range(d)
    ]
