"""Builds the convolutional classifier of the image experiments of the label-only attacks.

Source: Choquette-Choo et al. 2021 (arXiv:2007.14321).
"""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class ConvNet(nn.Module):
    num_classes: int
    depth: int
    activation: str
    dropout: float
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        key_B, activation = key_B if train else None, layers.activation(self.activation)
        for features in (32, 64):
            for _ in range(self.depth):
                for padding in ("SAME", "VALID"):
                    x = activation(layers.Conv(features, padding=padding, form=self.form)(x))
            x = layers.max_pool(x, 2, form=self.form)
        x = layers.dropout(layers.flatten(x), key_B, self.dropout, 0)
        x = layers.dropout(activation(layers.Dense(512)(x)), key_B, self.dropout, 1)
        return layers.Dense(self.num_classes)(x)


def make(
    *,
    num_classes: int,
    depth: int = 1,
    activation: str = "relu",
    dropout: float = 0.0,
    form: str = "auto",
) -> Model:
    """Returns a classifier with convolutions in two stages and two dense layers: logits [B,C].

    For 32, then 64 features: {conv 3x3 SAME, relu, conv 3x3 VALID, relu} x depth, max pool 2x2;
    then dropout, dense 512, relu, dropout, dense C. It has 4 convolutions at depth 1 and 8 at depth
    2. Parameters with 32x32x3 images, 10 classes and depth 1: 896 + 9,248 + 18,496 + 36,928 +
    1,180,160 + 5,130 = 1,250,858. Kernels start Glorot-uniform. `form`: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, depth=depth)
    checks.fraction(closed="left", dropout=dropout)
    checks.one_of(layers.FORMS, form=form)
    layers.activation(activation)
    return layers.as_model(ConvNet(num_classes, depth, activation, dropout, form))
