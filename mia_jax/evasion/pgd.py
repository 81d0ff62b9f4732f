"""Implements projected gradient descent in a ball around each example.

Source: Madry et al. 2018 (arXiv:1706.06083).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax import checks
from mia_jax.evasion import _margins, _points


def pgd(
    out: Callable,
    x,
    y_B,
    key_B,
    *,
    epsilon,
    steps: int = 10,
    step_size: float | None = None,
    norm: str = "linf",
    restarts: int = 1,
    keep: str = "best",
    box: tuple[float, float] | None = (0.0, 1.0),
) -> jax.Array:
    """Returns the point near each example with the largest loss found by gradient ascent.

    The point is within `epsilon` (in `norm`) and inside the box. A step moves along sign(gradient)
    (linf) or gradient / |gradient| (l2) of the cross-entropy and projects back. It takes (restarts
    or 1) * (steps + 1) queries per example.

    Args:
        out: see fgsm.
        x: the examples, [B,...].
        y_B: the labels.
        key_B: one key per example.
        epsilon: see fgsm.
        steps: the number of steps.
        step_size: None for 2.5 epsilon / steps.
        norm: the norm of the ball.
        restarts: the number of runs. Each starts at a point drawn uniformly from the ball with
            fold_in(key_B, restart). 0 is one run from x itself (the basic iterative method).
        keep: 'best' keeps the best point on the way, 'last' the best last point.
        box: the range of the values; None for no limit.

    Raises:
        ValueError: for examples outside the box, an unknown norm, or steps < 1.
    """
    _points.check(x, norm=norm, box=box)
    checks.at_least(1, steps=steps)
    checks.at_least(0, restarts=restarts)
    checks.one_of(("best", "last"), keep=keep)
    shape, x_BF = jnp.shape(x), _points.flat(x)
    epsilon_B = jnp.broadcast_to(jnp.asarray(epsilon, jnp.float32), x_BF.shape[:1])
    rate_B = (
        2.5 * epsilon_B / steps
        if step_size is None
        else jnp.full(x_BF.shape[:1], step_size, jnp.float32)
    )

    def climb(point_BF):
        odds_B, gradient = _margins.climb(out, point_BF.reshape(shape), y_B)
        return odds_B, gradient.reshape(x_BF.shape)

    def better(best, odds_B, point_BF):
        larger_B = odds_B > best[0]
        return jnp.where(larger_B, odds_B, best[0]), jnp.where(larger_B[:, None], point_BF, best[1])

    def step(state, _):
        point_BF, best = state
        odds_B, gradient_BF = climb(point_BF)
        best = better(best, odds_B, point_BF) if keep == "best" else best
        moved_BF = point_BF + rate_B[:, None] * steepest(gradient_BF, norm)
        return (project(x_BF, moved_BF, epsilon_B, norm, box), best), None

    def run(best, restart):
        point_BF = x_BF
        if restarts:
            offset_BF = jax.vmap(
                lambda key: in_ball(jax.random.fold_in(key, restart), x_BF.shape[1], norm)
            )(key_B)
            point_BF = project(x_BF, x_BF + epsilon_B[:, None] * offset_BF, epsilon_B, norm, box)
        (point_BF, best), _ = lax.scan(step, (point_BF, best), length=steps)
        return better(
            best, _margins.odds_against(out(point_BF.reshape(shape)), y_B), point_BF
        ), None

    nothing = jnp.full(x_BF.shape[:1], -jnp.inf, jnp.float32), x_BF
    (_, best_BF), _ = lax.scan(run, nothing, jnp.arange(max(1, restarts), dtype=jnp.int32))
    return best_BF.reshape(shape)


def steepest(gradient_BF, norm: str) -> jax.Array:
    """Returns the direction of length 1 in `norm` that rises fastest; 0 if the gradient is 0."""
    if norm == "linf":
        return jnp.sign(gradient_BF)
    # The gradient is scaled first, because the squares of tiny gradients would be 0.
    scaled_BF = gradient_BF / jnp.maximum(jnp.abs(gradient_BF).max(-1, keepdims=True), 1e-30)
    return scaled_BF / jnp.maximum(_points.length(scaled_BF, "l2"), 1e-30)[:, None]


def project(x_BF, point_BF, epsilon_B, norm: str, box) -> jax.Array:
    """Returns the point projected to the ball around x, then to the box.

    The second projection does not increase the distance from x.
    """
    difference_BF = point_BF - x_BF
    if norm == "linf":
        difference_BF = jnp.clip(difference_BF, -epsilon_B[:, None], epsilon_B[:, None])
    else:
        difference_BF *= jnp.minimum(
            1, epsilon_B / jnp.maximum(_points.length(difference_BF, "l2"), 1e-30)
        )[:, None]
    return _points.clip(x_BF + difference_BF, box)


def in_ball(key, features: int, norm: str) -> jax.Array:
    """Returns a point drawn uniformly from the ball of radius 1, [F]."""
    if norm == "linf":
        return jax.random.uniform(key, (features,), jnp.float32, minval=-1.0)
    direction, radius = jax.random.split(key)
    u_F = jax.random.normal(direction, (features,), jnp.float32)
    return (
        u_F
        / jnp.maximum(_points.length(u_F, "l2"), 1e-30)
        * jax.random.uniform(radius, (), jnp.float32) ** (1 / features)
    )
