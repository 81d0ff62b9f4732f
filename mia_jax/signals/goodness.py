"""Goodness of the true label, for nets whose outputs are goodness (models/forward_forward.py)."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns z_y, any real number. Large = member.

    With Forward-Forward it is the total squared activity when the label is y. Its margin is signal
    hinge.
    """

    def measure(out_BC, batch):
        out_BC, label_BC = _logits.picked(out_BC, batch.y)
        return jnp.where(label_BC, out_BC, 0).sum(-1)

    return Signal(measure, +1)
