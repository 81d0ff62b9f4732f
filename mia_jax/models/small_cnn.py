"""Builds the small convolutional network of TensorFlow Privacy's privacy-report tutorial."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class SmallCNN(nn.Module):
    num_classes: int
    num_conv: int
    activation: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        activation = layers.activation(self.activation)
        for _ in range(self.num_conv):
            x = layers.max_pool(
                activation(layers.Conv(32, padding="VALID", form=self.form)(x)), 2, form=self.form
            )
        x = activation(layers.Dense(64)(layers.flatten(x)))
        return layers.Dense(self.num_classes)(x)


def make(
    *, num_classes: int, num_conv: int = 3, activation: str = "relu", form: str = "auto"
) -> Model:
    """Returns {conv 3x3 32 VALID, relu, max pool 2x2} x num_conv, dense 64, relu, dense C.

    The output is logits [B,C]. Parameters with 32x32x3 images and 10 classes: 84,586 for num_conv=2
    (896 + 9,248 + 73,792 + 650), 28,298 for num_conv=3 (896 + 9,248 + 9,248 + 8,256 + 650). Kernels
    start Glorot-uniform. Three convolutions need images of 22x22 or more. `form`: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, num_conv=num_conv)
    checks.one_of(layers.FORMS, form=form)
    layers.activation(activation)
    return layers.as_model(SmallCNN(num_classes, num_conv, activation, form))
