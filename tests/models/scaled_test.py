"""models/scaled: logits over a fitted temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mia_jax.learners import _parameters
from mia_jax.models import mlp, scaled
from mia_jax.types import Model
from tests import toys


def test_logits_are_those_of_the_body_divided_by_the_temperature():
    body, net = mlp.make(num_classes=3), scaled.make(num_classes=3)
    x = jax.random.normal(jax.random.key(1), (5, 4))
    variables = net.init(jax.random.key(0), x)
    z_BC = body.apply(body.init(jax.random.key(0), x), x)[0]
    np.testing.assert_array_equal(net.apply(variables, x)[0], z_BC)
    variables["params"]["temperature"]["p"] = jnp.float32(np.log(4) / scaled.PACE)
    np.testing.assert_allclose(net.apply(variables, x)[0], z_BC / 4, rtol=1e-5)
    np.testing.assert_array_equal(
        net.inside(variables, x)["penultimate"],
        body.inside(body.init(jax.random.key(0), x), x)["penultimate"],
    )
    with pytest.raises(ValueError, match=r"model\.body"):
        scaled.make(num_classes=3, body=dict(widths=(4,)))


def test_members_train_the_body_and_the_extra_rows_the_temperature():
    """The body is that of the plain run; T is where the loss of the extra rows is least."""
    pool, body = toys.pool(examples=60), dict(name="mlp", widths=(16,))
    fields = dict(num_rows=40, batch_size=20, learning_rate=1e-2)
    rows = jnp.arange(60), jnp.concatenate([jnp.ones(40), jnp.zeros(20)])

    def trained(learner):
        state = learner.init(jax.random.key(3), pool)
        epoch, plan = jax.jit(learner.epoch), jax.jit(learner.plan)
        for e in range(1, learner.epochs + 1):
            key = jax.random.fold_in(jax.random.key(5), e)
            state = epoch(state, pool, *plan(key, jnp.int32(e), *rows))[0]
        return state.variables["params"]

    plain = trained(
        toys.learner(model=mlp.make(num_classes=3, widths=(16,)), num_extra=20, epochs=30, **fields)
    )
    net = scaled.make(num_classes=3, body=body)
    phases = dict(train_on="members_then_extra", members_epochs=30, num_extra=20, epochs=90)
    both = trained(toys.learner(model=net, extra_trainable="temperature/", **phases, **fields))
    t = float(jnp.exp(scaled.PACE * both.pop("temperature")["p"]))
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    z_BC = np.asarray(mlp.make(num_classes=3, widths=(16,)).apply(dict(params=plain), pool.x)[0])

    def loss(log_t):
        z = jnp.asarray(z_BC[40:]) / np.exp(log_t)
        return -float(jax.nn.log_softmax(z)[jnp.arange(20), pool.y[40:]].mean())

    best = scipy.optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded")
    assert np.log(t) == pytest.approx(best.x, abs=0.05) and abs(best.x) > 0.2
    with pytest.raises(ValueError, match=r"learner\.trainable"):
        toys.learner(extra_trainable="temperature/")


@pytest.mark.parametrize(("pattern", "hit"), [("nope", "no"), ("", "every"), ("a|b", "every")])
def test_a_pattern_that_leaves_one_phase_without_parameters_is_refused(pattern, hit):
    tree = dict(a=jnp.zeros(2), b=jnp.zeros(2))
    with pytest.raises(ValueError, match=rf"learner\.extra_trainable='.*' matches {hit} trained"):
        _parameters.where(pattern, tree, tree, matching=True)


def test_statistics_of_the_members_stay_while_the_extra_rows_train():
    """The statistics count the steps: 2 epochs of 2 batches of members, none of extra rows."""

    def init(key, x):
        return dict(
            params=dict(w=jnp.ones((5, 3)), p=jnp.zeros(3)), stats=dict(steps=jnp.zeros(()))
        )

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        params, steps = variables["params"], variables["stats"]["steps"]
        return x @ params["w"] + params["p"][None], dict(steps=steps + train)

    learner = toys.learner(
        model=Model(init, apply, lambda x: ""),
        train_on="members_then_extra",
        members_epochs=2,
        epochs=5,
        num_rows=20,
        num_extra=10,
        batch_size=10,
        extra_trainable="p",
    )
    pool, weight = toys.pool(examples=30), jnp.concatenate([jnp.ones(20), jnp.zeros(10)])
    state, seen = learner.init(jax.random.key(0), pool), []
    epoch = jax.jit(learner.epoch)
    for e in range(1, 6):
        rows = learner.plan(jax.random.key(e), e, jnp.arange(30), weight)
        state = epoch(state, pool, *rows)[0]
        seen.append(float(state.variables["stats"]["steps"]))
    assert seen == [2, 4, 4, 4, 4]
