"""Top k: the k largest probabilities are shown; the other classes share the rest equally."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.defenses import _probabilities
from mia_jax.types import Defense


def make(*, k: int = 1) -> Defense:
    """Returns the `k` largest probabilities; the other classes share the rest equally.

    Of equal probabilities the lowest class numbers come first.
    """
    checks.at_least(1, k=k)

    def apply(out_BC):
        p_BC, classes = jax.nn.softmax(out_BC, -1), out_BC.shape[-1]
        place_BC = jnp.argsort(jnp.argsort(-p_BC, axis=-1, stable=True), axis=-1)
        others_B1 = jnp.where(place_BC < k, 0, p_BC).sum(-1, keepdims=True) / max(1, classes - k)
        return jnp.log(jnp.maximum(jnp.where(place_BC < k, p_BC, others_B1), _probabilities.FLOOR))

    return Defense(apply, True)
