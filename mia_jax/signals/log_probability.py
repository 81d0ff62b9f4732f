"""Log probability of the true label at a temperature, in 48 bits: two numbers that add up to it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.signals import _logits
from mia_jax.types import Signal


def make(*, temperature: float = 2.0) -> Signal:
    """Returns log softmax(z / temperature)_y as [B,2] float32: its rounded value, and the rest.

    Attacks that compare ratios of probabilities need no more of an answer than this, where logits
    have one number per class, and as many digits as logits give: their scores count comparisons, of
    which rounding to float32 would change some. The sum of both numbers, in float64, has a relative
    error of about 2^-48. It is computed in float64 (also where jax_enable_x64 is off), which TPUs
    emulate.

    Args:
        temperature: the logits are divided by it.
    """
    checks.positive(temperature=temperature)

    def measure(out_BC, batch):
        _logits.picked(out_BC, batch.y)  # refuses a single class
        with jax.enable_x64(True):
            out_BC = out_BC.astype(jnp.float32).astype(jnp.float64)
            label_BC = jax.nn.one_hot(batch.y, out_BC.shape[-1], dtype=bool)
            own_B1 = jnp.sum(jnp.where(label_BC, out_BC, 0), -1, keepdims=True)
            gap_BC = jnp.where(label_BC, -jnp.inf, (out_BC - own_B1) / temperature)
            top_B1 = jnp.maximum(gap_BC.max(-1, keepdims=True), 0)
            rest_B = jnp.exp(gap_BC - top_B1).sum(-1)  # exp(-inf) = 0 leaves the label out
            top_B = top_B1[..., 0]
            # log(1 + sum of exp(gap)), also where the sum is tiny or huge
            far_B = top_B + jnp.log(jnp.exp(-top_B) + rest_B)
            value_B = -jnp.where(top_B > 0, far_B, jnp.log1p(rest_B))
            first_B = value_B.astype(jnp.float32)
            second_B = (value_B - first_B.astype(jnp.float64)).astype(jnp.float32)
            return jnp.stack([first_B, second_B], -1)

    return Signal(measure, 0)
