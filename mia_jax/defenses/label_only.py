"""Label only: the predicted class and nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.defenses import _probabilities
from mia_jax.types import Defense


def make() -> Defense:
    """Returns p = 1 for the predicted class and 1e-12 for every other.

    Of equal probabilities the lowest class number is predicted. Labels stay, and whatever an
    attacker computes from these probabilities is a function of the predicted and the true label.
    """

    def apply(out_BC):
        top_BC = jax.nn.one_hot(out_BC.argmax(-1), out_BC.shape[-1], dtype=bool)
        return jnp.where(top_BC, 0.0, jnp.log(_probabilities.FLOOR)).astype(jnp.float32)

    return Defense(apply, True)
