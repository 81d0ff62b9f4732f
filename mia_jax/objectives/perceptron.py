"""Rosenblatt's rule as the gradient of a loss."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.types import Aux, Batch, Loss, Model, Variables


def make(*, model: Model) -> Loss:
    """loss_B = z_p - z_y >= 0 with p = argmax_j z_j (a tie goes to the lowest class), from logits
    z_BC.

    It is 0 where the answer is right; otherwise its gradient step lowers the named class and raises
    the true one by the learning rate times x: for the two-class model `perceptron` w += rate *
    (+-1) * x on mistakes alone (Rosenblatt 1958). Metric: 'accuracy' [B]. ValueError for a task
    other than classification.
    """

    def loss(variables: Variables, batch: Batch, *, key_B=None, train: bool = False):
        batch.task.require(
            ("classification",),
            of="the objective 'perceptron'",
            remedy="use 'squared' or 'cross_entropy'",
        )
        out_BC, stats = model.apply(
            variables, batch.x, key_B=key_B, weight_B=batch.weight_B, train=train
        )
        named_B = out_BC.argmax(axis=1)
        named, own = (
            jnp.take_along_axis(out_BC, label_B[:, None], axis=1)[:, 0]
            for label_B in (named_B, batch.y)
        )
        return named - own, Aux(
            stats=stats, metrics=dict(accuracy=(named_B == batch.y).astype(jnp.float32))
        )

    return loss
