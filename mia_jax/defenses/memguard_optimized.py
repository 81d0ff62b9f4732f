"""MemGuard's optimized noise: the least change after which the owner's classifier is undecided."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.defenses import _draws, _probabilities
from mia_jax.types import Defense


def make(*, threshold: float = 0.75, distortion: float = 2.0, seed: int = 0) -> Defense:
    """Returns probabilities whose largest one is `threshold`, changed as little as possible.

    MemGuard perturbs an answer p until a classifier of members, which the owner trained, is
    undecided; it keeps the predicted label, and of all such answers it looks for the one with the
    least |p' - p|_1. Here the classifier looks at the largest probability P and is undecided at
    P = `threshold`, so that the optimum is known: P' = `threshold`, and the other classes share
    1 - P' as they shared 1 - P, at a distance of 2 |P - P'|. Where the second class would overtake
    the first one, P' is the least value that keeps the label (plus 1e-6).

    As in the second phase of MemGuard, an answer is perturbed with probability
    min(1, distortion / distance), which is decided by the bits of the answer and `seed`: the
    expected distance is at most `distortion`, and the same query has the same answer. No distance
    is larger than 2, so that 2 perturbs every answer.

    Source: Jia et al. 2019 (arXiv:1909.10594), whose classifier is a neural network and whose
    perturbation is found by gradient steps.

    Args:
        threshold: the largest probability at which the owner's classifier is undecided.
        distortion: the largest expected |p' - p|_1.
        seed: the seed of the decisions.
    """
    checks.fraction(closed="neither", threshold=threshold)
    checks.at_least(0, distortion=distortion, seed=seed)

    def apply(out_BC):
        p_BC = jax.nn.softmax(out_BC, -1)
        top_BC = jax.nn.one_hot(out_BC.argmax(-1), out_BC.shape[-1], dtype=bool)
        first_B1 = jnp.where(top_BC, p_BC, 0.0).sum(-1, keepdims=True)
        second_B1 = jnp.where(top_BC, 0.0, p_BC).max(-1, keepdims=True)
        rest_B1 = jnp.where(top_BC, 0.0, p_BC).sum(-1, keepdims=True)
        share_BC = jnp.where(
            rest_B1 > 0, p_BC / jnp.maximum(rest_B1, 1e-37), 1 / max(1, out_BC.shape[-1] - 1)
        )
        # second' = second / rest * (1 - first') = first' where the label would change
        second_share_B1 = jnp.where(rest_B1 > 0, second_B1 / jnp.maximum(rest_B1, 1e-37), 0.0)
        least_B1 = second_share_B1 / (1 + second_share_B1) + 1e-6
        new_B1 = jnp.maximum(threshold, least_B1)
        new_BC = jnp.where(top_BC, new_B1, share_BC * (1 - new_B1))
        distance_B1 = 2 * jnp.abs(new_B1 - first_B1)
        coin_B = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(
            _draws.keys_of(out_BC, seed=seed)
        )
        perturbed_B1 = coin_B[:, None] * distance_B1 <= distortion
        chosen_BC = jnp.where(perturbed_B1, new_BC, p_BC)
        return jnp.log(jnp.maximum(chosen_BC, _probabilities.FLOOR))

    return Defense(apply, True)
