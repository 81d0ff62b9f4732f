"""Is the label still right under projected gradient descent?"""

from __future__ import annotations

from mia_jax.evasion.pgd import pgd
from mia_jax.signals import _adversarial
from mia_jax.types import Signal


def make(*, steps: int = 10, restarts: int = 1) -> Signal:
    """[B,8] of 1 (argmax_j z_j(x') = y) and 0 with x' the worst of `restarts` runs of `steps` steps
    in the cube of each radius in EPSILONS.

    White box: restarts (steps + 1) passes forward and backward and a label, a radius but 0. Large =
    member. ValueError for examples outside [0, 1]. Source: Madry et al. 2018 (arXiv:1706.06083).
    """

    def attack(out, x_B, y_B, key_B, epsilon):
        return pgd(out, x_B, y_B, key_B, epsilon=epsilon, steps=steps, restarts=restarts)

    queries = 1 + (len(_adversarial.EPSILONS) - 1) * (max(1, restarts) * (steps + 1) + 1)
    return _adversarial.correctness(attack, name="correct_under_pgd", queries=queries)
