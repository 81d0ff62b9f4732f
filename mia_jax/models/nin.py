"""Builds the network in network (Lin et al. 2013, arXiv:1312.4400)."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class NiN(nn.Module):
    num_classes: int
    resize: int
    divide: int
    dropout: float
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        relu, init = layers.activation("relu"), layers.initializer(self.init_name)

        def block(x, features, window, stride, padding):
            x = relu(
                layers.Conv(features, window, stride, padding, kernel_init=init, form=self.form)(x)
            )
            for _ in range(2):
                x = relu(layers.Conv(features, 1, kernel_init=init, form=self.form)(x))
            return x

        x = layers.resized(x, self.resize)
        for features, window, stride, padding in ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1)):
            x = layers.max_pool(
                block(x, features // self.divide, window, stride, padding), 3, 2, form=self.form
            )
        x = layers.dropout(x, key_B if train else None, self.dropout, 0)
        return block(x, self.num_classes, 3, 1, 1).mean((1, 2))


def make(
    *,
    num_classes: int,
    resize: int = 224,
    divide: int = 1,
    dropout: float = 0.5,
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns network in network: four blocks of a convolution and two 1x1 convolutions.

    The blocks are 11x11 96 stride 4, 5x5 256 and 3x3 384, with a 3/2 max pool after each; then
    dropout, 3x3 C, mean. A relu follows each convolution. Sizes at 224: 54, 26, 12, 5. There is no
    dense layer, so the size changes no parameter: 1,992,166 with one channel and 10 classes. The
    smallest images are 67x67 (sizes 15, 7, 3, 1).

    Args:
        num_classes: C.
        resize: the side to which images are enlarged first (bilinear); 0 leaves them unchanged.
        divide: every block but the last is narrower by this factor.
        dropout: the dropout rate.
        init: the initializer of the kernels.
        form: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, divide=divide)
    checks.at_least(0, resize=resize)
    checks.fraction(closed="left", dropout=dropout)
    checks.one_of(layers.FORMS, form=form)
    layers.initializer(init)
    return layers.as_model(NiN(num_classes, resize, divide, dropout, init, form))
