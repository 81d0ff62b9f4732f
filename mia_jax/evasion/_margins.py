"""Computes functions of the logits whose gradient does not vanish when the softmax saturates.

Gradient attacks ascend them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def odds_against(out_BC, y_B) -> jax.Array:
    """Returns log (1 - p_y) - log p_y = logsumexp_{j != y}(z_j - z_y), [B].

    Its gradient is that of the cross-entropy divided by 1 - p_y: the same direction, and not 0
    where p_y rounds to 1.

    Raises:
        ValueError: for fewer than two classes.
    """
    true_B, others_BC = _apart(out_BC, y_B)
    return jax.nn.logsumexp(others_BC - true_B[:, None], -1)


def margin(out_BC, y_B) -> jax.Array:
    """Returns z_y - max_{j != y} z_j, [B]; it is negative if the prediction is not y."""
    true_B, others_BC = _apart(out_BC, y_B)
    return true_B - others_BC.max(-1)


def _apart(out_BC, y_B):
    """Returns (the logit of the label [B], the logits of the other classes [B,C]).

    The latter have -inf at the label.
    """
    classes = out_BC.shape[-1]
    if classes < 2:
        raise ValueError(
            f"an attack on the label needs logits of at least 2 classes, got {classes}."
        )
    is_true_BC = jax.nn.one_hot(y_B, classes, dtype=bool)
    out_BC = out_BC.astype(jnp.float32)
    return jnp.where(is_true_BC, out_BC, 0).sum(-1), jnp.where(is_true_BC, -jnp.inf, out_BC)


def climb(out: Callable, point, y_B) -> tuple[jax.Array, jax.Array]:
    """Returns (odds_against [B], its gradient at each example [B,...]).

    This takes one forward and one backward pass, because examples do not influence each other.
    """

    def total(point):
        odds_B = odds_against(out(point), y_B)
        return odds_B.sum(), odds_B

    gradient, odds_B = jax.grad(total, has_aux=True)(point)
    return odds_B, jnp.where(jnp.isfinite(gradient), gradient, 0)
