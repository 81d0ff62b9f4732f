"""Cross-entropy of the true label, or the squared error in regression."""

from __future__ import annotations

import jax

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """-log p_y >= 0 [nats], as softplus(-log odds): distinct down to 1e-38 where logsumexp(z) - z_y is 0 in float32. Small = member.

    Where the target is a real number: (z - y)^2 of the single output. Source: Yeom et al. 2018 (arXiv:1709.01604).
    """

    def measure(out_BC, y_B):
        if _logits.regression(out_BC, y_B):
            return _logits.squared_error(out_BC, y_B)
        return jax.nn.softplus(-_logits.log_odds(out_BC, y_B))

    return Signal(measure, -1)
