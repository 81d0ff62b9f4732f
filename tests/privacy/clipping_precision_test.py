"""Tests that norms and clipped sums request full float32 in every form in which they run.

Accelerators round the factors of a product by default.
"""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr

from mia_jax.learners import backprop
from mia_jax.models import small_cnn
from mia_jax.models.kernels import taps as _taps
from mia_jax.models.kernels.convolution import windows
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import clipping, gradients
from mia_jax.types import Pool, classification

PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")
MODELS, B = 2, 4


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """Traces programs as for a GPU, without running them."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    yield
    jax.clear_caches()


def products(jaxpr):
    """Returns (primitive, precision) of every product of a program, at any depth."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in PRODUCTS:
            yield eqn.primitive.name, eqn.params["precision"]
        for leaf in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda a: isinstance(a, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(leaf, ClosedJaxpr | Jaxpr):
                yield from products(leaf)


def full(precision) -> bool:
    return precision in (lax.Precision.HIGHEST, (lax.Precision.HIGHEST, lax.Precision.HIGHEST))


OPERATIONS = dict(
    product=(_taps.Product(), (B, 5), (5, 7), jnp.float32),
    positions=(_taps.Product(), (B, 3, 50), (50, 70), jnp.float32),  # by Gram matrices
    few_features=(_taps.Product(), (B, 30, 2), (2, 3), jnp.float32),  # by the sums themselves
    convolution=(
        _taps.Convolution(windows((B, 6, 6, 2), 3, 1, "SAME"), "auto"),
        (B, 6, 6, 2),
        (3, 3, 2, 4),
        jnp.float32,
    ),
    wide_convolution=(
        _taps.Convolution(windows((B, 4, 4, 40), 3, 1, "SAME"), "auto"),
        (B, 4, 4, 40),
        (3, 3, 40, 50),
        jnp.float32,
    ),
    shift=(_taps.Shift(), (B, 3, 5), (5,), jnp.float32),
    scale=(_taps.Scale(), (B, 3, 5), (5,), jnp.float32),
    lookup=(_taps.Lookup(), (B, 6), (9, 5), jnp.int32),
)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_norms_and_sums_of_every_operation_are_full_float32(name, dtype):
    """Tests a fleet of two models, batched before and after the scan over steps."""
    op, x_shape, w_shape, x_dtype = OPERATIONS[name]
    x = jax.ShapeDtypeStruct((MODELS, *x_shape), x_dtype if x_dtype == jnp.int32 else dtype)
    w = jax.ShapeDtypeStruct(
        (MODELS, *w_shape), dtype if "convolution" in name else jnp.float32
    )  # a convolution has one type
    g = jax.eval_shape(jax.vmap(op.apply), x, w)
    weight = jax.ShapeDtypeStruct((MODELS, B), jnp.float32)

    def norms_and_sum(x, g, w, weight_U):
        parts = op.residue(x, g, B)
        return op.squares(parts), op.gradient(parts, weight_U, w)

    def scanned(*args):
        return lax.scan(lambda c, _: (c, norms_and_sum(*args)), 0, None, length=2)[1]

    for program in (norms_and_sum, scanned):
        closed = jax.make_jaxpr(jax.vmap(program))(x, g, w, weight)
        product_list = list(products(closed))
        assert all(full(precision) for _, precision in product_list), product_list
        assert product_list or name == "scale"
        squares_MU, sum_M = closed.out_avals
        assert squares_MU.dtype == sum_M.dtype == jnp.float32


@pytest.mark.parametrize("batched", ["one model", "fleet"])
@pytest.mark.parametrize("rule", ["flat", "per_layer"])
def test_both_passes_of_tapped_are_full_float32(rule, batched):
    """The epoch is traced first and batched over models later, which must keep the precision."""
    model = small_cnn.make(num_classes=3)
    pool = Pool(x=jnp.zeros((B, 28, 28, 1)), y=jnp.zeros(B, jnp.int32), task=classification(3))
    variables = jax.eval_shape(model.init, jax.random.key(0), pool.x)
    losses = backprop.losses_of(
        cross_entropy.make(model=model), jax.tree.map(lambda _: None, variables["params"])
    )
    how = dict(units=B, rule=clipping.rule(rule), clip=1.0, method="tapped")

    def epoch(params):
        def step(params, _):
            rows = (
                backprop.rows(pool, jnp.arange(B), jnp.ones(B)),
                backprop.slot_keys(jax.random.key(0), B),
            )
            return gradients.clipped_sum(losses, params, rows, jnp.ones(B), **how).total, None

        return lax.scan(step, params, None, length=2)[0]

    params = variables["params"]
    if batched == "fleet":
        params = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((MODELS, *leaf.shape), leaf.dtype), params
        )
        epoch = jax.vmap(epoch)
    product_list = list(products(jax.make_jaxpr(epoch)(params)))
    assert len(product_list) > 6
    assert all(full(precision) for _, precision in product_list), product_list


def test_the_sum_of_the_reference_is_full_float32():
    """The objective has no product, so those of the clipped sum are the only ones."""

    def losses(params, taps, rows):
        return jnp.square(params["w"][None] * rows).sum(1), {}

    how = dict(units=B, rule=clipping.rule("flat"), clip=1.0)
    for method in ("vmap", "scan"):

        def total(w, rows, weight_B, method=method):
            return gradients.clipped_sum(
                losses, dict(w=w), rows, weight_B, method=method, **how
            ).total

        w, rows, weight = jnp.zeros((MODELS, 5)), jnp.zeros((MODELS, B, 5)), jnp.zeros((MODELS, B))
        product_list = list(products(jax.make_jaxpr(jax.vmap(total))(w, rows, weight)))
        assert product_list and all(full(precision) for _, precision in product_list), product_list
