"""The perceptron (Rosenblatt 1958): a linear threshold unit; train it with the objective
`perceptron`.
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
    """Two classes: one unit z = w·x + b, class 1 if z > 0, as logits (-z/2, z/2); more classes: one
    unit each, the largest wins. Starts at zero.

    Parameters: features + 1 for two classes, (features + 1) * C for C > 2. ValueError below two
    classes.
    """
    checks.at_least(2, num_classes=num_classes)
    return layers.as_model(Perceptron(num_classes))
