"""shift:r: up to r pixels in each direction, edges repeated."""

from __future__ import annotations

import functools

from mia_jax import checks
from mia_jax.augmentations import _pixels

IMAGES = True


def make(*, r: int):
    """Returns the change of an image [H,W,C]."""
    checks.at_least(0, r=r)
    return functools.partial(_pixels.moved, reach=r, reflect=False)
