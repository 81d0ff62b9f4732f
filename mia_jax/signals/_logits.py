"""Log-odds of a class against all others, exact at saturation: the basis of confidence signals."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def picked(out_BC: jax.Array, y_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (logits in float32, mask_BC that is True at the label).

    Raises:
        ValueError: There are fewer than two classes.
    """
    classes = out_BC.shape[-1]
    if classes < 2:
        raise ValueError(f"confidence signals need logits of at least 2 classes, got {classes}.")
    return out_BC.astype(jnp.float32), jax.nn.one_hot(y_B, classes, dtype=bool)


def squared_error(out_BC: jax.Array, y_B: jax.Array) -> jax.Array:
    """Returns (z - y)^2 in float32."""
    return jnp.square(out_BC[..., 0].astype(jnp.float32) - y_B)


def log_odds(out_BC: jax.Array, y_B: jax.Array) -> jax.Array:
    """Returns log p_y - log sum_{j != y} p_j = -logsumexp_{j != y}(z_j - z_y).

    Differences are taken first, so nothing cancels.
    """
    out_BC, label_BC = picked(out_BC, y_B)
    own_B1 = jnp.sum(jnp.where(label_BC, out_BC, 0), -1, keepdims=True)
    return -jax.nn.logsumexp(jnp.where(label_BC, -jnp.inf, out_BC - own_B1), -1)


def all_log_odds(out_BC: jax.Array) -> jax.Array:
    """Returns log p_i - log sum_{j != i} p_j for every class i [B,C], in O(C).

    Without class i the sum still contains the largest term, 1 after the shift, unless i is the
    largest itself; that class is summed separately.
    """
    top_B = out_BC.argmax(-1)
    top_BC = jax.nn.one_hot(top_B, out_BC.shape[-1], dtype=bool)
    gap_BC = out_BC - out_BC.max(-1, keepdims=True)
    mass_BC = jnp.exp(gap_BC)
    others_BC = jnp.maximum(mass_BC.sum(-1, keepdims=True) - mass_BC, 1)
    return jnp.where(top_BC, log_odds(out_BC, top_B)[..., None], gap_BC - jnp.log(others_BC))
