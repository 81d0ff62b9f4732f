"""Measures whether the predicted label survives random noise.

Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), sections 4.2 and 5.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax import checks
from mia_jax.evasion import _points


def gaussian(key, x, sigma, box: tuple[float, float] | None = (0.0, 1.0)) -> jax.Array:
    """Returns clip(x + sigma N(0, I)) of one example."""
    return _points.clip(x + sigma * jax.random.normal(key, x.shape, jnp.float32), box)


def flips(key, x, rate, box: tuple[float, float] = (0.0, 1.0)) -> jax.Array:
    """Returns one example with low + high - x (0 <-> 1) in each feature with probability `rate`."""
    return jnp.where(jax.random.bernoulli(key, jnp.float32(rate), x.shape), box[0] + box[1] - x, x)


def survives(
    label: Callable,
    x,
    y_B,
    key_B,
    *,
    copies: int,
    draw: Callable,
    chunk: int = 50,
) -> jax.Array:
    """Returns whether noisy copy k = 0..copies-1 of each example is labeled y, [B,K] bool.

    It takes `copies` queries per example. Copy k is drawn with fold_in(key_B, k), so that the first
    copies do not depend on `copies`.

    Args:
        label: label(x_B'..) -> [B'], called with B * chunk copies at a time.
        x: the examples, [B,...].
        y_B: the labels.
        key_B: one key per example.
        copies: K.
        draw: draw(key, x) -> x changes one example, as `lambda key, x: noise.gaussian(key, x,
            0.05)`.
        chunk: the number of copies at a time, which does not affect the result.
    """
    checks.at_least(1, copies=copies, chunk=chunk)
    x, y_B = jnp.asarray(x, jnp.float32), jnp.asarray(y_B)
    chunk = min(chunk, copies)

    def some(c):
        k_K = c * chunk + jnp.arange(chunk, dtype=jnp.int32)
        noisy = jax.vmap(
            lambda key, x: jax.vmap(lambda k: draw(jax.random.fold_in(key, k), x))(k_K)
        )(key_B, x)
        return (label(noisy.reshape(-1, *x.shape[1:])) == jnp.repeat(y_B, chunk)).reshape(-1, chunk)

    right = lax.map(some, jnp.arange(-(-copies // chunk), dtype=jnp.int32))
    return jnp.moveaxis(right, 0, 1).reshape(len(x), -1)[:, :copies]
