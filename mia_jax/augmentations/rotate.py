"""rotate:degrees: by an angle in +-degrees, bilinear, 0 outside."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mia_jax import checks

IMAGES = True


def make(*, degrees: float):
    """Returns the change of an image [H,W,C]."""
    checks.at_least(0, degrees=degrees)
    return functools.partial(_turned, degrees=degrees)


def _turned(x: jax.Array, key: jax.Array, degrees: float) -> jax.Array:
    height, width, channels = x.shape
    angle = jnp.deg2rad(jnp.float32(degrees)) * jax.random.uniform(
        key, (), jnp.float32, minval=-1.0, maxval=1.0
    )
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    from_row = jnp.cos(angle) * rows + jnp.sin(angle) * columns + (height - 1) / 2
    from_column = jnp.cos(angle) * columns - jnp.sin(angle) * rows + (width - 1) / 2
    top, left = jnp.floor(from_row), jnp.floor(from_column)
    pixels, out = x.reshape(-1, channels), 0.0
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = top + i, left + j
        weight = (1 - jnp.abs(from_row - row)) * (1 - jnp.abs(from_column - column))
        weight = weight * ((row >= 0) & (row < height) & (column >= 0) & (column < width))
        at = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        out = out + pixels[at.astype(jnp.int32)] * weight[..., None]
    return out
