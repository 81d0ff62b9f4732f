"""Squared error, in regression or of the class probabilities (the Brier score)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns (z - y)^2 in regression, else sum_j (p_j - [j = y])^2 in [0, 2]. Small = member.

    In regression z is the single output. 1 - p_y is computed as the sum over the others, so a small
    score does not round to 0.

    Source: Yeom et al. 2018 (arXiv:1709.01604), section 3.
    """

    def measure(out_BC, batch):
        if batch.task.kind == "regression":
            return _logits.squared_error(out_BC, batch.y)
        out_BC, label_BC = _logits.picked(out_BC, batch.y)
        p_BC = jnp.where(label_BC, 0, jax.nn.softmax(out_BC))
        return jnp.square(p_BC).sum(-1) + jnp.square(p_BC.sum(-1))

    return Signal(measure, -1, tasks=("classification", "regression"))
