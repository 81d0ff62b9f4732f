"""Tests training of a part of a net: low-rank adapters of a frozen body, and named parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax.learners import _adapters as adapters
from mia_jax.learners import _parameters as parameters
from mia_jax.learners import backprop
from mia_jax.models import layers, mlp
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import clipping, gradients
from tests import toys

B, RANK = 6, 2


class Net(nn.Module):
    """Has a convolution and a dense layer, [B,4,4,1] -> [B,3]."""

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        h = jnp.tanh(layers.Conv(5, (3, 3), strides=2)(x))
        return layers.Dense(3)(layers.flatten(h))


@pytest.fixture(scope="module")
def case():
    """Returns (the model with adapters, its variables with non-zero adapters, x, y)."""
    model = adapters.adapted(layers.as_model(Net()), rank=RANK, layers="")
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(B, 4, 4, 1)), jnp.float32)
    variables = model.init(jax.random.key(0), x[:1])
    flat = parameters.paths(variables["params"])
    for path in flat:
        if path.endswith("up"):
            flat[path] = jnp.asarray(0.3 * rng.normal(size=flat[path].shape), jnp.float32)
    return model, {"params": parameters.nested(flat)}, x, jnp.asarray(rng.integers(0, 3, B))


def test_adapters_are_low_rank_changes_of_the_kernels_and_start_at_zero(case):
    """Answers are those of the net with kernels W + A B; at the start they are those of W."""
    model, variables, x, _ = case
    plain = layers.as_model(Net())
    start = model.init(jax.random.key(0), x[:1])
    body = plain.init(jax.random.key(0), x[:1])
    np.testing.assert_array_equal(model.apply(start, x)[0], plain.apply(body, x)[0])
    flat, merged = parameters.paths(variables["params"]), {}
    assert flat["Conv_0/adapter_down"].shape == (3, 3, 1, RANK)
    assert flat["Dense_0/adapter_up"].shape == (RANK, 3)
    for path, leaf in flat.items():
        layer, _, name = path.rpartition("/")
        if name == "kernel":
            leaf = leaf + flat[f"{layer}/adapter_down"] @ flat[f"{layer}/adapter_up"]
        if not name.startswith("adapter"):
            merged[path] = leaf
    np.testing.assert_allclose(
        model.apply(variables, x)[0],
        plain.apply({"params": parameters.nested(merged)}, x)[0],
        atol=1e-5,
    )


def test_the_first_factor_starts_with_variance_one_over_the_fan_in():
    """4,000 normals: their mean square is within 10% of 1/1000 in all but one of 10^5 draws."""
    net = adapters.adapted(mlp.make(num_classes=8, widths=()), rank=4, layers="")
    down = net.init(jax.random.key(3), jnp.zeros((1, 1000)))["params"]["Dense_0"]["adapter_down"]
    assert down.shape == (1000, 4)
    assert 900 < 1e6 * float(jnp.square(down).mean()) < 1100


@pytest.mark.parametrize(
    "pattern", [adapters.PATTERN, pytest.param("Dense_0/kernel", marks=pytest.mark.slow)]
)
def test_clipped_gradients_are_those_of_the_trained_part_alone(case, pattern):
    """Norms and sums are those of a loop over examples, in which no frozen parameter counts."""
    model, variables, x, y = case
    loss = cross_entropy.make(model=model)
    chosen, frozen = parameters.split(variables["params"], pattern)
    pool = toys.pool(examples=B)
    pool = type(pool)(x=x, y=y, task=pool.task)
    rows = backprop.rows(pool, jnp.arange(B), jnp.ones(B)), None

    def single(chosen, b):
        batch = backprop.rows(pool, b[None], jnp.ones(1))
        params = parameters.merge(chosen, frozen)
        return loss({"params": params}, batch, train=True)[0][0]

    each = jax.jit(jax.vmap(jax.grad(single), (None, 0)))(chosen, jnp.arange(B))
    each = jax.tree.map(np.asarray, each)
    norm_B = np.sqrt(sum(np.square(g).reshape(B, -1).sum(1) for g in jax.tree.leaves(each)))
    clip = float(np.median(norm_B))
    factor_B = np.minimum(1, clip / norm_B)
    expected = jax.tree.map(lambda g: np.tensordot(factor_B, g, 1), each)
    losses = backprop.losses_of(loss, frozen)
    assert gradients.untapped(losses, chosen, rows) == ""
    how = dict(units=B, rule=clipping.rule("flat"), clip=clip)
    for method in ("bookkeeping", "vmap"):

        @jax.jit
        def total(chosen, method=method):
            return gradients.clipped_sum(losses, chosen, rows, jnp.ones(B), method=method, **how)

        actual = total(chosen)
        np.testing.assert_allclose(actual.norm_U, norm_B, rtol=1e-4)
        pairs = zip(*map(jax.tree.leaves, (actual.total, expected)), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def learner(model, initial, **fields):
    pool = toys.pool(examples=20)
    return pool, backprop.make(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=20,
        sample=pool,
        initial=initial,
        batch_size=10,
        epochs=1,
        **dict(optimizer="sgd", adapter_rank=RANK) | fields,
    )


def body(model):
    params = model.init(jax.random.key(3), toys.pool().x[:1])["params"]
    return {path: np.asarray(leaf) for path, leaf in parameters.paths(params).items()}


def test_private_training_moves_adapters_and_adds_noise_to_nothing_else():
    model = mlp.make(num_classes=3, widths=(6,))
    start = body(model)
    privacy = dict(sampling="shuffle", adjacency="zero_out", delta=1e-3, noise_multiplier=2.0)
    pool, trainee = learner(
        model, start, adapter_layers="Dense_0", gradient="private", privacy=privacy
    )
    assert trainee.guarantee.method == "bookkeeping"
    state = trainee.init(jax.random.key(0), pool)
    plan = trainee.plan(jax.random.key(1), jnp.uint32(1), jnp.arange(20), jnp.ones(20))
    after, _ = jax.jit(trainee.epoch)(state, pool, *plan)
    flat = parameters.paths(after.variables["params"])
    assert set(flat) == {*start, "Dense_0/adapter_down", "Dense_0/adapter_up"}
    for path, leaf in start.items():
        np.testing.assert_array_equal(flat[path], leaf)
    first = parameters.paths(state.variables["params"])
    for name in ("down", "up"):
        moved = np.asarray(flat[f"Dense_0/adapter_{name}"] - first[f"Dense_0/adapter_{name}"])
        assert (moved != 0).all()  # noise reaches every coordinate
    shapes = jax.eval_shape(trainee.model.init, jax.random.key(0), pool.x[:1])["params"]
    assert set(parameters.paths(shapes)) == set(flat)  # queries find the adapters


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(initial={}), "learner.init_from"),
        (dict(adapter_rank=0, adapter_layers="Dense"), "none with adapter_rank=0"),
        (dict(adapter_rank=5), "a rank of at most 3"),
        (dict(adapter_layers="Conv"), "matches no kernel; the kernels are Dense_0/kernel"),
        (dict(adapter_rank=-1), "adapter_rank"),
        (dict(model=toys.mlp()), "does not compute adapters"),
    ],
)
def test_adapters_that_cannot_be_are_refused(fields, words):
    model = fields.pop("model", mlp.make(num_classes=3, widths=(6,)))
    initial = fields.pop("initial", body(model))
    with pytest.raises(ValueError, match=words):
        pool, trainee = learner(model, initial, **fields)
        trainee.init(jax.random.key(0), pool)
