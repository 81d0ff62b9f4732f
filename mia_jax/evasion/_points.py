"""Computes points around examples: distances, boxes and blends.

Examples are flat here, [B,F]; the norms are 'l2' and 'linf'.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks

NORMS = ("l2", "linf")
Box = tuple[float, float] | None


def check(x, *, norm: str, box: Box) -> None:
    """Raises ValueError for an unknown norm, an empty box, or examples outside the box.

    The examples are not checked while JAX traces, because the caller's jit hides their values.
    """
    checks.one_of(NORMS, norm=norm)
    if box is None:
        return
    if len(box) != 2 or not box[0] < box[1]:
        raise ValueError(
            f"box={box} must be (low, high) with low < high, or None to search outside any box."
        )
    if isinstance(x, jax.core.Tracer) or not np.size(x):
        return
    low, high = float(np.min(x)), float(np.max(x))
    if not (box[0] <= low and high <= box[1]):
        raise ValueError(
            f"x has values from {low:.4g} to {high:.4g}, outside box={tuple(box)}. Scale the "
            "examples into it, or set box=None."
        )


def flat(x) -> jax.Array:
    """Returns Returns [B,...] as [B,F] float32."""
    return jnp.asarray(x, jnp.float32).reshape(len(x), -1)


def like(value, x) -> jax.Array:
    """Returns a number, or one number per example [B], shaped to be multiplied with x [B,...]."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), x.shape[:1]).reshape(
        -1, *(1,) * (x.ndim - 1)
    )


def clip(x, box: Box):
    """Returns x inside the box, or x itself if there is no box."""
    return x if box is None else jnp.clip(x, *box)


def length(difference, norm: str) -> jax.Array:
    """Returns the norm over the last axis: sqrt(sum d^2) or max|d|, [B]."""
    return jnp.sqrt(jnp.square(difference).sum(-1)) if norm == "l2" else jnp.abs(difference).max(-1)


def farthest(x_BF, norm: str, box: tuple[float, float]) -> jax.Array:
    """Returns the distance from each example to the farthest corner of the box, [B].

    No point of the box is farther away.
    """
    return length(jnp.maximum(x_BF - box[0], box[1] - x_BF), norm)


def blend(x_BF, far_BF, share_B, norm: str) -> jax.Array:
    """Returns the point between x and `far` at share_B in [0, 1] of their distance.

    It is on the line (l2), or cut to a cube around x (linf).
    """
    difference = far_BF - x_BF
    if norm == "l2":
        return x_BF + share_B[:, None] * difference
    reach = share_B[:, None] * jnp.abs(difference).max(-1, keepdims=True)
    return x_BF + jnp.clip(difference, -reach, reach)


def bisected(adversarial: Callable, x_BF, far_BF, *, steps: int, norm: str, box: Box) -> jax.Array:
    """Returns the nearest point known to be adversarial on the way from x to `far`.

    x must not be adversarial and `far` must be. The result is accurate to 2^-steps of their
    distance. `adversarial(point_BF) -> [B]` is asked `steps` times per example.
    """

    def halve(_, state):
        low_B, high_B, near_BF = state
        middle_B = (low_B + high_B) / 2
        point_BF = clip(blend(x_BF, far_BF, middle_B, norm), box)
        yes_B = adversarial(point_BF)
        return (
            jnp.where(yes_B, low_B, middle_B),
            jnp.where(yes_B, middle_B, high_B),
            jnp.where(yes_B[:, None], point_BF, near_BF),
        )

    ends = jnp.zeros(len(x_BF), jnp.float32), jnp.ones(len(x_BF), jnp.float32)
    return jax.lax.fori_loop(0, steps, halve, (*ends, far_BF))[2]
