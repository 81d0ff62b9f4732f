"""Margin of the true label's logit."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns z_y - max_{j != y} z_j, any real number (logit units). Large = member."""

    def measure(out_BC, batch):
        out_BC, label_BC = _logits.picked(out_BC, batch.y)
        return jnp.where(label_BC, out_BC, 0).sum(-1) - jnp.where(label_BC, -jnp.inf, out_BC).max(
            -1
        )

    return Signal(measure, +1)
