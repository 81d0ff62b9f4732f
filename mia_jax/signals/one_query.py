"""YOQO: one query per example, made so that its predicted label reveals membership.

The attacker's own models predict the example's label there if, and only if, they trained on it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax import checks
from mia_jax.signals import _images
from mia_jax.types import Signal


def make(
    *, shadows: int = 4, steps: int = 30, step: float = 0.01, alpha: float = 2.0, box: str = "unit"
) -> Signal:
    """Returns whether the model's label of x* is y [B] (1 or 0). Large = member.

    x* minimizes over `shadows` models of the attacker

        mean_IN -log p_y(x') + mean_OUT -log(1 - p_y(x')) + alpha |x' - x|^2 / F

    IN: those that trained on x (none under some designs: the first term is then left out). The best
    point of all steps is asked. Labels only, one query.

    Args:
        shadows: how many of the attacker's models.
        steps: how many steps from x, in the direction of the gradient's sign.
        step: the length of a step.
        alpha: the weight of the distance from x.
        box: 'unit': x' stays in [0, 1]; 'none': anywhere.

    Source: YOQO, Wu et al. 2024 (ICLR, You Only Query Once).
    """
    checks.at_least(1, shadows=shadows, steps=steps)
    checks.at_least(0, alpha=alpha)
    checks.positive(step=step)
    limits = _images.limits(box)

    def ask(probe, x_B, y_B, key_B):
        del key_B
        inside_SB = probe.shadows.member_SB

        def objective(moved_B):
            log_p_SB, log_rest_SB = label_and_rest(probe.shadows.out(moved_B), y_B)
            near_B = jnp.square(moved_B - x_B).reshape(len(x_B), -1).mean(1)
            return (
                -mean_where(inside_SB, log_p_SB)
                - mean_where(~inside_SB, log_rest_SB)
                + alpha * near_B
            )

        def take_step(state, _):
            moved_B, best_B, least_B = state
            value_B, back = jax.vjp(objective, moved_B)
            better_B = value_B < least_B
            best_B = jnp.where(_images.along(better_B, x_B), moved_B, best_B)
            (slope_B,) = back(jnp.ones_like(value_B))
            return (
                jnp.clip(moved_B - step * jnp.sign(slope_B), *limits),
                best_B,
                jnp.minimum(least_B, value_B),
            ), None

        moved_B, best_B, least_B = lax.scan(
            take_step, (x_B, x_B, jnp.full(len(x_B), jnp.inf, jnp.float32)), None, length=steps
        )[0]
        best_B = jnp.where(_images.along(objective(moved_B) < least_B, x_B), moved_B, best_B)
        return (probe.label(best_B) == y_B).astype(jnp.float32), jnp.ones(len(x_B), jnp.int32)

    return Signal(None, +1, ask, "labels", 1, _images.inside("one_query", box), shadows=shadows)


def label_and_rest(out_SBC, y_B) -> tuple[jax.Array, jax.Array]:
    """Returns (log p_y, log(1 - p_y)) [S,B]."""
    label_BC = jax.nn.one_hot(y_B, out_SBC.shape[-1], dtype=bool)
    log_p_SBC = jax.nn.log_softmax(out_SBC, -1)
    rest_SB = jax.nn.logsumexp(jnp.where(label_BC[None], -jnp.inf, log_p_SBC), -1)
    return jnp.where(label_BC[None], log_p_SBC, 0).sum(-1), rest_SB


def mean_where(chosen_SB, value_SB) -> jax.Array:
    """Returns the mean over the chosen models [B], 0 where there are none."""
    return jnp.where(chosen_SB, value_SB, 0).sum(0) / jnp.maximum(chosen_SB.sum(0), 1)
