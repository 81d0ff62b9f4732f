"""Is the label still right under the fast gradient sign method?"""

from __future__ import annotations

from mia_jax.evasion.fgsm import fgsm
from mia_jax.signals import _adversarial
from mia_jax.types import Signal


def make() -> Signal:
    """[B,8] of 1 (argmax_j z_j(x') = y) and 0 with x' = clip(x + epsilon sign(gradient of the
    loss)) for the radii _adversarial.EPSILONS.

    White box: two passes (one of them backward) and a label a radius, but 0. Large = member.
    ValueError for examples outside [0, 1]. Source: Goodfellow et al. 2015 (arXiv:1412.6572).
    """
    attack = lambda out, x_B, y_B, key_B, epsilon: fgsm(out, x_B, y_B, epsilon=epsilon)  # noqa: E731
    return _adversarial.correctness(
        attack, name="correct_under_fgsm", queries=1 + 2 * (len(_adversarial.EPSILONS) - 1)
    )
