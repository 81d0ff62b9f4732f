"""flip: left-right with probability 1/2."""

from __future__ import annotations

import jax
import jax.numpy as jnp

IMAGES = True


def make():
    """Returns the change of an image [H,W,C]."""
    return lambda x, key: jnp.where(jax.random.bernoulli(key, jnp.float32(0.5)), x[:, ::-1], x)
