"""Builds GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842) without its auxiliary classifiers."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model

# The features of the paths of an inception block: 1x1 | 1x1 -> 3x3 | 1x1 -> 5x5 | pool -> 1x1.
STAGES = (
    ((64, (96, 128), (16, 32), 32), (128, (128, 192), (32, 96), 64)),
    (
        (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64),
        (128, (128, 256), (24, 64), 64),
        (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128),
    ),
    ((256, (160, 320), (32, 128), 128), (384, (192, 384), (48, 128), 128)),
)


class GoogLeNet(nn.Module):
    num_classes: int
    resize: int
    divide: int
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        relu, init = layers.activation("relu"), layers.initializer(self.init_name)

        def conv(x, features, window=1, stride=1):
            return relu(
                layers.Conv(
                    features // self.divide,
                    window,
                    stride,
                    window // 2,
                    kernel_init=init,
                    form=self.form,
                )(x)
            )

        def halved(x):
            return layers.max_pool(x, 3, 2, ((1, 1), (1, 1)), form=self.form)

        x = halved(conv(layers.resized(x, self.resize), 64, 7, 2))
        x = conv(conv(x, 64), 192, 3)
        for stage in STAGES:
            x = halved(x)
            for narrow, (three_in, three), (five_in, five), pooled in stage:
                paths = [
                    conv(x, narrow),
                    conv(conv(x, three_in), three, 3),
                    conv(conv(x, five_in), five, 5),
                ]
                paths.append(
                    conv(layers.max_pool(x, 3, 1, ((1, 1), (1, 1)), form=self.form), pooled)
                )
                x = jnp.concatenate(paths, -1)
        return layers.Dense(self.num_classes, kernel_init=init)(x.mean((1, 2)))


def make(
    *,
    num_classes: int,
    resize: int = 96,
    divide: int = 1,
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns GoogLeNet: convolutions, then three stages of 2, 5 and 2 inception blocks.

    The layers are conv 7x7 64 stride 2, max 3/2, conv 1x1 64, conv 3x3 192, {max 3/2, inception
    blocks} for each stage, mean, dense C. An inception block concatenates 1x1 | 1x1, 3x3 | 1x1, 5x5
    | max 3x3, 1x1, with relu after each convolution: 256, 480, 512, 512, 512, 528, 832, 832, 1,024
    features. It has 5,977,530 parameters with one channel and 10 classes for images of any size
    (convolutions are padded).

    Args:
        num_classes: C.
        resize: the side to which images are enlarged first (bilinear); 0 leaves them unchanged.
        divide: every path is narrower by this factor, up to 16.
        init: the initializer of the kernels.
        form: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes)
    checks.one_of(range(1, 17), divide=divide)
    checks.at_least(0, resize=resize)
    checks.one_of(layers.FORMS, form=form)
    layers.initializer(init)
    return layers.as_model(GoogLeNet(num_classes, resize, divide, init, form))
