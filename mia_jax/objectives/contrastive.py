"""Computes contrastive losses on the distance between the embeddings of a pair.

Sources: Chopra, Hadsell & LeCun 2005; Hadsell, Chopra & LeCun 2006.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Aux, Batch, Loss, Model, Variables

FORMS = ("exponential", "margin")


def make(
    *,
    model: Model,
    form: str = "exponential",
    scale: float = 1.0,
    margin: float = 1.0,
    threshold: float = 1.0,
    head: bool = True,
) -> Loss:
    """Returns loss_B of pairs x [B,2,..] with labels y [B,2].

    With E = |g(x_0) - g(x_1)|, Y = 1 if the labels differ and 0 otherwise, Q = `scale` and m =
    `margin`:

    - 'exponential' (2005): (1 - Y) (2/Q) E^2 + Y 2 Q exp(-2.77 E / Q).
    - 'margin' (2006): (1 - Y) E^2 / 2 + Y max(0, m - E)^2 / 2.

    `head` adds the mean cross-entropy of a linear classifier on both embeddings, whose gradient
    does not reach the embedding. Metrics: 'pair_accuracy' of "different iff E >= `threshold`",
    'same_distance' and 'different_distance' (the means of E, if half of the pairs are of either
    kind), and 'accuracy' of the head.

    Raises:
        ValueError: for a model without an embedding, and for batches that are not pairs
            (learners/balanced_pairs.py).
    """
    checks.one_of(FORMS, form=form)
    checks.positive(scale=scale, margin=margin, threshold=threshold)
    if "pairs" not in model.parts:
        raise ValueError("contrastive needs a net with an embedding: model.name='siamese'.")

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        batch.task.require(
            ("classification",),
            of="the objective 'contrastive'",
            remedy="use 'squared' or 'cross_entropy'",
        )
        if batch.y.ndim != 2 or batch.y.shape[1] != 2:
            raise ValueError(
                f"contrastive needs pairs, labels [B,2], not {batch.y.shape}: "
                "learner.name='balanced_pairs'."
            )
        embedded_B2E, logits_B2C = model.parts["pairs"](variables, batch.x)
        square_B = jnp.square(embedded_B2E[:, 0] - embedded_B2E[:, 1]).sum(-1)
        different_B = (batch.y[:, 0] != batch.y[:, 1]).astype(jnp.float32)
        distance_B = distance(square_B)
        if form == "exponential":
            loss_B = (1 - different_B) * 2 / scale * square_B + different_B * 2 * scale * jnp.exp(
                -2.77 / scale * distance_B
            )
        else:
            loss_B = (
                (1 - different_B) * square_B
                + different_B * jnp.square(jnp.maximum(margin - distance_B, 0))
            ) / 2
        if head:
            log_B2C = jax.nn.log_softmax(logits_B2C)
            loss_B = loss_B - jnp.take_along_axis(log_B2C, batch.y[..., None], axis=2)[..., 0].mean(
                1
            )
        metrics = dict(
            pair_accuracy=((distance_B >= threshold) == (different_B > 0)).astype(jnp.float32),
            same_distance=2 * (1 - different_B) * distance_B,
            different_distance=2 * different_B * distance_B,
            accuracy=(logits_B2C.argmax(-1) == batch.y).astype(jnp.float32).mean(1),
        )
        return loss_B, Aux(stats={}, metrics=metrics)

    return loss


def distance(square) -> jax.Array:
    """Returns sqrt(max(square, 1e-12)), whose gradient at 0 is 0 instead of NaN."""
    return jnp.sqrt(jnp.maximum(square, 1e-12))
