"""Builds the Forward-Forward network for labels: the label is written into the input.

Its logits are goodness (Hinton 2022, arXiv:2212.13345, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model

GOODNESS = ("mean", "sum")


class ForwardForward(nn.Module):
    num_classes: int
    widths: tuple[int, ...]
    goodness: str
    skip_first: bool

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False, label_BK=None):
        """Returns the goodness of each layer for the given labels, [B,K,L], or the logits [B,C].

        With labels, gradients stay within their layer. Without labels the result is the logits.
        """
        local = label_BK is not None
        if not local:
            label_BK = jnp.broadcast_to(
                jnp.arange(self.num_classes, dtype=jnp.int32), (x.shape[0], self.num_classes)
            )
        h_BKF, goodness_L = overlay(x, label_BK, self.num_classes), []
        for width in self.widths:
            h_BKF = lax.stop_gradient(h_BKF) if local else h_BKF
            h_BKF = jax.nn.relu(layers.Dense(width)(unit(h_BKF)))
            goodness_L.append(squared_activity(h_BKF, self.goodness))
        goodness_BKL = jnp.stack(goodness_L, axis=-1)
        return goodness_BKL if local else goodness_BKL[..., int(self.skip_first) :].sum(-1)


def overlay(x, label_BK, num_classes: int) -> jax.Array:
    """Returns the flattened example with its first C features replaced by max(x) * onehot(label).

    There are K labels per example: [B,...], [B,K] -> [B,K,F].
    """
    x_BF = layers.flatten(x)
    if x_BF.shape[1] <= num_classes:
        raise ValueError(
            f"forward_forward writes the label into the first {num_classes} features; an example "
            f"has only {x_BF.shape[1]}."
        )
    hot_BKC = jax.nn.one_hot(label_BK, num_classes, dtype=x_BF.dtype) * x_BF.max(1)[:, None, None]
    rest = x_BF[:, None, num_classes:]
    return jnp.concatenate(
        [hot_BKC, jnp.broadcast_to(rest, (*label_BK.shape, rest.shape[2]))], axis=-1
    )


def unit(h) -> jax.Array:
    """Returns h / (|h| + 1e-4) over the last axis, with a finite gradient at 0.

    A layer then sees the direction of the previous layer's output, not its goodness.
    """
    square = jnp.square(h.astype(jnp.float32)).sum(-1, keepdims=True)
    return (h / (jnp.sqrt(jnp.maximum(square, 1e-24)) + 1e-4)).astype(h.dtype)


def squared_activity(h, goodness: str) -> jax.Array:
    """Returns the goodness: mean or sum of h^2 over the units of a layer, [...,F] -> [...]."""
    square = jnp.square(h.astype(jnp.float32))
    return square.mean(-1) if goodness == "mean" else square.sum(-1)


def make(
    *,
    num_classes: int,
    widths: Sequence[int] = (500, 500),
    goodness: str = "mean",
    skip_first: bool = False,
) -> Model:
    """Returns the Forward-Forward network; out[b,c] is the goodness of all layers with label c.

    The layers are {x / (|x| + 1e-4), dense width, relu} for each width, on the overlaid input.
    Parameters: sum of (in + 1) * out; for 28x28 images with the defaults 784*500 + 500 + 500*500 +
    500 = 643,000. Kernels start Glorot-uniform.

    `parts`, for objectives/forward_forward.py and learners/forward_forward.py, are:

    - `goodness(variables, x_B.., label_BK) -> [B,K,L]`, where each layer's gradient reaches its
      parameters only.
    - `overlay(x_B.., label_BK) -> h_BKF`.
    - `layer(params of one layer, h) -> h`.
    - `score(h) -> goodness`.
    - `names`, those of the layers.

    `inside` also has 'goodness' [B,C,L].

    Args:
        num_classes: C.
        widths: the widths of the layers.
        goodness: 'mean' or 'sum' of a layer's squared activities.
        skip_first: whether the first hidden layer is left out of the prediction.
    """
    checks.at_least(2, num_classes=num_classes)
    checks.one_of(GOODNESS, goodness=goodness)
    widths = (widths,) if isinstance(widths, int) else tuple(widths)
    for width in widths:
        checks.at_least(1, widths=width)
    if len(widths) < 1 + skip_first:
        raise ValueError(
            f"widths={widths}: no layer is left for the prediction (skip_first={skip_first})."
        )
    module = ForwardForward(num_classes, widths, goodness, skip_first)
    names = tuple(f"Dense_{i}" for i in range(len(widths)))
    parts = dict(
        goodness=lambda variables, x, label_BK: module.apply(variables, x, label_BK=label_BK),
        overlay=lambda x, label_BK: overlay(x, label_BK, num_classes),
        layer=lambda params, h: jax.nn.relu(
            unit(h) @ params["kernel"] + params["bias"].reshape((1,) * (h.ndim - 1) + (-1,))
        ),
        score=lambda h: squared_activity(h, goodness),
        names=names,
        num_classes=num_classes,
    )
    model = layers.as_model(module)

    def inside(variables, x):
        every_BC = jnp.broadcast_to(
            jnp.arange(num_classes, dtype=jnp.int32), (x.shape[0], num_classes)
        )
        return model.inside(variables, x) | dict(
            goodness=module.apply(variables, x, label_BK=every_BC)
        )

    return model._replace(parts=parts, inside=inside)
