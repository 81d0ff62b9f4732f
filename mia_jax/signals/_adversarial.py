"""Provides what the signals of adversarial examples share: the radii of their curves."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from mia_jax.signals import _images
from mia_jax.types import Signal

# linf radii, in the units of x.
EPSILONS = (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 0.1, 0.3)


def correctness(attack: Callable, *, name: str, queries: int) -> Signal:
    """Returns the signal [B,E] of whether the label under an attack is y (1 or 0), for E radii.

    The attack is attack(probe.out, x_B, y_B, key_B, epsilon). White box.
    """

    def ask(probe, x_B, y_B, key_B):
        correct = [
            probe.label(attack(probe.out, x_B, y_B, key_B, epsilon) if epsilon else x_B) == y_B
            for epsilon in EPSILONS
        ]
        return jnp.stack(correct, -1).astype(jnp.float32)

    return Signal(None, +1, ask, "white_box", queries, _images.inside(name, "unit", fixed=True))
