"""Loss: cross-entropy of the true label, its mean over a sequence, or the squared error."""

from __future__ import annotations

import jax

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns -log p_y >= 0 [nats]. Small = member.

    It is computed as softplus(-log odds): distinct down to 1e-38, where logsumexp(z) - z_y is 0 in
    float32. Of a sequence it is the mean over the positions; in regression (z - y)^2 of the single
    output.

    Source: Yeom et al. 2018 (arXiv:1709.01604).
    """

    def measure(out, batch):
        if batch.task.kind == "regression":
            return _logits.squared_error(out, batch.y)
        loss = jax.nn.softplus(-_logits.log_odds(out, batch.y))
        return loss.mean(-1) if batch.task.kind == "sequence" else loss

    return Signal(measure, -1, tasks=("classification", "regression", "sequence"))
