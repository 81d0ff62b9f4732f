"""Linear and softmax regression: one affine map."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class Linear(nn.Module):
    features: int
    use_bias: bool
    init_name: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        return layers.Dense(self.features, self.use_bias, layers.initializer(self.init_name))(
            layers.flatten(x)
        )


def make(*, num_classes: int, bias: bool = True, init: str = "normal") -> Model:
    """Returns the Model x @ w + b on flattened inputs: logits [B,C], or [B,1] for regression.

    With the objective cross_entropy it is softmax regression; num_classes=1 means regression.

    Parameters: (features + 1) * outputs; 28x28 images and 10 classes: 7,850; 2 features and 1
    output: 3. `init`: N(0, .01^2), see layers.INITIALIZERS.
    """
    checks.at_least(1, num_classes=num_classes)
    layers.initializer(init)
    return layers.as_model(Linear(num_classes, bias, init))
