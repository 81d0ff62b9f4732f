"""Softmax cross-entropy with integer labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Aux, Batch, Loss, Model, Variables


def make(*, model: Model, label_smoothing: float = 0.0) -> Loss:
    """loss_B = -sum_c q_c log softmax(z)_c with q = (1 - s) onehot(y) + s / C, from logits z_BC; float32, in nats.

    `label_smoothing` s lies in [0, 1). Metric: 'accuracy' [B]. ValueError for real targets.
    """
    checks.fraction(closed="left", label_smoothing=label_smoothing)

    def loss(variables: Variables, batch: Batch, *, key_B=None, train: bool = False) -> tuple[jax.Array, Aux]:
        if not jnp.issubdtype(batch.y.dtype, jnp.integer):
            raise ValueError("the objective 'cross_entropy' needs class labels and the data has real targets (num_classes=0): use 'squared'.")
        out_BC, stats = model.apply(variables, batch.x, key_B=key_B, weight_B=batch.weight_B, train=train)
        log_BC = jax.nn.log_softmax(out_BC)
        loss_B = -jnp.take_along_axis(log_BC, batch.y[:, None], axis=1)[:, 0]
        if label_smoothing:
            loss_B = (1 - label_smoothing) * loss_B - label_smoothing * log_BC.mean(axis=1)
        correct_B = (out_BC.argmax(axis=1) == batch.y).astype(jnp.float32)
        return loss_B, Aux(stats=stats, metrics=dict(accuracy=correct_B))

    return loss
