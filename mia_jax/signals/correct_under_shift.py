"""Correctness when the image is shifted."""

from __future__ import annotations

from mia_jax import checks
from mia_jax.query_views.shift import diamond
from mia_jax.signals import _images
from mia_jax.types import Signal


def make(*, d: int = 1) -> Signal:
    """Returns whether argmax_j z_j(x') = y [B, 4d + 1] (1 or 0) under shifts. Large = member.

    The image itself comes first, then the 4d shifts (dy, dx) by |dy| + |dx| = d pixels, with edges
    repeated: (0,0), (d,0), (d-1,-1), ..., (0,-d), ..., (-d,0), ..., (0,d), ..., (1,d-1), with dy
    down and dx right. Labels only, 4d + 1 queries.

    Args:
        d: the length of the shifts in pixels; 0: only the image itself.

    Raises:
        ValueError: The examples are not images.

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321).
    """
    checks.at_least(0, d=d)
    return _images.correctness(
        [f"shift:{dy},{dx}" for dy, dx in diamond(d)], name="correct_under_shift"
    )
