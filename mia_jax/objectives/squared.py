"""Computes the squared error, for regression."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Aux, Batch, Loss, Model, Variables


def make(*, model: Model, factor: float = 1.0) -> Loss:
    """Returns loss_B = factor * (z - y)^2 from the single output z_B1.

    A `factor` of 0.5 is the other usual form. Metric: 'squared_error' (z - y)^2 [B], whatever the
    factor.

    Raises:
        ValueError: for a task other than regression, or a model with more than one output.
    """
    checks.positive(factor=factor)

    def loss(variables: Variables, batch: Batch, *, key_B=None, train: bool = False):
        batch.task.require(
            ("regression",), of="the objective 'squared'", remedy="use 'cross_entropy'"
        )
        out_BC, stats = model.apply(
            variables, batch.x, key_B=key_B, weight_B=batch.weight_B, train=train
        )
        if out_BC.shape[-1] != 1:
            raise ValueError(
                f"the objective 'squared' needs a model with 1 output, got {out_BC.shape[-1]}."
            )
        error_B = jnp.square(out_BC[..., 0] - batch.y)
        return factor * error_B, Aux(stats=stats, metrics=dict(squared_error=error_B))

    return loss
