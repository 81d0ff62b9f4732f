"""What changes of images share."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mirrored(index, length: int):
    """Returns indices folded back at the first and the last element, which are not repeated."""
    if length == 1:
        return index * 0
    folded = index % (2 * length - 2)
    return folded + (folded >= length) * (2 * length - 2 - 2 * folded)


def moved(x: jax.Array, key: jax.Array, reach: int, reflect: bool) -> jax.Array:
    """Returns an image [H,W,C] moved by up to `reach` pixels in each direction.

    Edges are reflected or repeated.
    """
    height, width = x.shape[:2]
    step = jax.random.randint(key, (2,), -reach, reach + 1, jnp.int32)
    rows, columns = (
        jnp.arange(height, dtype=jnp.int32) - step[0],
        jnp.arange(width, dtype=jnp.int32) - step[1],
    )
    if reflect:
        return x[mirrored(rows, height)][:, mirrored(columns, width)]
    return x[jnp.clip(rows, 0, height - 1)][:, jnp.clip(columns, 0, width - 1)]
