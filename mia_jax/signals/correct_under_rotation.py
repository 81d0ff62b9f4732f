"""Correctness when the image is rotated."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.signals import _images
from mia_jax.types import Signal


def make(*, r: float = 4.0, mode: str = "paper") -> Signal:
    """Returns whether argmax_j z_j(x') = y [B,A] (1 or 0) under A rotations. Large = member.

    Rotations are about the center by up to r degrees, the image itself first. Cubic splines, 0
    outside: scipy.ndimage.rotate(reshape=False). Labels only.

    Args:
        r: the largest angle in degrees.
        mode: 'paper': 0, -r, r (3 queries). 'code': the 2r + 1 whole degrees -r..r by rising size,
            0, -1, 1, -2, 2, ... (r whole).

    Raises:
        ValueError: The examples are not images.

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), and its code.
    """
    checks.one_of(("paper", "code"), mode=mode)
    checks.at_least(0, r=r)
    if mode == "code" and r != round(r):
        raise ValueError(f"r={r} must be a whole number of degrees in mode='code'.")
    sizes = [r] if mode == "paper" else range(1, round(r) + 1)
    degrees = [0.0, *(sign * float(size) for size in sizes for sign in (-1, 1))]
    return _images.correctness(
        ["identity", *(f"rotate:{np.float64(a)!s}" for a in degrees[1:])],
        name="correct_under_rotation",
    )
