"""Computes the Forward-Forward objective: a sum of losses of single layers.

Each loss depends on the parameters of its layer only (Hinton 2022, arXiv:2212.13345).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Aux, Batch, Loss, Model, Variables

NEGATIVES = ("other", "any")


def make(*, model: Model, theta: float = 1.5, negatives: str = "other") -> Loss:
    """Returns loss_B = sum_l [softplus(theta - G_l(x, y)) + softplus(G_l(x, y') - theta)] / 2.

    G_l is the goodness of layer l; the loss is in nats. y' is drawn with the example's key from the
    `other` C - 1 labels, or from `any` (with 10 classes, a tenth of these negatives is positive).
    Without a key the loss is the mean over all possible y'. Metrics: 'layer_loss' [B], the mean
    over the layers, and with train=False 'accuracy' [B] of the largest total goodness.

    Raises:
        ValueError: for a model that is not trained layer by layer.
    """
    checks.one_of(NEGATIVES, negatives=negatives)
    needs(model)
    num_classes = model.parts["num_classes"]

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        batch.task.require(
            ("classification",),
            of="the objective 'forward_forward'",
            remedy="use 'squared' or 'cross_entropy'",
        )
        if key_B is None:
            other_BK = (
                batch.y[:, None]
                + jnp.arange(negatives == "other", num_classes, dtype=jnp.int32)[None]
            ) % num_classes
        else:
            other_BK = jax.vmap(draw, (0, 0, None, None))(key_B, batch.y, num_classes, negatives)[
                :, None
            ]
        goodness_BKL = model.parts["goodness"](
            variables, batch.x, jnp.concatenate([batch.y[:, None], other_BK], axis=1)
        )
        loss_BL = local(goodness_BKL, theta)
        metrics = dict(layer_loss=loss_BL.mean(-1))
        if not train:
            out_BC, _ = model.apply(variables, batch.x)
            metrics["accuracy"] = (out_BC.argmax(1) == batch.y).astype(jnp.float32)
        return loss_BL.sum(-1), Aux(stats={}, metrics=metrics)

    return loss


def local(goodness_BKL, theta: float) -> jax.Array:
    """Returns [softplus(theta - G_0) + mean_k softplus(G_k - theta)] / 2 of each layer.

    Shapes: [B,K,L] -> [B,L]. The first of the K labels is the true one.
    """
    return (
        jax.nn.softplus(theta - goodness_BKL[:, 0])
        + jax.nn.softplus(goodness_BKL[:, 1:] - theta).mean(1)
    ) / 2


def draw(key, y, num_classes: int, negatives: str) -> jax.Array:
    """Returns one negative label, uniform over the other C - 1 labels or over all C."""
    if negatives == "any":
        return jax.random.randint(key, (), 0, num_classes, jnp.int32)
    return (y + jax.random.randint(key, (), 1, num_classes, jnp.int32)) % num_classes


def needs(model: Model) -> None:
    """Raises ValueError unless the model provides its layers separately."""
    if "goodness" not in model.parts:
        raise ValueError(
            "forward_forward needs a net that is trained layer by layer: "
            "model.name='forward_forward'."
        )
