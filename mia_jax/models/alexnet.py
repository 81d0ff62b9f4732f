"""Builds AlexNet (Krizhevsky et al. 2012) in its usual one-tower form."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class AlexNet(nn.Module):
    num_classes: int
    resize: int
    divide: int
    dropout: float
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        relu, init = layers.activation("relu"), layers.initializer(self.init_name)

        def conv(x, features, window, stride, padding):
            return relu(
                layers.Conv(
                    features // self.divide,
                    window,
                    stride,
                    padding,
                    kernel_init=init,
                    form=self.form,
                )(x)
            )

        x = layers.resized(x, self.resize)
        x = layers.max_pool(conv(x, 96, 11, 4, 1), 3, 2, form=self.form)
        x = layers.max_pool(conv(x, 256, 5, 1, 2), 3, 2, form=self.form)
        for features in (384, 384, 256):
            x = conv(x, features, 3, 1, 1)
        x = layers.flatten(layers.max_pool(x, 3, 2, form=self.form))
        for site in range(2):
            x = relu(layers.Dense(4096 // self.divide, kernel_init=init)(x))
            x = layers.dropout(x, key_B if train else None, self.dropout, site)
        return layers.Dense(self.num_classes, kernel_init=init)(x)


def make(
    *,
    num_classes: int,
    resize: int = 224,
    divide: int = 1,
    dropout: float = 0.5,
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns AlexNet: five convolutions and three dense layers.

    The layers are conv 11x11 96 stride 4 padding 1, max 3/2, conv 5x5 256, max 3/2, conv 3x3 384,
    384, 256, max 3/2, dense 4096 twice with dropout, dense C. Sizes at 224: 54, 26, 26, 12, 12, 5
    (6,400 features). With one channel and 10 classes it has 46,764,746 parameters at 224. Only the
    first dense layer depends on the size: the smallest images, 65x65, end in one pixel (256
    features) and 21,598,922 parameters.

    Args:
        num_classes: C.
        resize: the side to which images are enlarged first (bilinear); 0 leaves them unchanged.
        divide: every layer but the last is narrower by this factor.
        dropout: the dropout rate.
        init: the initializer of the kernels.
        form: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, divide=divide)
    checks.at_least(0, resize=resize)
    checks.fraction(closed="left", dropout=dropout)
    checks.one_of(layers.FORMS, form=form)
    layers.initializer(init)
    return layers.as_model(AlexNet(num_classes, resize, divide, dropout, init, form))
