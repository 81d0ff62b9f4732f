"""Modified prediction entropy: an entropy that knows the true label, so a confident mistake is not
taken for a member.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """-(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i) >= 0 [nats], in log space: finite whatever
    the logits. Small = member.

    With log odds r: sigmoid(-r_y) softplus(-r_y) + sum_{i != y} sigmoid(r_i) softplus(r_i).
    Source: Song and Mittal 2021 (arXiv:2003.10595), equation 8.
    """

    def measure(out_BC, batch):
        out_BC, label_BC = _logits.picked(out_BC, batch.y)
        odds_BC = jnp.where(label_BC, -1, 1) * _logits.all_log_odds(out_BC)
        return (jax.nn.sigmoid(odds_BC) * jax.nn.softplus(odds_BC)).sum(-1)

    return Signal(measure, -1)
