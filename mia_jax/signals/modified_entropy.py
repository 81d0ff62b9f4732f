"""Modified prediction entropy: it uses the label, so a confident mistake is no member."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns -(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i) >= 0 [nats]. Small = member.

    It is computed in log space, so it is finite whatever the logits are. With log odds r:
    sigmoid(-r_y) softplus(-r_y) + sum_{i != y} sigmoid(r_i) softplus(r_i).

    Source: Song and Mittal 2021 (arXiv:2003.10595), equation 8.
    """

    def measure(out_BC, batch):
        out_BC, label_BC = _logits.picked(out_BC, batch.y)
        odds_BC = jnp.where(label_BC, -1, 1) * _logits.all_log_odds(out_BC)
        return (jax.nn.sigmoid(odds_BC) * jax.nn.softplus(odds_BC)).sum(-1)

    return Signal(measure, -1)
