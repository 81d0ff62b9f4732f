"""The classic demonstrations, each with the number it is known for: regression, weight decay, the perceptron and XOR, dropout, gradients through depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.data import linear, xor
from mia_jax.learners import backprop
from mia_jax.models import layers
from mia_jax.types import Pool

KEY = jax.random.key(0)
once = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def trained(pools, *, model, objective, train, epochs, **fields):
    """Parameters and final sums of one run a pool, each on its first `train` rows, in one program; (learner, parameters, x of all pools)."""
    x, y = np.stack([p.x for p in pools]), np.stack([p.y for p in pools])
    built = registry.make("models", model[0], model[1] | dict(num_classes=pools[0].num_classes))
    loss = registry.make("objectives", objective[0], objective[1], model=built)
    learner = backprop.make(model=built, loss=loss, num_rows=train, optimizer="sgd", epochs=epochs, **fields)
    rows, weight = jnp.arange(train), jnp.ones(train)

    def run(key, x, y):
        pool = Pool(x=x, y=y, num_classes=pools[0].num_classes)

        def epoch(state, number):
            plan = learner.plan(key, number, rows, weight)
            state, sums = learner.epoch(state, pool, *plan)
            return state, sums["loss"] / sums["weight"]

        state, loss_E = jax.lax.scan(epoch, learner.init(key, pool), jnp.arange(epochs))
        return state.variables, loss_E

    variables, loss_E = jax.jit(jax.vmap(run))(jax.random.split(KEY, len(pools)), x, y)
    return built, variables, np.asarray(loss_E), x, y


def mean_loss(built, variables, x, y, rows):
    """(z - y)^2 over the rows, one number a run."""
    out, _ = jax.vmap(built.apply)(variables, x[:, rows])
    return np.square(np.asarray(out)[..., 0] - y[:, rows]).mean(1)


def test_linear_regression_finds_its_weights_in_three_epochs():
    pools = [linear.load(seed=s) for s in range(10)]
    model, objective = ("linear", {}), ("squared", dict(factor=0.5))
    _, variables, loss_E, _, _ = trained(pools, model=model, objective=objective, train=1000, epochs=3, learning_rate=0.03, batch_size=10)
    dense = variables["params"]["Dense_0"]
    assert np.abs(np.asarray(dense["kernel"])[..., 0] - [2, -3.4]).max() < 2e-3
    assert np.abs(np.asarray(dense["bias"]) - 4.2).max() < 2e-3
    assert loss_E[:, 2].max() < 1e-4 and loss_E[:, 2].mean() == pytest.approx(5e-5, rel=0.2)  # half of the noise's variance, .01^2


@pytest.mark.parametrize("decay,norm,train_loss,test_loss", [(0, (11.6, 14.0), (0, 1e-4), (40, 150)), (3, (0.31, 0.38), (5e-4, 3e-3), (0.05, 0.12))])
def test_weight_decay_of_200_weights_on_20_examples(decay, norm, train_loss, test_loss):
    pools = [linear.load(examples=120, features=200, weights=0.01, bias=0.05, seed=s) for s in range(10)]
    fields = dict(train=20, epochs=100, learning_rate=0.003, batch_size=5, l2=decay / 2)
    built, variables, _, x, y = trained(pools, model=("linear", dict(init="unit_normal")), objective=("squared", {}), **fields)
    length = np.linalg.norm(np.asarray(variables["params"]["Dense_0"]["kernel"])[..., 0], axis=1)
    own, others = (mean_loss(built, variables, x, y, rows) for rows in (slice(0, 20), slice(20, 120)))
    print(decay, length.min(), length.max(), length.mean(), own.mean(), others.mean())
    for values, (low, high) in ((length, norm), (own, train_loss), (others, test_loss)):
        assert low <= values.mean() <= high
