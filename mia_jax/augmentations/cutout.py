"""cutout:size: a square of this many pixels, at a random place, is set to 0."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mia_jax import checks

IMAGES = True


def make(*, size: int):
    """Returns the change of an image [H,W,C].

    The center of the square is drawn among all pixels, so that a part of it may lie outside the
    image: rows c - size // 2 up to c - size // 2 + size - 1, columns likewise.

    Source: DeVries & Taylor 2017 (arXiv:1708.04552).
    """
    checks.at_least(0, size=size)
    return functools.partial(_masked, size=size)


def _masked(x: jax.Array, key: jax.Array, size: int) -> jax.Array:
    height, width = x.shape[:2]
    inside = []
    for length, axis_key in zip((height, width), jax.random.split(key), strict=True):
        first = jax.random.randint(axis_key, (), 0, length, jnp.int32) - size // 2
        place = jnp.arange(length, dtype=jnp.int32)
        inside.append((place >= first) & (place < first + size))
    return jnp.where((inside[0][:, None] & inside[1][None])[..., None], 0.0, x)
