"""Largest class probability; it needs no label."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns max_j p_j = 1 / sum_j exp(z_j - max z) in [1/C, 1]. Large = member.

    Source: Salem et al. 2019 (arXiv:1806.01246), adversary 3.
    """

    def measure(out_BC, batch):
        out_BC, _ = _logits.picked(out_BC, batch.y)
        return 1 / jnp.exp(out_BC - out_BC.max(-1, keepdims=True)).sum(-1)

    return Signal(measure, +1)
