"""Entropy of the predicted distribution; it needs no label."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns -sum_j p_j log p_j in [0, log C] nats. Small = member.

    It is computed as log(1 + r) + sum_j p_j (max z - z_j) with r = sum of exp(z_j - max z) without
    the maximum's term. Every term is >= 0, so nothing cancels where one class has all the mass.

    Source: Salem et al. 2019 (arXiv:1806.01246).
    """

    def measure(out_BC, batch):
        del batch
        top_B = out_BC.argmax(-1)
        out_BC, top_BC = _logits.picked(out_BC, top_B)
        gap_BC = out_BC - out_BC.max(-1, keepdims=True)
        rest_B = jnp.where(top_BC, 0, jnp.exp(gap_BC)).sum(-1)
        return jnp.log1p(rest_B) - (jnp.exp(gap_BC) * gap_BC).sum(-1) / (1 + rest_B)

    return Signal(measure, -1)
