"""Rounding: probabilities rounded to a few decimals."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.defenses import _probabilities
from mia_jax.types import Defense


def make(*, digits: int = 2) -> Defense:
    """Returns probabilities rounded to `digits` decimals, not renormalized; 0 becomes 1e-12.

    Close classes can tie, so labels may change.
    """
    checks.at_least(0, digits=digits)

    def apply(out_BC):
        return jnp.log(
            jnp.maximum(jnp.round(jax.nn.softmax(out_BC, -1), digits), _probabilities.FLOOR)
        )

    return Defense(apply, False)
