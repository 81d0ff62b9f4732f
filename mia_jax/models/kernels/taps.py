"""Computes per-example gradient norms inside an ordinary backward pass, by taps.

The problem: private training needs the norm of every example's gradient, but a backward pass adds
the gradients of all examples. Computing them separately needs memory for all of them.

The idea: for a layer y = x @ w, the gradient of one example is sum_t x_t g_t', where t runs over
its positions and g is the cotangent of y. Both x and g are present in the backward pass, and the
norm of the gradient follows from them without forming it: |sum_t x_t g_t'|^2 = sum_ts
(x_t.x_s)(g_t.g_s), a product of two Gram matrices.

The mechanism: every operation with a parameter has an extra argument, its tap. The tap does not
influence the output. Its "cotangent" is what the private gradient needs from this operation. With
`Norms` it is each unit's squared gradient norm. With `Residue` it is what determines this norm and
any weighted sum of the units' gradients. With `Weights` the cotangent of the parameter itself
becomes the weighted sum.

U units share the B rows of a batch, B / U consecutive rows each. A unit is an example, its
augmentations, or the rows of a user. All rows and pixels of one unit are positions t of one
gradient sum_t x_t g_t', so weights that are shared along an axis are handled exactly.

Sources: Li et al. 2022 (arXiv:2110.05679), Bu et al. 2023 (arXiv:2210.00038); both compute norms by
Gram matrices.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mia_jax.models.kernels.convolution import Windows, convolve, patches, unit_kernel_gradients
from mia_jax.runtime import machine

# The rounding error of the Gram form relative to its terms. It is added so that a norm is never too
# small.
SLACK = 2.0**-22


def exact():
    """Returns the precision of products in full float32.

    It must be requested where a device rounds the factors (TF32, bfloat16), so that clipped sums
    keep their bound. A CPU never rounds them, and its products are fastest without a requested
    precision.
    """
    return None if machine.platform() == "cpu" else lax.Precision.HIGHEST


# The parameters of a low-rank adapter, beside the kernel that it changes (learners/_adapters.py).
DOWN, UP = "adapter_down", "adapter_up"


class Norms(NamedTuple):
    """Is a tap whose cotangent is [U], each unit's squared gradient norm."""

    squares_U: Any


class Residue(NamedTuple):
    """Is a tap whose cotangent is op.residue(...)."""

    parts: Any


class Weights(NamedTuple):
    """Is a tap that makes the parameter's cotangent sum_u weight_u * gradient_u."""

    weight_U: Any


class Recorder:
    """Is a tap that records the operations which use it (privacy.gradients.recorded)."""

    def __init__(self):
        self.calls: list = []


def tapped(op, x, w, tap):
    """Returns op.apply(x, w), with the tap of the layer (None: nothing is asked)."""
    if tap is None:
        return op.apply(x, w)
    if isinstance(tap, Recorder):
        tap.calls.append((op, jax.typeof(x), jax.typeof(w)))
        return op.apply(x, w)
    return _tapped(op, x, w, tap)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tapped(op, x, w, tap):
    return op.apply(x, w)


def _forward(op, x, w, tap):
    return op.apply(x, w), (x, w, tap)


def _backward(op, saved, g):
    """Returns the cotangents of x, w and the tap."""
    x, w, tap = saved
    if jnp.issubdtype(x.dtype, jnp.floating):
        dx, dw = jax.vjp(op.apply, x, w)[1](g)
    else:
        dx, dw = None, jax.vjp(lambda w: op.apply(x, w), w)[1](g)[0]
    if isinstance(tap, Norms):
        units = tap.squares_U.shape[0]
        return dx, dw, Norms(op.squares(op.residue(x, g, units)))
    if isinstance(tap, Weights):
        residue = op.residue(x, g, tap.weight_U.shape[0])
        return (
            dx,
            op.gradient(residue, tap.weight_U, w).astype(w.dtype),
            Weights(jnp.zeros_like(tap.weight_U)),
        )
    return dx, dw, Residue(op.residue(x, g, jax.tree.leaves(tap.parts)[0].shape[0]))


_tapped.defvjp(_forward, _backward)


def _outer(x_UTF, g_UTO):
    """Returns what is kept of sum_t x_t g_t': (x, g), or the sums if they are not much larger."""
    if x_UTF.ndim == 3 and _summed(*x_UTF.shape[1:], g_UTO.shape[2]):
        return (
            jnp.einsum(
                "utf,uto->ufo", x_UTF, g_UTO, precision=exact(), preferred_element_type=jnp.float32
            ),
        )
    return x_UTF, g_UTO


def _summed(positions: int, features: int, outputs: int) -> bool:
    """Returns whether the sum over the positions is kept, because it is not much larger."""
    return positions > 1 and features * outputs <= 2 * positions * (features + outputs)


def _outer_squares(parts):
    """Returns the squared norm of each unit's sum_t x_t g_t', [U]."""
    if len(parts) == 1:
        return _square(parts[0])
    x, g = (part.astype(jnp.float32) for part in parts)
    if x.ndim == 2:
        return _square(x) * _square(g)
    gram = [jnp.einsum("uti,usi->uts", a, a, precision=exact()) for a in (x, g)]
    terms = (jnp.sqrt(jnp.square(x).sum(2)) * jnp.sqrt(jnp.square(g).sum(2))).sum(1)
    return jnp.maximum((gram[0] * gram[1]).sum((1, 2)), 0) + SLACK * jnp.square(terms)


def _outer_gradient(parts, weight_U):
    """Returns sum_u weight_u sum_t x_t g_t'."""
    if len(parts) == 1:
        (u, *shape) = parts[0].shape
        return jnp.matmul(weight_U[None], parts[0].reshape(u, -1), precision=exact()).reshape(shape)
    x, g = parts
    g = weight_U.reshape(-1, *(1,) * (g.ndim - 1)) * g.astype(jnp.float32)
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x.astype(jnp.float32), g))
    return jnp.matmul(x.T, g, precision=exact())


def _square(a):
    """Returns the sum of the squares of each unit, [U]."""
    return jnp.square(a.astype(jnp.float32)).reshape(a.shape[0], -1).sum(1)


def _by_unit(a, units: int):
    """Returns [B,...,F] as [U,T,F]; as [U,F] where T is 1.

    XLA copies an array with an axis of length 1 to change the place of that axis.
    """
    shape = (units, a.shape[-1]) if a.size == units * a.shape[-1] else (units, -1, a.shape[-1])
    return a.reshape(shape)


def _over_positions(a):
    """Returns the sum over the positions of `_by_unit`, [U,F]."""
    return a if a.ndim == 2 else a.sum(1)


class Product(NamedTuple):
    """Is x [B,...,F] @ w [F,O]."""

    def apply(self, x, w):
        return x @ w

    def residue(self, x, g, units):
        return _outer(_by_unit(x, units), _by_unit(g, units))

    def squares(self, parts):
        return _outer_squares(parts)

    def gradient(self, parts, weight_U, w):
        return _outer_gradient(parts, weight_U)


class Convolution(NamedTuple):
    """Is a convolution of x [B,H,W,C] with w [I,J,C,O]; its gradient is that of patches @ w."""

    at: Windows
    form: str

    def apply(self, x, w):
        return convolve(self.at, x, w, self.form)

    def _columns(self, x, units):
        columns = jnp.concatenate(patches(self.at, x), -1)
        return _by_unit(columns, units)

    def residue(self, x, g, units):
        features = math.prod(self.at.window) * x.shape[-1]
        if _summed(g.size // (units * g.shape[-1]), features, g.shape[-1]):
            return (unit_kernel_gradients(self.at, x, g, units, exact()),)
        return x.reshape(units, -1, *x.shape[1:]), _by_unit(g, units)

    def _outer(self, parts):
        if len(parts) == 1:
            return parts
        x, g = parts
        return self._columns(x.reshape(-1, *x.shape[2:]), g.shape[0]), g

    def squares(self, parts):
        return _outer_squares(self._outer(parts))

    def gradient(self, parts, weight_U, w):
        return _outer_gradient(self._outer(parts), weight_U).reshape(w.shape)


class Shift(NamedTuple):
    """Is x [B,...,F] + w [F]."""

    def apply(self, x, w):
        return x + w.reshape((1,) * (x.ndim - 1) + (-1,))

    def residue(self, x, g, units):
        return (_over_positions(_by_unit(g, units).astype(jnp.float32)),)

    def squares(self, parts):
        return _square(parts[0])

    def gradient(self, parts, weight_U, w):
        return jnp.matmul(weight_U, parts[0], precision=exact())


class Scale(Shift):
    """Is x [B,...,F] * w [F]."""

    def apply(self, x, w):
        return x * w.reshape((1,) * (x.ndim - 1) + (-1,))

    def residue(self, x, g, units):
        products = _by_unit(x, units).astype(jnp.float32) * _by_unit(g, units)
        return (_over_positions(products),)


class Lookup(NamedTuple):
    """Is the lookup w[x] of rows of a table [V,F] for integers x [B,...].

    Equal integers of one unit share a row, and their gradients add.
    """

    def apply(self, x, w):
        return w[x]

    def residue(self, x, g, units):
        # Integers below 2^24 are exact as float32.
        return x.reshape(units, -1).astype(jnp.float32), g.reshape(units, -1, g.shape[-1])

    def squares(self, parts):
        x, g = parts
        g = g.astype(jnp.float32)
        same = x[:, :, None] == x[:, None, :]
        gram = jnp.where(same, jnp.einsum("uti,usi->uts", g, g, precision=exact()), 0).sum((1, 2))
        return jnp.maximum(gram, 0) + SLACK * jnp.square(jnp.sqrt(jnp.square(g).sum(2)).sum(1))

    def gradient(self, parts, weight_U, w):
        x, g = parts
        g = weight_U[:, None, None] * g.astype(jnp.float32)
        x = jnp.where(jnp.isfinite(x), x, 0).astype(jnp.int32)
        return jnp.zeros(w.shape, jnp.float32).at[x.reshape(-1)].add(g.reshape(-1, g.shape[2]))
