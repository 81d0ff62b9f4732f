"""Computes max and average pooling with gradients that cost no more than their forward pass.

XLA's gradient of max pooling (select-and-scatter) is the bottleneck of small networks. Here the
forward pass also records which pixel of each window was the largest, and the backward pass writes
the cotangent to that pixel.

Overlapping windows (3x3, stride 2) add their gradients by `unpatch`, which takes 2 to 4% of a step
of ResNet-18, AlexNet and NiN at the sizes of configs/zoo (B=32, CPU). In GoogLeNet it is 11%,
because XLA computes the gradient of a block's 3x3 pool again for each position of the preceding
pool. An optimization_barrier between the two does not help: it is removed before XLA fuses.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax.models.kernels.convolution import Windows, patches, unpatch, windows


def max_pool(x, window, strides=None, padding="VALID", form: str = "auto") -> jax.Array:
    """Returns y[b,h,w,f] = max over the window, for x [B,H,W,F].

    `strides=None` uses the size of the window. The first of equal pixels gets the gradient. Values
    and gradients are those of flax.linen.max_pool. form='lax' is XLA's program, which also supports
    forward-mode differentiation.
    """
    at = windows(x.shape, window, window if strides is None else strides, padding)
    if form == "lax":
        config = ((0, 0), *at.pads, (0, 0))
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, *at.window, 1), (1, *at.strides, 1), config
        )
    return _max_pool(at, x)


def avg_pool(x, window, strides=None, padding="VALID", count_include_pad: bool = True) -> jax.Array:
    """Returns y[b,h,w,f] = mean over the window, for x [B,H,W,F], as flax.linen.avg_pool.

    `strides=None` uses the size of the window. `count_include_pad=False` divides by the number of
    real pixels (Keras), True by the size of the window (PyTorch).
    """
    at = windows(x.shape, window, window if strides is None else strides, padding)
    total = functools.reduce(jnp.add, patches(at, x))
    if count_include_pad or at.pads == ((0, 0), (0, 0)):
        return total / (at.window[0] * at.window[1])
    count = functools.reduce(jnp.add, patches(at, jnp.ones((1, *at.image, 1), x.dtype)))
    return total / jnp.broadcast_to(count, total.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(at: Windows, x):
    return functools.reduce(jnp.maximum, patches(at, x, -jnp.inf))


def _max_pool_forward(at, x):
    """Returns the largest pixel of each window and its position in the window."""
    best, *others = patches(at, x, -jnp.inf)
    chosen = jnp.zeros(best.shape, jnp.int32)
    for k, other in enumerate(others, 1):
        chosen = jnp.where(other > best, k, chosen)
        best = jnp.maximum(best, other)
    return best, chosen


def _max_pool_backward(at, chosen, g):
    """Returns the cotangent of x: each window's cotangent at its largest pixel."""
    zero = jnp.zeros((), g.dtype)
    if at.window != at.strides:
        return (
            unpatch(
                at, [jnp.where(chosen == k, g, zero) for k in range(at.window[0] * at.window[1])]
            ),
        )
    b, h, w, f = g.shape
    (i, j), shape = at.window, (b, h, at.window[0], w, at.window[1], f)
    here = jnp.broadcast_to(jnp.arange(i * j, dtype=jnp.int32).reshape(1, 1, i, 1, j, 1), shape)
    is_largest = jnp.broadcast_to(chosen.reshape(b, h, 1, w, 1, f), shape) == here
    full = jnp.where(
        is_largest, jnp.broadcast_to(g.reshape(b, h, 1, w, 1, f), shape), zero
    ).reshape(b, h * i, w * j, f)
    edges = (
        (-p[0], n + p[0] - o * k, 0) for n, o, k, p in zip(at.image, at.out, at.window, at.pads)
    )
    return (lax.pad(full, zero, [(0, 0, 0), *edges, (0, 0, 0)]),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
