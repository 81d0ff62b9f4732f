"""Builds a softmax classifier that applies the same weights to both halves of an image."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class HalfImage(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        halves_B2F = layers.flatten(x)
        if halves_B2F.shape[1] % 2:
            raise ValueError(
                f"half_image splits an example in two equal halves; it has {halves_B2F.shape[1]} "
                "features."
            )
        halves_B2F = halves_B2F.reshape(len(x), 2, -1)
        bias_C = self.param("bias", layers.zeros, (self.num_classes,))
        return (
            layers.Dense(self.num_classes, use_bias=False, name="shared")(halves_B2F).sum(1)
            + bias_C[None]
        )


def make(*, num_classes: int) -> Model:
    """Returns x1 @ w + x2 @ w + b: logits [B,C].

    x1 and x2 are the halves of the flattened example (top and bottom of an image), w is shared and
    b is trained. Since this is (x1 + x2) @ w + b, the network sees the sum of the halves only.
    Parameters: F/2 * C + C; for 28x28 images and 10 classes 392*10 + 10 = 3,930. The kernel starts
    Glorot-uniform, b at zero. `parts['pictures'](variables, shape)` is the kernel as one picture
    per class, [C,H/2,W] for images [H,W,..].
    """
    checks.at_least(1, num_classes=num_classes)

    def pictures(variables, shape):
        height, width = (
            (shape[0] // 2, shape[1]) if len(shape) == 3 and shape[0] % 2 == 0 else (1, -1)
        )
        return jnp.moveaxis(
            variables["params"]["shared"]["kernel"].reshape(height, width, -1, num_classes).mean(2),
            -1,
            0,
        )

    return layers.as_model(HalfImage(num_classes))._replace(parts=dict(pictures=pictures))
