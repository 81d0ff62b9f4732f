"""Expresses Rosenblatt's rule as the gradient of a loss."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.types import Aux, Batch, Loss, Model, Variables


def make(*, model: Model) -> Loss:
    """Returns loss_B = z_p - z_y >= 0 from logits z_BC, with the prediction p = argmax_j z_j.

    A tie goes to the lowest class. The loss is 0 if the prediction is right. Otherwise a gradient
    step lowers the predicted class and raises the true one by the learning rate times x. For the
    two-class model `perceptron` this is w += rate * (+-1) * x, on mistakes only (Rosenblatt 1958).
    Metric: 'accuracy' [B].

    Raises:
        ValueError: for a task other than classification.
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
        predicted_B = out_BC.argmax(axis=1)
        largest_B, true_B = (
            jnp.take_along_axis(out_BC, label_B[:, None], axis=1)[:, 0]
            for label_B in (predicted_B, batch.y)
        )
        return largest_B - true_B, Aux(
            stats=stats, metrics=dict(accuracy=(predicted_B == batch.y).astype(jnp.float32))
        )

    return loss
