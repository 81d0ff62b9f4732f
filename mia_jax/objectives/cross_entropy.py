"""Computes softmax cross-entropy with class numbers, per example or per position of a sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Aux, Batch, Loss, Model, Variables


def make(*, model: Model, label_smoothing: float = 0.0) -> Loss:
    """Returns loss_B = -sum_c q_c log softmax(z)_c with q = (1 - s) onehot(y) + s / C.

    z_BC are logits and s = `label_smoothing` is in [0, 1). The loss is float32, in nats. For a
    sequence, with logits z_BLV and labels y_BL, it is the mean over the positions. Metric:
    'accuracy' [B]; for a sequence it is the share of correct positions.

    Raises:
        ValueError: for a task without class numbers.
    """
    checks.fraction(closed="left", label_smoothing=label_smoothing)

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        batch.task.require(
            ("classification", "sequence"),
            of="the objective 'cross_entropy'",
            remedy="use 'squared'",
        )
        out_BC, stats = model.apply(
            variables, batch.x, key_B=key_B, weight_B=batch.weight_B, train=train
        )
        log_BC = jax.nn.log_softmax(out_BC)
        loss_B = -jnp.take_along_axis(log_BC, batch.y[..., None], axis=-1)[..., 0]
        if label_smoothing:
            loss_B = (1 - label_smoothing) * loss_B - label_smoothing * log_BC.mean(axis=-1)
        correct_B = (out_BC.argmax(axis=-1) == batch.y).astype(jnp.float32)
        if batch.task.kind == "sequence":
            loss_B, correct_B = loss_B.mean(axis=1), correct_B.mean(axis=1)
        return loss_B, Aux(stats=stats, metrics=dict(accuracy=correct_B))

    return loss
