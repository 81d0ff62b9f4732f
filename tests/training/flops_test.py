"""Tests that FLOPs are those that one counts by hand."""

import jax
import jax.numpy as jnp

from mia_jax.models.kernels import convolution
from mia_jax.training import flops


def like(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_step_of_a_linear_layer_is_three_products_without_the_gradient_of_the_input():
    def loss(w, x):
        return (x @ w).sum()

    forward = 2 * 7 * 5 * 3
    assert flops.count(loss, like(5, 3), like(7, 5)) == forward
    assert flops.count(jax.grad(loss), like(5, 3), like(7, 5)) == forward * 2
    assert flops.count(jax.grad(loss, (0, 1)), like(5, 3), like(7, 5)) == forward * 3


def test_loops_count_as_often_as_they_run_and_branches_by_the_longer_one():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=6)[0]

    def branches(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

    once = 2 * 4**3
    assert flops.count(scanned, like(4, 4)) == 6 * once
    assert flops.count(jax.jit(branches), like(4, 4)) == 2 * once


def test_a_convolution_counts_the_same_by_patches_and_by_xla():
    at = convolution.windows((2, 8, 8, 3), (3, 3), (1, 1), "SAME")
    for form in ("patches", "lax"):
        count = flops.count(
            lambda x, w, form=form: convolution.convolve(at, x, w, form),
            like(2, 8, 8, 3),
            like(3, 3, 3, 5),
        )
        assert count == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3), form
