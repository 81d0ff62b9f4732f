"""rotate:degrees: about the center, counterclockwise, cubic spline, 0 outside.

Equal to scipy.ndimage.rotate(reshape=False).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.augmentations import _pixels

IMAGES = True


def make(*, degrees: float):
    """Returns the view of images [B,H,W,C]."""
    return functools.partial(_rotated, degrees=degrees)


def _rotated(x_BHWC: jax.Array, degrees: float) -> jax.Array:
    """Rotates by cubic splines.

    Their coefficients come from two small matrices; a pixel is a weighted sum of 16 neighbors.
    """
    height, width, channels = x_BHWC.shape[1:]
    filter_HH, filter_WW, index_PT, weight_PT = _spline(height, width, degrees)
    spline = jnp.einsum(
        "hi,bijc,wj->bhwc", filter_HH, x_BHWC, filter_WW, precision="highest"
    ).reshape(-1, height * width, channels)
    out = sum(
        spline[:, index] * weight[None, :, None] for index, weight in zip(index_PT.T, weight_PT.T)
    )
    return out.reshape(x_BHWC.shape)


@functools.lru_cache(maxsize=64)
def _spline(height: int, width: int, degrees: float) -> tuple[np.ndarray, ...]:
    """Returns what one rotation of images of this size needs.

    That is (filter [H,H], filter [W,W], index [HW,16], weight [HW,16]).
    """
    from scipy import ndimage, special

    turn = np.array(
        [
            [special.cosdg(degrees), special.sindg(degrees)],
            [-special.sindg(degrees), special.cosdg(degrees)],
        ]
    )
    center = (np.array([height, width]) - 1) / 2
    grid_P2 = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(
        -1, 2
    )
    source_P2 = grid_P2 @ turn.T + (center - turn @ center)
    # A nearest-neighbor rotation of a white image shows exactly which pixels SciPy takes as inside.
    inside_P = ndimage.rotate(np.ones((height, width)), degrees, reshape=False, order=0).reshape(-1)
    base_P2 = np.floor(source_P2).astype(int)
    index, weight = [], []
    for axis, length in enumerate((height, width)):
        t = source_P2[:, axis] - base_P2[:, axis]
        weight.append(
            np.stack(
                [
                    (1 - t) ** 3,
                    3 * t**3 - 6 * t**2 + 4,
                    3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4,
                    t**3,
                ],
                -1,
            )
            / 6
        )
        index.append(_pixels.mirrored(base_P2[:, axis, None] + np.arange(-1, 3), length))
    index_PT = (index[0][:, :, None] * width + index[1][:, None, :]).reshape(-1, 16)
    weight_PT = (weight[0][:, :, None] * weight[1][:, None, :]).reshape(-1, 16) * inside_P[:, None]
    filters = [
        ndimage.spline_filter1d(np.eye(n), 3, axis=0, mode="mirror").astype(np.float32)
        for n in (height, width)
    ]
    return *filters, index_PT.astype(np.int32), weight_PT.astype(np.float32)
