"""Mixup: trains on convex combinations of two examples and of their labels."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.objectives import _classes
from mia_jax.types import Aux, Batch, Loss, Model, Variables

# Separates the draws from those of a model's layers, which fold small numbers into the same key.
_SITE = 0x6D6978


def make(*, model: Model, alpha: float = 1.0) -> Loss:
    """Returns loss_B = w ce(f(w x + (1 - w) x'), y) + (1 - w) ce(f(w x + (1 - w) x'), y').

    w is drawn from Beta(alpha, alpha) and (x', y') is another row of the batch (or the same one),
    drawn with replacement among the rows of weight > 0; both from the example's key, while
    training. Evaluation uses the example itself. Metric: 'accuracy' [B] of the first label.

    The loss of an example depends on another one, so that a private gradient refuses it.

    Source: Zhang et al. 2018 (arXiv:1710.09412).

    Args:
        model: the model.
        alpha: the shape of the distribution of w: 1 is uniform, near 0 hardly anything is mixed.

    Raises:
        ValueError: for a task other than classification, or for tokens.
    """
    checks.positive(alpha=alpha)

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        if batch.task.vocabulary is not None:
            raise ValueError(
                "the objective 'mixup' averages examples, and this data holds tokens; use "
                "'cross_entropy'."
            )
        answer = dict(of="mixup", key_B=key_B, train=train)
        if not train or key_B is None:
            out_BC, aux = _classes.answered(model, variables, batch, **answer)
            return _classes.of_label(out_BC, batch.y), aux
        w_B, partner_B = drawn(key_B, batch.weight_B, alpha)
        w = w_B.reshape(-1, *(1,) * (batch.x.ndim - 1))
        mixed = dataclasses.replace(batch, x=w * batch.x + (1 - w) * batch.x[partner_B])
        out_BC, aux = _classes.answered(model, variables, mixed, **answer)
        own_B = _classes.of_label(out_BC, batch.y)
        other_B = _classes.of_label(out_BC, batch.y[partner_B])
        return w_B * own_B + (1 - w_B) * other_B, aux

    return loss


def drawn(key_B, weight_B, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Returns (w_B, partner_B): the weights of the examples, and the rows they are mixed with.

    Rows of weight 0, which pad a batch, are no partners.
    """
    real_first_B = jnp.argsort(weight_B <= 0, stable=True)
    count = jnp.maximum((weight_B > 0).sum(), 1)

    def draw(key):
        weight_key, row_key = jax.random.split(jax.random.fold_in(key, _SITE))
        if alpha == 1:
            w = jax.random.uniform(weight_key, (), jnp.float32)
        else:
            w = jax.random.beta(weight_key, alpha, alpha, dtype=jnp.float32)
        return w, jax.random.randint(row_key, (), 0, count, jnp.int32)

    w_B, place_B = jax.vmap(draw)(key_B)
    return w_B, real_first_B[place_B]
