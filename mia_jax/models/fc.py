"""Builds the fully connected classifier of the tabular experiments of the label-only attacks.

Source: Choquette-Choo et al. 2021 (arXiv:2007.14321).
"""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class FullyConnected(nn.Module):
    num_classes: int
    depth: int
    width: int
    activation: str
    dropout: float

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        key_B, activation = key_B if train else None, layers.activation(self.activation)
        x = layers.dropout(layers.flatten(x), key_B, self.dropout, 0)
        for site in range(1, self.depth + 1):
            x = layers.dropout(activation(layers.Dense(self.width)(x)), key_B, self.dropout, site)
        return layers.Dense(self.num_classes)(x)


def make(
    *,
    num_classes: int,
    depth: int = 1,
    width: int = 128,
    activation: str = "tanh",
    dropout: float = 0.0,
) -> Model:
    """Returns dropout on the input, {dense 128, tanh, dropout} x depth, dense C: logits [B,C].

    Parameters with 600 features, 100 classes and depth 1: 600*128 + 128 + 128*100 + 100 = 89,828.
    Kernels start Glorot-uniform.
    """
    checks.at_least(1, num_classes=num_classes, depth=depth, width=width)
    checks.fraction(closed="left", dropout=dropout)
    layers.activation(activation)
    return layers.as_model(FullyConnected(num_classes, depth, width, activation, dropout))
