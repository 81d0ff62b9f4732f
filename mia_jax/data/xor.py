"""Draws exclusive or: four corners that no line separates."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.types import Pool, Presentation, classification


def load(*, examples: int = 200, noise: float = 0.1, seed: int = 0) -> Pool:
    """Returns rows n at the corner (n // 2 % 2, n % 2) plus Gaussian noise, [N,2].

    The noise has the standard deviation `noise` per coordinate. y is 1 if the coordinates of the
    corner differ.
    """
    checks.at_least(4, examples=examples)
    checks.at_least(0, noise=noise)
    checks.in_memory(f"examples={examples}", 56.0 * examples)
    n = np.arange(examples)
    corner_N2 = np.stack([n // 2 % 2, n % 2], 1)
    x = corner_N2 + noise * np.random.default_rng(seed).standard_normal((examples, 2))
    shown = Presentation(public=True)
    return checked(
        Pool(x=x, y=corner_N2.sum(1) % 2, name="xor", task=classification(2), presentation=shown)
    )
