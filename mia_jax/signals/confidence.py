"""Probability of the true label."""

from __future__ import annotations

import jax

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns p_y = sigmoid(log odds of y) in [0, 1]. Large = member.

    float32 rounds it to 1 from log odds 17 on, where loss and rescaled_logit still differ.

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), the confidence-vector attack.
    """
    return Signal(lambda out_BC, batch: jax.nn.sigmoid(_logits.log_odds(out_BC, batch.y)), +1)
