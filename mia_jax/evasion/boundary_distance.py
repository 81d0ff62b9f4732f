"""Measures how far the predicted label stays the same along given directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.evasion import _points


class Along(NamedTuple):
    """Holds the distances along K directions.

    Attributes:
        distance_BK: [B,K] >= 0.
        crossed_BK: [B,K], whether the label changes within reach.
        queries_B: [B] int32, the number of labels that were asked.
    """

    distance_BK: jax.Array
    crossed_BK: jax.Array
    queries_B: jax.Array


def boundary_distance(
    label: Callable,
    x,
    y_B,
    direction,
    *,
    reach: float,
    steps: int = 12,
    norm: str = "l2",
    box: tuple[float, float] | None = (0.0, 1.0),
) -> Along:
    """Returns the distance from x to another label than y along each direction u.

    The search covers the way from x to x + reach u, to 2^-steps of it. The distance is 0 if x is
    misclassified. Points are clipped to the box. If the label at the far end is still y,
    `crossed_BK` is False and the distance is that of the far end: the boundary is not nearer unless
    the label changes twice. It takes 1 + K queries, and `steps` more for each direction that
    crosses. All B * K points are asked at once.

    Args:
        label: label(x_B'..) -> [B'].
        x: the examples, [B,...].
        y_B: the labels.
        direction: [B,K,...], or [K,...] for all examples; any length > 0 (scaled to 1 in `norm`).
        reach: the length of the way.
        steps: the number of bisections.
        norm: the norm of the distances.
        box: the range of the values; None for no limit.
    """
    _points.check(x, norm=norm, box=box)
    checks.positive(reach=reach)
    checks.at_least(1, steps=steps)
    shape, x_BF, y_B = jnp.shape(x), _points.flat(x), jnp.asarray(y_B)
    direction = jnp.asarray(direction, jnp.float32)
    if direction.shape[1:] == shape[1:]:
        direction = jnp.broadcast_to(direction[None], (shape[0], *direction.shape))
    if direction.shape[2:] != shape[1:] or direction.shape[0] != shape[0]:
        raise ValueError(
            f"direction has shape {direction.shape}; expected [B,K,...] or [K,...] for examples x "
            f"of shape {shape}."
        )
    examples, count = direction.shape[:2]
    u_BF = direction.reshape(examples * count, -1)
    u_BF = u_BF / jnp.maximum(_points.length(u_BF, norm), 1e-30)[:, None]
    from_BF, true_B = jnp.repeat(x_BF, count, 0), jnp.repeat(y_B, count)

    def elsewhere(point_BF):
        return label(point_BF.reshape(-1, *shape[1:])) != true_B

    wrong_B1 = (label(x_BF.reshape(shape)) != y_B)[:, None]
    far_BF = _points.clip(from_BF + reach * u_BF, box)
    crossed_B = elsewhere(far_BF)
    # norm="l2" stays on the line, which is needed for every norm.
    near_BF = _points.bisected(elsewhere, from_BF, far_BF, steps=steps, norm="l2", box=box)
    distance_BK = _points.length(
        jnp.where(crossed_B[:, None], near_BF, far_BF) - from_BF, norm
    ).reshape(examples, count)
    crossed_BK = crossed_B.reshape(examples, count)
    queries_B = 1 + jnp.where(wrong_B1[:, 0], 0, count + steps * crossed_BK.sum(1))
    return Along(
        jnp.where(wrong_B1, 0.0, distance_BK), crossed_BK | wrong_B1, queries_B.astype(jnp.int32)
    )
