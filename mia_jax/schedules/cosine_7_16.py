"""Decays the rate as learning_rate * cos(7 pi t / 16), with t from 0 to 1 over the training.

It ends at a fifth of the peak. Published LiRA models were trained with it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp


def make(*, learning_rate: float, steps: int) -> Callable:
    """Returns the schedule over `steps` steps; after them the rate does not change."""
    return lambda step: learning_rate * jnp.cos(7 * jnp.pi / 16 * jnp.minimum(step / steps, 1.0))
