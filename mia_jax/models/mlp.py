"""A multilayer perceptron on flattened inputs."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class MLP(nn.Module):
    num_classes: int
    widths: tuple[int, ...]
    activation: str
    dropout: float
    initializer: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        kernel_init, activation = layers.initializer(self.initializer), layers.activation(self.activation)
        x = layers.flatten(x)
        for site, width in enumerate(self.widths):
            x = activation(layers.Dense(width, kernel_init=kernel_init)(x))
            x = layers.dropout(x, key_B if train else None, self.dropout, site)
        return layers.Dense(self.num_classes, kernel_init=kernel_init)(x)


def make(*, num_classes: int, widths=(256,), activation: str = "relu", dropout: float = 0.0, init: str = "he") -> Model:
    """flatten, {dense width, activation, dropout} for each width, dense C: logits [B,C].

    Parameters: sum over layers of (in + 1) * out; 8x8 images and 10 classes with the defaults: 64*256 + 256 + 256*10 + 10 = 19,210.
    `init` is 'he' (He et al. 2015, for relu) or 'keras' (Glorot uniform); biases start at zero.
    """
    checks.at_least(1, num_classes=num_classes)
    widths = (widths,) if isinstance(widths, int) else tuple(widths)
    for width in widths:
        checks.at_least(1, widths=width)
    checks.fraction(closed="left", dropout=dropout)
    layers.activation(activation), layers.initializer(init)
    return layers.as_model(MLP(num_classes, widths, activation, dropout, init))
