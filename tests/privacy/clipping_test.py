"""Compares every method of clipped sums with a loop over examples, optax and jax-privacy.

Padding and nonfinite gradients must add exactly nothing.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax_privacy
import numpy as np
import optax
import pytest

from mia_jax import registry
from mia_jax.learners import backprop
from mia_jax.models import half_image, layers
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import clipping, gradients
from tests import toys

METHODS = ("vmap", "scan", "tapped", "bookkeeping")
B = 6


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = layers.dropout(jnp.tanh(layers.Dense(7)(layers.flatten(x))), key_B, 0.5, 0)
        return layers.Dense(3)(x)


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = jnp.tanh(layers.GroupNorm(2)(layers.Conv(4, padding="SAME")(x)))
        x = layers.Conv(5, window=(2, 3), strides=(2, 1), padding="VALID")(x)
        return layers.Dense(3)(layers.flatten(jnp.tanh(x)))


class Shared(nn.Module):
    """Applies one layer to all positions of a sequence.

    Its weights are shared, and the gradients of the positions of one example add.
    """

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = layers.LayerNorm()(layers.Dense(4)(x.reshape(len(x), 4, -1)))
        return layers.Dense(3)(jnp.tanh(x).mean(1))


class Embedded(nn.Module):
    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        return layers.Dense(3)(layers.Embedding(5, 4)(x).sum(1))


class Attentive(nn.Module):
    """Computes one head of self-attention: queries, keys and values of the same positions."""

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = x.reshape(len(x), 4, -1)
        q, k, v = (layers.Dense(5)(x) for _ in range(3))
        mixed = jax.nn.softmax(q @ k.mT / np.sqrt(5)) @ v
        return layers.Dense(3)(jnp.tanh(mixed).reshape(len(x), -1))


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        layer = layers.Dense(12)
        return layers.Dense(3)(layer(jnp.tanh(layer(layers.flatten(x)))))


class Raw(nn.Module):
    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        return layers.Dense(3)(nn.LayerNorm()(layers.flatten(x)))


class Penalized(nn.Module):
    """Reads the kernel of a tapped layer a second time, which the tap cannot see."""

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        layer = layers.Dense(3)
        y = layer(layers.flatten(x))
        return y * jnp.square(layer.variables["params"]["kernel"]).sum()


def images(seed=0, shape=(4, 4, 1)):
    return jax.random.normal(jax.random.key(seed), (B, *shape))


CASES = dict(
    dropout=(Dropped(), images()),
    conv_group_norm=(Normalized(), images(1, (5, 6, 2))),
    shared_layer_norm=(Shared(), images(2, (12,))),
    attention=(Attentive(), images(6, (12,))),
    embedding=(
        Embedded(),
        jax.random.randint(jax.random.key(3), (B, 6), 0, 5),
    ),  # numbers repeat within an example
)


@functools.cache
def setting(name):
    """Returns (losses, params, rows) of a case, with one PRNG key per example."""
    module, x = CASES[name] if isinstance(name, str) else (name, images(shape=(12,)))
    model = layers.as_model(module)
    params = jax.tree.map(
        lambda p: p + 0.1, model.init(jax.random.key(4), x)["params"]
    )  # scales and biases away from 1 and 0
    batch = toys.batch(x, jnp.arange(B) % 3)
    losses = backprop.losses_of(
        cross_entropy.make(model=model), jax.tree.map(lambda _: None, params)
    )
    return losses, params, (batch, backprop.slot_keys(jax.random.key(5), B))


@functools.cache
def each_gradient(name):
    """Returns the gradients of the examples of a case, one after the other, as {leaf: [B,...]}."""
    losses, params, rows = setting(name)
    gradient = jax.jit(lambda row: jax.grad(lambda p: losses(p, {}, row)[0].sum())(params))
    unit_gradients = [gradient(jax.tree.map(lambda a, b=b: a[b : b + 1], rows)) for b in range(B)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *unit_gradients)


def norms(gradient):
    return np.sqrt(
        sum(
            np.square(leaf).reshape(B, -1).sum(1)
            for leaf in map(np.asarray, jax.tree.leaves(gradient))
        )
    )


def close(a, b, tolerance=1e-5):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=str(path))


@functools.cache
def program(losses, method, rule, units, physical_units):
    """Returns the clipped sum as one compiled program of (params, rows, weight_B, clip)."""
    how = dict(units=units, rule=clipping.rule(rule), method=method, physical_units=physical_units)
    return jax.jit(
        lambda params, rows, weight_B, clip: gradients.clipped_sum(
            losses, params, rows, weight_B, clip=clip, **how
        )
    )


def clipped(case, method, clip, rule="flat", *, weight_B=None, units=B, physical_units=0):
    losses, params, rows = case
    return program(losses, method, rule, units, physical_units)(
        params, rows, jnp.ones(B) if weight_B is None else weight_B, clip
    )


@pytest.mark.parametrize(
    "name, method",
    [
        pytest.param(
            name,
            method,
            marks=pytest.mark.slow
            if method in ("vmap", "scan") and name not in ("dropout", "conv_group_norm")
            else (),
        )
        for name in CASES
        for method in METHODS
    ],
)
def test_every_method_equals_a_loop_over_examples_and_optax(name, method):
    """What taps and bookkeeping compute depends on the layers, so the fast tests have all nets of
    them; vmap and scan know nothing of layers and have two.
    """
    case = setting(name)
    gradient = each_gradient(name)
    clip = float(np.median(norms(gradient)))  # half of the examples are clipped
    actual = clipped(case, method, clip)
    factor_B = np.minimum(1, clip / norms(gradient))
    close(actual.total, jax.tree.map(lambda g: np.tensordot(factor_B, g, 1), gradient))
    np.testing.assert_allclose(actual.norm_U, norms(gradient), rtol=1e-4)
    close(actual.total, optax.per_example_global_norm_clip(gradient, clip)[0])


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("dropout", "embedding") else pytest.mark.slow)
        for name in CASES
    ],
)
def test_the_reference_equals_jax_privacy(name):
    losses, params, rows = case = setting(name)
    clip = float(np.median(norms(each_gradient(name))))
    other = jax_privacy.clipped_grad(
        lambda p, row: losses(p, {}, row)[0].sum(), argnums=0, l2_clip_norm=clip, batch_argnums=(1,)
    )
    close(clipped(case, "vmap", clip).total, jax.jit(other)(params, rows))


def test_without_a_bound_the_sum_is_the_ordinary_gradient():
    losses, params, rows = case = setting("conv_group_norm")
    gradient = jax.jit(jax.grad(lambda p: losses(p, {}, rows)[0].sum()))(params)
    for method in METHODS:
        close(clipped(case, method, jnp.inf).total, gradient)


@pytest.mark.parametrize(
    "rule, method",
    [(r, "bookkeeping") for r in clipping.RULES] + [("per_layer", "tapped"), ("per_layer", "scan")],
)
@pytest.mark.parametrize(
    "name", ["dropout", pytest.param("conv_group_norm", marks=pytest.mark.slow)]
)
def test_every_rule_is_the_same_by_every_method(name, rule, method):
    case = setting(name)
    close(clipped(case, method, 0.3, rule).total, clipped(case, "vmap", 0.3, rule).total)


@pytest.mark.parametrize("rule", clipping.RULES)
def test_a_unit_adds_at_most_the_rules_bound(rule):
    """Tests examples with huge, tiny and ordinary gradients, each in a batch of padding."""
    losses, params, (batch, keys) = setting("dropout")
    for scale in (1e-20, 1.0, 1e6):
        rows = (dataclasses.replace(batch, x=batch.x * scale), keys)
        for clip in (0.01, 3.0):
            total = clipped(
                (losses, params, rows), "vmap", clip, rule, weight_B=jnp.zeros(B).at[2].set(1)
            ).total
            norm = float(jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(total))))
            assert norm <= clipping.rule(rule).bound(clip) * (1 + 1e-5), (rule, scale, clip)


EDGES = dict(huge=1e12, tiny=1e-30, denormal=1e-42, zero=0.0, nan=jnp.nan, infinite=jnp.inf)


@pytest.mark.parametrize(
    "method, dtype",
    [
        *((method, jnp.float32) for method in METHODS),
        ("bookkeeping", jnp.bfloat16),
        *(
            pytest.param(method, jnp.bfloat16, marks=pytest.mark.slow)
            for method in ("vmap", "scan", "tapped")
        ),
    ],
)
def test_neighbors_differ_by_at_most_the_sensitivity(method, dtype):
    """Example 2 is removed, or replaced by one of several extreme examples.

    These have a zero gradient, an ordinary gradient of the other sign, or are edge cases.
    """
    losses, params, (batch, keys) = setting("conv_group_norm")
    clip = 0.05  # below every norm: each example adds all that it may

    def total(x, weight_B=None):
        rows = (dataclasses.replace(batch, x=x.astype(dtype)), keys)
        return clipped(
            (losses, params, rows),
            method,
            clip,
            weight_B=jnp.ones(B) if weight_B is None else weight_B,
        ).total

    def distance(a, b):
        return np.sqrt(
            sum(
                np.square(np.asarray(x, np.float64) - y).sum()
                for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
            )
        )

    whole, without = total(batch.x), total(batch.x, jnp.ones(B).at[2].set(0))
    assert clip * 0.99 < distance(whole, without) <= clip * (1 + 1e-5)
    for value in (*EDGES.values(), -batch.x[2]):
        other = total(batch.x.at[2].set(value))
        assert distance(other, without) <= clip * (1 + 1e-5) and distance(
            other, whole
        ) <= 2 * clip * (1 + 1e-5), value


@pytest.mark.parametrize("method", ["vmap", "scan"])
def test_a_layer_that_is_called_twice_is_exact_without_taps(method):
    case = setting(Twice())
    gradient = each_gradient(Twice())
    factor_B = np.minimum(1, 0.5 / norms(gradient))
    close(
        clipped(case, method, 0.5).total,
        jax.tree.map(lambda g: np.tensordot(factor_B, g, 1), gradient),
    )


def test_factors_of_the_rules_by_hand():
    squares, sizes = (
        {"a/w": jnp.array([9.0, 0.0]), "a/b": jnp.array([0.0, 0.0]), "c/w": jnp.array([16.0, 0.0])},
        {"a/w": 2, "a/b": 1, "c/w": 9},
    )
    factors = {name: clipping.rule(name).factors(squares, 1.0, sizes) for name in clipping.RULES}
    for name in ("flat", "adaptive", "normalized"):
        np.testing.assert_allclose(factors[name]["c/w"][0], 0.2)  # |g| = 5
    np.testing.assert_allclose(factors["flat"]["a/w"][1], 1.0)  # a zero gradient stays
    np.testing.assert_allclose(factors["automatic"]["a/b"], [1 / 5.01, 100.0])
    np.testing.assert_allclose(factors["per_layer"]["a/b"][0], np.sqrt(1 / 2) / 3, rtol=1e-6)
    np.testing.assert_allclose(
        factors["per_layer_by_size"]["a/w"][0], np.sqrt(3 / 12) / 3, rtol=1e-6
    )
    np.testing.assert_allclose(
        factors["per_layer_by_size"]["c/w"][0], np.sqrt(9 / 12) / 4, rtol=1e-6
    )
    moved = clipping.moved_clip(
        2.0, within_count=1.0, noise=0.5, expected_batch=10, quantile=0.5, rate=0.2
    )
    np.testing.assert_allclose(moved, 2 * np.exp(-0.2 * 0.15), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("method", METHODS)
def test_a_nonfinite_example_and_padding_add_exactly_nothing(method, bad):
    losses, params, (batch, keys) = setting("conv_group_norm")
    weight_B = jnp.ones(B).at[5].set(0)
    good = clipped((losses, params, (batch, keys)), method, 0.5, weight_B=weight_B.at[1].set(0))
    x = batch.x.at[1].set(bad if not np.isfinite(bad) else jnp.nan).at[5].set(bad)
    spoiled = (dataclasses.replace(batch, x=x), keys)
    actual = clipped((losses, params, spoiled), method, 0.5, weight_B=weight_B)
    assert list(np.asarray(actual.counted_U)) == [True, False, True, True, True, False]
    assert list(np.asarray(actual.real_U)) == [True] * 5 + [False]
    close(actual.total, good.total, 1e-6)
    nothing = clipped((losses, params, spoiled), method, 0.5, weight_B=jnp.zeros(B))
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(nothing.total))


@pytest.mark.parametrize(
    "physical_units, method",
    [
        *((2, method) for method in METHODS),
        (1, "bookkeeping"),
        *(pytest.param(1, method, marks=pytest.mark.slow) for method in ("vmap", "scan", "tapped")),
    ],
)
def test_units_at_a_time_change_nothing(physical_units, method):
    case = setting("dropout")
    close(
        clipped(case, method, 0.3, physical_units=physical_units).total,
        clipped(case, method, 0.3).total,
        1e-6,
    )
    with pytest.raises(ValueError, match=r"physical_units=4 must divide the 6 units"):
        clipped(case, method, 0.3, physical_units=4)


@pytest.mark.parametrize("method", METHODS)
def test_the_rows_of_a_unit_are_averaged_before_clipping(method):
    """Tests two units of three rows; one row of the second unit is padding."""
    case = setting("shared_layer_norm")
    weight_B = jnp.ones(B).at[4].set(0)
    actual, expected = clipped(case, method, 0.2, weight_B=weight_B, units=2), 0.0
    gradient = each_gradient("shared_layer_norm")
    for unit_rows in ([0, 1, 2], [3, 5]):
        mean = jax.tree.map(
            lambda g, unit_rows=unit_rows: np.asarray(g)[unit_rows].mean(0), gradient
        )
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(mean)))
        part = jax.tree.map(lambda g, norm=norm: min(1, 0.2 / norm) * g, mean)
        expected = part if expected == 0.0 else jax.tree.map(np.add, expected, part)
    close(actual.total, expected)


@pytest.mark.parametrize("name", CASES)
def test_taps_see_every_parameter_of_these_nets(name):
    assert gradients.untapped(*setting(name)) == ""


@pytest.mark.parametrize(
    "name,fields,reason",
    [
        ("lenet_bn", dict(norm="group"), ""),
        ("resnet18", dict(norm="group", resize=0), ""),
        ("resnet18", dict(norm="layer", resize=0), ""),
        ("wide_resnet", dict(depth=10, width=1, norm="group"), ""),
        (
            "wide_resnet",
            dict(depth=10, width=1, norm="group", standardize=True),
            "has no tap",
        ),  # 'auto' takes vmap then
    ],
)
def test_which_image_nets_are_tapped(name, fields, reason):
    model, x = (
        registry.make("models", name, dict(fields), num_classes=3),
        jax.ShapeDtypeStruct((B, 28, 28, 1), jnp.float32),
    )
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    losses = backprop.losses_of(
        cross_entropy.make(model=model), jax.tree.map(lambda _: None, params)
    )
    batch = toys.batch(x, jnp.zeros(B, jnp.int32))
    why = gradients.untapped(losses, params, (batch, backprop.slot_keys(jax.random.key(5), B)))
    assert reason in why if reason else why == ""


@pytest.mark.parametrize(
    "module, why",
    [(Twice(), "used by 2"), (Raw(), "has no tap"), (Penalized(), "also used outside")],
)
def test_what_taps_do_not_see_is_found(module, why):
    assert why in gradients.untapped(*setting(module))


def test_a_raw_parameter_beside_tapped_layers_is_found():
    model = half_image.make(num_classes=3)
    x = images(shape=(12,))
    params = model.init(jax.random.key(0), x)["params"]
    losses = backprop.losses_of(
        cross_entropy.make(model=model), jax.tree.map(lambda _: None, params)
    )
    batch = toys.batch(x, jnp.zeros(B, jnp.int32))
    assert "bias has no tap" in gradients.untapped(
        losses, params, (batch, backprop.slot_keys(jax.random.key(5), B))
    )


def test_a_condition_stays_one_condition_for_a_fleet():
    """Tests bookkeeping under vmap over models, one of which has a bad example."""
    losses, params, (batch, keys) = setting("dropout")
    x_MB = jnp.stack([batch.x, batch.x.at[0].set(jnp.nan)])

    def total(x):
        rows = (dataclasses.replace(batch, x=x), keys)
        return clipped((losses, params, rows), "bookkeeping", 0.3).total

    together = jax.jit(jax.vmap(total))(x_MB)
    for m in range(2):
        close(jax.tree.map(lambda a, m=m: a[m], together), total(x_MB[m]), 1e-6)
