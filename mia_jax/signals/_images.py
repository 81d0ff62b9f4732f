"""What signals of images share: the check, and the correctness of the label under given views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from mia_jax.data import augment
from mia_jax.types import Signal


def check(name: str) -> Callable:
    """A Signal.check that refuses what is not [B,H,W,C]."""

    def refuse(x) -> None:
        if x.ndim != 4:
            raise ValueError(f"signal {name!r} needs images [B,H,W,C]; these examples have shape {tuple(x.shape[1:])}, which is not an image.")

    return refuse


def correctness(names: Sequence[str], *, name: str) -> Signal:
    """The signal [B,len(names)] of 1 where the label under a view (mia_jax.data.augment) is y, else 0; one label query a view."""
    views = augment.views(names)

    def ask(probe, x_B, y_B, key_B):
        del key_B
        return jnp.stack([(probe.label(view(x_B)) == y_B).astype(jnp.float32) for view in views], -1)

    return Signal(None, +1, ask, "labels", len(views), check(name))
