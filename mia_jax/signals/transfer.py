"""Adversarial examples made on the attacker's models: a member's label survives them longer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax import checks
from mia_jax.signals import _images
from mia_jax.signals.one_query import label_and_rest, mean_where
from mia_jax.types import Signal


def make(
    *, shadows: int = 4, queries: int = 5, steps: int = 40, step: float = 0.01, box: str = "unit"
) -> Signal:
    """Returns the share [B,P] of the first p = 1..P questions whose label is y. Large = member.

    From x, steps in the direction of the gradient's sign lower the mean log p_y of the attacker's
    models that did not train on x. Question p is the first point where the mean p_y of held-out
    models falls below tau_p, and the last point if none does. tau is 0.5 for p = 1, then evenly
    spaced on a log scale down to 1e-4. Labels only, P queries.

    Args:
        shadows: how many of the attacker's models. With 4 or more every fourth is held out; with
            fewer, all are used for both purposes.
        queries: P, at most 10.
        steps: how many steps.
        step: the length of a step.
        box: 'unit': queries stay in [0, 1]; 'none': anywhere.

    Source: OSLO, Peng et al. 2024 (arXiv:2405.16978).
    """
    checks.at_least(1, shadows=shadows, queries=queries, steps=steps)
    checks.positive(step=step)
    if queries > 10:
        raise ValueError(
            f"queries={queries} must be at most 10; for more, boundary_distance and "
            "noise_robustness make better use of them."
        )
    limits, tau_P = (
        _images.limits(box),
        np.geomspace(0.5, 1e-4, queries) if queries > 1 else np.array([0.5]),
    )
    held_S = np.arange(shadows) % 4 == 3 if shadows >= 4 else np.ones(shadows, bool)
    made_S = ~held_S if shadows >= 4 else held_S

    def ask(probe, x_B, y_B, key_B):
        del key_B
        outside_SB = ~probe.shadows.member_SB
        # Where every model trained on the example, all of them are used.
        usable_SB = jnp.where(outside_SB.any(0)[None], outside_SB, True)

        def chosen(own_S):
            return jnp.where(
                (usable_SB & own_S[:, None]).any(0)[None], usable_SB & own_S[:, None], usable_SB
            )

        def loss(moved_B):
            log_p_SB, _ = label_and_rest(probe.shadows.out(moved_B), y_B)
            return mean_where(chosen(made_S), log_p_SB), mean_where(
                chosen(held_S), jnp.exp(log_p_SB)
            )

        def take_step(state, _):
            moved_B, asked_PB, done_PB = state
            _, back, held_B = jax.vjp(loss, moved_B, has_aux=True)
            new_PB = ~done_PB & (held_B[None] < tau_P[:, None])
            asked_PB = jnp.where(
                jax.vmap(_images.along, (0, None))(done_PB, x_B), asked_PB, moved_B[None]
            )
            (slope_B,) = back(jnp.ones(len(x_B), jnp.float32))
            return (
                jnp.clip(moved_B - step * jnp.sign(slope_B), *limits),
                asked_PB,
                done_PB | new_PB,
            ), None

        first = (
            x_B,
            jnp.broadcast_to(x_B[None], (queries, *x_B.shape)),
            jnp.zeros((queries, len(x_B)), bool),
        )
        asked_PB = lax.scan(take_step, first, None, length=steps + 1)[0][1]
        same_PB = jnp.stack(
            [(probe.label(asked_B) == y_B).astype(jnp.float32) for asked_B in asked_PB]
        )
        count_P = jnp.arange(1, queries + 1, dtype=jnp.int32)
        return (jnp.cumsum(same_PB, 0) / count_P[:, None]).T, jnp.broadcast_to(
            count_P[None], (len(x_B), queries)
        )

    return Signal(
        None, +1, ask, "labels", queries, _images.inside("transfer", box), shadows=shadows
    )
