"""Provides what signals of images share: checks, and correctness of the label under views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from mia_jax import checks, query_views
from mia_jax.types import Signal

BOXES = dict(unit=(0.0, 1.0), none=None)  # where queries must stay


def limits(box: str) -> tuple[float, float]:
    """Returns (low, high) of a box by name.

    Raises:
        ValueError: There is no such box.
    """
    checks.one_of(BOXES, box=box)
    return BOXES[box] or (-jnp.inf, jnp.inf)


def along(value_B, x_B) -> jnp.ndarray:
    """Returns value_B with the number of axes of x_B."""
    return value_B.reshape(len(value_B), *(1,) * (x_B.ndim - 1))


def images(name: str, also: Callable | None = None) -> Callable:
    """Returns a Signal.check that refuses what is not [B,H,W,C], and what `also` refuses."""

    def check(x) -> None:
        if x.ndim != 4:
            raise ValueError(
                f"signal {name!r} needs images [B,H,W,C]; these examples have shape "
                f"{tuple(x.shape[1:])}, which is not an image."
            )
        if also is not None:
            also(x)

    return check


def inside(name: str, box: str, *, fixed: bool = False) -> Callable | None:
    """Returns a Signal.check that refuses examples outside [0, 1] if queries must stay there.

    With `fixed`, the signal offers no other box, so the message suggests none.
    """

    def check(x) -> None:
        low, high = float(np.min(x)), float(np.max(x))
        if low < 0 or high > 1:
            other = "" if fixed else f", or search everywhere with {name}:box=none"
            raise ValueError(
                f"signal {name!r} keeps its queries in [0, 1], and these examples are in "
                f"[{low:.4g}, {high:.4g}]; scale them (data.scale){other}."
            )

    return check if box == "unit" else None


def correctness(names: Sequence[str], *, name: str) -> Signal:
    """Returns the signal [B,len(names)] of whether the label under a query view is y (1 or 0).

    One label query per view (mia_jax.query_views).
    """
    views = query_views.make(names)

    def ask(probe, x_B, y_B, key_B):
        del key_B
        correct_BP = jnp.stack(
            [(probe.label(view(x_B)) == y_B).astype(jnp.float32) for view in views], -1
        )
        return correct_BP, jnp.broadcast_to(
            jnp.arange(1, len(views) + 1, dtype=jnp.int32)[None], correct_BP.shape
        )

    return Signal(None, +1, ask, "labels", len(views), images(name))
