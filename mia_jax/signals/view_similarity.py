"""Similarity of the embeddings of random views of an example.

Encoders map the views of their training images closer together.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Signal


def make(*, views: int = 8, shift: int = 2, noise: float = 0.05) -> Signal:
    """Returns the mean cosine similarity [B] of embeddings of random views of x. Large = member.

    The mean is over the pairs of views, in [-1, 1]; embeddings are 'penultimate' of Model.inside.
    An embedding of length 0 has similarity 0. White box, or a service that returns embeddings:
    `views` queries.

    Args:
        views: how many random views.
        shift: an image is moved by up to this many pixels in each direction, with edges repeated;
            other examples get only the noise.
        noise: standard deviation of the Gaussian noise per feature.

    Source: EncoderMI-T (Liu et al. 2021, arXiv:2108.11023).
    """
    checks.at_least(2, views=views)
    checks.at_least(0, shift=shift, noise=noise)

    def view(x, key):
        moved = x
        if shift and x.ndim == 3:
            padded = jnp.pad(x, ((shift, shift), (shift, shift), (0, 0)), mode="edge")
            start = jax.random.randint(
                jax.random.fold_in(key, 0), (2,), 0, 2 * shift + 1, jnp.int32
            )
            moved = jax.lax.dynamic_slice(padded, (start[0], start[1], 0), x.shape)
        return moved + noise * jax.random.normal(jax.random.fold_in(key, 1), x.shape, jnp.float32)

    def ask(probe, x_B, y_B, key_B):
        del y_B
        draw = jax.vmap(view, (0, 0))
        key_AB = jax.vmap(lambda a: jax.vmap(lambda key: jax.random.fold_in(key, a))(key_B))(
            jnp.arange(views, dtype=jnp.int32)
        )
        embedded_ABE = jnp.stack(
            [probe.inside(draw(x_B, key_AB[a]))["penultimate"] for a in range(views)]
        )
        length_AB = jnp.sqrt(jnp.square(embedded_ABE).sum(-1, keepdims=True))
        unit_ABE = embedded_ABE / jnp.where(length_AB > 0, length_AB, 1)
        together_B, alone_B = jnp.square(unit_ABE.sum(0)).sum(-1), jnp.square(unit_ABE).sum((0, 2))
        return (together_B - alone_B) / (views * (views - 1))

    return Signal(None, +1, ask, "white_box", views, tasks=("classification", "regression"))
