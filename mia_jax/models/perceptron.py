"""Builds the perceptron (Rosenblatt 1958), a linear threshold unit.

Train it with the objective `perceptron`.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class Perceptron(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = layers.flatten(x)
        if self.num_classes > 2:
            return layers.Dense(self.num_classes, kernel_init=layers.zeros)(x)
        z_B1 = layers.Dense(1, kernel_init=layers.zeros)(x)
        return jnp.concatenate([-z_B1, z_B1], 1) / 2


def make(*, num_classes: int) -> Model:
    """Returns the perceptron: one linear unit for two classes, else one per class.

    For two classes the unit is z = w·x + b, with class 1 if z > 0, as logits (-z/2, z/2). For more
    classes the largest unit wins. All parameters start at zero. Parameters: features + 1 for two
    classes, (features + 1) * C for C > 2.

    Raises:
        ValueError: for fewer than two classes.
    """
    checks.at_least(2, num_classes=num_classes)
    return layers.as_model(Perceptron(num_classes))
