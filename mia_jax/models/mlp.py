"""Builds a multilayer perceptron on flattened inputs."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class MLP(nn.Module):
    features: int
    widths: tuple[int, ...]
    activation: str
    dropout: tuple[float, ...]
    initializer: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        kernel_init, activation = (
            layers.initializer(self.initializer),
            layers.activation(self.activation),
        )
        x = layers.flatten(x)
        for site, (width, rate) in enumerate(zip(self.widths, self.dropout, strict=True)):
            x = activation(layers.Dense(width, kernel_init=kernel_init)(x))
            x = layers.dropout(x, key_B if train else None, rate, site)
        return layers.Dense(self.features, kernel_init=kernel_init)(x)


def make(
    *,
    num_classes: int,
    widths: Sequence[int] = (256,),
    activation: str = "relu",
    dropout: float | Sequence[float] = 0.0,
    init: str = "he",
) -> Model:
    """Returns {dense width, activation, dropout} for each width, then dense C: logits [B,C].

    For regression (num_classes=1) the output is [B,1]. Parameters: sum over layers of (in + 1) *
    out. With 10 classes: 64*256 + 256 + 256*10 + 10 = 19,210 for 8x8 images and the defaults; for
    28x28 images 203,530, and 269,322 with widths=(256, 256), the dropout net (dropout=(0.2, 0.5)).

    Args:
        num_classes: C.
        widths: the widths of the hidden layers.
        activation: the activation.
        dropout: one rate for all layers, or one per layer.
        init: 'he' (He et al. 2015, for relu), 'keras' or 'xavier_uniform' (Glorot), ..., see
            layers.INITIALIZERS. Biases start at zero.
    """
    checks.at_least(1, num_classes=num_classes)
    widths = (widths,) if isinstance(widths, int) else tuple(widths)
    for width in widths:
        checks.at_least(1, widths=width)
    rates = tuple(dropout) if isinstance(dropout, tuple | list) else (dropout,) * len(widths)
    if len(rates) != len(widths):
        raise ValueError(
            f"dropout={rates} has {len(rates)} rates and widths={widths} {len(widths)} layers; "
            "give one rate per layer, or one for all."
        )
    for rate in rates:
        checks.fraction(closed="left", dropout=rate)
    layers.activation(activation), layers.initializer(init)
    return layers.as_model(MLP(num_classes, widths, activation, rates, init))
