"""What gradient attacks climb: functions of the logits whose gradient doesn't vanish when the
softmax saturates.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def odds_against(out_BC, y_B) -> jax.Array:
    """log (1 - p_y) - log p_y = logsumexp_{j != y}(z_j - z_y), [B].

    Its gradient is that of the cross-entropy divided by 1 - p_y: the same direction, and not 0
    where p_y rounds to 1. ValueError below two classes.
    """
    own_B, others_BC = _apart(out_BC, y_B)
    return jax.nn.logsumexp(others_BC - own_B[:, None], -1)


def margin(out_BC, y_B) -> jax.Array:
    """z_y - max_{j != y} z_j, [B]; negative where the label is another one."""
    own_B, others_BC = _apart(out_BC, y_B)
    return own_B - others_BC.max(-1)


def _apart(out_BC, y_B):
    classes = out_BC.shape[-1]
    if classes < 2:
        raise ValueError(
            f"an attack on the label needs logits of at least 2 classes, got {classes}."
        )
    own_BC = jax.nn.one_hot(y_B, classes, dtype=bool)
    out_BC = out_BC.astype(jnp.float32)
    return jnp.where(own_BC, out_BC, 0).sum(-1), jnp.where(own_BC, -jnp.inf, out_BC)


def climb(out: Callable, point, y_B) -> tuple[jax.Array, jax.Array]:
    """(odds_against [B], its gradient at each example [B,...]); one forward and one backward pass,
    since no example touches another.
    """

    def total(point):
        odds_B = odds_against(out(point), y_B)
        return odds_B.sum(), odds_B

    gradient, odds_B = jax.grad(total, has_aux=True)(point)
    return odds_B, jnp.where(jnp.isfinite(gradient), gradient, 0)
