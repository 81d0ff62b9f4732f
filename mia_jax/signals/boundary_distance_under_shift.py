"""Distances of shifted images from the decision boundary, which the combined attack learns from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax import query_views
from mia_jax.query_views.shift import diamond
from mia_jax.signals import _images, _walk
from mia_jax.types import Signal


def make(
    *,
    d: int = 1,
    iterations: int = 10,
    norm: str = "l2",
    evaluations: int = 100,
    budget: int = 0,
    box: str = "unit",
) -> Signal:
    """Returns HopSkipJump's distances [B, 4d + 1] of the image and of its 4d shifts.

    Distances are the last column of signal boundary_distance; shifts are those of
    correct_under_shift. Labels only; query counts are of the first j shifts together. Large =
    member.

    Args:
        d: the length of the shifts in pixels.
        budget: the most labels queried per example and shift; 0: no limit.
        iterations, norm, evaluations, box: as in boundary_distance.

    Raises:
        ValueError: The examples are not images, or as for boundary_distance.

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), the combined attack.
    """
    walker = _walk.walker(
        "boundary_distance_under_shift",
        iterations=iterations,
        norm=norm,
        evaluations=evaluations,
        budget=budget,
        box=box,
    )
    views = query_views.make([f"shift:{dy},{dx}" for dy, dx in diamond(d)])

    def ask(probe, x_B, y_B, key_B):
        def walk_view(v_and_x):
            v, x_B = v_and_x
            view_key_B = jax.vmap(
                lambda key: jnp.where(
                    v == 0,
                    jax.random.key_data(key),
                    jax.random.key_data(jax.random.fold_in(key, v)),
                )
            )(key_B)
            walk = walker.run(
                probe.label,
                x_B,
                y_B,
                jax.random.wrap_key_data(view_key_B, impl=jax.random.key_impl(key_B)),
            )
            return walk.distance_B, walk.queries_B

        distance_VB, queries_VB = lax.map(
            walk_view,
            (jnp.arange(len(views), dtype=jnp.int32), jnp.stack([view(x_B) for view in views])),
        )
        return distance_VB.T, jnp.cumsum(queries_VB, 0).T

    check = _images.images("boundary_distance_under_shift", walker.check)
    return Signal(
        None, +1, ask, "labels", lambda features: len(views) * walker.most(features), check
    )
