"""Implements the fast gradient sign method.

Source: Goodfellow, Shlens & Szegedy 2015 (arXiv:1412.6572).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mia_jax.evasion import _margins, _points


def fgsm(
    out: Callable, x, y_B, *, epsilon, box: tuple[float, float] | None = (0.0, 1.0)
) -> jax.Array:
    """Returns clip(x + epsilon sign(grad_x cross_entropy(out(x), y))), [B,...].

    This is the corner of the cube of radius epsilon where the loss rises fastest. The direction is
    exact even if the softmax is saturated.

    Args:
        out: out(x_B..) -> out_BC, differentiable logits in inference mode.
        x: the examples, [B,...].
        y_B: the labels.
        epsilon: >= 0 in the units of x, a number (traced or not) or [B].
        box: the range of the values; None for no limit.

    Raises:
        ValueError: for examples outside the box.
    """
    _points.check(x, norm="linf", box=box)
    x = jnp.asarray(x, jnp.float32)
    _, gradient = _margins.climb(out, x, y_B)
    return _points.clip(x + _points.like(epsilon, x) * jnp.sign(gradient), box)
