"""learning_rate * cos(7 pi t / 16), t from 0 to 1 over the training: it ends at a fifth of the
peak, as published LiRA models were trained.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp


def make(*, learning_rate: float, steps: int) -> Callable:
    """Returns the schedule over `steps` steps; the rate stays where it is after them."""
    return lambda step: learning_rate * jnp.cos(7 * jnp.pi / 16 * jnp.minimum(step / steps, 1.0))
