"""Builds wide residual networks, pre-activation (Zagoruyko & Komodakis 2016, arXiv:1605.07146)."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class WideResNet(nn.Module):
    num_classes: int
    depth: int
    width: int
    norm: str
    groups: int
    standardize: bool
    dropout: float
    activation: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        activation = layers.activation(self.activation)

        def normal(x):
            return activation(
                layers.normalized(x, self.norm, weight_B=weight_B, train=train, groups=self.groups)
            )

        def conv(x, features, window, stride):
            init, layer = (
                layers.initializer("he"),
                layers.StandardizedConv if self.standardize else layers.Conv,
            )
            return layer(
                features,
                window,
                stride,
                padding=window // 2,
                use_bias=False,
                kernel_init=init,
                form=self.form,
            )(x)

        x = conv(x, 16, 3, 1)
        site = 0
        for features, first in ((16 * self.width, 1), (32 * self.width, 2), (64 * self.width, 2)):
            for block in range((self.depth - 4) // 6):
                stride = first if block == 0 else 1
                before = normal(x)
                short = (
                    x
                    if (x.shape[-1], stride) == (features, 1)
                    else conv(before, features, 1, stride)
                )
                inner = normal(conv(before, features, 3, stride))
                inner = layers.dropout(inner, key_B if train else None, self.dropout, site)
                x = short + conv(inner, features, 3, 1)
                site += 1
        return layers.Dense(self.num_classes)(normal(x).mean((1, 2)))


def make(
    *,
    num_classes: int,
    depth: int = 28,
    width: int = 2,
    norm: str = "batch",
    groups: int = 16,
    standardize: bool = False,
    dropout: float = 0.0,
    activation: str = "relu",
    form: str = "auto",
) -> Model:
    """Returns a wide residual network: conv 3x3 16, three stages of blocks, mean, dense C.

    The stages have (depth - 4) / 6 blocks each, with 16k, 32k and 64k features (k = width), and the
    image is halved between stages. A block is x + conv3x3(norm-relu(conv3x3(norm-relu(x)))). Where
    features or size change, the first term of the sum is a 1x1 convolution of norm-relu(x).
    Convolutions have no bias and start He-normal. Parameters with 3 channels and 10 classes:
    WRN-28-2 1,467,610, WRN-28-10 36,479,194, WRN-16-4 2,748,890 (without running statistics;
    standardized kernels add one gain per feature).

    Args:
        num_classes: C.
        depth: 6n + 4.
        width: k.
        norm: 'batch' (the paper), or for private training 'group', 'layer' or 'none'.
        groups: the groups of norm='group', or the largest smaller divisor of the features.
        standardize: whether kernels are standardized (layers.StandardizedConv).
        dropout: the dropout rate.
        activation: the activation.
        form: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, width=width, groups=groups)
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            f"depth={depth} is not 6n + 4; allowed depths are 10, 16, 22, 28, 34, 40, ..."
        )
    checks.one_of(layers.NORMS, norm=norm)
    checks.fraction(closed="left", dropout=dropout)
    checks.one_of(layers.FORMS, form=form)
    layers.activation(activation)
    return layers.as_model(
        WideResNet(num_classes, depth, width, norm, groups, standardize, dropout, activation, form)
    )
