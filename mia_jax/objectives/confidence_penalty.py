"""Penalizes confident answers: cross-entropy less a multiple of the answer's entropy."""

from __future__ import annotations

import jax

from mia_jax import checks
from mia_jax.objectives import _classes
from mia_jax.types import Aux, Batch, Loss, Model, Variables


def make(*, model: Model, strength: float = 0.1) -> Loss:
    """Returns loss_B = -log p_y - `strength` * H(p) with p = softmax(z), in nats.

    H(p) = -sum_c p_c log p_c is between 0 and log C. Metric: 'accuracy' [B].

    Source: Pereyra et al. 2017 (arXiv:1701.06548).

    Args:
        model: the model.
        strength: the weight of the entropy; 0 is cross-entropy.

    Raises:
        ValueError: for a task other than classification.
    """
    checks.at_least(0, strength=strength)

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        out_BC, aux = _classes.answered(
            model, variables, batch, of="confidence_penalty", key_B=key_B, train=train
        )
        entropy_B = _classes.cross_entropy(out_BC, jax.nn.softmax(out_BC))
        return _classes.of_label(out_BC, batch.y) - strength * entropy_B, aux

    return loss
