"""Distance of a random input from the decision boundary.

It is a scale for label-only distances where there is no source model.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.signals import _walk
from mia_jax.types import Signal


def make(
    *, iterations: int = 10, norm: str = "l2", evaluations: int = 100, budget: int = 0
) -> Signal:
    """Returns HopSkipJump's distance [B] from a random input to a change of the predicted label.

    Inputs are uniform on [0, 1]^F, one per example, drawn by the example's key; of the example only
    the shape is used. Fields and query counts are as in boundary_distance (plus one query for the
    input's label). Labels only. Its sign is that of the distances it is compared with; by itself it
    says nothing about membership.

    Source: Li & Zhang 2021 (arXiv:2007.15528), the threshold of the boundary attack.
    """
    walker = _walk.walker(
        "noise_distance",
        iterations=iterations,
        norm=norm,
        evaluations=evaluations,
        budget=budget,
        box="unit",
    )

    def ask(probe, x_B, y_B, key_B):
        del y_B
        noise_B = jax.vmap(
            lambda key: jax.random.uniform(jax.random.fold_in(key, 1), x_B.shape[1:], jnp.float32)
        )(key_B)
        walk = walker.run(probe.label, noise_B, probe.label(noise_B), key_B)
        return walk.distance_B, 1 + walk.queries_B

    return Signal(
        None,
        +1,
        ask,
        "labels",
        lambda features: 1 + walker.most(features),
        lambda x: walker.check(0 * x[:1]),
    )
