"""Builds LeNet with a normalization before every activation.

Batch normalization: Ioffe & Szegedy 2015 (arXiv:1502.03167).
"""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class LeNetBN(nn.Module):
    num_classes: int
    norm: str
    activation: str
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        init = layers.initializer(self.init_name)

        def active(x):
            return layers.activation(self.activation)(
                layers.normalized(x, self.norm, weight_B=weight_B, train=train)
            )

        for features in (6, 16):
            x = layers.avg_pool(
                active(
                    layers.Conv(features, 5, padding="VALID", kernel_init=init, form=self.form)(x)
                ),
                2,
            )
        x = layers.flatten(x)
        for width in (120, 84):
            x = active(layers.Dense(width, kernel_init=init)(x))
        return layers.Dense(self.num_classes, kernel_init=init)(x)


def make(
    *,
    num_classes: int,
    norm: str = "batch",
    activation: str = "sigmoid",
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns LeNet with normalization.

    The layers are {conv 5x5 (6, then 16), norm, activation, average pool 2x2} x 2, {dense (120,
    then 84), norm, activation} x 2, dense C. Sizes with 28x28 images: 24, 12, 8, 4 (256 features).
    Parameters with one channel and 10 classes: 168 + 2,448 + 31,080 + 10,332 + 850 = 44,878
    (without the running statistics; 44,426 without a norm). `norm` is 'batch', 'group', 'layer' or
    'none'; the last three are for private training. Images need 16x16 pixels or more. `form`: see
    layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes)
    checks.one_of(layers.NORMS, norm=norm)
    checks.one_of(layers.FORMS, form=form)
    layers.activation(activation), layers.initializer(init)
    return layers.as_model(LeNetBN(num_classes, norm, activation, init, form))
