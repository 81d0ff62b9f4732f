"""What objectives of classification share: one forward pass, and the accuracy of its labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax.types import Aux, Batch, Model, Variables


def answered(
    model: Model, variables: Variables, batch: Batch, *, of: str, key_B, train: bool
) -> tuple[jax.Array, Aux]:
    """Returns (logits [B,C], Aux) of a batch; the metric is 'accuracy' [B].

    Args:
        model, variables, batch, key_B, train: see types.Loss.
        of: the name of the objective, for messages.

    Raises:
        ValueError: the task is not classification.
    """
    batch.task.require(
        ("classification",),
        of=f"the objective {of!r}",
        remedy="use 'squared' or 'cross_entropy'",
    )
    out_BC, stats = model.apply(
        variables, batch.x, key_B=key_B, weight_B=batch.weight_B, train=train
    )
    correct_B = (out_BC.argmax(axis=-1) == batch.y).astype(jnp.float32)
    return out_BC, Aux(stats=stats, metrics=dict(accuracy=correct_B))


def cross_entropy(out_BC, q_BC) -> jax.Array:
    """Returns -sum_c q_c log softmax(z)_c, [B], in nats, for rows of probabilities q."""
    return -(q_BC * jax.nn.log_softmax(out_BC)).sum(-1)


def of_label(out_BC, y_B) -> jax.Array:
    """Returns -log softmax(z)_y, [B], in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(out_BC), y_B[:, None], axis=-1)[:, 0]
