"""Noise on logits: Gaussian noise that belongs to the query, so that it cannot be asked away."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.defenses import _draws
from mia_jax.types import Defense


def make(*, scale: float = 1.0, seed: int = 0) -> Defense:
    """Returns log softmax(z) + `scale` N(0, 1), with noise of its own for every class.

    The noise is drawn from the bits of the output and `seed`: the same query has the same answer.
    An attacker can average over queries that differ a little, which the signal
    `averaged:signal=loss` does. Labels may change.
    """
    checks.at_least(0, scale=scale, seed=seed)

    def apply(out_BC):
        key_B = _draws.keys_of(out_BC, seed=seed)
        noise_BC = jax.vmap(lambda key: jax.random.normal(key, (out_BC.shape[-1],), jnp.float32))(
            key_B
        )
        return jax.nn.log_softmax(out_BC) + scale * noise_BC

    return Defense(apply, False)
