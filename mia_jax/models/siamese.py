"""Builds the siamese network: one embedding for both images of a pair, and a linear classifier.

The gradient of the classifier does not reach the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jax import lax

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class Siamese(nn.Module):
    num_classes: int
    widths: tuple[int, ...]
    embedding: int

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False, pairs=False):
        x = x.reshape(*x.shape[:2], -1) if pairs else layers.flatten(x)
        for width in self.widths:
            x = layers.activation("relu")(layers.Dense(width)(x))
        embedded = layers.Dense(self.embedding)(x)
        head = layers.Dense(self.num_classes)
        return (embedded, head(lax.stop_gradient(embedded))) if pairs else head(embedded)


def make(*, num_classes: int, widths: Sequence[int] = (500,), embedding: int = 10) -> Model:
    """Returns the siamese network: logits [B,C].

    The layers are {dense width, relu} for each width, dense `embedding` (linear), dense C.
    The embedding is 'penultimate' [B,E] of `inside`. Parameters: for 28x28 images with the defaults
    784*500 + 500 + 500*10 + 10 = 397,510 for the embedding, and 10*10 + 10 for the classifier of 10
    classes. Kernels start Glorot-uniform.

    `parts['pairs']`, for objectives/contrastive.py, is (variables, x_B2..) -> (embedding_B2E,
    logits_B2C). Every layer is called once for both images.
    """
    checks.at_least(1, num_classes=num_classes, embedding=embedding)
    widths = (widths,) if isinstance(widths, int) else tuple(widths)
    for width in widths:
        checks.at_least(1, widths=width)
    module = Siamese(num_classes, widths, embedding)
    return layers.as_model(module)._replace(
        parts=dict(pairs=lambda variables, x: module.apply(variables, x, pairs=True)),
        signals=("embedding",),
    )
