"""RelaxLoss: trains towards a target loss above zero, so that members are not fitted to the end."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.objectives import _classes
from mia_jax.types import Aux, Batch, Loss, Model, Variables

MEANS = ("batch", "example")
# Separates the coin from the draws of a model's layers, which fold small numbers into the same key.
_COIN = 0x72656C


def make(*, model: Model, alpha: float = 0.5, mean: str = "batch") -> Loss:
    """Returns cross-entropy whose gradient keeps it near `alpha`, in nats.

    With ce_B = -log p_y and L its mean over the batch, a step follows the gradient of

    - ce_B, where L >= alpha: ordinary descent;
    - -ce_B, where L < alpha and a fair coin says so: ascent;
    - -sum_c t_c log p_c otherwise, where t_y = p_y and t_c = (1 - p_y) / (C - 1) are held fixed:
      the posterior of the other classes is flattened.

    The published algorithm alternates ascent and flattening between epochs; here a coin per step
    decides (from the key of the first example), because an objective knows no epoch. The value of
    the loss is ce_B in all three cases, and so it is in evaluation. Metric: 'accuracy' [B].

    With mean='example' L is each example's own ce, and the coin its own as well: the loss of an
    example depends on no other one. A private gradient computes each example in a batch of its own
    if the mean is over the batch, so that the two are then the same.

    Source: Chen et al. 2022 (arXiv:2207.05801), algorithm 1.

    Args:
        model: the model.
        alpha: the target loss; 0 is cross-entropy.
        mean: 'batch' or 'example'.

    Raises:
        ValueError: for a task other than classification.
    """
    checks.at_least(0, alpha=alpha)
    checks.one_of(MEANS, mean=mean)

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        out_BC, aux = _classes.answered(
            model, variables, batch, of="relax_loss", key_B=key_B, train=train
        )
        loss_B = _classes.of_label(out_BC, batch.y)
        if not train:
            return loss_B, aux
        p_BC = jax.lax.stop_gradient(jax.nn.softmax(out_BC))
        flat_B = _classes.cross_entropy(out_BC, flattened(p_BC, batch.y))
        level_B, ascend_B = jax.lax.stop_gradient(loss_B), coins(key_B, len(loss_B))
        if mean == "batch":
            weight_B = batch.weight_B
            level_B = (weight_B * level_B).sum() / jnp.maximum(weight_B.sum(), 1e-12)
            ascend_B = ascend_B[0]
        followed_B = jnp.where(level_B >= alpha, loss_B, jnp.where(ascend_B, -loss_B, flat_B))
        # the value of the cross-entropy with the gradient of what is followed
        return followed_B + jax.lax.stop_gradient(loss_B - followed_B), aux

    return loss


def flattened(p_BC, y_B) -> jax.Array:
    """Returns t_BC: p_y at the label and (1 - p_y) / (C - 1) at every other class."""
    classes = p_BC.shape[-1]
    true_BC = jax.nn.one_hot(y_B, classes, dtype=bool)
    own_B1 = jnp.where(true_BC, p_BC, 0.0).sum(-1, keepdims=True)
    return jnp.where(true_BC, own_B1, (1 - own_B1) / max(1, classes - 1))


def coins(key_B, size: int) -> jax.Array:
    """Returns a fair coin per example, [B]; all False without keys."""
    if key_B is None:
        return jnp.zeros(size, bool)
    return jax.vmap(
        lambda key: jax.random.bernoulli(jax.random.fold_in(key, _COIN), jnp.float32(0.5))
    )(key_B)
