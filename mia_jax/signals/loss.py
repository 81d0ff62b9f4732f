"""Cross-entropy of the true label."""

from __future__ import annotations

import jax

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """-log p_y >= 0 [nats], as softplus(-log odds): distinct down to 1e-38 where logsumexp(z) - z_y is 0 in float32. Small = member.

    Source: Yeom et al. 2018 (arXiv:1709.01604).
    """
    return Signal(lambda out_BC, y_B: jax.nn.softplus(-_logits.log_odds(out_BC, y_B)), -1)
