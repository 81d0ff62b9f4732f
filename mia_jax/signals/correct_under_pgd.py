"""Correctness under projected gradient descent."""

from __future__ import annotations

from mia_jax.evasion.pgd import pgd
from mia_jax.signals import _adversarial
from mia_jax.types import Signal


def make(*, steps: int = 10, restarts: int = 1) -> Signal:
    """Returns whether argmax_j z_j(x') = y [B,8] (1 or 0) for the radii _adversarial.EPSILONS.

    x' is the worst of `restarts` runs of `steps` steps in the cube of the radius. White box: per
    radius except 0, restarts (steps + 1) passes forward and backward and a label. Large = member.

    Raises:
        ValueError: Examples are outside [0, 1].

    Source: Madry et al. 2018 (arXiv:1706.06083).
    """

    def attack(out, x_B, y_B, key_B, epsilon):
        return pgd(out, x_B, y_B, key_B, epsilon=epsilon, steps=steps, restarts=restarts)

    queries = 1 + (len(_adversarial.EPSILONS) - 1) * (max(1, restarts) * (steps + 1) + 1)
    return _adversarial.correctness(attack, name="correct_under_pgd", queries=queries)
