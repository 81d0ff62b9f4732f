"""Goodness of the true label, layer by layer, of a Forward-Forward net (Hinton 2022, arXiv:2212.13345)."""

from __future__ import annotations

import jax.numpy as jnp

from mia_jax.types import Signal


def make() -> Signal:
    """[B,L]: goodness of layer l when the label is y. A vector: it has no sign. White box: one query. ValueError for a net without goodness."""

    def ask(probe, x_B, y_B, key_B):
        del key_B
        found = probe.inside(x_B)
        if "goodness" not in found:
            raise ValueError("signal 'layer_goodness' needs a net that is trained layer by layer: model.name='forward_forward'.")
        return jnp.take_along_axis(found["goodness"], y_B[:, None, None], axis=1)[:, 0]

    return Signal(None, 0, ask, "white_box", 1)
