"""Goodness of the true label in the layers of a Forward-Forward net.

Source: Hinton 2022 (arXiv:2212.13345).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.types import Signal


def make(*, layer: int = 0, margin: bool = False) -> Signal:
    """Returns g_l(x, y), the goodness of layer l when the label is y. White box: one query.

    Args:
        layer: l, counted from 1: [B], large = member. 0: all layers [B,L], a vector without a sign.
        margin: subtracts max_{j != y} g_l(x, j).

    Raises:
        ValueError: The net has no goodness, or not this layer.
    """
    checks.at_least(0, layer=layer)

    def ask(probe, x_B, y_B, key_B):
        del key_B
        outputs = probe.inside(x_B)
        if "goodness" not in outputs:
            raise ValueError(
                "signal 'layer_goodness' needs a net that is trained layer by layer: "
                "model.name='forward_forward'."
            )
        goodness_BCL = outputs["goodness"]
        if layer > goodness_BCL.shape[2]:
            raise ValueError(
                f"layer_goodness:layer={layer}: the net has {goodness_BCL.shape[2]} layers, "
                "counted from 1 (0: all of them)."
            )
        own_BC1 = jax.nn.one_hot(y_B, goodness_BCL.shape[1], dtype=bool)[..., None]
        value_BL = jnp.where(own_BC1, goodness_BCL, 0).sum(1)
        value_BL -= jnp.where(own_BC1, -jnp.inf, goodness_BCL).max(1) if margin else 0.0
        return value_BL[:, layer - 1] if layer else value_BL

    return Signal(None, 1 if layer else 0, ask, "white_box", 1, tokens=True)
