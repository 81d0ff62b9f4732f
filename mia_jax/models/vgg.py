"""Builds VGG (Simonyan & Zisserman 2014, arXiv:1409.1556)."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model

BLOCKS = {  # depth: (convolutions, features) of the five blocks
    11: ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    13: ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    16: ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    19: ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}


class VGG(nn.Module):
    num_classes: int
    depth: int
    divide: int
    resize: int
    hidden: int
    dropout: float
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        relu, init = layers.activation("relu"), layers.initializer(self.init_name)
        x = layers.resized(x, self.resize)
        for count, features in BLOCKS[self.depth]:
            for _ in range(count):
                x = relu(layers.Conv(features // self.divide, kernel_init=init, form=self.form)(x))
            x = layers.max_pool(x, 2, form=self.form)
        x = layers.flatten(x)
        for site in range(2):
            x = relu(layers.Dense(self.hidden, kernel_init=init)(x))
            x = layers.dropout(x, key_B if train else None, self.dropout, site)
        return layers.Dense(self.num_classes, kernel_init=init)(x)


def make(
    *,
    num_classes: int,
    depth: int = 11,
    divide: int = 4,
    resize: int = 224,
    hidden: int = 4096,
    dropout: float = 0.5,
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns VGG: five blocks of {conv 3x3, relu} and a 2x2 max pool, then three dense layers.

    The blocks have 64, 128, 256, 512 and 512 features over `divide`; then dense `hidden` twice with
    dropout, dense C. Parameters of depth 11 with one channel and 10 classes at 224: 128,806,154
    with divide=1, 43,093,322 with divide=4. At 32, the smallest size (one pixel is left), they are
    28,142,858 and 17,927,498.

    Args:
        num_classes: C.
        depth: 11, 13, 16 or 19.
        divide: every block is narrower by this factor.
        resize: the side to which images are enlarged first (bilinear); 0 leaves them unchanged.
        hidden: the width of the dense layers.
        dropout: the dropout rate.
        init: the initializer of the kernels.
        form: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, divide=divide, hidden=hidden)
    checks.at_least(0, resize=resize)
    checks.one_of(BLOCKS, depth=depth)
    checks.fraction(closed="left", dropout=dropout)
    checks.one_of(layers.FORMS, form=form)
    layers.initializer(init)
    return layers.as_model(VGG(num_classes, depth, divide, resize, hidden, dropout, init, form))
