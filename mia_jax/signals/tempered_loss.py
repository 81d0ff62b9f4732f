"""Loss at a temperature: cross-entropy of the true label under softmax(logits / temperature)."""

from __future__ import annotations

import jax

from mia_jax import checks
from mia_jax.signals import _logits
from mia_jax.types import Signal


def make(*, temperature: float = 2.0) -> Signal:
    """Returns -log softmax(z / temperature)_y >= 0 [nats]. Small = member.

    Attacks that compare probabilities at a temperature need no more than this number, where logits
    have one per class. It is computed like the signal loss, without cancellation.

    Args:
        temperature: the logits are divided by it.
    """
    checks.positive(temperature=temperature)

    def measure(out_BC, batch):
        cooled_BC = out_BC.astype(jax.numpy.float32) / temperature
        return jax.nn.softplus(-_logits.log_odds(cooled_BC, batch.y))

    return Signal(measure, -1)
