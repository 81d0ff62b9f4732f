"""Builds a convolutional network for private training on MNIST-like images.

It has few parameters and bounded activations.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class TanhCNN(nn.Module):
    num_classes: int
    widths: tuple[int, int]
    activation: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        activation = layers.activation(self.activation)
        x = layers.max_pool(activation(layers.Conv(self.widths[0], (8, 8), 2, 2)(x)), 2, 1)
        x = layers.max_pool(activation(layers.Conv(self.widths[1], (4, 4), 2, "VALID")(x)), 2, 1)
        x = activation(layers.Dense(32)(layers.flatten(x)))
        return layers.Dense(self.num_classes)(x)


def make(*, num_classes: int, widths: Sequence[int] = (16, 32), activation: str = "tanh") -> Model:
    """Returns two convolutions with pooling and two dense layers: logits [B,C].

    The layers are conv 8x8 / 2 (2 pixels of padding), tanh, max pool 2x2 / 1, conv 4x4 / 2, tanh,
    max pool 2x2 / 1, dense 32, tanh, dense C. Parameters with 28x28x1 images and 10 classes: 26,010
    (1,040 + 8,224 + 16,416 + 330). Private training gains from tanh instead of relu (Papernot et
    al. 2021, arXiv:2007.14191). The network is that of Tramer and Boneh 2021 (arXiv:2011.11660).
    Images need 16x16 pixels or more.
    """
    widths = tuple(widths)
    if len(widths) != 2:
        raise ValueError(f"widths={widths} must be two numbers, one per convolution.")
    for width in widths:
        checks.at_least(1, widths=width)
    layers.activation(activation)
    return layers.as_model(TanhCNN(num_classes, widths, activation))
