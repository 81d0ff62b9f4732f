"""Correctness under the fast gradient sign method."""

from __future__ import annotations

from mia_jax.evasion.fgsm import fgsm
from mia_jax.signals import _adversarial
from mia_jax.types import Signal


def make() -> Signal:
    """Returns whether argmax_j z_j(x') = y [B,8] (1 or 0) for the radii _adversarial.EPSILONS.

    x' = clip(x + epsilon sign(gradient of the loss)). White box: per radius except 0, two passes
    (one of them backward) and a label. Large = member.

    Raises:
        ValueError: Examples are outside [0, 1].

    Source: Goodfellow et al. 2015 (arXiv:1412.6572).
    """

    def attack(out, x_B, y_B, key_B, epsilon):
        return fgsm(out, x_B, y_B, epsilon=epsilon)

    return _adversarial.correctness(
        attack, name="correct_under_fgsm", queries=1 + 2 * (len(_adversarial.EPSILONS) - 1)
    )
