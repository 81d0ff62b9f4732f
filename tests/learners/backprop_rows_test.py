"""Training on all shifts of an image, and on the extra rows of a design."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax.designs import halves
from mia_jax.learners import backprop
from mia_jax.objectives import cross_entropy
from mia_jax.query_views import make as views
from mia_jax.types import Batch, Model, classification
from tests import toys


def image_model():
    """Returns a linear net on 3x3 images whose variables are its kernel."""
    return Model(
        init=None,
        apply=lambda v, x, **_: (x.reshape(len(x), -1) @ v["params"], {}),
        summary=None,
    )


def test_the_loss_under_shifts_is_the_mean_over_all_of_them():
    model, rng = image_model(), np.random.default_rng(0)
    variables = dict(params=jnp.asarray(rng.normal(size=(9, 2)), jnp.float32))
    batch = Batch(
        x=jnp.asarray(rng.random((4, 3, 3, 1)), jnp.float32),
        y=jnp.asarray([0, 1, 1, 0]),
        task=classification(2),
        weight_B=jnp.ones(4),
        index_B=jnp.arange(4),
    )
    plain = cross_entropy.make(model=model)
    loss_B, aux = backprop.over_shifts(plain, 1)(variables, batch, train=True)
    each = [
        plain(variables, dataclasses.replace(batch, x=view(batch.x)))
        for view in views(["identity", "shift:1,0", "shift:0,-1", "shift:-1,0", "shift:0,1"])
    ]
    np.testing.assert_allclose(loss_B, np.mean([loss for loss, _ in each], 0), rtol=1e-5)
    right = np.mean([other.metrics["accuracy"] for _, other in each], 0)
    np.testing.assert_allclose(aux.metrics["accuracy"], right)
    clean = backprop.over_shifts(plain, 1)(variables, batch, train=False)[0]
    np.testing.assert_array_equal(clean, plain(variables, batch)[0])
    with pytest.raises(ValueError, match=r"learner\.shifts=1 moves images"):
        flat = dataclasses.replace(batch, x=batch.x.reshape(4, 9))
        backprop.over_shifts(plain, 1)(variables, flat, train=True)


def test_models_of_extra_rows_see_no_member():
    learner = toys.learner(num_rows=20, num_extra=10, train_on="extra", batch_size=4)
    rows, weight = jnp.arange(30), jnp.concatenate([jnp.ones(20), jnp.zeros(10)])
    index_SB, weight_SB = learner.plan(jax.random.key(0), 1, rows, weight)
    seen = np.asarray(index_SB)[np.asarray(weight_SB) > 0]
    assert sorted(seen.tolist()) == list(range(20, 30))
    with pytest.raises(ValueError, match=r"design\.extra=0.2"):
        toys.learner(train_on="extra")


def test_pre_training_rows_are_seen_in_the_first_epochs_and_extra_rows_afterwards():
    """The phase of fewer batches has empty ones, which change nothing."""
    fields = dict(num_rows=20, num_extra=10, train_on="members_then_extra", batch_size=4)
    learner, pool = toys.learner(**fields, members_epochs=2, epochs=3), toys.pool(examples=30)
    rows, weight = jnp.arange(30), jnp.concatenate([jnp.ones(20), jnp.zeros(10)])
    seen = []
    for epoch in (1, 2, 3):
        index_SB, weight_SB = learner.plan(jax.random.key(0), epoch, rows, weight)
        seen.append(sorted(np.asarray(index_SB)[np.asarray(weight_SB) > 0].tolist()))
    assert seen == [list(range(20)), list(range(20)), list(range(20, 30))]
    before = learner.init(jax.random.key(0), pool)
    empty = jnp.zeros_like(index_SB), jnp.zeros_like(weight_SB)
    assert toys.same(jax.jit(learner.epoch)(before, pool, *empty)[0].variables, before.variables)
    with pytest.raises(ValueError, match="members_epochs=0 is the number of the first epochs"):
        toys.learner(**fields)
    with pytest.raises(ValueError, match="two phases"):
        toys.learner(**fields, members_epochs=2, gradient="private")


def test_members_are_trained_on_as_without_extra_rows():
    plain, beside = toys.learner(num_rows=20), toys.learner(num_rows=20, num_extra=10)
    rows, weight = jnp.arange(30), jnp.concatenate([jnp.ones(20), jnp.zeros(10)])
    for a, b in zip(
        plain.plan(jax.random.key(0), 3, rows[:20], weight[:20]),
        beside.plan(jax.random.key(0), 3, rows, weight),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_halves_keep_extra_rows_out_of_everything_and_targets_apart():
    make = dict(num_examples=101, seed=3, models=8)
    design = halves.make(**make, extra=0.2, targets=(0, 2), apart=True)
    extra_N = design.extra_MN[0]
    assert 20 <= extra_N.sum() <= 21 and (design.extra_MN == extra_N).all()
    assert not (design.member_MN | design.evaluated_MN)[:, extra_N].any()
    assert not design.population_N[extra_N].any()
    others = ~(extra_N | design.population_N)
    np.testing.assert_array_equal(design.member_MN[0] ^ design.member_MN[1], others)
    assert not design.shadow_MM[:, :4].any()
    assert np.flatnonzero(design.shadow_MM[0]).tolist() == [4, 5, 6, 7]
    plain, same = halves.make(**make), halves.make(**make, extra=0.0)
    np.testing.assert_array_equal(plain.member_MN, same.member_MN)
    assert plain.extra_MN is None and plain.shadow_MM[1, 2]
    with pytest.raises(ValueError, match="leaves a model without shadows"):
        halves.make(**make, apart=True)
