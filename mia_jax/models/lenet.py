"""Builds LeNet-5 (LeCun et al. 1998) with sigmoids, average pooling and dense outputs."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model

POOLS = dict(avg=layers.avg_pool, max=layers.max_pool)


class LeNet(nn.Module):
    num_classes: int
    activation: str
    pool: str
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        activation, pool, init = (
            layers.activation(self.activation),
            POOLS[self.pool],
            layers.initializer(self.init_name),
        )
        for features, padding in ((6, 2), (16, 0)):
            x = pool(
                activation(
                    layers.Conv(features, 5, padding=padding, kernel_init=init, form=self.form)(x)
                ),
                2,
            )
        x = layers.flatten(x)
        for width in (120, 84):
            x = activation(layers.Dense(width, kernel_init=init)(x))
        return layers.Dense(self.num_classes, kernel_init=init)(x)


def make(
    *,
    num_classes: int,
    activation: str = "sigmoid",
    pool: str = "avg",
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns LeNet-5: two convolutions with pooling, then three dense layers.

    The layers are conv 5x5 6 (padding 2), pool 2x2, conv 5x5 16, pool 2x2, dense 120, dense 84,
    with an activation after each convolution and dense layer; dense C. Sizes with 28x28 images: 28,
    14, 10, 5 (400 features). Parameters with one channel and 10 classes: 156 + 2,416 + 48,120 +
    10,164 + 850 = 61,706. Images need 12x12 pixels or more. `pool` is 'avg' or 'max'. `form`: see
    layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes)
    checks.one_of(POOLS, pool=pool)
    checks.one_of(layers.FORMS, form=form)
    layers.activation(activation), layers.initializer(init)
    return layers.as_model(LeNet(num_classes, activation, pool, init, form))
