"""MemGuard at its strongest: one probability for the predicted class and one for all others."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.types import Defense


def make() -> Defense:
    """Returns p = 1/C + 0.001 for the predicted class and 1/C - 0.001 / (C - 1) for every other.

    Labels stay; everything else is a function of them. This is the strongest version of MemGuard
    (Jia et al. 2019, arXiv:1909.10594), as in Choquette-Choo et al. 2021 (arXiv:2007.14321).
    """

    def apply(out_BC):
        classes = out_BC.shape[-1]
        top_BC = jax.nn.one_hot(out_BC.argmax(-1), classes, dtype=bool)
        return jnp.where(
            top_BC, jnp.log(1 / classes + 1e-3), jnp.log(1 / classes - 1e-3 / (classes - 1))
        ).astype(jnp.float32)

    return Defense(apply, True)
